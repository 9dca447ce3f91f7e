"""The field's own tools as oracles: MONAI, medpy and DeepMind's surface-distance, and where they differ from us."""

import math
import warnings

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from sonogravity.metrics import boundary, overlap

monai = pytest.importorskip("monai.metrics")
medpy = pytest.importorskip("medpy.metric.binary")
surface_distance = pytest.importorskip("surface_distance")

CLASSES = 4
TOLERANCE = 1.5


def random_classes(rng, shape):
    """Blobs of up to four classes, some of them absent."""
    fields = np.stack([gaussian_filter(rng.standard_normal(shape), rng.uniform(1, 3)) for _ in range(CLASSES)])
    fields[0] += rng.uniform(0, 0.3)
    fields[rng.integers(1, CLASSES)] -= rng.uniform(0, 0.6)
    return fields.argmax(0).astype(np.uint8)


def one_hot(classes, count=CLASSES):
    return torch.nn.functional.one_hot(torch.from_numpy(classes.astype(np.int64)), count).movedim(2, 0)[None].float()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("chunk", range(10))
def test_fifty_random_masks_of_four_classes_agree(chunk):
    rng = np.random.default_rng(chunk)
    seen = 0
    for _ in range(50):
        shape = tuple(rng.integers(10, 48, 2))
        truth, prediction = random_classes(rng, shape), random_classes(rng, shape)
        ours = overlap.class_metrics(overlap.confusion_matrix(truth, prediction, CLASSES))
        pair = one_hot(prediction), one_hot(truth)
        foreign = {
            "hd": monai.compute_hausdorff_distance(*pair)[0],
            "hd95": monai.compute_hausdorff_distance(*pair, percentile=95)[0],
            "assd": monai.compute_average_surface_distance(*pair, symmetric=True)[0],
            "nsd": monai.compute_surface_dice(*pair, class_thresholds=[TOLERANCE] * (CLASSES - 1))[0],
        }
        for c in range(1, CLASSES):
            t, p = truth == c, prediction == c
            if not (t.any() and p.any()):
                continue
            seen += 1
            assert ours["dice"][c] == pytest.approx(medpy.dc(p, t), abs=1e-12)
            assert ours["dice"][c] == pytest.approx(surface_distance.compute_dice_coefficient(t, p), abs=1e-12)
            assert ours["iou"][c] == pytest.approx(medpy.jc(p, t), abs=1e-12)
            assert ours["precision"][c] == pytest.approx(medpy.precision(p, t), abs=1e-12)
            assert ours["sensitivity"][c] == pytest.approx(medpy.sensitivity(p, t), abs=1e-12)
            assert ours["specificity"][c] == pytest.approx(medpy.specificity(p, t), abs=1e-12)
            found = boundary.boundary_metrics(*boundary.boundary_distances(t, p), TOLERANCE)
            for name, values in foreign.items():
                assert found[name] == pytest.approx(float(values[c - 1]), rel=1e-5, abs=1e-6), name
            assert found["hd"] == pytest.approx(medpy.hd(p, t), abs=1e-9)
            assert found["assd"] == pytest.approx(medpy.assd(p, t), abs=1e-9)
    assert seen > 50


def test_with_spacing_the_oracles_agree():
    rng = np.random.default_rng(99)
    spacing = (0.5, 0.25)
    for _ in range(20):
        truth, prediction = ((gaussian_filter(rng.standard_normal((30, 30)), 2) > 0) for _ in range(2))
        found = boundary.boundary_metrics(*boundary.boundary_distances(truth, prediction, spacing), 1.0)
        assert found["hd"] == pytest.approx(medpy.hd(prediction, truth, spacing), abs=1e-9)
        assert found["assd"] == pytest.approx(medpy.assd(prediction, truth, spacing), abs=1e-9)


def square_and_two_strays():
    """40x40: a 10x10 square, and the same with two stray pixels 6 and 8 columns away."""
    truth = np.zeros((40, 40), bool)
    truth[10:20, 10:20] = True
    prediction = truth.copy()
    prediction[10, [25, 27]] = True
    return truth, prediction


def test_medpy_pools_both_directions_for_hd95():
    """Ours is the larger of the two directed percentiles; pooled, 72 zeros drown the strays."""
    truth, prediction = square_and_two_strays()
    found = boundary.boundary_metrics(*boundary.boundary_distances(truth, prediction), 1.0)
    assert found["hd95"] == pytest.approx(0.9)
    assert medpy.hd95(prediction, truth) == 0


def test_surface_distance_weighs_by_contour_length():
    """It measures between pixel corners and weighs each piece by its length; we count boundary pixels."""
    truth, prediction = square_and_two_strays()
    theirs = surface_distance.compute_surface_distances(truth, prediction, (1, 1))
    found = boundary.boundary_metrics(*boundary.boundary_distances(truth, prediction), 1.0)
    assert surface_distance.compute_robust_hausdorff(theirs, 100) == found["hd"] == 8
    assert surface_distance.compute_robust_hausdorff(theirs, 95) == pytest.approx(7)
    assert surface_distance.compute_surface_dice_at_tolerance(theirs, 1) == pytest.approx(0.932102, abs=1e-6)
    assert found["nsd"] == pytest.approx(72 / 74)


def test_one_mask_empty():
    """Ours is infinite, and NSD 0. medpy refuses; MONAI's figure is not finite (NaN or infinite by its version)."""
    empty = np.zeros((20, 20), bool)
    square = empty.copy()
    square[5:11, 5:11] = True
    for truth, prediction in ((empty, square), (square, empty)):
        found = boundary.boundary_metrics(*boundary.boundary_distances(truth, prediction), 1.0)
        assert found["hd"] == math.inf and found["nsd"] == 0
        with pytest.raises(RuntimeError):
            medpy.hd(prediction, truth)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = monai.compute_hausdorff_distance(
                one_hot(prediction.astype(np.uint8), 2), one_hot(truth.astype(np.uint8), 2)
            )
        assert not torch.isfinite(theirs).any()
