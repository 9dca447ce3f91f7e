"""Every score from one integer confusion matrix: count once, divide later.

All per file, at the image's native size. ``M[truth, prediction]`` counts pixels; TP, FP, FN and TN
are one class against the rest. There is no epsilon: a score that is undefined is NaN (Maier-Hein
et al., Metrics reloaded, Nature Methods 2024, on the empty mask; nnU-Net leaves such cases out too).
"""

import math
import re
import warnings

import numpy as np

from sonogravity.boundary import BOUNDARY, box_around

OVERLAP = ("dice", "iou", "accuracy", "precision", "sensitivity", "specificity", "fpr", "fnr")
PER_CLASS = tuple(name for name in OVERLAP if name != "accuracy")  # accuracy is one figure a file
BOOTSTRAP_RESAMPLES = 2000
BOOTSTRAP_SEED = 0
FEW_SUBJECTS = 5
# What stands before the last number, and before a word like "frame" that belongs to that number.
SUBJECT = re.compile(r"(.*?[^_\-. ])[_\-. ]+(?:(?:frame|img|image|slice)[_\-. ]*)?\d+", re.IGNORECASE)

COMMON_WORDS = ("frame", "img", "image", "im", "slice", "scan", "us", "mask", "picture", "screenshot", "file")


def confusion_matrix(truth, prediction, classes):
    """(H, W) class indices of truth and prediction -> (C, C) int64 counts, ``M[truth, prediction]``."""
    if truth.shape != prediction.shape:
        raise ValueError(f"truth is {truth.shape}, prediction {prediction.shape}: they must be of one size")
    if max(truth.max(initial=0), prediction.max(initial=0)) >= classes:
        raise ValueError(f"class indices must be under {classes}")
    # C*C - 1 must fit: uint8 holds it up to 16 classes and is four times as fast as a wider type.
    kind = np.uint8 if classes <= 16 else np.uint32
    pairs = truth.astype(kind) * kind(classes) + prediction.astype(kind)
    counted = pairs
    if pairs.ndim == 2:  # around the structures all is 0 in both, which needs no counting
        box = box_around(pairs)
        counted = pairs[:0] if box is None else pairs[box]
    counts = np.bincount(counted.ravel(), minlength=classes * classes).astype(np.int64)
    counts[0] += pairs.size - counted.size
    return counts.reshape(classes, classes)


def _ratio(part, whole):
    """part / whole, NaN where whole is 0."""
    whole = np.asarray(whole, float)
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def class_metrics(confusion):
    """(C, C) counts -> {metric: (C,) float64}: each class against the rest, NaN where undefined.

    Dice = 2TP/(2TP+FP+FN); IoU = TP/(TP+FP+FN); precision = TP/(TP+FP), 0 where the class is in the
    truth but nowhere predicted; sensitivity = TP/(TP+FN); specificity = TN/(TN+FP); FPR and FNR are
    their complements.
    """
    tp = np.diag(confusion)
    fp = confusion.sum(0) - tp
    fn = confusion.sum(1) - tp
    tn = confusion.sum() - tp - fp - fn
    precision = _ratio(tp, tp + fp)
    precision[(tp + fp == 0) & (fn > 0)] = 0.0
    sensitivity = _ratio(tp, tp + fn)
    specificity = _ratio(tn, tn + fp)
    return {
        "dice": _ratio(2 * tp, 2 * tp + fp + fn),
        "iou": _ratio(tp, tp + fp + fn),
        "precision": precision,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "fpr": 1 - specificity,
        "fnr": 1 - sensitivity,
    }


def accuracy(confusion):
    """Share of pixels whose class is right, background included."""
    return float(_ratio(np.trace(confusion), confusion.sum()))


def nan_mean(values, axis=None):
    """Mean of what is not NaN; NaN, without a warning, where nothing is left."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        return np.nanmean(np.asarray(values, float), axis=axis)


def finite_mean(values):
    """Mean of what is neither NaN nor infinite; NaN where nothing is left."""
    values = np.asarray(values, float)
    return float(nan_mean(values[np.isfinite(values)]))


def file_metrics(confusion, labels, boundary=None):
    """One file's row: each metric as the mean over foreground, then ``<metric>_<class>``.

    boundary: {column: {class: figure}} of boundary metrics, for foreground classes. Means leave out what is undefined
    and what is infinite. Background is shown in the columns of its own class and left out of every mean. ``missed``
    names the classes in the truth only, ``spurious`` those in the prediction only.
    """
    boundary = boundary or {}
    per_class = class_metrics(confusion)
    foreground = list(labels.foreground)
    row = {}
    for name in OVERLAP:
        row[name] = accuracy(confusion) if name == "accuracy" else float(nan_mean(per_class[name][foreground]))
    for name, figures in boundary.items():
        row[name] = finite_mean([figures[c] for c in foreground])
    for c in (*labels.foreground, labels.background):
        for name in PER_CLASS:
            row[f"{name}_{labels.names[c]}"] = float(per_class[name][c])
        for name, figures in boundary.items():
            if c in figures:
                row[f"{name}_{labels.names[c]}"] = figures[c]
    in_truth, in_prediction = confusion.sum(1) > 0, confusion.sum(0) > 0
    row["missed"] = ", ".join(labels.names[c] for c in labels.foreground if in_truth[c] and not in_prediction[c])
    row["spurious"] = ", ".join(labels.names[c] for c in labels.foreground if in_prediction[c] and not in_truth[c])
    return row


def bootstrap_interval(values, subjects):
    """95 % percentile interval of the mean of the finite ones of (n,) values, resampling whole subjects.

    Frames of one subject are near copies, so the subject, not the frame, is what is drawn (Efron and
    Tibshirani 1993). subjects: n labels; pass the file names where no subject is known.
    Returns (low, high), NaN where there is nothing to resample.
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


def column_summary(values, subjects):
    """One column of the sheet -> mean, sd (ddof 1), median, quartiles, n and the bootstrap interval."""
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
        "ci95": list(bootstrap_interval(values, subjects)),
    }


def summarise(rows, labels, subjects, names=OVERLAP):
    """Rows of file_metrics -> {"files", "metrics", "classes"}, the shape of summary.json.

    names: the file's metrics to summarise. ``mean`` is the mean of a column, so a spreadsheet's AVERAGE gives the
    same; ``mean_of_classes`` takes the mean over files per class first, then over classes (nnU-Net's figure).
    Boundary metrics also count ``missed`` and ``spurious``: what their means leave out.
    """

    def entry(name, owner=None):
        column = name if owner is None else f"{name}_{owner}"
        found = column_summary([row[column] for row in rows], subjects)
        if name.split("_")[0] in BOUNDARY:
            found |= {what: _count(rows, what, owner) for what in ("missed", "spurious")}
        return found

    classes = {}
    for c in (*labels.foreground, labels.background):
        owner = labels.names[c]
        classes[owner] = {name: entry(name, owner) for name in names if f"{name}_{owner}" in rows[0]}
    overall = {name: entry(name) for name in names}
    for name, found in overall.items():
        means = [classes[labels.names[c]][name]["mean"] for c in labels.foreground if name in classes[labels.names[c]]]
        if means:
            found["mean_of_classes"] = float(nan_mean(means))
    return {"files": len(rows), "metrics": overall, "classes": classes}


def _count(rows, what, owner=None):
    """How many classes the files' column ``what`` (missed or spurious) names, or how many files name the owner."""
    listed = [row[what].split(", ") for row in rows if row[what]]
    return sum(len(classes) if owner is None else owner in classes for classes in listed)


def group_means(rows, by, labels, names=OVERLAP):
    """Rows of files -> a row for each value of the column ``by``: its files, and the mean of each metric over them.

    ``n_<metric>``: the files that entered a mean; missed and spurious: what boundary means leave out. Then the mean
    and the standard deviation (ddof 1) over these rows, each of which counts alike, and how many entered them.
    """
    owners = [labels.names[c] for c in labels.foreground]
    columns = [*names, *(f"{name}_{owner}" for owner in owners for name in names)]
    columns = [name for name in columns if name in rows[0]]
    counted = [(what, owner) for owner in (None, *owners) for what in ("missed", "spurious")]
    table = []
    for value in sorted({row[by] for row in rows}):
        own = [row for row in rows if row[by] == value]
        table.append(
            {by: value, "files": len(own)}
            | {name: finite_mean([row[name] for row in own]) for name in columns}
            | {what if owner is None else f"{what}_{owner}": _count(own, what, owner) for what, owner in counted}
            | {f"n_{name}": sum(map(math.isfinite, (row[name] for row in own))) for name in columns}
        )
    over = {name: column_summary([row[name] for row in table], [row[by] for row in table]) for name in columns}
    for what in ("mean", "sd"):
        table.append(
            {by: what, "files": len(rows)}
            | {name: over[name][what] for name in columns}
            | {f"n_{name}": over[name]["n"] for name in columns}
        )
    return table


def pooled(confusions, labels):
    """Overlap metrics of the summed confusion matrices: all files as one large image."""
    row = file_metrics(np.sum(confusions, axis=0, dtype=np.int64), labels)
    return {name: value for name, value in row.items() if name not in ("missed", "spurious")}


def subjects_of(stems, regex=None):
    """The subject in each file name, or None where the names give none.

    regex: its first group (or whole match) is the subject; InputError-free: callers validate it.
    Without one, the subject is what stands before a last number set off by ``_``, ``-``, ``.`` or a
    space: ``D10_032`` -> ``D10``. Where all names give one and the same common word (``frame_001``) they are
    taken to give none.
    """
    if regex:
        found = [re.search(regex, stem) for stem in stems]
        return [(m.group(1) if m.re.groups else m.group(0)) if m else None for m in found]
    found = [SUBJECT.fullmatch(stem) for stem in stems]
    subjects = [m.group(1) if m else None for m in found]
    common = set(subjects) <= {None} or (len(set(subjects)) == 1 and subjects[0].lower() in COMMON_WORDS)
    return [None] * len(stems) if common else subjects
