"""Read videos: MP4, AVI, MOV, MKV, WebM, and the videos inside DICOM files.

A video is decoded twice. The first time counts the frames, because the number in the file is missing or wrong in many
videos, and finds damaged parts before any other work is done. Only a few frames are in memory.
"""

import functools
import itertools
import re

import numpy as np

from sonogravity.common.files import absolute
from sonogravity.common.messages import InputError, first_line, say
from sonogravity.datasets.image_files import MAX_PIXELS
from sonogravity.datasets.in_order import KEPT, InOrder
from sonogravity.datasets.sequences import need

LIMITED, FULL = 1, 2  # FFmpeg's color_range. Limited: 16 is black and 235 is white (ITU-R BT.601), full: 0 and 255
# FFmpeg's names of the formats that are read. Others, such as play lists, make FFmpeg open further files or addresses.
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm,asf,mpeg,mpegts,mpegvideo,h264,hevc"
# Formats in which a frame is found by its time stamp. In others FFmpeg may give another frame of the same stamp.
SEEKABLE = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi")
LONG_S = 300  # from which the user is told why nothing happens
EARLY = 1.5  # frames that may be missing at the end before a video counts as truncated


class Video(InOrder):
    """The frames of a video. source: returns a path or a new binary file to open."""

    def __init__(self, path, source=None):
        need(path, "videos", "av")
        super().__init__(path)
        self._source = source or (lambda: str(absolute(path)))
        self._container = self._frames = None
        self._number_of = {}  # presentation time stamp -> number; empty if the stamps do not tell the frames apart
        self._stamps = []
        self._last_s = 0  # duration of the last frame; 0 if it is not known
        size, times, ended = self._look()
        self._set(len(times), size)
        self.times = None if None in times else [time - times[0] for time in times]
        if self.times and self._last_s:
            self.end_s = self.times[-1] + self._last_s
        if ended:
            self.cut_to(len(times), ended)

    def _begin(self):
        import av

        self._end()
        try:
            self._container = av.open(self._source(), options={"format_whitelist": FORMATS})
        except av.FFmpegError as error:
            raise ValueError(f"{_reason(error)}: no video, or a recording that was interrupted") from error
        video = self._container.streams.video
        if not video:
            raise InputError(f"{self.path}: holds no video; leave it out")
        if video[0].codec_context is None:
            raise InputError(f"{self.path}: no decoder is installed for its video; convert it to MP4 with H.264")
        video[0].thread_type = "AUTO"
        video[0].codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        self._frames = self._container.decode(video[0])

    def _next(self):
        import av

        try:
            return next(self._frames)
        except av.FFmpegError as error:
            raise ValueError(_reason(error)) from error
        except StopIteration:
            raise ValueError("the video has changed since it was opened") from None

    def _end(self):
        if self._container is not None:
            self._container.close()
        self._container = self._frames = None

    def _seek(self, number):
        """Move to the key frame before ``number``, or to the first frame."""
        if self._number_of and self._container.format.name in SEEKABLE:
            stream = self._container.streams.video[0]
            self._container.seek(self._stamps[number], stream=stream)
            frames = self._container.decode(stream)
            frame = next((frame for frame in frames if frame.key_frame), None)  # those before it lack references
            found = self._number_of.get(frame.pts) if frame is not None else None
            if found is not None and found <= number:
                self._frames = itertools.chain([frame], frames)
                return found
        self._begin()
        return 0

    def _look(self):
        """Decode all frames. Return (H, W), the time of each frame in s, and why the video ends early, else None."""
        import av

        size, times, ended = None, [], None
        self._begin()
        seconds = (self._container.duration or 0) / 1e6
        if seconds > LONG_S:
            say(f"{self.path}: {seconds:.0f} s of video; its frames are counted first")
        try:
            for frame in self._frames:
                if frame.is_corrupt:
                    ended = f"the video is damaged in frame {len(times)}"
                    break
                shown = (frame.width, frame.height) if frame.rotation % 180 else (frame.height, frame.width)
                if size not in (None, shown):
                    raise InputError(
                        f"{self.path}: frame {len(times)} is {shown[1]}x{shown[0]}, but the frames before are "
                        f"{size[1]}x{size[0]} (width x height); save frames of different sizes as separate files"
                    )
                size = shown
                times.append(frame.time)
                self._stamps.append(frame.pts)
                self._last_s = float((frame.duration or 0) * frame.time_base) if frame.time_base else 0
        except av.FFmpegError as error:
            ended = f"the video is damaged in frame {len(times)} ({_reason(error)})"
        if None not in times and any(later < before for before, later in itertools.pairwise(times)):
            times = [None] * len(times)  # of packets, as AVI stores them, not of frames
        missing = self._missing_seconds(times)
        self._end()
        if not times:
            raise InputError(f"{self.path}: holds no frame that can be read; replace or remove the file")
        if missing and not ended:
            ended = f"the video ends after frame {len(times) - 1}, {missing:.2f} s before the end that it declares"
        if ended:
            times = times[: _without_gap(times)]
            self._stamps = self._stamps[: len(times)]
        if None not in self._stamps and len(set(self._stamps)) == len(self._stamps):
            self._number_of = {stamp: number for number, stamp in enumerate(self._stamps)}
        return size, times, ended

    def _missing_seconds(self, times):
        """Return by how many seconds the frames end before the end that the file declares, 0 if they do not."""
        stream = self._container.streams.video[0]
        if None in times and self._container.format.name == "avi" and stream.average_rate:
            lacking = stream.frames - len(times)
            return lacking / float(stream.average_rate) if lacking > EARLY else 0
        if len(times) < 2 or None in times:
            return 0
        step = float(np.median(np.diff(times)))  # the mean would be longer by the very frames that are missing
        missing = self._declared_seconds() - (times[-1] - times[0] + max(step, self._last_s))
        return missing if missing > EARLY * step else 0

    def _declared_seconds(self):
        """Return the length of the video that the file declares, 0 if it does not; sound may be longer."""
        stream = self._container.streams.video[0]
        if self._container.format.name == "avi" and stream.average_rate:  # whose duration is that of what is left
            return stream.frames / float(stream.average_rate)
        if stream.duration:
            return stream.duration * float(stream.time_base)
        if found := re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", "")):  # Matroska
            hours, minutes, seconds = map(float, found.groups())
            return 3600 * hours + 60 * minutes + seconds
        return (self._container.duration or 0) / 1e6 if len(self._container.streams) == 1 else 0

    def _read(self, number, grey):
        frame = self._frame(number)
        array = luminance(frame) if grey else None
        array = frame.to_ndarray(format="rgb24") if array is None else array
        if frame.rotation % 90:
            raise ValueError(f"is rotated by {frame.rotation} degrees")
        return np.ascontiguousarray(np.rot90(array, frame.rotation // 90))

    def _read_values(self, number):
        raise InputError(f"{self.path}: is a video, whose compression changes values; give masks as PNG or as a stack")


def _reason(error):
    """Return the text of an error of FFmpeg, without its number and the name of the function."""
    return getattr(error, "strerror", None) or first_line(error)


def _without_gap(times):
    """Return how many frames of a damaged video, of these times, are before the first of its last frames to be missing.

    Frames are stored in another order than they are shown, so the last ones that a damaged file holds are not
    successive.
    """
    if None in times or len(times) < 3:
        return max(1, len(times) - KEPT)
    steps = np.diff(times)
    first = max(0, len(steps) - KEPT)
    gaps = first + np.flatnonzero(steps[first:] > EARLY * np.median(steps))
    return int(gaps[0]) + 1 if len(gaps) else len(times)


def luminance(frame):
    """Return the (H, W) grey levels of a decoded frame, uint8 or uint16, 0 for black; None if it is stored as RGB."""
    form = frame.format
    first = form.components[0]
    if form.is_rgb or form.has_palette or not first.is_luma or not (form.is_planar or form.name.startswith("gray")):
        return None
    kind = np.dtype("u1" if first.bits <= 8 else ">u2" if form.is_big_endian else "<u2")
    plane = frame.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: frame.height]
    levels = rows.view(kind)[:, : frame.width]
    grey = form.name.startswith("gray")
    if frame.color_range == LIMITED or (frame.color_range != FULL and not grey and not form.name.startswith("yuvj")):
        return _from_limited(first.bits)[levels]
    if first.bits > 8 and not grey:
        return (levels >> (first.bits - 8)).astype(np.uint8)
    return np.array(levels, kind.newbyteorder("="))


@functools.cache
def _from_limited(bits):
    """Return the 8-bit grey level of each level of the limited range."""
    levels = np.arange(2 ** (8 if bits <= 8 else 16)) / 2 ** (bits - 8)
    return np.rint((levels - 16) * (255 / 219)).clip(0, 255).astype(np.uint8)
