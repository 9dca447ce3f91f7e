"""Shapes that annotation tools draw, filled at pixel centres.

Coordinates are (x, y) in pixels from the top left corner of the image, so the pixel (row, column) has its centre at
(column + 0.5, row + 0.5). A shape holds the pixels whose centres lie inside it. A centre on the edge belongs to the
shape on its right, or else below it, so that two shapes with a common edge neither overlap nor leave a gap.
"""

import math
from dataclasses import dataclass

import numpy as np

from sonogravity.datasets.image_files import MAX_PIXELS

NO_PIXEL, HIDDEN = "holds no pixel centre of the image", "lies below others as a whole"
FARTHEST = 1e6  # px, of a coordinate
LONGEST_SHIFT = 60  # bits of a run length
SMALLEST = 1e-6  # px, of the radius of an ellipse that is drawn


@dataclass(frozen=True)
class Polygons:
    """Polygons of one annotation, which together are the shape. parts: (n, 2) float64 corners of each."""

    parts: tuple[np.ndarray, ...]

    def fill(self, size):
        """Return the (H, W) bool pixels of the shape. size: (H, W)."""
        filled = np.zeros(size, bool)
        for part in self.parts:
            _add_polygon(filled, part)
        return filled


@dataclass(frozen=True)
class Ellipse:
    """An ellipse. centre: (x, y). radii: px along x and y before it is rotated by ``degrees``, clockwise."""

    centre: tuple[float, float]
    radii: tuple[float, float]
    degrees: float = 0.0

    def fill(self, size):
        """Return the (H, W) bool pixels of the shape. size: (H, W)."""
        if min(self.radii) < SMALLEST:
            return np.zeros(size, bool)
        x = np.arange(size[1])[None] + 0.5 - self.centre[0]
        y = np.arange(size[0])[:, None] + 0.5 - self.centre[1]
        cosine, sine = math.cos(math.radians(self.degrees)), math.sin(math.radians(self.degrees))
        along, across = (x * cosine + y * sine) / self.radii[0], (y * cosine - x * sine) / self.radii[1]
        return along * along + across * across <= 1


@dataclass(frozen=True)
class Runs:
    """A rectangle of pixels as lengths of runs, by turns outside and inside the shape.

    lengths: (n,) int64. top, left, height, width: px. by_columns: the runs go down the columns (COCO), not along the
    rows (CVAT).
    """

    lengths: np.ndarray
    top: int
    left: int
    height: int
    width: int
    by_columns: bool = False

    def fill(self, size):
        """Return the (H, W) bool pixels of the shape. size: (H, W)."""
        inside = np.repeat(np.arange(len(self.lengths)) % 2 == 1, self.lengths)
        shape = (self.width, self.height) if self.by_columns else (self.height, self.width)
        block = inside.reshape(shape)
        return _placed(block.T if self.by_columns else block, self.top, self.left, size)


def polygon(corners):
    """Return the Polygons of one (n, 2) list of corners. Raise ValueError if these are no polygon."""
    return polygons([corners])


def polygons(parts):
    """Return the Polygons of lists of corners. Raise ValueError if one has fewer than three."""
    arrays = tuple(np.asarray(part, np.float64).reshape(-1, 2) for part in parts)
    for array in arrays:
        if len(array) < 3:
            raise ValueError(f"a polygon has {len(array)} corners")
        check_numbers(array)
    return Polygons(arrays)


def ellipse(x, y, radius_x, radius_y, degrees=0.0):
    """Return the Ellipse about (x, y). Raise ValueError if one is no number."""
    check_numbers([x, y, radius_x, radius_y, degrees])
    return Ellipse((x, y), (radius_x, radius_y), degrees)


def check_numbers(values):
    """Raise ValueError for coordinates that are no numbers, or that no image can have."""
    if not (np.abs(values) <= FARTHEST).all():  # this form also refuses NaN
        raise ValueError("a coordinate is no number, or far outside the image")


def rectangle(left, top, right, bottom, degrees=0.0):
    """Return the Polygons of a rectangle, rotated clockwise about its centre."""
    x, y = (left + right) / 2, (top + bottom) / 2
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    if not degrees:
        return polygon(corners)
    return polygon([(x + (u - x) * cosine - (v - y) * sine, y + (u - x) * sine + (v - y) * cosine) for u, v in corners])


def runs(lengths, top, left, height, width, by_columns=False):
    """Return Runs. Raise ValueError if the lengths do not fill the rectangle, or if it is larger than an image."""
    lengths = np.asarray(lengths, np.int64).ravel()
    if min(height, width) < 1 or height * width > MAX_PIXELS or lengths.min() < 0 or lengths.sum() != height * width:
        raise ValueError(f"runs of {lengths.sum()} pixels for a rectangle of {width}x{height}")
    return Runs(lengths, top, left, height, width, by_columns)


def runs_of(pixels, top, left):
    """Return the Runs of an (h, w) bool array."""
    flat = pixels.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=False))  # a first run of length 0 if the first pixel is inside
    return runs(np.diff([0, *starts, flat.size]), top, left, *pixels.shape)


def lengths_of_text(text):
    """Return the run lengths of COCO's compressed text.

    Each number is written in groups of 5 bits, the lowest first, as characters from "0"; bit 6 says that a group
    follows, and bit 5 of the last group is the sign. From the fourth number on, the difference from the number two
    places before is stored (maskApi.c of the COCO API).
    """
    lengths, number, shift = [], 0, 0
    for letter in text.encode("ascii"):
        group = letter - 48
        if not 0 <= group < 64:
            raise ValueError("run lengths hold a character that cannot be one")
        if shift > LONGEST_SHIFT:
            raise ValueError("run lengths hold a number that is too large")
        number |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:
            number -= 1 << shift
        lengths.append(number + (lengths[-2] if len(lengths) > 2 else 0))
        number = shift = 0
    if shift:
        raise ValueError("run lengths end within a number")
    return lengths


def draw(shapes, values, size):
    """Return the (H, W) mask values of shapes, 0 elsewhere, and {position of a shape without a pixel: why}.

    shapes: bottom first; where they overlap, the last one counts. values: one per shape.
    """
    owner, lost = np.zeros(size, np.int32), {}
    for place, shape in enumerate(shapes):
        filled = shape.fill(size)
        if not filled.any():
            lost[place] = NO_PIXEL
        owner[filled] = place + 1
    seen = set(np.unique(owner).tolist())
    lost |= {place: HIDDEN for place in range(len(shapes)) if place + 1 not in seen and place not in lost}
    kind = np.uint8 if max(values, default=0) < 256 else np.uint16
    return np.array([0, *values], kind)[owner], lost


def _add_polygon(filled, corners):
    """Add the pixels of a polygon (even-odd rule) to an (H, W) bool array."""
    height, width = filled.shape
    after = np.roll(corners, -1, axis=0)
    turned = (corners[:, 1] > after[:, 1])[:, None]  # an edge of two polygons must cross a row at the same place
    upper, lower = np.where(turned, after, corners), np.where(turned, corners, after)
    first, end = (np.clip(np.ceil(ends[:, 1] - 0.5), 0, height).astype(np.int64) for ends in (upper, lower))
    counts = end - first
    if not counts.any():
        return
    edge = np.repeat(np.arange(len(corners)), counts)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    share = (row + 0.5 - upper[edge, 1]) / (lower[edge, 1] - upper[edge, 1])
    x = upper[edge, 0] + share * (lower[edge, 0] - upper[edge, 0])
    column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
    top, bottom = row.min(), row.max() + 1
    crossings = np.bincount((row - top) * (width + 1) + column, minlength=(bottom - top) * (width + 1))
    odd = np.logical_xor.accumulate(crossings.reshape(-1, width + 1) % 2 == 1, axis=1)
    filled[top:bottom] |= odd[:, :width]


def _placed(block, top, left, size):
    """Return an (H, W) bool array with the part of a block that lies in it."""
    filled = np.zeros(size, bool)
    first_row, first_column = max(0, top), max(0, left)
    part = block[first_row - top : max(0, size[0] - top), first_column - left : max(0, size[1] - left)]
    if part.size:
        filled[first_row : first_row + part.shape[0], first_column : first_column + part.shape[1]] = part
    return filled
