"""What the benchmarks share: processes that take turns, the processor's ceiling, counted operations, frames, tables.

Every setting lives in a process of its own (so its peak memory is its own) and computes only when asked.
The process that asks imports no torch and computes nothing, and asks one setting after another, round after round
(A B C, A B C, ...), so that whatever else the machine does falls on all of them alike.
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
# What is measured beside ours, by the name of its setting: reference.py's arguments.
REFERENCES = {
    "study float32": {"source": "study"},
    "smp float32": {"source": "smp"},
    "smp bfloat16": {"source": "smp", "bfloat16": True},
    "monai float32": {"source": "monai"},
    "monai bfloat16": {"source": "monai", "bfloat16": True},
}
MODELS = ("unet", "resnet50", "mobilenet_v3_large")
FRAME = (800, 740)  # (H, W) of the generated frames
REST_S = 0.3  # between turns: threads that still spin for work would take the cores from the next one
CEILING_SIDE = {"cpu": 2048, "cuda": 8192}
CEILING_REPEATS = 5
_started = {"mb": 0.0}


class Worker:
    """A process that holds what ``build(**setting)`` made, a function, and calls it for each ``ask``.

    build: a function of a benchmark's module. Questions and answers are lines of JSON, so paths arrive as text.
    refused: why it does not run, or None. build calls ``imported()`` between imports and work.
    """

    def __init__(self, build, **setting):
        self.setting = setting
        module = Path(sys.modules[build.__module__].__file__).stem
        command = [sys.executable, Path(__file__).with_name("worker.py"), module, build.__name__]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
        )
        atexit.register(self.close)  # also where the benchmark itself fails
        self.refused = self._answer_to(setting)[1]

    def _answer_to(self, question):
        self._process.stdin.write(json.dumps(question, default=str) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.setting}: the process ended with {self._process.wait()}")
        return json.loads(line)

    def ask(self, *question):
        """One turn; None where memory ran out, and then the worker says so in ``refused``."""
        time.sleep(REST_S)
        answer, refused = self._answer_to(question)
        self.refused = self.refused or refused
        return answer

    def memory(self):
        """{"peak_mb", "start_mb"}: at its peak, and after the imports."""
        return self._answer_to(None)[0]

    def close(self):
        self._process.stdin.close()  # at the end of its questions it ends
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()


def serve(build):
    """The life of a worker: a setting, then questions, one JSON line each on standard input; answers on the output."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what the program prints is no answer
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
    """Called in a worker between imports and work: what is taken from here on is the work's."""
    _started["mb"] = peak_mb()


def on_gpu():
    """Whether torch is loaded here and sees a CUDA device."""
    return "torch" in sys.modules and sys.modules["torch"].cuda.is_available()


def peak_mb():
    """Peak memory of this process: of the GPU's allocator where there is one, else resident memory."""
    if on_gpu():
        return sys.modules["torch"].cuda.max_memory_allocated() / 2**20
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _give_back():
    """Let the next worker have the GPU's memory that this one only keeps in reserve."""
    if on_gpu():
        sys.modules["torch"].cuda.empty_cache()


def clock():
    """Seconds, once the GPU has done all it was asked to."""
    if on_gpu():
        sys.modules["torch"].cuda.synchronize()
    return time.perf_counter()


def timed(function, *arguments):
    """Seconds that a call takes."""
    start = clock()
    function(*arguments)
    return clock() - start


def quietly(function, *arguments):
    """Call it without what it prints."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        return function(*arguments)


def in_turns(workers, rounds, question, answers=None):
    """{name: answers}: each worker that runs is asked once a round; a question may depend on the worker's name."""
    answers = answers or {name: [] for name in workers}
    for _ in range(rounds):
        for name, worker in workers.items():
            if worker.refused is None:
                answer = worker.ask(*(question(name) if callable(question) else question))
                if answer is not None:
                    answers[name].append(answer)
    return answers


def ceiling():
    """Build of a worker that measures the processor: each turn gives {"float32", "bfloat16"} in GFLOP/s."""
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
    """The ceiling worker's answers -> their medians, and "best", bfloat16 where the processor has it."""
    found = dict(answers[0])
    for kind in ("float32", "bfloat16"):
        if kind in found:
            found[kind] = statistics.median(answer[kind] for answer in answers)
    return found | {"best": found.get("bfloat16", found["float32"])}


def describe_ceiling(found):
    kinds = ", ".join(f"{found[kind]:.0f} in {kind}" for kind in ("float32", "bfloat16") if kind in found)
    return f"{found['name']} ({found['threads']} threads), torch {found['torch']}; matrix product, GFLOP/s: {kinds}"


def gflop_a_frame(build_model, size, channels=1):
    """Operations of one forward pass, counted by torch on its meta device: nothing is computed."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        model = build_model().eval()
        frame = torch.empty(1, channels, *size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(frame)
    return counter.get_total_flops() / 1e9


def make_frames(folder, count, height=FRAME[0], validation=1):
    """Generate ``count`` frames and masks under folder/train, some under folder/validation; the former's paths."""
    script = ROOT / "data" / "make_phantom.py"
    options = {"--output": folder, "--train-frames": count, "--validation-frames": validation, "--height": height}
    command = [sys.executable, script, *(part for option in options.items() for part in option)]
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL, env=environment())
    return sorted((Path(folder) / "train" / "images").iterdir())


def copy_frames(images, folder, count):
    """Copies of frames and masks under folder/images and folder/masks, ``count`` in all, each under its own name."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for i in range(count):
        image = images[i % len(images)]
        for kind in ("images", "masks"):
            shutil.copy(image.parent.parent / kind / image.name, folder / kind / f"{image.stem}_{i:05d}.png")


def environment():
    """Variables under which a process finds the packages of this repository, installed or not."""
    found = [str(ROOT), os.environ.get("PYTHONPATH")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, found))}


def pairs_of(images):
    """Frames under images/ -> Pairs with their masks, which lie under masks/ beside it."""
    from sonogravity.datasets.pairs import Pair

    images = map(Path, images)
    return [Pair(image, image.parent.parent / "masks" / image.name) for image in images]


def percentile(values, share):
    """The value that a share of all does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def add_ratio(rows, key, is_base, name, alike=()):
    """Give each row ``name``: how many times faster it is than the base row that is alike in these entries."""
    for row in rows:
        bases = [base for base in rows if is_base(base) and all(base.get(k) == row.get(k) for k in alike)]
        if bases and row.get(key) and bases[0].get(key):
            row[name] = bases[0][key] / row[key]


def print_table(rows, columns):
    """columns: {heading: (key, format)}; a missing or None value is a dash. Text stands left, numbers right."""
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
    """All figures as one line, the last of the output."""
    print(json.dumps({"benchmark": script, **content}))
