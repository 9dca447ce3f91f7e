"""The data set that convert writes: images/, masks/ and tables. Existing files are compared, never replaced."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from sonogravity.common import files, progress
from sonogravity.common.csv_tables import read_table
from sonogravity.common.file_names import frame_name
from sonogravity.common.messages import InputError, some
from sonogravity.common.workers import ahead, decoding_threads
from sonogravity.datasets import class_tables, spacing, subjects
from sonogravity.datasets.frame_files import FrameFile, read_image
from sonogravity.datasets.image_files import EXTENSIONS, read_file
from sonogravity.datasets.labels import COLOUR, rgb_of, values_in
from sonogravity.datasets.mask_files import read_mask, write_mask
from sonogravity.datasets.pairs import LONGEST_NAME
from sonogravity.datasets.spacing import Spacing
from sonogravity.reporting.pictures import colour_of

COLUMNS = {
    subjects.TABLE: ("file", "subject"),
    spacing.TABLE: ("file", "pixels_per_mm_x", "pixels_per_mm_y"),
    class_tables.TABLE: class_tables.COLUMNS,
}
EIGHT_BIT = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".webp")  # and 16-bit grey PNG: formats that PNG can hold
ANOTHER = "give another --output, or move these files away"


@dataclass(frozen=True)
class Item:
    """One image of the data set. name: without extension. subject, spacing: None if they are not known."""

    image: FrameFile
    name: str
    subject: str | None
    spacing: Spacing | None

    @property
    def file(self):
        """Return the name of the image and of the mask."""
        return f"{self.name}.png"


@dataclass(frozen=True)
class Written:
    """Counts of what a conversion did. new, kept: images. values: mask values of the whole set, sorted.

    subjects: of the whole set. others: images in the set that are not of this conversion. without_mask: of all images.
    """

    new: int
    kept: int
    values: list[int]
    subjects: list[str]
    others: list[str]
    without_mask: list[str]


class ConvertedSet:
    """A folder with images/, masks/ and tables. classes: {label: mask value} of an earlier conversion into it."""

    def __init__(self, folder):
        self.folder = folder
        self.images, self.masks = folder / "images", folder / "masks"
        self.classes = class_tables.read_classes(folder / class_tables.TABLE)

    def write(self, items, labelling, channels, rename=None):
        """Write Items, with their masks if there is a Labelling, and the table of a Rename. Return what was Written.

        What exists must be equal to what would be written, so an interrupted conversion can be resumed, and another one
        added. Raise InputError, before anything is written, if it differs.
        """
        self._check_names(items)
        if rename is not None:
            self._check_renamed(rename)
        tables = self._tables(items, labelling)
        refuse_unfit_for_png([item.image for item in items], channels)
        kept = self._compare(items, labelling, channels)
        if rename is not None:
            rename.save()
        for path, text in tables.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_whole(path, _write_text, text)
        for folder in (self.images, self.masks)[: 1 if labelling is None else 2]:
            folder.mkdir(parents=True, exist_ok=True)

        def convert(item):
            array, mask = _pixels_of(item.image, labelling, channels)
            if mask is not None and not (self.masks / item.file).exists():  # first: training notices a missing mask
                files.write_whole(self.masks / item.file, _write_mask, mask, labelling.values)
            if not (self.images / item.file).exists():
                files.write_whole(self.images / item.file, _write_png, array)
            return values_in(mask) if mask is not None else ()

        rest = [item for item in items if item.name not in kept]
        done = ahead(convert, rest, decoding_threads(None))
        found = set().union(*kept.values(), *progress.bar(done, "converting", len(rest), "frame"))
        return self._describe(items, len(rest), found)

    def _describe(self, items, new, values):
        """Return the Written of the set. values: those in the masks of Items."""
        values = values | self.values_in_masks(items)
        table = self.folder / subjects.TABLE
        rows = read_table(table, table.name, [("subject",)]).rows if table.exists() else []
        known = {row["subject"] for _, row in rows}
        masked = {path.stem for path in self.masks.iterdir()} if self.masks.is_dir() else set()
        return Written(
            new,
            len(items) - new,
            sorted(values),
            sorted(known),
            sorted(path.name for path in self._others(self.images, items)),
            sorted(path.name for path in self._others(self.images, ()) if path.stem not in masked),
        )

    def values_in_masks(self, items=()):
        """Return the mask values in the set, without those of Items, which are known."""
        paths = self._others(self.masks, items)
        return set().union(*ahead(lambda path: values_in(read_mask(path).values), paths, decoding_threads(None)))

    def _check_names(self, items):
        """Raise InputError for names that are too long, or that some file systems take for one."""
        seen = {path.name.casefold(): path for path in self._others(self.images, items)}
        for item in items:
            if len(item.file.encode()) > LONGEST_NAME:
                raise InputError(f"{item.image}: its name in the data set, {item.file}, is too long; give --rename")
            twin = seen.setdefault(item.file.casefold(), item.image)
            if twin is not item.image:
                raise InputError(f"{item.image} and {twin} would both be {item.file}; rename one, or give --rename")

    def _check_renamed(self, rename):
        """Raise InputError if the set holds images that the table of new names does not know."""
        strange = [path.name for path in self._others(self.images, ()) if not rename.knows(path.stem)]
        if strange:
            raise InputError(
                f"{self.images}: holds {len(strange)} images that {rename.table} does not list ({some(strange)}), so "
                "files of one person could get two names; put the table back, or give another --output"
            )

    def _compare(self, items, labelling, channels):
        """Return {name: mask values} of Items that exist as a whole. Raise InputError for a file that differs."""

        def equal(item):
            image, mask = self.images / item.file, self.masks / item.file
            array, drawn = _pixels_of(item.image, labelling, channels)
            if has_image := image.exists():
                _refuse_other(image, np.array(read_file(image)), array, item.image)
            if (has_mask := mask.exists()) and drawn is not None:
                _refuse_other(mask, read_mask(mask).values, drawn, item.image)
            is_whole = has_image and (has_mask or drawn is None)
            return item.name, is_whole, values_in(drawn) if drawn is not None else ()

        existing = [item for item in items if (self.images / item.file).exists() or (self.masks / item.file).exists()]
        if not existing:
            return {}
        done = progress.bar(ahead(equal, existing, decoding_threads(None)), "comparing", len(existing), "frame")
        return {name: values for name, is_whole, values in done if is_whole}

    def _others(self, folder, items):
        """Return the files in a folder of the set that are not of the Items."""
        own = {item.file for item in items}
        held = folder.iterdir() if folder.is_dir() else ()
        return [path for path in held if path.name not in own and path.suffix.lower() in EXTENSIONS]

    def _check_classes(self, items, labelling):
        """Raise InputError if the set holds masks whose values cannot be compared with those of the Labelling."""
        table = self.folder / class_tables.TABLE
        if labelling.values and not table.exists() and (others := self._others(self.masks, items)):
            raise InputError(
                f"{self.masks}: holds {len(others)} masks of another origin ({some(path.name for path in others)}), "
                f"and no {table.name} tells what their values mean; {ANOTHER}"
            )
        if not labelling.values and table.exists():
            raise InputError(f"{table}: names the values of the set, but these masks have no names; {ANOTHER}")

    def _tables(self, items, labelling):
        """Return {path: text} of the tables to write. Raise InputError if an existing table contradicts."""
        found = {}
        scales = [(item.file, repr(item.spacing.x), repr(item.spacing.y)) for item in items if item.spacing]
        known = all(item.subject for item in items)
        if known or (self.folder / subjects.TABLE).exists():
            self._check_subjects(items)
            found[subjects.TABLE] = [(item.file, item.subject) for item in items]
        if scales:
            found[spacing.TABLE] = scales
        if labelling is not None:
            self._check_classes(items, labelling)
        if labelling is not None and labelling.values:
            found[class_tables.TABLE] = [(str(value), label) for label, value in labelling.values.items() if value]
        texts = {self.folder / name: _extended(self.folder / name, COLUMNS[name], rows) for name, rows in found.items()}
        return {path: text for path, text in texts.items() if text is not None}

    def _check_subjects(self, items):
        """Raise InputError if subjects.csv would not name the subject of every image in the folder."""
        table = self.folder / subjects.TABLE
        if without := [item.file for item in items if not item.subject]:
            raise InputError(
                f"{table}: needs the subject of every image, but {len(without)} names give none ({some(without)}); "
                "--subject-regex tells how to read it"
            )
        rows = read_table(table, table.name, [("subject",)]).rows if table.exists() else []
        listed = {row["file"] for _, row in rows}
        strange = sorted(path.name for path in self._others(self.images, items) if path.name not in listed)
        if strange:
            raise InputError(
                f"{self.images}: holds {len(strange)} images that {table.name} does not list ({some(strange)}); list "
                "them there, or give another --output"
            )


def name_items(images, subjects_of, spacings, rename=None):
    """Return the Items of FrameFiles. subjects_of, spacings: one per image. rename: a Rename, or None."""
    items = []
    for image, subject, scale in zip(images, subjects_of, spacings, strict=True):
        stem = image.file_stem
        if rename is not None:
            stem, subject = rename.of(stem, subject)
        items.append(Item(image, frame_name(stem, image.number) if image.is_numbered else stem, subject, scale))
    return items


def refuse_unfit_for_png(images, channels):
    """Raise InputError for FrameFiles whose pixels PNG cannot hold. One frame of each file is decoded, if need be."""
    for image in {image.path: image for image in images}.values():
        if image.sequence is None and image.path.suffix.lower() in EIGHT_BIT:
            continue
        array = read_image(image, channels)
        if array.dtype == np.float32:
            raise InputError(f"{image}: holds floats, which PNG cannot hold; save it as uint8 or uint16")
        if array.dtype == np.uint16 and array.ndim == 3:
            raise InputError(
                f"{image}: is 16-bit in colour, which PNG images here cannot be; convert with --channels 1"
            )


def _pixels_of(image, labelling, channels):
    """Return the pixels of a FrameFile, and its mask values (None without a Labelling), of its region if it has one."""
    array = read_image(image, channels)
    mask = None if labelling is None else labelling.mask_of(image, array.shape[:2])
    region = image.sequence and image.sequence.region
    if region is None:
        return array, mask
    return region.of(array), None if mask is None else region.of(mask)


def _refuse_other(path, held, expected, image):
    if not np.array_equal(held, expected):
        raise InputError(f"{path}: exists, but holds other pixels than {image} gives; {ANOTHER}")


def _extended(path, head, rows):
    """Return the text of a table with further rows, None if it has them all. Raise InputError if it contradicts."""
    if not path.exists():
        return _csv([head, *rows])
    text = path.read_text(encoding="utf-8-sig")
    held = list(csv.reader(io.StringIO(text)))
    if not held or tuple(held[0]) != head:
        raise InputError(f"{path}: has other columns than {', '.join(head)}, so no row can be added; {ANOTHER}")
    by_key = {row[0]: tuple(row) for row in held[1:] if row}
    for row in rows:
        if by_key.get(row[0], row) != row:
            raise InputError(f"{path}: says {', '.join(by_key[row[0]])}, but here it is {', '.join(row)}; {ANOTHER}")
    new = [row for row in rows if row[0] not in by_key]
    return f"{text.rstrip()}\n{_csv(new)}" if new else None


def _csv(rows):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _write_text(path, text):
    Path(path).write_text(text, encoding="utf-8")


def _write_mask(path, mask, values):
    """Write mask values. values: {label: mask value}; masks with labels are shown in the colours of the classes."""
    if mask.max() >= COLOUR:
        mask = rgb_of(mask.ravel()).reshape(*mask.shape, 3)
    colours = {value: colour_of(k) for k, value in enumerate(sorted(value for value in values.values() if value))}
    shown = {value: colour for value, colour in colours.items() if value < 256}
    write_mask(path, mask.astype(np.uint8 if mask.max() < 256 else np.uint16), shown)


def _write_png(path, array):
    Image.fromarray(array).save(path, format="PNG")
