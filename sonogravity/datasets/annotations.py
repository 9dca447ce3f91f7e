"""Drawings of annotation tools, of every format alike."""

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from sonogravity.common.files import BROKEN_FILE
from sonogravity.common.messages import InputError, first_line, some
from sonogravity.datasets.pairs import UNFIT
from sonogravity.datasets.shapes import Ellipse, Polygons, Runs

MOST = 65535  # mask value
BACKGROUND = ("background", "_background_", "__background__")  # shapes of these labels remove those below


@dataclass(frozen=True)
class Shape:
    """An area with a label."""

    label: str
    area: Polygons | Ellipse | Runs


@dataclass(frozen=True)
class Drawing:
    """The shapes of one image, or of one frame of a clip, the bottom one first.

    source: the annotation file. name: of the image, or of the clip if there is a number, as the file gives it; None if
    it does not. number: of the frame in the clip, from 0. size: (H, W) that was annotated; None if it is not given.
    also: another name that the image may have, because the annotation file has it.
    """

    source: Path
    name: str | None
    number: int | None
    size: tuple[int, int] | None
    shapes: tuple[Shape, ...]
    also: str | None = None

    def __str__(self):
        what = self.name or "a clip"
        return what if self.number is None else f"{what}, frame {self.number}"


@dataclass
class Annotations:
    """The content of an annotation file. values: {label: mask value}, None if the format has only names.

    declares_order: the file lists its labels in an order that the user chose. left_out: number of shapes without an
    area, by kind.
    """

    source: Path
    drawings: list[Drawing] = field(default_factory=list)
    values: dict[str, int | None] = field(default_factory=dict)
    declares_order: bool = False
    left_out: Counter = field(default_factory=Counter)

    def notes(self):
        """Return notes on shapes that are not used."""
        if not self.left_out:
            return []
        kinds = ", ".join(f"{count} of type {kind}" for kind, count in sorted(self.left_out.items()))
        return [f"{self.source}: {self.left_out.total()} shapes have no area and are left out: {kinds}"]


@contextmanager
def shape_at(where):
    """Raise InputError, which begins with ``where``, for a shape that is damaged."""
    try:
        yield
    except BROKEN_FILE as error:
        raise InputError(
            f"{where}: cannot be drawn ({first_line(error)}); correct or remove it in the annotation tool, and export "
            "again"
        ) from error


def label_of(text, source):
    """Return a label without spaces around it. Raise InputError if it is empty, no text, or no text of one line."""
    if not isinstance(text, str) or not text.strip() or UNFIT.search(text):
        raise InputError(f"{source}: a shape has the label '{text}'; give it a name in the annotation tool")
    return text.strip()


def is_background(label):
    """Return whether shapes of a label are background, which removes the shapes below."""
    return label.casefold() in BACKGROUND


def size_of(height, width):
    """Return (H, W) as whole numbers, None if one of them is missing."""
    return (int(height), int(width)) if height and width else None


def class_values(files, names=None, known=MappingProxyType({})):
    """Return {label: mask value} of the Annotations of all files. The background is 0.

    names: of the foreground; they get the values 1, 2, ... in this order. Without names, labels keep the values that
    their files give. Labels without a value get the next free ones, in the order in which their files declare them, or
    else in alphabetical order. known: {label: value} of an earlier conversion into the same folder, which holds.
    Raise InputError if labels or values disagree.
    """
    given = [(label, value, file.source) for file in files for label, value in file.values.items()]
    found = {label: 0 for label, _, _ in given if is_background(label)}
    labels = [each for each in given if each[0] not in found]
    if names:
        if strange := [label for label, _, _ in labels if label not in names]:
            raise InputError(
                f"{labels[0][2]}: holds the labels {some(dict.fromkeys(strange))}, which --class-names does not list; "
                "list every label, or remove these shapes in the annotation tool"
            )
        chosen = {name: value for value, name in enumerate(names, 1)}
        if any(
            (chosen.get(name) == value) != (name in chosen or value in chosen.values()) for name, value in known.items()
        ):
            held = ", ".join(f"{name} {value}" for name, value in known.items())
            raise InputError(
                f"--class-names: the set holds the values {held}; give the names in this order, or another --output"
            )
        return found | known | chosen
    found |= known
    for label, value, source in labels:
        if value is not None:
            _refuse_contradiction(label, value, found, source)
            found[label] = value
    declared = {label for file in files if file.declares_order for label in file.values}
    for label in sorted({each[0]: None for each in labels}, key=lambda each: "" if each in declared else each):
        found.setdefault(label, max(found.values(), default=0) + 1)
    if max(found.values(), default=0) > MOST:
        raise InputError(f"{given[0][2]}: the mask values of its labels exceed {MOST}; give --class-names")
    return found


def _refuse_contradiction(label, value, found, source):
    """Raise InputError if a label cannot have a value. found: {label: value} of the labels before."""
    remedy = "give --class-names with all labels, which then get the values 1, 2, ... in this order"
    if not 0 < value <= MOST:
        raise InputError(f"{source}: the label {label} has the value {value}, but 1 to {MOST} are possible; {remedy}")
    others = [other for other, its in found.items() if (other == label) != (its == value)]
    if others:
        raise InputError(
            f"{source}: the label {label} has the value {value}, but {others[0]} has {found[others[0]]} elsewhere; "
            f"{remedy}"
        )
