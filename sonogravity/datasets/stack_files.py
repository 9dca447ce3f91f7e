"""Read stacks of images in one file: TIFF (several pages, or ImageJ's one directory), GIF, WebP and NPZ."""

import itertools
import logging
import threading
import zipfile

import numpy as np
from PIL import Image

from sonogravity.common.files import BROKEN_FILE
from sonogravity.common.messages import InputError, some
from sonogravity.datasets.in_order import InOrder
from sonogravity.datasets.sequences import Sequence, check_size, need

FRAME_AXES = "TZQI"  # tifffile's names of axes that count frames: time, depth, and axes without a meaning
MOST_CHANNELS = 4
# ImageJ's units of length in mm, and of time in seconds.
MM_OF_UNIT = {
    **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetre"), 1),
    **dict.fromkeys(("cm", "centimeter", "centimeters", "centimetre"), 10),
    **dict.fromkeys(("um", "\u00b5m", "\u03bcm", "micron", "microns", "micrometer"), 1e-3),
    **dict.fromkeys(("inch", "in", "inches"), 25.4),
}
SECONDS = {"s": 1, "sec": 1, "seconds": 1, "ms": 1e-3, "msec": 1e-3, "min": 60, "minutes": 60}


class TiffStack(Sequence):
    """The frames of a TIFF file."""

    def __init__(self, path):
        need(path, "TIFF stacks", "tifffile")
        import tifffile

        self._lock = threading.Lock()
        self._file = None
        logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)  # an InputError says what matters
        with tifffile.TiffFile(path) as file:
            _refuse_circle(file)
            first, page = file.series[0], file.pages[0]
            axes, shape, offset = _layout(path, file)
            lengths = dict(zip(axes, shape, strict=True))
            declared = int(np.prod([length for axis, length in lengths.items() if axis not in "YXS"]))
            frame = tuple(length for axis, length in lengths.items() if axis in "YXS")
            self._offset, self._shape, self._kind = offset, frame, first.dtype.newbyteorder(file.byteorder)
            self._bytes = int(np.prod(frame)) * first.dtype.itemsize
            self.stays_open = offset is None
            self._planar = axes.endswith("SYX")
            self._inverted = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
            self._colours = page.colormap if page.photometric == tifffile.PHOTOMETRIC.PALETTE else None
            complete = self._complete_frames(file, declared)
            imagej = (file.imagej_metadata or {}) if file.is_imagej else {}
            resolution = [page.tags.get(name) for name in ("XResolution", "YResolution")]
        super().__init__(path, declared, (lengths["Y"], lengths["X"]))
        if complete < declared:
            self.cut_to(complete, f"the file ends in frame {complete} of {declared}")
        self._take_calibration(imagej, resolution)

    def _complete_frames(self, file, declared):
        """Return how many frames the file holds completely."""
        size = file.filehandle.size
        if self._offset is not None:
            return min(declared, (size - self._offset) // self._bytes)
        for number, page in enumerate(file.pages[:declared]):
            ends = [at + length for at, length in zip(page.dataoffsets, page.databytecounts, strict=True)]
            if max(ends, default=0) > size:
                return number
        return min(declared, len(file.pages))

    def _take_calibration(self, imagej, resolution):
        """Take ImageJ's own calibration. The resolution of other TIFF files describes print, not tissue."""
        unit, per_unit = imagej.get("unit"), MM_OF_UNIT.get(str(imagej.get("unit")).lower())
        if per_unit and all(tag and all(tag.value) for tag in resolution):
            self.take_pixel_size(*(tag.value[1] / tag.value[0] * per_unit for tag in resolution))
        elif unit and str(unit).lower() not in ("pixel", "pixels"):
            self.scale_warnings.append(f"{self.path}: its scale is in the unit '{unit}', so it is not used")
        interval, per_second = float(imagej.get("finterval") or 0), SECONDS.get(imagej.get("tunit", "sec"))
        if interval and per_second:
            self.times = [number * interval * per_second for number in range(self.count)]

    def close(self):
        with self._lock:
            if self._file is not None:
                self._file.close()
            self._file = None

    def _stored(self, number):
        """Return the pixel values of a frame, (H, W) or (H, W, C), with 0 as black."""
        import tifffile

        if self._offset is not None:
            array = np.memmap(self.path, self._kind, "r", self._offset + number * self._bytes, self._shape)
        else:
            with self._lock:
                self._file = self._file or tifffile.TiffFile(self.path)
                array = self._file.pages[number].asarray()
        array = array.reshape(self._shape)
        array = np.array(np.moveaxis(array, 0, 2) if self._planar else array, array.dtype.newbyteorder("="))
        if array.dtype == bool:
            array = array.astype(np.uint8) * 255
        return np.iinfo(array.dtype).max - array if self._inverted and array.dtype.kind == "u" else array

    def _read(self, number, grey):
        array = self._stored(number)
        if self._colours is None:
            return array
        wide = self._colours.max() > 255  # some writers store 8-bit colours
        return (self._colours.T[array] >> (8 if wide else 0)).astype(np.uint8)

    def _read_values(self, number):
        return self._stored(number)


def _refuse_circle(file):
    """Raise ValueError if a directory of a damaged file leads back to an earlier one.

    tifffile would count too few frames, or never end.
    """
    seen = set()
    for page in file.pages:
        if page.offset in seen:
            raise ValueError("its directories form a circle")
        seen.add(page.offset)


def _layout(path, file):
    """Return axes, lengths, and the offset of the first frame if all lie one after the other, else None.

    axes: tifffile's letters, one of which at most counts frames. Raise InputError for other files.
    """
    series = file.series
    first = series[0]
    if len({each.shape for each in series}) > 1:
        sizes = some(dict.fromkeys("x".join(map(str, each.shape)) for each in series))
        raise InputError(f"{path}: holds images of different sizes ({sizes}); save them as separate files")
    axes, shape, offset = first.axes, first.shape, first.dataoffset
    declared = (file.imagej_metadata or {}).get("images", 1) if file.is_imagej else 1
    if len(series) > 1:
        axes, shape, offset = f"I{axes}", (len(series), *shape), None
    elif declared > 1 and set(axes) <= set("YXS"):  # ImageJ's one directory in a truncated file
        axes, shape, offset = f"I{axes}", (declared, *shape), file.pages[0].dataoffsets[0]
    counted = [axis for axis, length in zip(axes, shape, strict=True) if length > 1 and axis not in "YXS"]
    # A writer that does not name the axis of its frames gets that of channels.
    known = FRAME_AXES + "C" * (dict(zip(axes, shape, strict=True)).get("C", 0) > MOST_CHANNELS)
    if len(counted) > 1 or not set(counted) <= set(known):
        raise InputError(
            f"{path}: has the axes {axes} of {'x'.join(map(str, shape))}; save one file per channel and position, with "
            "one axis of frames"
        )
    return axes, shape, offset


class PillowStack(InOrder):
    """The frames of an animated GIF or WebP."""

    def __init__(self, path):
        super().__init__(path)
        self._image, times, damaged = None, [0.0], None
        with Image.open(path) as image:
            check_size(path, (image.height, image.width))
            size = image.height, image.width
            for number in itertools.count():  # n_frames fails for a truncated file
                try:
                    image.seek(number)
                except EOFError:
                    break
                except BROKEN_FILE:
                    damaged = f"frame {number} is damaged"
                    break
                try:
                    image.load()  # WebP tells the duration of a frame only after it is decoded
                except BROKEN_FILE:
                    damaged = f"frame {number} is damaged"
                    break
                times.append(times[-1] + image.info.get("duration", 0) / 1000)
        count = len(times) - 1
        self._set(count + bool(damaged), size)
        self.times, self.end_s = (times[:-1], times[-1]) if times[-1] else (None, None)
        self.numbered = self.declared > 1
        if damaged:
            self.cut_to(count, damaged)
        elif path.suffix.lower() == ".gif" and not _ends_with(path, b";"):
            self.cut_to(count, "the end of the file is missing")

    def _begin(self):
        self._end()
        self._image, self._number = Image.open(self.path), 0

    def _next(self):
        self._image.seek(self._number)
        self._number += 1
        return np.array(self._image.convert("RGB"))

    def _end(self):
        if self._image is not None:
            self._image.close()
        self._image = None

    def _read(self, number, grey):
        return self._frame(number)


class ArrayStack(InOrder):
    """The frames of the one array of an .npz file: (H, W), (N, H, W) or (N, H, W, 3)."""

    def __init__(self, path):
        super().__init__(path)
        self._archive = self._member = None
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if len(names) != 1 or not names[0].endswith(".npy"):
                raise InputError(f"{path}: holds {len(names)} arrays ({some(names)}); save one array per file")
            with archive.open(names[0]) as member:
                shape, in_columns, kind = _array_header(member)
                self._start = member.tell()
            stored = archive.getinfo(names[0]).file_size - self._start
        if in_columns or kind.hasobject:
            raise InputError(f"{path}: the array cannot be read frame by frame; save numpy.ascontiguousarray of it")
        if len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4) and shape[0] > 4):
            shape = (1, *shape)
        if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (3, 4)):
            raise InputError(f"{path}: the array has the shape {shape}; save it as (N, H, W) or (N, H, W, 3)")
        self._kind, self._shape = kind, shape[1:]
        self._bytes = kind.itemsize * int(np.prod(self._shape))
        self._set(shape[0], shape[1:3])
        self.numbered = shape[0] > 1
        if stored < self._bytes * self.count:
            whole = stored // self._bytes
            self.cut_to(whole, f"the array ends in frame {whole} of {self.count}")

    def _begin(self):
        self._end()
        self._archive = zipfile.ZipFile(self.path)
        self._member = self._archive.open(self._archive.namelist()[0])
        self._member.read(self._start)

    def _next(self):
        content = np.frombuffer(self._member.read(self._bytes), self._kind)
        return content.reshape(self._shape).astype(self._kind.newbyteorder("="))

    def _end(self):
        if self._archive is not None:
            self._member.close()
            self._archive.close()
        self._archive = self._member = None

    def _read(self, number, grey):
        return self._frame(number)


def _ends_with(path, ending):
    """Return whether the last byte of a file, zeros at the end apart, is this one."""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 64))
        return file.read().rstrip(b"\0").endswith(ending)


def _array_header(file):
    """Return shape, whether columns come first, and data type of an open .npy file."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"the array has the version {version}")
    return read(file)
