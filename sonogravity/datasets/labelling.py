"""The masks of images and frames, drawn by an annotation tool or stored as labels."""

from collections import defaultdict
from dataclasses import dataclass, field
from types import MappingProxyType

from sonogravity.common.messages import InputError, some
from sonogravity.common.workers import ahead, decoding_threads
from sonogravity.datasets import class_tables
from sonogravity.datasets.annotation_pairs import list_missing, match, read_annotations
from sonogravity.datasets.annotations import Annotations, Drawing, class_values
from sonogravity.datasets.frame_files import FrameFile, read_image, read_mask_file, size_of
from sonogravity.datasets.inputs import open_frames, refuse_misfits
from sonogravity.datasets.label_discovery import Palettes
from sonogravity.datasets.labels import values_in
from sonogravity.datasets.shapes import draw

NOTHING = MappingProxyType({})


@dataclass
class Labelling:
    """The labels of images, by identity: drawings, or masks in files. values: {label: mask value} of named labels.

    Several threads may call ``mask_of``. lost: (Drawing, label, reason) of shapes without a pixel in the masks so far.
    """

    drawings: dict[str, Drawing]
    masks: dict[str, FrameFile]
    values: dict[str, int]
    lost: list[tuple[Drawing, str, str]] = field(default_factory=list)
    _palettes: Palettes = field(default_factory=lambda: Palettes({}))

    def __contains__(self, identity):
        return identity in self.drawings or identity in self.masks

    def mask_of(self, image, size):
        """Return the (H, W) mask values of an image of (H, W)."""
        if image.stem in self.masks:
            return self._stored(self.masks[image.stem])
        drawing = self.drawings[image.stem]
        areas = [shape.area for shape in drawing.shapes]
        mask, lost = draw(areas, [self.values[shape.label] for shape in drawing.shapes], size)
        self.lost += [(drawing, drawing.shapes[place].label, why) for place, why in lost.items()]
        return mask

    def refuse_other_sizes(self, images):
        """Raise InputError if an image is larger or smaller than its mask, or than what was annotated."""

        def sizes(image):
            if image.stem in self.masks:
                mask = self.masks[image.stem]
                return image, size_of(image), size_of(mask), f"{mask}: the mask"
            drawing = self.drawings[image.stem]
            own = size_of(image)
            return image, own, drawing.size or own, f"{drawing.source}: {drawing}, as it was annotated,"

        for image, own, other, what in ahead(sizes, images, decoding_threads(None)):
            if own != other:
                read_image(image, 1)  # says first why the image itself cannot be used
                raise InputError(
                    f"{what} is {other[1]}x{other[0]}, but {image} is {own[1]}x{own[0]} (width x height); give the "
                    "image that was annotated"
                )

    def _stored(self, file):
        if segments_of(file):
            return file.sequence.drawn(file.number, self.values)
        mask, palette = read_mask_file(file)
        if palette:
            self._palettes.add(file, palette, values_in(mask))
        return mask

    def without_labels(self):
        """Return the identities of frames on which nothing is drawn, of drawings and of stacks of masks.

        A mask in a file of its own counts as drawn, because it was saved for its image.
        """

        def is_empty(item):
            identity, mask = item
            return identity, mask.is_numbered and not self._stored(mask).any()

        empty = {identity for identity, drawing in self.drawings.items() if not drawing.shapes}
        return empty | {
            each for each, nothing in ahead(is_empty, self.masks.items(), decoding_threads(None)) if nothing
        }


def find_labelling(sources, images, names=None, known=NOTHING):
    """Return the Labelling of images, None if the sources hold neither annotations nor masks, and notes.

    sources: a Sources. images: {identity: FrameFile} of the frames to convert. names, known: as of class_values. Raise
    InputError if no label fits an image, or if labels contradict each other.
    """
    if not sources.annotations and not sources.masks:
        return None, []
    files = [read_annotations(path, kind) for path, kind in sources.annotations.items()]
    notes = [note for file in files for note in file.notes()]
    drawings = [drawing for file in files for drawing in file.drawings]
    found = match(drawings, images, sources.subjects, sources.trees)
    masks, more = open_frames(sources.masks)
    notes += [*found.notes, *list_missing(found), *more]
    refuse_misfits(images, masks)
    own = {identity: mask for identity, mask in masks.items() if identity in images}
    notes += _missing_images(masks, images)
    drawn = {key: drawing for key, drawing in found.drawings.items() if drawing.shapes or key not in own}
    if both := sorted(own.keys() & drawn.keys()):
        raise InputError(
            f"{drawn[both[0]].source} and {own[both[0]].path}: {len(both)} images have a drawing and a mask "
            f"({some(both)}); give one of the two"
        )
    segmented = {mask.path: mask for mask in own.values() if segments_of(mask)}
    named = [*files, *(_declared(mask) for mask in segmented.values())]
    if nameless := [mask for mask in own.values() if not segments_of(mask)]:
        named = _names_of_values(nameless, named, names)
    if not own and not found.drawings:
        raise InputError(
            f"{_first_path(sources)}: nothing in it fits one of {len(images)} images ({some(images)}); the names, "
            "without extension, must be equal"
        )
    has_names = any(file.values for file in named)
    return Labelling(drawn, own, class_values(named, names, known) if has_names else {}), notes


def _names_of_values(masks, named, names):
    """Return the Annotations with the names of the values of masks, which only tables beside images/ can give.

    named: Annotations that have names. names: of --class-names. Raise InputError if it is not clear which name belongs
    to which value.
    """
    if others := [file for file in named if file.values]:
        raise InputError(
            f"{masks[0].path}: holds values without names, but {others[0].source} holds names, so it is not clear "
            "which belong together; convert them separately"
        )
    if names:
        raise InputError(
            f"--class-names: {masks[0].path} holds values without names; give the names to train.py instead"
        )
    tables = {mask.path.parent: mask.path.parent.parent / class_tables.TABLE for mask in masks}
    found = {folder: class_tables.read_classes(table) for folder, table in tables.items()}
    if any(found.values()) and len({tuple(sorted(values.items())) for values in found.values()}) > 1:
        one, other = (next(tables[folder] for folder in found if found[folder] == each) for each in _two(found))
        raise InputError(
            f"{one} and {other}: their masks do not have the same names and values; convert both from their "
            "annotations with one --class-names, or write the same table beside both"
        )
    return [Annotations(tables[folder], values=values, declares_order=True) for folder, values in found.items()]


def _two(found):
    """Return two values of a dictionary that differ."""
    first = next(iter(found.values()))
    return first, next(each for each in found.values() if each != first)


def segments_of(mask):
    """Return the segments of a mask file of 3D Slicer, () for other masks."""
    return mask.sequence.segments if mask.sequence else ()


def _declared(mask):
    """Return the Annotations with the names, and with the values if they are unique, of the segments of a file."""
    segments = mask.sequence.segments
    values = {segment.name: segment.value for segment in segments}
    unique = len(set(values.values())) == len(values)
    return Annotations(mask.path, values=values if unique else dict.fromkeys(values), declares_order=True)


def _missing_images(masks, images):
    """Return notes on masks that fit no image. Masks of frames that are left out are not named."""
    clips = {image.file_stem for image in images.values() if image.is_numbered}
    missing = defaultdict(list)
    for identity, mask in masks.items():
        if identity not in images and mask.file_stem not in clips and identity.rpartition("_")[0] not in clips:
            missing[mask.path.parent].append(mask.name)
    return [
        f"{folder}: {len(names)} masks have no image of the same name: {some(names)}"
        for folder, names in missing.items()
    ]


def _first_path(sources):
    return next(iter([*sources.annotations, *sources.masks.values()]))
