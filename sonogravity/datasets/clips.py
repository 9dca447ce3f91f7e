"""Frames of clips in the order of their times, as smoothing needs them."""

from dataclasses import replace
from itertools import pairwise

from sonogravity.common.messages import InputError
from sonogravity.datasets.pairs import Pair

REMEDY = "leave --smooth out, or save the clip in a format with the time of each frame (DICOM, video)"


def with_unlabelled(pairs, part):
    """Return the Pairs and, before each frame of a clip, Pairs without a mask of the clip's frames that are missing.

    pairs: in order. part: a Part of the frames; none outside it is added.
    """
    whole, reached = [], {}
    for pair in pairs:
        image = pair.image
        if image.is_numbered:
            missing = (replace(image, number=number) for number in range(reached.get(image.path, 0), image.number))
            whole += [Pair(frame) for frame in missing if part.holds(frame.number, frame.time_s, frame.path)]
            reached[image.path] = image.number + 1
        whole.append(pair)
    return whole


def check_times(images):
    """Return notes on clips of which some times do not increase. images: the FrameFiles of all inputs, in order.

    Raise InputError if no clip has several frames, or if one that has gives no times, or times that never increase.
    """
    clips, notes = {}, []
    for image in images:
        if image.is_numbered:
            clips.setdefault(image.path, []).append(image.time_s)
    clips = {path: times for path, times in clips.items() if len(times) > 1}
    if not clips:
        raise InputError(
            "--smooth averages over successive frames of a clip, but no input has several frames of one clip; leave "
            "--smooth out"
        )
    for path, times in clips.items():
        if None in times:
            raise InputError(f"{path}: has no times, so --smooth cannot be used; {REMEDY}")
        later = sum(time > before for before, time in pairwise(times))
        if later == 0:
            raise InputError(f"{path}: the times of its frames do not increase, so --smooth cannot be used; {REMEDY}")
        if without := len(times) - 1 - later:
            notes.append(
                f"{path}: {without} of {len(times)} frames have no later time than the frame before; smoothing begins "
                "anew at these frames"
            )
    return notes
