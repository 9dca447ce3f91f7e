"""unet/train.py for real, on small frames: what it leaves, resuming, refusing, stopping."""

import json
import math
import re
import subprocess
import sys

import numpy as np
import openpyxl
import pandas as pd
import pytest
import torch
from conftest import train_arguments

from sonogravity.metrics import summary
from sonogravity.training import steps
from unet import train


def run(train_folder, validation, root, *more):
    return train.main(train_arguments(train_folder, validation, root, *more))


def weights(root, name="last.pth"):
    return torch.load(root / "checkpoints" / "unet" / "run" / name, weights_only=True)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


TIMES = ["seconds", "images_per_second"]


def epochs(root):
    return pd.read_csv(root / "results" / "unet" / "run" / "epochs.csv")


def test_a_run_leaves_what_the_readme_lists(trained):
    kept = trained / "checkpoints" / "unet" / "run"
    assert sorted(p.name for p in kept.iterdir()) == [
        "best.pth",
        *(f"epoch_00{i}.pth" for i in range(1, 7)),
        "last.pth",
    ]
    results = trained / "results" / "unet" / "run"
    assert sorted(p.name for p in results.iterdir()) == [
        "epochs.csv",
        "epochs.xlsx",
        "panels",
        "progress.png",
        "settings.json",
    ]
    assert sorted(p.name for p in (results / "panels").iterdir()) == [f"epoch_00{i}" for i in range(1, 7)]
    panels = [p.name for p in (results / "panels" / "epoch_006").iterdir()]
    assert len(panels) == 5 and sum(name.startswith("worst_") for name in panels) == 1
    settings = json.loads((results / "settings.json").read_text())
    assert settings["options"]["base_channels"] == 8 and settings["versions"]["torch"]
    assert settings["data"]["training"] == 24 and settings["data"]["validation"] == 8


def test_epochs_are_complete_in_csv_and_workbook(trained):
    table = epochs(trained)
    assert list(table.columns) == [
        "epoch",
        "learning_rate",
        "train_loss",
        "val_loss",
        "dice",
        "iou",
        "accuracy",
        "precision",
        "sensitivity",
        "specificity",
        "fpr",
        "fnr",
        "dice_128",
        "dice_255",
        "seconds",
        "images_per_second",
    ]
    assert table["epoch"].tolist() == [1, 2, 3, 4, 5, 6]
    assert table["dice"].max() > 0.2, "it learns"
    book = openpyxl.load_workbook(trained / "results" / "unet" / "run" / "epochs.xlsx")
    assert book.sheetnames == ["Epochs", "Curves", "Settings", "Definitions"]
    sheet = book["Epochs"]
    assert [cell.value for cell in sheet[1]] == list(table.columns) and sheet.freeze_panes == "B2"
    for i, row in table.iterrows():
        for cell, value in zip(sheet[i + 2], row, strict=True):
            assert (cell.value is None and math.isnan(value)) or cell.value == pytest.approx(value, rel=1e-12)
    best = int(table["dice"].idxmax()) + 2
    green = [i for i in range(2, 8) if sheet.cell(i, 1).fill.fgColor.rgb.endswith("C6E0B4")]
    assert green == [best]
    assert len(book["Curves"]._charts) == 3
    defined = {row[0].value for row in book["Definitions"].iter_rows(min_row=2) if row[0].value}
    assert defined == set(table.columns)


def test_best_is_the_epoch_of_highest_dice(trained):
    table = epochs(trained)
    best = weights(trained, "best.pth")
    assert best["epoch"] == table["dice"].idxmax() + 1
    numbered = weights(trained, f"epoch_00{best['epoch']}.pth")
    assert "training" not in best and same(best["state_dict"], numbered["state_dict"])


@pytest.mark.parametrize("scheduler", ["plateau", "cosine"])
def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(sets, tmp_path, scheduler, monkeypatch):
    options = ["--scheduler", scheduler, "--epochs", 4, "--loss", "ce+dice"]
    run(*sets, tmp_path / "whole", *options)

    real_epoch = steps.train_one_epoch

    def cut(*args, **more):
        if args[-1].startswith("epoch 3"):
            raise KeyboardInterrupt
        return real_epoch(*args, **more)

    monkeypatch.setattr(steps, "train_one_epoch", cut)
    with pytest.raises(SystemExit) as stopped:
        run(*sets, tmp_path / "cut", *options)
    assert stopped.value.code == 130
    monkeypatch.setattr(steps, "train_one_epoch", real_epoch)
    last = tmp_path / "cut" / "checkpoints" / "unet" / "run" / "last.pth"
    assert len(epochs(tmp_path / "cut")) == 2
    torch.manual_seed(99)  # what happened before must not matter
    assert train.main(["--resume", str(last)]) == 0
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert same(whole["state_dict"], cut["state_dict"])
    for key, state in whole["training"]["optimizer"]["state"].items():
        assert same(state, cut["training"]["optimizer"]["state"][key])
    best = [weights(tmp_path / name, "best.pth")["state_dict"] for name in ("whole", "cut")]
    assert same(*best)
    assert epochs(tmp_path / "whole").drop(columns=TIMES).equals(epochs(tmp_path / "cut").drop(columns=TIMES))


def test_more_epochs_than_before(sets, tmp_path, capsys, refused):
    run(*sets, tmp_path)
    last = tmp_path / "checkpoints" / "unet" / "run" / "last.pth"
    assert train.main(["--resume", str(last)]) == 0
    assert "all 2 epochs are done" in capsys.readouterr().out
    assert train.main(["--resume", str(last), "--epochs", "3"]) == 0
    assert epochs(tmp_path)["epoch"].tolist() == [1, 2, 3]
    assert "contradicts" in refused(train.main, ["--resume", last, "--learning-rate", 0.5])
    assert "weights only" in refused(train.main, ["--resume", last.with_name("best.pth")])
    assert "give only one" in refused(train.main, ["--resume", last, "--load", last])


@pytest.mark.parametrize("scheduler", ["cosine", "constant"])
def test_a_schedule_that_is_drawn_anew_is_pointed_out(scheduler, sets, tmp_path, capsys):
    run(*sets, tmp_path, "--scheduler", scheduler)
    last = tmp_path / "checkpoints" / "unet" / "run" / "last.pth"
    assert train.main(["--resume", str(last), "--epochs", "4"]) == 0
    assert ("the learning rate jumps" in capsys.readouterr().err) == (scheduler == "cosine")
    rates = epochs(tmp_path)["learning_rate"]
    assert (rates[2] > rates[1]) == (scheduler == "cosine")


def test_workers_and_memory_do_not_change_the_weights(sets, tmp_path):
    run(*sets, tmp_path / "a", "--epochs", 1)
    run(*sets, tmp_path / "b", "--epochs", 1, "--workers", 2, "--cache-mb", 0)
    assert same(weights(tmp_path / "a")["state_dict"], weights(tmp_path / "b")["state_dict"])
    run(*sets, tmp_path / "c", "--epochs", 1, "--seed", 1)
    assert not same(weights(tmp_path / "a")["state_dict"], weights(tmp_path / "c")["state_dict"])


def test_an_existing_run_is_refused(sets, tmp_path, refused):
    run(*sets, tmp_path, "--epochs", 1)
    before = weights(tmp_path)
    line = refused(train.main, train_arguments(*sets, tmp_path))
    assert "the run 'run' exists" in line and "--resume" in line
    assert same(before["state_dict"], weights(tmp_path)["state_dict"])


def test_patience_stops_early(sets, tmp_path, capsys):
    run(*sets, tmp_path, "--epochs", 30, "--patience", 1, "--learning-rate", 1e-12)
    table = epochs(tmp_path)
    assert len(table) < 30 and len(table) - 1 - table["dice"].fillna(-1).idxmax() == 1
    assert "--patience" in capsys.readouterr().out


def only_the_start_is_kept(root):
    kept = list((root / "checkpoints").rglob("*.pth"))
    return [path.name for path in kept] == ["last.pth"] and weights(root)["epoch"] == 0


def test_a_loss_that_is_not_finite_stops_with_the_frames(sets, tmp_path, refused, monkeypatch):
    def poisoned(self, logits, classes):
        return logits.sum() * float("nan")

    monkeypatch.setattr("sonogravity.training.losses.SegmentationLoss.forward", poisoned)
    line = refused(train.main, train_arguments(*sets, tmp_path))
    assert "epoch 1/2, batch 1" in line and "learning-rate" in line and ("A_00" in line or "B_00" in line)
    assert only_the_start_is_kept(tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        ["--bilinear"],
        ["--channels", "3"],
        ["--loss", "dice"],
        ["--optimizer", "sgd"],
        ["--no-augment"],
        ["--scheduler", "poly", "--optimizer", "adamw", "--weight-decay", "0.01"],
        ["--scale", "0.3"],
        ["--amp"],
        ["--class-names", "bone,ligament"],
        ["--background", "255"],
        ["--classes", "3"],
        ["--batch-size", "5"],
    ],
    ids=" ".join,
)
def test_options_work(sets, tmp_path, options):
    assert run(*sets, tmp_path, "--epochs", 1, *options) == 0
    assert len(epochs(tmp_path)) == 1
    if "--class-names" in options:
        assert "dice_bone" in epochs(tmp_path)
    if "--background" in options:
        assert "dice_0" in epochs(tmp_path) and "dice_255" not in epochs(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epochs", "0"], "at least 1"),
        (["--learning-rate", "nan"], "above 0"),
        (["--scale", "0"], "above 0"),
        (["--loss", "focal"], "invalid choice"),
        (["--name", "../up"], "run name"),
        (["--base-channels", "7"], "even"),
        (["--device", "gpu"], "not one of auto"),
        (["--device", "cuda:77"], "CUDA devices"),
        (["--classes", "4"], "--classes is 4"),
        (["--classes", "2"], "holds 3 values"),
        (["--snap-masks"], "add --classes"),
        (["--subject-regex", "("], "not a regular expression"),
        (["--train", "/nowhere"], "/nowhere"),
        (["--nonsense"], "unrecognized"),
        (["--epoch", "3"], "unrecognized"),
        (["--load", "/nowhere.pth"], "nowhere.pth"),
    ],
)
def test_wrong_options_are_refused_in_one_line(sets, tmp_path, refused, options, message):
    assert message in refused(train.main, train_arguments(*sets, tmp_path, *options))
    assert not (tmp_path / "checkpoints").exists() and not (tmp_path / "results").exists()


def test_progress_and_panels_are_pictures(trained):
    from PIL import Image

    results = trained / "results" / "unet" / "run"
    for path in [results / "progress.png", *(results / "panels" / "epoch_006").iterdir()]:
        with Image.open(path) as picture:
            assert picture.width > 100 and np.asarray(picture.convert("L")).std() > 10


def test_resuming_on_other_data_is_refused(sets, tmp_path, refused):
    run(*sets, tmp_path, "--epochs", 1)
    last = tmp_path / "checkpoints" / "unet" / "run" / "last.pth"
    for kind in ("images", "masks"):
        (sets[0] / kind / "A_001.png").unlink()
    line = refused(train.main, ["--resume", last, "--epochs", 2])
    assert "then 8 training and 4 validation frames" in line and "now 7 training and 4 validation" in line


def test_a_run_that_moved_resumes_with_its_roots(sets, tmp_path, refused):
    run(*sets, tmp_path / "old", "--epochs", 1)
    (tmp_path / "old").rename(tmp_path / "new")
    last = tmp_path / "new" / "checkpoints" / "unet" / "run" / "last.pth"
    assert "belongs in" in refused(train.main, ["--resume", last, "--epochs", 2])
    roots = ["--checkpoints", str(tmp_path / "new" / "checkpoints"), "--results", str(tmp_path / "new" / "results")]
    assert train.main(["--resume", str(last), "--epochs", "2", *roots]) == 0
    assert len(epochs(tmp_path / "new")) == 2


def test_a_validation_loss_that_is_not_finite_stops_too(sets, tmp_path, refused, monkeypatch):
    monkeypatch.setattr(steps, "validate", lambda *args: ([], float("nan"), []))
    monkeypatch.setattr(steps, "epoch_scores", lambda *args: {"dice": 0.5})
    assert "validation loss is nan" in refused(train.main, train_arguments(*sets, tmp_path))
    assert only_the_start_is_kept(tmp_path)
    monkeypatch.undo()
    assert run(*sets, tmp_path, "--epochs", 1) == 0, "a run that completed no epoch does not hold its name"


def test_architecture_comes_with_the_loaded_file(sets, tmp_path, trained, capsys):
    best = trained / "checkpoints" / "unet" / "run" / "best.pth"
    common = ["--train", sets[0], "--validation", sets[1], "--checkpoints", tmp_path / "c", "--results", tmp_path / "r"]
    assert train.main([str(a) for a in [*common, "--epochs", 1, "--load", best, "--class-names", "bone,ligament"]]) == 0
    said = capsys.readouterr().out
    assert "--base-channels 8, as in the file" in said and "(bone)" in said


def test_a_program_that_has_changed_since_is_pointed_out(trained, tmp_path, capsys):
    settings = json.loads((trained / "results/unet/run/settings.json").read_text())
    (tmp_path / "settings.json").write_text(json.dumps(settings | {"commit": "0" * 40}))
    roots = ["--checkpoints", str(tmp_path / "c"), "--results", str(tmp_path / "r")]
    assert train.main(["--repeat", str(tmp_path / "settings.json"), *roots]) == 0
    assert "settings.json: is of commit 000000000000 of this program" in capsys.readouterr().err


def test_a_run_says_what_it_is_and_what_comes_next(sets, tmp_path, capsys):
    assert train.main(train_arguments(*sets, tmp_path)) == 0
    said = capsys.readouterr().out
    best = tmp_path / "checkpoints" / "unet" / "run" / "best.pth"
    parameters = sum(value.numel() for key, value in weights(tmp_path)["state_dict"].items() if "running_" not in key)
    parameters -= sum("num_batches_tracked" in key for key in weights(tmp_path)["state_dict"])
    assert (
        f"run:        run, unet with {parameters:,} parameters, 2 epochs; cpu, float32, " in said and " thread" in said
    )
    epochs = [line for line in said.splitlines() if line.startswith("epoch ")]
    assert [bool(re.search(r", about \d:\d\d:\d\d left", line)) for line in epochs] == [True, False]
    assert all(re.search(r"Dice 0\.\d{4} \(class 128 \d\.\d{4}, class 255 \d\.\d{4}\)  ", line) for line in epochs)
    assert f"folders:    {best.parent} and {tmp_path / 'results' / 'unet' / 'run'}" in said
    [command] = [line.removeprefix("next: python ") for line in said.splitlines() if line.startswith("next: ")]
    script, *options = command.replace("FOLDER", str(sets[1])).split()
    done = subprocess.run([sys.executable, script, *options, "--output", str(tmp_path / "o")], check=False)
    assert done.returncode == 0 and (tmp_path / "o" / "files.xlsx").is_file()
    assert train.main(["--resume", str(best.with_name("last.pth")), "--epochs", "3"]) == 0
    assert "resumes after epoch 2 of 3" in capsys.readouterr().out


def test_another_number_of_threads_is_said_on_resume_and_on_repeat(sets, tmp_path, monkeypatch, capsys):
    assert train.main(train_arguments(*sets, tmp_path)) == 0
    capsys.readouterr()
    last = tmp_path / "checkpoints" / "unet" / "run" / "last.pth"
    threads = torch.get_num_threads()
    for epochs_in_all, warned in (("3", False), ("4", True), ("5", False)):
        if warned:
            monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 5)
        assert train.main(["--resume", str(last), "--epochs", epochs_in_all]) == 0
        assert (f"was trained with {threads} threads, but {threads + 5} are" in capsys.readouterr().err) == warned
    settings = tmp_path / "results" / "unet" / "run" / "settings.json"
    assert json.loads(settings.read_text())["threads"] == [[0, threads], [3, threads + 5]]
    roots = ["--checkpoints", str(tmp_path / "c"), "--results", str(tmp_path / "r")]
    assert train.main(["--repeat", str(settings), *roots]) == 0
    said = f"several numbers of threads ({threads} after epoch 0, {threads + 5} after epoch 3)"
    assert said in capsys.readouterr().err


def test_a_last_pth_copied_alone_asks_for_best_pth_and_names_no_missing_file(sets, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(summary, "dice_or_lowest", lambda row: -row["epoch"])  # the first epoch is the best
    assert train.main(train_arguments(*sets, tmp_path)) == 0
    folder = tmp_path / "checkpoints" / "unet" / "run"
    best = (folder / "best.pth").read_bytes()
    (folder / "best.pth").unlink()
    capsys.readouterr()
    resume = ["--resume", str(folder / "last.pth"), "--epochs"]
    with pytest.raises(SystemExit) as stopped:
        train.main([*resume, "3"])
    said, error = capsys.readouterr()
    assert stopped.value.code == 1 and "next: " not in said
    assert "warning: " in error and "copy the best.pth of this run there, else" in error
    assert error.splitlines()[-1].endswith(f"copy the best.pth of this run there, or use {folder / 'last.pth'}")
    (folder / "best.pth").write_bytes(best)
    assert train.main([*resume, "4"]) == 0
    said, error = capsys.readouterr()
    assert "next: " in said and "best.pth" not in error
