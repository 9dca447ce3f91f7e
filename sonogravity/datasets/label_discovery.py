"""Find the classes of a data set in its training masks."""

import numpy as np

from sonogravity.common.messages import InputError, some
from sonogravity.datasets.labels import Labels, components, value_text

# Without --classes, more values than this are taken for blurred borders, not for classes.
PLAUSIBLE_CLASSES = 16
SNAP_SEPARATION = 16  # grey levels between the peaks that --snap-masks snaps to


def find_labels(facts, *, classes=None, class_names=None, background=None, snap=False, known=None):
    """Return the Labels of the training masks. known: Labels of a checkpoint, whose values are kept.

    Raise InputError if the values do not agree with the options or with known, or look like blurred borders.
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
                f"{foreign.pair.mask}: holds {some(map(value_text, known.unknown(foreign.counts)))}, not among the "
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
            known.values, known.values[known.background], names if class_names or given else None, snap or known.snap
        )
    if snap:
        if classes is None:
            raise InputError("--snap-masks: needs --classes C; give the number of values that the masks should hold")
        values = _peaks(totals, classes)
        if len(values) < classes:
            raise InputError(
                f"--snap-masks --classes {classes}: the masks hold only {len(values)} values that lie "
                f"{SNAP_SEPARATION} levels apart ({', '.join(map(value_text, values))}); "
                "give that number as --classes, or repair the masks"
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
            f"{worst.pair.mask}: holds {len(worst.counts)} values ({listed}), all masks together hold "
            f"{len(values)}" + (f", but --classes is {classes}" if classes else "") + "; if borders are blurred (JPEG, "
            "anti-aliasing), add --snap-masks --classes C; if all values are classes, give their number as --classes"
        )
    return Labels.create(values, background, class_names, snap)


def _peaks(totals, classes):
    """Return the most frequent mask values, each at least SNAP_SEPARATION grey or colour levels from the others."""
    peaks = []
    for value in sorted(totals, key=totals.get, reverse=True):
        apart = np.abs(components(peaks) - components([value])).max(1) if peaks else np.array([SNAP_SEPARATION])
        if len(peaks) < classes and (apart >= SNAP_SEPARATION).all():
            peaks.append(value)
    return sorted(peaks)
