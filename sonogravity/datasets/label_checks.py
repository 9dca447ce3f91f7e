"""Masks that can be read, but may not mean what they say: errors and warnings."""

from itertools import combinations

import numpy as np

from sonogravity.common.messages import InputError, some
from sonogravity.datasets.facts import count_values
from sonogravity.datasets.frames import network_size, resize_mask
from sonogravity.datasets.label_discovery import never_together
from sonogravity.datasets.labels import rgb_of, value_text
from sonogravity.datasets.snapping import fills_areas, is_emptied, lost_values

KEPT_SHARE = 0.7  # of a class's area at the size that the network sees
SCALES = (0.1, 0.125, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 1.0)  # that a warning may propose
MOST_TRIED = 64  # masks on which they are tried
FEWEST_PIXELS = 9  # of a class in a mask, to be expected at the size that the network sees
USUAL_PERCENT = 90  # of the images: their bulk is what is usual
OUTLIER = 2.5  # times the usual bulk


def check_values(fact, labels):
    """Raise InputError if a mask holds unknown values, no pixel that counts, or structures that snapping would lose."""
    strays = labels.unknown(fact.counts)
    if strays:
        mask = fact.packed.unpack()
        remedy = "give these pixels the value of their class"
        if len(strays) == 1:
            remedy += f", or leave them out with --ignore {value_text(strays[0])}"
        elif not any(fills_areas(mask == value) for value in strays):
            remedy = "if these are blurred borders, use --snap-masks with --classes"
        raise InputError(
            f"{fact.pair.mask}: holds the unknown {'values' if len(strays) > 1 else 'value'} "
            f"{some(map(value_text, strays))} (the classes are {', '.join(map(value_text, labels.values))}); {remedy}"
        )
    if not labels.count_classes(fact.counts).any():
        raise InputError(f"{fact.pair.mask}: every pixel is ignored (--ignore); remove the mask and its image")
    if labels.snap and is_emptied(fact.counts, labels):
        values = [value for value in fact.counts if value != labels.values[labels.background]]
        raise InputError(
            f"{fact.pair.mask}: --snap-masks would turn all its structures (the value {some(map(value_text, values))}) "
            "into background; give each structure the same value in all masks"
        )


def background_warning(labels, totals, remedy="give --background {}"):
    """Return a warning if the background is not the value of most pixels, else None. totals: {mask value: pixels}."""
    counted = {value: totals.get(value, 0) for value in labels.values}
    background, most = labels.values[labels.background], max(counted, key=counted.get)
    if counted[most] <= counted[background]:
        return None
    total = sum(counted.values())
    return (
        f"the background is {value_text(background)} with {counted[background] / total:.1%} of all pixels, but "
        f"{value_text(most)} covers {counted[most] / total:.1%}; if that is the background, "
        + remedy.format(value_text(most))
    )


def value_warnings(facts, labels):
    """Return warnings about values that may be one structure: values of different masks, values that differ by one."""
    found = []
    apart = never_together(facts, [labels.values[c] for c in labels.foreground])
    if apart:
        shown = some([f"{value_text(one)} and {value_text(other)}" for one, other in apart])
        found.append(
            f"the values {shown} never occur in one mask; if they are one structure, give it one value in all masks"
        )
    numbered = set(range(0 if 0 in labels.values else 1, len(labels.values) + 1))  # classes are often called 0, 1, 2
    near = [
        f"{value_text(one)} and {value_text(other)}"
        for one, other in combinations(labels.values, 2)
        if np.abs(rgb_of([one]) - rgb_of([other])).max() <= 1 and not {one, other} <= numbered
    ]
    if near:
        found.append(
            f"the values {some(near)} differ by one; if they are one structure, give it one value in all masks"
        )
    return found


def snap_warnings(facts, labels):
    """Return a warning per value that fills areas, as structures do, and becomes background by --snap-masks."""
    found = {}
    for fact in facts if labels.snap else ():
        for value in lost_values(fact.packed.unpack(), fact.counts, labels):
            found.setdefault(value, []).append(fact.pair.mask.name)
    return [
        f"--snap-masks makes background of the value {value_text(value)}, which fills areas in {len(names)} masks "
        f"({some(names)}); if it is a structure, give it the value of its class"
        for value, names in found.items()
    ]


def scale_warnings(facts, labels, scale):
    """Return a warning per class that is lost at the size that the network sees, with a scale that keeps it."""
    native, seen = (
        np.array([labels.count_classes(getattr(fact, name)) for fact in facts]) for name in ("counts", "seen")
    )
    found = []
    for c in labels.foreground:
        holding = np.flatnonzero(native[:, c] >= FEWEST_PIXELS)  # a speck is no structure to keep
        lost = [i for i in holding if not seen[i, c]]
        kept = _kept(native[holding, c].sum(), seen[holding, c].sum(), scale)
        if not lost and kept >= KEPT_SHARE:
            continue
        tried = [facts[i] for i in (*lost[:MOST_TRIED], *holding[:: -(-len(holding) // MOST_TRIED)])]
        better = next((s for s in SCALES if s > scale and _keeps(tried, labels, c, s)), 1.0)
        names = [facts[i].pair.mask.name for i in lost]
        found.append(
            f"at --scale {scale:g} the network sees {labels.names[c]} in {len(holding) - len(lost)} of {len(holding)} "
            f"masks that hold it, with {kept:.0%} of its area{f' (lost: {some(names)})' if names else ''}; "
            f"--scale {better:g} keeps it"
        )
    return found


def _kept(native, seen, scale):
    """The area of a class at the size that the network sees, as a share of its area at native size."""
    return seen / (native * scale * scale) if native else 1.0


def _keeps(facts, labels, c, scale):
    """Whether a scale keeps a class in all masks, and most of its area."""
    native = [labels.count_classes(fact.counts)[c] for fact in facts]
    seen = [
        labels.count_classes(count_values(resize_mask(fact.packed.unpack(), network_size(fact.size, scale))))[c]
        for fact in facts
    ]
    return all(seen) and _kept(sum(native), sum(seen), scale) >= KEPT_SHARE


def sixteen_bit_warning(facts, image_maximum):
    """Return a warning if few images or few pixels alone set the divisor of 16-bit images, else None."""
    deep = [fact for fact in facts if fact.kind == "uint16"]
    if not deep:
        return None
    usual = float(np.percentile([fact.bulk for fact in deep], USUAL_PERCENT))
    far = [fact for fact in deep if fact.maximum > OUTLIER * usual]
    if not far:
        return None
    return (
        f"{far[0].pair.image}: holds the value {far[0].maximum:.0f}, while nearly all pixels of most images are at "
        f"most {usual:.0f} ({len(far)} such images); all images are divided by {image_maximum}, so most look "
        f"{image_maximum / max(usual, 1):.0f} times too dark to the network: repair these images"
    )
