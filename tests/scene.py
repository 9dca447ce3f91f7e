"""A scene of good data that a case spoils, and the list that all cases join."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from conftest import make_folder
from PIL import Image

SUFFIXES = ("png", "jpg", "bmp", "tif", "npy", "pth")
SMALL_RUN = ["--epochs", "1", "--scale", "0.5", "--device", "cpu", "--workers", "0", "--name", "run"]
LARGEST_PORTABLE_NAME = 240  # bytes; file systems take 255, and outputs add to a stem


@dataclass
class Scene:
    """A folder with good data, and what a case makes of it.

    root: everything lies here. checkpoints: {"unet": ..., "deeplab": ...} trained before on like data.
    """

    root: Path
    checkpoints: dict
    output: Path = field(init=False)
    trace: Path = field(init=False)  # what hostile files would leave if their code ran

    def __post_init__(self):
        make_folder(self.root / "train")
        make_folder(self.root / "validation", subjects=("C",), seed=1)
        self.output, self.trace = self.root / "out", self.root / "trace"

    @property
    def train(self):
        return self.root / "train"

    @property
    def validation(self):
        return self.root / "validation"

    @property
    def best(self):
        return self.checkpoints["unet"]

    def frame(self, kind="images", number=1, part="validation"):
        """The path of one good PNG frame or mask."""
        subject = "A" if part == "train" else "C"
        return self.root / part / kind / f"{subject}_{number:03d}.png"

    def replace(self, suffix, content=None, *, kind="images", part="validation", number=1):
        """Put a file of another format in a frame's place: its pixels re-saved, or the given array or bytes."""
        old = self.frame(kind, number, part)
        path = old.with_suffix(f".{suffix}")
        array = np.array(Image.open(old))
        old.unlink()
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            save_as(path, array if content is None else content)
        return path

    def rows(self):
        """files.csv of the output, by file."""
        return pd.read_csv(self.output / "files.csv", dtype={"missed": str, "spurious": str}).set_index("file")

    def content(self):
        """The good checkpoint's dictionary, to be changed and saved with ``write``."""
        return torch.load(self.best, weights_only=True)

    def write(self, content, name="spoilt.pth"):
        torch.save(content, self.root / name)
        return self.root / name


@dataclass(frozen=True)
class Case:
    """One entry. arrange(scene) spoils it and returns options; says: parts of the refusal, or None where it works."""

    name: str
    script: str
    arrange: object
    says: tuple | None = None
    check: object = None
    rights: bool = False  # file rights mean nothing to root


def save_as(path, array):
    """An array in the format of the path's suffix."""
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".pth":
        torch.save(torch.from_numpy(array), path)
    else:
        Image.fromarray(array).save(path)


class Payload:
    """Unpickled carelessly, this makes a folder: the trace."""

    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return os.mkdir, (self.trace,)


CASES = []


def add(name, script, arrange, *says, check=None, rights=False):
    CASES.append(Case(name, script, arrange, says or None, check, rights))
