"""The output folder of predict and evaluate: complete results appear in it, or none."""

import csv
import json
import os
import re
import shutil
from contextlib import contextmanager

from sonogravity.common.claims import claim_folder
from sonogravity.common.file_names import (
    FILES_CSV,
    FILES_XLSX,
    MASK_SUFFIXES,
    OUTPUT_FILES,
    OUTPUT_FOLDERS,
    OVERLAY,
    PANEL_KINDS,
    ROWS_DONE,
    SETTINGS,
    UNFINISHED,
    overlay_name,
)
from sonogravity.common.files import digest_of_paths, is_litter
from sonogravity.common.folders import DATA
from sonogravity.common.messages import InputError, NotWritten, say, some, warn
from sonogravity.datasets.file_kinds import stem_of
from sonogravity.datasets.inputs import clip_and_number
from sonogravity.metrics.columns import SOURCE


def _held(folder):
    return {path.name for path in folder.iterdir() if not is_litter(path.name)} if folder.exists() else set()


def _foreign_in_unfinished(folder, script):
    """Return names in folder/partial that an interrupted run of the script cannot have left there."""
    if not folder.is_dir():
        return [""]
    files = [path for path in folder.rglob("*") if path.is_file() and not is_litter(path.name)]
    names = sorted(path.relative_to(folder).as_posix() for path in files)
    if not _written_by(folder, script):
        return names
    suffixes = "|".join(map(re.escape, (*(f".{kind}" for kind in PANEL_KINDS), *MASK_SUFFIXES.values())))
    pictures = re.compile(rf"({'|'.join(OUTPUT_FOLDERS)})/[^/]*({suffixes})|[^/]*{re.escape(OVERLAY)}")
    return [name for name in names if name not in OUTPUT_FILES and not pictures.fullmatch(name)]


def _settings(folder):
    """Return the content of the folder's settings.json, empty if it cannot be read."""
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        settings = None
    return settings if isinstance(settings, dict) else {}


def _written_by(folder, script):
    """Return whether the folder's settings.json names this script."""
    return _settings(folder).get("script") == script


def _refuse_other_inputs(folder, settings):
    """Raise InputError if the folder holds results of other inputs. Print that results of the same are replaced."""
    options = _settings(folder).get("options")
    if not isinstance(options, dict):
        return
    if _digest(options) != _digest(settings["options"]):
        earlier, now = (some(_inputs(each)) for each in (options, settings["options"]))
        raise InputError(
            f"{folder}: holds the results of {earlier}{' elsewhere' * (earlier == now)}, not of {now}; give another "
            "--output, or move these results away"
        )
    say(f"{folder}: holds earlier results of the same input; they are replaced when the new ones are complete")


def _digest(options):
    """Return the digest of the inputs. Earlier versions stored the paths themselves."""
    return options.get("digest_of_inputs") or digest_of_paths(_inputs(options))


def _inputs(options):
    """Return the paths that options of predict or evaluate name as input. Earlier versions stored no default input."""
    given = [
        options.get("input") or str(DATA / "validation"),
        options.get("masks") or [],
        options.get("predictions") or [],
    ]
    return sorted(path for each in given for path in ([each] if isinstance(each, str) else each))


def _foreign(folder, script):
    """Return names in an output folder that no earlier run of the script wrote, according to its files.csv."""
    held = _held(folder)
    unfinished = folder / UNFINISHED
    if UNFINISHED in held and (strays := _foreign_in_unfinished(unfinished, script)):
        return [f"{UNFINISHED}/{strays[0]}"]
    held -= {UNFINISHED}
    rows = _rows(folder / FILES_CSV)
    clips = _clips(rows)
    unknown = sorted(held - set(OUTPUT_FOLDERS) - set(OUTPUT_FILES) - set(map(overlay_name, clips)))
    if unknown or not held:
        return unknown
    if not _written_by(folder, script):
        return [SETTINGS if SETTINGS in held else min(held)]
    stems = {stem_of(row["file"]) for row in rows if row.get("file")} | clips
    return sorted(
        f"{part}/{path.name}"
        for part in OUTPUT_FOLDERS
        if (folder / part).is_dir()
        for path in (folder / part).iterdir()
        if stem_of(path.name) not in stems and not is_litter(path.name)
    )


def _clips(rows):
    """Return the stems of the clips of which rows of files.csv are frames."""
    return {clip_and_number(row.get("file") or "")[0] for row in rows if row.get(SOURCE)}


def _rows(table):
    if not table.is_file():
        return []
    with open(table, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _remove(path):
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def _refuse_file(folder, remedy):
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file, but the output is a folder; give {remedy}")


def refuse_foreign(folder, script, remedy):
    """Raise InputError if an output folder holds files that no earlier run of the script wrote."""
    _refuse_file(folder, remedy)
    foreign = _foreign(folder, script)
    if foreign:
        raise InputError(f"{folder}: holds files that no earlier run wrote ({foreign[0]}); give {remedy}")


@contextmanager
def new_output(folder, settings):
    """Yield ``folder/partial`` to write to. At the end its files replace earlier ones of the same script and input.

    settings: those of this run, for settings.json. If the work ends early, the earlier results do not change, and the
    files done so far stay in ``folder/partial``. If no file was done, ``folder/partial`` is removed. Raise InputError
    if the folder holds results of other inputs or any other file, because files of the user are never touched, or if
    another process writes to it.
    """
    _refuse_file(folder, "another --output")
    with claim_folder(folder, ", or give another --output"):
        refuse_foreign(folder, settings["script"], "another --output")
        _refuse_other_inputs(folder, settings)
        unfinished = folder / UNFINISHED
        _remove(unfinished)
        unfinished.mkdir()
        try:
            yield unfinished
        except BaseException:
            rows = _rows(unfinished / ROWS_DONE)
            if rows:
                warn(f"not finished; the results of {len(rows)} files are in {unfinished}")
            else:
                _remove(unfinished)
            raise
        _replace(folder, unfinished)


def _replace(folder, unfinished):
    """Move the files of a finished run to the output folder, the workbook last."""
    try:
        videos = map(overlay_name, _clips(_rows(folder / FILES_CSV)))
        for name in (
            FILES_XLSX,
            *OUTPUT_FILES,
            *OUTPUT_FOLDERS,
            *videos,
        ):  # the workbook first: a user may have it open
            _remove(folder / name)
        for path in sorted(unfinished.iterdir(), key=lambda path: path.name == FILES_XLSX):
            os.replace(path, folder / path.name)
        unfinished.rmdir()
    except OSError as error:
        raise NotWritten(
            f"{error.filename}: {error.strerror}; the new results are complete in {unfinished}: close programs that "
            "use the old ones, then move the new ones to the output folder, or run again"
        ) from error
