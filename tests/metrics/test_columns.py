"""One table of columns: what has no entry fails at the start, what a script writes has one."""

import openpyxl
import pandas as pd
import pytest

from sonogravity.datasets.labels import Labels
from sonogravity.metrics import columns
from sonogravity.metrics.file_scores import Measure
from unet import predict_w_margin, train

LABELS = Labels.create([0, 128, 255], class_names=["bone", "top_px"])


@pytest.mark.parametrize(
    ("name", "text", "unit"),
    [
        ("dice", "2TP / (2TP + FP + FN)", "0 to 1"),
        ("dice_bone", "dice of class bone alone", "0 to 1"),
        ("hd_px_bone", "hd_px of class bone alone", "px"),
        ("dice_background", "dice of class background alone", "0 to 1"),
        ("dice_top_px", "dice of class top_px alone", "0 to 1"),
        ("tolerant_iou_bone", "iou of class bone alone, against the chosen variant of the truth (mask_used)", "0 to 1"),
        ("dice_dilated", "foreground mean Dice against the truth dilated by margin_mm", "0 to 1"),
        ("n_dice_bone", "number of files for which dice_bone is defined", ""),
    ],
)
def test_a_column_is_found_with_its_text_and_unit(name, text, unit):
    found = columns.find(name, LABELS.column_names)
    assert (found.text, found.unit) == (text, unit)


@pytest.mark.parametrize("name", ["area_mm2", "file_size", "dice_0", "dice_spine", "accuracy_bone", "epoch_bone", ""])
def test_a_column_without_an_entry_is_no_guess(name):
    with pytest.raises(LookupError, match="has no entry"):
        columns.find(name, LABELS.column_names)


def test_a_column_without_an_entry_ends_a_script_at_its_start(trained, tmp_path, monkeypatch):
    best = trained / "checkpoints" / "unet" / "run" / "best.pth"
    monkeypatch.setattr(Measure, "columns", lambda *_, **__: ["file", "area_mm2", "seconds"])
    line = ["--load", str(best), "--input", str(trained / "validation"), "--output", str(tmp_path / "out")]
    with pytest.raises(LookupError, match="area_mm2"):
        predict_w_margin.main(line)
    assert not (tmp_path / "out").exists()


def test_a_run_with_a_column_without_an_entry_does_not_start(sets, tmp_path, monkeypatch):
    from conftest import train_arguments

    monkeypatch.delitem(columns.COLUMNS, "val_loss")
    with pytest.raises(LookupError, match="val_loss"):
        train.main(train_arguments(*sets, tmp_path))
    assert not (tmp_path / "checkpoints").exists()


def test_every_column_of_every_table_has_an_entry(trained, tmp_path):
    best = trained / "checkpoints" / "unet" / "run" / "best.pth"
    line = ["--load", str(best), "--input", str(trained / "validation"), "--output", str(tmp_path / "out")]
    assert predict_w_margin.main(line) == 0
    classes = Labels.create([0, 128, 255]).column_names
    files = pd.read_csv(tmp_path / "out" / "files.csv")
    columns.check(files, classes)
    columns.check(pd.read_csv(trained / "results" / "unet" / "run" / "epochs.csv"), classes)
    assert {"dice_background", "iou_background"} <= set(files) and "dice_0" not in files
    book = openpyxl.load_workbook(tmp_path / "out" / "files.xlsx")
    defined = [row[0] for row in book["Definitions"].iter_rows(min_row=2, values_only=True) if row[0]]
    assert defined == list(files)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("epoch", "0"),
        ("learning_rate", "0.00E+00"),
        ("seconds", "0.000"),
        ("images_per_second", "0.00"),
        ("dice_bone", "0.0000"),
        ("missed_bone", "0"),
        ("n_hd_px", "0"),
        ("dilated", "0"),
        ("dice_dilated", "0.0000"),
        ("dice one - two", "0.0000"),
    ],
)
def test_number_formats(name, form):
    assert columns.form_of(name) == form


@pytest.mark.parametrize(
    ("name", "compared"),
    [
        ("dice", True),
        ("hd_mm_bone", True),
        ("nsd", True),
        ("accuracy", True),
        ("dice_original", False),
        ("tolerant_dice", False),
        ("expected_dice_bone", False),
        ("seconds", False),
        ("missed", False),
    ],
)
def test_what_two_runs_are_compared_by(name, compared):
    assert columns.is_metric(name) == compared
