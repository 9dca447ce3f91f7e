"""Export a checkpoint to ONNX or int8, if the exported model agrees with the checkpoint on frames."""

import importlib.util
import os
import tempfile
from pathlib import Path

import torch

from sonogravity.common import files, folders
from sonogravity.common.claims import claim_file
from sonogravity.common.messages import InputError, say, warn
from sonogravity.common.workers import decoding_threads
from sonogravity.datasets.inputs import find_input_pairs
from sonogravity.inference import engines, segmentation
from sonogravity.inference.exported import (
    INT8,
    LEAST_AGREEMENT,
    ONNX,
    agreement,
    import_openvino,
    in_float32,
    label_maps,
    notes_of,
    quiet,
    write_onnx,
)
from sonogravity.inference.predictor import open_predictor
from sonogravity.metrics import overlap
from sonogravity.modeling.checkpoints import find_checkpoint

MOST_DICE_LOST = 0.005  # by int8, in any class
CALIBRATION_FRAMES = 300  # NNCF's own default


def export_checkpoint(model_class, options):
    """Read the checkpoint and the frames, check the exported model, and write it beside the checkpoint."""
    path = find_checkpoint(options.load, folders.CHECKPOINTS / model_class.NAME)
    engines.check("openvino" if options.int8 else "onnx", torch.device("cpu"), options.int8)
    if options.int8 and importlib.util.find_spec("nncf") is None:
        raise InputError("--int8: needs nncf; run pip install -e '.[int8]' in the repository")
    predictor, checkpoint = open_predictor(
        path,
        model_class,
        device="cpu",
        amp=None,
        scale=options.scale,
        mask_values=options.mask_values,
        ignored=options.ignore,
        normalise=options.normalise,
    )
    threads = decoding_threads(options.workers)

    def read(inputs, masks=None, most=None):
        pairs, notes = find_input_pairs(inputs, masks, partial=True)
        for note in notes:
            warn(note)
        chosen = pairs[:: -(-len(pairs) // most)] if most else pairs  # evenly spaced, to include all subjects
        return [frame for frame, _ in segmentation.read_frames(predictor, chosen, threads)]

    inputs = options.input or [folders.DATA / "validation"]
    frames = read(inputs, options.masks)
    if not options.int8:
        file = path.with_name(path.stem + ONNX)
        with claim_file(file):
            _export_onnx(predictor, checkpoint, frames, file)
        return
    scored = [frame for frame in frames if frame.truth is not None]
    if not scored:
        raise InputError(f"{inputs[0]}: no frame has a mask, but --int8 is checked by Dice; give --masks")
    calibration = read(options.calibration_frames or [folders.DATA / "train"], most=CALIBRATION_FRAMES)
    file = path.with_name(path.stem + INT8)
    with claim_file(file):
        _export_int8(predictor, checkpoint, calibration, scored, file)


def _export_onnx(predictor, checkpoint, frames, file):
    """Write the ONNX file. Raise InputError instead if ONNX Runtime labels the frames unlike torch in float32."""

    reference = label_maps(in_float32(predictor), frames)
    with files.whole(file) as beside:
        write_onnx(beside, predictor, notes_of(predictor, checkpoint))
        share = agreement(reference, label_maps(predictor.using(engines.onnx_network(beside), "onnx", None), frames))
        say(f"{share:.4%} of the labels of {len(frames)} frames equal those of torch in float32")
        _refuse_below(share, LEAST_AGREEMENT, file, "of the labels agree")
    say(f"written: {file}")


def _refuse_below(found, least, file, what):
    if not found >= least:
        raise InputError(f"{file}: not written: only {found:.4%} {what}, {least:.1%} are needed; use the checkpoint")


def _export_int8(predictor, checkpoint, calibration, frames, file):
    """Write an int8 model for OpenVINO (.xml and .bin). Raise InputError if a class loses more than 0.005 of Dice.

    calibration: frames that set the ranges (post-training quantization, Jacob et al., arXiv 1712.05877, 2017).
    frames: frames with masks. Their mean Dice, at native size, is compared with that of torch in float32.
    """
    os.environ["NNCF_CI"] = "1"  # NNCF then sends no usage data
    openvino = import_openvino()
    import nncf

    with tempfile.TemporaryDirectory() as folder, quiet():
        whole = Path(folder) / "model.onnx"
        write_onnx(whole, predictor, {})
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
    bad = [f"class {name} loses {loss:.4f}" for name, loss in lost.items() if not loss <= MOST_DICE_LOST]
    if bad:
        raise InputError(
            f"{file}: not written: {', '.join(bad)} of Dice, at most {MOST_DICE_LOST} is allowed; give more "
            "--calibration-frames, or use the ONNX file"
        )
    for key, note in notes_of(predictor, checkpoint).items():
        model.set_rt_info(note, ["sonogravity", key])
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:  # both files are complete before either is moved
        openvino.save_model(model, Path(folder) / file.name, compress_to_fp16=False)
        for part in (file.with_suffix(".bin"), file):
            os.replace(Path(folder) / part.name, part)
    say(f"written: {file}")


def _dice(predictor, frames):
    """Return the (C,) mean Dice per class, over the frames in which it is defined."""
    results = segmentation.segment(predictor, frames, batch_size=1)
    return overlap.nan_mean([overlap.class_metrics(result.confusion)["dice"] for result in results], axis=0)
