"""Every overlap figure of the definitions, against cases worked out by hand."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sonogravity.datasets.labels import Labels
from sonogravity.datasets.subjects import subjects_in_names
from sonogravity.metrics import overlap
from sonogravity.metrics.summary import bootstrap_interval, column_summary, pooled, summarise

LABELS = Labels.create([0, 1, 2])


def draw(picture):
    return np.array([[int(c) for c in row] for row in picture.split("/")], np.uint8)


def box(shape, *slices):
    mask = np.zeros(shape, np.uint8)
    if slices:  # mask[()] would be the whole array
        mask[slices] = 1
    return mask


def test_confusion_matrix_of_the_drawn_case():
    m = overlap.confusion_matrix(draw("0011/0011/2200/2200"), draw("0011/0110/2200/2000"), 3)
    assert m.tolist() == [[7, 1, 0], [1, 3, 0], [1, 0, 3]]
    assert m.dtype == np.int64
    assert overlap.class_metrics(m)["dice"] == pytest.approx([14 / 17, 3 / 4, 6 / 7])
    assert overlap.accuracy(m) == 13 / 16


def test_foreground_mean_leaves_background_out():
    m = overlap.confusion_matrix(draw("0011/0011/2200/2200"), draw("0011/0110/2200/2000"), 3)
    row = overlap.file_metrics(m, LABELS)
    assert row["dice"] == pytest.approx((3 / 4 + 6 / 7) / 2)
    assert row["dice_background"] == pytest.approx(14 / 17)
    assert "accuracy_1" not in row


def test_background_need_not_be_the_first_class():
    m = overlap.confusion_matrix(draw("0011/0011/2200/2200"), draw("0011/0110/2200/2000"), 3)
    row = overlap.file_metrics(m, Labels.create([0, 1, 2], background=2))
    assert row["dice"] == pytest.approx((14 / 17 + 3 / 4) / 2)


def binary(truth, prediction):
    m = overlap.confusion_matrix(truth, prediction, 2)
    return {name: values[1] for name, values in overlap.class_metrics(m).items()} | {"accuracy": overlap.accuracy(m)}


def test_class_absent_from_both_is_undefined():
    scores = binary(box((4, 4)), box((4, 4)))
    for name in ("dice", "iou", "precision", "sensitivity", "fnr"):
        assert math.isnan(scores[name]), name
    assert (scores["specificity"], scores["accuracy"], scores["fpr"]) == (1, 1, 0)


def test_empty_prediction():
    scores = binary(box((4, 4), slice(0, 2)), box((4, 4)))
    assert [scores[n] for n in ("dice", "iou", "precision", "sensitivity", "fnr")] == [0, 0, 0, 0, 1]


def test_empty_truth():
    scores = binary(box((4, 4)), box((4, 4), slice(0, 2)))
    assert (scores["dice"], scores["iou"], scores["precision"]) == (0, 0, 0)
    assert math.isnan(scores["sensitivity"]) and math.isnan(scores["fnr"])
    assert scores["specificity"] == 0.5


def test_no_negatives_have_no_specificity():
    scores = binary(np.ones((2, 2), np.uint8), np.ones((2, 2), np.uint8))
    assert math.isnan(scores["specificity"]) and math.isnan(scores["fpr"])
    assert scores["dice"] == 1


@pytest.mark.parametrize(
    ("shape", "truth", "prediction", "dice"),
    [
        ((20, 20), (slice(5, 11), slice(5, 11)), (slice(5, 11), slice(5, 11)), 1),
        ((20, 20), (slice(5, 11), slice(5, 11)), (slice(5, 11), slice(6, 12)), 0.833333),
        ((20, 20), (slice(4, 12), slice(4, 12)), (slice(6, 10), slice(6, 10)), 0.4),
        ((10, 10), (slice(None), slice(0, 5)), (slice(None), slice(0, 6)), 0.909091),
        ((41, 41), (slice(10, 31), slice(10, 31)), (slice(9, 32), slice(9, 32)), 0.909278),
        ((41, 41), (slice(10, 31), slice(10, 31)), (slice(10, 31), slice(11, 32)), 0.952381),
        ((41, 41), (slice(10, 31), slice(10, 31)), (slice(6, 35), slice(6, 35)), 0.687988),
    ],
)
def test_dice_of_drawn_boxes(shape, truth, prediction, dice):
    assert binary(box(shape, *truth), box(shape, *prediction))["dice"] == pytest.approx(dice, abs=1e-6)


def test_dice_with_a_hole():
    prediction = box((20, 20), slice(4, 14), slice(4, 14))
    prediction[8:10, 8:10] = 0
    assert binary(box((20, 20), slice(4, 14), slice(4, 14)), prediction)["dice"] == pytest.approx(0.979592, abs=1e-6)


def test_missed_and_spurious_are_named():
    labels = Labels.create([0, 128, 255], class_names=["bone", "ligament"])
    m = overlap.confusion_matrix(draw("0011"), draw("0022"), 3)
    row = overlap.file_metrics(m, labels)
    assert (row["missed"], row["spurious"]) == ("bone", "ligament")
    assert row["dice"] == 0


def test_mean_of_files_and_mean_of_classes_differ():
    rows = [overlap.file_metrics(np.zeros((3, 3), np.int64), LABELS) for _ in range(2)]
    for row, (one, two) in zip(rows, [[0.8, np.nan], [0.6, 0.4]], strict=True):
        row.update(dice_1=one, dice_2=two, dice=float(overlap.nan_mean([one, two])))
    dice = summarise(rows, LABELS, ["a", "b"])["metrics"]["dice"]
    assert dice["mean"] == pytest.approx(0.65)
    assert dice["mean_of_classes"] == pytest.approx(0.55)
    assert dice["n"] == 2


def test_pooled_sums_counts_before_it_divides():
    confusions = [np.array([[0, 0], [1, 1]]), np.array([[0, 10], [10, 90]])]
    labels = Labels.create([0, 1])
    assert np.mean([overlap.class_metrics(m)["dice"][1] for m in confusions]) == pytest.approx(0.783333, abs=1e-6)
    assert pooled(confusions, labels)["dice"] == pytest.approx(0.896552, abs=1e-6)


def test_column_summary_matches_its_definition():
    summary = column_summary([1.0, np.nan, 2.0, 4.0], list("abcd"))
    assert (summary["mean"], summary["n"], summary["median"]) == (pytest.approx(7 / 3), 3, 2)
    assert summary["sd"] == pytest.approx(np.std([1, 2, 4], ddof=1))
    assert (summary["q1"], summary["q3"]) == (1.5, 3)


def test_all_undefined_column_stays_undefined_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        summary = column_summary([np.nan, np.nan], ["a", "b"])
    assert summary["n"] == 0 and math.isnan(summary["mean"]) and math.isnan(summary["ci95"][0])


def test_bootstrap_draws_subjects_not_frames():
    rng = np.random.default_rng(3)
    level = rng.uniform(0, 1, 20)
    values = np.repeat(level, 30)  # 30 frames a subject, near copies
    subjects = np.repeat([f"s{i}" for i in range(20)], 30)
    low, high = bootstrap_interval(values, subjects)
    frame_low, frame_high = bootstrap_interval(values, [str(i) for i in range(600)])
    assert low < values.mean() < high
    assert (high - low) > 3 * (frame_high - frame_low)  # about sqrt(30) times
    expected = 3.92 * level.std() / math.sqrt(20)
    assert (high - low) == pytest.approx(expected, rel=0.15)
    assert bootstrap_interval(values, subjects) == (low, high)


@given(
    st.integers(2, 20).flatmap(
        lambda c: st.tuples(
            st.just(c),
            arrays(np.uint8, (6, 7), elements=st.integers(0, c - 1)),
            arrays(np.uint8, (6, 7), elements=st.integers(0, c - 1)),
        )
    )
)
@settings(max_examples=60, deadline=None)
def test_counts_equal_a_plain_loop(case):
    classes, truth, prediction = case
    expected = np.zeros((classes, classes), int)
    for t, p in zip(truth.ravel(), prediction.ravel(), strict=True):
        expected[t, p] += 1
    m = overlap.confusion_matrix(truth, prediction, classes)
    assert (m == expected).all()
    scores = overlap.class_metrics(m)
    iou, dice = scores["iou"], scores["dice"]
    assert np.allclose(dice, 2 * iou / (1 + iou), equal_nan=True)
    swapped = overlap.class_metrics(m.T)
    assert np.array_equal(dice, swapped["dice"], equal_nan=True)


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="one size"):
        overlap.confusion_matrix(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8), 2)
    with pytest.raises(ValueError, match="under 2"):
        overlap.confusion_matrix(np.full((2, 2), 2, np.uint8), np.zeros((2, 2), np.uint8), 2)


@pytest.mark.parametrize(
    ("stems", "regex", "subjects"),
    [
        (["D10_032", "D2-7", "odd"], None, ["D10", "D2", None]),
        (["P01_L_frame_12", "P02_L_frame_3"], None, ["P01_L", "P02_L"]),
        (["frame_001", "frame_002"], None, [None, None]),
        (["frame_001", "frame_002"], r"(frame)", ["frame", "frame"]),
        (["S01_001", "S01_002"], None, ["S01", "S01"]),
        (["001", "002"], None, [None, None]),
        (["x12y", "x13y"], r"\d+", ["12", "13"]),
        (["D10frame_102", "D2img_7", "bigframe_3"], None, ["D10", "D2", "bigframe"]),
    ],
)
def test_subjects_from_file_names(stems, regex, subjects):
    assert subjects_in_names(stems, regex) == subjects
