"""Files that appear whole or not at all, and files that are read without running code."""

import os
import pickle
import re
import struct
import tokenize
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path

# What Pillow, numpy and torch raise for a file that is not what its name says.
BROKEN_FILE = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    RuntimeError,
    ArithmeticError,
    LookupError,
    AttributeError,
    AssertionError,
    MemoryError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    pickle.UnpicklingError,
    tokenize.TokenError,
)
SHOWN_OF_NAME = 40  # characters


def absolute(path):
    """An absolute Path, links followed as far as they lead; unlike Path.resolve, a loop of links is no error."""
    return Path(os.path.realpath(path))


@contextmanager
def whole(path):
    """Yield a name beside ``path`` to write to; on success flush it to disk and rename it to ``path``.

    A reader, or a run that resumes after a crash, sees the old file or the new one, never a part.
    The name beside starts with a dot and ends in ``.partial``, so no search for ``*.pth`` finds it.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name[:SHOWN_OF_NAME]}-{_checksum(path.name)}.{os.getpid()}.partial")
    try:
        yield beside
        with open(beside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    if os.name == "posix":  # the rename itself reaches the disk with the folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _checksum(text):
    return f"{zlib.crc32(os.fsencode(text)):08x}"


def remove_leftovers(folder):
    """Remove what a killed process left beside its files (see ``whole``)."""
    for path in folder.rglob(".*.partial"):
        if re.fullmatch(r"\..*-[0-9a-f]{8}\.\d+\.partial", path.name, re.DOTALL):
            path.unlink(missing_ok=True)


def short(stem, limit=SHOWN_OF_NAME):
    """A stem that more can be put before: as it is, or cut and told apart by a checksum."""
    return stem if len(stem) <= limit else f"{stem[:limit]}-{_checksum(stem)}"


def write_whole(path, write, *arguments):
    """Call ``write(path, *arguments)`` so that the file appears whole or not at all."""
    with whole(path) as beside:
        write(beside, *arguments)


def is_litter(name):
    """What file managers and office programs leave behind: dot files, Thumbs.db, lock files."""
    return name.startswith((".", "~$")) or name.lower() in ("thumbs.db", "desktop.ini")


def load_torch(path):
    """What torch.save wrote, tensors and plain values only: no code runs. Raises one of BROKEN_FILE.

    torch.load leaves the checksums of its own archives alone, so a changed byte would become a changed weight.
    """
    import torch  # only these files need it, and it is slow to import

    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken:
            raise ValueError(f"damaged: the checksum of {broken} is wrong")
    return torch.load(path, map_location="cpu", weights_only=True)
