"""Find the images, masks and annotations in files and in trees of folders, such as one folder per patient."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from sonogravity.common.files import absolute, is_litter
from sonogravity.common.messages import InputError, first_line, some
from sonogravity.datasets import class_tables, spacing, subjects
from sonogravity.datasets.file_kinds import (
    ANNOTATIONS,
    SEGMENTATION,
    SUFFIXES,
    describe,
    is_frames,
    kind_of,
    read_json,
    stem_of,
)
from sonogravity.datasets.pairs import UNFIT, check_name
from sonogravity.datasets.readers import is_dicomdir, members_of

TABLES = (class_tables.TABLE, spacing.TABLE, subjects.TABLE)


# Folders that group files, but name no person.
GROUPS = ("train", "training", "validation", "val", "test", "testing", "frames", "clips", "videos", "scans", "data")


@dataclass
class Sources:
    """Files in the sources of a conversion.

    images, masks: {identity: path}; an identity joins the names of the folders and the stem by ``_``. annotations:
    {path: kind of file}. trees: {path of an annotation: folder of a tree, or None}. subjects: {identity: the same}.
    folders: those that hold images. others: {folder: other paths in it}. left_out: a folder that is not looked into,
    unless the user gave it.
    """

    images: dict[str, Path] = field(default_factory=dict)
    masks: dict[str, Path] = field(default_factory=dict)
    annotations: dict[Path, str] = field(default_factory=dict)
    trees: dict[Path, str | None] = field(default_factory=dict)
    subjects: dict[str, str | None] = field(default_factory=dict)
    folders: dict[Path, None] = field(default_factory=dict)
    others: dict[Path, list[Path]] = field(default_factory=dict)
    left_out: Path | None = None

    def notes(self):
        """Return notes on files that are not read."""
        return [f"{folder}: not read, because not images: {describe(paths)}" for folder, paths in self.others.items()]


def find_sources(paths, masks=(), output=None):
    """Return the Sources in files and folders. masks: further files and folders, of masks. Raise InputError.

    Of several folders, each one is part of the names, as the folders in a folder are. A folder ``images`` is no part of
    the names, and a folder ``masks`` holds masks. output: a folder that is no source, although it may lie in one.
    """
    found = Sources(left_out=None if output is None else absolute(output))
    several = sum(path.is_dir() for path in paths) > 1
    for path in paths:
        _look_at(found, path, found.images, several)
    for path in masks:
        _look_at(found, path, found.masks, several=False)
    if not found.images:
        listed = [*found.annotations, *(other for others in found.others.values() for other in others)]
        held = f", but {describe(listed)}" if listed else ""
        clips = " (annotations hold none, so give their images or clips as well)" if found.annotations else ""
        raise InputError(f"{some(paths)}: holds no images{held}; add images of type {', '.join(SUFFIXES)}{clips}")
    _refuse_output_among_sources(found, paths)
    return found


def _refuse_output_among_sources(found, paths):
    """Raise InputError if images of the source lie beside images/ of the output, because they would be read again."""
    output = found.left_out
    if output in map(absolute, paths):
        beside = [path for path in found.images.values() if not absolute(path).is_relative_to(output / "images")]
        if beside:
            raise InputError(f"{output}: is also a source, with images such as {beside[0]}; give another --output")


def _look_at(found, path, kind, several):
    """Add what a path that the user gave is, or holds. kind: the images or masks of ``found``."""
    if path.is_dir():
        _walk(found, path, (absolute(path).name,) if several else (), kind)
    elif not path.is_file():
        raise InputError(f"{path}: no such file or folder; give images, clips or annotations, or a folder of them")
    elif is_dicomdir(path):
        _add_members(found, path, ())
    elif not _add(found, path, (), kind):
        raise InputError(f"{path}: not an image: {describe([path])}; give a file of type {', '.join(SUFFIXES)}")


def _walk(found, folder, parts, kind, above=()):
    """Add the files in a folder and in those below it. parts: of the identity. above: the folders that hold it."""
    here = absolute(folder)
    if here in above:
        raise InputError(f"{folder}: is a link to a folder that holds it; remove the link")
    entries = sorted(path for path in folder.iterdir() if not is_litter(path.name))
    listed = set()
    for path in entries:
        if is_dicomdir(path):
            listed |= _add_members(found, path, parts)
    for path in entries:
        if path.is_dir():
            if absolute(path) == found.left_out:
                continue
            inner = parts if path.name in ("images", "masks") else (*parts, path.name)
            _walk(found, path, inner, found.masks if path.name == "masks" else kind, (*above, here))
        elif path in listed or path.name in TABLES or is_dicomdir(path) or _add(found, path, parts, kind):
            continue
        else:
            found.others.setdefault(folder, []).append(path)


def _add_members(found, dicomdir, parts):
    """Add the images that a DICOMDIR lists. Return their paths."""
    members = members_of(dicomdir)
    for stem, path in members.items():
        _enter(found, found.images, "_".join((*parts, stem)), path, parts)
    return {Path(os.path.normpath(path)) for path in members.values()} | set(members.values())


def _add(found, path, parts, kind):
    """Add a file. Return whether it is an image, a mask or an annotation."""
    if (annotated := kind_of(path)) in ANNOTATIONS:
        found.annotations[path], found.trees[path] = annotated, _tree_of(parts)
        return True
    _refuse_damaged_json(path)
    if not is_frames(path):
        return False
    if not path.is_file():
        raise InputError(f"{path}: is a broken link or not a regular file; repair or remove it")
    kind = found.masks if path.name.lower().endswith(SEGMENTATION) else kind
    _enter(found, kind, "_".join((*parts, stem_of(path.name))), path, parts)
    return True


def _refuse_damaged_json(path):
    """Raise InputError for a JSON file that cannot be read, because it may be an annotation."""
    if path.suffix.lower() != ".json":
        return
    try:
        read_json(path)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is no JSON ({first_line(error)}); export it again, or remove it") from error


def _tree_of(parts):
    """Return the folder of a tree that may name a person, None without one."""
    return parts[0] if parts and parts[0].casefold() not in GROUPS else None


def _enter(found, kind, identity, path, parts):
    check_name(path)
    if UNFIT.search(identity):
        raise InputError(f"{str(path)!a}: a folder's name holds a control character, or is not Unicode; rename it")
    twin = kind.get(identity)
    if twin is not None and absolute(twin) != absolute(path):
        above = ", or give the folder above both, whose folders then belong to the names"
        raise InputError(
            f"{path} and {twin} would have the same name, {identity}; rename one{above * (path.parent != twin.parent)}"
        )
    kind[identity] = path
    if kind is found.images:
        found.subjects[identity] = _tree_of(parts)
        found.folders[path.parent] = None
