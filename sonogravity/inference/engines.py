"""What runs a trained network on frames: torch itself, torch compiled, ONNX Runtime or OpenVINO, behind one interface.

An engine is a callable: (N, C_in, h, w) float32 tensor in 0 to 1 -> (N, C, h, w) float32 logits, both on the device.
"""

import importlib.util
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import torch

from sonogravity.common.devices import cpp_compiler, need_compiler
from sonogravity.common.messages import InputError, say
from sonogravity.inference import exported, segmentation
from sonogravity.inference.predictor import folded

NEEDS = {"onnx": ("onnxruntime", "onnxscript"), "openvino": ("openvino", "onnxscript")}  # by the extras of these names
WORTH_COMPILING = 300  # frames from which ``auto`` tries torch.compile, which takes about a minute to start
SAMPLES = 3  # frames on which ``auto`` compares


def missing(name):
    """The packages that an engine lacks here."""
    return [package for package in NEEDS.get(name, ()) if importlib.util.find_spec(package) is None]


def check(name, device, int8=False):
    """InputError, before any work, where an engine cannot run here."""
    if name == "compile":
        need_compiler("--engine compile")
    if lacking := missing(name):
        raise InputError(
            f"--engine {name}: lacks {' and '.join(lacking)}; pip install -e '.[{name}]' in the repository, or give "
            "--engine torch"
        )
    if name in NEEDS and device.type != "cpu":
        raise InputError(f"--engine {name}: runs on the processor; give --device cpu with it, or --engine torch")
    if int8 and name != "openvino":
        raise InputError("--int8: is for --engine openvino; give both, or neither")


def _compiled(model, amp):
    """torch.compile with frozen weights; each new shape is compiled at its first use, with a message."""
    network = torch.compile(folded(model, amp), options={"freezing": True})
    known = set()

    def run(images):
        start = time.perf_counter()
        with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks on its own options
            logits = network(images.clone().to(amp or torch.float32)).float()
        if images.shape not in known:
            known.add(images.shape)
            shape = "x".join(map(str, images.shape))
            say(f"--engine compile: the first batch of {shape} took {time.perf_counter() - start:.1f} s")
        return logits

    return run


def onnx_network(file):
    """An engine of an ONNX file by ONNX Runtime, in float32."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # its remarks on the graph are not for users
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {exported.IMAGES: images.contiguous().numpy()})[0])


def openvino_network(model, amp):
    """An engine of an OpenVINO model (or its file), in bfloat16 or float32 as ``amp`` says."""
    openvino = exported.import_openvino()
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "bf16" if amp is torch.bfloat16 else "f32"}
    network = openvino.Core().compile_model(model, "CPU", settings)
    return lambda images: torch.from_numpy(network(images.contiguous().numpy())[0].copy())


def use(name, predictor, path, int8=False):
    """The predictor with the engine of that name, itself if it has it already. path: the checkpoint's.

    ONNX Runtime (float32 only) and OpenVINO take the file that export.py left beside the checkpoint, if it is of these
    very weights, and export anew otherwise.
    """
    check(name, predictor.device, int8)
    model, amp = predictor.model, predictor.amp
    if name == predictor.engine:
        return predictor
    if name == "compile":
        return predictor.using(_compiled(model, amp), name, amp)
    if int8:
        file = exported.find(path, model, exported.INT8)
        return predictor.using(openvino_network(str(file), amp), "openvino int8", amp)

    def built(file):
        if name == "onnx":
            return predictor.using(onnx_network(file), name, None)
        return predictor.using(openvino_network(str(file), amp), name, amp)

    if (file := exported.find(path, model)) is not None:
        return built(file)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        exported.write_onnx((predictor, {}), file)
        ready = built(file)
    say(f"--engine {name}: exported in {time.perf_counter() - start:.1f} s; export.py does so once for all")
    return ready


def fastest(predictor, path, pairs):
    """Time the engines that are installed on the first frames -> the predictor with the fastest one.

    One whose labels differ from float32 torch's in more than a thousandth of the pixels is left out.
    """
    frames = [frame for frame, _ in segmentation.read_frames(predictor, pairs[:SAMPLES], workers=0)]
    reference = exported.label_maps(exported.in_float32(predictor), frames)
    names = ["torch"]
    if predictor.device.type == "cpu":
        names += [name for name in NEEDS if not missing(name)]
    if len(pairs) >= WORTH_COMPILING and cpp_compiler():
        names.append("compile")
    found = {}
    for name in names:
        candidate = use(name, predictor, path)
        agreement = exported.agreement(reference, exported.label_maps(candidate, frames))
        seconds = statistics.median(_seconds(candidate, frames) for _ in range(3)) / len(frames)
        fits = agreement >= exported.LEAST_AGREEMENT
        say(
            f"--engine auto: {name} {1000 * seconds:.1f} ms a frame, {agreement:.3%} of the labels as in float32"
            + ("" if fits else ": left out")
        )
        if fits:
            found[name] = seconds, candidate
    if not found:
        say("--engine auto: torch in float32 is taken")
        return exported.in_float32(predictor)
    name = min(found, key=lambda name: found[name][0])
    say(f"--engine auto: {name} is taken")
    return found[name][1]


def _seconds(predictor, frames):
    start = time.perf_counter()
    exported.label_maps(predictor, frames)
    return time.perf_counter() - start
