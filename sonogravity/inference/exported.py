"""ONNX files of a network: write them, find them beside the checkpoint, and compare them with torch."""

import contextlib
import io
import json
import logging
import sys
import warnings

import numpy as np
import torch

from sonogravity.common.messages import InputError, say
from sonogravity.common.provenance import digest_of_weights
from sonogravity.inference.predictor import folded, run_by_torch, to_label_maps

IMAGES, LOGITS = "images", "logits"  # the names of the graph's input and output
ONNX, INT8 = ".onnx", ".int8.xml"  # suffixes in place of the checkpoint's .pth
LEAST_AGREEMENT = 0.999  # least share of pixels with the label of the model in float32


def in_float32(predictor):
    """Return the predictor with torch in float32, the reference for all other engines."""
    return predictor.using(run_by_torch(predictor.model), "torch", None)


def label_maps(predictor, frames):
    """Return the (H, W) class indices of frames, computed one by one."""
    return [to_label_maps(predictor.logits([frame]))[0] for frame in frames]


def agreement(ours, theirs):
    """Return the share of pixels with equal labels in two lists of (H, W) class indices."""
    return float(np.mean(np.concatenate([(a == b).ravel() for a, b in zip(ours, theirs, strict=True)])))


def write_onnx(path, predictor, notes):
    """Write a predictor's network as one ONNX file for any number of frames of any size. notes: {name: text}."""
    dynamic = torch.export.Dim.DYNAMIC
    example = torch.zeros(2, predictor.channels, 64, 48)  # a size of 1 would be treated as fixed
    with quiet():
        graph = torch.export.export(
            folded(predictor.model), (example,), dynamic_shapes=({0: dynamic, 2: dynamic, 3: dynamic},)
        )
        program = torch.onnx.export(graph, (), dynamo=True, verbose=False, input_names=[IMAGES], output_names=[LOGITS])
        program.model.metadata_props.update(notes)
        program.save(path)


@contextlib.contextmanager
def quiet():
    """Hide the exporters' messages, which are not for users."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def notes_of(predictor, checkpoint):
    """Return the notes of an exported file: how other programs must use it, and the digest of its weights."""
    return {
        "weights": digest_of_weights(predictor.model),
        "model": json.dumps({"name": checkpoint.model_name, **checkpoint.model_options}),
        "labels": json.dumps(predictor.labels.as_dict()),
        "scale": str(predictor.scale),
        "pixels": f"(N, {predictor.channels}, h, w) float32 in 0 to 1: 8-bit divided by 255, 16-bit by "
        f"{predictor.image_maximum or '(none: not trained on 16-bit images)'}",
    }


def find(path, model, suffix=ONNX):
    """Return the exported file beside a checkpoint if it holds the model's weights, else None.

    Raise InputError if it cannot be read, and instead of None for int8, because only export.py makes int8 files.
    """
    file = path.with_name(path.stem + suffix)
    if not file.is_file():
        if suffix == INT8:
            raise InputError(f"{file}: no such file; make it with export.py --load {path} --int8")
        return None
    try:
        weights = _onnx_note(file) if suffix == ONNX else _openvino_note(file)
    except (RuntimeError, ValueError, LookupError) as error:
        raise InputError(f"{file}: cannot be read; remove it, or run export.py again") from error
    if weights == digest_of_weights(model):
        return file
    if suffix == INT8:
        raise InputError(f"{file}: holds other weights than {path}; run export.py --int8 again")
    say(f"{file.name}: holds other weights than {path.name}, so it is not used")
    return None


def _onnx_note(file):
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return {note.key: note.value for note in onnx.load(file).metadata_props}.get("weights")
    except DecodeError as error:
        raise ValueError from error


def import_openvino():
    """Return OpenVINO without the package that reports usage. If this is missing, OpenVINO uses its own stub."""
    sys.modules.setdefault("openvino_telemetry", None)
    import openvino

    return openvino


def _openvino_note(file):
    return import_openvino().Core().read_model(str(file)).get_rt_info(["sonogravity", "weights"]).value
