"""Convert mask values to class indices and class names, and back. No other module does this.

A mask file holds *values*: grey levels (0, 128, 255, up to 65535) or colours. A colour is stored as
``COLOUR + 0xRRGGBB``, so it never equals a grey level. The network uses *class indices*: the positions of the values
in the sorted list of those in the training masks.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from sonogravity.common.messages import InputError, some

COLOUR = 1 << 24
MAX_CLASSES = 255  # indices are uint8, and 255 is IGNORE_INDEX
IGNORE_INDEX = 255  # the class index of ignored pixels, and of padding


def value_text(value):
    """Return a mask value as text: ``128``, or ``#ff8000`` for a colour."""
    return str(value) if value < COLOUR else f"#{value - COLOUR:06x}"


def parse_value(text):
    """Return the mask value of a text (inverse of value_text). Raise ValueError unless it is 0 to 65535 or #rrggbb."""
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
    names: one per class, unique; a class without a given name is named by its value.
    snap: when a mask is read, each pixel gets the nearest of the values.
    ignored: mask values of pixels that no loss and no score counts.
    palette: the colour (red, green, blue) of each value in palette files, {} if no training mask has a palette.
    """

    values: tuple[int, ...]
    names: tuple[str, ...]
    background: int = 0
    snap: bool = False
    ignored: tuple[int, ...] = ()
    palette: dict[int, tuple[int, int, int]] = field(default_factory=dict)

    @classmethod
    def create(cls, values, background=None, class_names=None, snap=False, ignored=(), palette=None):
        """Return the Labels of mask values, in the order given, and of foreground names in the same order.

        background: its mask value; None for black (0), or else the first value. Raise InputError if values, background
        and names do not agree.
        """
        values = tuple(int(value) for value in values)
        if len(values) < 2:
            raise InputError(
                f"the masks hold {len(values)} value ({some(map(value_text, values))}) but need at least two "
                "(background and one structure); check the mask folder"
            )
        if len(values) > MAX_CLASSES:
            raise InputError(f"the masks hold {len(values)} values; reduce them to at most {MAX_CLASSES} classes")
        if background is None:
            background = 0 if 0 in values else values[0]
        if background not in values:
            raise InputError(
                f"--background {value_text(background)}: is not a mask value; give one of "
                f"{', '.join(map(value_text, values))}"
            )
        position = values.index(background)
        names = [value_text(value) for value in values]
        if class_names:
            foreground = [i for i in range(len(values)) if i != position]
            if len(class_names) != len(foreground):
                raise InputError(
                    f"--class-names: {len(class_names)} names ({', '.join(class_names)}) for {len(foreground)} "
                    f"foreground values ({', '.join(names[i] for i in foreground)}); give one name per value"
                )
            texts = list(names)
            for i, name in zip(foreground, class_names, strict=True):
                names[i] = name
                if name in texts and name != texts[i]:
                    raise InputError(
                        f"--class-names: '{name}' is the name of the value {texts[i]}, but also another value"
                    )
        if len(set(names)) < len(names):
            raise InputError(f"--class-names: must differ from each other and from the values: {', '.join(names)}")
        return cls(values, tuple(names), position, snap, palette=palette or {}).with_ignored(ignored)

    def with_ignored(self, ignored):
        """Return the same Labels with other ignored values. Raise InputError if one of them is a class."""
        for value in ignored:
            if value in self.values:
                raise InputError(
                    f"--ignore {value_text(value)}: is the value of a class ({self.describe()}); leave it out"
                )
        return replace(self, ignored=tuple(ignored))

    @classmethod
    def from_dict(cls, stored):
        """Return the Labels that as_dict stored. Raise KeyError, TypeError or ValueError if the content is damaged."""
        names = tuple(stored["names"])
        values = tuple(int(value) for value in stored["values"])
        background = int(stored["background"])
        unique = len(values) == len(set(values)) == len(names) == len(set(names))
        if not (unique and 2 <= len(values) <= MAX_CLASSES and 0 <= background < len(values)):
            raise ValueError(f"labels {stored}")
        if not all(isinstance(name, str) and name for name in names) or not all(0 <= v < 2 * COLOUR for v in values):
            raise ValueError(f"labels {stored}")
        ignored = tuple(int(value) for value in stored.get("ignored", ()))
        palette = {int(value): tuple(map(int, colour)) for value, colour in stored.get("palette", {}).items()}
        if set(ignored) & set(values) or not all(len(colour) == 3 for colour in palette.values()):
            raise ValueError(f"labels {stored}")
        return cls(values, names, background, bool(stored["snap"]), ignored, palette)

    def as_dict(self):
        """Return the Labels as plain types, for checkpoints and settings.json."""
        return {
            "values": list(self.values),
            "names": list(self.names),
            "background": self.background,
            "snap": self.snap,
            "ignored": list(self.ignored),
            "palette": {str(value): list(colour) for value, colour in self.palette.items()},
        }

    @property
    def count(self):
        """Return the number of classes, background included."""
        return len(self.values)

    @property
    def foreground(self):
        """Return the indices of all classes except the background."""
        return tuple(i for i in range(self.count) if i != self.background)

    @property
    def column_names(self):
        """Return the ending of each class's column names: the class name, or ``background``."""
        return tuple("background" if i == self.background else name for i, name in enumerate(self.names))

    def title(self, c):
        """Return the name of class index c as text beside a number: ``class 128`` if it is only the mask value."""
        name = self.names[c]
        return f"class {name}" if name == value_text(self.values[c]) else name

    def describe(self):
        """Return the classes as text: ``0 -> class 0 (background), 128 -> class 1 (bone)``."""
        parts = []
        for i, (value, name) in enumerate(zip(self.values, self.names, strict=True)):
            note = "background" if i == self.background else name
            parts.append(f"{value_text(value)} -> class {i}" + (f" ({note})" if note != value_text(value) else ""))
        parts += [f"{value_text(value)} ignored" for value in self.ignored]
        return ", ".join(parts)

    def unknown(self, values):
        """Return the given mask values that belong to no class; an empty list if masks are snapped."""
        return [] if self.snap else sorted(set(values) - set(self.values) - set(self.ignored))

    def count_classes(self, counts):
        """Return (C,) int64, the pixels of each class, from {mask value: pixels}. Ignored values are left out."""
        counted = {value: pixels for value, pixels in counts.items() if value not in self.ignored}
        found = np.zeros(self.count, np.int64)
        np.add.at(found, self.nearest(list(counted)), list(counted.values()))
        return found

    def shown(self, mask):
        """Return the (H, W) uint8 class indices of (H, W) mask values, background where a value is ignored."""
        classes = self.to_classes(mask)
        classes[classes == IGNORE_INDEX] = self.background
        return classes

    def to_classes(self, mask, where="the mask", remedy="repair the mask"):
        """Return the (H, W) uint8 class indices of (H, W) mask values, IGNORE_INDEX where a value is ignored.

        Raise InputError for unknown values; it names ``where`` and the remedy.
        """
        present = np.array(values_in(mask), np.int64)
        strays = self.unknown(present.tolist())
        if strays:
            raise InputError(
                f"{where}: holds the unknown {'values' if len(strays) > 1 else 'value'} "
                f"{some(map(value_text, strays))} (the classes are {self.describe()}); {remedy}"
            )
        classes = self.nearest(present)
        classes[np.isin(present, self.ignored)] = IGNORE_INDEX
        return classes[np.searchsorted(present, mask)] if mask.dtype != np.uint8 else _lut(present, classes)[mask]

    def nearest(self, values):
        """Return (n,) uint8, the index of the class nearest in colour to each of (n,) mask values."""
        apart = np.abs(rgb_of(values)[:, None] - rgb_of(np.array(self.values))[None]).sum(-1)
        return apart.argmin(1).astype(np.uint8)

    def to_values(self, classes):
        """Return the mask values of (H, W) class indices: (H, W) uint8 or uint16, or (H, W, 3) uint8 for colours."""
        if max(self.values) >= COLOUR:
            return rgb_of(np.array(self.values)).astype(np.uint8)[classes]
        return np.array(self.values, np.uint8 if max(self.values) < 256 else np.uint16)[classes]


def values_in(mask):
    """Return the mask values that a mask holds, sorted."""
    present = np.unique(mask) if mask.dtype != np.uint8 else np.flatnonzero(np.bincount(mask.ravel()))
    return present.tolist()


def _lut(present, classes):
    table = np.zeros(256, np.uint8)
    table[present] = classes
    return table


def rgb_of(values):
    """Return (n, 3) red, green and blue of (n,) mask values. A grey level has three equal components."""
    values = np.asarray(values, np.int64)
    grey = np.repeat(values[:, None], 3, 1)
    rgb = np.stack([values >> 16 & 255, values >> 8 & 255, values & 255], 1)
    return np.where((values >= COLOUR)[:, None], rgb, grey)
