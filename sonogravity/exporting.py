"""A model as ONNX, and as int8 for OpenVINO: written only after it has labelled frames as the model does."""

import contextlib
import importlib.util
import io
import json
import logging
import os
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch

from sonogravity import evaluation, metrics, paths
from sonogravity.devices import decoding_threads
from sonogravity.errors import InputError, say, warn
from sonogravity.inference import folded, run_by_torch, to_label_maps
from sonogravity.pairs import find_input_pairs
from sonogravity.runs import digest_of_weights

IMAGES, LOGITS = "images", "logits"  # the names of the graph's input and output
ONNX, INT8 = ".onnx", ".int8.xml"  # in place of the checkpoint's .pth
LEAST_AGREEMENT = 0.999  # share of pixels that have the label of the model in float32
MOST_DICE_LOST = 0.005  # by int8, of any class
CALIBRATION_FRAMES = 300  # NNCF's own default


def in_float32(predictor):
    """The predictor by torch in float32: what all others are held against."""
    return predictor.using(run_by_torch(predictor.model), "torch", None)


def label_maps(predictor, frames):
    """Frames, one by one -> their (H, W) class indices."""
    return [to_label_maps(predictor.logits([frame]))[0] for frame in frames]


def agreement(ours, theirs):
    """Share of pixels of equal label in two lists of (H, W) class indices."""
    return float(np.mean(np.concatenate([(a == b).ravel() for a, b in zip(ours, theirs, strict=True)])))


def write_onnx(content, path):
    """Write (predictor, {name: text} to note inside) as ONNX: any number of frames, of any size, one file."""
    predictor, notes = content
    dynamic = torch.export.Dim.DYNAMIC
    example = torch.zeros(2, predictor.channels, 64, 48)  # a size of 1 would be taken for fixed
    with _quiet():
        graph = torch.export.export(
            folded(predictor.model), (example,), dynamic_shapes=({0: dynamic, 2: dynamic, 3: dynamic},)
        )
        program = torch.onnx.export(graph, (), dynamo=True, verbose=False, input_names=[IMAGES], output_names=[LOGITS])
        program.model.metadata_props.update(notes)
        program.save(path)


@contextlib.contextmanager
def _quiet():
    """The exporters' remarks on themselves are not for users."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def notes_of(predictor, checkpoint):
    """What another program needs to use an exported file rightly, and what tells us that it is of these weights."""
    return {
        "weights": digest_of_weights(predictor.model),
        "model": json.dumps({"name": checkpoint.model_name, **checkpoint.model_options}),
        "labels": json.dumps(predictor.labels.as_dict()),
        "scale": str(predictor.scale),
        "pixels": f"(N, {predictor.channels}, h, w) float32 in 0 to 1: 8-bit by 255, 16-bit by "
        f"{predictor.image_maximum or 'nothing: none was trained on'}",
    }


def find(path, model, suffix=ONNX):
    """The exported file beside a checkpoint, if it is of the model's very weights.

    Of ONNX files None where there is none; an int8 file is never made in passing, so InputError.
    """
    file = path.with_name(path.stem + suffix)
    if not file.is_file():
        if suffix == INT8:
            raise InputError(f"{file}: no such file; export.py --load {path} --int8 makes it")
        return None
    try:
        weights = _onnx_note(file) if suffix == ONNX else _openvino_note(file)
    except (RuntimeError, ValueError, LookupError) as error:
        raise InputError(f"{file}: cannot be read; remove it, or run export.py again") from error
    if weights == digest_of_weights(model):
        return file
    if suffix == INT8:
        raise InputError(f"{file}: is of other weights than {path}; run export.py --int8 again")
    say(f"{file.name}: is of other weights than {path.name}, so it is not used")
    return None


def _onnx_note(file):
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return {note.key: note.value for note in onnx.load(file).metadata_props}.get("weights")
    except DecodeError as error:
        raise ValueError from error


def import_openvino():
    """OpenVINO without the package by which it would report usage: it takes its own stub where that is missing."""
    sys.modules.setdefault("openvino_telemetry", None)
    import openvino

    return openvino


def _openvino_note(file):
    return import_openvino().Core().read_model(str(file)).get_rt_info(["sonogravity", "weights"]).value


def export_checkpoint(path, model_class, options):
    """What export.py does: read the checkpoint and the frames, check, and write the file beside the checkpoint."""
    from sonogravity import engines, scoring

    engines.check("openvino" if options.int8 else "onnx", torch.device("cpu"), options.int8)
    if options.int8 and importlib.util.find_spec("nncf") is None:
        raise InputError("--int8: lacks nncf; pip install -e '.[int8]' in the repository")
    predictor, checkpoint = scoring.open_predictor(
        path, model_class, device="cpu", amp=None, scale=options.scale, mask_values=options.mask_values
    )
    threads = decoding_threads(options.workers)

    def read(inputs, masks=None, most=None):
        pairs, notes = find_input_pairs(inputs, masks, partial=True)
        for note in notes:
            warn(note)
        chosen = pairs[:: -(-len(pairs) // most)] if most else pairs  # evenly, so that all subjects are seen
        return [frame for frame, _ in evaluation.read_frames(predictor, chosen, threads)]

    frames = read(options.input, options.masks)
    if not options.int8:
        _export_onnx(predictor, checkpoint, frames, path.with_name(path.stem + ONNX))
        return
    scored = [frame for frame in frames if frame.truth is not None]
    if not scored:
        raise InputError(f"{options.input[0]}: --int8 is allowed by its Dice, and no frame here has a mask")
    calibration = read(options.calibration, most=CALIBRATION_FRAMES)
    _export_int8(predictor, checkpoint, calibration, scored, path.with_name(path.stem + INT8))


def _export_onnx(predictor, checkpoint, frames, file):
    """Write the ONNX file, once ONNX Runtime labels the frames with it as float32 torch does; InputError where not."""
    from sonogravity import engines

    reference = label_maps(in_float32(predictor), frames)
    with paths.whole(file) as beside:
        write_onnx((predictor, notes_of(predictor, checkpoint)), beside)
        share = agreement(reference, label_maps(predictor.using(engines.onnx_network(beside), "onnx", None), frames))
        say(f"{share:.4%} of the labels of {len(frames)} frames are those of torch in float32")
        _refuse_below(share, LEAST_AGREEMENT, file, "of the labels agree")
    say(f"written: {file}")


def _refuse_below(found, least, file, what):
    if not found >= least:
        raise InputError(f"{file}: not written: {found:.4%} {what}, {least:.1%} is the least; use the checkpoint")


def _export_int8(predictor, checkpoint, calibration, frames, file):
    """Write an int8 model for OpenVINO (weights .bin beside), unless a class loses more than 0.005 of Dice.

    calibration: frames that set the ranges (post-training quantization, Jacob et al., arXiv 1712.05877, 2017).
    frames: with masks; the Dice is the mean over them, at native size, against that of float32 torch.
    """
    os.environ["NNCF_CI"] = "1"  # NNCF then sends no usage data
    openvino = import_openvino()
    import nncf

    from sonogravity import engines

    with tempfile.TemporaryDirectory() as folder, _quiet():
        whole = Path(folder) / "model.onnx"
        write_onnx((predictor, {}), whole)
        images = [predictor.images([frame]).contiguous().numpy() for frame in calibration]
        model = nncf.quantize(
            openvino.Core().read_model(whole),
            nncf.Dataset(images),
            subset_size=len(images),
            preset=nncf.QuantizationPreset.MIXED,
        )
    before = _dice(in_float32(predictor), frames)
    quantized = engines.openvino_network(model, predictor.amp)
    after = _dice(predictor.using(quantized, "openvino int8", predictor.amp), frames)
    labels = predictor.labels
    lost = {labels.names[c]: before[c] - after[c] for c in labels.foreground}
    say(
        "Dice, float32 and int8: "
        + ", ".join(f"{labels.names[c]} {before[c]:.4f} and {after[c]:.4f}" for c in labels.foreground)
    )
    bad = [f"{name} loses {loss:.4f}" for name, loss in lost.items() if not loss <= MOST_DICE_LOST]
    if bad:
        raise InputError(
            f"{file}: not written: {'; '.join(bad)} of Dice, {MOST_DICE_LOST} is the most; give more --calibration "
            "frames, or use the ONNX file"
        )
    for key, note in notes_of(predictor, checkpoint).items():
        model.set_rt_info(note, ["sonogravity", key])
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:  # two files: each is moved when both are whole
        openvino.save_model(model, Path(folder) / file.name, compress_to_fp16=False)
        for part in (file.with_suffix(".bin"), file):
            os.replace(Path(folder) / part.name, part)
    say(f"written: {file}")


def _dice(predictor, frames):
    """(C,) mean Dice of each class over the frames that have it."""
    results = evaluation.segment(predictor, frames, batch_size=1)
    return metrics.nan_mean([metrics.class_metrics(result.confusion)["dice"] for result in results], axis=0)
