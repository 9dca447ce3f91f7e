"""Files that a reader opens as a sequence of frames: clips, cines, stacks, volumes, and single DICOM images.

Each kind of file has a reader in a module of its own, a subclass of Sequence. This module has what they share.
"""

import functools
import importlib.util
import math
import threading
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image

from sonogravity.common.files import BROKEN_FILE
from sonogravity.common.messages import InputError, first_line
from sonogravity.datasets.image_files import MAX_PIXELS, image_of_array
from sonogravity.datasets.spacing import MOST_PIXELS_PER_MM, Spacing

MOST_OPEN = 4  # files, between which threads may go back and forth
MOST_IN_MEMORY = 2**31  # bytes of a file that can only be decoded as a whole
EXTRA = "run pip install -e '.[formats]' in the repository"


class NotAnImage(InputError):
    """The file is of a kind that holds images, but this one holds none, for example a DICOM report."""


@dataclass(frozen=True)
class Region:
    """A rectangle of an image. top, left, height, width: px. number: its place in the file, from 1."""

    number: int
    top: int
    left: int
    height: int
    width: int
    spacing: Spacing | None = None

    def of(self, array):
        """Return the (height, width, ...) part of an (H, W, ...) array."""
        return array[self.top : self.top + self.height, self.left : self.left + self.width]

    def within(self, part, size, fill):
        """Return an (H, W) array of ``fill`` that holds the (height, width) part. size: (H, W)."""
        whole = np.full(size, fill, part.dtype)
        self.of(whole)[:] = part
        return whole

    def __str__(self):
        return f"region {self.number}, {self.width}x{self.height} at ({self.left}, {self.top})"


class _OpenFiles:
    """The sequences that keep a file open, or decoded frames. The one used longest ago is closed first."""

    def __init__(self):
        self._lock = threading.Lock()
        self._sequences = OrderedDict()

    def used(self, sequence):
        """Note that a sequence was read. Call it without the sequence's own lock, because another one is closed."""
        with self._lock:
            self._sequences.pop(id(sequence), None)
            self._sequences[id(sequence)] = sequence
            oldest = self._sequences.popitem(last=False)[1] if len(self._sequences) > MOST_OPEN else None
        if oldest is not None:
            oldest.close()


OPEN_FILES = _OpenFiles()


class Sequence:
    """The frames of one file. A reader is a subclass; several threads may call ``read`` at the same time.

    path: of the file. count: number of frames. size: (H, W) of every frame. times: (count,) seconds from the first
    frame, or None. end_s: when the last frame ends, None if it is not known. spacing: of the file, or None. regions:
    those that show tissue in 2D. region: the one that is used alone. numbered: frames are named by stem and number,
    because the file may hold several. declared: number of frames that the header gives. warnings, scale_warnings: what
    the user should know of the file and of its scale. identifying: header elements whose values the file's name holds.
    geometry: of a volume, for masks of the same one. segments: named structures, of masks of 3D Slicer.
    """

    times = None
    end_s = None
    spacing = None
    regions = ()
    region = None
    numbered = True
    identifying = ()
    geometry = None
    segments = ()
    stays_open = False  # a reader that keeps a file open between frames, which ``close`` closes

    def __init__(self, path, count, size):
        self.path = path
        self.count = self.declared = count
        self.size = tuple(map(int, size))
        self.warnings, self.scale_warnings = [], []
        check_size(path, self.size)
        if count < 1:
            raise InputError(f"{path}: holds no complete frame; replace or remove the file")

    def take_pixel_size(self, width_mm, height_mm):
        """Take the size of a pixel from the file as its spacing, unless it cannot be meant."""
        if (width_mm, height_mm) == (1, 1):
            self.scale_warnings.append(
                f"{self.path}: gives pixels of exactly 1 x 1 mm, the value of files without a scale, so this is not "
                "used; if it is meant, predict with --pixels-per-mm 1"
            )
            return
        self.spacing = spacing_of(width_mm, height_mm)
        if self.spacing is None:
            self.scale_warnings.append(
                f"{self.path}: gives pixels of {width_mm:g} x {height_mm:g} mm, which cannot be right, so they are not "
                "used"
            )

    @functools.cached_property
    def shows_more(self):
        """Return whether the first frame holds pixels outside the tissue regions, such as text."""
        if not self.regions:
            return False
        outside = self.read(0, 1).copy()
        for region in self.regions:
            region.of(outside)[:] = 0
        self.close()  # many files may be looked at before one is used
        return bool(outside.any())

    def close(self):
        """Close the file, and forget decoded frames. The next frame opens it again."""

    def read(self, number, channels):
        """Return frame ``number`` as image_files.decode_image returns an image. Raise InputError if it is damaged."""
        where = f"{self.path}, frame {number}"
        array = self._decoded(where, self._read, number, channels == 1)
        return image_of_array(array, channels, where)

    def read_values(self, number):
        """Return frame ``number`` as stored, (H, W) or (H, W, 3), for masks. Raise InputError if it is damaged."""
        return self._decoded(f"{self.path}, frame {number}", self._read_values, number)

    def _decoded(self, where, read, *arguments):
        with readable(where):
            array = read(*arguments)
        if self.stays_open:
            OPEN_FILES.used(self)
        if array.shape[:2] != self.size:
            raise InputError(
                f"{where}: is {array.shape[1]}x{array.shape[0]}, but the first frame is {self.size[1]}x{self.size[0]} "
                "(width x height); save frames of different sizes as separate files"
            )
        return array

    def _read(self, number, grey):
        """Return a frame, (H, W) or (H, W, 3). grey: colour is not needed."""
        raise NotImplementedError

    def _read_values(self, number):
        return self._read(number, grey=False)

    def cut_to(self, count, reason):
        """Keep the first ``count`` frames, because the others are damaged. Raise InputError if none is left."""
        if count < 1:
            raise InputError(f"{self.path}: {reason}, and no frame before; replace or remove the file")
        self.count = count
        self.times = self.times and self.times[:count]
        self.end_s = None
        self.warnings.append(f"{self.path}: {reason}; the {count} frames before it are used")


def spacing_of(width_mm, height_mm):
    """Return the Spacing of a pixel's width and height in mm, None if they cannot be meant."""
    plausible = all(math.isfinite(each) and each * MOST_PIXELS_PER_MM >= 1 for each in (width_mm, height_mm))
    return Spacing(1 / width_mm, 1 / height_mm) if plausible else None


def check_size(path, size):
    """Raise InputError if a frame of (H, W) is empty or larger than an image may be."""
    if min(size) < 1 or size[0] * size[1] > MAX_PIXELS:
        raise InputError(
            f"{path}: frames of {size[1]}x{size[0]} cannot be read; crop or resize them to {MAX_PIXELS} pixels or fewer"
        )


@contextmanager
def readable(where, *errors):
    """Raise InputError, which begins with ``where``, for a damaged file. errors: further exceptions of a library."""
    try:
        yield
    except InputError:
        raise
    except (*BROKEN_FILE, Image.DecompressionBombError, *errors) as error:
        raise InputError(f"{where}: cannot be read ({first_line(error)}); replace or remove the file") from error


def need(path, what, *packages):
    """Raise InputError, with the line that installs them, if a package that reads ``what`` is missing."""
    if lacking := [package for package in packages if importlib.util.find_spec(package) is None]:
        raise InputError(f"{path}: to read {what}, {' and '.join(lacking)} must be installed; {EXTRA}")
