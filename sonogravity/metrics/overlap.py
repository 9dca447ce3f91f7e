"""Overlap metrics from one integer confusion matrix: count once, divide later.

All metrics are per file, at the image's native size. ``M[truth, prediction]`` counts pixels. TP, FP, FN and TN are
those of one class against the rest. There is no epsilon: an undefined score is NaN (Maier-Hein et al., Metrics
reloaded, Nature Methods 2024, on empty masks). nnU-Net also leaves these cases out.
"""

import warnings

import numpy as np

from sonogravity.datasets.labels import IGNORE_INDEX
from sonogravity.metrics.boundary import box_around

OVERLAP = ("dice", "iou", "accuracy", "precision", "sensitivity", "specificity", "fpr", "fnr")
PER_CLASS = tuple(name for name in OVERLAP if name != "accuracy")  # accuracy is one number per file


def confusion_matrix(truth, prediction, classes):
    """Return (C, C) int64 counts, ``M[truth, prediction]``, of (H, W) class indices of truth and prediction."""
    if truth.shape != prediction.shape:
        raise ValueError(f"truth is {truth.shape}, prediction {prediction.shape}: they must be of one size")
    if max(truth.max(initial=0), prediction.max(initial=0)) >= classes:
        raise ValueError(f"class indices must be under {classes}")
    # C*C - 1 must fit. Up to 16 classes uint8 is enough, which is four times as fast as a wider type.
    kind = np.uint8 if classes <= 16 else np.uint32
    pairs = truth.astype(kind) * kind(classes) + prediction.astype(kind)
    counted = pairs
    if pairs.ndim == 2:  # outside the box both are 0, so only the box is counted
        box = box_around(pairs)
        counted = pairs[:0] if box is None else pairs[box]
    counts = np.bincount(counted.ravel(), minlength=classes * classes).astype(np.int64)
    counts[0] += pairs.size - counted.size
    return counts.reshape(classes, classes)


def count(truth, prediction, labels):
    """Count (H, W) class indices, in which ignored pixels of the truth are IGNORE_INDEX.

    Return the truth with background in these pixels, the (C, C) counts without them, and the (H, W) bool map of them,
    None if there are none.
    """
    ignored = truth == IGNORE_INDEX if labels.ignored else None
    if ignored is None or not ignored.any():
        return truth, confusion_matrix(truth, prediction, labels.count), None
    truth = with_background(truth, ignored, labels.background)
    counts = confusion_matrix(truth, with_background(prediction, ignored, labels.background), labels.count)
    counts[labels.background, labels.background] -= ignored.sum()
    return truth, counts, ignored


def with_background(classes, ignored, background):
    """Return (H, W) class indices with background in the ignored pixels. ignored: (H, W) bool or None."""
    return classes if ignored is None else np.where(ignored, classes.dtype.type(background), classes)


def _ratio(part, whole):
    """Return part / whole, NaN if whole is 0."""
    whole = np.asarray(whole, float)
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def class_metrics(confusion):
    """Return {metric: (C,) float64} of (C, C) counts: each class against the rest, NaN if undefined.

    Dice = 2TP/(2TP+FP+FN); IoU = TP/(TP+FP+FN); precision = TP/(TP+FP), 0 if the class is in the truth but not in the
    prediction; sensitivity = TP/(TP+FN); specificity = TN/(TN+FP); FPR = 1 - specificity; FNR = 1 - sensitivity.
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
    """Return the share of pixels with the correct class, background included."""
    return float(_ratio(np.trace(confusion), confusion.sum()))


def nan_mean(values, axis=None):
    """Return the mean of the values that are not NaN; NaN, without a warning, if there are none."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        return np.nanmean(np.asarray(values, float), axis=axis)


def finite_mean(values):
    """Return the mean of the finite values; NaN if there are none."""
    values = np.asarray(values, float)
    return float(nan_mean(values[np.isfinite(values)]))


def file_metrics(confusion, labels, boundary=None):
    """Return the row of one file: each metric as the mean over foreground classes, then ``<metric>_<class>``.

    boundary: {column: {class: value}} of boundary metrics, for foreground classes. Means leave out undefined and
    infinite values. Background has columns of its own class and is left out of every mean. ``missed`` names the classes
    in the truth only, ``spurious`` those in the prediction only.
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
            row[f"{name}_{labels.column_names[c]}"] = float(per_class[name][c])
        for name, figures in boundary.items():
            if c in figures:
                row[f"{name}_{labels.column_names[c]}"] = figures[c]
    in_truth, in_prediction = confusion.sum(1) > 0, confusion.sum(0) > 0
    row["missed"] = ", ".join(labels.names[c] for c in labels.foreground if in_truth[c] and not in_prediction[c])
    row["spurious"] = ", ".join(labels.names[c] for c in labels.foreground if in_prediction[c] and not in_truth[c])
    return row
