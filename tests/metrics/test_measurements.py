"""Measurements of structures, and their agreement with the truth (METRICS: measurements)."""

import json
import math
import shutil

import numpy as np
import openpyxl
import pandas as pd
import pytest
from conftest import simple_frame, write_frame

from sonogravity.commands import compare
from sonogravity.datasets.labels import IGNORE_INDEX, Labels
from sonogravity.datasets.mask_files import decode_mask
from sonogravity.datasets.spacing import ASSUMED, Spacing
from sonogravity.metrics import columns, overlap
from sonogravity.metrics.file_scores import Measure
from sonogravity.metrics.measurements import QUANTITIES, agreement, measure
from sonogravity.metrics.summary import group_means
from unet import evaluate, predict, predict_w_margin

LABELS = Labels.create([0, 128, 255], class_names=["bone", "ligament"])
IN_PX = [
    f"{name}_128" for name in ("area_px", "components", "top_px", "centroid_x_px", "centroid_y_px", "thickness_px")
]


def rectangle():
    mask = np.zeros((10, 10), bool)
    mask[2:4, 3:7] = True
    return mask


@pytest.mark.parametrize(
    ("pixel_size", "expected"),
    [((0.5, 0.25), (1, 1, 1.25, 1.25, 1.5, 1)), ((1, 1), (8, 1, 2.5, 5, 3, 2))],
    ids=["mm", "px"],
)
def test_the_rectangle_of_the_definition(pixel_size, expected):
    found = measure(rectangle(), pixel_size)
    assert found == pytest.approx(dict(zip(QUANTITIES, expected, strict=True)))


def test_an_absent_class_has_no_place_but_an_area_of_0():
    found = measure(np.zeros((10, 10), bool), (0.5, 0.25))
    assert (found.pop("area"), found.pop("components")) == (0, 0)
    assert len(found) == 4 and all(map(math.isnan, found.values()))


def test_pixels_that_touch_at_a_corner_are_one_component():
    assert measure(np.eye(4, dtype=bool))["components"] == 1
    apart = np.zeros((4, 5), bool)
    apart[0, [0, 2, 4]] = apart[3, 1] = True
    found = measure(apart)
    assert found["components"] == 4 and found["thickness"] == 1 and found["top"] == 0.5


def test_the_areas_of_the_definition_agree_within_their_limits():
    found = agreement([11, 12, 10], [10, 12, 8])
    expected = {"n": 3, "missed": 0, "spurious": 0, "bias": 1, "sd": 1, "limit_low": -0.96, "limit_high": 2.96}
    assert found == pytest.approx(expected)


def test_missed_and_spurious_files_are_counted_and_left_out():
    nan = math.nan
    area = agreement([11, 0, 5, 0, 10], [10, 7, 0, 0, 8])
    top = agreement([2.5, nan, 3.5, nan, 4.5], [1.5, 2.5, nan, nan, 2.5])
    for found in (area, top):
        assert [found[name] for name in ("n", "missed", "spurious", "bias")] == [2, 1, 1, 1.5]
    nothing = agreement([0, 5], [7, 0])
    assert (nothing["n"], nothing["missed"], nothing["spurious"]) == (0, 1, 1)
    assert math.isnan(nothing["bias"]) and math.isnan(nothing["limit_low"])
    alone = agreement([5], [4])
    assert alone["bias"] == 1 and math.isnan(alone["sd"]) and math.isnan(alone["limit_high"])


def test_agreement_of_subjects_is_that_of_their_means():
    found = agreement([11, 13, 12, 0, 10, 3], [10, 10, 12, 1, 8, 0], ["a", "a", "b", "b", "c", "d"])
    of_means = agreement([12, 12, 10], [10, 12, 8])  # a, b (its first file) and c; d holds the class in no truth
    assert found["n"] == 4 and found["subjects"] == of_means["n"] == 3
    for name in ("bias", "sd", "limit_low", "limit_high"):
        assert found[f"subjects_{name}"] == pytest.approx(of_means[name])
    assert "subjects" not in agreement([11, 13], [10, 10])


def count(truth, prediction, labels):
    return overlap.count(np.array(truth, np.uint8), np.array(prediction, np.uint8), labels)


def test_ignored_pixels_are_measured_neither_in_truth_nor_in_prediction():
    labels, v = Labels.create([0, 1], ignored=[7]), IGNORE_INDEX
    prediction = np.array([[0, 1, 0, 1]], np.uint8)
    truth, counts, ignored = count([[0, 1, 1, v]], prediction, labels)
    assert counts.tolist() == [[1, 0], [1, 1]]
    assert overlap.file_metrics(counts, labels)["dice"] == pytest.approx(2 / 3)
    of = Measure(labels, {"a": ASSUMED}).measurements
    found = of("a", prediction, truth, ignored)
    assert (found["area_px_1"], found["components_1"], found["centroid_x_px_1"]) == (1, 1, 1.5)
    assert (found["true_area_px_1"], found["true_centroid_x_px_1"]) == (2, 2)
    alone = of("a", prediction)
    assert (alone["area_px_1"], alone["components_1"]) == (2, 2), "without a truth nothing is ignored"
    assert not [name for name in alone if name.startswith("true_")]


def test_columns_are_in_mm_if_calibrated_and_name_their_class():
    classes = np.zeros((10, 10), np.uint8)
    classes[2:4, 3:7] = 1
    found = Measure(LABELS, {"a": Spacing(x=4, y=2)}).measurements("a", classes, np.roll(classes, 1, 0))
    assert found["area_mm2_bone"] == 1 and found["top_mm_bone"] == 1.25 and found["true_top_mm_bone"] == 1.75
    assert (found["centroid_x_mm_bone"], found["centroid_y_mm_bone"], found["thickness_mm_bone"]) == (1.25, 1.5, 1)
    assert found["area_mm2_ligament"] == found["components_ligament"] == 0 and math.isnan(found["top_mm_ligament"])
    assert (found["pixels_per_mm_x"], found["pixels_per_mm_y"]) == (4, 2), "mm stand beside their spacing"
    columns.check(found, LABELS.column_names)


@pytest.mark.parametrize(
    ("name", "part", "unit", "form"),
    [
        ("area_mm2_bone", "of class bone", "mm2", "0.00"),
        ("area_px_bone", "of class bone", "px", "0.00"),
        ("top_mm_ligament", "image's top edge (not the skin)", "mm", "0.00"),
        ("true_thickness_px_bone", "in the truth", "px", "0.00"),
        ("true_components_bone", "in the truth", "", "0.00"),
    ],
)
def test_definitions_units_and_formats(name, part, unit, form):
    found = columns.find(name, LABELS.column_names)
    assert part in found.text and found.unit == unit and columns.form_of(name) == form


def test_means_by_subject_hold_the_measurements_after_the_scores():
    labels, name = Labels.create([0, 1]), "area_px_1"
    clean = {"dice": 0.5, "missed": "", "spurious": ""}
    rows = [
        {"subject": "a", name: 1, **clean, f"true_{name}": 4},
        {"subject": "a", name: 2},  # a file without a mask
        {"subject": "b", name: 4.5, **clean, f"true_{name}": 8},
    ]
    table = group_means(rows, "subject", labels, ["dice"], [name, f"true_{name}"])
    assert [row["files"] for row in table] == [2, 1, 3, 3]
    np.testing.assert_allclose([row[name] for row in table], [1.5, 4.5, 3, 3 / math.sqrt(2)])
    assert [row[f"n_{name}"] for row in table] == [2, 1, 2, 2]
    assert [row[f"true_{name}"] for row in table[:2]] == [4, 8] and table[0]["n_dice"] == 1
    order = list(table[0])
    assert order.index("dice") < order.index("missed") < order.index(name) < order.index("n_dice")
    alone = group_means([{"subject": "a", name: 1}], "subject", labels, ["dice"], [name])
    assert list(alone[0]) == ["subject", "files", name, f"n_{name}"]


@pytest.fixture
def best(trained):
    return trained / "checkpoints" / "unet" / "run" / "best.pth"


def call(main, best, inputs, output, *more):
    assert main([str(a) for a in ["--load", best, "--input", inputs, "--output", output, *more]]) == 0
    return pd.read_csv(output / "files.csv"), json.loads((output / "summary.json").read_text())


def sheet_rows(sheet, top=1):
    head, *rows = sheet.iter_rows(min_row=top, values_only=True)
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_scored_files_have_both_measurements_and_a_summary_of_their_agreement(trained, best, tmp_path):
    files, summary = call(evaluate.main, best, trained / "validation", tmp_path / "e", "--pixels-per-mm", 4)
    names = [name.replace("area_px", "area_mm2").replace("_px_", "_mm_") for name in IN_PX]
    both = [*names, *(name.replace("128", "255") for name in names)]
    both += [f"true_{name}" for name in both]
    assert list(files.columns[-25:]) == [*both, "seconds"]
    truth = Labels.create([0, 128, 255])
    for _, row in files.iterrows():
        mask = truth.to_classes(decode_mask(trained / "validation" / "masks" / row["file"]))
        assert row["true_area_mm2_128"] == pytest.approx((mask == 1).sum() / 16)
    name = "area_mm2_128"
    assert summary["measurements"][name]["mean"] == pytest.approx(files[name].mean())
    assert summary["measurements"][name]["sd"] == pytest.approx(files[name].std())
    held = files[(files[name] > 0) & (files[f"true_{name}"] > 0)]
    difference = held[name] - held[f"true_{name}"]
    found = summary["agreement"][name]
    assert (found["n"], found["bias"]) == (len(held), pytest.approx(difference.mean()))
    assert found["limit_high"] == pytest.approx(difference.mean() + 1.96 * difference.std())
    of_subjects = difference.groupby(held["file"].str[0]).mean()
    assert (found["subjects"], found["subjects_bias"]) == (len(of_subjects), pytest.approx(of_subjects.mean()))
    book = openpyxl.load_workbook(tmp_path / "e" / "files.xlsx")
    rows = {row["metric"]: row for row in sheet_rows(book["Summary"])}
    assert rows[f"true_{name}"]["mean"] == pytest.approx(files[f"true_{name}"].mean())
    top = [cell.value for cell in book["Summary"]["A"]].index("agreement") + 1
    table = {row["agreement"]: row for row in sheet_rows(book["Summary"], top) if row["n"] is not None}
    assert set(table) == set(both[:12])
    assert {key: table[name][key] for key in found} == pytest.approx(found, nan_ok=True)
    by_subject = sheet_rows(book["By subject"])
    assert [row["subject"] for row in by_subject] == ["C", "D", "mean", "sd"]
    assert by_subject[0][name] == pytest.approx(files[files["file"].str[0] == "C"][name].mean())
    defined = {row["column"]: row for row in sheet_rows(book["Definitions"]) if row["column"]}
    assert defined["area_mm2_255"]["unit"] == "mm2" and "not the skin" in defined["top_mm_128"]["definition"]


def test_files_without_masks_have_the_measurements_of_the_prediction(trained, best, tmp_path):
    shutil.copytree(trained / "validation" / "images", tmp_path / "frames")
    files, summary = call(predict.main, best, tmp_path / "frames", tmp_path / "p", "--pixels-per-mm", 4)
    masked, _ = call(predict.main, best, trained / "validation", tmp_path / "q", "--pixels-per-mm", 4)
    names = [name for name in masked if columns.form_of(name) == "0.00" and name in files and "unlike" not in name]
    assert len(names) == 12 and set(files["pixels_per_mm"]) == {4}
    pd.testing.assert_frame_equal(files[names], masked[names])
    assert not [name for name in files if name.startswith("true_")]
    assert summary["files"] == 0 and "metrics" not in summary and "agreement" not in summary
    assert set(summary["measurements"]) == set(names)
    book = openpyxl.load_workbook(tmp_path / "p" / "files.xlsx")
    assert book.sheetnames == ["Least certain first", "Files", "Summary", "By subject", "Settings", "Definitions"]
    assert [row["subject"] for row in sheet_rows(book["By subject"])] == ["C", "D", "mean", "sd"]


def test_files_with_and_without_masks_in_one_table(trained, best, tmp_path):
    shutil.copytree(trained / "validation", tmp_path / "some")
    (tmp_path / "some" / "masks" / "C_001.png").unlink()
    arguments = ("--pixels-per-mm", 4, "--margin-mm", 0.5, "--panels", "none")
    files, summary = call(predict_w_margin.main, best, tmp_path / "some", tmp_path / "p", *arguments)
    assert files["area_mm2_128"].notna().all() and files["true_area_mm2_128"].isna().sum() == 1
    assert set(files["pixels_per_mm"]) == {4} and files["margin_mm"].isna().sum() == 1
    found = summary["measurements"]
    assert (found["area_mm2_128"]["n"], found["true_area_mm2_128"]["n"], summary["files"]) == (8, 7, 7)
    assert sum(summary["agreement"]["area_mm2_128"][name] for name in ("n", "missed", "spurious")) <= 7


def test_evaluate_measures_no_ignored_pixels(tmp_path):
    truth, prediction = np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.uint8)
    truth[5:10, 5:10], truth[:, 15:], prediction[4:10, 5:20] = 128, 7, 128
    write_frame(tmp_path / "one", "A_1", np.zeros((20, 20), np.uint8), truth)
    write_frame(tmp_path / "two", "A_1", truth, prediction)
    line = ["--predictions", tmp_path / "two" / "masks", "--input", tmp_path / "one", "--ignore", 7]
    assert evaluate.main([*map(str, line), "--output", str(tmp_path / "e")]) == 0
    row = pd.read_csv(tmp_path / "e" / "files.csv").iloc[0]
    assert (row["area_px_128"], row["true_area_px_128"], row["top_px_128"], row["true_top_px_128"]) == (
        60,
        25,
        4.5,
        5.5,
    )
    assert (row["centroid_x_px_128"], row["true_centroid_x_px_128"], row["thickness_px_128"]) == (10, 7.5, 6)


def test_without_subjects_there_are_no_numbers_of_subjects(trained, best, tmp_path):
    for i, word in enumerate(("neck", "hip")):
        write_frame(tmp_path / "named", word, *simple_frame(i))
    _, summary = call(evaluate.main, best, tmp_path / "named", tmp_path / "e")
    assert summary["files_independent"] and "groups" not in summary
    assert "subjects" not in summary["agreement"]["area_px_128"]
    book = openpyxl.load_workbook(tmp_path / "e" / "files.xlsx")
    assert "By subject" not in book.sheetnames
    cells = [str(cell) for row in book["Summary"].iter_rows(values_only=True) for cell in row]
    assert "bias" in cells and "subjects_bias" not in cells


def test_measurements_of_the_prediction_are_compared_and_not_at_another_spacing(trained, best, tmp_path, capsys):
    for name, spacing in (("a", 4), ("b", 4), ("c", 8)):
        call(evaluate.main, best, trained / "validation", tmp_path / name, "--pixels-per-mm", spacing)
    book = tmp_path / "ab.xlsx"
    assert compare.main([str(tmp_path / "a"), str(tmp_path / "b"), "--output", str(book)]) == 0
    compared = {row["metric"] for row in sheet_rows(openpyxl.load_workbook(book)["Summary"])}
    assert {"area_mm2_128", "thickness_mm_255", "components_128"} <= compared
    assert not [name for name in compared if str(name).startswith("true_")]
    assert compare.main([str(tmp_path / "a"), str(tmp_path / "c"), "--output", str(tmp_path / "ac.xlsx")]) == 0
    assert "different pixels per mm" in capsys.readouterr().err
    compared = {row["metric"] for row in sheet_rows(openpyxl.load_workbook(tmp_path / "ac.xlsx")["Summary"])}
    assert "components_128" in compared and not compared & {"area_mm2_128", "top_mm_128", "hd_mm"}
