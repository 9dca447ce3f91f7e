"""Write files whole or not at all, and read files without running code in them."""

import hashlib
import os
import pickle
import re
import struct
import tokenize
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path

from sonogravity.common.file_names import PANELS

# Exceptions of Pillow, numpy and torch for a damaged file, or for one of another format than its name states.
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
    """Return an absolute Path with links resolved. Unlike Path.resolve, accept a loop of links."""
    return Path(os.path.realpath(path))


def digest_of_paths(paths):
    """Return a digest of absolute paths, in any order, that does not show them."""
    return hashlib.blake2b("\0".join(sorted(paths)).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


@contextmanager
def whole(path, new=False):
    """Yield a temporary path beside ``path`` to write to. On success flush it to disk and rename it to ``path``.

    new: raise FileExistsError, instead of replacing it, if ``path`` exists by then.
    A reader, or a run resumed after a crash, finds the old file or the new one, never a part of it.
    The temporary name starts with a dot and ends in ``.partial``, so a search for ``*.pth`` does not find it.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name[:SHOWN_OF_NAME]}-{_checksum(path.name)}.{os.getpid()}.partial")
    try:
        yield beside
        with open(beside, "rb+") as file:
            os.fsync(file.fileno())
        (_rename_to_new if new else os.replace)(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    if os.name == "posix":  # flush the folder, which holds the new name
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _rename_to_new(beside, path):
    try:
        os.link(beside, path)  # the temporary name is removed afterwards
    except FileExistsError:
        raise
    except OSError:  # a file system without links: an empty file keeps the name
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        os.replace(beside, path)


def _checksum(text):
    return f"{zlib.crc32(os.fsencode(text)):08x}"


def remove_leftovers(folder):
    """Remove the temporary files that a killed run left (see ``whole``), not those of a prediction in results/<run>."""
    for path in (*folder.glob(".*.partial"), *(folder / PANELS).rglob(".*.partial")):
        if re.fullmatch(r"\..*-[0-9a-f]{8}\.\d+\.partial", path.name, re.DOTALL):
            path.unlink(missing_ok=True)


def short(stem, limit=SHOWN_OF_NAME):
    """Return a stem of limited length: unchanged, or cut and made unique by a checksum."""
    return stem if len(stem) <= limit else f"{stem[:limit]}-{_checksum(stem)}"


def write_whole(path, write, *arguments):
    """Call ``write(path, *arguments)`` so that the file is written whole or not at all."""
    with whole(path) as beside:
        write(beside, *arguments)


def is_litter(name):
    """Return whether a name is a by-product of file managers or office programs: dot files, Thumbs.db, lock files."""
    return name.startswith((".", "~$")) or name.lower() in ("thumbs.db", "desktop.ini")


def load_torch(path):
    """Return the content of a torch.save file. Only tensors and plain values are read, so no code runs.

    Raise one of BROKEN_FILE if the file is damaged. Checksums are verified here because torch.load does not: a changed
    byte would change a weight.
    """
    import torch  # only these files need it, and it is slow to import

    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken:
            raise ValueError(f"damaged: the checksum of {broken} is wrong")
    return torch.load(path, map_location="cpu", weights_only=True)
