"""Shapes of annotation tools: which pixels they hold, drawn by hand, and against a second implementation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonogravity.datasets import shapes


def drawn(text):
    """The bool array of a picture: one row per line, # inside."""
    return np.array([[letter == "#" for letter in row] for row in text.split()])


def test_a_pixel_belongs_to_a_polygon_if_its_centre_does():
    """The corners are those of a triangle whose edges pass close to pixel centres."""
    filled = shapes.polygon([(1, 1), (5.2, 1), (1, 5.2)]).fill((6, 6))
    expected = drawn("......  .####.  .###..  .##...  .#....  ......")
    np.testing.assert_array_equal(filled, expected)
    half = shapes.polygon([(0.5, 0.5), (2.5, 0.5), (2.5, 2.5), (0.5, 2.5)]).fill((4, 4))
    np.testing.assert_array_equal(half, drawn("##..  ##..  ....  ...."))


def test_rectangles_with_a_common_edge_neither_overlap_nor_leave_a_gap():
    edge = 2.5  # through pixel centres
    left, right = shapes.rectangle(0, 0, edge, 4), shapes.rectangle(edge, 0, 6, 4)
    total = left.fill((4, 6)).astype(int) + right.fill((4, 6))
    np.testing.assert_array_equal(total, np.ones((4, 6)))


@given(st.lists(st.tuples(*[st.floats(-3, 12)] * 2), min_size=4, max_size=9), st.integers(1, 8))
def test_two_polygons_along_one_line_share_no_pixel(corners, at):
    """A rectangle is cut along any line of corners from its top to its bottom."""
    line = [(4.0, 0.0), *sorted(((x, min(max(y, 0.1), 9.9)) for x, y in corners), key=lambda p: p[1]), (5.0, 10.0)]
    line = [(min(max(x, 0.1), 9.9), y) for x, y in line]
    left = shapes.polygon([(0, 0), *line, (0, 10)])
    right = shapes.polygon([(10, 0), *line, (10, 10)])
    total = left.fill((10, 10)).astype(int) + right.fill((10, 10))
    assert (total == 1).all()


def by_points(corners, size):
    """The even-odd rule, pixel by pixel."""
    filled = np.zeros(size, bool)
    ends = list(zip(corners, [*corners[1:], corners[0]], strict=True))
    for row in range(size[0]):
        for column in range(size[1]):
            x, y = column + 0.5, row + 0.5
            for (x0, y0), (x1, y1) in ends:
                if (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
                    filled[row, column] ^= True
    return filled


@given(st.lists(st.tuples(*[st.floats(-5, 15, width=16)] * 2), min_size=3, max_size=8))
def test_polygons_equal_the_rule_applied_to_each_point(corners):
    eighths = [(x + 0.0625, y + 0.03125) for x, y in corners]  # no corner has the height of a pixel centre
    size = (9, 11)
    np.testing.assert_array_equal(shapes.polygon(eighths).fill(size), by_points(eighths, size))


def test_a_hole_is_a_second_turn_of_one_polygon_but_parts_are_joined():
    outer, inner = [(0, 0), (6, 0), (6, 6), (0, 6)], [(2, 2), (4, 2), (4, 4), (2, 4)]
    keyhole = shapes.polygon([*outer, outer[0], *inner, inner[0]]).fill((6, 6))
    assert keyhole.sum() == 32 and not keyhole[2:4, 2:4].any()
    assert shapes.polygons([outer, inner]).fill((6, 6)).all()


def test_shapes_beyond_the_image_are_cut():
    assert shapes.polygon([(-5, -5), (50, -5), (50, 50), (-5, 50)]).fill((4, 5)).all()
    assert not shapes.polygon([(-5, -5), (-1, -5), (-1, -1)]).fill((4, 5)).any()
    block = np.ones((3, 3), bool)
    for top, left, count in ((-1, -1, 4), (2, 3, 4), (0, 0, 9), (-5, 0, 0), (9, 0, 0), (0, 9, 0), (0, -9, 0)):
        assert shapes.runs_of(block, top, left).fill((4, 5)).sum() == count, (top, left)
    large = shapes.runs_of(np.ones((9, 9), bool), -2, -3).fill((4, 5))
    assert large.all()


def test_ellipses_and_rotated_rectangles():
    circle = shapes.Ellipse((3, 3), (2, 2)).fill((6, 6))
    np.testing.assert_array_equal(circle, drawn("......  ..##..  .####.  .####.  ..##..  ......"))
    turned = shapes.Ellipse((4, 4), (3, 1), 90).fill((8, 8))
    np.testing.assert_array_equal(turned, shapes.Ellipse((4, 4), (1, 3)).fill((8, 8)))
    clockwise = shapes.Ellipse((8, 8), (7, 1), 30).fill((16, 16))  # its right end is lower, because y points down
    assert clockwise[:, 12:].nonzero()[0].mean() > 8 > clockwise[:, :4].nonzero()[0].mean()
    assert not shapes.Ellipse((3, 3), (0, 2)).fill((6, 6)).any()
    box = shapes.rectangle(1, 3, 7, 5, 90).fill((8, 8))
    np.testing.assert_array_equal(box, shapes.rectangle(3, 1, 5, 7).fill((8, 8)))
    slanted = shapes.rectangle(1, 7, 15, 9, 30).fill((16, 16))
    assert slanted[:, 12:].nonzero()[0].mean() > 8 > slanted[:, :4].nonzero()[0].mean()


def test_runs_go_along_rows_or_down_columns():
    rows = shapes.runs([1, 2, 3], 1, 2, 2, 3).fill((4, 6))
    np.testing.assert_array_equal(rows, drawn("......  ...##.  ......  ......"))
    columns = shapes.runs([1, 2, 3], 1, 2, 2, 3, by_columns=True).fill((4, 6))
    np.testing.assert_array_equal(columns, drawn("......  ...#..  ..#...  ......"))
    for wrong in ([1, 2], [7], [8, -2], [0, 0]):
        with pytest.raises(ValueError, match="runs of"):
            shapes.runs(wrong, 0, 0, 2, 3)
    with pytest.raises(ValueError, match="runs of"):
        shapes.runs([10**12], 0, 0, 10**6, 10**6)


def test_the_last_shape_lies_on_top():
    below, above = shapes.rectangle(0, 0, 4, 4), shapes.rectangle(2, 2, 6, 6)
    speck = shapes.polygon([(0.1, 0.1), (0.2, 0.1), (0.1, 0.2)])
    mask, lost = shapes.draw([below, above, speck], [1, 2, 3], (6, 6))
    assert np.bincount(mask.ravel()).tolist() == [36 - 28, 12, 16] and mask[2, 2] == 2
    assert lost == {2: "holds no pixel centre of the image"}
    hidden = shapes.rectangle(1, 1, 2, 2)
    assert shapes.draw([hidden, below], [1, 2], (6, 6))[1] == {0: "lies below others as a whole"}
    assert shapes.draw([below], [300], (6, 6))[0].max() == 300


@given(st.integers(0, 2**32), st.integers(1, 9), st.integers(1, 9))
def test_runs_of_pixels_hold_these_pixels(seed, height, width):
    pixels = np.random.default_rng(seed).random((height, width)) < 0.5
    np.testing.assert_array_equal(shapes.runs_of(pixels, 0, 0).fill((height, width)), pixels)


def test_polygons_need_three_corners_that_are_numbers():
    with pytest.raises(ValueError, match="2 corners"):
        shapes.polygon([(0, 0), (1, 1)])
    for wrong in (np.nan, np.inf, -1e9):
        with pytest.raises(ValueError, match="a coordinate is no number, or far outside"):
            shapes.polygon([(0, 0), (1, 1), (wrong, 2)])
        with pytest.raises(ValueError, match="a coordinate is no number, or far outside"):
            shapes.ellipse(1, 1, wrong, 2)
