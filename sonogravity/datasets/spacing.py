"""Pixels per millimetre: that of the files, one number for all files, or a table with one row per file.

Resolution tags of PNG and TIFF files are not read, because they describe print, not tissue.
"""

import math
import statistics
from dataclasses import dataclass

from sonogravity.common import csv_tables
from sonogravity.common.messages import InputError, some
from sonogravity.datasets.file_kinds import stem_of

ASSUMED_PIXELS_PER_MM = 3.78  # 96 pixels per inch; used for the margin, with a warning, if nothing is given
DEFAULT_MARGIN_MM = 1.5
MOST_PIXELS_PER_MM = 1000
PLAUSIBLE_WIDTHS_MM = 10, 500  # of an ultrasound frame
FAR_FROM_MEDIAN = 3  # times larger or smaller
TABLE = "spacing.csv"  # beside images/
COLUMNS = (("pixels_per_mm",), ("pixels_per_mm_x", "pixels_per_mm_y"))


@dataclass(frozen=True)
class Spacing:
    """Pixels per mm of one image, horizontally (x) and vertically (y). assumed: the user gave none."""

    x: float
    y: float
    assumed: bool = False

    @property
    def unit(self):
        """Return the unit of boundary distances: mm, or px if the spacing is assumed."""
        return "px" if self.assumed else "mm"

    @property
    def pixel_size_mm(self):
        """Return the (height, width) of a pixel in mm, assumed or not."""
        return 1 / self.y, 1 / self.x

    @property
    def pixel_size(self):
        """Return the (height, width) of a pixel in ``unit``."""
        return (1.0, 1.0) if self.assumed else self.pixel_size_mm

    def tolerance(self, margin_mm=None):
        """Return the tolerance of NSD in ``unit``: the margin, or one pixel (of the coarser axis) without a margin."""
        if margin_mm is None:
            return max(self.pixel_size)
        return margin_mm * self.x if self.assumed else margin_mm


ASSUMED = Spacing(ASSUMED_PIXELS_PER_MM, ASSUMED_PIXELS_PER_MM, assumed=True)


def find_spacings(files, pixels_per_mm=None, table=None, own=None, clips=None):
    """Return {file name: Spacing} of every file: from the table, from one number, from the files, or else assumed.

    own: {file name: Spacing or None} that the files give; used only if all do, so that one unit holds for all files.
    clips: {file name: name of the clip} of frames whose line in the table may be that of the clip.
    """
    if table is not None:
        return match_table(files, read_table(table), table, clips or {}, own)
    if pixels_per_mm is not None:
        return dict.fromkeys(files, Spacing(pixels_per_mm, pixels_per_mm))
    if own and all(own.values()):
        return {file: own[file] for file in files}
    return dict.fromkeys(files, ASSUMED)


def describe(spacings):
    """Return Spacings as text: ``9.52 px per mm``, ``9.52 x 9.4 px per mm (x, y)`` or ``8.1 to 9.52 px per mm``."""
    kinds = {(each.x, each.y) for each in spacings}
    if len(kinds) == 1:
        x, y = kinds.pop()
        return f"{x:.4g} px per mm" if x == y else f"{x:.4g} x {y:.4g} px per mm (horizontally, vertically)"
    values = [value for kind in kinds for value in kind]
    return f"{min(values):.4g} to {max(values):.4g} px per mm"


def doubts(spacings, widths):
    """Return a line per kind of spacing that can hardly be meant. spacings: by file. widths: px, by file."""
    given = {file: spacing for file, spacing in spacings.items() if not spacing.assumed}
    if not given:
        return []
    low, high = PLAUSIBLE_WIDTHS_MM
    wide = {file: widths[file] / spacing.x for file, spacing in given.items()}
    odd = [f"{file} {width:.3g} mm" for file, width in wide.items() if not low <= width <= high]
    lines = [f"the spacing makes {len(odd)} of {len(wide)} images under {low} or over {high} mm wide: {some(odd)}"]
    median = statistics.median(spacing.x for spacing in given.values())
    ratios = {file: max(spacing.x / median, median / spacing.x) for file, spacing in given.items()}
    far = [f"{file} {given[file].x:g}" for file, ratio in ratios.items() if ratio > FAR_FROM_MEDIAN]
    lines.append(f"pixels per mm far from the median, {median:g}, in {len(far)} of {len(given)} images: {some(far)}")
    remedy = "check that it is in pixels per mm, not in pixels per cm or mm per pixel"
    return [f"{line}; {remedy}" for line, found in zip(lines, (odd, far), strict=True) if found]


def match_table(files, found, path, clips, own=None):
    """Return {file: Spacing}: that of its line, or else its own. Raise InputError for files with neither.

    own: {file: Spacing or None}.
    """
    matched = {file: spacing or (own or {}).get(file) for file, spacing in look_up(files, found, clips).items()}
    missing = [file for file, spacing in matched.items() if spacing is None]
    if missing:
        raise InputError(f"{path}: no line for {len(missing)} of {len(files)} files: {some(missing)}; add them")
    return matched


def look_up(files, found, clips):
    """Return {file: Spacing or None} of a table, by file name or else by stem, of the file or else of its clip."""
    stems = {}
    for name, spacing in found.items():
        if stems.setdefault(stem_of(name), spacing) != spacing:
            stems[stem_of(name)] = None  # lines of one stem differ, so only the full name counts

    def of(name):
        return found.get(name) or stems.get(stem_of(name))

    return {file: of(file) or (of(clips[file]) if file in clips else None) for file in files}


def read_table(path):
    """Return {file: Spacing} of a CSV of file, pixels_per_mm (or file, pixels_per_mm_x, pixels_per_mm_y).

    Semicolons with decimal commas are also read, because spreadsheets in many countries write them.
    """
    rows, columns, delimiter = csv_tables.read_table(path, "--spacing", COLUMNS)
    found = {}
    for where, row in rows:
        values = [_positive(row[column], delimiter, where) for column in columns]
        spacing, name = Spacing(values[0], values[-1]), row["file"]
        if found.setdefault(name, spacing) != spacing:
            raise InputError(f"{where}: {name} is in the table twice, with different numbers; keep one line")
    return found


def _positive(text, delimiter, where):
    try:
        value = float(text.replace(",", ".") if delimiter != "," else text)
    except ValueError:
        value = math.nan
    if not 0 < value <= MOST_PIXELS_PER_MM:  # this form also refuses NaN
        raise InputError(
            f"{where}: '{text}' is not a number of pixels per mm; give a number above 0 and up to {MOST_PIXELS_PER_MM}"
        )
    return value
