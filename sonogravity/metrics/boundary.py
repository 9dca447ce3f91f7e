"""Boundary distances between two masks: Hausdorff, its 95th percentile, mean surface distance, NSD.

The boundary of a mask is the mask minus its 4-connected erosion, with background outside the image. Distances are
measured between pixel centres and scaled by the spacing of each axis. Hausdorff distance and ASSD are defined as in
Heimann et al. (IEEE TMI 2009). NSD is that of Nikolov et al. (2018), counted by pixels. All equal the metrics of MONAI
(``use_subvoxels=False``).
"""

import numpy as np

BOUNDARY = ("hd", "hd95", "assd", "nsd")  # all except nsd have a unit
SLACK = 1e-9  # relative, on squares: a distance that exceeds the tolerance only by rounding counts as within


def within(distances, limit):
    """Return whether distances are at most the limit, apart from rounding."""
    return np.square(distances) <= limit * limit * (1 + SLACK)


def box_around(mask, margin=(0, 0)):
    """Return the slices of the smallest box around the nonzero pixels of an (H, W) mask, None for an empty mask.

    margin: pixels (rows, columns) by which the box is widened, within the image.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    return tuple(
        slice(max(0, int(found[0]) - wider), int(found[-1]) + 1 + wider)
        for found, wider in zip((rows, columns), margin, strict=True)
    )


def boundary_pixels(mask):
    """Return (n, 2) int64, row and column of the pixels of an (H, W) bool mask with a 4-neighbour outside the mask."""
    padded = np.zeros((mask.shape[0] + 2, mask.shape[1] + 2), bool)
    padded[1:-1, 1:-1] = mask
    interior = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    rows, columns = np.divmod(np.flatnonzero(mask & ~interior), mask.shape[1])
    return np.stack([rows, columns], 1)


def nearest_distances(points, others, spacing):
    """Return (n,) distances from each of (n, 2) points to the nearest of (m, 2) others. spacing: (row, column)."""
    from scipy.spatial import cKDTree  # slow to import, and not needed for frames without masks

    tree = cKDTree(others * spacing, balanced_tree=False)  # faster for a tree that is queried once
    return tree.query(points * spacing)[0]


def boundary_distances(truth, prediction, spacing=(1.0, 1.0)):
    """Return (d_PG, d_GP) of two (H, W) bool masks: from each boundary pixel of one to the nearest of the other.

    d_PG: distances from the prediction to the truth; d_GP: the reverse. spacing: (height, width) of a pixel. If the
    other mask is empty, the distances are infinite. If the mask itself is empty, the array has length 0.
    """
    box = box_around(truth | prediction)
    if box is None:
        return np.empty(0), np.empty(0)
    spacing = np.asarray(spacing, float)
    of_truth, of_prediction = boundary_pixels(truth[box]), boundary_pixels(prediction[box])
    if not (len(of_truth) and len(of_prediction)):
        return np.full(len(of_prediction), np.inf), np.full(len(of_truth), np.inf)
    return (
        nearest_distances(of_prediction, of_truth, spacing),
        nearest_distances(of_truth, of_prediction, spacing),
    )


def class_distances(truth, prediction, classes, spacing=(1.0, 1.0)):
    """Return {class: (d_PG, d_GP)} of the given classes, from (H, W) class indices."""
    return {c: boundary_distances(truth == c, prediction == c, spacing) for c in classes}


def surface_dice(d_pg, d_gp, tolerance):
    """Return NSD, the share of both boundaries within the tolerance of the other one; NaN if both are empty."""
    count = len(d_pg) + len(d_gp)
    return float((within(d_pg, tolerance).sum() + within(d_gp, tolerance).sum()) / count) if count else float("nan")


def boundary_metrics(d_pg, d_gp, tolerance):
    """Return {"hd", "hd95", "assd", "nsd"} of the distances of one class.

    HD is the largest distance, HD95 the larger of the two directed 95th percentiles (linear interpolation), ASSD the
    mean of both directions pooled, NSD the share within the tolerance. If both masks are empty, all are NaN. If one is
    empty, the distances are infinite and NSD is 0.
    """
    if not len(d_pg) and not len(d_gp):
        return dict.fromkeys(BOUNDARY, float("nan"))
    if not len(d_pg) or not len(d_gp):
        return {"hd": np.inf, "hd95": np.inf, "assd": np.inf, "nsd": 0.0}
    return {
        "hd": float(max(d_pg.max(), d_gp.max())),
        "hd95": float(max(np.percentile(d_pg, 95), np.percentile(d_gp, 95))),
        "assd": float((d_pg.sum() + d_gp.sum()) / (len(d_pg) + len(d_gp))),
        "nsd": surface_dice(d_pg, d_gp, tolerance),
    }
