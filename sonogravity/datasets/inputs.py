"""Find the frames, and their masks, that predict, evaluate and export are given: images, clips, stacks and volumes."""

from collections import Counter
from dataclasses import astuple, dataclass

import numpy as np

from sonogravity.common.file_names import DIGITS
from sonogravity.common.messages import InputError, some
from sonogravity.common.workers import ahead, decoding_threads
from sonogravity.datasets.file_kinds import SUFFIXES, describe, is_frames, stem_of
from sonogravity.datasets.frame_files import FrameFile
from sonogravity.datasets.pairs import check_name, list_files, no_images, not_read, pair_up
from sonogravity.datasets.readers import is_dicomdir, members_of, open_sequence
from sonogravity.datasets.sequences import NotAnImage
from sonogravity.datasets.volume_files import Geometry

NO_PLACE = Geometry((1.0,) * 3, (0.0,) * 3, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
SAVED_WHOLE = "; in 3D Slicer, save the segmentation without cropping it to the segments"
ONLY_REGION = 0  # --region without a number


@dataclass(frozen=True)
class Part:
    """The part of the frames to use.

    region: number of a tissue region, ONLY_REGION, or None for the whole image. first, last: (number, whether it is
    seconds) of the first and the last frame to use of each sequence; None for no limit.
    """

    region: int | None = None
    first: tuple[float, bool] | None = None
    last: tuple[float, bool] | None = None

    @property
    def is_limited(self):
        """Return whether frames of a sequence are left out."""
        return self.first is not None or self.last is not None

    def holds(self, number, time_s, path):
        """Return whether a frame is used. Raise InputError if the limit is in seconds, but the file has no times."""
        for limit, sign in ((self.first, 1), (self.last, -1)):
            if limit is None:
                continue
            value, in_seconds = limit
            if in_seconds and time_s is None:
                raise InputError(f"{path}: has no times, so --from and --to must be numbers of frames, without s")
            if sign * ((time_s if in_seconds else number) - value) < -1e-9:
                return False
        return True


WHOLE = Part()


def find_input_pairs(inputs, masks_folder=None, partial=False, use_masks=True, part=WHOLE):
    """Return the Pairs of ``--input`` paths, and notes on files that were not read.

    inputs: folders with images/ (and masks/), folders of images and sequences, files, or a DICOMDIR. partial: allow
    images without a mask. use_masks: whether masks are looked for.
    """
    pairs, notes = [], []
    for path in inputs:
        files, others, folder = _files_of(path)
        images, found = open_frames(files, part)
        notes += [*not_read(path, others), *found]
        if not images:
            raise no_images(folder, others, suffixes=SUFFIXES)
        own_masks = folder.parent / "masks" if folder.name == "images" else None
        masks_of_input = (masks_folder or own_masks) if use_masks else None
        masks = {}
        if masks_of_input and (masks_folder or masks_of_input.is_dir()):
            listed, other_masks = list_files(masks_of_input, sequences=True)
            if path.is_file() or masks_folder:  # one file of many, or one mask folder for several inputs
                listed = {stem: mask for stem, mask in listed.items() if _belongs(stem, files)}
            masks, found = open_frames(listed)
            notes += [*not_read(masks_of_input, other_masks), *found]
            masks, found = _fitting(images, masks, listed, path.is_file() or masks_folder or part.is_limited, partial)
            notes += found
        if not partial:
            images, found = _annotated(images, masks)
            notes += found
        pairs += pair_up(images, masks, partial)
    if masks_folder and use_masks and not any(pair.mask for pair in pairs):
        raise InputError(
            f"{masks_folder}: no mask there has the stem of an image ({some(pair.image.name for pair in pairs)}); give "
            "the folder of their masks, or leave --masks out"
        )
    if part.is_limited and not any(pair.image.is_numbered for pair in pairs):
        raise InputError("--from and --to choose frames of clips, but no input file holds several; leave them out")
    _refuse_twins(pairs)
    return pairs, notes + notes_on_images(pair.image for pair in pairs)


def _files_of(path):
    """Return {stem: path} of an input's files, the paths of what else lies there, and the folder."""
    if is_dicomdir(path):
        return members_of(path), [], path.parent
    if path.is_file():
        if not is_frames(path):
            raise InputError(f"{path}: not an image: {describe([path])}; give a file of type {', '.join(SUFFIXES)}")
        check_name(path)
        return {stem_of(path.name): path}, [], path.parent
    folder = path / "images" if (path / "images").is_dir() else path
    lists = [each for each in folder.iterdir() if is_dicomdir(each)] if folder.is_dir() else []
    if not lists:
        return *list_files(folder, sequences=True), folder
    members = members_of(lists[0])
    files, others = list_files(folder, sequences=True)
    tops = {member.relative_to(folder).parts[0] for member in members.values()}
    listed = {*members.values(), lists[0]}
    files = {stem: file for stem, file in files.items() if file not in listed}
    return files | members, [other for other in others if other.name not in tops], folder


def open_frames(files, part=WHOLE):
    """Return {identity: FrameFile} of the frames in files, {stem: path}, and notes on them.

    Files that are DICOM but hold no image are left out with a note, unless there is no other file.
    """
    frames, notes, no_image = {}, [], []

    def opened(item):
        stem, path = item
        try:
            sequence = open_sequence(path)
        except NotAnImage as error:
            return stem, path, error
        if sequence and part.region is None:
            _ = sequence.shows_more  # decodes a frame, so in this thread
        return stem, path, sequence

    for stem, path, sequence in ahead(opened, files.items(), decoding_threads(None)):
        if isinstance(sequence, NotAnImage):
            no_image.append(sequence)
            continue
        if part.region is not None:
            _choose_region(path, sequence, part.region)
        notes += sequence.warnings if sequence else []
        for frame in _frames_of(path, stem, sequence, part):
            twin = frames.setdefault(frame.stem, frame)
            if twin is not frame:
                raise InputError(f"{frame} and {twin} have the same stem, so the same output name; rename one")
    if no_image and not frames:
        raise no_image[0]
    return frames, [*notes, *map(str, no_image)]


def _frames_of(path, stem, sequence, part):
    """Return the FrameFiles of a file that are used. sequence: None for a plain file."""
    if sequence is None:
        return [FrameFile(path, stem)]
    frames = [FrameFile(path, stem, sequence, number) for number in range(sequence.count)]
    used = [f for f in frames if not sequence.numbered or part.holds(f.number, f.time_s, path)]
    if not used:
        times = f", 0 s to {sequence.times[-1]:.3g} s" if sequence.times else ""
        raise InputError(
            f"{path}: no frame lies within --from and --to; its frames are 0 to {sequence.count - 1}{times}"
        )
    return used


def _choose_region(path, sequence, wanted):
    """Make a sequence give one tissue region only. Raise InputError if it is not clear which one."""
    regions = sequence.regions if sequence else ()
    if not regions:
        raise InputError(
            f"{path}: has no ultrasound region that shows tissue in 2D; leave --region out, or give only files with one"
        )
    chosen = [region for region in regions if wanted in (ONLY_REGION, region.number)]
    if len(chosen) != 1:
        which = f"no region {wanted} among" if not chosen else f"{len(chosen)}"
        numbers = " or ".join(f"--region {region.number}" for region in regions)
        raise InputError(f"{path}: has {which} tissue regions ({some(regions, 6)}); give {numbers}")
    sequence.region = chosen[0]
    if any(region.spacing for region in regions):  # else that of the image holds
        sequence.spacing = chosen[0].spacing


def _belongs(stem, files):
    """Return whether a mask of this stem is of one of the files: its own, or that of one of its frames."""
    return stem in files or clip_and_number(stem)[0] in files


def refuse_misfits(images, masks):
    """Raise InputError for masks that cannot be those of the clips: other numbers of frames, or another place."""
    sources = {image.file_stem: image.sequence for image in images.values() if image.is_numbered}
    single = {image.file_stem: image.sequence for image in images.values() if image.sequence and not image.is_numbered}
    for mask in masks.values():
        source = (sources if mask.is_numbered else single).get(mask.file_stem) if mask.sequence else None
        if mask.is_numbered and source and mask.sequence.count not in (source.count, source.declared):
            raise InputError(
                f"{mask.path}: holds {mask.sequence.count} frames, but {source.path.name} holds {source.declared}; a "
                f"mask stack needs one frame per frame of the clip{SAVED_WHOLE * bool(mask.sequence.segments)}"
            )
        if source and not _same_place(mask.sequence.geometry, source.geometry):
            raise InputError(
                f"{mask.path}: lies elsewhere in space than {source.path.name} (spacing, origin or direction), so its "
                "slices may be others; save it with the geometry of the image"
            )
    _refuse_other_numbers(masks, sources)


def _fitting(images, masks, listed, some_only, partial):
    """Return the masks that have an image, and notes. Raise InputError if the masks of a clip do not fit it.

    some_only: the images are some of those that the masks belong to, so masks without an image are left out.
    """
    refuse_misfits(images, masks)
    sources = {image.file_stem for image in images.values() if image.is_numbered}
    extra = [stem for stem in masks if stem not in images]
    cut = [stem for stem in extra if masks[stem].file_stem in sources and masks[stem].is_numbered]  # of a damaged clip
    kept = {stem: mask for stem, mask in masks.items() if stem in images}
    others = [stem for stem in extra if stem not in cut]
    if some_only or not others:
        return kept, []
    if partial:
        folder, names = next(iter(listed.values())).parent, [masks[stem].name for stem in others]
        return kept, [f"{folder}: {len(others)} masks have no image of the same stem: {some(names)}"]
    return kept | {stem: masks[stem] for stem in others}, []


def _same_place(mask, image):
    """Return whether two volumes lie in the same place. Many programs write masks without a place."""
    if mask is None or image is None or len(mask.spacing) != len(image.spacing):
        return True
    if mask == NO_PLACE:
        return image.direction[-1] > 0  # else the slices would be in the other order
    both = zip(astuple(mask), astuple(image), strict=True)
    return all(np.allclose(one, other, rtol=1e-3, atol=1e-3) for one, other in both)


def _refuse_other_numbers(masks, sources):
    """Raise InputError for a mask of a frame that a clip does not have: its masks may be numbered from 1."""
    for stem, mask in masks.items():
        clip, number = clip_and_number(stem)
        source = None if mask.is_numbered else sources.get(clip)
        if source is not None and number >= source.declared:
            raise InputError(
                f"{mask.path}: {source.path.name} has {source.declared} frames, which are numbered from 0, so there is "
                f"no frame {number}; rename the masks"
            )


def clip_and_number(stem):
    """Return the stem of the clip and the number in the name of a frame, (stem, -1) for other names."""
    clip, _, number = stem.rpartition("_")
    return (clip, int(number)) if len(number) == DIGITS and number.isdecimal() else (stem, -1)


def _annotated(images, masks):
    """Return the images without the frames that lack a mask in clips of which some frames have one, and notes."""
    frames = Counter(image.path for image in images.values() if image.is_numbered)
    annotated = Counter(image.path for stem, image in images.items() if image.is_numbered and stem in masks)
    some_of = {path for path, count in annotated.items() if count < frames[path]}
    left = {stem: image for stem, image in images.items() if image.path not in some_of or stem in masks}
    return left, [
        f"{path}: {annotated[path]} of {frames[path]} frames have a mask, and only these are scored" for path in some_of
    ]


def _refuse_twins(pairs):
    seen = {}
    for pair in pairs:
        twin = seen.setdefault(pair.stem.casefold(), pair.image)
        if twin is not pair.image:
            raise InputError(f"{pair.image} and {twin} have the same stem, so the same output name; rename one")


def notes_on_images(images, names_remain=True):
    """Return notes on the scale of files, on pixels outside the tissue, and on names that hold header values.

    names_remain: outputs are named after the files.
    """
    sequences = {image.path: image.sequence for image in images if image.sequence}
    telling = {path: held for path, sequence in sequences.items() if (held := sequence.identifying)}
    more = [path.name for path, sequence in sequences.items() if sequence.region is None and sequence.shows_more]
    notes = [warning for sequence in sequences.values() for warning in sequence.scale_warnings]
    if more:
        notes.append(
            f"{len(more)} files hold pixels outside the tissue region ({some(more)}): text there may name the patient, "
            "and pictures that are written show it; --region leaves it out"
        )
    if not (telling and names_remain):
        return notes
    keywords = sorted({keyword for held in telling.values() for keyword in held})
    return [
        *notes,
        f"the names of {len(telling)} files or of their folders hold values of the DICOM header "
        f"({', '.join(keywords)}), and outputs are named after the files; if the outputs leave your hands, rename the "
        "files, or convert them with --rename",
    ]
