"""Write the overlay video of each clip: the frames with contours, and a strip with names, confidence and time."""

import importlib.util
import itertools
import math
import threading
from bisect import bisect_left
from contextlib import ExitStack
from fractions import Fraction

import numpy as np

from sonogravity.common import file_names, files
from sonogravity.common.messages import InputError, say, some
from sonogravity.datasets.sequences import EXTRA
from sonogravity.metrics.columns import EXPECTED_DICE
from sonogravity.reporting.overlay_planes import BT709, LIMITED, above, even_sized, frame_of, mark, planes_of
from sonogravity.reporting.overlay_strip import Details, Strip
from sonogravity.reporting.pictures import class_colours, contour_marks, to_8_bit

ENCODER = "libx264"
# The fastest preset that keeps the noise of ultrasound at a tolerable size. Without B-frames, packets are in the order
# of the frames, so that their times and durations are exact.
X264 = {"preset": "superfast", "crf": "20", "bf": "0", "g": "50"}
TICKS = 90_000  # per second: times that are whole numbers of ms, or of frames at usual rates, stay exact
RATE = 10  # frames per second of a clip without times
LARGEST_SIDE = 8192  # px, of the frames without the strip: players take no larger videos
LONGEST_STEP_S = 3600  # between two frames; times beyond it cannot be meant


def is_small_enough(image):
    """Return whether a FrameFile of a clip can be shown in a video."""
    region = image.sequence.region
    return max(image.sequence.size if region is None else (region.height, region.width)) <= LARGEST_SIDE


def reason_for_none():
    """Return why no video can be written here, and the remedy; None if one can."""
    if importlib.util.find_spec("av") is None:
        return f"av must be installed; {EXTRA}"
    import av

    if ENCODER not in av.codecs_available:
        # The line of the extra would do nothing, because PyAV is installed.
        return (
            f"the installed PyAV has no encoder {ENCODER}, as its own wheels have; run pip install --force-reinstall av"
        )
    return None


def end_times(sequence, numbers):
    """Return the seconds at which frames of a sequence end, from the start of the first. numbers: ascending.

    A frame ends when the next one starts. The last frame of the file lasts as long as the file says, else as long as
    the median frame. Return None if the file gives no times, or times that cannot be those of a video.
    """
    times = sequence.times
    if not times or not all(map(math.isfinite, times)):
        return None
    steps = np.diff(times)
    if not len(steps) or steps.min() < 0 or not 0 < steps.max() <= LONGEST_STEP_S:
        return None
    if numbers[-1] + 1 < len(times):
        end = times[numbers[-1] + 1]
    else:
        end = sequence.end_s if sequence.end_s is not None else times[-1] + float(np.median(steps))
    return [time - times[numbers[0]] for time in (*(times[number] for number in numbers[1:]), end)]


class OverlayVideos:
    """The overlay videos of one run of predict. pairs: those of the frames that are shown, clip by clip.

    folder: of the videos. One of them is open at a time.
    """

    def __init__(self, folder, labels, pairs):
        self._folder, self._labels = folder, labels
        self._numbers = {}  # path of a clip -> numbers of its frames
        for pair in pairs:
            self._numbers.setdefault(pair.image.path, []).append(pair.image.number)
        self._check({pair.image.path: pair.image for pair in pairs}.values())
        self._lock = threading.Lock()
        self._clips = {}  # path -> the _Clip of which frames are drawn
        self._open = ExitStack()
        self._writer = None  # of the video in progress

    def _check(self, images):
        for one, other in itertools.pairwise(sorted(images, key=lambda image: image.file_stem.casefold())):
            if one.file_stem.casefold() == other.file_stem.casefold():
                raise InputError(f"{one.path} and {other.path} have the same stem, so the same output name; rename one")
        timeless = [image.path.name for image in images if end_times(image.sequence, self._numbers[image.path]) is None]
        if timeless:
            say(
                f"{len(timeless)} clips give no usable times ({some(timeless)}): their overlay videos "
                f"show {RATE} frames per second"
            )

    def draw(self, result, row, image):
        """Return a frame of the video for ``append``. Several threads may call it.

        row: of files.csv. image: (H, W) or (H, W, 3), what the network saw, at native size.
        """
        return self._clip_of(result).draw(result, row, image)

    def _clip_of(self, result):
        file = result.frame.pair.image
        with self._lock:
            if file.path not in self._clips:
                self._clips[file.path] = _Clip(self._labels, file, result.frame.size, self._numbers[file.path])
            return self._clips[file.path]

    def append(self, pair, picture):
        """Append a frame to the video of its clip. Frames come in order. picture: from draw; None for other frames."""
        if picture is None:
            return
        numbers = self._numbers[pair.image.path]
        if self._writer is None:
            path = self._folder / file_names.overlay_name(pair.image.file_stem)
            beside = self._open.enter_context(files.whole(path))
            ends = end_times(pair.image.sequence, numbers)
            self._writer = _Writer(beside, picture, ends or [(k + 1) / RATE for k in range(len(numbers))])
            self._open.callback(self._writer.close)
        self._writer.add(picture)
        if pair.image.number == numbers[-1]:
            self._writer.finish()
            self._writer = None
            self._open.close()
            with self._lock:
                del self._clips[pair.image.path]

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is not None:  # a video that is not complete must not appear
            self._open.__exit__(kind, error, trace)


class _Clip:
    """What the frames of one clip share when they are drawn. size: (H, W) of what the network sees."""

    def __init__(self, labels, file, size, numbers):
        self._labels, self._file, self._size = labels, file, size
        times = file.sequence.times if end_times(file.sequence, numbers) else None
        self._last_time = times[numbers[-1]] if times else None
        time = self._time_text(self._last_time, smoothed=True)
        longest = Details({}, file_names.frame_name(file.file_stem, numbers[-1]), time, True)
        self._strip = Strip(labels, size, longest)
        self._lock = threading.Lock()
        self._white = None

    def _time_text(self, time_s, smoothed):
        text = f"no times, {RATE} frames per s" if self._last_time is None else f"{time_s:.3f} s"
        return text + ", smoothed over time" * smoothed

    def _maximum(self, image):
        """Return the 16-bit level that is white in all frames of the clip, because the video would flicker otherwise.

        It is the most that the bits of the first, the middle and the last frame hold.
        """
        if image.dtype != np.uint16:
            return None
        with self._lock:
            if self._white is None:
                sequence = self._file.sequence
                numbers = {0, sequence.count // 2, sequence.count - 1}
                largest = max(int(sequence.read(number, 1).max()) for number in numbers)
                self._white = max(1, 2 ** largest.bit_length() - 1)
        return self._white

    def draw(self, result, row, image):
        """Return the frame of the video, an av.VideoFrame."""
        labels, file = self._labels, result.frame.pair.image
        columns = {c: f"{EXPECTED_DICE}_{labels.names[c]}" for c in labels.foreground}
        details = Details(
            {c: row.get(name, math.nan) for c, name in columns.items()},
            file.stem,
            self._time_text(file.time_s, smoothed=result.unsmoothed is not None),
            (result.frame.unlike or 0) > 1,
        )
        planes = planes_of(even_sized(to_8_bit(image, self._maximum(image))))
        prediction = even_sized(result.frame.seen(result.prediction))
        mark(planes, contour_marks(prediction, labels), class_colours(labels))
        return frame_of([above(plane, below) for plane, below in zip(planes, self._strip.draw(details), strict=True)])


class _Writer:
    """An open MP4 file. picture: a frame of its size. ends: the seconds at which its frames end, from its start."""

    def __init__(self, path, picture, ends):
        import av

        self._starts = [0]
        for end in ends:  # frames that start together, or nearly so, are one tick apart
            self._starts.append(max(self._starts[-1] + 1, round(end * TICKS)))
        self._number = 0
        options = {"movflags": "faststart", "movie_timescale": str(TICKS)}
        self._container = av.open(str(files.absolute(path)), "w", format="mp4", options=options)
        stream = self._container.add_stream(ENCODER, rate=_usual_rate(self._starts), options=X264)
        stream.width, stream.height, stream.pix_fmt = picture.width, picture.height, "yuv420p"
        context = stream.codec_context
        context.time_base, context.thread_count = Fraction(1, TICKS), 1
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = LIMITED
        self._stream = stream

    def add(self, picture):
        """Encode the next frame."""
        picture.pts, picture.time_base = self._starts[self._number], Fraction(1, TICKS)
        self._number += 1
        self._write(picture)

    def finish(self):
        """Encode what the encoder holds back, and complete the file."""
        self._write(None)
        self._container.close()

    def close(self):
        """Close the file, complete or not."""
        self._container.close()

    def _write(self, picture):
        for packet in self._stream.encode(picture):
            place = bisect_left(self._starts, packet.pts)
            packet.duration = self._starts[place + 1] - packet.pts
            self._container.mux(packet)


def _usual_rate(starts):
    """Return the frames per second of the median frame, which the encoder only takes as a hint."""
    return Fraction(TICKS, max(1, int(np.median(np.diff(starts))))).limit_denominator(1001)
