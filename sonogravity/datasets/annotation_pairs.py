"""Match what annotation files show to images and frames of clips, by name and number."""

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from sonogravity.common.file_names import frame_name
from sonogravity.common.messages import InputError, some
from sonogravity.datasets.annotations import Drawing
from sonogravity.datasets.coco_files import read_coco
from sonogravity.datasets.cvat_files import FRAME, read_cvat
from sonogravity.datasets.file_kinds import kind_of, stem_of
from sonogravity.datasets.inputs import clip_and_number
from sonogravity.datasets.labelme_files import read_labelme

READERS = {"LabelMe annotation": read_labelme, "COCO annotation": read_coco, "CVAT annotation": read_cvat}


def read_annotations(path):
    """Return the Annotations of a file. Raise InputError if it is damaged."""
    return READERS[kind_of(path)](path)


@dataclass
class Matches:
    """drawings: {identity of a frame: Drawing}. without: Drawings that fit no image. notes: for the user."""

    drawings: dict[str, Drawing] = field(default_factory=dict)
    without: list[Drawing] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def match(drawings, images):
    """Return the Matches of Drawings with images, {identity: FrameFile}. Raise InputError if one is ambiguous."""
    index, found, claims = _Index(images.values()), Matches(), defaultdict(list)
    for drawing in drawings:
        near = [(_nearness(drawing, image), image) for image in index.of(drawing)]
        ranked = sorted(near, key=lambda each: each[0])
        if not ranked:
            if not index.leaves_out(drawing):
                found.without.append(drawing)
            continue
        if len(ranked) > 1 and ranked[-1][0] == ranked[-2][0]:
            raise InputError(
                f"{drawing.source}: {drawing} may be {ranked[-1][1].path} or {ranked[-2][1].path}; put the annotation "
                "into the folder of its image, or convert the folders one by one"
            )
        claims[ranked[-1][1].stem].append((*ranked[-1], drawing))
    for identity, claimed in claims.items():
        found.drawings[identity] = _best(claimed, found.without)
    found.notes += _notes_on_folders(claims) + index.notes
    return found


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

    def of(self, drawing):
        """Return the FrameFiles that a Drawing may belong to. Raise InputError if it has two names that disagree."""
        if drawing.number is not None:
            return self._frames(drawing.name, drawing.number, drawing)
        found, also = (self._by_stem.get(_parts(name)[-1], {}) for name in (drawing.name, drawing.also or drawing.name))
        if found and also and found.keys().isdisjoint(also):
            raise InputError(
                f"{drawing.source}: is named like {next(iter(also.values()))}, but names {drawing.name}; rename it, or "
                "correct its imagePath"
            )
        frame = FRAME.fullmatch(Path(drawing.name).name)
        if frame and not found and not also:
            return self._frames(None, int(frame[1]), drawing)
        return list((found or also).values())

    def _frames(self, name, number, drawing):
        clips = self._named(name)
        if name is None and len(clips) == 1:
            note = f"{drawing.source}: names no clip, so its frames are taken to be those of {clips[0]}, the only one"
            self.notes = list(dict.fromkeys([*self.notes, note]))
        return [self._clips[clip][number] for clip in clips if number in self._clips[clip]]

    def _named(self, name):
        """Return the clips of a name; without a name the only clip, if there is one."""
        if name is None:
            return list(self._clips) if len(self._clips) == 1 else []
        return list(self._clips_of.get(_parts(name)[-1], ()))

    def leaves_out(self, drawing):
        """Return whether a Drawing is of a frame that its clip has, but that is not converted."""
        name, number = drawing.name, drawing.number
        if number is None:
            frame = FRAME.fullmatch(Path(name).name)
            name, number = (None, int(frame[1])) if frame else clip_and_number(_parts(name)[-1])
        sequences = [next(iter(self._clips[clip].values())).sequence for clip in self._named(name)]
        return any(0 <= number < sequence.declared for sequence in sequences)


def _parts(name):
    """Return the folders and the stem of a name, without ``.`` and ``..``. Windows' separators are read, too."""
    *folders, last = [part for part in re.split(r"[\\/]+", name) if part not in ("", ".", "..")] or [""]
    return [*folders, stem_of(last)]


def _nearness(drawing, image):
    """Return how well the place of an image fits a Drawing: folders in its name that agree, then a common path."""
    folders = _parts(drawing.name)[:-1] if drawing.name else []
    agreeing = 0
    for own, given in zip(reversed(image.path.parent.parts), reversed(folders), strict=False):
        if own != given:
            break
        agreeing += 1
    common = 0
    for own, given in zip(image.path.parent.absolute().parts, drawing.source.parent.absolute().parts, strict=False):
        if own != given:
            break
        common += 1
    return agreeing, common


def _best(claimed, without):
    """Return the Drawing that fits an image best; the others join ``without``. Raise InputError if two fit equally."""
    drawn = [each for each in claimed if each[2].shapes] or claimed
    drawn.sort(key=lambda each: each[0])
    if len(drawn) > 1 and drawn[-1][0] == drawn[-2][0]:
        image, one, other = drawn[-1][1], drawn[-1][2].source, drawn[-2][2].source
        where = f"twice in {one}" if one == other else f"in {one} and in {other}"
        raise InputError(f"{image}: is drawn {where}; give one of the two")
    without += [drawing for _, _, drawing in drawn[:-1]]
    return drawn[-1][2]


def _notes_on_folders(claims):
    """Return a note per annotation file that names other folders than those of the images."""
    other = defaultdict(list)
    for claimed in claims.values():
        for (agreeing, _), image, drawing in claimed:
            if not agreeing and drawing.name and len(_parts(drawing.name)) > 1:
                other[drawing.source].append(f"{drawing.name} is {image.path}")
    count = Counter({source: len(names) for source, names in other.items()})
    return [
        f"{source}: {count[source]} names stand in other folders than their images: {some(names, 1)}"
        for source, names in other.items()
    ]


def list_missing(found):
    """Return a note per annotation file on what fits no image. found: Matches."""
    missing = defaultdict(list)
    for drawing in found.without:
        if drawing.shapes:
            missing[drawing.source].append(drawing)
    return [
        f"{source}: {len(drawings)} annotated images or frames are not among the images given: {some(drawings)}"
        for source, drawings in missing.items()
    ]
