"""--snap-masks: which values masks with blurred borders are snapped to, and when snapping would lose a structure."""

import numpy as np

from sonogravity.common.messages import InputError, some
from sonogravity.datasets.labels import rgb_of, value_text

SEPARATION = 16  # grey or colour levels between the values that masks are snapped to
SOLID_SHARE = 0.005  # of a mask's pixels, from which a value may be a structure
MOST_BETWEEN = 0.25  # share of a mask's pixels farther than SEPARATION from every class: more are no blurred borders


def peaks(totals, classes):
    """Return the most frequent values of {value: pixels}, sorted, each at least SEPARATION levels from the others."""
    found = []
    for value in sorted(totals, key=totals.get, reverse=True):
        apart = np.abs(rgb_of(found) - rgb_of([value])).max(1) if found else np.array([SEPARATION])
        if len(found) < classes and (apart >= SEPARATION).all():
            found.append(value)
    return sorted(found)


def is_emptied(counts, labels):
    """Whether a mask holds structures, but none after snapping. counts: {mask value: pixels}."""
    held = [value for value in counts if value not in labels.ignored and value != labels.values[labels.background]]
    return bool(held) and (labels.nearest(held) == labels.background).all()


def lost_values(mask, counts, labels):
    """Return the values that fill areas of a mask, as structures do, and become background by snapping."""
    total = sum(counts.values())
    strange = [value for value in counts if value not in labels.values and value not in labels.ignored]
    large = [value for value in strange if counts[value] > SOLID_SHARE * total]
    return [value for value in large if labels.nearest([value])[0] == labels.background and fills_areas(mask == value)]


def fills_areas(own):
    """Whether most pixels of an (H, W) bool map have their four neighbours in it; in a blurred border few have."""
    own = np.pad(own, 1)
    inner = own[1:-1, 1:-1] & own[:-2, 1:-1] & own[2:, 1:-1] & own[1:-1, :-2] & own[1:-1, 2:]
    return 2 * inner.sum() > own.sum()


def share_between(counts, labels):
    """Return the share of a mask's pixels whose value is SEPARATION or more from every class."""
    values = np.array([value for value in counts if value not in labels.ignored])
    if not len(values):
        return 0.0
    apart = np.abs(rgb_of(values) - rgb_of(np.array(labels.values))[labels.nearest(values)]).max(1)
    return sum(counts[value] for value in values[apart >= SEPARATION].tolist()) / sum(counts.values())


def refuse_lost_structures(path, mask, counts, labels):
    """Raise InputError if snapping a mask would lose a structure, or if it is no mask of these classes."""
    lost = lost_values(mask, counts, labels)
    if is_emptied(counts, labels) or lost:
        values = lost or [value for value in counts if value != labels.values[labels.background]]
        raise InputError(
            f"{path}: --snap-masks would turn the value {some(map(value_text, values))} into background (the classes "
            f"are {labels.describe()}); give the structures of this mask the values of their classes"
        )
    if share_between(counts, labels) > MOST_BETWEEN:
        raise InputError(
            f"{path}: most values are far from those of the classes ({labels.describe()}); give masks of these classes"
        )
