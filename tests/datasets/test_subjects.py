"""The subjects of files from a table: everywhere where they matter, and refused where it does not fit."""

import json

import pandas as pd
import pytest
from conftest import make_folder, train_arguments

from sonogravity.common.messages import InputError
from sonogravity.datasets.subjects import Subjects
from unet import evaluate, predict, train


class Given:
    def __init__(self, subjects=None, subject_regex=None):
        self.subjects, self.subject_regex = subjects, subject_regex


def write(path, *lines):
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_files_are_named_with_or_without_their_ending(tmp_path):
    path = write(tmp_path / "s.csv", "file;subject;note", "a.b.png;P1;", "c;P 2;x", "u\u0308.png;P3;")
    subjects = Subjects.given(Given(path))
    assert subjects.of(["a.b", "c", "\u00fc"]) == ["P1", "P 2", "P3"]
    assert subjects.or_stems(["c"]) == ["P 2"] and not subjects.unknown(["c"])


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["file,who", "a.png,P1"], "the columns are file, who; name them file, subject"),
        (["file,subject", "a.png,"], "line 2: a.png has no subject"),
        (["file,subject", ",P1"], "line 2: has no file name"),
        (["file,subject", "a.png,P1", "a.png,P2"], "line 3: a.png is in the table twice, with different subjects"),
        (["file,subject", "a.png,P1", "a.tif,P2"], "line 3: a.tif and another file of the same name"),
        (
            ["file,subject", "a.png,Doe, Jane"],
            "line 2: has more fields than the head; if a field holds a comma, separate",
        ),
        (["file,subject", "b.png,P1"], "no line for 1 of 1 files: a"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path, lines, said):
    with pytest.raises(InputError, match=said):
        Subjects.given(Given(write(tmp_path / "s.csv", *lines))).of(["a"])
    with pytest.raises(InputError, match="no such file; --subjects needs a CSV"):
        Subjects.given(Given(tmp_path / "none.csv"))


@pytest.fixture
def unnamed(tmp_path):
    """Training and validation frames whose names give no subject, and a table that does."""
    names = {}
    for part, subjects in (("train", "ABC"), ("validation", "DE")):
        make_folder(tmp_path / part, subjects=subjects, frames=3, seed=ord(part[0]))
        for kind in ("images", "masks"):
            for i, path in enumerate(sorted((tmp_path / part / kind).iterdir())):
                new = f"{part[0]}{'xyzuvwrst'[i]}.png"
                names[new] = path.name[0]
                path.rename(path.with_name(new))
    write(tmp_path / "subjects.csv", "file,subject", *(f"{file},P{subject}" for file, subject in names.items()))
    return tmp_path


def test_training_scores_and_folds_know_the_subjects_of_the_table(unnamed, capsys, refused):
    given = train_arguments(unnamed / "train", unnamed / "validation", unnamed, "--epochs", 1)
    table = ["--subjects", str(unnamed / "subjects.csv")]
    assert train.main([*given, *table]) == 0
    assert "subjects:   training 3 (PA, PB, PC), validation 2 (PD, PE)" in capsys.readouterr().out
    best = unnamed / "checkpoints/unet/run/best.pth"
    for script, main in (("predict", predict.main), ("evaluate", evaluate.main)):
        output = unnamed / script
        options = ["--load", best, "--input", unnamed / "validation", "--output", output]
        assert main([str(option) for option in options] + table) == 0
        said = capsys.readouterr()
        assert "files taken as independent" not in said.out and "Dice over 2 subjects" in said.out
        groups = json.loads((output / "summary.json").read_text())["groups"]["subject"]
        assert [group["subject"] for group in groups[:2]] == ["PD", "PE"] and groups[0]["files"] == 3
    assert train.main([*given, "--folds", "3", *table]) == 0
    rows = pd.read_csv(unnamed / "results/unet/run_folds/files.csv")
    assert set(rows["subject"]) == {"PA", "PB", "PC"} and (rows.groupby("fold")["subject"].nunique() == 1).all()
    assert "give no subject" in refused(train.main, [*given, "--name", "none", "--folds", 3])


def test_a_subject_in_both_sets_and_a_changed_table_are_noticed(unnamed, refused):
    given = train_arguments(unnamed / "train", unnamed / "validation", unnamed)
    path = unnamed / "subjects.csv"
    table, text = ["--subjects", path], path.read_text()
    path.write_text(text.replace("PD", "PA"))
    assert "1 subjects are in both training and validation: PA" in refused(train.main, [*given, *table])
    path.write_text(text)
    assert train.main([*given, *map(str, table)]) == 0
    last = unnamed / "checkpoints/unet/run/last.pth"
    moved = path.rename(unnamed / "moved.csv")
    assert "--subjects needs a CSV" in refused(train.main, ["--resume", last, "--epochs", 3])
    assert train.main(["--resume", str(last), "--epochs", "3", "--subjects", str(moved)]) == 0
    moved.write_text(text.replace("PC", "PB"))
    line = refused(train.main, ["--resume", last, "--epochs", 4, "--subjects", moved])
    assert "the data differ" in line


def test_a_table_that_lacks_a_file_ends_a_prediction_before_its_first_frame(trained, tmp_path, refused):
    best = trained / "checkpoints/unet/run/best.pth"
    path = write(tmp_path / "s.csv", "file,subject", "C_000.png,P1")
    given = ["--load", best, "--input", trained / "validation", "--output", tmp_path / "o", "--subjects", path]
    assert "no line for 7 of 8 files: C_001" in refused(predict.main, given)
    assert not (tmp_path / "o").exists()


def test_files_without_a_subject_are_no_subjects(trained, tmp_path, capsys):
    """Where only some names give one, the others are in no mean of subjects, and that is said."""
    given = ["--load", trained / "checkpoints/unet/run/best.pth", "--input", trained / "validation"]
    options = [*given, "--output", tmp_path / "o", "--subject-regex", "(C)_|(?:D_00[01])"]
    assert evaluate.main([str(option) for option in options]) == 0
    said = capsys.readouterr()
    summary = json.loads((tmp_path / "o" / "summary.json").read_text())
    assert [group["subject"] for group in summary["groups"]["subject"]] == ["C", "mean", "sd"]
    assert "4 of 8 files have no subject, so no mean of subjects uses them: D_000.png" in said.err
    assert "Dice over" not in said.out  # of one subject there is no mean
    assert {entry["subjects"] for entry in summary["agreement"].values()} <= {0, 1}


def test_a_comma_in_a_name_is_read_after_the_remedy(tmp_path):
    path = write(tmp_path / "s.csv", "file;subject", "a.png;Doe, Jane")
    assert Subjects.given(Given(path)).of(["a"]) == ["Doe, Jane"]


def test_the_table_comes_before_the_expression(tmp_path, capsys):
    path = write(tmp_path / "s.csv", "file,subject", "a.png,P1", "1.2.840.1,P2", "1.2.840.2,P3")
    assert Subjects.given(Given(path, "(.)")).of(["a", "1.2.840.1", "1.2.840.2"]) == ["P1", "P2", "P3"]
    assert "--subject-regex is not used" in capsys.readouterr().out
