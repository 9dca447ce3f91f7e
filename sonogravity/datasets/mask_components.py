"""Connected components of masks, and labels that can hardly be right.

Annotation leaves marks that no one notices among many frames: a stroke of a fill tool that stays at its place while the
frames move on, specks far from the structure, labels on the scanner's screen beside the image.
"""

import hashlib
import zlib
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from sonogravity.common.messages import some
from sonogravity.common.workers import ahead
from sonogravity.datasets.labels import values_in
from sonogravity.datasets.still_areas import STILL_FRAMES, STILL_RANGE

REPEATED = 4  # masks with one component at one place, from which it is more likely a slip than a copied mask
FEWEST_PIXELS = 9  # of a repeated component, or of one on a still area: smaller ones may be chance
SPECK_SHARE = 0.01  # of the class's median area per mask
SPECK_DISTANCE = 0.02  # of the image's diagonal, from the nearest other pixel of the class
STILL_SHARE = 0.5  # of a component's pixels
OUTLIER = 6.0  # standard deviations, estimated as 1.4826 median absolute deviations
LEAST_SPREAD = 0.2, 0.03, 0.03  # of the logarithm of the area; of row and column, as shares of height and width
FEWEST_MASKS = 12  # that hold a class, for one to be an outlier
MOST_PER_MASK = 20  # suspects of a kind: a mask with more is noisy throughout


@dataclass(frozen=True)
class PackedMask:
    """A mask in little memory."""

    content: bytes
    dtype: str
    size: tuple[int, int]

    @classmethod
    def of(cls, mask):
        """Pack (H, W) mask values."""
        return cls(zlib.compress(np.ascontiguousarray(mask), 1), mask.dtype.str, mask.shape)

    def unpack(self):
        """Return the (H, W) mask values."""
        return np.frombuffer(zlib.decompress(self.content), self.dtype).reshape(self.size)


@dataclass(frozen=True)
class Component:
    """A connected component (8 neighbours) of one class in one file.

    box: its rows and columns. centre: mean row and column. digest: of its pixels and their place.
    """

    index: int  # of the file
    c: int  # its class
    area: int
    box: tuple[slice, slice]
    centre: tuple[float, float]
    digest: bytes


@dataclass(frozen=True)
class Suspect:
    """A label that can hardly be right. index: of the file. kind: as in KINDS. c: its class. note: in words."""

    kind: str
    index: int
    c: int
    area: int
    box: tuple[slice, slice]
    note: str


# Of each kind: how a warning names it, and its definition.
KINDS = {
    "repeated": (
        "the same component stands at the same place in many masks",
        f"a component of at least {FEWEST_PIXELS} pixels that stands, pixel for pixel, in {REPEATED} masks or more, "
        "which are not equal as a whole",
    ),
    "still": (
        "labels lie where the image never changes, so outside the sector",
        f"a component of which more than {STILL_SHARE:.0%} lies on pixels that change by at most {STILL_RANGE} grey "
        f"levels over all frames of its subject ({STILL_FRAMES} at least)",
    ),
    "speck": (
        "specks lie far from the rest of their class",
        f"a component under {SPECK_SHARE:.0%} of the class's median area per mask, and farther than "
        f"{SPECK_DISTANCE:.0%} of the image's diagonal from the rest of its class, or all that the mask holds of it; "
        "one at the image's border may be a structure that is cut, and is not listed",
    ),
    "size": (
        "a class is far larger or smaller than in all other masks",
        f"the logarithm of the class's area is more than {OUTLIER:g} standard deviations (1.4826 median absolute "
        f"deviations) from the median of the masks that hold it ({FEWEST_MASKS} at least)",
    ),
    "place": (
        "a class lies far from its place in all other masks",
        "the row or the column of the class's centre is as far from the median",
    ),
}


def components_of(index, classes, background):
    """All components of (H, W) class indices but those of the background. index: of the file."""
    boxes = ndimage.find_objects((classes != background).astype(np.uint8))
    if not boxes:
        return []
    inside, found = boxes[0], []
    area = classes[inside]
    for c in values_in(area):
        if c == background:
            continue
        numbered, _ = ndimage.label(area == c, np.ones((3, 3)))
        for number, box in enumerate(ndimage.find_objects(numbered), 1):
            own = numbered[box] == number
            box = tuple(
                slice(part.start + whole.start, part.stop + whole.start)
                for part, whole in zip(box, inside, strict=True)
            )
            rows, columns = np.nonzero(own)
            centre = rows.mean() + box[0].start, columns.mean() + box[1].start
            place = f"{c} {box[0].start} {box[1].start} {own.shape}".encode()
            digest = hashlib.blake2b(place + np.packbits(own).tobytes(), digest_size=16).digest()
            found.append(Component(index, c, len(rows), box, centre, digest))
    return found


@dataclass(frozen=True)
class Review:
    """What find_suspects found. copies: groups of files with equal masks; shared: components in two or three masks."""

    suspects: list[Suspect]
    copies: list[list[int]]
    shared: int


def find_suspects(masks, labels, subjects, still, workers):
    """Look for labels that can hardly be right; return the Review.

    masks: PackedMasks, one per file. subjects: of each file. still: StillAreas. workers: number of threads.
    """

    def read(index):
        return components_of(index, labels.shown(masks[index].unpack()), labels.background)

    components = list(ahead(read, range(len(masks)), workers))
    copies = _groups((masks[i].content, i) for i, own in enumerate(components) if own)
    copied = [set(group) for group in copies]
    suspects, shared = [], 0
    alike = defaultdict(list)
    for own in components:
        for component in own:
            alike[component.digest].append(component)
    for group in alike.values():
        files = {component.index for component in group}
        shared += 1 < len(files) < REPEATED
        if len(files) >= REPEATED and group[0].area >= FEWEST_PIXELS and not any(files <= each for each in copied):
            suspects += [_suspect("repeated", each, f"in {len(files)} masks") for each in group]
    suspects += _on_still_areas(components, masks, labels, subjects, still)
    suspects += _specks(components, masks, labels)
    suspects += _outliers(components, masks)
    return Review(_at_most(suspects), copies, shared)


def _at_most(suspects):
    """The suspects, at most MOST_PER_MASK of a kind in a mask, the largest."""
    found = defaultdict(list)
    for suspect in suspects:
        found[suspect.kind, suspect.index].append(suspect)
    return [each for own in found.values() for each in sorted(own, key=lambda own: -own.area)[:MOST_PER_MASK]]


def _suspect(kind, component, note):
    return Suspect(kind, component.index, component.c, component.area, component.box, note)


def _groups(keyed):
    """(key, item) pairs -> lists of two or more items of one key."""
    found = defaultdict(list)
    for key, item in keyed:
        found[key].append(item)
    return [items for items in found.values() if len(items) > 1]


def _on_still_areas(components, masks, labels, subjects, still):
    for own, mask, subject in zip(components, masks, subjects, strict=True):
        area = still.of(subject, mask.size) if own else None
        if area is None:
            continue
        classes = labels.shown(mask.unpack())
        for each in own:
            outside = int(((classes[each.box] == each.c) & area[each.box]).sum())
            if each.area >= FEWEST_PIXELS and outside > STILL_SHARE * each.area:
                yield _suspect("still", each, f"{outside} of {each.area} pixels do not change over the frames")


def _specks(components, masks, labels):
    areas = defaultdict(list)
    for own in components:
        for c in {each.c for each in own}:
            areas[c].append(sum(each.area for each in own if each.c == c))
    limits = {c: SPECK_SHARE * float(np.median(found)) for c, found in areas.items()}
    for own, mask in zip(components, masks, strict=True):
        small = defaultdict(list)
        for each in own:
            if each.area < limits[each.c] and not _at_border(each.box, mask.size):
                small[each.c].append(each)
        classes = labels.shown(mask.unpack()) if small else None
        for c, specks in small.items():
            rest = classes == c
            for each in specks:
                rest[each.box] = False
            places = np.argwhere(rest)
            tree = cKDTree(places) if len(places) else None
            for each in sorted(specks, key=lambda each: -each.area)[:MOST_PER_MASK]:
                pixels = np.argwhere(classes[each.box] == c) + np.array([part.start for part in each.box])
                distance = np.inf if tree is None else float(tree.query(pixels)[0].min())
                if distance > SPECK_DISTANCE * np.hypot(*mask.size):
                    note = f"{distance:.0f} px from the rest of its class"
                    yield _suspect("speck", each, note if len(places) else "all that the mask holds of the class")


def _at_border(box, size):
    """Whether a component touches the image's border, which may cut a structure down to a speck."""
    return any(part.start == 0 or part.stop == whole for part, whole in zip(box, size, strict=True))


def _outliers(components, masks):
    """Classes whose area or place in one mask is far from all others."""
    found = defaultdict(list)
    for index, (own, mask) in enumerate(zip(components, masks, strict=True)):
        for c in sorted({each.c for each in own}):
            of_class = [each for each in own if each.c == c]
            areas = np.array([each.area for each in of_class])
            centre = np.average([each.centre for each in of_class], axis=0, weights=areas) / mask.size
            box = tuple(
                slice(min(each.box[axis].start for each in of_class), max(each.box[axis].stop for each in of_class))
                for axis in (0, 1)
            )
            features = np.log(areas.sum() / (mask.size[0] * mask.size[1])), *centre
            found[c].append((index, int(areas.sum()), box, features))
    for c, entries in found.items():
        if len(entries) < FEWEST_MASKS:
            continue
        features = np.array([entry[3] for entry in entries])  # (masks, 3)
        middle = np.median(features, 0)
        spread = 1.4826 * np.median(np.abs(features - middle), 0)
        scores = np.abs(features - middle) / np.maximum(spread, LEAST_SPREAD)
        for (index, area, box, own), score in zip(entries, scores, strict=True):
            if score[0] > OUTLIER:
                times = float(np.exp(own[0] - middle[0]))
                yield Suspect("size", index, c, area, box, f"{times:.2g} times the median area")
            if score[1:].max() > OUTLIER:
                axis = int(score[1:].argmax())
                what = ("height", "width")[axis]
                yield Suspect(
                    "place",
                    index,
                    c,
                    area,
                    box,
                    f"centre at {own[1 + axis]:.0%} of the {what}, else {middle[1 + axis]:.0%}",
                )


def describe_review(review, stems):
    """Return what a Review tells the user: lines, and one warning per kind of suspects. stems: of the files."""
    lines, warnings = [], []
    if review.copies or review.shared:
        shown = some([" = ".join(stems[i] for i in group) for group in review.copies])
        lines.append(
            f"{'':12}masks that are equal in several frames: {len(review.copies)}{f' ({shown})' if shown else ''}; "
            f"components at the same place in two or three masks: {review.shared}"
        )
    for kind, (text, _) in KINDS.items():
        own = [suspect for suspect in review.suspects if suspect.kind == kind]
        if own:
            files = dict.fromkeys(stems[suspect.index] for suspect in own)
            at = own[0]
            warnings.append(
                f"{text}: {len(own)} in {len(files)} masks ({some(files)}), such as {stems[at.index]}, {at.area} px "
                f"at x {at.box[1].start}, y {at.box[0].start}: {at.note}; --check lists and draws them"
            )
    return lines, warnings
