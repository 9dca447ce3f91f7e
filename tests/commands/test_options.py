"""Options as values: parsed once, taken up from an earlier run, paths with patterns, runs by name, near misses."""

import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from conftest import make_folder, train_arguments

from deeplab import train as deeplab_train
from sonogravity.commands import compare
from sonogravity.common import folders
from sonogravity.common.messages import InputError
from sonogravity.training.stored_options import options_as_dict
from unet import evaluate, export, predict, train

TRAIN = {"unet": train, "deeplab": deeplab_train}


def parse(line, script=train):
    return script.build_parser().parse_args(line.split())


def test_what_was_given_is_told_from_defaults():
    options = parse("--epochs 100 --no-augment -l 0.01 --train somewhere")
    assert options.given == {"epochs", "augment", "learning_rate", "train"}
    assert (options.epochs, options.augment, options.train) == (100, False, Path("somewhere"))
    assert parse("").given == set() and vars(parse("")) == train.build_parser().default_values()
    assert "given" not in vars(options)


def test_options_with_others_given_leave_the_first_as_they_are():
    options = parse("--epochs 3")
    other = options.with_given(name="run", epochs=5)
    assert (options.epochs, options.name, other.epochs, other.name) == (3, None, 5, "run")
    assert options.given == {"epochs"} and other.given == {"epochs", "name"}


@pytest.mark.parametrize("model", TRAIN)
@pytest.mark.parametrize(
    "line",
    [
        "",
        "--class-names bone,ligament --background #ff8000 --classes 3 --snap-masks --subject-regex ^(.)",
        "--background 128 --channels 3 --scale 0.3 --workers 0 --cache-mb 0.5 --device cuda:1",
        "--loss ce --scheduler poly --optimizer sgd --patience 4 --no-depth-channel --low-memory --compile",
        "--folds 3 --fold 2 --name run --train a/b --load c.pth --freeze-encoder 2",
    ],
)
def test_stored_options_come_back_as_the_values_they_were(model, line):
    options = parse(line, TRAIN[model])
    stored = json.loads(json.dumps(options_as_dict(options)))
    back = parse("", TRAIN[model]).with_stored(stored)
    assert options_as_dict(back) == stored
    for name, value in vars(options).items():
        assert type(getattr(back, name)) is type(value) or getattr(back, name) == value, name


def test_pretrained_is_a_switch_or_a_file():
    for line, stored in (("--pretrained", True), ("", None)):
        options = parse(line, deeplab_train)
        assert options_as_dict(options)["pretrained"] is stored
        assert parse("", deeplab_train).with_stored(options_as_dict(options)).pretrained is stored
    assert parse("", deeplab_train).with_stored({"pretrained": "w.pth"}).pretrained == Path("w.pth")


def test_a_switch_that_an_older_run_does_not_know_was_off():
    options = parse("").with_stored({"epochs": 7})
    assert (options.epochs, options.augment, options.deep_supervision, options.amp) == (7, False, False, False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 2.5),
        ("epochs", True),
        ("epochs", "many"),
        ("epochs", None),
        ("epochs", [3]),
        ("epochs", 0),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("channels", 2),
        ("channels", 1.5),
        ("loss", "focal"),
        ("loss", ["ce"]),
        ("augment", "yes"),
        ("augment", 1),
        ("class_names", [1, 2]),
        ("class_names", 5),
        ("background", 0.5),
        ("background", {}),
        ("train", 5),
        ("device", "gpu"),
        ("nonsense", 1),
    ],
)
def test_a_stored_value_that_no_command_gives_is_refused(name, value):
    with pytest.raises(InputError, match=f"--{name.replace('_', '-')}"):
        parse("").with_stored({name: value})


@pytest.mark.parametrize(
    ("given", "meant"),
    [("--epoch 3", "--epochs"), ("--batchsize=3", "--batch-size"), ("--deep-supervison", "--deep-supervision")],
)
def test_a_near_miss_is_answered_with_the_option_that_was_meant(given, meant, refused):
    assert f"did you mean {meant}?" in refused(train.main, given.split())


def test_a_far_miss_is_not_guessed(refused):
    line = refused(train.main, ["--zzz", "3"])
    assert "unrecognized arguments: --zzz 3" in line and "did you mean" not in line


@pytest.fixture
def best(trained):
    return trained / "checkpoints" / "unet" / "run" / "best.pth"


def files_of(output):
    return sorted(pd.read_csv(output / "files.csv")["file"])


def test_patterns_are_expanded_for_shells_that_do_not(trained, best, tmp_path, refused):
    pattern = trained / "validation" / "images" / "C_*.png"
    line = ["--load", str(best.with_name("best.*")), "--input", str(pattern), "--output", str(tmp_path / "out")]
    assert predict.main(line) == 0
    assert files_of(tmp_path / "out") == [f"C_00{i}.png" for i in range(4)]
    line[3] = str(trained / "validation" / "images" / "Q_*.png")
    assert "Q_*.png: no file or folder matches" in refused(predict.main, line)
    line[3:4] = [str(pattern), "--masks", str(trained / "*")]
    assert "--masks" in (said := refused(predict.main, line)) and "name one of them" in said


@pytest.mark.skipif(os.name == "nt", reason="Windows has no * in names")
def test_a_path_that_exists_is_taken_literally(best, tmp_path):
    folder = make_folder(tmp_path / "all * frames", subjects=("A",), frames=1)
    make_folder(tmp_path / "all the frames", subjects=("B",), frames=2)
    line = ["--load", str(best), "--input", str(folder), "--output", str(tmp_path / "out")]
    assert predict.main(line) == 0
    assert files_of(tmp_path / "out") == ["A_000.png"]


def test_brackets_are_no_pattern_and_what_is_written_is_taken_literally(best, tmp_path):
    frames = [make_folder(tmp_path / name, subjects=("A",), frames=1) for name in ("frames [1]", "frames 1")]
    output = tmp_path / "out [new] *"
    assert predict.main(["--load", str(best), "--input", str(frames[0]), "--output", str(output)]) == 0
    assert files_of(output) == ["A_000.png"]
    pattern = tmp_path / "frames [1*"
    line = ["--load", str(best), "--input", str(pattern), "--output", str(tmp_path / "second")]
    assert predict.main(line) == 0
    assert json.loads((tmp_path / "second" / "settings.json").read_text())["options"]["input"] == [frames[0].name]


def test_compare_takes_a_pattern(trained, best, tmp_path):
    for name in ("one", "two"):
        line = ["--load", str(best), "--input", str(trained / "validation"), "--output", str(tmp_path / name)]
        assert evaluate.main(line) == 0
    assert compare.main([str(tmp_path / "*"), "--output", str(tmp_path / "c.xlsx")]) == 0


@pytest.fixture
def known_runs(trained, tmp_path, monkeypatch):
    """Runs by name: ``run``, a fold of it whose best.pth is not there, and an empty one."""
    root = tmp_path / "known"
    shutil.copytree(trained / "checkpoints" / "unet" / "run", root / "unet" / "run")
    (root / "unet" / "run_fold_1").mkdir()
    shutil.copy(trained / "checkpoints" / "unet" / "run" / "epoch_001.pth", root / "unet" / "run_fold_1" / "last.pth")
    (root / "unet" / "empty").mkdir()
    monkeypatch.setattr(folders, "CHECKPOINTS", root)
    return root / "unet"


@pytest.mark.parametrize(("name", "file"), [("run", "best.pth"), ("run_fold_1", "last.pth")])
def test_a_run_is_loaded_by_its_name(known_runs, trained, tmp_path, name, file):
    for script in (predict, evaluate):
        line = ["--load", name, "--input", str(trained / "validation"), "--output", str(tmp_path / "out")]
        assert script.main(line) == 0
        settings = json.loads((tmp_path / "out" / "settings.json").read_text())
        assert settings["checkpoint"]["path"] == str(known_runs / name / file)
        shutil.rmtree(tmp_path / "out")


def test_a_name_that_is_no_run_is_refused_with_those_that_are(known_runs, trained, tmp_path, refused):
    rest = ["--input", trained / "validation", "--output", tmp_path / "out"]
    line = refused(predict.main, ["--load", "other", *rest])
    assert "other: neither a file nor a run" in line and "empty, run, run_fold_1" in line
    assert "best.pth: no such file" in refused(predict.main, ["--load", "empty", *rest])
    assert "run.pth: no such file" in refused(export.main, ["--load", "run.pth", "--input", trained / "validation"])


def test_an_existing_path_wins_over_a_run(known_runs, trained, best, tmp_path, monkeypatch):
    shutil.copy(best.with_name("epoch_002.pth"), tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    line = ["--load", "run", "--input", str(trained / "validation"), "--output", str(tmp_path / "out")]
    assert predict.main(line) == 0
    assert json.loads((tmp_path / "out" / "settings.json").read_text())["checkpoint"]["epoch"] == 2


def test_training_starts_from_a_run_by_name(sets, tmp_path, capsys):
    assert train.main(train_arguments(*sets, tmp_path, "--epochs", 1)) == 0
    line = train_arguments(*sets, tmp_path, "--epochs", 1, "--load", "run", "--name", "second")
    assert train.main(line) == 0
    settings = json.loads((tmp_path / "results" / "unet" / "second" / "settings.json").read_text())
    assert settings["options"]["load"] == str(tmp_path / "checkpoints" / "unet" / "run" / "best.pth")
