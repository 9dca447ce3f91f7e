"""Which mask belongs to which image: by the stem of the file name, nothing silently passed over."""

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from sonogravity.common.files import is_litter
from sonogravity.common.messages import InputError, some
from sonogravity.datasets.image_files import EXTENSIONS

LONGEST_NAME = 240  # bytes; file systems take 255, and what stands beside a file while it is written adds some
UNFIT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # the last are bytes that are no Unicode


@dataclass(frozen=True)
class Pair:
    """A frame on disk, with its mask if there is one."""

    image: Path
    mask: Path | None = None

    @property
    def stem(self):
        """What pairs files and names outputs."""
        return stem_of(self.image)


def stem_of(path):
    """A file's stem, its letters composed: macOS hands out "ü" as two characters, other systems as one."""
    return unicodedata.normalize("NFC", path.stem)


def check_name(path):
    """Refuse a file whose name the outputs cannot carry: no text in a worksheet, or too long."""
    shown = f"{path.parent}/{ascii(path.name)[1:-1]}"
    if UNFIT.search(path.name):
        raise InputError(f"{shown}: the name holds a control character, or is not Unicode; rename the file")
    length = len(path.name.encode())
    if length > LONGEST_NAME:
        raise InputError(f"{shown}: the name is {length} bytes long, outputs take {LONGEST_NAME}; rename the file")


def list_files(folder):
    """{stem: path} of a folder's frames, sorted; and the names of what else lies there."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such file or folder; give images, or a folder that holds some")
    found, others, alike = {}, [], {}
    for path in sorted(folder.iterdir()):
        if is_litter(path.name):
            continue
        if path.suffix.lower() not in EXTENSIONS or path.is_dir():
            others.append(path.name)
            continue
        check_name(path)
        if not path.is_file():
            raise InputError(f"{path}: a link that leads nowhere, or no ordinary file; mend or remove it")
        stem = stem_of(path)
        twin = alike.setdefault(stem.casefold(), path)
        if stem in found:
            raise InputError(f"{path}: {twin.name} has the same stem in this folder; keep one of the two")
        if twin != path:
            raise InputError(
                f"{path}: differs from {twin.name} in upper and lower case only, which Windows and macOS take for one "
                "name; rename one"
            )
        found[stem] = path
    return found, others


def pair_up(images, masks, partial=False):
    """Two {stem: path} -> sorted Pairs; InputError lists what lacks a partner.

    partial: images without a mask are welcome (prediction).
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
    """``folder/images`` and ``folder/masks`` -> Pairs, and notes on files that were passed over."""
    images, other_images = list_files(folder / "images")
    masks, other_masks = list_files(folder / "masks")
    if not images:
        raise InputError(f"{folder / 'images'}: holds no image ({', '.join(EXTENSIONS)})")
    notes = [
        f"{folder / kind}: {len(others)} not read, being no image: {some(others)}"
        for kind, others in (("images", other_images), ("masks", other_masks))
        if others
    ]
    return pair_up(images, masks), notes


def find_input_pairs(inputs, masks_folder=None, partial=False):
    """``--input`` paths (folders with images/ [and masks/], folders of images, files) -> Pairs, notes."""
    pairs, notes = [], []
    for path in inputs:
        if path.is_file():
            if path.suffix.lower() not in EXTENSIONS:
                raise InputError(f"{path}: not an image that can be read ({', '.join(EXTENSIONS)})")
            check_name(path)
            images, others, own_masks = {stem_of(path): path}, [], path.parent.parent / "masks"
            own_masks = own_masks if path.parent.name == "images" else None
        else:
            folder = path / "images" if (path / "images").is_dir() else path
            images, others = list_files(folder)
            own_masks = folder.parent / "masks" if folder.name == "images" else None
        masks = masks_folder or own_masks
        found, other_masks = list_files(masks) if masks and (masks_folder or masks.is_dir()) else ({}, [])
        for where, names in ((path, others), (masks, other_masks)):
            if names:
                notes.append(f"{where}: {len(names)} not read, being no image: {some(names)}")
        extra = [mask.name for stem, mask in found.items() if stem not in images]
        if path.is_file() or masks_folder:  # one file of many, or one mask folder for several inputs
            found = {stem: mask for stem, mask in found.items() if stem in images}
        elif extra and partial:
            notes.append(f"{masks}: {len(extra)} masks have no image of the same stem: {some(extra)}")
        pairs += pair_up(images, found, partial)
    if not pairs:
        raise InputError(f"{some(inputs)}: no image found ({', '.join(EXTENSIONS)})")
    seen = {}
    for pair in pairs:
        twin = seen.setdefault(pair.stem.casefold(), pair.image)
        if twin is not pair.image:
            raise InputError(f"{pair.image} and {twin} have one stem, so one output name; rename one")
    return pairs, notes


def find_mask_pairs(inputs, masks_folder, predictions):
    """True masks and predicted ones -> Pairs of true masks, {stem: predicted mask}, notes.

    inputs: folders with masks/ or of masks, or mask files. With masks_folder the true masks lie there, and inputs
    (images, or none for all masks) say which of them to score. Every true mask needs a prediction of the same stem,
    and the reverse where whole folders are scored.
    """
    notes = []

    def listed(folder):
        found, others = list_files(folder)
        if others:
            notes.append(f"{folder}: {len(others)} not read, being no image: {some(others)}")
        return found

    truths, whole = {}, not masks_folder or not inputs
    part = "images" if masks_folder else "masks"
    for path in inputs or [masks_folder]:
        folder = path / part if (path / part).is_dir() else path
        found = {stem_of(path): path} if path.is_file() else listed(folder)
        whole = whole and not path.is_file()
        doubled = sorted(set(truths) & set(found))
        if doubled:
            raise InputError(f"{found[doubled[0]]} and {truths[doubled[0]]} have one stem; score them apart")
        truths |= found
    if masks_folder and inputs:
        masks = listed(masks_folder)
        missing = [path.name for stem, path in truths.items() if stem not in masks]
        if missing:
            raise InputError(f"{masks_folder}: no mask for {len(missing)} of {len(truths)} files: {some(missing)}")
        truths = {stem: masks[stem] for stem in truths}
    if not truths:
        raise InputError(f"{some(inputs or [masks_folder])}: no mask found ({', '.join(EXTENSIONS)})")
    found = listed(predictions)
    missing = [path.name for stem, path in truths.items() if stem not in found]
    if missing:
        raise InputError(
            f"{predictions}: no prediction for {len(missing)} of {len(truths)} true masks: {some(missing)}; add them, "
            "or give the files to score as --input"
        )
    extra = [path.name for stem, path in found.items() if stem not in truths]
    if extra and whole:
        raise InputError(
            f"{predictions}: {len(extra)} of {len(found)} have no true mask of the same stem: {some(extra)}; add the "
            "masks or move these away"
        )
    return [Pair(path, path) for path in truths.values()], found, notes
