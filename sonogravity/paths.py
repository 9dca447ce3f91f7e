"""Where things lie, and files that appear whole or not at all."""

import csv
import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

from sonogravity.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
DATA, CHECKPOINTS, RESULTS = ROOT / "data", ROOT / "checkpoints", ROOT / "results"

OUTPUT_FOLDERS = ("masks", "panels")
OUTPUT_FILES = ("files.xlsx", "files.csv", "files.partial.csv", "summary.json", "settings.json", "sweep.png")
MARKER = "settings.json"  # written first, so that a folder can be told to be an earlier run's


@contextmanager
def whole(path):
    """Yield a name beside ``path`` to write to; on success flush it to disk and rename it to ``path``.

    A reader, or a run that resumes after a crash, sees the old file or the new one, never a part.
    The name beside starts with a dot and ends in ``.partial``, so no search for ``*.pth`` finds it.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
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


def write_text(path, text):
    """Write UTF-8 text, whole or not at all."""
    with whole(path) as beside:
        beside.write_text(text, encoding="utf-8")


def is_litter(name):
    """What file managers and office programs leave behind: dot files, Thumbs.db, lock files."""
    return name.startswith((".", "~$")) or name.lower() in ("thumbs.db", "desktop.ini")


def _not_written_by(folder, script):
    """Names in an earlier run's folder that the script did not write there, as far as its list tells."""
    try:
        settings = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return [MARKER]
    if not isinstance(settings, dict) or settings.get("script") != script:
        return [MARKER]
    stems = set()
    for name in ("files.csv", "files.partial.csv"):
        if (folder / name).is_file():
            with open(folder / name, newline="", encoding="utf-8") as file:
                stems |= {Path(row["file"]).stem for row in csv.DictReader(file) if row.get("file")}
    return sorted(
        f"{part}/{path.name}"
        for part in OUTPUT_FOLDERS
        if (folder / part).is_dir()
        for path in (folder / part).iterdir()
        if path.stem not in stems and not is_litter(path.name)
    )


def claim_output(folder, script):
    """Make a result folder ready: created, or emptied of what an earlier run of the same script wrote.

    InputError where it holds anything else: a file of the user's is never touched.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; --output must name a folder")
    held = {path.name for path in folder.iterdir() if not is_litter(path.name)} if folder.exists() else set()
    foreign = sorted(held - set(OUTPUT_FOLDERS) - set(OUTPUT_FILES))
    if held and not foreign and MARKER in held:
        foreign = _not_written_by(folder, script)
    if foreign or (held and MARKER not in held):
        raise InputError(
            f"{folder}: holds files that no earlier run wrote ({(foreign or sorted(held))[0]}); "
            "give another --output, or empty it"
        )
    for name in held - {MARKER}:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    folder.mkdir(parents=True, exist_ok=True)
