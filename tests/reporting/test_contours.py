"""Contours of classes on small arrays drawn by hand."""

import numpy as np

from sonogravity.datasets.labels import Labels
from sonogravity.reporting import pictures

LABELS = Labels.create([0, 128, 255])


def classes_of(*rows):
    """Class indices from rows of digits; a point is background."""
    return np.array([[int(each.replace(".", "0")) for each in row] for row in rows], np.uint8)


def drawn(classes, width=1, background=0):
    """The contours as text: the class, ``-`` for the outline, a point elsewhere."""
    lines, outline = pictures.contours(classes, background, width)
    assert not set(lines) & set(outline)
    text = np.full(classes.size, ".")
    text[outline] = "-"
    text[lines] = classes.ravel()[lines]
    return ["".join(row) for row in text.reshape(classes.shape)]


def test_a_contour_is_the_rim_of_its_class_and_the_outline_lies_around_it():
    classes = classes_of("......", ".1111.", ".1111.", ".1111.", ".1111.", "......")
    assert drawn(classes) == [".----.", "-1111-", "-1..1-", "-1..1-", "-1111-", ".----."]


def test_a_wider_contour_grows_into_its_class():
    classes = np.pad(np.ones((6, 6), np.uint8), 1)
    found = drawn(classes, width=2)
    assert found[1:4] == ["-111111-", "-111111-", "-11..11-"]
    assert drawn(classes, width=4)[3:5] == ["-111111-", "-111111-"], "it ends within the class"


def test_classes_that_touch_have_a_contour_each_and_no_outline_between():
    classes = classes_of("111222", "111222", "111222", "111222", "......", "......")
    assert drawn(classes) == ["..12..", "..12..", "..12..", "111222", "------", "......"]


def test_the_edge_of_the_image_is_no_contour():
    assert drawn(classes_of(*["111111"] * 6)) == ["......"] * 6
    assert drawn(classes_of("111...", "111...", "111...", "......", "......", "......"))[:4] == [
        "..1-..",
        "..1-..",
        "111-..",
        "---...",
    ]


def test_a_frame_of_background_has_none_and_one_pixel_is_its_own_contour():
    assert drawn(np.zeros((6, 6), np.uint8)) == ["......"] * 6
    assert drawn(np.zeros((1, 1), np.uint8), width=3) == ["."]
    assert drawn(classes_of(".....", "..2..", "....."), width=3)[1] == ".-2-."


def test_the_background_may_be_any_class():
    assert drawn(classes_of("222", "202", "222"), background=2) == [".-.", "-0-", ".-."]


def test_the_contour_is_opaque_and_the_tissue_inside_stays_visible():
    image = np.random.default_rng(0).integers(0, 256, (800, 40), dtype=np.uint8)
    classes = np.zeros(image.shape, np.uint8)
    classes[100:140, 10:30] = 1
    frame = pictures.grey_to_rgb(image)
    laid = pictures.contour_overlay(frame, classes, LABELS)
    colour = pictures.class_colours(LABELS)[1]
    assert (laid[100:140, 10:12] == colour).all() and (laid[138:140, 10:30] == colour).all(), "2 px wide at 800 rows"
    assert (laid[100:140, 9] == 0).all() and (laid[140, 10:30] == 0).all(), "beside it a dark outline"
    inside = laid[102:138, 12:28].astype(int) - frame[102:138, 12:28]
    assert 0 < abs(inside).max() <= 255 * pictures.FAINT + 1
    untouched = np.ones(image.shape, bool)
    untouched[99:141, 9:31] = False
    np.testing.assert_array_equal(laid[untouched], frame[untouched])
    np.testing.assert_array_equal(frame, pictures.grey_to_rgb(image), "the frame itself does not change")


def test_16_bit_levels_of_a_clip_are_shown_at_one_scale():
    levels = np.array([[0, 500, 1000, 3000]], np.uint16)
    assert pictures.to_8_bit(levels, 1000)[0].tolist() == [0, 127, 255, 255]
    assert pictures.to_8_bit(levels)[0].tolist() == [0, 42, 85, 255]
