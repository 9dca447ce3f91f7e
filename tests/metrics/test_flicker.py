"""The share of pixels whose label changes from a frame to the next, by hand."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sonogravity.datasets.frame_files import FrameFile
from sonogravity.metrics.flicker import FLICKER, TRUE_FLICKER, UNSMOOTHED, Flicker

SEQUENCE = SimpleNamespace(numbered=True, times=None)


def map_of(rows):
    return np.array([list(row) for row in rows.split("/")], np.uint8)


def counted(*frames):
    """The summary of (clip, number, prediction, without smoothing, truth)."""
    flicker = Flicker()
    for clip, number, *maps in frames:
        names = zip((FLICKER, UNSMOOTHED, TRUE_FLICKER), [*maps, None, None], strict=False)
        image = FrameFile(Path(f"{clip}.mkv"), clip, SEQUENCE, number)
        flicker.add(image, {name: None if text is None else map_of(text) for name, text in names})
    return flicker.summary()


def test_the_mean_share_of_changed_pixels():
    found = counted(("a", 0, "01/00"), ("a", 1, "01/20"), ("a", 2, "10/20"))  # 1 of 4, 2 of 4
    assert found == {"a": {"frames": 3, "flicker": 0.375, "flicker_n": 2}}


def test_six_by_six():
    before = "000000/011000/011000/000000/000220/000000"
    after = "000000/001100/001100/000000/000110/000000"  # a box moves by a column, another changes its class
    assert counted(("a", 0, before), ("a", 1, after))["a"]["flicker"] == 6 / 36


def test_only_successive_numbers_of_one_clip_are_pairs():
    zero, one = "00/00", "11/11"
    found = counted(("a", 0, zero), ("a", 1, zero), ("a", 3, one), ("b", 4, zero), ("b", 5, one), ("c", 0, zero))
    assert found == {
        "a": {"frames": 3, "flicker": 0.0, "flicker_n": 1},
        "b": {"frames": 2, "flicker": 1.0, "flicker_n": 1},
    }


def test_smoothing_and_truth_are_counted_over_the_same_pairs():
    frames = [("a", 0, "00/00", "00/00", "00/00"), ("a", 1, "00/01", "11/11", "00/11"), ("a", 2, "00/01", "00/00")]
    found = counted(*frames[:2])["a"]
    assert found == {
        "frames": 2,
        "flicker": 0.25,
        "flicker_n": 1,
        "flicker_without_smoothing": 1.0,
        "true_flicker": 0.5,
    }
    found = counted(*frames)["a"]
    assert found["flicker"] == 0.125 and found["flicker_without_smoothing"] == 1
    assert "true_flicker" not in found, "the last pair has no truth"


def test_images_have_no_flicker():
    flicker = Flicker()
    for _ in range(2):
        flicker.add(FrameFile(Path("a_000000.png")), {FLICKER: map_of("0"), UNSMOOTHED: None, TRUE_FLICKER: None})
    assert flicker.summary() == {}


@pytest.mark.parametrize("count", [2, 1000])
def test_counts_of_long_clips_do_not_overflow(count):
    image, maps = SimpleNamespace(clip="a"), [{FLICKER: np.full((800, 740), k % 2, np.uint8)} for k in range(2)]
    flicker = Flicker()
    for number in range(count):
        image.number = number
        flicker.add(image, maps[number % 2])
    assert flicker.summary()["a"] == {"frames": count, "flicker": 1.0, "flicker_n": count - 1}
