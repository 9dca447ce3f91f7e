"""Worker processes where shared memory is small, as in a container: fewer of them, or one line, but no endless wait."""

import shutil
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from conftest import make_folder, train_arguments
from killing import same

from sonogravity.common import folders, workers
from sonogravity.common.files import load_torch
from unet import train

MOUNT = 'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$@"'
NAMESPACE = ["unshare", "--mount", "--map-root-user", "sh", "-c", MOUNT, "sh"]

# Shared memory that looks large enough when the run begins, and is not.
UNNOTICED = """
import sys
from sonogravity.datasets import loader
from unet import train
loader.workers_with_room = lambda workers, batch_bytes: workers
sys.exit(train.main(sys.argv[1:]))
"""


def small_shared_memory():
    if not shutil.which("unshare"):
        return False
    return subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode == 0


needs_namespace = pytest.mark.skipif(not small_shared_memory(), reason="needs the right to mount a small /dev/shm")


@pytest.mark.parametrize(("free", "used"), [(100, 4), (99, 3), (60, 2), (40, 1), (39, 0), (0, 0)])
def test_as_many_workers_as_shared_memory_has_room_for(free, used, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(workers, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(workers.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    assert workers.workers_with_room(4, 10) == used
    said = capsys.readouterr().err
    assert (f"so {used} worker processes are used" in said) == (used < 4)


def run(command, *arguments):
    start = time.monotonic()
    command = [*NAMESPACE, sys.executable, *command, *map(str, arguments)]
    done = subprocess.run(command, cwd=folders.ROOT / "unet", capture_output=True, text=True, check=False, timeout=300)
    return done, time.monotonic() - start


@pytest.fixture
def large(tmp_path):
    make_folder(tmp_path / "train", size=(200, 200))
    make_folder(tmp_path / "validation", subjects=("C",), size=(40, 40), seed=1)
    arguments = train_arguments(tmp_path / "train", tmp_path / "validation", tmp_path, "--epochs", 1, "--scale", 1)
    return [*arguments, "--batch-size", 4, "--base-channels", 2]


@needs_namespace
def test_a_run_that_shared_memory_has_no_room_for_prepares_its_batches_itself(large, tmp_path):
    done, _ = run(["train.py"], *large, "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert "warning: --workers 2: /dev/shm has 1 MB free" in done.stderr and "so 0 worker processes" in done.stderr
    assert train.main([*map(str, large), "--workers", "0", "--name", "alone"]) == 0
    weights = (load_torch(tmp_path / f"checkpoints/unet/{name}/last.pth")["state_dict"] for name in ("run", "alone"))
    assert same(*weights)


@needs_namespace
def test_shared_memory_that_fills_later_ends_the_run_with_one_line(large):
    done, seconds = run(["-c", UNNOTICED], *large, "--workers", 2)
    assert done.returncode == 2 and seconds < 120
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert "shared memory" in line and "--workers 0" in line
    assert "Traceback" not in done.stderr
