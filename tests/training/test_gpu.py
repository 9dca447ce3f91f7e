"""On a real GPU: a group of processes, synchronised statistics, float16, exhausted memory, the scores of a CPU."""

import json
from contextlib import contextmanager
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_folder, simple_frame, train_arguments, write_frame
from launching import finish, torchrun
from two_processes import gradients

from sonogravity.common import devices, folders
from sonogravity.common.files import load_torch
from sonogravity.inference.predictor import Predictor
from unet import evaluate, predict, train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
RUN, LAST, BEST = "results/unet/run", "checkpoints/unet/run/last.pth", "checkpoints/unet/run/best.pth"
LARGER = 8  # times the pixels along each side, so that one pixel more or less of a structure is below 1e-3 of its Dice
ON_GPU = ("--device", "cuda")


@contextmanager
def memory_limited_to(megabytes):
    """Let torch take only so much of the GPU's memory."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(megabytes * 2**20 / torch.cuda.get_device_properties(0).total_memory)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.fixture
def float16_card(monkeypatch):
    """A GPU without units for bfloat16, as they were before 2020."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: False)


@pytest.fixture(scope="module")
def large_frames(tmp_path_factory):
    """Validation frames of 320x288. At a scale LARGER times smaller, the network sees frames like those of training."""
    folder = tmp_path_factory.mktemp("large")
    for i in range(6):
        frame = (np.kron(array, np.ones((LARGER, LARGER), array.dtype)) for array in simple_frame([7, i]))
        write_frame(folder, f"C_{i:03d}", *frame)
    return folder


def dice_of(checkpoint, frames, output, *more):
    """The Dice of every file, as evaluate.py writes it."""
    arguments = ["--load", checkpoint, "--input", frames, "--output", output, "--workers", 0, *more]
    assert evaluate.main([str(argument) for argument in arguments]) == 0
    return pd.read_csv(output / "files.csv")["dice"]


def epochs_of(root):
    return pd.read_csv(root / RUN / "epochs.csv")


def test_a_group_of_one_over_nccl_trains_as_without_a_group(sets, tmp_path):
    options = (*ON_GPU, "--deep-supervision", "--epochs", 3, "--scheduler", "cosine")
    process = torchrun(
        folders.ROOT / "tests" / "one_process.py", train_arguments(*sets, tmp_path / "a", *options), processes=1
    )
    out, err = finish(process)
    assert process.returncode == 0, err[-3000:]
    assert "group: nccl, 1, cuda:0, DistributedDataParallel, {'SyncBatchNorm'}" in out
    assert train.main(train_arguments(*sets, tmp_path / "b", *options)) == 0
    one, other = epochs_of(tmp_path / "a"), epochs_of(tmp_path / "b")
    assert one["train_loss"].to_numpy() == pytest.approx(other["train_loss"].to_numpy(), rel=0.02)
    # Its checkpoint is an ordinary one: scored by one process, and resumed by one without a group.
    dice = dice_of(tmp_path / "a" / BEST, sets[1], tmp_path / "out").mean()
    assert dice == pytest.approx(one["dice"].max(), abs=1e-6)
    assert train.main(["--resume", str(tmp_path / "a" / LAST), "--epochs", "4"]) == 0
    assert epochs_of(tmp_path / "a")["epoch"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("frames", [8, 11])
def test_synchronised_statistics_are_those_of_one_large_batch(tmp_path, frames):
    """Two processes share the GPU over gloo. Batch normalisation trains; gradients are equal to rounding in float64."""
    target = tmp_path / "gradients.pt"
    process = torchrun(folders.ROOT / "tests" / "two_processes.py", [target, frames, 2, 1, 0, "cuda:0"])
    _, err = finish(process)
    assert process.returncode == 0, err[-3000:]
    loss, found = torch.load(target, weights_only=True)
    expected_loss, expected = gradients(frames, 4, device="cuda:0")
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert any(grad.abs().max() > 1e-3 for grad in theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert torch.allclose(one, other, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"], ids=["fused", "not fused"])
@pytest.mark.parametrize("first_scale", [2.0**16, 2.0**40], ids=["of torch", "far too large"])
def test_float16_trains_with_a_scaler(sets, tmp_path, monkeypatch, recwarn, float16_card, optimizer, first_scale):
    monkeypatch.setattr(torch.amp, "GradScaler", partial(torch.amp.GradScaler, init_scale=first_scale))
    options = (*ON_GPU, "--amp", "--epochs", 6, "--optimizer", optimizer, "-l", 1e-3, "--scheduler", "cosine")
    assert train.main(train_arguments(*sets, tmp_path, *options, "--loss", "ce+dice")) == 0
    table = epochs_of(tmp_path)
    settings = json.loads((tmp_path / RUN / "settings.json").read_text())
    assert settings["mixed_precision"] == "torch.float16"
    scaler = load_torch(tmp_path / LAST)["training"]["scaler"]
    if first_scale == 2.0**16:
        assert table["train_loss"].iloc[-1] < table["train_loss"].iloc[0]
    else:  # each step that overflows is left out, and halves the scale
        assert 1 <= scaler["scale"] < first_scale
    dice = dice_of(tmp_path / BEST, sets[1], tmp_path / "out", *ON_GPU).mean()  # in float16, as the checkpoint says
    assert dice == pytest.approx(table["dice"].max(), abs=1e-3)
    assert train.main(["--resume", str(tmp_path / LAST), "--epochs", "7"]) == 0
    resumed = load_torch(tmp_path / LAST)["training"]["scaler"]
    steps = 4  # 8 frames in batches of 2
    assert resumed["_growth_tracker"] == scaler["_growth_tracker"] + steps or resumed["scale"] < scaler["scale"]
    assert not [warned for warned in recwarn if "lr_scheduler" in str(warned.message)]


def test_a_gpu_too_small_for_the_batch_gets_smaller_parts(tmp_path, capsys):
    train_set = make_folder(tmp_path / "train", size=(400, 400))
    validation = make_folder(tmp_path / "validation", subjects=("C",), size=(400, 400), seed=1)
    options = ("--epochs", 1, "--batch-size", 8, "--scale", 1, "--base-channels", 32, *ON_GPU)
    with memory_limited_to(500):
        assert train.main(train_arguments(train_set, validation, tmp_path, *options)) == 0
    said = capsys.readouterr().err
    assert said.count("out of memory: ") >= 2 and "frames at a time" in said
    memory = json.loads((tmp_path / RUN / "settings.json").read_text())["memory"]
    assert memory["checkpointing"] and memory["micro_batch"] < 8


def test_prediction_on_a_gpu_too_small_for_the_batch_takes_smaller_ones(trained, tmp_path, monkeypatch):
    real, sizes = Predictor.logits, []

    def logits(self, frames):
        found = real(self, frames)
        sizes.append(len(frames))
        return found

    monkeypatch.setattr(Predictor, "logits", logits)
    frames = make_folder(tmp_path / "frames", subjects=("C",), size=(400, 400))
    peaks, dice = {}, {}
    for batch_size in (1, 4):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        dice[batch_size] = dice_of(trained / BEST, frames, tmp_path / str(batch_size), *ON_GPU, "-b", batch_size)
        peaks[batch_size] = torch.cuda.max_memory_reserved() / 2**20
    assert sizes == [1, 1, 1, 1, 4]
    with memory_limited_to((peaks[1] + peaks[4]) / 2):
        parts = dice_of(trained / BEST, frames, tmp_path / "parts", *ON_GPU, "-b", 4)
    assert sizes[5:] in ([2, 2], [2, 1, 1], [1, 1, 2], [1, 1, 1, 1])
    for whole in dice.values():
        assert parts.to_numpy() == pytest.approx(whole.to_numpy(), abs=1e-6)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_scores_on_a_gpu_are_those_of_the_cpu(trained, large_frames, tmp_path, batch_size):
    frames = (trained / BEST, large_frames)
    options = ("--scale", 0.5 / LARGER, "--batch-size", batch_size)
    expected = dice_of(*frames, tmp_path / "cpu", *options, "--device", "cpu", "--no-amp")
    found = dice_of(*frames, tmp_path / "cuda", *options, *ON_GPU, "--no-amp")
    mixed = dice_of(*frames, tmp_path / "amp", *options, *ON_GPU, "--amp")
    assert expected.min() > 0.3
    assert found.to_numpy() == pytest.approx(expected.to_numpy(), abs=1e-6)
    assert mixed.mean() == pytest.approx(expected.mean(), abs=1e-3)


def test_scores_in_float16_are_those_of_float32(trained, large_frames, tmp_path, float16_card):
    options = ("--scale", 0.5 / LARGER, *ON_GPU)
    expected = dice_of(trained / BEST, large_frames, tmp_path / "a", *options, "--no-amp")
    found = dice_of(trained / BEST, large_frames, tmp_path / "b", *options, "--amp")
    assert found.mean() == pytest.approx(expected.mean(), abs=1e-3)
    used = json.loads((tmp_path / "b" / "settings.json").read_text())
    assert "float16" in str(used) and "bfloat16" not in str(used)


def test_one_dice_in_training_and_evaluation_on_a_gpu(tmp_path):
    train_set = make_folder(tmp_path / "train", size=(160, 144))
    validation = make_folder(tmp_path / "validation", subjects=("C",), size=(160, 144), seed=1)
    options = (*ON_GPU, "--epochs", 3, "--base-channels", 16, "--loss", "ce+dice", "--no-amp")
    assert train.main(train_arguments(train_set, validation, tmp_path, *options)) == 0
    in_training = epochs_of(tmp_path)["dice"].max()
    for i, (device, batch) in enumerate([("cuda", 1), ("cuda", 4), ("cpu", 4)]):
        dice = dice_of(tmp_path / BEST, validation, tmp_path / str(i), "--device", device, "--batch-size", batch)
        assert dice.mean() == pytest.approx(in_training, abs=1e-6)


def test_compiled_on_a_gpu(sets, tmp_path, capsys):
    if devices.cpp_compiler() is None:
        pytest.skip("no C++ compiler")
    options = (*ON_GPU, "--amp", "--compile", "--epochs", 2, "--batch-size", 4)
    assert train.main(train_arguments(*sets, tmp_path, *options)) == 0
    assert "--compile: the first step took" in capsys.readouterr().out
    arguments = ["--load", tmp_path / BEST, "--input", sets[1], "--panels", "none", *ON_GPU]
    for engine in ("torch", "compile"):
        assert predict.main(list(map(str, [*arguments, "--output", tmp_path / engine, "--engine", engine]))) == 0
    dice = [pd.read_csv(tmp_path / engine / "files.csv")["dice"].mean() for engine in ("torch", "compile")]
    assert dice[0] == pytest.approx(dice[1], abs=1e-2)
