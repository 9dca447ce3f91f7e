"""What surrounds a script: a notebook's settings, a pipe that closes, signals, an empty checkout."""

import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import make_folder, train_arguments
from killing import started

from sonogravity.common import folders
from unet import train

TRAIN = [sys.executable, str(folders.ROOT / "unet" / "train.py")]


@pytest.fixture
def command(tmp_path):
    sets = make_folder(tmp_path / "train"), make_folder(tmp_path / "validation", subjects=("C",), seed=1)
    return [*TRAIN, *train_arguments(*sets, tmp_path)]


def test_a_notebooks_backend_does_not_stop_the_pictures(command, tmp_path):
    environment = os.environ | {"MPLBACKEND": "module://a_backend_that_is_not_installed"}
    done = subprocess.run([*command, "--epochs", "1"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results" / "unet" / "run" / "progress.png").stat().st_size > 1000


def test_a_closed_pipe_ends_a_script_quietly(command):
    with subprocess.Popen([*command, "--epochs", "50"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline().startswith(b"classes:")
        process.stdout.close()  # as ``head -1`` does
        errors = process.stderr.read().decode()
    assert process.returncode == 141 and "error:" not in errors and "Broken pipe" not in errors


def wait_for(process, text):
    """Read the output until it holds a text; the lines read."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return lines
    raise AssertionError(f"{text} never came: {lines}")


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_a_closed_terminal_ends_a_run_with_the_way_to_resume(command, tmp_path):
    with started([*command, "--epochs", "500"]) as process:
        wait_for(process, "epoch 1/500")
        process.send_signal(signal.SIGHUP)
        rest = process.stdout.read()
        assert process.wait() == 128 + signal.SIGHUP
    assert f"--resume {tmp_path / 'checkpoints' / 'unet' / 'run' / 'last.pth'}" in rest


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_under_nohup_a_run_goes_on(command):
    with started(["nohup", *command, "--epochs", "500"]) as process:
        wait_for(process, "epoch 1/500")
        process.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        wait_for(process, "epoch 3/500")
        assert process.poll() is None
        process.terminate()
        process.stdout.read()
        assert process.wait() == 128 + signal.SIGTERM


def test_an_empty_checkout_is_told_where_frames_come_from(tmp_path, refused, monkeypatch):
    monkeypatch.setattr(folders, "DATA", tmp_path / "data")
    line = refused(train.main, ["--epochs", "100", "--batch-size", "8", "--amp"])
    assert f"{tmp_path / 'data' / 'train'}: no such folder" in line
    assert "--train" in line and "data/make_phantom.py" in line


def test_data_that_were_moved_are_asked_for_by_their_option(sets, tmp_path, refused):
    assert train.main(train_arguments(*sets, tmp_path)) == 0
    sets[1].rename(tmp_path / "moved")
    last = tmp_path / "checkpoints" / "unet" / "run" / "last.pth"
    line = refused(train.main, ["--resume", last, "--epochs", "3"])
    assert "no such folder" in line and "--validation" in line
    assert train.main(["--resume", str(last), "--epochs", "3", "--validation", str(tmp_path / "moved")]) == 0


def test_version(capsys):
    with pytest.raises(SystemExit) as stopped:
        train.main(["--version"])
    assert stopped.value.code == 0 and capsys.readouterr().out.startswith("SonoGravity ")
