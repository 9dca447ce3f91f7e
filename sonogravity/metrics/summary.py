"""Summaries of the scores of many files: means, intervals, quartiles, and tables by group."""

import math

import numpy as np

from sonogravity.metrics.boundary import BOUNDARY
from sonogravity.metrics.measurements import TRUE, agreement
from sonogravity.metrics.overlap import OVERLAP, file_metrics, finite_mean, nan_mean

BOOTSTRAP_RESAMPLES = 2000
BOOTSTRAP_SEED = 0
FEW_SUBJECTS = 5


def bootstrap_interval(values, subjects):
    """Return (low, high), the 95 % bootstrap percentile interval of the mean of the finite values; NaN without any.

    Subjects are resampled, not frames, because frames of one subject are near copies (Efron and Tibshirani 1993).
    values: (n,). subjects: n labels; pass the file names if no subject is known.
    """
    values = np.asarray(values, float)
    known = np.isfinite(values)
    if not known.any():
        return float("nan"), float("nan")
    _, groups = np.unique(np.asarray(subjects, str)[known], return_inverse=True)
    sums = np.bincount(groups, values[known])
    counts = np.bincount(groups)
    draws = np.random.default_rng(BOOTSTRAP_SEED).integers(len(sums), size=(BOOTSTRAP_RESAMPLES, len(sums)))
    means = sums[draws].sum(1) / counts[draws].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def distribution(values):
    """Return mean, sd (ddof 1), median, quartiles and n of the finite values of one column of the sheet."""
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    nan = float("nan")
    q1, median, q3 = (float(q) for q in np.percentile(known, [25, 50, 75])) if len(known) else (nan, nan, nan)
    return {
        "mean": float(known.mean()) if len(known) else nan,
        "sd": float(known.std(ddof=1)) if len(known) > 1 else nan,
        "median": median,
        "q1": q1,
        "q3": q3,
        "n": len(known),
    }


def column_summary(values, subjects):
    """Return what ``distribution`` returns, and the bootstrap interval of the mean."""
    return distribution(values) | {"ci95": list(bootstrap_interval(values, subjects))}


def summarise(rows, labels, subjects, names=OVERLAP):
    """Return {"files", "metrics", "classes"} of the rows of file_metrics, in the form of summary.json.

    names: the metrics to summarise. ``mean`` is the mean of a column, so AVERAGE in a spreadsheet gives the same
    number. ``mean_of_classes`` is the mean over files per class first, then over classes, as nnU-Net reports it.
    Boundary metrics also count ``missed`` and ``spurious``, the classes that their means leave out.
    """

    def entry(name, owner=None):
        column = name if owner is None else f"{name}_{owner}"
        found = column_summary([row[column] for row in rows], subjects)
        if name.split("_")[0] in BOUNDARY:
            found |= {what: _count(rows, what, owner) for what in ("missed", "spurious")}
        return found

    classes = {}
    for c in (*labels.foreground, labels.background):
        owner = labels.column_names[c]
        classes[owner] = {name: entry(name, owner) for name in names if f"{name}_{owner}" in rows[0]}
    overall = {name: entry(name) for name in names}
    for name, found in overall.items():
        means = [classes[labels.names[c]][name]["mean"] for c in labels.foreground if name in classes[labels.names[c]]]
        if means:
            found["mean_of_classes"] = float(nan_mean(means))
    return {"files": len(rows), "metrics": overall, "classes": classes}


def _count(rows, what, owner=None):
    """Return the number of classes in the column ``what`` (missed or spurious), or of files that name the owner."""
    listed = [row[what].split(", ") for row in rows if row.get(what)]
    return sum(len(classes) if owner is None else owner in classes for classes in listed)


def summarise_measurements(rows, names, independent):
    """Return {"measurements", "agreement"} of the rows of files, in the form of summary.json, by column.

    rows: with their subject. names: the columns of the prediction. independent: no file has a subject. Without
    any row of a file with a mask there is no agreement.
    """
    scored = [row for row in rows if "dice" in row]
    both = [*names, *(f"{TRUE}{name}" for name in names if scored)]
    found = {name: distribution([row.get(name, math.nan) for row in rows]) for name in both}
    if not scored:
        return {"measurements": found}
    subjects = None if independent else [row["subject"] for row in scored]
    agreements = {
        name: agreement([row[name] for row in scored], [row[f"{TRUE}{name}"] for row in scored], subjects)
        for name in names
    }
    return {"measurements": found, "agreement": agreements}


def group_means(rows, by, labels, names=OVERLAP, measurements=()):
    """Return one row per value of the column ``by``: the number of its files, and the mean of each metric over them.

    ``n_<metric>``: number of files in a mean. missed, spurious: number of classes that boundary means leave out.
    measurements: columns that are averaged too; files without a mask have only those of the prediction.
    The last two rows are the mean and the standard deviation (ddof 1) over these rows, with equal weight per row, and
    ``n_<metric>``, the number of rows in them.
    """
    owners = [labels.names[c] for c in labels.foreground]
    present = set().union(*rows)
    metrics = [name for name in (*names, *(f"{name}_{owner}" for owner in owners for name in names)) if name in present]
    columns = [*metrics, *(name for name in measurements if name in present)]
    counted = [(what, owner) for owner in (None, *owners) for what in ("missed", "spurious") if what in present]
    table = []
    for value in sorted({row[by] for row in rows}):
        own = [row for row in rows if row[by] == value]
        values = {name: [row.get(name, math.nan) for row in own] for name in columns}
        means = {name: finite_mean(of_files) for name, of_files in values.items()}
        table.append(
            {by: value, "files": len(own)}
            | {name: means[name] for name in metrics}
            | {what if owner is None else f"{what}_{owner}": _count(own, what, owner) for what, owner in counted}
            | means
            | {f"n_{name}": sum(map(math.isfinite, of_files)) for name, of_files in values.items()}
        )
    over = {name: distribution([row[name] for row in table]) for name in columns}
    for what in ("mean", "sd"):
        table.append(
            {by: what, "files": len(rows)}
            | {name: over[name][what] for name in columns}
            | {f"n_{name}": over[name]["n"] for name in columns}
        )
    return table


def pooled(confusions, labels):
    """Return the overlap metrics of the summed confusion matrices, as if all files were one large image."""
    row = file_metrics(np.sum(confusions, axis=0, dtype=np.int64), labels)
    return {name: value for name, value in row.items() if name not in ("missed", "spurious")}


def best_epoch(history):
    """Return the epoch with the highest validation Dice, the first if several are equal; 0 without epochs.

    An undefined Dice ranks below all others.
    """
    return max(history, key=dice_or_lowest)["epoch"] if history else 0


def dice_or_lowest(row):
    """Return the Dice of an epoch, -1 if undefined. Best checkpoint, plateau scheduler and patience depend on it."""
    return row["dice"] if row["dice"] == row["dice"] else -1.0
