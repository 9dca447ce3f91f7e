"""Small data and small runs that many tests share."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from sonogravity.common import folders, threads

threads.wait_briefly()  # before a test imports torch, as the scripts do

# A noisy machine is no fault of the code; the same examples each time, for what is new is sought by make soak.
settings.register_profile("unhurried", deadline=None, derandomize=True)
settings.register_profile("soak", deadline=None, max_examples=20_000)


def pytest_addoption(parser):
    parser.addoption("--soak", action="store_true", help="the long harnesses: many kills, many fuzzed files")


def pytest_configure(config):
    settings.load_profile("soak" if config.getoption("--soak") else "unhurried")


@pytest.fixture
def soak(request):
    """Whether there is time for the long harnesses (make soak)."""
    return request.config.getoption("--soak")


TRAIN_FAST = [
    "--epochs",
    "2",
    "--base-channels",
    "4",
    "--learning-rate",
    "1e-2",
    "--scale",
    "0.5",
    "--batch-size",
    "2",
    "--scheduler",
    "plateau",
    "--loss",
    "ce",
    "--device",
    "cpu",
    "--workers",
    "0",
]


def load_phantom_script():
    """data/make_phantom.py as a module."""
    spec = importlib.util.spec_from_file_location("make_phantom", folders.ROOT / "data" / "make_phantom.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its worker processes find it by name
    spec.loader.exec_module(module)
    return module


def write_frame(folder, stem, image, mask):
    """A PNG pair under folder/images and folder/masks."""
    for kind, array in (("images", image), ("masks", mask)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(folder / kind / f"{stem}.png")


def simple_frame(seed, size=(40, 36), values=(0, 128, 255)):
    """A noisy frame with a bright box (values[1]) and a grey one (values[2]), and its mask."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 60, size, dtype=np.uint8)
    mask = np.full(size, values[0], np.uint8 if max(values) < 256 else np.uint16)
    for level, value in zip((200, 120), values[1:], strict=False):
        top, left = rng.integers(0, size[0] - 14), rng.integers(0, size[1] - 14)
        image[top : top + 12, left : left + 12] = level + rng.integers(-15, 15, (12, 12))
        mask[top : top + 12, left : left + 12] = value
    return image, mask


def make_folder(folder, *, subjects=("A", "B"), frames=4, size=(40, 36), seed=0):
    """A set of simple frames under folder."""
    for s, subject in enumerate(subjects):
        for i in range(frames):
            write_frame(folder, f"{subject}_{i:03d}", *simple_frame([seed, s, i], size))
    return folder


@pytest.fixture
def sets(tmp_path):
    """(train, validation) folders of 8 and 4 small frames."""
    return (make_folder(tmp_path / "train"), make_folder(tmp_path / "validation", subjects=("C",), seed=1))


def train_arguments(train, validation, root, *more):
    """A command line for unet/train.py that writes under root only."""
    return [
        "--train",
        str(train),
        "--validation",
        str(validation),
        "--checkpoints",
        str(root / "checkpoints"),
        "--results",
        str(root / "results"),
        "--name",
        "run",
        *TRAIN_FAST,
        *map(str, more),
    ]


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A finished run: its root, with train/ and validation/ beside checkpoints/ and results/."""
    from unet import train

    root = tmp_path_factory.mktemp("trained")
    make_folder(root / "train", frames=12)
    make_folder(root / "validation", subjects=("C", "D"), seed=1)
    arguments = train_arguments(
        root / "train",
        root / "validation",
        root,
        "--save-every",
        1,
        "--epochs",
        6,
        "--no-augment",
        "--loss",
        "ce+dice",
        "--base-channels",
        8,
    )
    assert train.main(arguments) == 0
    return root


@pytest.fixture
def refused(capsys):
    """Call a main that must refuse: exit code 2, one line ``error: ...`` on stderr; returns the line."""

    def call(main, arguments):
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        assert stopped.value.code == 2
        lines = [line for line in capsys.readouterr().err.replace("\r", "\n").split("\n") if "error:" in line]
        assert len(lines) == 1 and lines[0].startswith("error: ")
        return lines[0]

    return call


REAL = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def real_frames():
    """The folder of real frames; tests that want it are skipped where it is missing."""
    if not REAL.is_dir():
        pytest.skip("no real frames here")
    return REAL
