"""Entropy, expected_dice and calibration against sums taken pixel by pixel."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from openpyxl import load_workbook
from PIL import Image

from sonogravity.datasets.labels import Labels
from sonogravity.inference.predictor import to_label_maps
from sonogravity.metrics import confidence
from unet import evaluate, predict

LABELS = Labels.create([0, 128, 255])


def random_logits(seed=0, frames=2, size=(12, 9)):
    return 3 * torch.randn(frames, 3, *size, generator=torch.Generator().manual_seed(seed))


def test_entropy_and_expected_dice_pixel_by_pixel():
    logits = random_logits()
    maps = to_label_maps(logits)
    rows = confidence.certainty(logits, maps, LABELS)
    assert list(rows[0]) == confidence.columns(LABELS)
    p = np.exp(logits.double().numpy())
    p /= p.sum(1, keepdims=True)
    for i, row in enumerate(rows):
        assert row["entropy"] == pytest.approx(float(-(p[i] * np.log(p[i])).sum(0).mean() / math.log(3)), rel=1e-5)
        expected = []
        for c, name in ((1, "128"), (2, "255")):
            labelled = maps[i] == c
            expected.append(2 * p[i, c][labelled].sum() / (labelled.sum() + p[i, c].sum()))
            assert row[f"expected_dice_{name}"] == pytest.approx(float(expected[-1]), rel=1e-5)
        assert row["expected_dice"] == pytest.approx(float(np.mean(expected)), rel=1e-5)


def test_a_sure_prediction_expects_dice_1_and_no_idea_is_entropy_1():
    sure = torch.zeros(1, 3, 4, 4)
    sure[:, 1, :2] = sure[:, 2, 2:] = 100
    row = confidence.certainty(sure, to_label_maps(sure), LABELS)[0]
    assert row["entropy"] == pytest.approx(0, abs=1e-6) and row["expected_dice"] == pytest.approx(1)
    row = confidence.certainty(torch.zeros(1, 3, 4, 4), np.zeros((1, 4, 4), np.uint8), LABELS)[0]
    assert row["entropy"] == pytest.approx(1) and math.isnan(row["expected_dice"])


def test_expected_dice_is_right_where_the_probabilities_are():
    """Truths drawn from the probabilities themselves: their mean Dice comes out as expected."""
    logits = random_logits(1, frames=1, size=(80, 70))
    prediction = to_label_maps(logits)
    row = confidence.certainty(logits, prediction, LABELS)[0]
    probabilities = logits[0].softmax(0).flatten(1).T
    found = []
    for seed in range(40):
        truth = torch.multinomial(probabilities, 1, generator=torch.Generator().manual_seed(seed)).view(80, 70).numpy()
        both = ((truth == 1) & (prediction[0] == 1)).sum()
        found.append(2 * both / ((truth == 1).sum() + (prediction[0] == 1).sum()))
    assert row["expected_dice_128"] == pytest.approx(np.mean(found), abs=0.005)


def test_calibration_counts_every_pixel_once():
    logits = random_logits(2, frames=1, size=(30, 20))[0]
    truth = torch.randint(0, 3, (30, 20), generator=torch.Generator().manual_seed(3)).to(torch.uint8).numpy()
    sums = confidence.reliability(logits, truth, LABELS)
    found = confidence.calibration(sums, LABELS)
    p = logits.softmax(0).numpy()
    for c, name in ((1, "128"), (2, "255")):
        error = 0
        for row in found[name]["bins"]:
            inside = (p[c] >= row["from"]) & (p[c] < row["to"])
            assert row["pixels"] == inside.sum()
            assert row["probability"] == pytest.approx(p[c][inside].mean(), rel=1e-5)
            assert row["observed"] == pytest.approx((truth[inside] == c).mean())
            error += abs(p[c][inside].mean() - (truth[inside] == c).mean()) * inside.sum() / inside.size
        assert found[name]["ece"] == pytest.approx(error, rel=1e-4)
        assert sum(row["pixels"] for row in found[name]["bins"]) == truth.size


def test_files_without_masks_are_sorted_by_what_the_model_expects(trained, tmp_path, capsys):
    best = trained / "checkpoints/unet/run/best.pth"
    images = trained / "validation" / "images"
    assert (
        predict.main(["--load", str(best), "--input", str(images), "--output", str(tmp_path / "o"), "--no-masks"]) == 0
    )
    rows = pd.read_csv(tmp_path / "o" / "files.csv")
    assert set(confidence.columns(LABELS)) <= set(rows.columns) and "dice" not in rows
    book = load_workbook(tmp_path / "o" / "files.xlsx")
    assert book.sheetnames[0] == "Least certain first"
    table = list(book["Least certain first"].values)
    sheet = pd.DataFrame(table[1:], columns=table[0])
    order = rows.assign(key=rows.expected_dice.fillna(-1)).sort_values("key", kind="stable")
    assert list(sheet.file) == list(order.file)
    said = capsys.readouterr().out
    assert (
        f"look first at the lowest expected_dice: {order.file.iloc[0]}" in said
        and "no estimate of their Dice" in said
        and "nan" not in said
    )


def test_where_nothing_is_found_the_terminal_says_so(trained, tmp_path, capsys):
    content = torch.load(trained / "checkpoints/unet/run/best.pth", weights_only=True)
    content["state_dict"]["outc.conv.bias"][0] = 1e4  # background everywhere
    torch.save(content, tmp_path / "empty.pth")
    images = trained / "validation" / "images"
    assert (
        predict.main(
            [
                "--load",
                str(tmp_path / "empty.pth"),
                "--input",
                str(images),
                "--output",
                str(tmp_path / "o"),
                "--no-masks",
            ]
        )
        == 0
    )
    said = capsys.readouterr().out
    assert "(nothing found)" in said and "nan" not in said


def test_evaluation_draws_the_calibration(trained, tmp_path):
    best = trained / "checkpoints/unet/run/best.pth"
    arguments = ["--load", str(best), "--input", str(trained / "validation"), "--output", str(tmp_path / "o")]
    assert evaluate.main(arguments) == 0
    found = json.loads((tmp_path / "o" / "summary.json").read_text())["calibration"]
    files = pd.read_csv(tmp_path / "o" / "files.csv")
    for entry in found.values():
        assert 0 <= entry["ece"] <= 1
        assert sum(row["pixels"] for row in entry["bins"]) == (files.width * files.height).sum()
    with Image.open(tmp_path / "o" / "calibration.png") as picture:
        assert picture.width > 400 and np.asarray(picture.convert("L")).std() > 10
    assert "Calibration" in load_workbook(tmp_path / "o" / "files.xlsx").sheetnames
