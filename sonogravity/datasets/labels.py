"""Mask values <-> class indices, names and colours: the only copy.

A mask file holds *values*: grey levels (0, 128, 255, or up to 65535), or colours, written here as
``COLOUR + 0xRRGGBB`` so that they never collide with a grey level. The network speaks *class
indices*: the position of a value in the sorted list found in the training masks.
"""

from dataclasses import dataclass

import numpy as np

from sonogravity.common.messages import InputError, some

COLOUR = 1 << 24
MAX_CLASSES = 255  # indices are uint8, and 255 marks padding
IGNORE_INDEX = 255
# Okabe and Ito's colours, which people with any colour vision tell apart; the background is black.
PALETTE = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)


def value_text(value):
    """How a mask value is written for people: ``128``, or ``#ff8000`` for a colour."""
    return str(value) if value < COLOUR else f"#{value - COLOUR:06x}"


def parse_value(text):
    """The inverse of value_text; ValueError if the text is neither a number nor #rrggbb."""
    text = text.strip()
    if text.startswith("#") and len(text) == 7:
        rgb = int(text[1:], 16)
        red, green, blue = rgb >> 16, rgb >> 8 & 255, rgb & 255
        return red if red == green == blue else COLOUR + rgb  # a grey colour is a grey level
    value = int(text)
    if not 0 <= value <= 65535:
        raise ValueError(f"{value} is not between 0 and 65535")
    return value


@dataclass(frozen=True)
class Labels:
    """The classes of a model, in the order of its outputs.

    values: the mask value of each class. background: the *index* of the background class.
    names: one per class, unique; a class without a given name is called by its value.
    snap: masks are snapped to the nearest of the values as they are read.
    """

    values: tuple[int, ...]
    names: tuple[str, ...]
    background: int = 0
    snap: bool = False

    @classmethod
    def create(cls, values, background=None, class_names=None, snap=False):
        """Labels from mask values (kept in the order given) and foreground names in that order."""
        values = tuple(int(value) for value in values)
        if len(values) < 2:
            raise InputError(
                f"the masks hold {len(values)} value ({some(map(value_text, values))}); "
                "two at least are needed, background and one structure: check the mask folder"
            )
        if len(values) > MAX_CLASSES:
            raise InputError(f"the masks hold {len(values)} values; {MAX_CLASSES} classes are the most")
        if background is None:
            background = min(values)
        if background not in values:
            raise InputError(
                f"--background {value_text(background)} is none of the mask values {', '.join(map(value_text, values))}"
            )
        position = values.index(background)
        names = [value_text(value) for value in values]
        if class_names:
            foreground = [i for i in range(len(values)) if i != position]
            if len(class_names) != len(foreground):
                raise InputError(
                    f"--class-names gives {len(class_names)} names ({', '.join(class_names)}) for the "
                    f"{len(foreground)} foreground values {', '.join(names[i] for i in foreground)}"
                )
            for i, name in zip(foreground, class_names, strict=True):
                names[i] = name
        if len(set(names)) < len(names):
            raise InputError(f"--class-names must differ, and differ from the values: {', '.join(names)}")
        return cls(values, tuple(names), position, snap)

    @classmethod
    def from_dict(cls, stored):
        """Rebuild from as_dict's plain types; KeyError, TypeError or ValueError if they are damaged."""
        names = tuple(stored["names"])
        values = tuple(int(value) for value in stored["values"])
        background = int(stored["background"])
        unique = len(values) == len(set(values)) == len(names) == len(set(names))
        if not (unique and 2 <= len(values) <= MAX_CLASSES and 0 <= background < len(values)):
            raise ValueError(f"labels {stored}")
        if not all(isinstance(name, str) and name for name in names) or not all(0 <= v < 2 * COLOUR for v in values):
            raise ValueError(f"labels {stored}")
        return cls(values, names, background, bool(stored["snap"]))

    def as_dict(self):
        """Plain types, for checkpoints and settings.json."""
        return {
            "values": list(self.values),
            "names": list(self.names),
            "background": self.background,
            "snap": self.snap,
        }

    @property
    def count(self):
        """Number of classes, background included."""
        return len(self.values)

    @property
    def foreground(self):
        """Indices of all classes but the background."""
        return tuple(i for i in range(self.count) if i != self.background)

    @property
    def column_names(self):
        """What the columns of each class end in: its name, of the background always ``background``."""
        return tuple("background" if i == self.background else name for i, name in enumerate(self.names))

    def describe(self):
        """``0 -> class 0 (background), 128 -> class 1 (bone)``."""
        parts = []
        for i, (value, name) in enumerate(zip(self.values, self.names, strict=True)):
            note = "background" if i == self.background else name
            parts.append(f"{value_text(value)} -> class {i}" + (f" ({note})" if note != value_text(value) else ""))
        return ", ".join(parts)

    def unknown(self, values):
        """Those of the given mask values that belong to no class (none where masks are snapped)."""
        return [] if self.snap else sorted(set(values) - set(self.values))

    def to_classes(self, mask, where="the mask"):
        """(H, W) mask values -> (H, W) uint8 class indices; InputError names ``where`` and the strays."""
        present = np.unique(mask) if mask.dtype != np.uint8 else np.flatnonzero(np.bincount(mask.ravel()))
        strays = self.unknown(present.tolist())
        if strays:
            raise InputError(
                f"{where} holds the unknown {'values' if len(strays) > 1 else 'value'} "
                f"{some(map(value_text, strays))}; the classes are {', '.join(map(value_text, self.values))}: "
                "repair the mask, or train with --snap-masks to take the nearest class"
            )
        nearest = np.abs(components(present)[:, None] - components(np.array(self.values))[None]).sum(-1).argmin(1)
        return (
            nearest.astype(np.uint8)[np.searchsorted(present, mask)]
            if mask.dtype != np.uint8
            else _lut(present, nearest)[mask]
        )

    def to_values(self, classes):
        """(H, W) class indices -> the mask as a file holds it: uint8 or uint16 (H, W), or uint8 (H, W, 3)."""
        if max(self.values) >= COLOUR:
            return components(np.array(self.values)).astype(np.uint8)[classes]
        return np.array(self.values, np.uint8 if max(self.values) < 256 else np.uint16)[classes]

    def colours(self):
        """(C, 3) uint8: the colour of each class in panels."""
        table = np.zeros((self.count, 3), np.uint8)
        for k, i in enumerate(self.foreground):
            table[i] = PALETTE[k % len(PALETTE)]
        return table


def _lut(present, classes):
    table = np.zeros(256, np.uint8)
    table[present] = classes
    return table


def components(values):
    """(n,) mask values -> (n, 3) red, green, blue; a grey level counts as grey."""
    values = np.asarray(values, np.int64)
    grey = np.repeat(values[:, None], 3, 1)
    rgb = np.stack([values >> 16 & 255, values >> 8 & 255, values & 255], 1)
    return np.where((values >= COLOUR)[:, None], rgb, grey)
