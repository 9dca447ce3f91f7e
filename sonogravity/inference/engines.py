"""What runs a trained network on frames: torch itself, torch compiled, ONNX Runtime or OpenVINO, behind one interface.

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

from sonogravity.common.devices import cpp_compiler, need_compiler
from sonogravity.common.messages import InputError, say
from sonogravity.inference import exported, segmentation
from sonogravity.inference.predictor import folded, run_by_torch

WORTH_COMPILING = 300  # frames from which ``auto`` tries torch.compile, which takes about a minute to start
SAMPLES = 3  # frames on which ``auto`` compares


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


def onnx_network(file, amp=None):
    """Return the engine that runs an ONNX file by ONNX Runtime, always in float32."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # its remarks on the graph are not for users
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {exported.IMAGES: images.contiguous().numpy()})[0])


def openvino_network(model, amp):
    """An engine of an OpenVINO model (or its file), in bfloat16 or float32 as ``amp`` says."""
    openvino = exported.import_openvino()
    model = str(model) if isinstance(model, Path) else model
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "bf16" if amp is torch.bfloat16 else "f32"}
    network = openvino.Core().compile_model(model, "CPU", settings)
    return lambda images: torch.from_numpy(network(images.contiguous().numpy())[0].copy())


@dataclass(frozen=True)
class Engine:
    """How a network is run: made from (model, amp), or else from (ONNX file, amp). amp: a type, None for float32.

    packages: what must be installed, by the extra of the engine's name; such an engine runs on the processor.
    float32: it computes in float32 whatever amp says.
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
    """The packages that an engine lacks here."""
    return [package for package in ENGINES[name].packages if importlib.util.find_spec(package) is None]


def check(name, device, int8=False):
    """Raise InputError, before any work, if an engine cannot run here."""
    if name == "compile":
        need_compiler("--engine compile")
    if lacking := missing(name):
        raise InputError(
            f"--engine {name}: needs {' and '.join(lacking)}; pip install -e '.[{name}]' in the repository, or give "
            "--engine torch"
        )
    if ENGINES[name].packages and device.type != "cpu":
        raise InputError(f"--engine {name}: runs on the processor; give --device cpu with it, or --engine torch")
    if int8 and name != "openvino":
        raise InputError("--int8: is for --engine openvino; give both, or neither")


def use(name, predictor, path, int8=False):
    """The predictor with the engine of that name, itself if it has it already. path: the checkpoint's.

    ONNX Runtime (float32 only) and OpenVINO take the file that export.py left beside the checkpoint, if it is of these
    very weights, and export anew otherwise.
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
    say(f"--engine {name}: exported in {time.perf_counter() - start:.1f} s; export.py keeps the file for later runs")
    return predictor.using(network, name, amp)


def fastest(predictor, path, pairs):
    """Time the engines that are installed on the first frames -> the predictor with the fastest one.

    One whose labels differ from float32 torch's in more than a thousandth of the pixels is left out.
    """
    frames = [frame for frame, _ in segmentation.read_frames(predictor, pairs[:SAMPLES], workers=0)]
    reference = exported.label_maps(exported.in_float32(predictor), frames)
    names = ["torch"]
    if predictor.device.type == "cpu":
        names += [name for name, engine in ENGINES.items() if engine.packages and not missing(name)]
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
