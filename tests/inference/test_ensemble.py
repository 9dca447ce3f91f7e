"""Several checkpoints, and several views of a frame, answer as the mean of their probabilities."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import train_arguments
from PIL import Image

from sonogravity.datasets import frames
from sonogravity.datasets.inputs import find_input_pairs
from sonogravity.datasets.labels import Labels
from sonogravity.inference import ensemble
from sonogravity.inference.ensemble import Ensemble
from sonogravity.inference.predictor import open_all, open_predictor
from unet import evaluate, predict, train
from unet.model import UNet

OPENED = {"device": "cpu", "amp": None, "scale": None, "mask_values": None}


@pytest.fixture(scope="module")
def two(trained):
    """Two checkpoints of other widths and scales, of the same data."""
    arguments = train_arguments(
        trained / "train",
        trained / "validation",
        trained,
        "--epochs",
        4,
        "--loss",
        "ce+dice",
        "--scale",
        "1",
        "--base-channels",
        6,
        "--seed",
        1,
    )
    arguments[arguments.index("--name") + 1] = "other"
    assert train.main(arguments) == 0
    return [trained / "checkpoints/unet" / name / "best.pth" for name in ("run", "other")]


def frame_for(predictor, pair):
    image, mask = frames.read_pair(pair, predictor.channels)
    return frames.Frame(pair, frames.at_scales(image, predictor.scales), mask, image.shape[:2])


def first_pair(trained):
    return find_input_pairs([trained / "validation"])[0][0]


def test_an_ensemble_is_the_mean_of_probabilities(two, trained):
    opened = open_all(two, UNet, **OPENED)
    members = {path: predictor for path, (predictor, _) in opened.items()}
    both, pair = Ensemble(members), first_pair(trained)
    found = both.logits([frame_for(both, pair)]).softmax(1)
    expected = sum(member.logits([frame_for(member, pair)]).softmax(1) for member in members.values()) / 2
    torch.testing.assert_close(found, expected)


def test_a_mirrored_view_is_mirrored_back(two, trained):
    predictor, _ = open_predictor(two[0], UNet, **OPENED)
    pair = first_pair(trained)
    native, _ = frames.read_pair(pair, 1)
    flip = Ensemble({"one": predictor}, "flip")
    found = flip.logits([frame_for(flip, pair)]).softmax(1)

    def alone(image):
        frame = frames.Frame(pair, frames.at_scales(image, predictor.scales), None, image.shape[:2])
        return predictor.logits([frame]).softmax(1)

    expected = (alone(native) + alone(np.ascontiguousarray(native[:, ::-1])).flip(-1)) / 2
    torch.testing.assert_close(found, expected)


def test_views_of_several_scales_see_the_native_frame(two, trained):
    predictor, _ = open_predictor(two[0], UNet, **OPENED)
    pair = first_pair(trained)
    scales = Ensemble({"one": predictor}, "scales")
    frame = frame_for(scales, pair)
    native, _ = frames.read_pair(pair, 1)
    for factor, _ in ensemble.VIEWS["scales"]:
        size = frames.network_size(native.shape, predictor.scale * factor)
        np.testing.assert_array_equal(frame.images[predictor.scale * factor], frames.resize_image(native, size))
    assert scales.logits([frame]).shape == (1, 3, *native.shape)
    assert len(scales.describe()["views"]) == 6


def test_one_member_twice_over_agrees_with_itself(trained, two, tmp_path):
    """The ensemble of one model and of a copy of it scores as the model alone."""
    copy = tmp_path / "copy.pth"
    copy.write_bytes(two[0].read_bytes())
    alone, both = (tmp_path / name / "files.csv" for name in ("alone", "both"))
    inputs = ["--input", str(trained / "validation")]
    assert evaluate.main(["--load", str(two[0]), *inputs, "--output", str(alone.parent)]) == 0
    assert evaluate.main(["--load", str(two[0]), str(copy), *inputs, "--output", str(both.parent)]) == 0
    first, second = (pd.read_csv(path).drop(columns="seconds") for path in (alone, both))
    pd.testing.assert_frame_equal(first, second, atol=1e-5)


def test_predict_with_an_ensemble_and_views(two, trained, tmp_path):
    masks = {}
    for batch in (1, 3):
        output = tmp_path / str(batch)
        assert (
            predict.main(
                [
                    "--load",
                    *map(str, two),
                    "--tta",
                    "flip",
                    "--input",
                    str(trained / "validation"),
                    "--output",
                    str(output),
                    "--batch-size",
                    str(batch),
                ]
            )
            == 0
        )
        masks[batch] = {path.name: np.array(Image.open(path)) for path in sorted((output / "masks").iterdir())}
    assert len(masks[1]) == 8
    for name, mask in masks[1].items():
        np.testing.assert_array_equal(mask, masks[3][name])
    settings = json.loads((tmp_path / "1" / "settings.json").read_text())
    assert [source["run"] for source in settings["checkpoint"]] == ["run", "other"]
    assert settings["used"]["members"] == 2 and settings["used"]["scale"] == [0.5, 1.0]


def test_the_default_output_names_the_ensemble(two, trained, tmp_path, monkeypatch):
    monkeypatch.setattr("sonogravity.common.folders.RESULTS", tmp_path)
    assert evaluate.main(["--load", *map(str, two), "--input", str(trained / "validation")]) == 0
    assert (tmp_path / "unet" / "run_and_other" / "evaluate" / "files.xlsx").is_file()


def test_members_of_other_classes_are_refused():
    def member(values, channels=1):
        return SimpleNamespace(labels=Labels.create(values), channels=channels, device="cpu")

    with pytest.raises(Exception, match=r"b.pth: its classes .* give members with equal classes"):
        Ensemble({"a.pth": member([0, 1]), "b.pth": member([0, 2])})
    with pytest.raises(Exception, match=r"b.pth: its channels are 3"):
        Ensemble({"a.pth": member([0, 1]), "b.pth": member([0, 1], 3)})


def test_a_file_given_twice_is_refused(two, trained, refused):
    line = refused(evaluate.main, ["--load", two[0], two[0], "--input", trained / "validation"])
    assert "given twice" in line


def test_engines_serve_an_ensemble(two, trained, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    inputs = ["--load", *map(str, two), "--input", str(trained / "validation"), "--no-amp"]
    scores = []
    for engine in ("torch", "onnx"):
        assert evaluate.main([*inputs, "--engine", engine, "--output", str(tmp_path / engine)]) == 0
        scores.append(pd.read_csv(tmp_path / engine / "files.csv").dice)
    np.testing.assert_allclose(*scores, atol=1e-3)
