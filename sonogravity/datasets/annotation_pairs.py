"""Match drawings of annotation files with images and frames of clips, by name, folder and number."""

import re
from collections import defaultdict
from dataclasses import dataclass, field

from sonogravity.common.file_names import frame_name
from sonogravity.common.messages import InputError, some
from sonogravity.datasets.annotations import Drawing
from sonogravity.datasets.coco_files import read_coco
from sonogravity.datasets.cvat_files import FRAME, read_cvat
from sonogravity.datasets.file_kinds import COCO, CVAT, LABELME, kind_of, stem_of
from sonogravity.datasets.inputs import clip_and_number
from sonogravity.datasets.labelme_files import read_labelme

READERS = {LABELME: read_labelme, COCO: read_coco, CVAT: read_cvat}


def read_annotations(path, kind=None):
    """Return the Annotations of a file. kind: its kind, if it is known. Raise InputError if it is damaged."""
    return READERS[kind or kind_of(path)](path)


@dataclass
class Matches:
    """drawings: {identity of a frame: Drawing}. without: Drawings that fit no image. notes: for the user."""

    drawings: dict[str, Drawing] = field(default_factory=dict)
    without: list[Drawing] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def match(drawings, images, tree_of_image=None, tree_of_source=None):
    """Return the Matches of Drawings with images, {identity: FrameFile}.

    tree_of_image: {stem of file: folder in a tree of folders, or None}; tree_of_source: the same by annotation file. A
    drawing in the folder of a patient fits no image in that of another. Raise InputError if it is not clear which image
    a drawing belongs to.
    """
    places = _Places(drawings, tree_of_image or {}, tree_of_source or {})
    index, found, claims = _Index(images.values()), Matches(), defaultdict(list)
    for drawing in drawings:
        near = [(places.nearness(drawing, image), image) for image in index.of(drawing, places)]
        if not near:
            if not index.leaves_out(drawing, places):
                found.without.append(drawing)
            continue
        near.sort(key=lambda each: each[0])
        if len(near) > 1 and near[-1][0] == near[-2][0]:
            raise InputError(
                f"{drawing.source}: {drawing} may be {near[-1][1].path} or {near[-2][1].path}; put the annotation into "
                "the folder of its image, or convert the folders one by one"
            )
        claims[near[-1][1].stem].append((*near[-1], drawing))
    for identity, claimed in claims.items():
        found.drawings[identity] = _best(claimed, found.without)
    found.notes += [*index.notes, *places.notes(found.drawings, images)]
    return found


class _Places:
    """Folders of drawings and images: whether a drawing may belong to an image, and how near it lies."""

    def __init__(self, drawings, tree_of_image, tree_of_source):
        self._tree_of_image, self._tree_of_source = tree_of_image, tree_of_source
        self._shared = {}  # annotation file -> folders that all names in it begin with, which say nothing
        for drawing in drawings:
            folders = _folders(drawing)
            shared = self._shared.setdefault(drawing.source, folders)
            self._shared[drawing.source] = shared[: _common(shared, folders)]

    def fit(self, drawing, image):
        """Return whether a Drawing may belong to an image: no folder that it names, or lies in, contradicts."""
        trees = self._tree_of_image.get(image.file_stem), self._tree_of_source.get(drawing.source)
        if None not in trees and trees[0] != trees[1]:
            return False
        own = _folders(drawing)[len(self._shared[drawing.source]) :]
        return not own or list(image.path.parent.parts[-len(own) :]) == own

    def nearness(self, drawing, image):
        """Return how well an image's place fits: folders in the name that agree, then few steps between folders."""
        agreeing = _common(reversed(image.path.parent.parts), reversed(_folders(drawing)))
        own, other = (path.absolute().parts for path in (image.path.parent, drawing.source.parent))
        return agreeing, 2 * _common(own, other) - len(own) - len(other)

    def notes(self, drawings, images):
        """Return a note per annotation file whose names are in other folders than the images."""
        other = defaultdict(list)
        for identity, drawing in drawings.items():
            image, folders = images[identity], _folders(drawing)
            if folders and drawing.also is None and folders[-1] != image.path.parent.name:
                other[drawing.source].append(f"{drawing.name} is {image.path}")
        return [
            f"{source}: {len(names)} names stand in other folders than their images: {some(names, 1)}"
            for source, names in other.items()
        ]


class _Index:
    """Images by the names that annotation files may give them."""

    def __init__(self, images):
        self._by_stem, self._clips, self._clips_of = defaultdict(dict), defaultdict(dict), defaultdict(dict)
        for image in images:
            own = stem_of(image.path.name)
            names = {image.stem, frame_name(own, image.number)} if image.is_numbered else {image.stem, own}
            for name in names:
                self._by_stem[name][image.stem] = image
            if image.is_numbered:
                self._clips[image.path][image.number] = image
                self._clips_of[own][image.path] = None
        self.notes = []

    def of(self, drawing, places):
        """Return the FrameFiles that a Drawing may belong to. Raise InputError if it has two names that disagree."""
        if drawing.number is not None and (clips := self._named(drawing, drawing.name, places)):
            return [self._clips[clip][drawing.number] for clip in clips if drawing.number in self._clips[clip]]
        found = self._called(drawing, drawing.name, places) if drawing.number is None else {}
        also = self._called(drawing, drawing.also, places)
        if found and also and found.keys().isdisjoint(also):
            raise InputError(
                f"{drawing.source}: is named like {next(iter(also.values()))}, but names {drawing.name}; rename it, or "
                "correct its imagePath"
            )
        if also and not found and drawing.number is None:
            self._note(f"{drawing.source}: names {drawing.name}, which is not there; taken by its own name")
        if found or also:
            return list((found or also).values())
        number = _number_of_frame(drawing)
        clips = self._named(drawing, None, places) if number is not None else []
        return [self._clips[clip][number] for clip in clips if number in self._clips[clip]]

    def _called(self, drawing, name, places):
        """Return {identity: FrameFile} of the images of a name that fit a Drawing."""
        found = self._by_stem.get(_parts(name)[-1], {}) if name else {}
        return {identity: image for identity, image in found.items() if places.fit(drawing, image)}

    def _named(self, drawing, name, places):
        """Return the clips of a name that fit a Drawing; without a name the only clip, if there is one."""
        if name is not None:
            clips = self._clips_of.get(_parts(name)[-1], ())
            return [clip for clip in clips if places.fit(drawing, next(iter(self._clips[clip].values())))]
        if len(self._clips) != 1:
            return []
        clip = next(iter(self._clips))
        self._note(f"{drawing.source}: names no clip, so its frames are taken to be those of {clip}, the only one")
        return [clip]

    def _note(self, text):
        if text not in self.notes:
            self.notes.append(text)

    def leaves_out(self, drawing, places):
        """Return whether a Drawing is of a frame that its clip has, but that is not converted.

        Raise InputError if the clip has no such frame, because then all numbers of the annotation may be shifted.
        """
        name, number = drawing.name, drawing.number
        if number is None:
            number = _number_of_frame(drawing)
            name, number = (None, number) if number is not None else clip_and_number(_parts(name)[-1])
        if number < 0:
            return False
        clips = [next(iter(self._clips[clip].values())).sequence for clip in self._named(drawing, name, places)]
        if clips and all(number >= clip.declared for clip in clips):
            raise InputError(
                f"{drawing.source}: {drawing} does not exist: {clips[0].path.name} has {clips[0].declared} frames, "
                "which are numbered from 0; correct the numbers or the name of the clip"
            )
        return bool(clips)


def _number_of_frame(drawing):
    """Return the number in the name that CVAT gives a frame of a video; None for other names, and for frames."""
    frame = FRAME.fullmatch(_parts(drawing.name)[-1]) if drawing.name and drawing.number is None else None
    return int(frame[1]) if frame else drawing.number if drawing.name is None else None


def _parts(name):
    """Return the folders and the stem of a name, without ``.`` and ``..``. Windows' separators are read, too."""
    *folders, last = [part for part in re.split(r"[\\/]+", name) if part not in ("", ".", "..")] or [""]
    return [*folders, stem_of(last)]


def _folders(drawing):
    return _parts(drawing.name)[:-1] if drawing.name else []


def _common(one, other):
    """Return the number of equal items at the start of two sequences."""
    count = 0
    for own, given in zip(one, other, strict=False):
        if own != given:
            break
        count += 1
    return count


def _best(claimed, without):
    """Return the Drawing that fits an image best; the others join ``without``. Raise InputError if two fit equally.

    claimed: (nearness, image, Drawing). Of equally near ones, those without shapes do not count.
    """
    nearest = max(nearness for nearness, _, _ in claimed)
    equal = [each for each in claimed if each[0] == nearest]
    drawn = [each for each in equal if each[2].shapes] or equal[:1]
    if len(drawn) > 1:
        image, one, other = drawn[0][1], drawn[0][2].source, drawn[1][2].source
        where = f"twice in {one}" if one == other else f"in {one} and in {other}"
        raise InputError(f"{image}: is drawn {where}; give one of the two")
    without += [drawing for nearness, _, drawing in claimed if nearness != nearest]
    return drawn[0][2]


def list_missing(found):
    """Return a note per annotation file on drawings that fit no image. found: Matches."""
    missing = defaultdict(list)
    for drawing in found.without:
        if drawing.shapes:
            missing[drawing.source].append(drawing)
    return [
        f"{source}: {len(drawings)} annotated images or frames are not among the images given: {some(drawings)}"
        for source, drawings in missing.items()
    ]
