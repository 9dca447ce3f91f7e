"""predict.py and evaluate.py for real: every kind of input, one Dice everywhere, nothing overwritten."""

import csv
import json
import math
import shutil
import subprocess
import sys

import numpy as np
import openpyxl
import pandas as pd
import pytest
import torch
from conftest import make_folder, simple_frame, train_arguments, write_frame
from PIL import Image

from sonogravity.common import folders
from sonogravity.common.folders import ROOT
from sonogravity.datasets.labels import Labels
from sonogravity.datasets.mask_files import decode_mask
from sonogravity.metrics import overlap
from unet import evaluate, predict, train

MEASURED = ("area_px", "components", "top_px", "centroid_x_px", "centroid_y_px", "thickness_px")


@pytest.fixture
def best(trained):
    return trained / "checkpoints" / "unet" / "run" / "best.pth"


def call(main, checkpoint, inputs, output, *more):
    inputs = inputs if isinstance(inputs, list) else [inputs]
    assert main([str(a) for a in ["--load", checkpoint, "--input", *inputs, "--output", output, *more]]) == 0
    return pd.read_csv(output / "files.csv", dtype={"missed": str, "spurious": str})


def summary(output):
    return json.loads((output / "summary.json").read_text())


def test_one_dice_whichever_script_prints_it(trained, best, tmp_path):
    table = pd.read_csv(trained / "results" / "unet" / "run" / "epochs.csv")
    in_training = table.loc[table["dice"].idxmax()]
    for i, (main, batch) in enumerate([(predict.main, 1), (predict.main, 4), (evaluate.main, 1), (evaluate.main, 4)]):
        files = call(main, best, trained / "validation", tmp_path / str(i), "--batch-size", batch)
        for name in (*overlap.OVERLAP, "dice_128", "dice_255"):
            assert files[name].mean() == pytest.approx(in_training[name], abs=1e-6)
        assert summary(tmp_path / str(i))["metrics"]["dice"]["mean"] == pytest.approx(in_training["dice"], abs=1e-6)


def test_masks_and_scores_agree(trained, best, tmp_path):
    files = call(predict.main, best, trained / "validation", tmp_path / "p")
    labels = Labels.create([0, 128, 255])
    for _, row in files.iterrows():
        truth = decode_mask(trained / "validation" / "masks" / row["file"])
        prediction = decode_mask(tmp_path / "p" / "masks" / row["file"])
        assert set(np.unique(prediction)) <= {0, 128, 255} and prediction.shape == (row["height"], row["width"])
        m = overlap.confusion_matrix(labels.to_classes(truth), labels.to_classes(prediction), 3)
        expected = overlap.file_metrics(m, labels)
        for name in ("dice", "iou_128", "fnr_255", "accuracy"):
            assert row[name] == pytest.approx(expected[name], nan_ok=True)


def test_files_of_predict(trained, best, tmp_path):
    call(predict.main, best, trained / "validation", tmp_path / "p")
    assert sorted(p.name for p in (tmp_path / "p").iterdir()) == [
        "files.csv",
        "files.xlsx",
        "masks",
        "panels",
        "settings.json",
        "summary.json",
    ]
    assert len(list((tmp_path / "p" / "panels").iterdir())) == 8
    header = (tmp_path / "p" / "files.csv").read_text().split("\n")[0].split(",")
    assert header[:11] == [
        "file",
        "width",
        "height",
        "dice",
        "iou",
        "accuracy",
        "precision",
        "sensitivity",
        "specificity",
        "fpr",
        "fnr",
    ]
    measured = [f"{name}_{c}" for c in (128, 255) for name in MEASURED]
    assert header[-25:] == [*measured, *(f"true_{name}" for name in measured), "seconds"]
    assert header[-32:-25] == [
        "missed",
        "spurious",
        "entropy",
        "expected_dice",
        "expected_dice_128",
        "expected_dice_255",
        "unlike_training",
    ]
    assert "accuracy_128" not in header
    call(predict.main, best, trained / "validation", tmp_path / "j", "--panels", "jpg")
    assert {p.suffix for p in (tmp_path / "j" / "panels").iterdir()} == {".jpg"}
    call(predict.main, best, trained / "validation", tmp_path / "n", "--panels", "none")
    assert not (tmp_path / "n" / "panels").exists()


def test_workbook_of_evaluate(trained, best, tmp_path):
    files = call(evaluate.main, best, trained / "validation", tmp_path / "e")
    assert not (tmp_path / "e" / "masks").exists()
    book = openpyxl.load_workbook(tmp_path / "e" / "files.xlsx")
    assert book.sheetnames == [
        "Files",
        "Worst first",
        "Summary",
        "By subject",
        "Calibration",
        "Settings",
        "Definitions",
    ]
    names = [cell.value for cell in book["Files"][1]]
    assert names == list(files.columns)
    column = [book["Files"].cell(i + 2, names.index("dice") + 1).value for i in range(len(files))]
    assert np.nanmean(np.array(column, float)) == pytest.approx(summary(tmp_path / "e")["metrics"]["dice"]["mean"])
    worst = [row[names.index("dice")].value for row in book["Worst first"].iter_rows(min_row=2)]
    assert worst == sorted(worst)
    head = [cell.value for cell in book["Summary"][1]]
    dice = {h: cell.value for h, cell in zip(head, book["Summary"][2], strict=True)}
    stored = summary(tmp_path / "e")
    assert dice["metric"] == "dice" and dice["n"] == stored["metrics"]["dice"]["n"]
    assert dice["mean_of_classes"] == pytest.approx(stored["metrics"]["dice"]["mean_of_classes"])
    assert dice["pooled"] == pytest.approx(stored["pooled"]["dice"])
    defined = {row[0].value for row in book["Definitions"].iter_rows(min_row=2) if row[0].value}
    assert defined == set(names)
    text = " ".join(str(cell.value) for row in book["Summary"].iter_rows() for cell in row)
    assert "Only 2 subjects" in text


def test_an_undefined_score_is_a_blank_cell_and_null(trained, best, tmp_path):
    image, mask = simple_frame(5)
    mask[mask == 255] = 0
    write_frame(tmp_path / "one", "only_001", image, mask)
    files = call(evaluate.main, best, tmp_path / "one", tmp_path / "e")
    assert math.isnan(files["sensitivity_255"][0])
    row = next(csv.DictReader((tmp_path / "e" / "files.csv").open()))
    assert row["sensitivity_255"] == ""
    assert summary(tmp_path / "e")["classes"]["255"]["sensitivity"]["mean"] is None
    sheet = openpyxl.load_workbook(tmp_path / "e" / "files.xlsx")["Files"]
    names = [cell.value for cell in sheet[1]]
    assert sheet.cell(2, names.index("sensitivity_255") + 1).value is None


def test_prediction_without_masks(trained, best, tmp_path, capsys):
    shutil.copytree(trained / "validation" / "images", tmp_path / "frames")
    files = call(predict.main, best, tmp_path / "frames", tmp_path / "p")
    assert list(files.columns) == [
        "file",
        "width",
        "height",
        "entropy",
        "expected_dice",
        "expected_dice_128",
        "expected_dice_255",
        "unlike_training",
        *(f"{name}_{c}" for c in (128, 255) for name in MEASURED),
        "seconds",
    ]
    assert "metrics" not in summary(tmp_path / "p")
    some = tmp_path / "some"
    shutil.copytree(trained / "validation", some)
    (some / "masks" / "C_001.png").unlink()
    files = call(predict.main, best, some, tmp_path / "q")
    assert files["dice"].isna().sum() >= 1 and len(files) == 8
    assert "1 of 8 files have no mask" in capsys.readouterr().out
    assert summary(tmp_path / "q")["files"] == 7


def test_evaluate_wants_every_mask(trained, best, tmp_path, refused):
    some = tmp_path / "some"
    shutil.copytree(trained / "validation", some)
    (some / "masks" / "C_001.png").unlink()
    line = refused(evaluate.main, ["--load", best, "--input", some, "--output", tmp_path / "e"])
    assert "C_001.png" in line and not (tmp_path / "e").exists()


def test_order_of_files_does_not_matter(trained, best, tmp_path):
    paths_in = sorted((trained / "validation" / "images").iterdir())
    one = call(evaluate.main, best, paths_in, tmp_path / "a").set_index("file").drop(columns="seconds")
    other = call(evaluate.main, best, paths_in[::-1], tmp_path / "b").set_index("file").drop(columns="seconds")
    pd.testing.assert_frame_equal(one, other.loc[one.index], rtol=0, atol=1e-6)


def test_output_folders_of_the_user_are_never_touched(trained, best, tmp_path, refused):
    mine = tmp_path / "mine"
    shutil.copytree(trained / "validation" / "masks", mine / "masks")
    before = sorted(mine.rglob("*"))
    arguments = ["--load", best, "--input", trained / "validation", "--output", mine]
    assert "no earlier run wrote" in refused(predict.main, arguments)
    assert sorted(mine.rglob("*")) == before
    call(predict.main, best, trained / "validation", tmp_path / "p")
    (tmp_path / "p" / ".DS_Store").write_text("litter is no reason to refuse")
    call(predict.main, best, trained / "validation", tmp_path / "p")
    arguments[-1] = tmp_path / "p"
    assert "no earlier run wrote" in refused(evaluate.main, arguments), "predict's folder is not evaluate's"
    (tmp_path / "p" / "masks" / "drawn_by_hand.png").write_bytes(b"x")
    assert "drawn_by_hand.png" in refused(predict.main, arguments)
    assert (tmp_path / "p" / "masks" / "drawn_by_hand.png").exists()


def test_results_of_other_inputs_are_never_replaced(trained, best, tmp_path, refused, capsys):
    images = trained / "validation" / "images"
    call(predict.main, best, images / "C_001.png", tmp_path / "p")
    assert "earlier results" not in capsys.readouterr().out
    before = sorted(tmp_path.rglob("*"))
    arguments = ["--load", best, "--input", images / "C_002.png", "--output", tmp_path / "p"]
    line = refused(predict.main, arguments)
    assert "holds the results of C_001.png, not of C_002.png; give another --output" in line
    assert sorted(tmp_path.rglob("*")) == before
    call(predict.main, best, images / "C_001.png", tmp_path / "p")
    assert "holds earlier results of the same input; they are replaced" in capsys.readouterr().out
    call(predict.main, best, images / "C_002.png", tmp_path / "other")
    assert sorted(path.name for path in (tmp_path / "p" / "masks").iterdir()) == ["C_001.png"]


def test_default_output_stands_under_results(trained, best, tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "RESULTS", tmp_path)
    arguments = ["--load", str(best), "--input", str(trained / "validation")]
    predict.main(arguments)
    evaluate.main(arguments)
    shutil.copy(best, tmp_path / "elsewhere.pth")
    assert sorted(p.name for p in (tmp_path / "unet" / "run").iterdir()) == ["evaluate", "predict"]


def test_names_that_look_like_formulas_stay_text(trained, best, tmp_path):
    image, mask = simple_frame(1)
    write_frame(tmp_path / "in", "=1+1_001", image, mask)
    write_frame(tmp_path / "in", "@SUM(A1)_2", image, mask)
    call(evaluate.main, best, tmp_path / "in", tmp_path / "e")
    sheet = openpyxl.load_workbook(tmp_path / "e" / "files.xlsx")["Files"]
    assert [(sheet.cell(i, 1).value, sheet.cell(i, 1).data_type) for i in (2, 3)] == [
        ("=1+1_001.png", "s"),
        ("@SUM(A1)_2.png", "s"),
    ]


def convert(folder, how):
    """Rewrite a set of PNG frames in place in another form."""
    for part in ("images", "masks"):
        for path in list((folder / part).iterdir()):
            array = np.array(Image.open(path))
            path.unlink()
            how(part, path.with_suffix(""), array)


def as_rgb(part, path, array):
    Image.fromarray(np.repeat(array[:, :, None], 3, 2)).save(path.with_suffix(".png"))


def as_palette(part, path, array):
    image = Image.fromarray(array if part == "images" else array // 127)
    if part == "masks":
        image.putpalette([0, 0, 0, 220, 40, 40, 40, 220, 40])
    image.save(path.with_suffix(".png"))


def as_16_bit(part, path, array):
    array = array.astype(np.uint16) * 16 if part == "images" else array
    Image.fromarray(array).save(path.with_suffix(".tif"))


def as_pth(part, path, array):
    torch.save(torch.from_numpy(array), path.with_suffix(".pth"))


def as_npy_float(part, path, array):
    np.save(path.with_suffix(".npy"), (array / 255).astype(np.float32) if part == "images" else array)


def as_colour_masks(part, path, array):
    if part == "masks":
        array = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]], np.uint8)[array // 127]
    Image.fromarray(array).save(path.with_suffix(".png"))


def as_mixed_sizes(part, path, array):
    number = int(path.name[-3:])
    array = array[: 40 - 5 * number, : 36 - 2 * number]
    Image.fromarray(np.ascontiguousarray(array)).save(path.with_suffix(".png"))


FORMS = [
    (as_rgb, "0,128,255"),
    (as_palette, "0,1,2"),
    (as_16_bit, "0,128,255"),
    (as_pth, "0,128,255"),
    (as_npy_float, "0,128,255"),
    (as_colour_masks, "0,#0000ff,#ff0000"),
    (as_mixed_sizes, "0,128,255"),
]


@pytest.mark.parametrize(("how", "values"), FORMS, ids=[how.__name__ for how, _ in FORMS])
def test_every_form_goes_through_all_scripts(tmp_path, how, values, capsys):
    folders = [make_folder(tmp_path / "train"), make_folder(tmp_path / "validation", subjects=("C",), seed=1)]
    for folder in folders:
        convert(folder, how)
    assert train.main(train_arguments(*folders, tmp_path, "--epochs", 1)) == 0
    for value in values.split(","):
        assert f"{value} -> class" in capsys.readouterr().out or value != values.split(",")[0]
    run = tmp_path / "checkpoints" / "unet" / "run" / "last.pth"
    files = call(predict.main, run, folders[1], tmp_path / "p", "--batch-size", 3)
    scores = call(evaluate.main, run, folders[1], tmp_path / "e", "--batch-size", 1)
    assert files["dice"].tolist() == pytest.approx(scores["dice"].tolist(), abs=1e-6, nan_ok=True)
    in_training = pd.read_csv(tmp_path / "results" / "unet" / "run" / "epochs.csv")["dice"][0]
    assert files["dice"].mean() == pytest.approx(in_training, abs=1e-6)
    truth = torch.load(run, weights_only=True)["labels"]["values"]
    for _, row in files.iterrows():
        mask = decode_mask(tmp_path / "p" / "masks" / (row["file"].rsplit(".", 1)[0] + ".png"))
        assert mask.shape == (row["height"], row["width"])
        assert set(np.unique(mask)) <= set(truth)


def test_a_16_bit_image_for_an_8_bit_model_is_refused(trained, best, tmp_path, refused):
    Image.fromarray(simple_frame(0)[0].astype(np.uint16) * 16).save(tmp_path / "a.png")
    line = refused(predict.main, ["--load", best, "--input", tmp_path / "a.png", "--output", tmp_path / "p"])
    assert "a.png" in line and "16-bit" in line


def test_scripts_run_in_their_folder_and_from_the_root(trained, best, tmp_path):
    for folder, script in (("unet", "predict.py"), (".", "unet/predict.py")):
        done = subprocess.run(
            [sys.executable, script, "--load", best, "--input", trained / "validation", "--output", tmp_path / "p"],
            cwd=ROOT / folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "Dice 0." in done.stdout
    done = subprocess.run(
        [sys.executable, "unet/evaluate.py", "--load", "no.pth"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and done.stderr.startswith("error: no.pth")


def test_a_crash_keeps_the_rows_before_it(trained, best, tmp_path, refused):
    folder = tmp_path / "in"
    shutil.copytree(trained / "validation", folder)
    (folder / "images" / "D_003.png").write_bytes(b"broken")
    arguments = ["--load", best, "--input", folder, "--output", tmp_path / "p", "--batch-size", 1, "--workers", 0]
    assert "D_003.png" in refused(predict.main, arguments)
    unfinished = tmp_path / "p" / "partial"
    assert len((unfinished / "files.partial.csv").read_text().splitlines()) == 1 + 7
    assert [path.name for path in (tmp_path / "p").iterdir()] == ["partial"]
    shutil.copy(folder / "images" / "D_002.png", folder / "images" / "D_003.png")
    call(predict.main, best, folder, tmp_path / "p")
    before = (tmp_path / "p" / "files.csv").read_bytes()
    (folder / "images" / "D_003.png").write_bytes(b"broken")
    assert "D_003.png" in refused(predict.main, arguments)
    assert (tmp_path / "p" / "files.csv").read_bytes() == before, "earlier results stay until new ones are whole"
    assert len(list((tmp_path / "p" / "masks").iterdir())) == 8
    (unfinished / "masks" / "notes.txt").write_text("mine")
    assert "partial/masks/notes.txt" in refused(predict.main, arguments)
    (unfinished / "masks" / "notes.txt").unlink()
    (folder / "images" / "D_003.png").unlink()
    (folder / "masks" / "D_003.png").unlink()
    assert len(call(predict.main, best, folder, tmp_path / "p")) == 7
    assert not unfinished.exists() and len(list((tmp_path / "p" / "masks").iterdir())) == 7
