"""The scripts on real frames, where there are any."""

import pandas as pd
import pytest
import torch
from conftest import train_arguments

from unet import evaluate, predict, train


def test_check_of_the_real_set(real_frames, tmp_path, capsys):
    phantom = real_frames / "phantom"
    arguments = train_arguments(phantom / "train", phantom / "validation", tmp_path, "--check", "--workers", 2)
    assert train.main(arguments) == 0
    said = capsys.readouterr().out
    assert "training:   208 pairs, width x height 740x800" in said and "validation: 45 pairs" in said
    assert "training 9" in said and "validation 2 (D12, D5)" in said


def test_a_frame_stored_as_a_tensor(real_frames, tmp_path):
    phantom = real_frames / "phantom"
    images = sorted((phantom / "train" / "images").iterdir())[::26]
    for part, kept in (("train", images), ("validation", sorted((phantom / "validation" / "images").iterdir())[:2])):
        for kind in ("images", "masks"):
            (tmp_path / part / kind).mkdir(parents=True)
            for path in kept:
                (tmp_path / part / kind / path.name).symlink_to(phantom / part / kind / path.name)
    arguments = train_arguments(tmp_path / "train", tmp_path / "validation", tmp_path, "--scale", 0.1, "--epochs", 1)
    if train.main([*arguments, "--class-names", "bone,ligament"]) != 0:
        pytest.fail("training failed")
    last = tmp_path / "checkpoints" / "unet" / "run" / "last.pth"
    outputs = []
    for i, main in enumerate((predict.main, evaluate.main)):
        output = tmp_path / str(i)
        assert main(["--load", str(last), "--input", str(real_frames / "phantom_pth"), "--output", str(output)]) == 0
        outputs.append(pd.read_csv(output / "files.csv").drop(columns="seconds"))
    assert outputs[0].equals(outputs[1]) and outputs[0]["height"][0] == 800
    assert torch.load(last, weights_only=True)["labels"]["names"] == ["0", "bone", "ligament"]
