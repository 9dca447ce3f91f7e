"""Mask values to classes and back."""

import numpy as np
import pytest

from sonogravity.common.messages import InputError
from sonogravity.datasets.labels import COLOUR, Labels, parse_value, value_text


def test_values_map_in_order_and_back():
    labels = Labels.create([0, 128, 255])
    mask = np.array([[0, 128], [255, 0]], np.uint8)
    classes = labels.to_classes(mask)
    assert classes.tolist() == [[0, 1], [2, 0]] and classes.dtype == np.uint8
    assert (labels.to_values(classes) == mask).all()


def test_sixteen_bit_and_colour_values_survive():
    wide = Labels.create([0, 300, 60000])
    assert wide.to_values(wide.to_classes(np.array([[60000, 300]], np.int32))).tolist() == [[60000, 300]]
    red = Labels.create([0, 255, COLOUR + 0xFF0000])
    classes = red.to_classes(np.array([[COLOUR + 0xFF0000, 255, 0]], np.int32))
    assert classes.tolist() == [[2, 1, 0]]
    assert red.to_values(classes).tolist() == [[[255, 0, 0], [255, 255, 255], [0, 0, 0]]]


def test_blue_is_not_white():
    assert parse_value("#0000ff") == COLOUR + 255 != parse_value("255")
    assert parse_value("#808080") == 128
    assert value_text(COLOUR + 0xFF8000) == "#ff8000"


def test_unknown_value_names_file_and_value():
    with pytest.raises(InputError, match=r"a\.png: holds the unknown value 7"):
        Labels.create([0, 128]).to_classes(np.array([[0, 7]], np.uint8), "a.png")


def test_snapping_takes_the_nearest():
    labels = Labels.create([0, 128, 255], snap=True)
    assert labels.to_classes(np.array([[3, 100, 130, 250]], np.uint8)).tolist() == [[0, 1, 1, 2]]


def test_background_and_names():
    labels = Labels.create([0, 128, 255], background=255, class_names=["void", "bone"])
    assert (labels.background, labels.foreground, labels.names) == (2, (0, 1), ("void", "bone", "255"))
    assert "255 -> class 2 (background)" in labels.describe()
    assert Labels.from_dict(labels.as_dict()) == labels


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([0], {}, "at least two"),
        ([0, 1], {"background": 5}, "--background 5"),
        ([0, 1, 2], {"class_names": ["a"]}, "1 names"),
        ([0, 1, 2], {"class_names": ["a", "a"]}, "must differ"),
        (list(range(256)), {}, "255 classes"),
    ],
)
def test_bad_labels_are_refused(values, options, message):
    with pytest.raises(InputError, match=message):
        Labels.create(values, **options)
