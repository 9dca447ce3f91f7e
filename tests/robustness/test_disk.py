"""Disks that refuse: full, locked, gone. Training goes on, says so, and ends non-zero if something is missing."""

import errno
import json
import os
import shutil
import subprocess
import sys

import openpyxl
import pandas as pd
import pytest
import torch
from conftest import train_arguments
from killing import differences, half_written, same

from sonogravity.common import folders
from sonogravity.common.files import load_torch
from sonogravity.metrics import summary
from sonogravity.reporting import output_folder
from sonogravity.reporting.write_queue import MOST_WAITING, Outbox
from sonogravity.training import steps
from unet import evaluate, predict, train


def full(path):
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


@pytest.fixture
def refuse(monkeypatch):
    """Set ``refuse.names`` to a function of a file name: True where the disk refuses that file."""

    class Refusal:
        names = staticmethod(lambda name: False)

    real = os.replace

    def replace(source, target):
        if Refusal.names(os.path.basename(target)):
            raise full(target)
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    return Refusal


def write_list(path, content):
    path.write_text(str(content))


def test_what_is_refused_waits_as_it_was(tmp_path, refuse, capsys):
    outbox, growing = Outbox(), [1]
    refuse.names = lambda name: name == "a.txt"
    outbox.put(tmp_path / "a.txt", write_list, growing)
    outbox.put(tmp_path / "b.txt", write_list, growing)
    outbox.send()
    assert "No space left" in capsys.readouterr().err
    growing.append(2)
    assert (tmp_path / "b.txt").read_text() == "[1]" and outbox.waiting(tmp_path / "a.txt") == ([1],)
    outbox.send()
    growing.append(3)
    refuse.names = lambda name: False
    outbox.send()
    assert (tmp_path / "a.txt").read_text() == "[1]" and outbox.close() == []
    assert not list(tmp_path.glob(".*")), "nothing half-written is left beside"


def test_of_many_waiting_the_oldest_optional_ones_are_given_up(tmp_path, refuse):
    outbox = Outbox()
    refuse.names = lambda name: True
    outbox.put(tmp_path / "last", write_list, [])
    for number in range(MOST_WAITING + 3):
        outbox.put(tmp_path / f"{number:02d}", write_list, [], optional=True)
        outbox.send()
    refuse.names = lambda name: False
    assert [path.name for path in outbox.close()] == ["00", "01", "02"]
    assert len(list(tmp_path.iterdir())) == MOST_WAITING + 1


def during_epochs(monkeypatch, before):
    """Call before(epoch) when an epoch is validated, that is before its files are written."""
    real = steps.validate

    def validate(predictor, store, criterion, batch_size, shown, *more):
        before(during_epochs.epoch)
        during_epochs.epoch += 1
        return real(predictor, store, criterion, batch_size, shown, *more)

    during_epochs.epoch = 1
    monkeypatch.setattr(steps, "validate", validate)


def test_a_disk_that_is_full_for_a_while(sets, tmp_path, monkeypatch, refuse, capsys):
    options = ["--epochs", 4, "--save-every", 1]
    assert train.main(train_arguments(*sets, tmp_path / "a", *options)) == 0

    def fill(epoch):
        refuse.names = (lambda name: True) if epoch in (2, 3) else (lambda name: False)

    during_epochs(monkeypatch, fill)
    capsys.readouterr()
    assert train.main(train_arguments(*sets, tmp_path / "b", *options)) == 0
    said = capsys.readouterr().err
    assert said.count("No space left") == 2 and "tried again after the next epoch" in said
    assert not differences(tmp_path / "a", tmp_path / "b")


def test_a_disk_that_stays_full(sets, tmp_path, monkeypatch, refuse, capsys):
    room = [False]

    def fill(epoch):
        refuse.names = lambda name: epoch > 1 and not room[0]

    during_epochs(monkeypatch, fill)
    with pytest.raises(SystemExit) as stopped:
        train.main(train_arguments(*sets, tmp_path, "--epochs", 3))
    said = capsys.readouterr().err.strip().split("\n")[-1]
    assert stopped.value.code == 1 and said.startswith("error: ") and "could not be written" in said
    last = tmp_path / "checkpoints" / "unet" / "run" / "last.pth"
    assert load_torch(last)["epoch"] == 1, "what was written before is whole"
    room[0] = True
    assert train.main(["--resume", str(last)]) == 0
    assert len(pd.read_csv(tmp_path / "results" / "unet" / "run" / "epochs.csv")) == 3


def test_a_disk_that_is_full_at_the_start(sets, tmp_path, refuse, refused):
    refuse.names = lambda name: name == "last.pth"
    assert "No space left" in refused(train.main, train_arguments(*sets, tmp_path))


def test_a_workbook_open_elsewhere(sets, tmp_path, refuse, capsys):
    refuse.names = lambda name: name == "epochs.xlsx"
    with pytest.raises(SystemExit) as stopped:
        train.main(train_arguments(*sets, tmp_path))
    assert stopped.value.code == 1
    said = capsys.readouterr().err
    assert "epochs.xlsx" in said and "close" in said
    results = tmp_path / "results" / "unet" / "run"
    assert len(pd.read_csv(results / "epochs.csv")) == 2 and not (results / "epochs.xlsx").exists()
    refuse.names = lambda name: False
    last = tmp_path / "checkpoints" / "unet" / "run" / "last.pth"
    assert train.main(["--resume", str(last)]) == 0
    assert openpyxl.load_workbook(results / "epochs.xlsx")["Epochs"].max_row >= 3


@pytest.mark.parametrize("folder", ["checkpoints", "results"])
def test_a_folder_removed_while_training(sets, tmp_path, monkeypatch, folder, capsys):
    def remove(epoch):
        if epoch == 2:
            shutil.rmtree(tmp_path / folder)

    during_epochs(monkeypatch, remove)
    arguments = train_arguments(*sets, tmp_path, "--epochs", 3, "--save-every", 3, "--no-augment", "--loss", "ce+dice")
    try:
        code = train.main(arguments)
    except SystemExit as stopped:
        code = stopped.code
    kept = tmp_path / "checkpoints" / "unet" / "run"
    table = pd.read_csv(tmp_path / "results" / "unet" / "run" / "epochs.csv")
    assert len(table) == 3 and (kept / "last.pth").exists() and (kept / "epoch_003.pth").exists()
    best_was_lost = folder == "checkpoints" and table["dice"].idxmax() == 0
    assert code == (1 if best_was_lost else 0)
    assert (tmp_path / "results" / "unet" / "run" / "settings.json").exists()


def test_lost_best_weights_are_told(sets, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(summary, "dice_or_lowest", lambda row: -row["epoch"])  # the first epoch is the best
    best = tmp_path / "checkpoints" / "unet" / "run" / "best.pth"
    during_epochs(monkeypatch, lambda epoch: best.unlink() if epoch == 2 else None)
    with pytest.raises(SystemExit) as stopped:
        train.main(train_arguments(*sets, tmp_path))
    assert stopped.value.code == 1 and "best.pth" in capsys.readouterr().err.strip().split("\n")[-1]


@pytest.mark.parametrize("stopped_at", ["best.pth", "epoch_002.pth", "epochs.xlsx", "last.pth"])
def test_a_kill_between_two_files_of_an_epoch(sets, tmp_path, monkeypatch, stopped_at):
    """What last.pth has, the others get on resuming; what it lacks is done again."""

    class Killed(BaseException):
        pass

    monkeypatch.setattr(summary, "dice_or_lowest", lambda row: row["epoch"])  # the newest epoch is the best
    options = ["--epochs", 2, "--save-every", 1]
    assert train.main(train_arguments(*sets, tmp_path / "a", *options)) == 0
    real, epochs = os.replace, []

    def replace(source, target):
        epochs.append(os.path.basename(target) == "last.pth")
        if os.path.basename(target) == stopped_at and sum(epochs) >= 2 + (stopped_at == "last.pth"):
            raise Killed
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(Killed):
        train.main(train_arguments(*sets, tmp_path / "b", *options))
    monkeypatch.setattr(os, "replace", real)
    last = tmp_path / "b" / "checkpoints" / "unet" / "run" / "last.pth"
    assert train.main(["--resume", str(last)]) == 0
    assert not differences(tmp_path / "a", tmp_path / "b")


@pytest.mark.skipif(os.name != "posix", reason="limits of file size are POSIX's")
def test_a_real_refusal_by_the_system(sets, tmp_path):
    """Files may not grow beyond a size: last.pth does with its optimizer's state, the others don't."""
    import resource

    command = [sys.executable, folders.ROOT / "unet" / "train.py", *train_arguments(*sets, tmp_path)]
    limit = 900_000
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "File too large" in done.stderr and "last.pth" in done.stderr.strip().split("\n")[-1]
    kept = tmp_path / "checkpoints" / "unet" / "run"
    assert load_torch(kept / "last.pth")["epoch"] == 0 and load_torch(kept / "best.pth")["epoch"] >= 1
    assert len(pd.read_csv(tmp_path / "results" / "unet" / "run" / "epochs.csv")) == 2
    assert not half_written(tmp_path)


def test_a_prediction_whose_old_workbook_is_open(trained, tmp_path, monkeypatch, capsys):
    best = trained / "checkpoints" / "unet" / "run" / "best.pth"
    arguments = ["--load", str(best), "--input", str(trained / "validation"), "--output", str(tmp_path / "o")]
    assert predict.main(arguments) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "o").rglob("*") if path.is_file()}
    real = output_folder._remove

    def locked(path):
        if path.name == "files.xlsx":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        real(path)

    monkeypatch.setattr(output_folder, "_remove", locked)
    with pytest.raises(SystemExit) as stopped:
        predict.main([*arguments, "--batch-size", "1"])
    said = capsys.readouterr().err.strip().split("\n")[-1]
    assert stopped.value.code == 1 and "files.xlsx" in said and "the new results are complete in" in said
    assert all(path.read_bytes() == content for path, content in before.items())
    unfinished = tmp_path / "o" / "partial"
    assert {path.name for path in unfinished.iterdir()} == {path.name for path in (tmp_path / "o").iterdir()} - {
        "partial"
    }
    monkeypatch.undo()
    assert predict.main(arguments) == 0 and not unfinished.exists()


def test_a_disk_that_fills_while_predicting(trained, tmp_path, refuse, refused, capsys):
    best = trained / "checkpoints" / "unet" / "run" / "best.pth"
    refuse.names = lambda name: name == "D_001.png"
    arguments = ["--load", best, "--input", trained / "validation", "--output", tmp_path / "o"]
    assert "No space left" in refused(predict.main, arguments)
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["partial"]
    rows = (tmp_path / "o" / "partial" / "files.partial.csv").read_text().splitlines()
    assert len(rows) == 1 + 5


# A run's settings repeat it.


def repeat(root, *more):
    settings = root / "results" / "unet" / "run" / "settings.json"
    assert train.main(["--repeat", str(settings), "--name", "again", *map(str, more)]) == 0
    tables = [
        pd.read_csv(root / "results" / "unet" / name / "epochs.csv").drop(columns=["seconds", "images_per_second"])
        for name in ("run", "again")
    ]
    states = [load_torch(root / "checkpoints" / "unet" / name / "last.pth")["state_dict"] for name in ("run", "again")]
    return same(*states) and tables[0].equals(tables[1])


def test_settings_repeat_a_run_bit_for_bit(sets, tmp_path):
    options = ["--cache-mb", 0, "--class-names", "bone,spinous process", "--background", 0, "--no-augment", "--amp"]
    assert train.main(train_arguments(*sets, tmp_path, *options)) == 0
    torch.manual_seed(5)  # what happened before must not matter
    assert repeat(tmp_path, "--workers", 2)
    first, again = (
        json.loads((tmp_path / "results" / "unet" / name / "settings.json").read_text()) for name in ("run", "again")
    )
    differing = {name for name in first["options"] if first["options"][name] != again["options"][name]}
    assert differing == {"name", "workers"}


def test_settings_older_than_a_switch_repeat_without_it(sets, tmp_path):
    switches = ("depth_channel", "deep_supervision")
    off = [f"--no-{name.replace('_', '-')}" for name in switches]
    assert train.main(train_arguments(*sets, tmp_path, *off)) == 0
    path = tmp_path / "results" / "unet" / "run" / "settings.json"
    settings = json.loads(path.read_text())
    for name in switches:
        del settings["options"][name]
    path.write_text(json.dumps(settings))
    assert repeat(tmp_path)


@pytest.mark.parametrize("scheduler", ["plateau", "cosine"])
def test_settings_repeat_a_run_that_was_loaded_resumed_and_lengthened(sets, trained, tmp_path, scheduler):
    best = trained / "checkpoints" / "unet" / "run" / "best.pth"
    options = ["--load", best, "--base-channels", 8, "--epochs", 2, "--scheduler", scheduler]
    assert train.main(train_arguments(*sets, tmp_path, *options)) == 0
    last = tmp_path / "checkpoints" / "unet" / "run" / "last.pth"
    assert train.main(["--resume", str(last), "--epochs", "4"]) == 0
    settings = json.loads((tmp_path / "results" / "unet" / "run" / "settings.json").read_text())
    assert settings["plan"] == [[0, 2], [2, 4]] and settings["options"]["load"] == str(best)
    assert repeat(tmp_path)


def test_other_weights_at_the_start_are_told(sets, trained, tmp_path, refused):
    start = tmp_path / "start.pth"
    shutil.copy(trained / "checkpoints" / "unet" / "run" / "epoch_001.pth", start)
    assert train.main(train_arguments(*sets, tmp_path, "--load", start, "--base-channels", 8, "--epochs", 1)) == 0
    shutil.copy(trained / "checkpoints" / "unet" / "run" / "epoch_002.pth", start)
    settings = tmp_path / "results" / "unet" / "run" / "settings.json"
    assert "began with other weights" in refused(train.main, ["--repeat", settings])


def test_another_torch_is_told(sets, tmp_path, capsys):
    assert train.main(train_arguments(*sets, tmp_path, "--epochs", 1)) == 0
    path = tmp_path / "results" / "unet" / "run" / "settings.json"
    content = json.loads(path.read_text())
    content["versions"]["torch"] = "1.0"
    path.write_text(json.dumps(content))
    capsys.readouterr()
    assert train.main(["--repeat", str(path), "--name", "again"]) == 0
    assert "another torch, so its scores cannot be repeated exactly" in capsys.readouterr().err


def test_figures_do_not_depend_on_the_batch_size_of_evaluation(trained, tmp_path):
    best = trained / "checkpoints" / "unet" / "run" / "best.pth"
    tables = []
    for size, workers in ((1, 0), (3, 2), (8, 1)):
        output = tmp_path / str(size)
        assert (
            evaluate.main(
                [
                    "--load",
                    str(best),
                    "--input",
                    str(trained / "validation"),
                    "--output",
                    str(output),
                    "--batch-size",
                    str(size),
                    "--workers",
                    str(workers),
                ]
            )
            == 0
        )
        tables.append(pd.read_csv(output / "files.csv").drop(columns="seconds"))
    unsure = [name for name in tables[0] if name.startswith(("entropy", "expected"))]  # sums of float32 probabilities
    for table in tables[1:]:
        pd.testing.assert_frame_equal(tables[0].drop(columns=unsure), table.drop(columns=unsure), rtol=0, atol=1e-9)
        pd.testing.assert_frame_equal(tables[0][unsure], table[unsure], rtol=0, atol=1e-6)
