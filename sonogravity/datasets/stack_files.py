"""Read stacks of images in one file: TIFF (several pages, or ImageJ's one directory), GIF, WebP, APNG and NPZ."""

import logging
import threading
import zipfile

import numpy as np
from PIL import Image

from sonogravity.common.messages import InputError, some
from sonogravity.datasets.image_files import MAX_PIXELS
from sonogravity.datasets.sequences import Sequence, need

FRAME_AXES = "TZQI"  # tifffile's names of axes that count frames: time, depth, and axes without a meaning
MOST_CHANNELS = 4
MM_OF_UNIT = {"mm": 1, "millimeter": 1, "cm": 10, "centimeter": 10, "um": 1e-3, "micron": 1e-3, "\u00b5m": 1e-3}


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
            count = int(np.prod([length for axis, length in lengths.items() if axis not in "YXS"]))
            self._one_by_one = offset is None
            if self._one_by_one and len(file.pages) < count:
                raise InputError(f"{path}: holds {len(file.pages)} of {count} frames; it is truncated, save it again")
            self._planar = axes.endswith("SYX")
            self._inverted = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
            self._colours = page.colormap if page.photometric == tifffile.PHOTOMETRIC.PALETTE else None
            self._find_calibration(file, page, count)
            frame = tuple(length for axis, length in lengths.items() if axis in "YXS")
            self._data = first.dtype.newbyteorder(file.byteorder), offset, frame
        super().__init__(path, count, (lengths["Y"], lengths["X"]))
        if self._pixel_size:
            self.take_pixel_size(*self._pixel_size)
        if not self._one_by_one:
            complete = (path.stat().st_size - offset) // (int(np.prod(frame)) * first.dtype.itemsize)
            if complete < count:
                self.cut_to(complete, f"the file ends in frame {complete} of {count}")

    def _find_calibration(self, file, page, count):
        """Read ImageJ's own calibration. The resolution of other TIFF files describes print, not tissue."""
        found = (file.imagej_metadata or {}) if file.is_imagej else {}
        self._pixel_size = None
        unit = MM_OF_UNIT.get(str(found.get("unit")))
        x, y = (page.tags.get(name) for name in ("XResolution", "YResolution"))
        if unit and x and y and all(tag.value[0] and tag.value[1] for tag in (x, y)):
            self._pixel_size = [tag.value[1] / tag.value[0] * unit for tag in (x, y)]
        if interval := float(found.get("finterval") or 0):
            self.times = [k * interval for k in range(count)]

    def _stored(self, number):
        """Return the pixel values of a frame, (H, W) or (H, W, C)."""
        import tifffile

        if not self._one_by_one:
            kind, offset, shape = self._data
            before = number * int(np.prod(shape)) * kind.itemsize
            array = np.memmap(self.path, kind, "r", offset + before, shape)
        else:
            with self._lock:
                self._file = self._file or tifffile.TiffFile(self.path)
                array = self._file.pages[number].asarray()
                if number == self.count - 1:
                    self._file.close()
                    self._file = None
        array = np.squeeze(array)
        return np.array(np.moveaxis(array, 0, 2) if self._planar else array, array.dtype.newbyteorder("="))

    def _read(self, number, grey):
        array = self._stored(number)
        if self._colours is not None:
            return (np.moveaxis(self._colours, 0, 1)[array] >> 8).astype(np.uint8)
        return np.iinfo(array.dtype).max - array if self._inverted and array.dtype.kind == "u" else array

    def _read_values(self, number):
        return self._stored(number)


def _refuse_circle(file):
    """Raise ValueError if a directory of a damaged file leads back to an earlier one; tifffile would never end."""
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


class PillowStack(Sequence):
    """The frames of an animated GIF, WebP or PNG."""

    def __init__(self, path):
        self._lock = threading.Lock()
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InputError(f"{path}: frames of {image.width}x{image.height} are too large; crop or resize them")
            size, self.times = (image.height, image.width), [0.0]
            for number in range(image.n_frames):
                image.seek(number)
                if image.format == "WEBP":  # gives the duration of a frame only after it is decoded
                    image.load()
                self.times.append(self.times[-1] + image.info.get("duration", 0) / 1000)
        count = len(self.times) - 1
        self.times = self.times[:-1] if self.times[-1] else None
        self._image = None
        super().__init__(path, count, size)

    def _read(self, number, grey):
        with self._lock:
            if self._image is None:
                self._image = Image.open(self.path)
            self._image.seek(number)
            array = np.array(self._image.convert("RGB"))
            if number == self.count - 1:
                self._image.close()
                self._image = None
        return array


class ArrayStack(Sequence):
    """The frames of the one array of an .npz file: (H, W), (N, H, W) or (N, H, W, 3)."""

    def __init__(self, path):
        self._lock = threading.Lock()
        self._file = self._member = None
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
        super().__init__(path, shape[0], shape[1:3])
        self.numbered = shape[0] > 1
        if stored < self._bytes * self.count:
            whole = stored // self._bytes
            self.cut_to(whole, f"the array ends in frame {whole} of {self.count}")

    def _read(self, number, grey):
        with self._lock:
            if self._member is None:
                self._file = zipfile.ZipFile(self.path)
                self._member = self._file.open(self._file.namelist()[0])
            self._member.seek(self._start + number * self._bytes)
            content = self._member.read(self._bytes)
            if number == self.count - 1:
                self._file.close()
                self._member = None
        return np.frombuffer(content, self._kind).reshape(self._shape).astype(self._kind.newbyteorder("="))


def _array_header(file):
    """Return shape, whether columns come first, and data type of an open .npy file."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"the array has the version {version}")
    return read(file)
