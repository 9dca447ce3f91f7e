"""spacing.csv and subjects.csv beside images/ are used without being asked for; an option overrides them."""

import json
import shutil

import pandas as pd
import pytest
from conftest import make_folder, train_arguments

from unet import evaluate, evaluate_w_margin, predict, train


@pytest.fixture
def best(trained):
    return trained / "checkpoints" / "unet" / "run" / "best.pth"


@pytest.fixture
def frames(tmp_path):
    """A folder of frames whose names give no subject, with both tables."""
    root = make_folder(tmp_path / "data", subjects=("C",), seed=1)
    names = [f"C_{k:03d}.png" for k in range(4)]
    (root / "spacing.csv").write_text("file,pixels_per_mm\n" + "".join(f"{name},8\n" for name in names))
    subjects = zip(names, ("P1", "P1", "P2", "P2"), strict=True)
    (root / "subjects.csv").write_text("file,subject\n" + "".join(f"{name},{who}\n" for name, who in subjects))
    return root


def run(main, best, inputs, output, *options):
    line = ["--load", best, "--input", *inputs, "--output", output, "--device", "cpu", *options]
    assert main([str(argument) for argument in line]) == 0
    return pd.read_csv(output / "files.csv")


def subjects_in(output):
    summary = json.loads((output / "summary.json").read_text())
    return [group["subject"] for group in summary["groups"]["subject"][:-2]]


@pytest.mark.parametrize("given", ["folder", "images", "file"])
@pytest.mark.parametrize("main", [predict.main, evaluate.main, evaluate_w_margin.main])
def test_they_are_used_and_said(main, given, frames, best, tmp_path, capsys):
    inputs = {"folder": frames, "images": frames / "images", "file": frames / "images" / "C_001.png"}[given]
    rows = run(main, best, [inputs], tmp_path / "out")
    said = capsys.readouterr()
    assert set(rows["pixels_per_mm"]) == {8} and "hd_mm" in rows and "ASSUMED" not in said.err
    assert f"spacing:    8 px per mm from {frames / 'spacing.csv'}\n" in said.out
    assert f"subjects:   from {frames / 'subjects.csv'}\n" in said.out
    assert subjects_in(tmp_path / "out") == (["P1"] if given == "file" else ["P1", "P2"])


def test_options_override_them_and_that_is_said(frames, best, tmp_path, capsys):
    options = ["--pixels-per-mm", "4", "--subject-regex", "(C_00)"]
    rows = run(predict.main, best, [frames], tmp_path / "out", *options)
    said = capsys.readouterr().out
    assert set(rows["pixels_per_mm"]) == {4} and subjects_in(tmp_path / "out") == ["C_00"]
    assert f"spacing:    from --pixels-per-mm, so {frames / 'spacing.csv'} is not used" in said
    assert f"(--subject-regex), so {frames / 'subjects.csv'} is not used" in said
    other = shutil.copy(frames / "spacing.csv", tmp_path / "other.csv")
    run(predict.main, best, [frames], tmp_path / "out", "--spacing", other)
    assert f"spacing:    from --spacing, so {frames / 'spacing.csv'} is not used" in capsys.readouterr().out
    run(predict.main, best, [frames], tmp_path / "out", "--spacing", frames / "spacing.csv")
    assert "is not used" not in capsys.readouterr().out, "the same table"


def test_of_two_folders_one_of_which_has_none(frames, best, tmp_path, capsys, refused):
    other = make_folder(tmp_path / "more", subjects=("D",), frames=2, seed=2)
    (frames / "subjects.csv").unlink()
    rows = run(predict.main, best, [frames, other], tmp_path / "out")
    assert "hd_px" in rows and "2 of 6 files have no spacing (D_000.png, D_001.png)" in capsys.readouterr().err
    line = ["--load", best, "--input", frames, other, "--output", tmp_path / "margin"]
    assert "give --spacing FILE.csv" in refused(evaluate_w_margin.main, line)
    (other / "spacing.csv").write_text("file,pixels_per_mm\nD_000.png,9\nD_001.png,9\n")
    rows = run(predict.main, best, [frames, other], tmp_path / "both")
    assert list(rows["pixels_per_mm"]) == [8] * 4 + [9] * 2
    (other / "spacing.csv").write_text("file,pixels_per_mm\nD_000.png,9\n")
    assert "hd_px" in run(predict.main, best, [frames, other], tmp_path / "some")
    assert "1 of 6 files have no spacing (D_001.png), the others have 8 to 9 px per mm" in capsys.readouterr().err


def test_a_table_of_other_names_is_pointed_out(frames, best, tmp_path, capsys):
    (frames / "spacing.csv").write_text("file,pixels_per_mm\nX_000.png,8\n")
    assert "hd_px" in run(predict.main, best, [frames], tmp_path / "out")
    assert f"{frames / 'spacing.csv'}: has no line for any of 4 files (C_000.png" in capsys.readouterr().err


def test_training_and_folds_take_the_subjects(tmp_path, refused, capsys):
    for part, names in (("train", "ABC"), ("validation", "DE")):
        make_folder(tmp_path / part, subjects=names, frames=2, seed=ord(part[0]))
        lines = [f"{name}_{k:03d}.png,P{name}\n" for name in names for k in range(2)]
        (tmp_path / part / "subjects.csv").write_text("file,subject\n" + "".join(lines))
    given = train_arguments(tmp_path / "train", tmp_path / "validation", tmp_path, "--epochs", 1)
    assert train.main(given) == 0
    said = capsys.readouterr().out
    assert f"subjects:   from {tmp_path / 'train/subjects.csv'}, {tmp_path / 'validation/subjects.csv'}" in said
    assert "training 3 (PA, PB, PC), validation 2 (PD, PE)" in said
    assert train.main([*given, "--name", "cv", "--folds", "3"]) == 0
    rows = pd.read_csv(tmp_path / "results/unet/cv_folds/files.csv")
    assert set(rows["subject"]) == {"PA", "PB", "PC"}
    table = tmp_path / "validation" / "subjects.csv"
    table.write_text(table.read_text().replace("PD", "PA"))
    assert "1 subjects are in both training and validation: PA" in refused(train.main, [*given, "--name", "x"])
    table.write_text(table.read_text().replace("PA", "PF"))
    last = tmp_path / "checkpoints/unet/run/last.pth"
    assert "the data differ" in refused(train.main, ["--resume", last, "--epochs", 2])
