"""Logits averaged over time: by hand, causal, and independent of batches."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sonogravity.common.messages import InputError
from sonogravity.datasets.clips import check_times, with_unlabelled
from sonogravity.datasets.frame_files import FrameFile
from sonogravity.datasets.frames import Frame
from sonogravity.datasets.inputs import WHOLE, Part
from sonogravity.datasets.labels import Labels
from sonogravity.datasets.pairs import Pair
from sonogravity.datasets.sequences import Region
from sonogravity.inference.segmentation import Requested, segment
from sonogravity.inference.smoothing import Smoothing
from sonogravity.metrics import confidence

LABELS = Labels.create([0, 255])
TIMES = (0.0, 0.1, 0.4)  # irregular


class Values:
    """A predictor whose logits are (0, the pixels of the frame). memory: the largest batch that fits."""

    labels = LABELS

    def __init__(self, memory=99):
        self.memory, self.buffer = memory, None

    def logits(self, frames):
        if len(frames) > self.memory:
            raise MemoryError
        seen = torch.from_numpy(np.stack([frame.images[1.0] for frame in frames]))
        return torch.stack([torch.zeros_like(seen), seen], 1)


def clip_of(values, times=None, stem="sweep"):
    """Frames of one clip of constant (2, 2) images."""
    sequence = SimpleNamespace(numbered=True, times=times, count=len(values))
    return [
        Frame(
            Pair(FrameFile(Path(f"{stem}.mkv"), stem, sequence, k)),
            {1.0: np.broadcast_to(np.float32(value), (2, 2)).copy()},
            None,
            (2, 2),
        )
        for k, value in enumerate(values)
    ]


def every(count, step=0.04):
    return [step * k for k in range(count)]


def labels_of(frames, seconds, batch_size=1, memory=99):
    smoothing = seconds and Smoothing(seconds)
    return [result.prediction for result in segment(Values(memory), frames, batch_size, smoothing=smoothing)]


def test_three_frames_at_irregular_times_by_hand():
    smoothing = Smoothing(0.2)
    found = [smoothing.smooth(torch.full((2, 1, 1), x), t) for x, t in zip((1.0, 0.0, 2.0), TIMES, strict=True)]
    second = math.exp(-0.5)  # 0.1 s of 0.2 s, times 1
    third = math.exp(-1.5) * second + (1 - math.exp(-1.5)) * 2
    torch.testing.assert_close(torch.stack(found)[:, 0, 0, 0], torch.tensor([1.0, second, third]))
    assert (round(second, 6), round(third, 6)) == (0.606531, 1.689075)


def test_an_average_is_not_changed_by_what_an_engine_writes_later():
    memory, smoothing = torch.ones(2, 1, 1), Smoothing(1.0)
    smoothing.smooth(memory, 0.0)
    memory.fill_(5)
    assert smoothing.smooth(torch.ones(2, 1, 1), 0.1).unique().tolist() == [1]


@pytest.mark.parametrize("time_s", [0.1, 0.05, math.nan], ids=["repeated", "earlier", "no number"])
def test_without_a_later_time_the_average_begins_anew(time_s):
    """With a weight of exp(0) = 1 a repeated time would keep the labels of the frame before for good."""
    smoothing = Smoothing(1.0)
    for x, t in ((1.0, 0.0), (1.0, 0.1)):
        smoothing.smooth(torch.full((2, 1, 1), x), t)
    assert smoothing.smooth(torch.full((2, 1, 1), 7.0), time_s).unique().tolist() == [7]


def test_the_next_clip_begins_with_its_own_frame():
    smoothing = Smoothing(1.0)
    smoothing.smooth(torch.full((2, 1, 1), 1.0), 0.0, "one")
    assert smoothing.smooth(torch.full((2, 1, 1), 7.0), 0.1, "other").unique().tolist() == [7]
    one, other = clip_of([9, 9], every(2), "one"), clip_of([-1, -1], every(2), "other")
    assert [map_.max() for map_ in labels_of([*one, *other], 5)] == [1, 1, 0, 0]
    assert [map_.max() for map_ in labels_of(clip_of([9, 9, -1, -1], every(4)), 5)] == [1, 1, 1, 1]


VALUES = [3, -1, -1, 2, -4, -0.5, 6, 1]


def test_a_later_frame_changes_no_earlier_label():
    before = labels_of(clip_of(VALUES, every(8)), 0.1)
    for k in range(1, 8):
        changed = [*VALUES[:k], *(-value for value in VALUES[k:])]
        np.testing.assert_array_equal(labels_of(clip_of(changed, every(8)), 0.1)[:k], before[:k])
    assert not np.array_equal(before, labels_of(clip_of(VALUES, every(8)), None)), "it is smoothed"


@pytest.mark.parametrize("memory", [99, 2, 1])
def test_labels_depend_neither_on_the_batch_nor_on_its_halves(memory):
    frames = clip_of(VALUES, every(8))
    expected = labels_of(frames, 0.1)
    assert 0 < np.mean(expected) < 1
    for batch_size in (2, 3, 8):
        np.testing.assert_array_equal(labels_of(frames, 0.1, batch_size, memory), expected)


def test_every_result_is_of_the_smoothed_logits_and_the_plain_map_is_kept():
    frames = clip_of([3, -1], every(2))
    requested = Requested(certainty=True)
    _, second = segment(Values(), frames, 2, requested=requested, smoothing=Smoothing(0.1))
    a = math.exp(-0.4)
    logits = torch.tensor([0, a * 3 - (1 - a)])[:, None, None].expand(2, 2, 2)
    expected = confidence.certainty(logits[None], np.ones((1, 2, 2), np.uint8), LABELS)[0]
    assert second.certainty == pytest.approx(expected)
    assert second.prediction.tolist() == [[1, 1], [1, 1]] and second.unsmoothed.tolist() == [[0, 0], [0, 0]]
    assert [each.unsmoothed for each in segment(Values(), frames, 2)] == [None, None]


def test_images_are_not_smoothed():
    clip = clip_of([9, -1], every(2))
    image = Frame(Pair(FrameFile(Path("a.png"))), {1.0: np.full((2, 2), -1, np.float32)}, None, (2, 2))
    results = list(segment(Values(), [clip[0], image, clip[1]], 3, smoothing=Smoothing(5)))
    assert [result.prediction.max() for result in results] == [1, 0, 1]
    assert results[1].unsmoothed is None


def test_the_plain_map_of_a_region_has_the_size_of_the_file():
    region = Region(1, 1, 1, 2, 2)
    frames = [
        Frame(frame.pair, frame.images, None, (2, 2), None, region, (4, 4)) for frame in clip_of([9, 9], every(2))
    ]
    for result in segment(Values(), frames, 2, smoothing=Smoothing(5)):
        np.testing.assert_array_equal(result.unsmoothed, np.pad(np.ones((2, 2)), 1))


def pairs_of(times, labelled, stem="sweep"):
    """Pairs of a clip's frames that have a mask."""
    images = [frame.pair.image for frame in clip_of(range(len(times)), times, stem)]
    return [Pair(images[k], FrameFile(Path(f"{stem}_{k:06d}.png"))) for k in labelled]


def test_frames_without_a_mask_are_put_back_before_those_with_one():
    image = Pair(FrameFile(Path("a.png")), FrameFile(Path("a.png")))
    pairs = [*pairs_of(every(8), (1, 2, 5)), image, *pairs_of(every(3), (2,), "other")]
    found = with_unlabelled(pairs, WHOLE)
    stems = [*(f"sweep_{k:06d}" for k in range(6)), "a", *(f"other_{k:06d}" for k in range(3))]
    assert [pair.stem for pair in found] == stems
    assert [pair for pair in found if pair.mask] == pairs
    limited = with_unlabelled(pairs_of(every(8), (5,)), Part(first=(0.12, True)))
    assert [pair.image.number for pair in limited] == [3, 4, 5], "predict starts at --from, too"


def images_of(*clips):
    return [frame.pair.image for frames in clips for frame in frames]


def test_what_cannot_be_smoothed_is_refused():
    with pytest.raises(InputError, match="no input has several frames of one clip; leave --smooth out"):
        check_times([FrameFile(Path("a.png")), *images_of(clip_of([1]))])
    with pytest.raises(InputError, match=r"stack.mkv: has no times, .*; leave --smooth out, or save the clip"):
        check_times(images_of(clip_of([1, 1], every(2)), clip_of([1, 1], None, "stack")))
    with pytest.raises(InputError, match=r"sweep.mkv: the times of its frames do not increase"):
        check_times(images_of(clip_of([1] * 3, [0, 0, 0])))
    assert check_times(images_of(clip_of([1] * 3, TIMES), clip_of([1], None, "single"))) == []
    assert check_times(images_of(clip_of([1] * 4, [0, 0.1, 0.1, 0.2]))) == [
        "sweep.mkv: 1 of 4 frames have no later time than the frame before; smoothing begins anew at these frames"
    ]
