"""Sources of live frames: files and folders of the readers, played in their own time."""

import math
import statistics
import time
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sonogravity.common.messages import InputError, warn
from sonogravity.datasets.frame_files import FrameFile, read_image, size_of
from sonogravity.datasets.spacing import Spacing

STILLS_PER_S = 10  # frames per second of images, and of clips without times
LATE_S = 0.1  # from which a source no longer tries to make up for lost time
SLOW_S = 1.0  # of lost time, from which it is said


@dataclass(frozen=True)
class Crop:
    """A rectangle of a frame in pixels."""

    left: int
    top: int
    width: int
    height: int

    def of(self, image):
        """Return the (height, width, ...) part of an (H, W, ...) image. Raise InputError if it leaves the image."""
        self.check(image.shape[:2], "the frame")
        return image[self.top : self.top + self.height, self.left : self.left + self.width]

    def check(self, size, name):
        """Raise InputError, which begins with ``name``, if the rectangle is not inside a frame of (H, W)."""
        height, width = size
        if self.left + self.width > width or self.top + self.height > height:
            raise InputError(
                f"{name}: is {width}x{height} (width x height), but --crop {self} reaches to column "
                f"{self.left + self.width} and row {self.top + self.height}; give a rectangle inside the frame"
            )

    def __str__(self):
        return f"{self.left},{self.top},{self.width},{self.height}"


@dataclass(frozen=True)
class Shown:
    """What a page must know of a frame before it can draw it. spacing: assumed if the frame is not calibrated."""

    width: int
    height: int
    spacing: Spacing


@dataclass(frozen=True)
class LiveFrame:
    """A frame as the source gave it.

    id: counts up by one for each frame read. image: (H, W) or (H, W, 3), cropped, as image_files.decode_image returns
    it. captured_s: when it was read, of the source's clock. clip: another value for another clip or another round of
    it. time_s: seconds from the first frame of its clip, None if the file does not give them.
    """

    id: int
    image: np.ndarray
    captured_s: float
    file: FrameFile
    clip: tuple
    time_s: float | None
    spacing: Spacing

    @property
    def shown(self):
        """Return the Shown of the frame."""
        height, width = self.image.shape[:2]
        return Shown(width, height, self.spacing)


@dataclass(frozen=True)
class Playback:
    """How files are played. speed: factor on their own time. loop: begin again at the end."""

    loop: bool = False
    speed: float = 1.0
    crop: Crop | None = None


class Clock:
    """The clock of a source. Tests have one that does not wait."""

    def now(self):
        """Return the time in seconds, of any origin; it never goes back."""
        return time.monotonic()

    def wait(self, seconds, stop):
        """Wait, but no longer than until ``stop``, an Event, is set."""
        stop.wait(seconds)


class FileSource:
    """The frames of files, one after another, in their own time.

    images: FrameFiles in the order in which they are played. spacings: {name of the frame: Spacing}. channels: of the
    frames, 1 or 3. name: what pages call the source. A frame is decoded before it is due and stamped when it is due, as
    a camera delivers it. If decoding takes longer than the frames last, the source plays more slowly, and says so.
    """

    def __init__(self, images, spacings, channels, name, playback=Playback(), clock=None):
        self.images = list(images)
        self.name = name
        self.playback = playback
        self.clock = clock or Clock()
        self._spacings, self._channels = spacings, channels
        self._durations = durations(self.images)
        self._next = self._round = self._count = 0
        self._due = None
        self._lost_s, self._said = 0.0, False
        if playback.crop is not None:
            for file in {image.path: image for image in self.images}.values():
                playback.crop.check(_used_size(file), file)

    @property
    def first(self):
        """Return the Shown of the first frame."""
        file, crop = self.images[0], self.playback.crop
        height, width = (crop.height, crop.width) if crop else _used_size(file)
        return Shown(width, height, self._spacings[file.name])

    @property
    def has_times(self):
        """Whether the file of every frame gives its time, which smoothing needs."""
        return all(_time_of(image) is not None for image in self.images)

    def samples(self, count):
        """Return the first frames, as (FrameFile, image) that the network would get. Damaged ones are left out."""
        found = []
        for file in self.images:
            try:
                found.append((file, self._image(file)))
            except InputError as error:
                warn(f"{error}; the engines are compared without this frame")
            if len(found) == count:
                break
        return found

    def read(self, stop):
        """Wait for the next frame and return it; None when the source has ended, or ``stop``, an Event, is set.

        Raise InputError if the frame is damaged. The next call goes on with the frame after it.
        """
        if self._next == len(self.images):
            if not self.playback.loop:
                return None
            self._next, self._round = 0, self._round + 1
        number = self._next
        file, self._next = self.images[number], number + 1
        image = fault = None
        try:
            image = self._image(file)
        except InputError as error:
            fault = error
        self._wait(number, stop)
        if stop.is_set():
            return None
        if fault is not None:
            raise fault
        self._count += 1
        clip, spacing = (file.path, self._round), self._spacings[file.name]
        return LiveFrame(self._count, image, self.clock.now(), file, clip, _time_of(file), spacing)

    def _image(self, file):
        image, region = read_image(file, self._channels), file.sequence and file.sequence.region
        image = image if region is None else region.of(image)
        return image if self.playback.crop is None else self.playback.crop.of(image)

    def _wait(self, number, stop):
        """Wait until the frame is due: the duration of the frame before it, after that frame was due."""
        now = self.clock.now()
        self._due = now if self._due is None else self._due + self._durations[number - 1] / self.playback.speed
        late_s = now - self._due
        if late_s < 0:
            self.clock.wait(-late_s, stop)
        elif late_s > LATE_S:
            self._due, self._lost_s = now, self._lost_s + late_s
            if self._lost_s > SLOW_S and not self._said:
                self._said = True
                warn(f"{self.name}: is decoded more slowly than it plays, so it plays more slowly than in its own time")


def durations(images):
    """Return how many seconds each of several FrameFiles is shown, at speed 1.

    A frame of a clip with times lasts until the next one; the last one lasts as its file says, or else as the others
    do. Images, and frames of clips without times that increase, last 1 / STILLS_PER_S.
    """
    found, start = [], 0
    while start < len(images):
        end = start + 1
        while end < len(images) and images[end].path == images[start].path:
            end += 1
        found += _durations_of(images[start:end])
        start = end
    return found


def _durations_of(frames):
    """Return the seconds of each frame of one file."""
    still = 1 / STILLS_PER_S
    times = [_time_of(frame) for frame in frames]
    if None in times:
        return [still] * len(frames)
    steps = [after - before for before, after in pairwise(times)]
    usual = [step for step in steps if step > 0 and math.isfinite(step)]
    if not usual:
        return [still] * len(frames)
    end_s = frames[-1].sequence.end_s
    is_last = frames[-1].number == frames[-1].sequence.count - 1
    last = end_s - times[-1] if end_s is not None and is_last and end_s > times[-1] else statistics.median(usual)
    return [step if step > 0 and math.isfinite(step) else 0.0 for step in steps] + [last]


def _time_of(file):
    """Return the seconds of a frame from the first of its clip; None without times, and for what is no clip."""
    return file.time_s if file.is_numbered else None


def _used_size(file):
    """Return the (H, W) of what is used of a frame: of its region if it has one."""
    region = file.sequence and file.sequence.region
    return size_of(file) if region is None else (region.height, region.width)
