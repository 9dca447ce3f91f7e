"""Boundary distances against cases worked out by hand, in pixels and millimetres."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import binary_erosion, distance_transform_edt

from sonogravity.datasets.labels import Labels
from sonogravity.datasets.spacing import ASSUMED, Spacing
from sonogravity.metrics import boundary, overlap
from sonogravity.metrics.file_scores import Measure
from sonogravity.metrics.summary import summarise

NAN = float("nan")


def boxes(shape, *places):
    mask = np.zeros(shape, bool)
    for place in places:
        mask[place] = True
    return mask


def scores(truth, prediction, tolerance=1.0, spacing=(1.0, 1.0)):
    return boundary.boundary_metrics(*boundary.boundary_distances(truth, prediction, spacing), tolerance)


SQUARE = np.s_[5:11, 5:11]
FAR = np.s_[10:20, 10:20]
CASES = {
    "identical": (
        boxes((20, 20), SQUARE),
        boxes((20, 20), SQUARE),
        (1, 1),
        {"hd": 0, "hd95": 0, "assd": 0},
        {0: 1, 1: 1},
    ),
    "shifted by one column": (
        boxes((20, 20), SQUARE),
        boxes((20, 20), np.s_[5:11, 6:12]),
        (1, 1),
        {"hd": 1, "hd95": 1, "assd": 0.5},
        {0.5: 0.5, 1: 1},
    ),
    "two pixels": (
        boxes((10, 10), (2, 2)),
        boxes((10, 10), (5, 6)),
        (1, 1),
        {"hd": 5, "hd95": 5, "assd": 5},
        {4.9: 0, 5: 1},
    ),
    "two pixels, spacing per axis": (
        boxes((10, 10), (2, 2)),
        boxes((10, 10), (5, 6)),
        (0.5, 0.25),
        {"hd": math.sqrt(3.25), "hd95": 1.802776, "assd": 1.802776},
        {1.8: 0},
    ),
    "nested squares": (
        boxes((20, 20), np.s_[4:12, 4:12]),
        boxes((20, 20), np.s_[6:10, 6:10]),
        (1, 1),
        {"hd": math.sqrt(8), "hd95": math.sqrt(8), "assd": 2.130056},
        {2: 0.7},
    ),
    "one stray pixel": (
        boxes((20, 20), SQUARE),
        boxes((20, 20), SQUARE, (0, 0)),
        (1, 1),
        {"hd": math.sqrt(50), "hd95": 0, "assd": math.sqrt(50) / 41},
        {1: 40 / 41},
    ),
    "two stray pixels": (
        boxes((40, 40), FAR),
        boxes((40, 40), FAR, (10, 25), (10, 27)),
        (1, 1),
        {"hd": 8, "hd95": 0.9, "assd": 14 / 74},
        {1: 72 / 74},
    ),
    "a hole": (
        boxes((20, 20), np.s_[4:14, 4:14]),
        boxes((20, 20), np.s_[4:14, 4:14]) & ~boxes((20, 20), np.s_[8:10, 8:10]),
        (1, 1),
        {"hd": 3, "hd95": 3, "assd": 0.3},
        {1: 0.9},
    ),
    "at the border of the image, half a millimetre": (
        boxes((10, 10), np.s_[:, :5]),
        boxes((10, 10), np.s_[:, :6]),
        (0.5, 0.5),
        {"hd": 0.5, "assd": 9 / 54},
        {0.5: 1},
    ),
    "a short row of three": (
        boxes((10, 10), np.s_[5:8, 6]),
        boxes((10, 10), np.s_[1:4, 1]),
        (1, 1),
        {"hd": math.sqrt(41), "hd95": 6.345907, "assd": 5.873080},
        {5.5: 1 / 3, 6: 2 / 3},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_case(name):
    truth, prediction, spacing, expected, nsd = CASES[name]
    found = scores(truth, prediction, 1.0, spacing)
    for metric, value in expected.items():
        assert found[metric] == pytest.approx(value, abs=1e-6), metric
    for tolerance, value in nsd.items():
        assert scores(truth, prediction, tolerance, spacing)["nsd"] == pytest.approx(value, abs=1e-9)


def test_both_empty_is_undefined():
    empty = boxes((8, 8))
    assert all(math.isnan(value) for value in scores(empty, empty).values())


@pytest.mark.parametrize("swap", [False, True])
def test_one_empty_is_infinite(swap):
    pair = [boxes((8, 8)), boxes((8, 8), np.s_[2:4, 2:4])]
    found = scores(*(pair[::-1] if swap else pair))
    assert found == {"hd": math.inf, "hd95": math.inf, "assd": math.inf, "nsd": 0}


def test_a_distance_that_equals_the_tolerance_but_for_rounding_is_within():
    spacing = 1 / 3.78
    assert scores(boxes((9, 9), (4, 1)), boxes((9, 9), (4, 4)), 3 / 3.78, (spacing, spacing))["nsd"] == 1
    assert scores(boxes((9, 9), (4, 1)), boxes((9, 9), (4, 4)), 2.999 / 3.78, (spacing, spacing))["nsd"] == 0


masks = arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))


@given(masks)
def test_boundary_is_the_mask_minus_its_erosion(mask):
    cross = [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
    assert boundary.boundary_pixels(mask).tolist() == np.argwhere(mask & ~binary_erosion(mask, cross)).tolist()


@given(st.data())
def test_distances_equal_full_distance_transforms(data):
    shape = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    truth, prediction = (data.draw(arrays(bool, shape)) for _ in range(2))
    spacing = data.draw(st.sampled_from([(1.0, 1.0), (0.5, 0.25), (0.3, 0.7)]))
    if not (truth.any() and prediction.any()):
        return
    edges = [np.zeros(shape, bool), np.zeros(shape, bool)]
    for edge, mask in zip(edges, (truth, prediction), strict=True):
        edge[tuple(boundary.boundary_pixels(mask).T)] = True
    d_pg, d_gp = boundary.boundary_distances(truth, prediction, spacing)
    assert np.sort(d_pg) == pytest.approx(np.sort(distance_transform_edt(~edges[0], spacing)[edges[1]]))
    assert np.sort(d_gp) == pytest.approx(np.sort(distance_transform_edt(~edges[1], spacing)[edges[0]]))


@given(st.data())
def test_swapping_truth_and_prediction_changes_nothing(data):
    shape = data.draw(st.tuples(st.integers(2, 12), st.integers(2, 12)))
    truth, prediction = (data.draw(arrays(bool, shape)) for _ in range(2))
    assert scores(truth, prediction) == pytest.approx(scores(prediction, truth), nan_ok=True)


def test_the_row_of_a_file_leaves_infinity_out_of_its_means_and_names_the_class():
    labels = Labels.create([0, 1, 2])
    truth, prediction = np.zeros((2, 20, 20), np.uint8)
    truth[SQUARE], truth[15:18, 15:18] = 1, 2
    prediction[5:11, 6:12] = 1

    counts = overlap.confusion_matrix(truth, prediction, 3)
    row = Measure(labels, {"a.png": ASSUMED}).of("a.png", truth, prediction, counts).figures
    assert (row["hd_px"], row["hd_px_2"], row["missed"]) == (1, math.inf, "2")
    assert row["nsd"] == pytest.approx((1 + 0) / 2)
    in_mm = Measure(labels, {"a.png": Spacing(4, 2)}).of("a.png", truth, prediction, counts).figures
    assert in_mm["hd_mm"] == pytest.approx(0.25)  # one column at 4 pixels per mm
    assert "hd_px" not in in_mm and "nsd" in in_mm
    summary = summarise([row], labels, ["a"], Measure(labels, {"a.png": ASSUMED}).names)
    assert (summary["metrics"]["hd_px"]["missed"], summary["classes"]["2"]["hd_px"]["n"]) == (1, 0)
    assert summary["classes"]["1"]["hd_px"]["missed"] == 0
