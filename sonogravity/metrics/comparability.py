"""Which scores of two runs can be compared: those of the same spacing, tolerance, ignored values and classes.

Runs of different smoothing over time are compared, with a remark.
"""

from sonogravity.common.messages import some
from sonogravity.metrics.columns import COLUMNS

AXES = ("pixels_per_mm_x", "pixels_per_mm_y")
IN_MM = tuple(name for name, column in COLUMNS.items() if column.metric and column.unit in ("mm", "mm2"))


def incomparable(names, reference, other):
    """Return {name: reason} of the metrics that two runs did not compute in the same way.

    names: the metrics that both runs have. reference, other: (table, labels) of each run. table: files.csv, indexed by
    the same files. labels: its Labels, or None if unknown.
    """
    reasons = {}
    for reason, concerns in _differences(*zip(reference, other, strict=True)):
        reasons = {name: reason for name in names if concerns(name)} | reasons
    return reasons


def differing_smoothing(seconds):
    """Return the lines, at most one, on runs that smooth the logits of clips unlike each other (--smooth).

    seconds: {run: time constant, or None without smoothing}. Their scores can be compared, but they also differ by it.
    """
    if len(set(seconds.values())) < 2:
        return []
    texts = [f"{run} {'none' if value is None else f'{value:g} s'}" for run, value in seconds.items()]
    return [f"the runs differ in smoothing over time (--smooth): {', '.join(texts)}; so a difference may be due to it"]


def _differences(tables, labels):
    """Yield (reason, function that tells whether a metric is concerned). tables, labels: of the two runs."""
    if None not in labels:
        yield from _differences_of_labels(*labels)
    margins = not _same("margin_mm", *tables)
    if margins:
        given = [
            f"{some(table['margin_mm'].dropna().unique())} mm" if "margin_mm" in table else "one pixel"
            for table in tables
        ]
        yield f"tolerance of {' and '.join(given)}", lambda name: name.startswith("nsd")
    if not all(_same(name, *tables) for name in ("pixels_per_mm", *AXES)):
        columns = {name for table in tables for name in table}
        scaled = ("nsd",) if columns & {"margin_mm", *AXES} else ()
        yield "different pixels per mm", lambda name: name.startswith((*IN_MM, *scaled))


def _differences_of_labels(one, other):
    if set(one.ignored) != set(other.ignored):
        yield "different mask values are ignored (--ignore)", lambda name: True
    values, others = ({each.names[c]: each.values[c] for c in each.foreground} for each in (one, other))
    if set(values.values()) == set(others.values()):
        for owner in [owner for owner in values if others.get(owner, values[owner]) != values[owner]]:
            reason = f"class {owner} is the mask value {values[owner]} in one run, {others[owner]} in the other"
            yield reason, lambda name, owner=owner: name.endswith(f"_{owner}")
    if set(values) != set(others):
        reason = f"different classes ({', '.join(values)} and {', '.join(others)})"
        yield reason, lambda name: name in COLUMNS or name.endswith("_background")


def _same(name, one, other):
    if name in one and name in other:
        return bool(((one[name] == other[name]) | (one[name].isna() & other[name].isna())).all())
    return name not in one and name not in other
