"""The margin: every drawn case, its properties, and the choice among the three truths."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import binary_dilation, distance_transform_edt

from sonogravity.datasets.labels import Labels
from sonogravity.datasets.spacing import ASSUMED, Spacing
from sonogravity.metrics import margin, overlap
from sonogravity.metrics.boundary import boundary_distances, surface_dice
from sonogravity.metrics.file_scores import Measure

LABELS = Labels.create([0, 1, 2])


def row(text):
    return np.array([[int(c) for c in text]], np.uint8)


def text(mask):
    return "".join(map(str, mask[0]))


@pytest.mark.parametrize(
    ("radius", "spacing", "pixels"),
    [
        (0.945, (1, 1), 1),
        (1, (1, 1), 5),
        (1.5, (1, 1), 9),
        (2, (1, 1), 13),
        (2.835, (1, 1), 25),
        (5.67, (1, 1), 101),
        (1, (0.5, 0.25), 25),
    ],
)
def test_a_pixel_dilated(radius, spacing, pixels):
    point = np.zeros((31, 31), np.uint8)
    point[15, 15] = 1
    assert margin.dilate(point, radius, spacing).sum() == pixels


def test_half_a_millimetre_at_the_assumed_spacing_moves_borders():
    """0.5 mm at 3.78 pixels per mm is 1.89 pixels: 9 pixels of a disk."""
    point = np.zeros((31, 31), np.uint8)
    point[15, 15] = 1
    assert margin.dilate(point, 0.5, ASSUMED.pixel_size_mm).sum() == 9


def test_rows_drawn():
    assert text(margin.dilate(row("001111222200"), 1)) == "011111222220"
    assert text(margin.erode(row("001111222200"), 1)) == "000111222000"
    assert text(margin.dilate(row("00100000200"), 3)) == "11111122222"  # the pixel between goes to the lower class
    assert text(margin.dilate(row("00100000200"), 2)) == "11111022222"


def test_a_half_of_the_image():
    half = np.zeros((10, 10), np.uint8)
    half[:, :5] = 1
    assert (margin.erode(half, 2).sum(), margin.dilate(half, 2).sum()) == (30, 70)


def test_nothing_is_eroded_from_beyond_the_image():
    assert margin.erode(np.ones((6, 6), np.uint8), 3).all()


def squares(side, shape=(41, 41), shift=0):
    mask = np.zeros(shape, np.uint8)
    start = 20 - side // 2
    mask[start : start + side, start + shift : start + side + shift] = 1
    return mask


TRUTH = squares(21)
DILATED, ERODED = margin.dilate(TRUTH, 2), margin.erode(TRUTH, 2)


@pytest.mark.parametrize(
    ("prediction", "dice", "used", "nsd"),
    [
        (DILATED, (0.836812, 1, 0.640798), "dilated", None),
        (ERODED, (0.791781, 0.640798, 1), "eroded", None),
        (squares(23), (0.909278, 0.926445, 0.706601), "dilated", (2, 1)),
        (squares(21, shift=1), (0.952381, 0.836812, 0.791781), "original", (1, 1)),
        (squares(29), (0.687988, 0.843191, 0.511504), "dilated", (2, 0)),
    ],
    ids=["the dilated", "the eroded", "23x23", "shifted", "29x29"],
)
def test_choice_on_the_square(prediction, dice, used, nsd):
    assert (DILATED.sum(), ERODED.sum()) == (613, 289)
    labels = Labels.create([0, 1])
    counts = overlap.confusion_matrix(TRUTH, prediction, 2)
    choice = margin.choose(TRUTH, prediction, counts, labels, 2, (1.0, 1.0))
    assert [choice.dice[name] for name in margin.VARIANTS] == pytest.approx(dice, abs=1e-6)
    assert choice.used == used
    if nsd:
        assert surface_dice(*boundary_distances(TRUTH == 1, prediction == 1), nsd[0]) == nsd[1]


def test_a_variant_that_loses_a_class_is_not_eligible():
    truth = np.zeros((30, 30), np.uint8)
    truth[2:5, 2:5], truth[10:25, 10:25] = 1, 2  # the 3x3 square vanishes at r = 2
    prediction = margin.erode(truth, 2)
    assert not (prediction == 1).any()
    counts = overlap.confusion_matrix(truth, prediction, 3)
    choice = margin.choose(truth, prediction, counts, LABELS, 2, (1.0, 1.0))
    assert choice.dice["eroded"] == 1 and choice.used == "original"  # filled, though not eligible


def test_a_tie_keeps_the_earlier_variant():
    truth = np.zeros((8, 8), np.uint8)
    truth[3:5, 3:5] = 1
    nothing = np.zeros_like(truth)
    counts = overlap.confusion_matrix(truth, nothing, 3)
    assert margin.choose(truth, nothing, counts, LABELS, 1, (1.0, 1.0)).used == "original"
    empty = overlap.confusion_matrix(nothing, nothing, 3)
    choice = margin.choose(nothing, nothing, empty, LABELS, 1, (1.0, 1.0))
    assert choice.used == "original" and np.isnan(choice.dice["eroded"])


shapes = st.tuples(st.integers(1, 14), st.integers(1, 14))
truths = arrays(np.uint8, shapes, elements=st.sampled_from([0, 0, 0, 1, 2, 3]))
radii = st.sampled_from([0, 0.9, 1, 1.5, 2, 2.3, 3, 5, 5.67, 40])
spacings = st.sampled_from([(1.0, 1.0), (0.5, 0.25), (0.7, 1.3), (1 / 3.78, 1 / 3.78)])


@given(truths, radii, spacings)
@settings(max_examples=200)
def test_dilation_gives_each_pixel_to_the_nearest_class(truth, radius, spacing):
    """The definition itself, by a full distance transform per class."""
    distances = np.stack(
        [
            distance_transform_edt(truth != c, spacing) if (truth == c).any() else np.full(truth.shape, np.inf)
            for c in (1, 2, 3)
        ]
    )
    nearest = distances.min(0)
    lowest = 1 + (distances**2 <= nearest**2 * (1 + 1e-9)).argmax(0)
    moved = (truth == 0) & (nearest**2 <= radius**2 * (1 + 1e-9))
    assert (margin.dilate(truth, radius, spacing) == np.where(moved, lowest, truth)).all()


@given(truths, radii, spacings)
@settings(max_examples=200)
def test_erosion_takes_what_is_near_background(truth, radius, spacing):
    expected = truth.copy()
    if (truth == 0).any():
        expected[distance_transform_edt(truth != 0, spacing) ** 2 <= radius**2 * (1 + 1e-9)] = 0
    assert (margin.erode(truth, radius, spacing) == expected).all()


@given(truths, radii, radii, spacings)
def test_variants_are_nested_and_grow_with_the_radius(truth, one, other, spacing):
    small, large = sorted((one, other))
    grown = [margin.dilate(truth, r, spacing) > 0 for r in (small, large)]
    shrunk = [margin.erode(truth, r, spacing) > 0 for r in (small, large)]
    inside = truth > 0
    assert (shrunk[1] <= shrunk[0]).all() and (shrunk[0] <= inside).all()
    assert (inside <= grown[0]).all() and (grown[0] <= grown[1]).all()
    assert (margin.dilate(truth, large, spacing)[inside] == truth[inside]).all()


@given(truths, radii, spacings)
def test_erosion_is_the_dual_of_dilation(truth, radius, spacing):
    binary = (truth > 0).astype(np.uint8)
    assert (margin.erode(binary, radius, spacing) == 1 - margin.dilate(1 - binary, radius, spacing)).all()


@given(truths, st.integers(1, 6))
def test_dilated_foreground_is_the_binary_dilation_by_a_disk(truth, radius):
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    disk = x * x + y * y <= radius * radius
    assert ((margin.dilate(truth, radius) > 0) == binary_dilation(truth > 0, disk)).all()


@given(truths, spacings)
def test_less_than_a_pixel_changes_nothing(truth, spacing):
    for radius in (0, 0.99 * min(spacing)):
        assert (margin.dilate(truth, radius, spacing) == truth).all()
        assert (margin.erode(truth, radius, spacing) == truth).all()


@given(truths, radii)
def test_flips_and_transposes_commute(truth, radius):
    for turn in (np.flipud, np.fliplr, np.transpose):
        for move in (margin.dilate, margin.erode):
            turned = np.ascontiguousarray(turn(truth))
            assert (move(turned, radius) == turn(move(truth, radius))).all()


@given(truths, radii, spacings)
def test_another_background_works_alike(truth, radius, spacing):
    relabelled = (truth + 1) % 4  # background 0 becomes 1; of the rest only the order of ties differs
    for move in (margin.dilate, margin.erode):
        assert ((move(relabelled, radius, spacing, 1) == 1) == (move(truth, radius, spacing) == 0)).all()


@given(st.data())
def test_the_choice_is_never_below_the_plain_score_and_recounts_exactly(data):
    shape = data.draw(shapes)
    truth, prediction = (data.draw(arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 1, 2]))) for _ in range(2))
    counts = overlap.confusion_matrix(truth, prediction, 3)
    choice = margin.choose(truth, prediction, counts, LABELS, data.draw(radii), (1.0, 1.0))
    if not np.isnan(choice.dice["original"]):
        assert choice.dice[choice.used] >= choice.dice["original"]
    assert (choice.confusion == overlap.confusion_matrix(choice.maps[choice.used], prediction, 3)).all()


@given(truths)
def test_a_prediction_that_equals_the_dilated_truth_scores_one(truth):
    truth = np.minimum(truth, 2)
    if not truth.any():
        return
    prediction = margin.dilate(truth, 2)
    counts = overlap.confusion_matrix(truth, prediction, 3)
    choice = margin.choose(truth, prediction, counts, LABELS, 2, (1.0, 1.0))
    assert choice.dice["dilated"] == 1 and choice.dice[choice.used] == 1


def test_the_sweep_begins_with_the_plain_score_and_nsd_never_falls():
    truth, prediction = np.zeros((2, 60, 60), np.uint8)
    truth[20:40, 20:40], prediction[18:43, 19:41] = 1, 1
    counts = overlap.confusion_matrix(truth, prediction, 3)
    measured = Measure(LABELS, {"a": Spacing(4, 4)}, 1.5).of("a", truth, prediction, counts)
    assert [each["margin_mm"] for each in measured.sweep] == [i / 4 for i in range(13)]
    assert measured.sweep[0]["tolerant_dice"] == measured.figures["dice"]
    up_to = [row["tolerant_dice_up_to"] for row in measured.sweep]
    assert up_to == list(itertools.accumulate((row["tolerant_dice"] for row in measured.sweep), max))
    assert [row["nsd"] for row in measured.sweep] == sorted(row["nsd"] for row in measured.sweep)
    nsd = [each["nsd"] for each in measured.sweep]
    assert nsd == sorted(nsd) and nsd[0] < nsd[-1] == 1
    at = measured.sweep[6]
    assert (at["tolerant_dice"], at["nsd"]) == (measured.figures["tolerant_dice"], measured.figures["nsd"])
    assert at["mask_used"] == measured.figures["mask_used"]


def test_millimetres_follow_the_spacing_of_each_axis():
    """1 mm is 2 pixels down and 4 across."""
    point = np.zeros((21, 21), np.uint8)
    point[10, 10] = 1
    grown = margin.dilate(point, 1.0, Spacing(x=4, y=2).pixel_size_mm)
    assert (np.flatnonzero(grown.any(1)).tolist(), np.flatnonzero(grown.any(0)).tolist()) == (
        list(range(8, 13)),
        list(range(6, 15)),
    )
