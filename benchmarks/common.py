"""Functions shared by the benchmarks: worker processes, the processor's ceiling, operation counts, frames, tables.

Each setting runs in its own process, so its peak memory is measured separately. It computes only when asked.
The main process imports no torch and computes nothing. It asks one setting after another, round after round
(A B C, A B C, ...), so that other load on the machine affects all settings equally. The ceiling is the
speed of a large matrix product.
"""

import atexit
import io
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import time
import traceback
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Settings measured for comparison with ours: {name: source and precision in reference.py}.
REFERENCES = {
    "study float32": {"source": "study"},
    "smp float32": {"source": "smp"},
    "smp bfloat16": {"source": "smp", "bfloat16": True},
    "monai float32": {"source": "monai"},
    "monai bfloat16": {"source": "monai", "bfloat16": True},
}
MODELS = ("unet", "resnet50", "mobilenet_v3_large")
FRAME = (800, 740)  # (H, W) of the generated frames
REST_S = 0.3  # between turns: threads of the last worker may still spin and slow down the next one
CEILING_SIDE = {"cpu": 2048, "cuda": 8192}
CEILING_REPEATS = 5
_started = {"mb": 0.0}


class Worker:
    """A process that calls the function returned by ``build(**setting)`` once per ``ask``.

    build: a function of a benchmark's module; it calls ``imported()`` between imports and work. Questions and answers
    are lines of JSON, so paths arrive as text. refused: the reason why the setting does not run, or None.
    """

    def __init__(self, build, **setting):
        self.setting = setting
        module = Path(sys.modules[build.__module__].__file__).stem
        command = [sys.executable, Path(__file__).with_name("worker.py"), module, build.__name__]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
        )
        atexit.register(self.close)  # also if the benchmark itself fails
        self.refused = self._answer_to(setting)[1]

    def _answer_to(self, question):
        self._process.stdin.write(json.dumps(question, default=str) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.setting}: the process ended with {self._process.wait()}")
        return json.loads(line)

    def ask(self, *question):
        """Run one turn and return its answer. If it fails, return None and set ``refused`` to the reason."""
        time.sleep(REST_S)
        answer, refused = self._answer_to(question)
        self.refused = self.refused or refused
        return answer

    def memory(self):
        """Return the process's peak memory so far and after the imports: {"peak_mb", "start_mb"}."""
        return self._answer_to(None)[0]

    def close(self):
        self._process.stdin.close()  # the worker ends when its input ends
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()


def serve(build):
    """Run a worker: read a setting, then questions, as JSON lines on standard input; answer on standard output."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # printed text must not mix with the answers
    os.environ["TQDM_DISABLE"] = "1"  # no progress bars
    from sonogravity.common.messages import InputError, first_line, is_out_of_memory

    def guarded(function, *arguments, **named):
        try:
            return function(*arguments, **named), None
        except (ImportError, InputError) as error:
            return None, f"not run: {first_line(error)}"
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                traceback.print_exc()
                return None, f"failed: {first_line(error)}"
            return None, "out of memory"

    def reply(answer, refused):
        answers.write(json.dumps((answer, refused)) + "\n")
        answers.flush()

    turn, refused = guarded(build, **json.loads(sys.stdin.readline()))
    reply(None, refused)
    for line in sys.stdin:
        question = json.loads(line)
        if question is None:
            reply({"peak_mb": peak_mb(), "start_mb": _started["mb"]}, None)
        else:
            reply(*guarded(turn, *question))
        _give_back()


def imported():
    """Record the memory after the imports of a worker. Memory taken later belongs to its work."""
    _started["mb"] = peak_mb()


def on_gpu():
    """Return whether torch is loaded and a CUDA device is available."""
    return "torch" in sys.modules and sys.modules["torch"].cuda.is_available()


def peak_mb():
    """Return the peak memory of this process in MB: of the GPU's allocator if there is a GPU, else resident memory."""
    if on_gpu():
        return sys.modules["torch"].cuda.max_memory_allocated() / 2**20
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _give_back():
    """Release the cached GPU memory of this worker for the next one."""
    if on_gpu():
        sys.modules["torch"].cuda.empty_cache()


def clock():
    """Return the time in seconds after the GPU has finished its work."""
    if on_gpu():
        sys.modules["torch"].cuda.synchronize()
    return time.perf_counter()


def timed(function, *arguments):
    """Return the duration of a call in seconds."""
    start = clock()
    function(*arguments)
    return clock() - start


def quietly(function, *arguments):
    """Call a function and discard its printed text."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        return function(*arguments)


def in_turns(workers, rounds, question, answers=None):
    """Return {name: answers}. Each running worker is asked once per round; a question may depend on its name."""
    answers = answers or {name: [] for name in workers}
    for _ in range(rounds):
        for name, worker in workers.items():
            if worker.refused is None:
                answer = worker.ask(*(question(name) if callable(question) else question))
                if answer is not None:
                    answers[name].append(answer)
    return answers


def ceiling():
    """Return the turn of a worker that measures the processor: {"float32", "bfloat16"} in GFLOP/s."""
    import torch

    from sonogravity.common import devices

    device = devices.pick_device("auto")
    side = CEILING_SIDE.get(device.type, 2048)
    has_bfloat16 = devices.amp_type(device, True) is torch.bfloat16
    kinds = [torch.float32, torch.bfloat16] if has_bfloat16 else [torch.float32]
    squares = {kind: torch.rand(side, side, device=device).to(kind) for kind in kinds}

    def turn():
        found = {
            "device": device.type,
            "name": torch.cuda.get_device_name() if on_gpu() else platform.machine(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
        for kind, square in squares.items():
            torch.mm(square, square)
            took = statistics.median(timed(torch.mm, square, square) for _ in range(CEILING_REPEATS))
            found[str(kind).removeprefix("torch.")] = 2 * side**3 / took / 1e9
        return found

    return turn


def ceiling_of(answers):
    """Return the medians of the ceiling worker's answers. "best" is bfloat16 if the processor has it, else float32."""
    found = dict(answers[0])
    for kind in ("float32", "bfloat16"):
        if kind in found:
            found[kind] = statistics.median(answer[kind] for answer in answers)
    return found | {"best": found.get("bfloat16", found["float32"])}


def describe_ceiling(found):
    kinds = ", ".join(f"{found[kind]:.0f} in {kind}" for kind in ("float32", "bfloat16") if kind in found)
    return f"{found['name']} ({found['threads']} threads), torch {found['torch']}; matrix product, GFLOP/s: {kinds}"


def gflop_a_frame(build_model, size, channels=1):
    """Return the GFLOP of one forward pass, counted on torch's meta device without computing."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        model = build_model().eval()
        frame = torch.empty(1, channels, *size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(frame)
    return counter.get_total_flops() / 1e9


def make_frames(folder, count, height=FRAME[0], validation=1):
    """Generate ``count`` frames with masks in folder/train, others in folder/validation. Return the former's paths."""
    script = ROOT / "data" / "make_phantom.py"
    options = {"--output": folder, "--train-frames": count, "--validation-frames": validation, "--height": height}
    command = [sys.executable, script, *(part for option in options.items() for part in option)]
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL, env=environment())
    return sorted((Path(folder) / "train" / "images").iterdir())


def copy_frames(images, folder, count):
    """Copy ``count`` frames and masks to folder/images and folder/masks, each with its own name; images may repeat."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for i in range(count):
        image = images[i % len(images)]
        for kind in ("images", "masks"):
            shutil.copy(image.parent.parent / kind / image.name, folder / kind / f"{image.stem}_{i:05d}.png")


def environment():
    """Return environment variables with which a process finds this repository's packages, installed or not."""
    found = [str(ROOT), os.environ.get("PYTHONPATH")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, found))}


def pairs_of(images):
    """Return Pairs of frames under images/ and their masks, which are under masks/ in the same folder."""
    from sonogravity.datasets.frame_files import FrameFile
    from sonogravity.datasets.pairs import Pair

    images = map(Path, images)
    return [Pair(FrameFile(image), FrameFile(image.parent.parent / "masks" / image.name)) for image in images]


def percentile(values, share):
    """Return the value below which the given fraction of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def add_ratio(rows, key, is_base, name, alike=()):
    """Add ``name`` to each row: its speed relative to the base row that has the same values of the keys ``alike``."""
    for row in rows:
        bases = [base for base in rows if is_base(base) and all(base.get(k) == row.get(k) for k in alike)]
        if bases and row.get(key) and bases[0].get(key):
            row[name] = bases[0][key] / row[key]


def print_table(rows, columns):
    """Print rows as a table, with text left-aligned and numbers right-aligned. A missing value or None is a dash.

    columns: {heading: (key, format)}.
    """
    texts = [list(columns)]
    for row in rows:
        texts.append(["-" if row.get(key) is None else format(row[key], spec) for key, spec in columns.values()])
    widths = [max(len(line[i]) for line in texts) for i in range(len(columns))]
    left = [spec == "" for _, spec in columns.values()]
    for line in texts:
        cells = (
            text.ljust(w) if to_left else text.rjust(w) for text, w, to_left in zip(line, widths, left, strict=True)
        )
        print("  ".join(cells).rstrip())
    print(flush=True)


def print_json(script, content):
    """Print all results as one JSON line, the last of the output."""
    print(json.dumps({"benchmark": script, **content}))
