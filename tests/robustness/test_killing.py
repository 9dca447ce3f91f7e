"""Nothing is lost: killed, terminated, interrupted, and on disks that refuse."""

import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import make_folder
from killing import LONGEST_WAIT, command, compare_killed_and_left_alone, last_of, small_run, started, table

from sonogravity.common import folders
from sonogravity.common.file_names import IN_USE
from sonogravity.common.files import load_torch

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")

UNET = ["--base-channels", "4", "--learning-rate", "1e-2", "--save-every", "3", "--batch-size", "3"]
DEEPLAB = ["--backbone", "mobilenet_v3_large", "--batch-size", "4", "--save-every", "2"]
RUNS = [  # title, script, options, kills when soaking
    ("U-Net, plateau", "unet/train", [*UNET, "--epochs", "24"], 10),
    ("U-Net, cosine, 2 workers", "unet/train", [*UNET, "--epochs", "16", "--scheduler", "cosine", "--workers", "2"], 8),
    (
        "U-Net, SGD, every epoch saved",
        "unet/train",
        [*UNET, "--epochs", "16", "--optimizer", "sgd", "--save-every", "1"],
        8,
    ),
    ("DeepLabV3 MobileNetV3, poly", "deeplab/train", [*DEEPLAB, "--epochs", "8", "--scheduler", "poly"], 8),
]


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    make_folder(root / "train")
    make_folder(root / "validation", subjects=("C",), seed=1)
    return root


def test_killed_at_any_moment_and_resumed_a_run_ends_as_one_left_alone(data_root, tmp_path, soak):
    tallies = []
    for number, (title, script, options, kills) in enumerate(RUNS if soak else RUNS[:1]):
        options = small_run(data_root, *options) if soak else small_run(data_root, *options, "--epochs", "6")
        tallies.append(
            compare_killed_and_left_alone(title, script, options, tmp_path, kills if soak else 2, seed=number)
        )
        print(table(tallies), flush=True)
    assert all(tally.kills and tally.equal for tally in tallies)
    if soak:
        assert sum(tally.kills for tally in tallies) >= 30


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_at_once_and_keeps_the_last_epoch(data_root, tmp_path, sent, code):
    line = command("unet/train", small_run(data_root, *UNET, "--epochs", "500"), tmp_path)
    with started(line, stderr=subprocess.PIPE) as process:
        _read_until(process, "epoch 2/500")
        time.sleep(0.3)
        process.send_signal(sent)
        start = time.monotonic()
        said, errors = process.communicate(timeout=LONGEST_WAIT)
        assert time.monotonic() - start < 10
    assert process.returncode == code
    assert errors.strip().split("\n")[-1].endswith("interrupted") and "Traceback" not in errors
    last = last_of("unet/train", tmp_path)
    epoch = load_torch(last)["epoch"]
    assert epoch >= 2 and f"epoch {epoch} is kept; resume with: --resume {last}" in said
    assert not list(tmp_path.rglob(IN_USE))


def _read_until(process, beginning):
    for line in process.stdout:
        if line.startswith(beginning):
            return
    raise AssertionError(process.stderr.read())


def test_a_signal_before_the_first_epoch_is_done(data_root, tmp_path):
    line = command(
        "unet/train", small_run(data_root, *UNET, "--epochs", "2", "--base-channels", "64", "--scale", "4"), tmp_path
    )
    with started(line, stderr=subprocess.PIPE) as process:
        while not last_of("unet/train", tmp_path).exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=LONGEST_WAIT)
    assert process.returncode == 143
    assert "no epoch was completed; give the same command again" in said


def test_a_terminated_prediction_keeps_what_was_done(trained, tmp_path):
    make_folder(tmp_path / "many", subjects=("X",), frames=300)
    line = [
        sys.executable,
        folders.ROOT / "tests" / "slow_disk.py",
        "unet/predict",
        "--load",
        trained / "checkpoints" / "unet" / "run" / "best.pth",
        "--input",
        tmp_path / "many",
        "--output",
        tmp_path / "out",
    ]
    rows = tmp_path / "out" / "partial" / "files.partial.csv"
    with started(line, stderr=subprocess.PIPE) as process:
        while not rows.exists() or len(rows.read_text().splitlines()) < 3:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=LONGEST_WAIT)
    assert process.returncode == 143 and "Traceback" not in errors
    kept = len(rows.read_text().splitlines()) - 1
    assert f"the results of {kept} files are in {rows.parent}" in errors
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["partial"]
    under_way = 1 + 2 * os.cpu_count()  # files that threads write while the rows before them are not there yet
    assert kept <= len(list((rows.parent / "masks").glob("*.png"))) <= kept + under_way
