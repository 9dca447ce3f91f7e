"""Two commands at once that want one run, folder or file: one has it, the other takes another name or is refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from conftest import make_folder, train_arguments
from killing import LONGEST_WAIT, started
from openpyxl import Workbook, load_workbook

from sonogravity.commands import compare
from sonogravity.common import folders
from sonogravity.common.claims import claim_file, claim_folder
from sonogravity.common.file_names import IN_USE
from sonogravity.common.files import load_torch
from sonogravity.reporting.comparison import SHEETS
from sonogravity.training import run_opening, start
from unet import evaluate, export, predict, train

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")

STAMP = "2026-01-02_03-04-05"
IN_ONE_SECOND = (
    f"import sys; from sonogravity.training import start; start.time_stamp = lambda: {STAMP!r}; "
    "from unet import train; sys.exit(train.main(sys.argv[1:]))"
)
TRAIN = [sys.executable, folders.ROOT / "unet" / "train.py"]


def unnamed(arguments):
    at = arguments.index("--name")
    return arguments[:at] + arguments[at + 2 :]


def claims_in(root):
    return [path for path in root.rglob("*") if path.name.endswith(IN_USE)]


@contextmanager
def two(line):
    """(the process that goes on, the one that was refused, its error) of two that start at once."""
    with started(line, stderr=subprocess.PIPE) as one, started(line, stderr=subprocess.PIPE) as other:
        limit = time.monotonic() + LONGEST_WAIT
        while one.poll() is None and other.poll() is None:
            assert time.monotonic() < limit
            time.sleep(0.05)
        has, refused = (one, other) if one.poll() is None else (other, one)
        _, errors = refused.communicate()
        assert refused.returncode == 2 and has.poll() is None, errors
        lines = [line for line in errors.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and f"is in use by process {has.pid} on " in lines[0], errors
        yield has, lines[0]


def interrupt_after(process, beginning):
    """Interrupt a run after the line that begins so -> all that it printed."""
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith(beginning):
            break
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=LONGEST_WAIT)
    assert process.returncode == 130
    return said + rest


def test_two_unnamed_runs_of_one_second_are_two_complete_runs(sets, tmp_path):
    lines = [
        [sys.executable, "-c", IN_ONE_SECOND, *unnamed(train_arguments(*sets, tmp_path, "--seed", seed))]
        for seed in (1, 2)
    ]
    with started(lines[0]) as one, started(lines[1]) as other:
        said = [process.communicate(timeout=LONGEST_WAIT)[0] for process in (one, other)]
        assert (one.returncode, other.returncode) == (0, 0)
    names = [STAMP, f"{STAMP}_2"]
    for root in ("checkpoints", "results"):
        assert sorted(path.name for path in (tmp_path / root / "unet").iterdir()) == names
    seeds = set()
    for name in names:
        kept, results = (tmp_path / root / "unet" / name for root in ("checkpoints", "results"))
        settings = json.loads((results / "settings.json").read_text())["options"]
        last = load_torch(kept / "last.pth")
        assert last["epoch"] == 2 and len((results / "epochs.csv").read_text().splitlines()) == 3
        assert last["training"]["settings"]["options"]["seed"] == settings["seed"]
        assert settings["name"] == last["run"] == load_torch(kept / "best.pth")["run"] == name
        assert "best.pth --input" in said[settings["seed"] - 1] and f"/{name}/best.pth" in said[settings["seed"] - 1]
        seeds.add(settings["seed"])
    assert seeds == {1, 2} and not claims_in(tmp_path)


def test_of_two_runs_of_one_name_and_of_two_that_resume_it_one_is_refused(sets, tmp_path):
    with two([*TRAIN, *train_arguments(*sets, tmp_path, "--epochs", 500)]) as (has, line):
        assert "wait until it has ended, or give another --name" in line and "delete" not in line
        interrupt_after(has, "epoch 2/500")
    last = tmp_path / "checkpoints/unet/run/last.pth"
    assert load_torch(last)["epoch"] >= 2 and not claims_in(tmp_path)
    with two([*TRAIN, "--resume", last]) as (has, line):
        assert line.endswith("wait until it has ended")
        said = interrupt_after(has, "epoch ")
    epoch = load_torch(last)["epoch"]
    assert f"epoch {epoch} is kept; resume with: --resume {last}" in said
    table = (tmp_path / "results/unet/run/epochs.csv").read_text().splitlines()
    assert [int(row.split(",")[0]) for row in table[1:]] == list(range(1, epoch + 1)) and not claims_in(tmp_path)


def test_a_run_that_another_process_continued_meanwhile_is_not_resumed(sets, tmp_path, refused, monkeypatch):
    assert train.main(train_arguments(*sets, tmp_path)) == 0
    last = tmp_path / "checkpoints/unet/run/last.pth"
    before = last.read_bytes()
    monkeypatch.setattr(run_opening, "epoch_of", lambda path: 3)  # one epoch more than when it was read
    line = refused(train.main, ["--resume", last, "--epochs", 4])
    assert f"{last}: another process has just trained this run; give the command again" in line
    assert last.read_bytes() == before and not claims_in(tmp_path)


def test_a_run_killed_with_its_claim_is_started_again_and_resumed(sets, tmp_path):
    """In its first epoch the same command starts again; later --resume goes on."""
    line = [*TRAIN, *train_arguments(*sets, tmp_path, "--epochs", 500)]
    last = tmp_path / "checkpoints/unet/run/last.pth"
    with started(line) as process:
        while not last.exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
        process.wait()
    assert len(claims_in(tmp_path)) == 2
    again = line if load_torch(last)["epoch"] == 0 else [*TRAIN, "--resume", last]
    with started(again) as process:
        said = interrupt_after(process, "epoch ")
    assert said.count("ended unexpectedly") == 2 and not claims_in(tmp_path)


def test_two_cross_validations_of_one_name(sets, tmp_path):
    arguments = train_arguments(*sets, tmp_path, "--epochs", 500, "--folds", 2)
    with two([*TRAIN, *arguments]) as (has, line):
        assert f"{tmp_path / 'results/unet/run_folds'}: is in use" in line and "another --name" in line
        interrupt_after(has, "epoch 1/500")
    assert not claims_in(tmp_path) and not (tmp_path / "results/unet/run_folds").exists()


def test_an_unnamed_cross_validation_takes_the_next_name(sets, tmp_path, monkeypatch):
    monkeypatch.setattr(start, "time_stamp", lambda: STAMP)
    with claim_file(tmp_path / "results/unet" / f"{STAMP}_folds"):
        assert train.main(unnamed(train_arguments(*sets, tmp_path, "--epochs", 1, "--folds", 2))) == 0
    results = sorted(path.name for path in (tmp_path / "results/unet").iterdir())
    assert results == [f"{STAMP}_2_fold_1", f"{STAMP}_2_fold_2", f"{STAMP}_2_folds"]


def test_a_fold_that_another_process_trains_is_refused(sets, tmp_path, refused):
    arguments = train_arguments(*sets, tmp_path, "--epochs", 1, "--folds", 2)
    with claim_folder(tmp_path / "checkpoints/unet/run_fold_1"):
        assert "run_fold_1: is in use by process" in refused(train.main, arguments)
        assert train.main([*arguments, "--fold", "2"]) == 0
    assert train.main(arguments) == 0 and not claims_in(tmp_path)


def test_two_predictions_into_one_folder(trained, tmp_path):
    make_folder(tmp_path / "many", subjects=("X",), frames=120)
    line = [sys.executable, folders.ROOT / "tests" / "slow_disk.py", "unet/predict"]
    line += ["--load", trained / "checkpoints/unet/run/best.pth", "--input", tmp_path / "many"]
    line += ["--output", tmp_path / "out", "--panels", "none"]
    with two(line) as (has, line):
        assert f"{tmp_path / 'out'}: is in use" in line and "or give another --output" in line
        has.communicate(timeout=LONGEST_WAIT)
        assert has.returncode == 0
    assert len((tmp_path / "out" / "files.csv").read_text().splitlines()) == 121
    assert len(list((tmp_path / "out" / "masks").iterdir())) == 120 and not claims_in(tmp_path)
    assert not (tmp_path / "out" / "partial").exists()


def test_evaluation_check_and_export_are_refused_what_another_process_writes(trained, sets, tmp_path, refused):
    best = tmp_path / "best.pth"
    shutil.copy(trained / "checkpoints/unet/run/best.pth", best)
    scoring = ["--load", best, "--input", trained / "validation", "--output", tmp_path / "out"]
    with claim_folder(tmp_path / "out"):
        for script in (evaluate, predict):
            assert "out: is in use by process" in refused(script.main, scoring)
    assert not (tmp_path / "out").exists()
    with claim_folder(tmp_path / "results/unet/run"):
        assert "run: is in use by process" in refused(train.main, train_arguments(*sets, tmp_path, "--check"))
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    with claim_file(best.with_suffix(".onnx")):
        line = refused(export.main, ["--load", best, "--input", trained / "validation"])
    assert "best.onnx: is in use by process" in line and not best.with_suffix(".onnx").exists()


@pytest.fixture
def scored(trained, tmp_path):
    """Two evaluated folders of the same frames."""
    for name in ("one", "other"):
        arguments = ["--load", trained / "checkpoints/unet/run/best.pth", "--input", trained / "validation"]
        assert evaluate.main([*map(str, arguments), "--output", str(tmp_path / name)]) == 0
    return [tmp_path / "one", tmp_path / "other"]


def test_a_comparison_never_replaces_a_file_that_appeared_while_it_was_made(scored, tmp_path, refused, monkeypatch):
    output = tmp_path / "comparison.xlsx"
    with claim_file(output):
        assert "comparison.xlsx: is in use by" in refused(compare.main, [*scored, "--output", output])
    save = Workbook.save

    def save_late(book, path):
        save(book, path)
        output.write_text("of the user")

    with monkeypatch.context() as patched:
        patched.setattr(Workbook, "save", save_late)
        assert "is not a comparison" in refused(compare.main, [*scored, "--output", output])
    assert output.read_text() == "of the user"
    output.unlink()
    assert compare.main([*map(str, scored), "--output", str(output)]) == 0
    assert load_workbook(output).sheetnames == list(SHEETS)
    with monkeypatch.context() as patched:  # an earlier comparison, replaced by the user meanwhile
        patched.setattr(Workbook, "save", save_late)
        assert "is not a comparison" in refused(compare.main, [*scored, "--output", output])
    assert output.read_text() == "of the user" and not claims_in(tmp_path)
