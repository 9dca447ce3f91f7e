"""Several processes that train one model, started by torchrun over gloo on this machine."""

import os
import re
import signal
import subprocess
import sys
import time
from itertools import chain

import pandas as pd
import pytest
import torch
from conftest import make_folder, train_arguments
from launching import LONGEST_WAIT, finish, torchrun
from torch import nn
from two_processes import gradients

from sonogravity.common import folders
from sonogravity.common.file_names import IN_USE
from sonogravity.common.files import load_torch
from sonogravity.common.messages import InputError
from sonogravity.common.processes import process_count
from sonogravity.datasets import loader
from sonogravity.inference.predictor import folded
from sonogravity.training import distributed
from unet import evaluate, predict, train
from unet.model import UNet

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch has no torch.distributed here")


def run_two(arguments, *more):
    process = torchrun(folders.ROOT / "unet" / "train.py", arguments, *more)
    out, err = finish(process)
    assert process.returncode == 0, err[-2000:]
    return out


@pytest.fixture
def odd_sets(tmp_path):
    """10 training frames, so that the last step of two processes with batches of 2 is a part of one; 5 to validate."""
    return (
        make_folder(tmp_path / "train", frames=5),
        make_folder(tmp_path / "validation", subjects=("C",), frames=5, seed=1),
    )


@pytest.mark.parametrize(
    ("frames", "accumulate", "micro_batch"),
    [(8, 1, 0), (11, 1, 0), (11, 2, 1)],
    ids=["whole batches", "a smaller last step", "accumulated and in parts"],
)
def test_two_processes_of_two_frames_are_one_of_four(tmp_path, frames, accumulate, micro_batch):
    """Gradients, to rounding in float64, with the statistics of batch normalisation frozen."""
    target = tmp_path / "gradients.pt"
    process = torchrun(folders.ROOT / "tests" / "two_processes.py", [target, frames, 2, accumulate, micro_batch])
    _, err = finish(process)
    assert process.returncode == 0, err[-2000:]
    loss, found = torch.load(target, weights_only=True)
    expected_loss, expected = gradients(frames, 4, accumulate)
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    assert len(found) == len(expected) == -(-frames // (4 * accumulate))
    for ours, theirs in zip(found, expected, strict=True):
        assert any(grad.abs().max() > 1e-3 for grad in theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert torch.allclose(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("frames", range(4, 25))
@pytest.mark.parametrize(("batch_size", "smallest", "processes"), [(2, 1, 2), (3, 2, 2), (2, 2, 1), (1, 1, 4)])
def test_every_frame_once_in_steps_of_equal_number(frames, batch_size, smallest, processes):
    shares = [loader.EpochBatches(frames, batch_size, 3, smallest, processes, rank) for rank in range(processes)]
    one = loader.EpochBatches(frames, batch_size * processes, 3, smallest * processes)
    steps = [list(share) for share in shares]
    assert len({len(share) for share in steps}) == 1 and len(steps[0]) == len(one)
    for i, whole in enumerate(one):
        parts = [share[i] for share in steps]
        assert list(chain(*parts)) == whole and len(whole) == shares[0].frames_in(i)
        assert min(map(len, parts)) >= smallest and max(map(len, parts)) - min(map(len, parts)) <= 1


def test_too_few_frames_for_the_processes():
    with pytest.raises(InputError, match="3 training frames are too few for 2 processes"):
        loader.EpochBatches(3, 2, 0, 2, processes=2)


def test_a_run_of_two_is_one_run(odd_sets, tmp_path):
    out = run_two(train_arguments(*odd_sets, tmp_path, "--epochs", 3, "--scheduler", "cosine"))
    assert len(re.findall(r"^epoch \d/3  train loss", out, re.MULTILINE)) == 3
    assert out.count("training:   10 pairs") == 1 and out.count("gloo on the CPU cannot") == 1
    table = pd.read_csv(tmp_path / "results/unet/run/epochs.csv")
    assert table["epoch"].tolist() == [1, 2, 3]
    best = tmp_path / "checkpoints/unet/run/best.pth"
    output = tmp_path / "evaluated"
    assert evaluate.main(["--load", str(best), "--input", str(odd_sets[1]), "--output", str(output)]) == 0
    row = table.loc[table["dice"].idxmax()]
    files = pd.read_csv(output / "files.csv")
    for name in ("dice", "iou", "sensitivity", "dice_128"):
        assert files[name].mean() == pytest.approx(row[name], abs=1e-6)
    panels = sorted(path.name for path in (tmp_path / "results/unet/run/panels/epoch_003").iterdir())
    assert len([name for name in panels if name.startswith("worst_")]) == 1 and len(panels) == 5
    # one process goes on: the schedule, too, stands at epoch 3 of 5
    last = tmp_path / "checkpoints/unet/run/last.pth"
    assert train.main(["--resume", str(last), "--epochs", "5"]) == 0
    table = pd.read_csv(tmp_path / "results/unet/run/epochs.csv")
    assert table["epoch"].tolist() == [1, 2, 3, 4, 5]
    content = load_torch(last)["training"]
    assert content["scheduler"]["last_epoch"] == 5 * 5  # 10 frames, batches of 2
    assert content["settings"]["processes"] == 1


def test_a_refusal_is_one_line(odd_sets, tmp_path):
    process = torchrun(folders.ROOT / "unet" / "train.py", train_arguments(*odd_sets, tmp_path, "--classes", 7))
    _, err = finish(process)
    assert process.returncode != 0
    assert len([line for line in err.split("\n") if line.startswith("error: ")]) == 1
    assert not (tmp_path / "checkpoints").exists()


def started_run(odd_sets, tmp_path, *more):
    """A long run of two processes, once its second epoch is done, and the numbers of its processes."""
    arguments = train_arguments(*odd_sets, tmp_path, "--epochs", 400)
    process = torchrun(folders.ROOT / "unet" / "train.py", arguments, *more)
    epochs = tmp_path / "results/unet/run/epochs.csv"
    start = time.monotonic()
    while not epochs.exists() or len(epochs.read_text().splitlines()) < 3:
        assert process.poll() is None and time.monotonic() - start < LONGEST_WAIT
        time.sleep(0.02)
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True)
    return process, [int(number) for number in children.stdout.split()]


@pytest.mark.skipif(sys.platform != "linux", reason="ps is asked for children as on Linux")
def test_a_worker_that_dies_ends_all(odd_sets, tmp_path):
    process, workers = started_run(odd_sets, tmp_path)
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    start = time.monotonic()
    _, err = finish(process)
    assert process.returncode != 0 and time.monotonic() - start < 60
    assert load_torch(tmp_path / "checkpoints/unet/run/last.pth")["epoch"] >= 2
    assert "another process has ended" in err or "interrupted" in err  # gloo's word, or torchrun's signal, came first


@pytest.mark.skipif(sys.platform != "linux", reason="ps is asked for children as on Linux")
def test_torchrun_starts_again_where_the_run_was(odd_sets, tmp_path):
    process, workers = started_run(odd_sets, tmp_path, "--max-restarts=1")
    os.kill(workers[0], signal.SIGKILL)  # it holds the run's claim
    epochs = tmp_path / "results/unet/run/epochs.csv"
    done, start = len(epochs.read_text().splitlines()), time.monotonic()
    while len(epochs.read_text().splitlines()) < done + 3:
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() - start < LONGEST_WAIT
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    out, _ = finish(process)
    assert "restarted by torchrun: resumes from" in out
    assert out.count("ended unexpectedly") == 2  # of both folders
    assert not list(tmp_path.rglob(IN_USE))
    table = pd.read_csv(epochs)
    assert table["epoch"].tolist() == list(range(1, len(table) + 1))


def test_restarts_want_a_name(monkeypatch, sets, tmp_path, refused):
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "2")
    arguments = train_arguments(*sets, tmp_path)
    at = arguments.index("--name")
    assert "finds the run by its name; give --name" in refused(train.main, arguments[:at] + arguments[at + 2 :])


def test_prediction_is_one_process(trained, tmp_path, monkeypatch, capsys):
    for name, value in (("TORCHELASTIC_RUN_ID", "1"), ("WORLD_SIZE", "2"), ("RANK", "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        predict.main(["--load", str(trained / "checkpoints/unet/run/best.pth"), "--input", str(trained / "validation")])
    assert "runs as one process" in capsys.readouterr().err


def test_synchronised_statistics_fold_as_ordinary_ones():
    torch.manual_seed(0)
    model = UNet(1, 3, 2).train()
    model(torch.rand(2, 1, 32, 32))
    x = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        expected = model.eval()(x)
        synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        assert any(isinstance(module, nn.SyncBatchNorm) for module in synchronised.modules())
        found = folded(synchronised)
        assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in found.modules())
        assert torch.allclose(found(x), expected, atol=1e-5)


def test_alone_nothing_is_done():
    model = nn.Conv2d(1, 1, 1)
    assert distributed.wrap_model(model, model, torch.device("cpu")) is model
    assert distributed.gather(3) == [3] and distributed.broadcast("x") == "x" and process_count() == 1
