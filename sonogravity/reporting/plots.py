"""Plots of a run and of its scores: curves, calibration, and scores over margins."""

import os

import numpy as np

from sonogravity.metrics.margin import VARIANTS
from sonogravity.metrics.summary import best_epoch
from sonogravity.reporting.pictures import class_colours


def plain(text):
    """Return text that matplotlib shows unchanged. A plain dollar sign would begin a formula."""
    return text.replace("$", r"\$")


def empty_figure(size):
    """Return a matplotlib Figure of (width, height) in inches that draws to files only.

    Without pyplot there is no window and no global state. MPLBACKEND is left out, because a notebook sets it to a
    backend that may not be installed here.
    """
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def write_progress(path, history, labels):
    """Draw the losses, the Dice (mean and per class) and the learning rate of a run as PNG."""
    epochs = [row["epoch"] for row in history]
    figure = empty_figure((11, 3.6))
    losses, dice, rate = figure.subplots(1, 3)
    losses.plot(epochs, [row["train_loss"] for row in history], "o-", ms=3, color="#0072b2", label="training")
    losses.plot(epochs, [row["val_loss"] for row in history], "s-", ms=3, color="#d55e00", label="validation")
    losses.set_title("Loss")
    losses.legend()
    dice.plot(epochs, [row["dice"] for row in history], "o-", ms=3, color="black", label="mean of foreground")
    for c in labels.foreground:
        colour = tuple(class_colours(labels)[c] / 255)
        scores = [row[f"dice_{labels.names[c]}"] for row in history]
        dice.plot(epochs, scores, "-", color=colour, label=plain(labels.names[c]))
    best = history[best_epoch(history) - 1]
    if not np.isnan(best["dice"]):
        dice.plot(best["epoch"], best["dice"], "*", ms=13, color="#d55e00", label=f"best {best['dice']:.4f}")
    dice.set_title("Validation Dice")
    dice.set_ylim(0, 1)
    dice.legend()
    rate.plot(epochs, [row["learning_rate"] for row in history], "o-", ms=3, color="#009e73")
    rate.set_title("Learning rate")
    rate.set_yscale("log")
    for axes in (losses, dice, rate):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.savefig(path, dpi=110, format="png")


def write_calibration(path, classes, labels):
    """Draw the reliability diagram as PNG. classes: the ``calibration`` of summary.json."""
    figure = empty_figure((9, 4.2))
    curves, counts = figure.subplots(1, 2)
    curves.plot([0, 1], [0, 1], color="black", lw=1, ls=":", label="perfect calibration")
    width = 0.8 / len(classes)
    for i, (c, (name, entry)) in enumerate(zip(labels.foreground, classes.items(), strict=True)):
        colour = tuple(class_colours(labels)[c] / 255)
        filled = [row for row in entry["bins"] if row["pixels"]]
        given, observed = ([row[what] for row in filled] for what in ("probability", "observed"))
        curves.plot(given, observed, "o-", ms=4, color=colour, label=f"{plain(name)}, ECE {entry['ece']:.4f}")
        step = entry["bins"][0]["to"]
        places = [row["from"] + step * (0.1 + width * (i + 0.5)) for row in entry["bins"]]
        counts.bar(places, [row["pixels"] for row in entry["bins"]], step * width, color=colour, label=plain(name))
    curves.set_title("Fraction of pixels that belong to the class")
    curves.set_ylim(0, 1)
    curves.set_aspect("equal")
    counts.set_title("Pixels")
    counts.set_yscale("log")
    for axes in (curves, counts):
        axes.set_xlabel("predicted probability")
        axes.set_xlim(0, 1)
        axes.legend()
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110, format="png")


def write_sweep(path, margin):
    """Draw tolerant Dice and NSD against the margin as PNG. margin: the ``margin`` of summary.json."""
    rows = margin["sweep"]
    steps = [row["margin_mm"] for row in rows]
    figure = empty_figure((9, 3.8))
    scores, chosen = figure.subplots(1, 2)
    scores.plot(steps, [row["tolerant_dice"] for row in rows], "o-", ms=4, color="#0072b2", label="tolerant Dice")
    up_to = [row["tolerant_dice_up_to"] for row in rows]
    scores.plot(steps, up_to, "--", color="#0072b2", label="tolerant Dice, best margin up to this one")
    scores.plot(steps, [row["nsd"] for row in rows], "s-", ms=4, color="#d55e00", label="NSD")
    scores.axvline(margin["mm"], color="black", lw=1, ls=":", label=f"margin {margin['mm']:g} mm")
    scores.set_title("Mean over files")
    scores.set_ylim(0, 1.02)
    scores.legend(loc="lower right")
    below = np.zeros(len(rows))
    for name, variant in VARIANTS.items():
        counts = np.array([row[name] for row in rows])
        chosen.bar(steps, counts, 0.2, below, color=variant.colour, label=name)
        below += counts
    chosen.set_title("Files by the variant chosen")
    chosen.set_ylim(0, 1.15 * max(below))
    chosen.legend(loc="upper center", ncols=3, frameon=False)
    for axes in (scores, chosen):
        axes.set_xlabel("margin, mm" + (" (pixels per mm assumed)" if margin["assumed"] else ""))
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110, format="png")
