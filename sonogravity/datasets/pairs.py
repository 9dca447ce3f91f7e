"""Match images and masks by the stem of the file name, and check the names."""

import re
from dataclasses import dataclass

from sonogravity.common.files import is_litter
from sonogravity.common.messages import InputError, some
from sonogravity.datasets.file_kinds import describe, is_frames, stem_of
from sonogravity.datasets.frame_files import FrameFile
from sonogravity.datasets.image_files import EXTENSIONS

LONGEST_NAME = 240  # bytes; file systems allow 255, but the name of an output may be longer than that of its image
UNFIT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # control characters, and bytes that are not Unicode


@dataclass(frozen=True, slots=True)
class Pair:
    """An image and its mask, if it has one."""

    image: FrameFile
    mask: FrameFile | None = None

    @property
    def stem(self):
        """Return the identity of the image."""
        return self.image.stem


def check_name(path):
    """Raise InputError for a file name that a worksheet cannot hold or that is too long for outputs."""
    shown = f"{path.parent}/{ascii(path.name)[1:-1]}"
    if UNFIT.search(path.name):
        raise InputError(f"{shown}: the name holds a control character, or is not Unicode; rename the file")
    length = len(path.name.encode())
    if length > LONGEST_NAME:
        raise InputError(f"{shown}: the name is {length} bytes long, but at most {LONGEST_NAME} are allowed; rename it")


def list_files(folder, sequences=False):
    """Return {stem: path} of the images in a folder, sorted, and the paths of what else lies there.

    sequences: files that hold a sequence of frames belong to the images.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such file or folder; give images or masks, or a folder of them")
    found, others, alike = {}, [], {}
    for path in sorted(folder.iterdir()):
        if is_litter(path.name):
            continue
        if path.is_dir() or not (is_frames(path) if sequences else path.suffix.lower() in EXTENSIONS):
            others.append(path)
            continue
        check_name(path)
        if not path.is_file():
            raise InputError(f"{path}: is a broken link or not a regular file; repair or remove it")
        stem = stem_of(path.name)
        twin = alike.setdefault(stem.casefold(), path)
        if stem in found:
            raise InputError(f"{path}: {twin.name} has the same stem in this folder; keep one of the two")
        if twin != path:
            raise InputError(
                f"{path}: differs from {twin.name} only in upper and lower case, and Windows and macOS treat these as "
                "one name; rename one"
            )
        found[stem] = path
    return found, others


def pair_up(images, masks, partial=False):
    """Return the Pairs of two {stem: FrameFile}, in the order of the images.

    Raise InputError for files without a partner. partial: allow files without a partner (for prediction).
    """
    missing = [file.name for stem, file in images.items() if stem not in masks]
    extra = [file.name for stem, file in masks.items() if stem not in images]
    folder = next(iter(images.values())).path.parent if images else None
    if missing and not partial:
        clip = next((file.clip for file in images.values() if file.clip), None)
        stack = f" (of a clip also a stack with its stem, {clip})" if clip else ""
        raise InputError(
            f"{folder}: {len(missing)} of {len(images)} images have no mask of the same stem: "
            f"{some(missing)}; add the masks{stack} or move these images away"
        )
    if extra and not partial:
        raise InputError(
            f"{next(iter(masks.values())).path.parent}: {len(extra)} masks have no image of the same stem: "
            f"{some(extra)}; add the images or move these masks away"
        )
    return [Pair(file, masks.get(stem)) for stem, file in images.items()]


def find_training_pairs(folder):
    """Return the Pairs of ``folder/images`` and ``folder/masks``, and notes on files that were not read."""
    images, other_images = list_files(folder / "images")
    masks, other_masks = list_files(folder / "masks")
    for kind, found, others in (("images", images, other_images), ("masks", masks, other_masks)):
        if not found:
            raise no_images(folder / kind, others, kind)
    return pair_up(plain(images), plain(masks)), [
        *not_read(folder / "images", other_images),
        *not_read(folder / "masks", other_masks),
    ]


def plain(paths):
    """Return {stem: FrameFile} of {stem: path} of plain files."""
    return {stem: FrameFile(path) for stem, path in paths.items()}


def no_images(folder, others, kind="images", suffixes=EXTENSIONS):
    """Return the InputError for a folder without images. others: what it holds instead. kind: images or masks."""
    held = f", but {describe(others)}" if others else ""
    return InputError(f"{folder}: holds no {kind}{held}; add {kind} of type {', '.join(suffixes)}")


def not_read(folder, others):
    """Return notes on files that were not read."""
    return [f"{folder}: not read, because not images: {describe(others)}"] if others else []
