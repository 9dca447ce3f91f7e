"""Match images and masks by the stem of the file name, and check the names."""

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from sonogravity.common.files import is_litter
from sonogravity.common.messages import InputError, some
from sonogravity.datasets.image_files import EXTENSIONS
from sonogravity.datasets.other_files import describe

LONGEST_NAME = 240  # bytes; file systems allow 255, but the name of an output may be longer than that of its image
UNFIT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # control characters, and bytes that are not Unicode


@dataclass(frozen=True)
class Pair:
    """An image file and its mask file, if it has one."""

    image: Path
    mask: Path | None = None

    @property
    def stem(self):
        """Return the stem, which pairs files and names outputs."""
        return stem_of(self.image)


def stem_of(path):
    """Return a file's stem with composed letters. macOS stores "ü" as two characters, other systems as one."""
    return unicodedata.normalize("NFC", path.stem)


def check_name(path):
    """Raise InputError for a file name that a worksheet cannot hold or that is too long for outputs."""
    shown = f"{path.parent}/{ascii(path.name)[1:-1]}"
    if UNFIT.search(path.name):
        raise InputError(f"{shown}: the name holds a control character, or is not Unicode; rename the file")
    length = len(path.name.encode())
    if length > LONGEST_NAME:
        raise InputError(f"{shown}: the name is {length} bytes long, but at most {LONGEST_NAME} are allowed; rename it")


def list_files(folder):
    """Return {stem: path} of the frames in a folder, sorted, and the paths of what else lies there."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such file or folder; give images or masks, or a folder of them")
    found, others, alike = {}, [], {}
    for path in sorted(folder.iterdir()):
        if is_litter(path.name):
            continue
        if path.suffix.lower() not in EXTENSIONS or path.is_dir():
            others.append(path)
            continue
        check_name(path)
        if not path.is_file():
            raise InputError(f"{path}: is a broken link or not a regular file; repair or remove it")
        stem = stem_of(path)
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
    """Return the Pairs of two {stem: path}, in the order of the images. Raise InputError for files without a partner.

    partial: allow files without a partner (for prediction).
    """
    missing = [path.name for stem, path in images.items() if stem not in masks]
    extra = [path.name for stem, path in masks.items() if stem not in images]
    folder = next(iter(images.values())).parent if images else None
    if missing and not partial:
        raise InputError(
            f"{folder}: {len(missing)} of {len(images)} images have no mask of the same stem: "
            f"{some(missing)}; add the masks or move these images away"
        )
    if extra and not partial:
        raise InputError(
            f"{next(iter(masks.values())).parent}: {len(extra)} masks have no image of the same stem: "
            f"{some(extra)}; add the images or move these masks away"
        )
    return [Pair(path, masks.get(stem)) for stem, path in images.items()]


def find_training_pairs(folder):
    """Return the Pairs of ``folder/images`` and ``folder/masks``, and notes on files that were not read."""
    images, other_images = list_files(folder / "images")
    masks, other_masks = list_files(folder / "masks")
    for kind, found, others in (("images", images, other_images), ("masks", masks, other_masks)):
        if not found:
            raise _no_images(folder / kind, others, kind)
    return pair_up(images, masks), [
        *_not_read(folder / "images", other_images),
        *_not_read(folder / "masks", other_masks),
    ]


def _no_images(folder, others, kind="images"):
    held = f", but {describe(others)}" if others else ""
    return InputError(f"{folder}: holds no {kind}{held}; add {kind} of type {', '.join(EXTENSIONS)}")


def _not_read(folder, others):
    return [f"{folder}: not read, because not images: {describe(others)}"] if others else []


def find_input_pairs(inputs, masks_folder=None, partial=False, use_masks=True):
    """Return the Pairs of ``--input`` paths, and notes on files that were not read.

    inputs: folders with images/ (and masks/), folders of images, or image files. partial: allow images without a mask.
    use_masks: whether masks are looked for.
    """
    pairs, notes = [], []
    for path in inputs:
        if path.is_file():
            if path.suffix.lower() not in EXTENSIONS:
                raise InputError(
                    f"{path}: not an image: {describe([path])}; give a file of type {', '.join(EXTENSIONS)}"
                )
            check_name(path)
            images, others, own_masks = {stem_of(path): path}, [], path.parent.parent / "masks"
            own_masks = own_masks if path.parent.name == "images" else None
        else:
            folder = path / "images" if (path / "images").is_dir() else path
            images, others = list_files(folder)
            if not images:
                raise _no_images(folder, others)
            own_masks = folder.parent / "masks" if folder.name == "images" else None
        masks = (masks_folder or own_masks) if use_masks else None
        found, other_masks = list_files(masks) if masks and (masks_folder or masks.is_dir()) else ({}, [])
        notes += [*_not_read(path, others), *_not_read(masks, other_masks)]
        extra = [mask.name for stem, mask in found.items() if stem not in images]
        if path.is_file() or masks_folder:  # one file of many, or one mask folder for several inputs
            found = {stem: mask for stem, mask in found.items() if stem in images}
        elif extra and partial:
            notes.append(f"{masks}: {len(extra)} masks have no image of the same stem: {some(extra)}")
        pairs += pair_up(images, found, partial)
    if masks_folder and use_masks and not any(pair.mask for pair in pairs):
        raise InputError(
            f"{masks_folder}: no mask there has the stem of an image ({some(pair.image.name for pair in pairs)}); give "
            "the folder of their masks, or leave --masks out"
        )
    seen = {}
    for pair in pairs:
        twin = seen.setdefault(pair.stem.casefold(), pair.image)
        if twin is not pair.image:
            raise InputError(f"{pair.image} and {twin} have the same stem, so the same output name; rename one")
    return pairs, notes


def find_mask_pairs(inputs, masks_folder, predictions):
    """Return the Pairs of true masks, {stem: predicted mask}, and notes on files that were not read.

    inputs: folders with masks/, folders of masks, or mask files. If masks_folder is given, it holds the true masks, and
    inputs (images; none for all masks) select those to score. Every true mask needs a prediction with the same stem.
    If whole folders are scored, every prediction also needs a true mask.
    """
    notes = []

    def listed(folder):
        found, others = list_files(folder)
        if not found:
            raise _no_images(folder, others, "masks")
        notes.extend(_not_read(folder, others))
        return found

    truths, whole = {}, not masks_folder or not inputs
    part = "images" if masks_folder else "masks"
    for path in inputs or [masks_folder]:
        folder = path / part if (path / part).is_dir() else path
        found = {stem_of(path): path} if path.is_file() else listed(folder)
        whole = whole and not path.is_file()
        doubled = sorted(set(truths) & set(found))
        if doubled:
            raise InputError(f"{found[doubled[0]]} and {truths[doubled[0]]} have the same stem; score them separately")
        truths |= found
    if masks_folder and inputs:
        masks = listed(masks_folder)
        missing = [path.name for stem, path in truths.items() if stem not in masks]
        if missing:
            raise InputError(
                f"{masks_folder}: no mask for {len(missing)} of {len(truths)} files: {some(missing)}; add the masks"
            )
        truths = {stem: masks[stem] for stem in truths}
    found = listed(predictions)
    missing = [path.name for stem, path in truths.items() if stem not in found]
    if missing:
        raise InputError(
            f"{predictions}: no prediction for {len(missing)} of {len(truths)} true masks: {some(missing)}; add "
            "them, or give the files to score as --input"
        )
    extra = [path.name for stem, path in found.items() if stem not in truths]
    if extra and whole:
        raise InputError(
            f"{predictions}: {len(extra)} of {len(found)} have no true mask of the same stem: {some(extra)}; add the "
            "masks or move these predictions away"
        )
    return [Pair(path, path) for path in truths.values()], found, notes
