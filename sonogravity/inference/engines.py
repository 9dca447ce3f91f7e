"""Engines that run a trained network on frames: torch, torch.compile, ONNX Runtime or OpenVINO, with one interface.

An engine is a callable: (N, C_in, h, w) float32 tensor in 0 to 1 -> (N, C, h, w) float32 logits, both on the device.
"""

import importlib.util
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from sonogravity.common import threads
from sonogravity.common.devices import cpp_compiler, need_compiler
from sonogravity.common.messages import InputError, say
from sonogravity.inference import exported, segmentation
from sonogravity.inference.predictor import folded, run_by_torch

WORTH_COMPILING = 300  # number of frames from which ``auto`` tries torch.compile, which takes about a minute to start
SAMPLES = 3  # number of frames on which ``auto`` compares the engines


def _compiled(model, amp):
    """Return the engine of torch.compile with frozen weights. It compiles each new shape at first use and prints it."""
    network = torch.compile(folded(model, amp), options={"freezing": True})
    known = set()

    def run(images):
        start = time.perf_counter()
        with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about its own options
            logits = network(images.clone().to(amp or torch.float32)).float()
        if images.shape not in known:
            known.add(images.shape)
            shape = "x".join(map(str, images.shape))
            say(f"--engine compile: the first batch of {shape} took {time.perf_counter() - start:.1f} s")
        return logits

    return run


def onnx_network(file, amp=None):
    """Return the engine that runs an ONNX file with ONNX Runtime, always in float32."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # hide warnings about the graph
    options.intra_op_num_threads = torch.get_num_threads()  # as torch has them, so OMP_NUM_THREADS sets them too
    if threads.beside_others():
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {exported.IMAGES: images.contiguous().numpy()})[0])


def openvino_network(model, amp):
    """Return the engine of an OpenVINO model (or its file), in bfloat16 if ``amp`` is that type, else in float32."""
    openvino = exported.import_openvino()
    model = str(model) if isinstance(model, Path) else model
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if amp is torch.bfloat16 else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    network = openvino.Core().compile_model(model, "CPU", settings)
    return lambda images: torch.from_numpy(network(images.contiguous().numpy())[0].copy())


@dataclass(frozen=True)
class Engine:
    """How a network is run: made from (model, amp), or else from (ONNX file, amp). amp: a type, None for float32.

    packages: required packages, in the extra with the engine's name; such an engine runs on the CPU only.
    float32: the engine computes in float32 for every amp.
    """

    from_model: Callable | None = None
    from_file: Callable | None = None
    packages: tuple = ()
    float32: bool = False


ENGINES = {
    "torch": Engine(from_model=run_by_torch),
    "compile": Engine(from_model=_compiled),
    "onnx": Engine(from_file=onnx_network, packages=("onnxruntime", "onnxscript"), float32=True),
    "openvino": Engine(from_file=openvino_network, packages=("openvino", "onnxscript")),
}


def missing(name):
    """Return the packages of an engine that are not installed."""
    return [package for package in ENGINES[name].packages if importlib.util.find_spec(package) is None]


def check(name, device, int8=False):
    """Raise InputError, before any work, if an engine cannot run here."""
    if name == "compile":
        need_compiler("--engine compile")
    if lacking := missing(name):
        raise InputError(
            f"--engine {name}: needs {' and '.join(lacking)}; run pip install -e '.[{name}]' in the repository, or "
            "give --engine torch"
        )
    if ENGINES[name].packages and device.type != "cpu":
        raise InputError(f"--engine {name}: runs on the CPU only; give --device cpu, or --engine torch")
    if int8 and name != "openvino":
        raise InputError("--int8: needs --engine openvino; give both, or neither")


def use(name, predictor, path, int8=False):
    """Return the predictor with the named engine, or itself if it has this engine. path: the checkpoint's.

    ONNX Runtime (float32 only) and OpenVINO use the file that export.py wrote beside the checkpoint if it holds the
    same weights, else they export a new one.
    """
    check(name, predictor.device, int8)
    engine, model = ENGINES[name], predictor.model
    amp = None if engine.float32 else predictor.amp
    if name == predictor.engine:
        return predictor
    if int8:
        file = exported.find(path, model, exported.INT8)
        return predictor.using(engine.from_file(file, amp), f"{name} int8", amp)
    if engine.from_model is not None:
        return predictor.using(engine.from_model(model, amp), name, amp)
    if (file := exported.find(path, model)) is not None:
        return predictor.using(engine.from_file(file, amp), name, amp)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        exported.write_onnx(file, predictor, {})
        network = engine.from_file(file, amp)
    say(f"--engine {name}: exported in {time.perf_counter() - start:.1f} s; export.py writes a file for later runs")
    return predictor.using(network, name, amp)


def fastest(predictor, path, pairs):
    """Return the predictor with the fastest installed engine, timed on the first frames.

    An engine is left out if its labels differ from those of torch in float32 in more than a thousandth of the pixels.
    """
    frames = [frame for frame, _ in segmentation.read_frames(predictor, pairs[:SAMPLES], workers=0)]
    return fastest_on(frames, predictor, path, compile_too=len(pairs) >= WORTH_COMPILING)


def fastest_on(frames, predictor, path, compile_too=False):
    """Return the same, timed on decoded Frames. compile_too: torch.compile is one of the engines."""
    reference = exported.label_maps(exported.in_float32(predictor), frames)
    names = ["torch"]
    if predictor.device.type == "cpu":
        names += [name for name, engine in ENGINES.items() if engine.packages and not missing(name)]
    if compile_too and cpp_compiler():
        names.append("compile")
    found = {}
    for name in names:
        candidate = use(name, predictor, path)
        agreement = exported.agreement(reference, exported.label_maps(candidate, frames))
        seconds = statistics.median(_seconds(candidate, frames) for _ in range(3)) / len(frames)
        fits = agreement >= exported.LEAST_AGREEMENT
        say(
            f"--engine auto: {name} {1000 * seconds:.1f} ms per frame, {agreement:.3%} of the labels as in float32"
            + ("" if fits else ": left out")
        )
        if fits:
            found[name] = seconds, candidate
    if not found:
        say("--engine auto: torch in float32 is used")
        return exported.in_float32(predictor)
    name = min(found, key=lambda name: found[name][0])
    say(f"--engine auto: {name} is used")
    return found[name][1]


def _seconds(predictor, frames):
    start = time.perf_counter()
    exported.label_maps(predictor, frames)
    return time.perf_counter() - start
