"""The margin: a truth moved outwards or inwards by a distance in mm, and the best-matching of the three truths.

Ultrasound's boundaries are blurred over about a millimetre, so a truth moved by that much is as true. The radius is
never rounded to pixels, work is at native size with the spacing of each axis, and the disk is Euclidean.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sonogravity.metrics import overlap
from sonogravity.metrics.boundary import SLACK, boundary_pixels, box_around, nearest_distances, surface_dice

BETTER = 1e-12  # a variant replaces the one before only by more than this
SWEEP_MM = tuple(step / 4 for step in range(13))  # 0 to 3 mm


def reach(radius, spacing):
    """Half the disk, row by row: for each row offset dy from 0 the largest k with (k*s_x)^2 + (dy*s_y)^2 <= r^2.

    radius and spacing (row, column) are in one unit; the square may exceed by 1e-9 of itself.
    """
    limit = radius * radius * (1 + SLACK)
    rows = []
    while (len(rows) * spacing[0]) ** 2 <= limit:
        rest = limit - (len(rows) * spacing[0]) ** 2
        rows.append(math.floor(math.sqrt(rest) / spacing[1]))
    return rows


def _disk_dilation(mask, disk):
    """(H, W) bool dilated by the disk of reach(); nothing comes in from beyond the image."""
    height, width = mask.shape
    grown, wide, k = np.zeros_like(mask), mask.copy(), 0
    for dy in range(len(disk) - 1, -1, -1):  # from the narrowest row to the widest
        while k < min(disk[dy], width - 1):
            k += 1
            wide[:, k:] |= mask[:, :-k]
            wide[:, :-k] |= mask[:, k:]
        if dy < height:
            grown[dy:] |= wide[: height - dy]
            grown[: height - dy] |= wide[dy:]
    return grown


def dilate(truth, radius, spacing=(1.0, 1.0), background=0):
    """(H, W) class indices -> the same with background within the radius of foreground given to the nearest class.

    Ties go to the lowest class; foreground never changes. radius: in units of spacing, which is the size of a pixel
    along rows and columns.
    """
    dilated = truth.copy()
    disk = reach(radius, spacing)
    box = box_around(truth != background, (len(disk), disk[0] + 1))
    if box is None or (len(disk) == 1 and disk[0] == 0):
        return dilated
    area, grown = truth[box], dilated[box]
    free = area == background
    present = [c for c in np.flatnonzero(np.bincount(area.ravel())) if c != background]
    claimed, contested = np.zeros_like(free), np.zeros_like(free)
    for c in present:
        claim = _disk_dilation(area == c, disk) & free
        contested |= claimed & claim
        claimed |= claim
        np.copyto(grown, truth.dtype.type(c), where=claim)
    points = np.argwhere(contested)
    if len(points):
        distances = np.stack([nearest_distances(points, boundary_pixels(area == c), spacing) for c in present])
        nearest = distances**2 <= distances.min(0) ** 2 * (1 + SLACK)
        grown[contested] = np.array(present, truth.dtype)[nearest.argmax(0)]  # the first, so the lowest
    return dilated


def erode(truth, radius, spacing=(1.0, 1.0), background=0):
    """(H, W) class indices -> the same with foreground within the radius of background made background.

    The dual of dilate, so classes don't leak into each other; beyond the image is unknown and erodes nothing.
    """
    eroded = truth.copy()
    disk = reach(radius, spacing)
    # The background nearest to a pixel of the box lies in it or in the ring around it.
    box = box_around(truth != background, (1, 1))
    if box is not None:
        near = _disk_dilation(truth[box] == background, disk)
        np.copyto(eroded[box], truth.dtype.type(background), where=near)
    return eroded


@dataclass(frozen=True)
class Variant:
    """A truth that the margin compares a prediction with.

    move: (truth, radius, spacing, background) -> (H, W) class indices, as of dilate. text: of its Dice, in worksheets.
    colour: of its cells and bars.
    """

    move: Callable
    text: str
    colour: str


def as_drawn(truth, radius, spacing=(1.0, 1.0), background=0):
    """Return the truth itself."""
    return truth


# In the order in which they are tried. Everything that names the variants reads this table.
VARIANTS = {
    "original": Variant(as_drawn, "foreground mean Dice against the truth as drawn: equals dice", "#bbbbbb"),
    "dilated": Variant(dilate, "foreground mean Dice against the truth dilated by margin_mm", "#56b4e9"),
    "eroded": Variant(erode, "foreground mean Dice against the truth eroded by margin_mm", "#e69f00"),
}


@dataclass(frozen=True)
class Choice:
    """The outcome of the margin for one file.

    used: the name of the chosen variant. maps: (H, W) class indices of each variant. dice: foreground mean Dice
    against each, eligible or not. confusion: (C, C) counts against the chosen one, for every overlap metric.
    """

    used: str
    maps: dict
    dice: dict
    confusion: np.ndarray


def choose(truth, prediction, confusion, labels, radius, spacing):
    """Make every variant of the truth, and choose the one of best foreground mean Dice.

    confusion: counts of prediction against the truth itself. A variant that loses a foreground class of the truth
    is not eligible; a later variant must be better by more than 1e-12.
    """
    maps = {name: variant.move(truth, radius, spacing, labels.background) for name, variant in VARIANTS.items()}
    confusions = {name: _moved(confusion, truth, variant, prediction) for name, variant in maps.items()}
    foreground = list(labels.foreground)
    dice = {
        name: float(overlap.nan_mean(overlap.class_metrics(counts)["dice"][foreground]))
        for name, counts in confusions.items()
    }
    used, *others = VARIANTS
    for name in others:
        kept = confusions[name].sum(1)[foreground] > 0
        had = confusion.sum(1)[foreground] > 0
        if (kept == had).all() and dice[name] > dice[used] + BETTER:
            used = name
    return Choice(used, maps, dice, confusions[used])


def _moved(confusion, truth, variant, prediction):
    """The counts against a variant: only pixels that it changes are counted again."""
    if variant is truth:
        return confusion
    changed = np.flatnonzero(variant != truth)
    before, after, predicted = truth.ravel()[changed], variant.ravel()[changed], prediction.ravel()[changed]
    count = len(confusion)
    return (
        confusion
        + overlap.confusion_matrix(after, predicted, count)
        - overlap.confusion_matrix(before, predicted, count)
    )


def sweep(truth, prediction, confusion, labels, distances, spacing):
    """One file at every margin of SWEEP_MM -> a list of {"margin_mm", "tolerant_dice", "nsd", "mask_used"}.

    distances: class_distances of the file in spacing.unit. One margin is an opinion; the curve is evidence.
    """
    rows = []
    for margin_mm in SWEEP_MM:
        choice = choose(truth, prediction, confusion, labels, margin_mm, spacing.pixel_size_mm)
        nsd = [surface_dice(*distances[c], spacing.tolerance(margin_mm)) for c in labels.foreground]
        rows.append(
            {
                "margin_mm": margin_mm,
                "tolerant_dice": choice.dice[choice.used],
                "nsd": float(overlap.nan_mean(nsd)),
                "mask_used": choice.used,
            }
        )
    return rows
