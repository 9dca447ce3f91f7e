"""The margin: the truth dilated or eroded by a distance in mm, and the choice of the best matching variant.

Boundaries in ultrasound are blurred over about a millimetre, so a truth that is moved by this distance is as correct.
The disk is Euclidean, at native size and with the spacing of each axis. Its radius is never rounded to pixels.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sonogravity.metrics import overlap
from sonogravity.metrics.boundary import SLACK, boundary_pixels, box_around, nearest_distances, surface_dice

BETTER = 1e-12  # a later variant is chosen only if its Dice is higher by more than this
SWEEP_MM = tuple(step / 4 for step in range(13))  # 0 to 3 mm


def reach(radius, spacing):
    """Return half the disk by rows: for each row offset dy from 0, the largest k with (k*s_x)^2 + (dy*s_y)^2 <= r^2.

    radius and spacing (row, column) are in one unit. r^2 may be exceeded by a relative 1e-9 (rounding).
    """
    limit = radius * radius * (1 + SLACK)
    rows = []
    while (len(rows) * spacing[0]) ** 2 <= limit:
        rest = limit - (len(rows) * spacing[0]) ** 2
        rows.append(math.floor(math.sqrt(rest) / spacing[1]))
    return rows


def _disk_dilation(mask, disk):
    """Return an (H, W) bool mask dilated by the disk of reach(). The area beyond the image adds nothing."""
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
    """Return (H, W) class indices in which background within the radius of foreground has the nearest class.

    Ties go to the lowest class. Foreground never changes. spacing: (height, width) of a pixel. radius: in its unit.
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
    """Return (H, W) class indices in which foreground within the radius of background is background.

    This is the dual of dilate, so classes do not leak into each other. The area beyond the image is unknown and erodes
    nothing.
    """
    eroded = truth.copy()
    disk = reach(radius, spacing)
    # The box has a ring around the foreground, so it contains the nearest background of each foreground pixel.
    box = box_around(truth != background, (1, 1))
    if box is not None:
        near = _disk_dilation(truth[box] == background, disk)
        np.copyto(eroded[box], truth.dtype.type(background), where=near)
    return eroded


@dataclass(frozen=True)
class Variant:
    """A variant of the truth that predictions are compared with.

    move: function of (truth, radius, spacing, background) that returns (H, W) class indices, such as dilate.
    text: definition of its Dice in worksheets. colour: of its cells and bars.
    """

    move: Callable
    text: str
    colour: str


def as_drawn(truth, radius, spacing=(1.0, 1.0), background=0):
    """Return the truth itself."""
    return truth


# In the order in which they are compared. All code that names the variants reads this table.
VARIANTS = {
    "original": Variant(as_drawn, "foreground mean Dice against the truth as drawn; equal to dice", "#bbbbbb"),
    "dilated": Variant(dilate, "foreground mean Dice against the truth dilated by margin_mm", "#56b4e9"),
    "eroded": Variant(erode, "foreground mean Dice against the truth eroded by margin_mm", "#e69f00"),
}


@dataclass(frozen=True)
class Choice:
    """The result of the margin for one file.

    used: the name of the chosen variant. maps: (H, W) class indices of each variant. dice: foreground mean Dice
    against each variant, eligible or not. confusion: (C, C) counts against the chosen variant, for all overlap metrics.
    """

    used: str
    maps: dict
    dice: dict
    confusion: np.ndarray


def choose(truth, prediction, confusion, labels, radius, spacing, ignored=None):
    """Return the Choice: compute all variants of the truth, and choose the one with the best foreground mean Dice.

    confusion: counts of the prediction against the original truth. A variant that loses a foreground class of the truth
    is not eligible. A later variant must be better by more than 1e-12.
    """
    maps = {
        name: overlap.with_background(
            variant.move(truth, radius, spacing, labels.background), ignored, labels.background
        )
        for name, variant in VARIANTS.items()
    }
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
    """Return the counts against a variant. Only the pixels that the variant changes are counted again."""
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


def sweep(truth, prediction, confusion, labels, distances, spacing, ignored=None):
    """Return the rows of the sweep of one file, one per margin of SWEEP_MM.

    A row holds margin_mm, tolerant_dice, nsd, mask_used (the variant), and tolerant_dice_up_to: the best over the
    margins up to this one, which never falls.

    distances: class_distances of the file in spacing.unit. A single margin is arbitrary; the curve shows its influence.
    """
    rows, best = [], np.nan
    for margin_mm in SWEEP_MM:
        choice = choose(truth, prediction, confusion, labels, margin_mm, spacing.pixel_size_mm, ignored)
        best = float(np.fmax(best, choice.dice[choice.used]))
        nsd = [surface_dice(*distances[c], spacing.tolerance(margin_mm)) for c in labels.foreground]
        rows.append(
            {
                "margin_mm": margin_mm,
                "tolerant_dice": choice.dice[choice.used],
                "tolerant_dice_up_to": best,
                "nsd": float(overlap.nan_mean(nsd)),
                "mask_used": choice.used,
            }
        )
    return rows
