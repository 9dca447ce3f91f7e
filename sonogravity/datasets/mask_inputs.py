"""Find the true masks and the predictions that evaluate --predictions compares."""

from sonogravity.common.messages import InputError, some
from sonogravity.datasets.file_kinds import stem_of
from sonogravity.datasets.inputs import WHOLE, clip_and_number, notes_on_images, open_frames, refuse_misfits
from sonogravity.datasets.pairs import Pair, list_files, no_images, not_read
from sonogravity.datasets.readers import reader_of


def find_mask_pairs(inputs, masks_folder, predictions, part=WHOLE):
    """Return Pairs, {stem: predicted mask}, and notes on files that were not read.

    The mask of a Pair is the truth. Its image is the frame of a clip or volume, if its file lies beside the masks; its
    pixels are not read, but its scale and time are used. Otherwise it is the true mask, too.

    inputs: folders with masks/, folders of masks, or mask files. If masks_folder is given, it holds the true masks, and
    inputs (images; none for all masks) select those to score. Every true mask needs a prediction with the same stem.
    If whole folders are scored, every prediction also needs a true mask, but for other frames of the same clip.
    """
    notes = []

    def listed(folder):
        found, others = list_files(folder, sequences=True)
        if not found:
            raise no_images(folder, others, "masks")
        frames, more = open_frames(found)
        notes.extend([*not_read(folder, others), *more])
        return frames

    truths, images, whole = {}, {}, not masks_folder or not inputs
    for path in inputs or [masks_folder]:
        folder = path / "masks" if not masks_folder and (path / "masks").is_dir() else path
        if masks_folder and inputs:
            found, more = open_frames(_listed_images(path), part)
            notes += more
            images |= found
        else:
            found = open_frames({stem_of(path.name): path})[0] if path.is_file() else listed(folder)
            beside = folder.parent / "images" if folder.name == "masks" else folder
            clips, more = open_frames(_clips_in(beside), part) if beside != folder else ({}, [])
            notes += more
            images |= clips
        whole = whole and not path.is_file()
        doubled = sorted(set(truths) & set(found))
        if doubled:
            raise InputError(f"{found[doubled[0]]} and {truths[doubled[0]]} have the same stem; score them separately")
        truths |= found
    if masks_folder and inputs:
        truths = _masks_of(truths, listed(masks_folder), masks_folder)
    images = {stem: image for stem, image in images.items() if image.sequence}
    refuse_misfits(images, truths)
    notes += notes_on_images(images.values())
    clips = {file.clip for file in (*images.values(), *truths.values()) if file.clip}
    if part.is_limited:
        truths = {stem: file for stem, file in truths.items() if stem in images or _clip_of(stem, clips) is None}
    found = listed(predictions)
    _refuse_unpaired(truths, found, clips, predictions, whole)
    return [Pair(images.get(stem, file), file) for stem, file in truths.items()], found, notes


def _listed_images(path):
    """Return {stem: path} of an image, or of the images in a folder or its images/."""
    if path.is_file():
        return {stem_of(path.name): path}
    folder = path / "images" if (path / "images").is_dir() else path
    found, others = list_files(folder, sequences=True)
    if not found:
        raise no_images(folder, others)
    return found


def _clips_in(folder):
    """Return {stem: path} of the clips, stacks, volumes and DICOM files in a folder."""
    found = list_files(folder, sequences=True)[0] if folder.is_dir() else {}
    return {stem: path for stem, path in found.items() if reader_of(path)}


def _masks_of(files, masks, folder):
    """Return the masks of files, by stem. Clips may lack masks of some frames. Raise InputError for other files."""
    annotated = {clip_and_number(stem)[0] for stem in masks}
    missing = [file.name for stem, file in files.items() if stem not in masks and file.clip not in annotated]
    if missing:
        raise InputError(f"{folder}: no mask for {len(missing)} of {len(files)} files: {some(missing)}; add the masks")
    return {stem: masks[stem] for stem in files if stem in masks}


def _clip_of(stem, clips):
    """Return the clip that a frame belongs to, None if it is no frame of one of the clips."""
    clip = clip_and_number(stem)[0]
    return clip if clip in clips and clip != stem else None


def _refuse_unpaired(truths, found, clips, folder, whole):
    """Raise InputError for truths without a prediction, and, if whole folders are scored, for the reverse."""
    missing = [file.name for stem, file in truths.items() if stem not in found]
    if missing:
        raise InputError(
            f"{folder}: no prediction for {len(missing)} of {len(truths)} true masks: {some(missing)}; add "
            "them, or give the files to score as --input"
        )
    extra = [file.name for stem, file in found.items() if stem not in truths and _clip_of(stem, clips) is None]
    if extra and whole:
        raise InputError(
            f"{folder}: {len(extra)} of {len(found)} have no true mask of the same stem: {some(extra)}; add the "
            "masks or move these predictions away"
        )
