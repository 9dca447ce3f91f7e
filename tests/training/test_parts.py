"""What an experiment passes to train.py takes the place of the part of its name, and is kept whole on the way."""

import json
from functools import partial

import pandas as pd
import pytest
import torch
from conftest import train_arguments
from killing import same
from torch.optim.swa_utils import AveragedModel

from sonogravity.common.files import load_torch
from sonogravity.datasets.loader import every_frame_once
from sonogravity.training import steps
from sonogravity.training.losses import SegmentationLoss
from sonogravity.training.optimization import make_optimizer
from unet import evaluate, train
from unet.dataset import make_augmentation
from unet.model import UNet


def last(root):
    return root / "checkpoints" / "unet" / "run" / "last.pth"


def moving_average(averaged, current, steps):
    return averaged + 0.25 * (current - averaged)


AVERAGE = {"averaging": partial(AveragedModel, avg_fn=moving_average, use_buffers=True)}


def test_every_part_is_called_with_what_the_page_says(sets, tmp_path):
    called = {}

    def spied(name, part):
        def call(*arguments):
            called[name] = arguments
            return part(*arguments)

        return call

    class Network(UNet):
        pass

    def average(model):
        called["averaging"] = (model,)
        return AveragedModel(model)

    parts = {
        "criterion": SegmentationLoss,
        "augmentation": make_augmentation,
        "sampler": every_frame_once,
        "optimizer": make_optimizer,
    }
    parts = {name: spied(name, part) for name, part in parts.items()}
    line = train_arguments(*sets, tmp_path, "--epochs", 1)
    assert train.main(line, model_class=Network, averaging=average, **parts) == 0
    assert called["criterion"] == ("ce", 0) and called["augmentation"] == (0,)
    assert len(called["sampler"][0]) == 8 and called["sampler"][1:] == (2, 0, 2, 1, 0)
    assert (called["optimizer"][0], *called["optimizer"][2:]) == ("adam", 0.01, 0.0)
    assert type(called["averaging"][0]) is Network


def test_a_part_that_is_unknown_is_refused(sets, tmp_path):
    with pytest.raises(TypeError, match="loss"):
        train.main(train_arguments(*sets, tmp_path), loss=SegmentationLoss)


def test_the_average_is_what_is_scored_and_saved(sets, tmp_path):
    line = train_arguments(*sets, tmp_path, "--epochs", 2, "--no-augment", "--loss", "ce+dice")
    assert train.main(line, **AVERAGE) == 0
    content = load_torch(last(tmp_path))
    stepped = content["training"]["average"]["stepped"]
    assert content["training"]["average"]["steps"] == 8
    assert not same(content["state_dict"], stepped)
    output = tmp_path / "scores"
    assert evaluate.main(["--load", str(last(tmp_path)), "--input", str(sets[1]), "--output", str(output)]) == 0
    epochs = pd.read_csv(tmp_path / "results" / "unet" / "run" / "epochs.csv")
    assert pd.read_csv(output / "files.csv")["accuracy"].mean() == pytest.approx(epochs["accuracy"].iloc[-1], abs=1e-6)


def test_a_resumed_average_equals_an_unbroken_one_bit_for_bit(sets, tmp_path, monkeypatch, refused):
    options = ["--epochs", 3, "--loss", "ce+dice"]
    assert train.main(train_arguments(*sets, tmp_path / "whole", *options), **AVERAGE) == 0
    real = steps.train_one_epoch

    def cut(*arguments, **more):
        if arguments[-1].startswith("epoch 3"):
            raise KeyboardInterrupt
        return real(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(steps, "train_one_epoch", cut)
        with pytest.raises(SystemExit):
            train.main(train_arguments(*sets, tmp_path / "cut", *options), **AVERAGE)
    assert "with parts passed to train.py (averaging torch.optim" in refused(
        train.main, ["--resume", last(tmp_path / "cut")]
    )
    assert train.main(["--resume", str(last(tmp_path / "cut"))], **AVERAGE) == 0
    whole, resumed = (load_torch(last(tmp_path / name)) for name in ("whole", "cut"))
    assert same(whole["state_dict"], resumed["state_dict"])
    assert same(whole["training"]["average"], resumed["training"]["average"])


def test_an_average_survives_exhausted_memory(sets, tmp_path, monkeypatch, capsys):
    options = ["--epochs", 2, "--batch-size", 4]
    assert train.main(train_arguments(*sets, tmp_path / "whole", *options), **AVERAGE) == 0
    real, calls = UNet.forward, []

    def forward(self, x, heights=None):
        calls.append(self.training)
        if self.training and sum(calls) == 4:  # in the last step of the second epoch
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(self, x, heights)

    monkeypatch.setattr(UNet, "forward", forward)
    assert train.main(train_arguments(*sets, tmp_path / "short", *options), **AVERAGE) == 0
    assert "the epoch starts again" in capsys.readouterr().err
    whole, short = (load_torch(last(tmp_path / name)) for name in ("whole", "short"))
    assert same(whole["state_dict"], short["state_dict"])
    assert same(whole["training"]["average"], short["training"]["average"])


def test_a_run_keeps_which_parts_it_was_trained_with(sets, tmp_path, refused):
    line = train_arguments(*sets, tmp_path, "--epochs", 1, "--loss", "dice")
    assert train.main(line, criterion=partial(SegmentationLoss)) == 0
    settings = tmp_path / "results" / "unet" / "run" / "settings.json"
    part = "sonogravity.training.losses.SegmentationLoss"
    assert json.loads(settings.read_text())["parts"] == {"criterion": part}
    for way, path in (("--resume", last(tmp_path)), ("--repeat", settings)):
        assert f"(criterion {part}), now they are none; pass the same" in refused(train.main, [way, path])
    line = ["--resume", str(last(tmp_path)), "--epochs", "2"]
    assert train.main(line, criterion=partial(SegmentationLoss)) == 0


def test_an_augmentation_that_would_not_be_used_is_refused(sets, tmp_path, capsys):
    with pytest.raises(SystemExit):
        train.main(train_arguments(*sets, tmp_path, "--no-augment"), augmentation=make_augmentation)
    assert "--no-augment: contradicts the augmentation passed to train.py" in capsys.readouterr().err


def test_a_damaged_average_is_one_line(sets, tmp_path, capsys):
    assert train.main(train_arguments(*sets, tmp_path, "--epochs", 1), **AVERAGE) == 0
    content = load_torch(last(tmp_path))
    content["training"]["average"] = {"steps": 3}
    torch.save(content, last(tmp_path))
    with pytest.raises(SystemExit) as stopped:
        train.main(["--resume", str(last(tmp_path)), "--epochs", "2"], **AVERAGE)
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and "the average's state does not fit" in said and "Traceback" not in said
