"""The classes of a data set, found in its training masks."""

import numpy as np

from sonogravity.common.messages import InputError, some
from sonogravity.datasets.labels import Labels, components, value_text

# More values than this, with no --classes, are taken for blurred borders rather than classes.
PLAUSIBLE_CLASSES = 16
SNAP_SEPARATION = 16  # grey levels between the peaks that --snap-masks snaps to


def find_labels(facts, *, classes=None, class_names=None, background=None, snap=False, known=None):
    """Labels from the training masks; known (a checkpoint's Labels) are kept as they are.

    InputError if the values don't agree with --classes, or look like blurred borders.
    """
    totals = {}
    for fact in facts:
        for value, count in fact.counts.items():
            totals[value] = totals.get(value, 0) + count
    values = sorted(totals)
    if known is not None:
        foreign = next((fact for fact in facts if known.unknown(fact.counts)), None)
        if foreign is not None:
            raise InputError(
                f"{foreign.pair.mask}: holds {some(map(value_text, known.unknown(foreign.counts)))}, none of the "
                f"checkpoint's classes ({known.describe()}); repair it, or train for other classes with --new-head"
            )
        if classes not in (None, known.count):
            raise InputError(f"--classes {classes}, but the checkpoint has {known.count} ({known.describe()})")
        if background not in (None, known.values[known.background]):
            raise InputError(f"--background {value_text(background)}, but the checkpoint has {known.describe()}")
        names = class_names or [known.names[c] for c in known.foreground]
        given = [n for n, c in zip(names, known.foreground, strict=False) if n != value_text(known.values[c])]
        return Labels.create(
            known.values, known.values[known.background], names if class_names or given else None, snap or known.snap
        )
    if snap:
        if classes is None:
            raise InputError("--snap-masks needs --classes C, the number of values that the masks should hold")
        values = _peaks(totals, classes)
        if len(values) < classes:
            raise InputError(
                f"--snap-masks --classes {classes}: the masks hold only {len(values)} values that lie "
                f"{SNAP_SEPARATION} levels apart ({', '.join(map(value_text, values))}); give that number, or mend them"
            )
    elif len(values) > (classes or PLAUSIBLE_CLASSES) or (classes and len(values) != classes):
        expected = _peaks(totals, classes) if classes else None
        worst = max(facts, key=lambda fact: len(set(fact.counts) - set(expected or ())))
        listed = (
            ", ".join(map(value_text, worst.counts))
            if len(worst.counts) <= 12
            else (some(map(value_text, worst.counts), 8))
        )
        raise InputError(
            f"{worst.pair.mask}: holds {len(worst.counts)} values ({listed}); the masks together hold "
            f"{len(values)}" + (f", --classes says {classes}" if classes else "") + ". Blurred borders (JPEG, "
            "anti-aliasing)? add --snap-masks --classes C; if the values are meant, give their number as --classes"
        )
    return Labels.create(values, background, class_names, snap)


def _peaks(totals, classes):
    """The most frequent values, taken greedily, each some levels off the others in grey or colour."""
    peaks = []
    for value in sorted(totals, key=totals.get, reverse=True):
        apart = np.abs(components(peaks) - components([value])).max(1) if peaks else np.array([SNAP_SEPARATION])
        if len(peaks) < classes and (apart >= SNAP_SEPARATION).all():
            peaks.append(value)
    return sorted(peaks)
