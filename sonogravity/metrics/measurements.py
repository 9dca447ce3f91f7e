"""Measurements of the structures in a mask, and the agreement of predicted and true measurements.

The centre of the pixel (row, column) lies ((row + 0.5) height, (column + 0.5) width) from the top left corner of the
image; height and width are those of a pixel.
"""

import numpy as np

from sonogravity.metrics.boundary import box_around

QUANTITIES = ("area", "components", "top", "centroid_x", "centroid_y", "thickness")
TRUE = "true_"  # the columns of the truth begin with it
EIGHT_NEIGHBOURS = np.ones((3, 3), bool)
SD_IN_LIMITS = 1.96  # 95 % of a normal distribution


def columns_in(unit):
    """Return {quantity: column without its class} in a unit, px or mm."""
    units = {"area": "_mm2" if unit == "mm" else "_px", "components": ""}
    return {name: f"{name}{units.get(name, f'_{unit}')}" for name in QUANTITIES}


def measure(mask, pixel_size=(1.0, 1.0)):
    """Return {quantity: value} of an (H, W) bool mask. pixel_size: (height, width) of a pixel, in mm or px.

    area: pixels x height x width. components: number of 8-connected components. top: depth of the shallowest pixel
    below the image's top edge. centroid_x, centroid_y: mean of the pixels. thickness: pixels x height / columns that
    hold any. Positions are those of pixel centres. An empty mask has the area 0 and 0 components; the rest is NaN.
    """
    box = box_around(mask)
    if box is None:
        return dict.fromkeys(QUANTITIES, float("nan")) | {"area": 0.0, "components": 0}
    from scipy import ndimage  # slow to import

    inside, (height, width) = mask[box], pixel_size
    in_rows, in_columns = inside.sum(1), inside.sum(0)
    rows, columns = (np.arange(part.start, part.stop) + 0.5 for part in box)
    pixels = int(in_rows.sum())
    return {
        "area": float(pixels * height * width),
        "components": ndimage.label(inside, EIGHT_NEIGHBOURS)[1],
        "top": float(rows[0] * height),
        "centroid_x": float(in_columns @ columns / pixels * width),
        "centroid_y": float(in_rows @ rows / pixels * height),
        "thickness": float(pixels * height / np.count_nonzero(in_columns)),
    }


def agreement(prediction, truth, subjects=None):
    """Return the agreement of (n,) predicted and true values of one measurement of one class, one per file.

    bias, sd (ddof 1), limit_low, limit_high: mean of prediction - truth, and bias -+ 1.96 SD, the limits of agreement
    (Bland and Altman, Lancet 1986), over the n files in which both hold the class. missed, spurious: files in which
    only the truth or only the prediction holds it. subjects: of the files, each a name or None; None if no file has
    one. With them also ``subjects`` and ``subjects_<name>``, the same from the mean difference of each subject, because
    the files of a subject are not independent (Bland and Altman, J Biopharm Stat 2007).
    """
    prediction, truth = np.asarray(prediction, float), np.asarray(truth, float)
    in_prediction, in_truth = prediction > 0, truth > 0  # every value of a class that is held is above 0
    both = in_prediction & in_truth
    differences = (prediction - truth)[both]
    found = {
        "n": len(differences),
        "missed": int((in_truth & ~in_prediction).sum()),
        "spurious": int((in_prediction & ~in_truth).sum()),
    } | _limits(differences)
    if subjects is not None:
        named = np.array([subject is not None for subject in subjects])[both]
        _, groups = np.unique(np.asarray(subjects, str)[both][named], return_inverse=True)
        means = np.bincount(groups, differences[named]) / np.bincount(groups)
        found |= {"subjects": len(means)} | {f"subjects_{name}": value for name, value in _limits(means).items()}
    return found


def _limits(differences):
    bias = float(differences.mean()) if len(differences) else float("nan")
    sd = float(differences.std(ddof=1)) if len(differences) > 1 else float("nan")
    return {"bias": bias, "sd": sd, "limit_low": bias - SD_IN_LIMITS * sd, "limit_high": bias + SD_IN_LIMITS * sd}
