"""Confidence of a prediction: entropy and expected_dice (without a truth), calibration (with a truth).

All are computed from the probabilities (softmax) at the frame's native size.
"""

import math

import torch

BINS = 10  # of the reliability diagram


def columns(labels):
    """Return the columns that certainty() fills."""
    return ["entropy", "expected_dice", *(f"expected_dice_{labels.names[c]}" for c in labels.foreground)]


def certainty(logits, maps, labels):
    """Return one dictionary per frame, from (N, C, H, W) logits and (N, H, W) uint8 label maps.

    ``entropy``: mean over pixels of -sum(p ln p) / ln C, from 0 (certain) to 1 (undecided). ``expected_dice_<class>``:
    2 sum(p_c over the pixels labelled c) / (number of these pixels + sum(p_c over all pixels)). It would be the Dice if
    the probabilities were correct (the ratio of expectations). They are not, so it only orders frames; NaN if no pixel
    is labelled c.
    ``expected_dice``: mean over the foreground classes that are predicted.
    """
    maps = torch.from_numpy(maps).to(logits.device)
    most = maps[0].numel() * math.log(logits.shape[1])
    figures = []
    for own, map_ in zip(logits, maps, strict=True):  # frame by frame, so that sums do not depend on the batch
        logarithms = own.log_softmax(0)
        probabilities = logarithms.exp()
        figures.append([-logarithms.mul_(probabilities).sum() / most])
        for c in labels.foreground:
            labelled = map_ == c
            count = labelled.sum()
            expected = 2 * (probabilities[c] * labelled).sum() / (count + probabilities[c].sum())
            figures[-1].append(expected.where(count > 0, torch.nan))
    rows = []
    for sureness, *expected in torch.stack([torch.stack(row) for row in figures]).tolist():
        known = [value for value in expected if value == value]
        row = {"entropy": max(0.0, sureness), "expected_dice": sum(known) / len(known) if known else math.nan}
        rows.append(row | dict(zip(columns(labels)[2:], expected, strict=True)))
    return rows


def reliability(logits, truth, labels, ignored=None):
    """Return (foreground classes, BINS, 3) float64 sums, from (C, H, W) logits and (H, W) class indices of the truth.

    For the pixels whose probability of the class lies in a bin: their number, the sum of these probabilities, and the
    number of pixels that belong to the class (Guo et al., On calibration of modern neural networks, ICML 2017, for each
    class separately). ignored: (H, W) bool of pixels that are left out, or None.
    """
    probabilities = logits.softmax(0).flatten(1).cpu()  # (C, H * W); some GPUs have no float64
    truth = torch.from_numpy(truth).flatten()
    if ignored is not None:
        known = torch.from_numpy(~ignored).flatten()
        probabilities, truth = probabilities[:, known], truth[known]
    sums = []
    for c in labels.foreground:
        plane = probabilities[c]
        bins = (plane * BINS).to(torch.int64).clamp_(max=BINS - 1)
        hits = truth == c
        columns = [torch.bincount(bins, minlength=BINS), torch.bincount(bins, plane.double(), BINS)]
        sums.append(torch.stack([*columns, torch.bincount(bins[hits], minlength=BINS)], 1))
    return torch.stack(sums).numpy()


def calibration(sums, labels):
    """Return {class: {"ece", "bins": [one row per bin]}}, from the sum of reliability() over files.

    ece: expected calibration error, the mean over pixels of |probability - share of the class| of their bin.
    """
    found = {}
    for c, table in zip(labels.foreground, sums, strict=True):
        bins = []
        for b, (pixels, probability, hits) in enumerate(table.tolist()):
            filled = pixels > 0
            bins.append(
                {
                    "from": b / BINS,
                    "to": (b + 1) / BINS,
                    "pixels": int(pixels),
                    "probability": probability / pixels if filled else math.nan,
                    "observed": hits / pixels if filled else math.nan,
                }
            )
        error = sum(abs(probability - hits) for _, probability, hits in table.tolist()) / table[:, 0].sum()
        found[labels.names[c]] = {"ece": float(error), "bins": bins}
    return found
