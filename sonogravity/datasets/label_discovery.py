"""Find the classes of a data set in its training masks."""

import threading
from collections import Counter
from dataclasses import replace
from itertools import combinations

import numpy as np

from sonogravity.common.messages import InputError, some
from sonogravity.datasets import snapping
from sonogravity.datasets.labels import Labels, value_text

# Without --classes, more values than this are taken for blurred borders, not for classes.
PLAUSIBLE_CLASSES = 16
MANY_VALUES = 32  # that a picture holds, or a mask with blurred borders
# Share of the three most frequent values. JPEG masks of 72x64 have 0.83 or more, frames with much black up to that,
# but 0.7 in the median of a set.
MASK_SHARE = 0.75
CLEARLY = 0.1  # more than the other kind of file


def find_labels(facts, *, classes=None, class_names=None, background=None, snap=False, ignored=(), known=None):
    """Return the Labels of the training masks. known: Labels of a checkpoint, whose values are kept.

    Raise InputError if the values do not agree with the options or with known, or look like blurred borders or images.
    """
    totals = Counter()
    for fact in facts:
        totals.update({value: count for value, count in fact.counts.items() if value not in ignored})
    masks = ((fact.pair.mask, fact.palette, fact.counts) for fact in facts)
    palette = common_palette(masks, known and known.palette)
    if known is not None:
        return replace(_of_checkpoint(facts, known, classes, class_names, background, snap, ignored), palette=palette)
    _refuse_pictures(facts)
    values = sorted(totals)
    if snap:
        values = _snapped(totals, classes)
    elif len(values) > (classes or PLAUSIBLE_CLASSES) or (classes and len(values) != classes):
        _refuse_values(facts, totals, classes)
    if background is None:
        background = most_likely_background(totals, values)
    return Labels.create(values, background, class_names, snap, ignored, palette)


def most_likely_background(totals, values):
    """Return black (0) if the masks hold it, else the value of most pixels. totals: {mask value: pixels}."""
    return 0 if 0 in values else max(values, key=lambda value: totals[value])


def common_palette(masks, known=None):
    """Return {value: colour} of all masks with a palette, {} without any.

    masks: (path, palette, values) of each. known: a palette that these masks must share, if any. Raise InputError if
    two masks show one value in two colours, or one colour by two values.
    """
    palettes = Palettes(known or {})
    for path, palette, values in masks:
        palettes.add(path, palette, values)
    return palettes.colours


class Palettes:
    """The palettes of masks that must show one value in one colour. known: {value: colour} to begin with."""

    def __init__(self, known):
        self.colours = dict(known)
        self._first = dict.fromkeys(known, "the training masks")  # value -> a file that shows it
        self._lock = threading.Lock()  # masks are read by several threads

    def add(self, path, palette, values):
        """Take in the palette of a mask that holds these values; InputError names two files that disagree."""
        with self._lock:
            for value in values:
                if value in palette:
                    self._compare(path, value, palette[value], values)

    def _compare(self, path, value, colour, values):
        known = self.colours.setdefault(value, colour)
        first = self._first.setdefault(value, path)
        remedy = "save all masks with one palette, or as grey levels"
        if known != colour and value:  # background may look as it likes
            raise InputError(
                f"{path}: the palette shows the value {value} as {_hex(colour)}, but that of {first} as {_hex(known)}; "
                f"{remedy}"
            )
        for other, its in self.colours.items():
            if its == colour and other not in (value, *values):
                raise InputError(
                    f"{path}: the palette shows the value {value} as {_hex(colour)}, in which {self._first[other]} "
                    f"shows {other}; {remedy}"
                )


def _hex(colour):
    return "#" + bytes(colour).hex()


def _of_checkpoint(facts, known, classes, class_names, background, snap, ignored):
    """The Labels of a checkpoint, if masks and options agree with them."""
    labels = known.with_ignored(ignored or known.ignored)
    foreign = next((fact for fact in facts if labels.unknown(fact.counts)), None)
    if foreign is not None:
        raise InputError(
            f"{foreign.pair.mask}: holds {some(map(value_text, labels.unknown(foreign.counts)))}, not among the "
            f"checkpoint's classes ({known.describe()}); repair the mask, or train other classes with --new-head"
        )
    if classes not in (None, known.count):
        raise InputError(
            f"--classes {classes}: the checkpoint has {known.count} classes ({known.describe()}); leave --classes "
            "out, or give --new-head"
        )
    if background not in (None, known.values[known.background]):
        raise InputError(
            f"--background {value_text(background)}: the checkpoint has {known.describe()}; leave --background out"
        )
    names = class_names or [known.names[c] for c in known.foreground]
    given = [n for n, c in zip(names, known.foreground, strict=False) if n != value_text(known.values[c])]
    return Labels.create(
        known.values,
        known.values[known.background],
        names if class_names or given else None,
        snap or known.snap,
        labels.ignored,
    )


def _refuse_pictures(facts):
    """Raise InputError if the masks are images: exchanged with the images, or frames saved into the wrong folder."""
    pictures = [fact for fact in facts if len(fact.counts) > MANY_VALUES]
    if 2 * len(pictures) <= len(facts):
        return
    of_masks, of_images = (
        float(np.median([getattr(fact, name) for fact in pictures])) for name in ("even", "image_even")
    )
    worst = pictures[0]
    held = f"{worst.pair.mask}: holds {len(worst.counts)} values, as pictures do"
    if of_masks < MASK_SHARE and of_images > of_masks + CLEARLY:
        raise InputError(
            f"{held}, and its image looks like a mask; images and masks look exchanged: rename the two folders"
        )
    if of_masks < MASK_SHARE:
        raise InputError(f"{held}; put the masks into that folder, with one value per class")


def _snapped(totals, classes):
    if classes is None:
        raise InputError("--snap-masks: the number of classes is missing; add --classes C")
    values = snapping.peaks(totals, classes)
    if len(values) < classes:
        raise InputError(
            f"--snap-masks --classes {classes}: the masks hold only {len(values)} values that lie "
            f"{snapping.SEPARATION} levels apart ({', '.join(map(value_text, values))}); "
            "give that number as --classes, or repair the masks"
        )
    return values


def _refuse_values(facts, totals, classes):
    """Raise InputError: the masks hold another number of values than --classes, or more than are plausible."""
    expected = snapping.peaks(totals, classes or 2)
    worst = max(facts, key=lambda fact: len(set(fact.counts) - set(expected if classes else ())))
    shown = some(map(value_text, worst.counts), 12 if len(worst.counts) <= 12 else 8)
    held = f"{worst.pair.mask}: holds {len(worst.counts)} values ({shown}), all masks together hold {len(totals)}" + (
        f", but --classes is {classes}" if classes else ""
    )
    if len(totals) < (classes or 0):
        raise InputError(f"{held}; give --classes {len(totals)}, or add masks with the missing values")
    if len(totals) <= PLAUSIBLE_CLASSES:
        apart = never_together(facts, [value for value in totals if value != most_likely_background(totals, totals)])
        if apart:
            raise InputError(
                f"{held}; {_pairs(apart)} never occur in one mask: if they are one structure, give it one value in all "
                f"masks, else give --classes {len(totals)}"
            )
    if len(expected) < 2 or _would_lose(
        facts, Labels.create(expected, most_likely_background(totals, expected), snap=True)
    ):
        raise InputError(
            f"{held}; save each class with one value, without blurred borders; if all values are classes, give "
            f"--classes {len(totals)}"
        )
    raise InputError(
        f"{held}; if borders are blurred (JPEG, anti-aliasing), add --snap-masks --classes C; if all values are "
        f"classes, give --classes {len(totals)}"
    )


def never_together(facts, values):
    """Return the pairs of values of which each is in two masks or more, but no mask holds both."""
    holding = {value: {i for i, fact in enumerate(facts) if value in fact.counts} for value in values}
    often = [value for value in sorted(holding) if len(holding[value]) > 1]
    return [(one, other) for one, other in combinations(often, 2) if not holding[one] & holding[other]]


def _pairs(pairs):
    return some([f"{value_text(one)} and {value_text(other)}" for one, other in pairs])


def _would_lose(facts, labels):
    """Whether --snap-masks would lose a structure of any mask, or take pictures for masks."""
    return any(
        snapping.is_emptied(fact.counts, labels)
        or snapping.share_between(fact.counts, labels) > snapping.MOST_BETWEEN
        or snapping.lost_values(fact.packed.unpack(), fact.counts, labels)
        for fact in facts
    )
