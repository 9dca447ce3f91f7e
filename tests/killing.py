"""A harness that kills real training at random moments, resumes it, and compares with training that was left alone."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import openpyxl
import pandas as pd
import torch
from PIL import Image

from sonogravity.common import folders
from sonogravity.common.file_names import IN_USE
from sonogravity.common.files import load_torch

TIMING = ["seconds", "images_per_second"]
LONGEST_WAIT = 300  # seconds for one part of a run
START_UP = 6.0  # seconds before the first epoch, about
WAYS = ("any moment", "writing")


@dataclass
class Tally:
    """What happened to one run."""

    title: str
    kills: int = 0
    while_writing: int = 0  # kills that left a half-written file beside
    resumes: int = 0
    files: int = 0  # found whole, over all kills
    epochs_at_kills: list = field(default_factory=list)
    equal: bool = False


def command(script, options, root):
    """A training command that writes under root only, on the slow disk."""
    roots = ["--checkpoints", root / "checkpoints", "--results", root / "results", "--name", "run"]
    arguments = [folders.ROOT / "tests" / "slow_disk.py", script, *roots, *options]
    return [sys.executable, *map(str, arguments)]


@contextmanager
def started(line, **options):
    """A process that Ctrl-C and a closed terminal reach, also if the tests run in the background or under nohup.

    It never outlives its test.
    """

    def heed_interrupts():
        for each in (signal.SIGINT, signal.SIGHUP):
            signal.signal(each, signal.SIG_DFL)

    process = subprocess.Popen(
        [str(part) for part in line], stdout=subprocess.PIPE, text=True, preexec_fn=heed_interrupts, **options
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def last_of(script, root):
    return root / "checkpoints" / script.split("/")[0] / "run" / "last.pth"


def train_killed(title, script, options, root, kills, seed):
    """Train, killed up to so many times and resumed each time, until done -> Tally."""
    tally, chance = Tally(title), random.Random(seed)
    last = last_of(script, root)
    while True:
        if last.exists():  # else the kill came before anything was kept, and the same command is given again
            roots = ["--checkpoints", root / "checkpoints", "--results", root / "results"]
            arguments = [folders.ROOT / "tests" / "slow_disk.py", script, "--resume", last, *roots]
            line = [sys.executable, *map(str, arguments)]
            tally.resumes += 1
        else:
            line = command(script, options, root)
        with started(line, stderr=subprocess.STDOUT) as process:
            if tally.kills < kills:
                _wait_for_the_moment(process, root, chance)
                process.send_signal(signal.SIGKILL)
            said, _ = process.communicate(timeout=LONGEST_WAIT)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, said
        tally.kills += 1
        tally.while_writing += bool(half_written(root))
        tally.files += whole_files(root)
        tally.epochs_at_kills.append(load_torch(last)["epoch"] if last.exists() else None)
    return tally


def _wait_for_the_moment(process, root, chance):
    """Any moment of the run's first seconds, or some way into the writing of a file."""
    limit = time.monotonic() + LONGEST_WAIT
    if chance.choice(WAYS) == "any moment":
        limit = time.monotonic() + chance.uniform(0, START_UP + 3)
        left = -1
    else:
        left = chance.randint(1, 25)  # files to let pass
    seen = half_written(root)
    while process.poll() is None and time.monotonic() < limit:
        now = half_written(root)
        left -= len(now - seen)
        seen = now
        if left == 0:
            time.sleep(chance.uniform(0, 0.06))
            return
        time.sleep(0.003)


def half_written(root):
    return set(root.rglob(".*.partial"))


def whole_files(root):
    """Read every file under root that isn't plainly half-written; an error tells of a file that isn't whole."""
    count = 0
    for path in sorted(path for path in root.rglob("*") if path.is_file() and path not in half_written(root)):
        if path.name == IN_USE:  # the killed process could not remove its claims
            continue
        if path.suffix == ".pth":
            assert load_torch(path)["state_dict"]
        elif path.suffix == ".csv":
            table = pd.read_csv(path)
            assert table["epoch"].tolist() == list(range(1, len(table) + 1)) and path.read_text().endswith("\n")
        elif path.suffix == ".xlsx":
            assert "Epochs" in openpyxl.load_workbook(path).sheetnames
        elif path.suffix == ".json":
            assert json.loads(path.read_text())["options"]
        elif path.suffix == ".png":
            Image.open(path).load()
        else:
            raise AssertionError(f"{path}: what is this?")
        count += 1
    return count


def same(one, other):
    """Whether two nested contents are equal, tensors bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other or one != one


def differences(one, other):
    """What two finished runs don't share: names of files, weights, optimizer states, figures but for the timing."""
    found = []
    names = [{path.relative_to(root).as_posix() for path in root.rglob("*")} for root in (one, other)]
    found += sorted(names[0] ^ names[1])
    for name in sorted(names[0] & names[1]):
        a, b = one / name, other / name
        if name.endswith(".pth"):
            contents = [load_torch(path) for path in (a, b)]
            for content in contents:
                if "training" in content:
                    content["training"].pop("settings")
                    content["training"]["history"] = [
                        {k: v for k, v in row.items() if k not in TIMING} for row in content["training"]["history"]
                    ]
            if not same(*contents):
                found.append(name)
        elif name.endswith(".csv"):
            if not pd.read_csv(a).drop(columns=TIMING).equals(pd.read_csv(b).drop(columns=TIMING)):
                found.append(name)
        elif "/panels/" in name and a.is_file() and a.read_bytes() != b.read_bytes():
            found.append(name)
    return found


def compare_killed_and_left_alone(title, script, options, root, kills, seed):
    """Both runs, and their comparison -> Tally."""
    alone, killed = root / "alone", root / "killed"
    for folder in (alone, killed):
        shutil.rmtree(folder, ignore_errors=True)
    killed.mkdir(parents=True)
    subprocess.run(command(script, options, alone), check=True, capture_output=True, timeout=LONGEST_WAIT)
    tally = train_killed(title, script, options, killed, kills, seed)
    found = differences(alone, killed)
    assert not found, found
    assert not half_written(killed)
    tally.equal = True
    return tally


def table(tallies):
    """The tallies as lines of text."""
    lines = ["run                                    kills  while writing  resumes  whole files  equal in the end"]
    lines += [
        f"{t.title:38} {t.kills:5}  {t.while_writing:13}  {t.resumes:7}  {t.files:11}  {t.equal}" for t in tallies
    ]
    total = [sum(getattr(t, name) for t in tallies) for name in ("kills", "while_writing", "resumes", "files")]
    lines.append(f"{'all':38} {total[0]:5}  {total[1]:13}  {total[2]:7}  {total[3]:11}")
    return "\n".join(lines)


def small_run(root, *more):
    """Options of a run over the folders train/ and validation/ of root."""
    return [
        "--train",
        Path(root) / "train",
        "--validation",
        Path(root) / "validation",
        "--scale",
        "0.5",
        "--device",
        "cpu",
        "--workers",
        "0",
        *more,
    ]
