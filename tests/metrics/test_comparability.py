"""Only scores that two runs computed in the same way are compared."""

import numpy as np
import pandas as pd
import pytest

from sonogravity.datasets.labels import Labels
from sonogravity.metrics.comparability import differing_smoothing, incomparable

NAMES = ["dice", "accuracy", "hd_mm", "nsd", "dice_128", "nsd_128", "hd_mm_128", "dice_background"]
LABELS = Labels.create([0, 128, 255], 0)


def table(**columns):
    return pd.DataFrame(columns | {"file": ["a.png", "b.png"]}).set_index("file")


def left_out(one, other, labels=LABELS, others=LABELS):
    return set(incomparable(NAMES, (one, labels), (other, others)))


def test_runs_of_the_same_settings_are_compared_in_all_metrics():
    given = table(pixels_per_mm=[9.5, 8.0], margin_mm=[1.5, np.nan])  # blank: a file without a mask
    assert not left_out(given, given.copy())
    assert not left_out(table(), table(), None, None)


@pytest.mark.parametrize(
    "one, other, expected",
    [
        ({}, {"margin_mm": [1.5, 1.5], "pixels_per_mm": [3.78, 3.78]}, {"nsd", "nsd_128", "hd_mm", "hd_mm_128"}),
        ({"margin_mm": [0.3, 0.3]}, {"margin_mm": [1.5, 1.5]}, {"nsd", "nsd_128"}),
        ({"pixels_per_mm": [9.5, 9.5], "margin_mm": ["?", 1.5]}, {"pixels_per_mm": [9.5, 9.5]}, {"nsd", "nsd_128"}),
        ({"pixels_per_mm": [9.5, 9.5]}, {"pixels_per_mm": [9.5, 4.75]}, {"hd_mm", "hd_mm_128"}),
        (
            {"pixels_per_mm": [9.5, 9.5], "margin_mm": [1.5, 1.5]},
            {"pixels_per_mm": [4.75, 4.75], "margin_mm": [1.5, 1.5]},
            {"hd_mm", "hd_mm_128", "nsd", "nsd_128"},
        ),
        (
            {"pixels_per_mm_x": [9.5, 9.5], "pixels_per_mm_y": [9.5, 9.0]},
            {"pixels_per_mm": [9.5, 9.5]},
            {"hd_mm", "hd_mm_128", "nsd", "nsd_128"},
        ),
    ],
    ids=[
        "a margin and none",
        "two margins",
        "a damaged table",
        "two spacings",
        "a margin of two spacings",
        "unequal axes",
    ],
)
def test_another_tolerance_or_spacing_leaves_boundary_metrics_out(one, other, expected):
    assert left_out(table(**one), table(**other)) == expected
    assert left_out(table(**other), table(**one)) == expected


def test_other_classes_leave_means_over_classes_out():
    more = Labels.create([0, 64, 128, 255], 0)
    found = incomparable(NAMES, (table(), LABELS), (table(), more))
    assert set(found) == {"dice", "accuracy", "hd_mm", "nsd", "dice_background"}
    assert found["dice"] == "different classes (128, 255 and 64, 128, 255)"


def test_another_ignored_value_leaves_everything_out():
    assert left_out(table(), table(), LABELS, LABELS.with_ignored([7])) == set(NAMES)


def test_exchanged_names_leave_their_classes_out_but_other_codings_do_not():
    names = ["dice", "dice_bone", "dice_ligament", "dice_background"]

    def found(values, order):
        labels = Labels.create([0, 128, 255], 0, ["bone", "ligament"])
        return incomparable(names, (table(), labels), (table(), Labels.create(values, 0, order)))

    assert set(found([0, 128, 255], ["ligament", "bone"])) == {"dice_bone", "dice_ligament"}
    assert found([0, 128, 255], ["ligament", "bone"])["dice_bone"] == (
        "class bone is the mask value 128 in one run, 255 in the other"
    )
    assert not found([0, 1, 2], ["bone", "ligament"])


def test_another_smoothing_is_pointed_out():
    assert differing_smoothing({"a": None, "b": None}) == differing_smoothing({"a": 0.1, "b": 0.1}) == []
    [line] = differing_smoothing({"a": None, "b": 0.3})
    assert line.startswith("the runs differ in smoothing over time (--smooth): a none, b 0.3 s; ")
