"""Pixels per millimetre: given by the user for all files, or by a table for each; never guessed from a file's tags.

Resolution tags of PNG and TIFF files speak of print, not of tissue, and are not read.
"""

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from sonogravity.common.messages import InputError, some

ASSUMED_PIXELS_PER_MM = 3.78  # 96 pixels an inch: what the margin takes, loudly, where nothing is given
DEFAULT_MARGIN_MM = 1.5
MOST_PIXELS_PER_MM = 1000
COLUMNS = (("pixels_per_mm",), ("pixels_per_mm_x", "pixels_per_mm_y"))


@dataclass(frozen=True)
class Spacing:
    """Pixels per mm of one image along x (columns) and y (rows). assumed: nobody gave them."""

    x: float
    y: float
    assumed: bool = False

    @property
    def unit(self):
        """The unit of boundary distances: assumed millimetres are none."""
        return "px" if self.assumed else "mm"

    @property
    def pixel_size_mm(self):
        """Size of a pixel in mm along rows and columns, assumed or not."""
        return 1 / self.y, 1 / self.x

    @property
    def pixel_size(self):
        """Size of a pixel along rows and columns, in ``unit``."""
        return (1.0, 1.0) if self.assumed else self.pixel_size_mm

    def tolerance(self, margin_mm=None):
        """The tolerance of NSD in ``unit``: the margin, else one pixel (of the coarser axis)."""
        if margin_mm is None:
            return max(self.pixel_size)
        return margin_mm * self.x if self.assumed else margin_mm


ASSUMED = Spacing(ASSUMED_PIXELS_PER_MM, ASSUMED_PIXELS_PER_MM, assumed=True)


def find_spacings(files, pixels_per_mm=None, table=None):
    """{file name: Spacing} of every file, from one number, from a table, or assumed (then all are)."""
    if table is not None:
        return match_table(files, read_table(table), table)
    given = ASSUMED if pixels_per_mm is None else Spacing(pixels_per_mm, pixels_per_mm)
    return dict.fromkeys(files, given)


def match_table(files, found, path):
    """The line of each file, by its name or else by its stem; InputError if files have none."""
    stems = {}
    for name, spacing in found.items():
        if stems.setdefault(Path(name).stem, spacing) != spacing:
            stems[Path(name).stem] = None  # two lines of one stem that differ: the full name must tell
    matched = {file: found.get(file) or stems.get(Path(file).stem) for file in files}
    missing = [file for file, spacing in matched.items() if spacing is None]
    if missing:
        raise InputError(f"{path}: no line for {len(missing)} of {len(files)} files: {some(missing)}; add them")
    return matched


def read_table(path):
    """A CSV of file, pixels_per_mm (or file, pixels_per_mm_x, pixels_per_mm_y) -> {file: Spacing}.

    Semicolons and decimal commas are read too, as spreadsheets of many countries write them.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; --spacing wants a CSV with the columns file, pixels_per_mm")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not text in UTF-8; save the table as CSV (UTF-8)") from error
    lines = text.splitlines()
    delimiter = ";" if lines and ";" in lines[0] else ","
    rows = csv.DictReader(lines, delimiter=delimiter)
    header = [name.strip() for name in rows.fieldnames or ()]
    columns = next((names for names in COLUMNS if {"file", *names} <= set(header)), None)
    if columns is None:
        raise InputError(
            f"{path}: the columns are {some(header, 6) or 'missing'}; wanted are file, pixels_per_mm or "
            "file, pixels_per_mm_x, pixels_per_mm_y"
        )
    rows.fieldnames = header
    found = {}
    for row in rows:
        name = (row["file"] or "").strip()
        where = f"{path}, line {rows.line_num}"
        values = [_positive(row[column], delimiter, where) for column in columns]
        spacing = Spacing(values[0], values[-1])
        if not name:
            raise InputError(f"{where}: has no file name; name the image or remove the line")
        if found.setdefault(name, spacing) != spacing:
            raise InputError(f"{where}: {name} stands in the table twice, with other numbers; keep one")
    return found


def _positive(text, delimiter, where):
    text = (text or "").strip()
    try:
        value = float(text.replace(",", ".") if delimiter == ";" else text)
    except ValueError:
        value = math.nan
    if not 0 < value <= MOST_PIXELS_PER_MM:  # so written, NaN is refused too
        raise InputError(
            f"{where}: '{text}' is no number of pixels per mm; it must be above 0 and up to {MOST_PIXELS_PER_MM}"
        )
    return value
