"""The margin pair of scripts, and masks scored against masks, for real: worksheets, panels, refusals."""

import importlib
import json
import shutil

import numpy as np
import openpyxl
import pandas as pd
import pytest
from conftest import write_frame
from PIL import Image
from scipy.ndimage import distance_transform_edt

from sonogravity.datasets.labels import Labels
from sonogravity.datasets.mask_files import decode_mask
from sonogravity.metrics import margin, overlap
from sonogravity.reporting import workbook
from unet import evaluate, evaluate_w_margin, predict, predict_w_margin

LABELS = Labels.create([0, 128, 255])


@pytest.fixture
def best(trained):
    return trained / "checkpoints" / "unet" / "run" / "best.pth"


def call(main, output, *arguments):
    assert main([str(a) for a in ["--output", output, *arguments]]) == 0
    return pd.read_csv(output / "files.csv", keep_default_na=False, na_values=[""])


def summary(output):
    return json.loads((output / "summary.json").read_text())


def test_margin_columns_and_files(trained, best, tmp_path):
    given = ["--load", best, "--input", trained / "validation"]
    plain = call(predict.main, tmp_path / "plain", *given, "--pixels-per-mm", 4)
    table = call(predict_w_margin.main, tmp_path / "margin", *given, "--pixels-per-mm", 4, "--margin-mm", 0.5)
    assert list(table.columns[11:15]) == ["hd_mm", "hd95_mm", "assd_mm", "nsd"]
    for name in ("dice", "dice_128", "hd_mm", "hd95_mm_128", "assd_mm_255", "accuracy"):
        assert table[name].tolist() == pytest.approx(plain[name].tolist(), nan_ok=True)
    assert (table["tolerant_dice"] >= table["dice"]).all()
    assert table["dice_original"].tolist() == table["dice"].tolist()
    assert set(table["mask_used"]) <= set(margin.VARIANTS) and "accuracy_128" not in table
    assert (set(table["pixels_per_mm"]), set(table["margin_mm"])) == ({4.0}, {0.5})
    assert {"tolerant_accuracy", "tolerant_fnr_255", "tolerant_iou_128"} <= set(table)
    assert sorted(path.name for path in (tmp_path / "margin").iterdir()) == [
        "files.csv",
        "files.xlsx",
        "masks",
        "panels",
        "settings.json",
        "summary.json",
        "sweep.png",
    ]
    file = table["file"][0]
    narrow, wide = (Image.open(tmp_path / part / "panels" / file).width for part in ("plain", "margin"))
    assert wide > 1.6 * narrow  # five pictures, not three


def test_figures_of_a_file_are_those_of_its_masks(trained, best, tmp_path):
    output = tmp_path / "o"
    table = call(
        predict_w_margin.main,
        output,
        "--load",
        best,
        "--input",
        trained / "validation",
        "--pixels-per-mm",
        4,
        "--margin-mm",
        0.5,
    )
    for _, row in table.iterrows():
        truth, prediction = (
            LABELS.to_classes(decode_mask(folder / row["file"]))
            for folder in (trained / "validation" / "masks", output / "masks")
        )
        for name, moved in (("dilated", margin.dilate(truth, 2)), ("eroded", margin.erode(truth, 2))):
            dice = overlap.file_metrics(overlap.confusion_matrix(moved, prediction, 3), LABELS)["dice"]
            assert row[f"dice_{name}"] == pytest.approx(dice, nan_ok=True)


def test_summary_counts_the_variants_and_the_sheet_colours_them(trained, best, tmp_path):
    output = tmp_path / "o"
    table = call(evaluate_w_margin.main, output, "--load", best, "--input", trained / "validation")
    found = summary(output)["margin"]
    assert found["chosen"] == {name: int((table["mask_used"] == name).sum()) for name in margin.VARIANTS}
    assert (found["mm"], found["pixels_per_mm"], found["assumed"]) == (1.5, 3.78, True)
    assert [row["margin_mm"] for row in found["sweep"]] == list(margin.SWEEP_MM)
    at = found["sweep"][6]
    assert at["tolerant_dice"] == pytest.approx(table["tolerant_dice"].mean())
    assert at["nsd"] == pytest.approx(table["nsd"].mean())
    book = openpyxl.load_workbook(output / "files.xlsx")
    assert book.sheetnames == [
        "Files",
        "Worst first",
        "Summary",
        "By subject",
        "Calibration",
        "Sweep",
        "Settings",
        "Definitions",
    ]
    header = [cell.value for cell in book["Files"][1]]
    for cells in book["Files"].iter_rows(min_row=2):
        used = cells[header.index("mask_used")]
        assert used.fill.fgColor.rgb[2:] == workbook._variant_fill(used.value).fgColor.rgb[2:]
    defined = [cell.value for cell in book["Definitions"]["A"]]
    assert set(header) <= set(defined)
    assert any("must not be compared" in str(cell.value) for cell in book["Definitions"]["B"])
    assert len(book["Sweep"]._charts) == 1


def test_the_assumption_is_loud_and_keeps_pixels(trained, best, tmp_path, capsys):
    given = ["--load", best, "--input", trained / "validation"]
    table = call(evaluate_w_margin.main, tmp_path / "o", *given)
    said, error = capsys.readouterr()
    assert "3.78 pixels per mm are ASSUMED" in error and "5.67 pixels" in error
    assert "at a margin of 1.5 mm (3.78 pixels per mm ASSUMED); chosen" in said
    assert "hd_px" in table and "hd_mm" not in table
    (trained / "spacing.csv").write_text("file,pixels_per_mm\n")
    call(evaluate_w_margin.main, tmp_path / "o", *given)
    assert str(trained / "spacing.csv") in capsys.readouterr().err
    (trained / "spacing.csv").unlink()


def test_a_margin_under_a_pixel_is_said(trained, best, tmp_path, capsys):
    table = call(
        evaluate_w_margin.main,
        tmp_path / "o",
        "--load",
        best,
        "--input",
        trained / "validation",
        "--pixels-per-mm",
        1,
        "--margin-mm",
        0.9,
    )
    assert "below one pixel in 8 files" in capsys.readouterr().err
    assert set(table["mask_used"]) == {"original"} and (table["tolerant_dice"] == table["dice"]).all()


def test_a_table_gives_each_file_its_millimetres(trained, best, tmp_path):
    names = sorted(path.name for path in (trained / "validation" / "images").iterdir())
    lines = [f"{name},{4 if i else 8},{2 if i else 8}" for i, name in enumerate(names)]
    (tmp_path / "s.csv").write_text("\n".join(["file,pixels_per_mm_x,pixels_per_mm_y", *lines]))
    table = call(
        evaluate_w_margin.main,
        tmp_path / "o",
        "--load",
        best,
        "--input",
        trained / "validation",
        "--spacing",
        tmp_path / "s.csv",
    )
    assert table["pixels_per_mm_x"].tolist() == [8] + [4] * 7 and table["pixels_per_mm_y"].tolist() == [8] + [2] * 7
    assert summary(tmp_path / "o")["margin"]["pixels_per_mm"] is None
    pixels = call(evaluate.main, tmp_path / "px", "--load", best, "--input", trained / "validation")
    assert table["hd_mm"][0] == pytest.approx(pixels["hd_px"][0] / 8)


def test_frames_without_masks_are_labelled_all_the_same(trained, best, tmp_path):
    call(
        predict_w_margin.main,
        tmp_path / "o",
        "--load",
        best,
        "--input",
        *(trained / "validation/images").iterdir(),
        "--no-masks",
    )
    assert len(list((tmp_path / "o" / "panels").iterdir())) == 8 and not (tmp_path / "o" / "sweep.png").exists()


def test_scale_does_not_change_the_millimetres(trained, best, tmp_path):
    """The variants come from masks of native size, so what the network sees is all that differs."""
    given = ["--load", best, "--input", trained / "validation", "--pixels-per-mm", 4, "--margin-mm", 0.5]
    for scale in (0.25, 1):
        output = tmp_path / str(scale)
        table = call(predict_w_margin.main, output, *given, "--scale", scale)
        row = table.iloc[0]
        truth = LABELS.to_classes(decode_mask(trained / "validation" / "masks" / row["file"]))
        prediction = LABELS.to_classes(decode_mask(output / "masks" / row["file"]))
        for name, moved in (("dilated", margin.dilate(truth, 2)), ("eroded", margin.erode(truth, 2))):
            dice = overlap.file_metrics(overlap.confusion_matrix(moved, prediction, 3), LABELS)["dice"]
            assert row[f"dice_{name}"] == pytest.approx(dice, nan_ok=True)


@pytest.fixture
def observers(tmp_path):
    """A truth folder of 4 masks with structures, and a second observer who erodes them by 2 pixels."""
    rng = np.random.default_rng(0)
    for i in range(4):
        mask = np.zeros((50, 60), np.uint8)
        mask[8:24, 5 : 30 + i], mask[30:44, 20:50] = 128, 255
        write_frame(tmp_path / "first", f"P{i}_1", rng.integers(0, 255, mask.shape, dtype=np.uint8), mask)
        (tmp_path / "second").mkdir(exist_ok=True)
        eroded = np.where(distance_transform_edt(mask) <= 2, 0, mask).astype(np.uint8)
        Image.fromarray(eroded).save(tmp_path / "second" / f"P{i}_1.png")
    return tmp_path


def test_masks_against_themselves_eroded(observers):
    table = call(
        evaluate_w_margin.main,
        observers / "o",
        "--predictions",
        observers / "second",
        "--input",
        observers / "first",
        "--pixels-per-mm",
        2,
        "--margin-mm",
        1,
    )
    assert set(table["mask_used"]) == {"eroded"} and set(table["tolerant_dice"]) == {1.0}
    assert (table["dice"] < 0.9).all() and table["seconds"].isna().all()
    assert json.loads((observers / "o" / "settings.json").read_text())["predictions"] == "second"


def test_predictions_of_a_model_score_as_its_own_script_did(trained, best, tmp_path):
    predicted = call(predict.main, tmp_path / "p", "--load", best, "--input", trained / "validation")
    scored = call(
        evaluate.main, tmp_path / "e", "--predictions", tmp_path / "p" / "masks", "--input", trained / "validation"
    )
    names = [name for name in predicted.columns if name in scored.columns and name != "seconds"]
    assert set(predicted.columns) - set(scored.columns) == {
        "entropy",
        "expected_dice",
        "expected_dice_128",
        "expected_dice_255",
        "unlike_training",
    }
    pd.testing.assert_frame_equal(predicted[names], scored[names])
    assert summary(tmp_path / "p")["metrics"] == summary(tmp_path / "e")["metrics"]


def test_folders_of_masks_alone_and_single_files(observers):
    shutil.copytree(observers / "first" / "masks", observers / "alone")
    table = call(evaluate.main, observers / "a", "--predictions", observers / "second", "--input", observers / "alone")
    assert len(table) == 4
    table = call(
        evaluate.main,
        observers / "b",
        "--predictions",
        observers / "second",
        "--input",
        observers / "alone" / "P2_1.png",
    )
    assert table["file"].tolist() == ["P2_1.png"]


def test_true_masks_from_a_folder_of_their_own(observers):
    """--masks alone scores all of them; with --input, images say which."""
    (observers / "first" / "masks").rename(observers / "truth")
    given = ["--predictions", observers / "second", "--masks", observers / "truth"]
    assert len(call(evaluate.main, observers / "c", *given)) == 4
    assert len(call(evaluate.main, observers / "d", *given, "--input", observers / "first")) == 4
    (observers / "first" / "images" / "P0_1.png").unlink()
    assert len(call(evaluate.main, observers / "e", *given, "--input", observers / "first")) == 3


def break_size(folder):
    Image.fromarray(np.zeros((50, 61), np.uint8)).save(folder / "second" / "P1_1.png")


def break_value(folder):
    Image.fromarray(np.full((50, 60), 77, np.uint8)).save(folder / "second" / "P1_1.png")


def break_missing(folder):
    (folder / "second" / "P1_1.png").unlink()


def break_extra(folder):
    (folder / "first" / "masks" / "P1_1.png").unlink()


def break_images(folder):
    shutil.copytree(folder / "first" / "images", folder / "second", dirs_exist_ok=True)
    shutil.copytree(folder / "first" / "images", folder / "first" / "masks", dirs_exist_ok=True)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_size, "P1_1.png: is 61x50, but the mask"),
        (break_value, "P1_1.png: holds the unknown value 77"),
        (break_missing, "no prediction for 1 of 4 true masks: P1_1.png"),
        (break_extra, "1 of 4 have no true mask of the same stem: P1_1.png"),
        (break_images, "as images or JPEG files do"),
    ],
)
def test_faults_of_masks_are_named(observers, refused, damage, message):
    damage(observers)
    arguments = ["--predictions", observers / "second", "--input", observers / "first", "--output", observers / "o"]
    assert message in refused(evaluate.main, arguments)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "--load/-f --predictions is required"),
        (["--predictions", "x", "--load", "y"], "not allowed with"),
        (["--predictions", "x", "--scale", "0.5"], "leave them out"),
        (["--predictions", "none"], "no such file or folder"),
        (["--predictions", "x", "--pixels-per-mm", "0"], "0 is not a number of pixels per mm"),
        (["--predictions", "x", "--pixels-per-mm", "3", "--spacing", "s.csv"], "not allowed with"),
        (["--predictions", "x", "--margin-mm", "-1"], "-1 is not a margin"),
    ],
)
def test_options_are_refused(refused, more, message):
    assert message in refused(evaluate_w_margin.main, more)


@pytest.mark.parametrize("name", ["evaluate", "evaluate_w_margin"])
def test_deeplab_scores_masks_alike(observers, name):
    given = ["--predictions", observers / "second", "--input", observers / "first", "--pixels-per-mm", 2]
    tables = [
        call(importlib.import_module(f"{model}.{name}").main, observers / model, *given)
        for model in ("unet", "deeplab")
    ]
    pd.testing.assert_frame_equal(*tables)
