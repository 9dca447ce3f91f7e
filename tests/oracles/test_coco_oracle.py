"""Run lengths and polygons of COCO against pycocotools, the reference implementation."""

import numpy as np
import pytest
from annotation_files import run_lengths, write_coco
from hypothesis import given
from hypothesis import strategies as st

from sonogravity.datasets import shapes
from sonogravity.datasets.annotation_pairs import read_annotations

coco_mask = pytest.importorskip("pycocotools.mask")


@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 40))
def test_compressed_run_lengths_are_read_as_pycocotools_reads_them(seed, height, width):
    rng = np.random.default_rng(seed)
    pixels = np.repeat(np.repeat(rng.random((height, width)) < rng.random(), 3, 0), 5, 1)
    stored = coco_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))
    lengths = shapes.lengths_of_text(stored["counts"].decode())
    assert lengths == run_lengths(pixels.ravel(order="F"))
    filled = shapes.runs(lengths, 0, 0, *pixels.shape, by_columns=True).fill(pixels.shape)
    np.testing.assert_array_equal(filled, pixels)


def test_a_large_mask_with_long_runs(tmp_path):
    rows, columns = np.mgrid[:800, :740]
    pixels = (rows - 400) ** 2 + (columns - 300) ** 2 < 90_000
    stored = coco_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))
    segmentation = {"size": list(pixels.shape), "counts": stored["counts"].decode()}
    path = write_coco(tmp_path / "a.json", {"a.png": [("bone", segmentation)]}, pixels.shape, {"bone": 1})
    (drawing,) = read_annotations(path).drawings
    np.testing.assert_array_equal(drawing.shapes[0].area.fill(pixels.shape), pixels)


def test_polygons_agree_but_for_the_rounding_of_pycocotools():
    """pycocotools rounds corners to a fifth of a pixel, so only pixels beside the edge may differ."""
    angles = np.linspace(0, 2 * np.pi, 30, endpoint=False)
    corners = np.c_[150 + 90.3 * np.cos(angles), 100 + 60.7 * np.sin(angles)]
    runs = coco_mask.frPyObjects([corners.ravel().tolist()], 200, 300)
    theirs, own = coco_mask.decode(runs)[:, :, 0].astype(bool), shapes.polygon(corners).fill((200, 300))
    assert (theirs != own).sum() < 0.02 * own.sum()
    inner, outer = (shapes.polygon(_scaled(corners, factor)).fill((200, 300)) for factor in (0.99, 1.01))
    assert not (inner & ~theirs).any() and not (theirs & ~outer).any()


def _scaled(corners, factor):
    centre = corners.mean(0)
    return centre + (corners - centre) * factor
