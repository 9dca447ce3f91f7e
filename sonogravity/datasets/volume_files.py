"""Read volumes as stacks of slices: MetaImage (also of PLUS), NRRD (also of 3D Slicer) and NIfTI, by SimpleITK."""

import os
import re
import threading
import zlib
from dataclasses import dataclass

import numpy as np

from sonogravity.common.messages import InputError, one_line
from sonogravity.datasets.file_kinds import SEGMENTATION
from sonogravity.datasets.sequences import MOST_IN_MEMORY, Sequence, need

NIFTI = (".nii", ".nii.gz")
SLICED = (".mha", ".nii")  # formats of which SimpleITK reads a slice without the rest, if they are not compressed
LONGEST_HEADER = 2**16  # bytes
DATA_FILE = re.compile(rb"^(?:ElementDataFile *=|data ?file:)([^\r\n]*)", re.MULTILINE | re.IGNORECASE)
UNITS = re.compile(rb"^(?:space )?units:([^\r\n]*)", re.MULTILINE)
MOST_COMPRESSED = 1100  # times that deflate shrinks data at most
COLOURS = (3, 4)  # components of a pixel that are a colour


@dataclass(frozen=True)
class Geometry:
    """Where a volume lies in space: spacing and origin in mm, direction cosines by rows; of 2 or 3 axes, x first."""

    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]


@dataclass(frozen=True)
class Segment:
    """A structure in a ``.seg.nrrd`` file of 3D Slicer. value: of its pixels in its layer; layers may overlap."""

    name: str
    value: int
    layer: int


class Volume(Sequence):
    """The slices of a volume, along its last axis. A volume of two axes is one image.

    segments: of a ``.seg.nrrd`` file, in its order.
    """

    def __init__(self, path):
        need(path, "volumes", "SimpleITK")
        import SimpleITK

        header, end, self._held = _read_header(path)
        self._lock = threading.Lock()
        self._whole = None
        reader = SimpleITK.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        notes = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}
        self._shape, components = list(reader.GetSize()), reader.GetNumberOfComponents()
        self.segments = _segments(path, notes, components)
        is_list = path.name.endswith(".seq.nrrd") or components not in COLOURS
        self._listed = components > 1 and is_list and not self.segments
        self._channels = (components,) if components > 1 and not self._listed else ()
        height, width, declared = _check_axes(path, self._shape, components if self._listed else None)
        _check_direction(path, reader.GetDirection(), reader.GetDimension(), notes)
        super().__init__(path, declared, (height, width))
        self.numbered = declared > 1
        bits = re.search(r"(\d+)-bit", SimpleITK.GetPixelIDValueAsString(reader.GetPixelID()))
        size = int(np.prod(self._shape)) * components * (int(bits[1]) // 8 if bits else 8)
        compressed = b"CompressedData = True" in header
        self._by_slice = path.suffix.lower() in SLICED and self.numbered and not self._listed and not compressed
        self.stays_open = not self._by_slice
        self._check_size(size, declared, None if compressed else end, notes)
        self._take_notes(header, notes, reader)

    def _check_size(self, size, declared, data_offset, notes):
        """Cut a truncated file. Raise InputError if memory cannot hold it, or if it declares more than it can hold.

        size: bytes of the pixels that the header declares. data_offset: of them in a MetaImage without compression.
        """
        held = self._held
        if not self._by_slice and size > MOST_IN_MEMORY:
            raise InputError(
                f"{self.path}: must be decoded as a whole, which needs {size / 2**30:.0f} GB of memory; save it as "
                ".mha without compression, or as a TIFF stack"
            )
        name = self.path.name.lower()
        if name.endswith(NIFTI):  # SimpleITK fills missing pixels with 0
            held = _unpacked_size(self.path, size) if name.endswith(".gz") else held
            data_offset = int(float(notes.get("vox_offset", 0)))
        elif data_offset is None or not name.endswith(".mha"):
            if size > held * MOST_COMPRESSED:
                raise InputError(f"{self.path}: declares {size} bytes of pixels, but holds {held}; save it again")
            return
        complete = max(0, held - data_offset) // (size // declared)
        if complete < declared:
            self.cut_to(complete, f"the file ends in frame {complete} of {declared}")

    def _take_notes(self, header, notes, reader):
        """Take the scale, the geometry and the times."""
        units = [unit for line in UNITS.findall(header) for unit in re.findall(rb'"([^"]*)"', line)]
        if other := {unit.decode("ascii", "replace") for unit in units} - {"mm", "", "???"}:
            self.scale_warnings.append(f"{self.path}: its scale is in {', '.join(sorted(other))}, so it is not used")
        else:
            self.take_pixel_size(*reader.GetSpacing()[:2])
        if reader.GetDimension() <= 3 and not self._listed:
            self.geometry = Geometry(reader.GetSpacing(), reader.GetOrigin(), reader.GetDirection())
        stamps = [notes.get(f"Seq_Frame{number:04d}_Timestamp") for number in range(self.count)]  # of PLUS, in s
        if self.numbered and None not in stamps:
            self.times = [float(stamp) - float(stamps[0]) for stamp in stamps]

    def close(self):
        with self._lock:
            self._whole = None

    def _stored(self, number):
        import SimpleITK

        if self._by_slice:
            reader = SimpleITK.ImageFileReader()
            reader.SetFileName(str(self.path))
            last = len(self._shape) - 1
            axis = max(2, next((i for i in range(last, 1, -1) if self._shape[i] > 1), 2))
            reader.SetExtractIndex([number if i == axis else 0 for i in range(len(self._shape))])
            reader.SetExtractSize([*self._shape[:2], *([0] * (len(self._shape) - 2))])
            return SimpleITK.GetArrayFromImage(reader.Execute())
        with self._lock:
            if self._whole is None:
                array = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(self.path)))
                if self._listed:
                    array = np.moveaxis(array, -1, 0)
                self._whole = array.reshape(self.declared, *self.size, *self._channels)
            return self._whole[number].copy()

    def _read(self, number, grey):
        return self._stored(number)

    def _read_values(self, number):
        if not (self.segments and self._channels):
            return self._stored(number)
        values = {segment.name: segment.value for segment in self.segments}
        if len(set(values.values())) < len(values):
            raise InputError(
                f"{self.path}: segments in different layers have the same value; in 3D Slicer export it as a label "
                "map, or run python -m sonogravity.convert with --class-names"
            )
        return self._draw(number, values)

    def drawn(self, number, values):
        """Return the (H, W) mask values of a frame. values: {name of segment: mask value}; 0 elsewhere.

        If segments overlap, the last one in the file's order counts. Raise InputError if a pixel belongs to none, or if
        the file is damaged.
        """
        return self._decoded(f"{self.path}, frame {number}", self._draw, number, values)

    def _draw(self, number, values):
        stored = self._stored(number)
        layers = stored if self._channels else stored[:, :, None]
        mask = np.zeros(self.size, np.uint8 if max(values.values()) < 256 else np.int32)
        rest = layers != 0
        for segment in self.segments:
            own = layers[:, :, segment.layer] == segment.value
            mask[own] = values[segment.name]
            rest[:, :, segment.layer] &= ~own
        if rest.any():
            stray = layers[rest][0]
            raise InputError(
                f"{self.path}, frame {number}: holds the value {stray}, which no segment has; save it again"
            )
        return mask


def _segments(path, notes, layers):
    """Return the Segments that the header of a ``.seg.nrrd`` file lists. notes: {key: text}."""
    if not path.name.lower().endswith(SEGMENTATION):
        return ()
    found = []
    while (name := notes.get(f"Segment{len(found)}_Name")) is not None:
        number = len(found)  # earlier versions of 3D Slicer store a layer per segment, and neither value nor layer
        value = notes.get(f"Segment{number}_LabelValue", 1)
        layer = notes.get(f"Segment{number}_Layer", number if layers > 1 else 0)
        if not 0 <= int(layer) < layers:
            raise InputError(f"{path}: segment {name.strip()} is in layer {layer} of {layers}; save the file again")
        found.append(Segment(name.strip(), int(value), int(layer)))
    if layers > 1 and not found:
        raise InputError(
            f"{path}: holds {layers} layers, but names no segments; in 3D Slicer, export it as a label map"
        )
    return tuple(found)


def _check_axes(path, shape, listed):
    """Return (height, width, number of frames). listed: number of frames that are components of the pixels, or None.

    Raise InputError if there are more axes.
    """
    lengths = shape[:2] + [length for length in shape[2:] if length > 1]  # a series of single slices has four axes
    lengths += [] if listed is None else [listed]
    if not 2 <= len(lengths) <= 3:
        text = "x".join(map(str, [*shape, *([] if listed is None else [listed])]))
        raise InputError(f"{path}: has more than three axes ({text}); save each time point or layer as a file")
    return lengths[1], lengths[0], lengths[2] if len(lengths) == 3 else 1


def _check_direction(path, direction, axes, notes):
    """Raise InputError unless rows run along x to the right and columns along y downwards, as in an image."""
    matrix = np.array(direction).reshape(axes, axes)[:2, :2]
    stored = notes.get("UltrasoundImageOrientation", "MF")  # of PLUS; M: to the marked side, F: far from the probe
    if np.allclose(matrix, np.eye(2), atol=1e-3) and stored.startswith("MF"):
        return
    what = f"in the orientation {stored}"
    if stored.startswith("MF"):
        turned = any(np.allclose(np.abs(matrix), each, atol=1e-3) for each in (np.eye(2), 1 - np.eye(2)))
        what = "flipped or exchanged" if turned else "oblique"
    raise InputError(
        f"{path}: its axes are {what} (direction {' '.join(f'{each:g}' for each in matrix.ravel())}), so it is not "
        "clear which side is up; turn the pixels as a viewer shows them, and save them with the direction 1 0 0 1"
    )


def _read_header(path):
    """Return the first bytes of a file, the offset after its text header, and the size of the file with the pixels.

    The offset is None if the file is no MetaImage or NRRD with pixels of its own.

    Raise InputError if the header says that its pixels are anywhere but in the file itself or in one beside it.
    """
    with open(path, "rb") as file:
        header = file.read(LONGEST_HEADER)
    found = DATA_FILE.search(header)
    name = found[1].strip().decode("utf-8", "replace") if found else "LOCAL"
    beside = path.suffix.lower() in (".mhd", ".nhdr")
    if not (re.fullmatch(r"[\w. +-]+", name) and (path.parent / name).is_file() if beside else name == "LOCAL"):
        raise InputError(
            f"{path}: its pixels are in '{one_line(name)}', which is not read; save header and pixels anew"
        )
    if beside:
        return header, None, (path.parent / name).stat().st_size
    return header, found.end() + 1 if found else None, path.stat().st_size


def _unpacked_size(path, wanted):
    """Return the number of bytes in a gzip file before any damage; a little over ``wanted`` at most."""
    count, stream = 0, zlib.decompressobj(wbits=31)  # gzip.open would keep back the bytes before the damage
    with open(path, "rb") as file:
        while count <= wanted + LONGEST_HEADER and (block := stream.unconsumed_tail or file.read(2**16)):
            try:
                count += len(stream.decompress(block, 2**20))
            except zlib.error:
                break
    return count


def write_volume(path, values, geometry, spacing):
    """Write (H, W) or (N, H, W) mask values as NIfTI. geometry: of a volume; None to take the Spacing of a pixel."""
    import SimpleITK

    one_slice = geometry is not None and len(geometry.spacing) == 3 and values.ndim == 2
    image = SimpleITK.GetImageFromArray(values[None] if one_slice else values)
    if geometry is not None:
        image.SetSpacing(geometry.spacing)
        image.SetOrigin(geometry.origin)
        image.SetDirection(geometry.direction)
    elif not spacing.assumed:
        height, width = spacing.pixel_size_mm
        image.SetSpacing([width, height, 1.0][: image.GetDimension()])
    named = path.with_name(f"{path.name}.nii.gz")  # without this ending SimpleITK refuses to write
    try:
        SimpleITK.WriteImage(image, str(named), True)
        os.replace(named, path)
    finally:
        named.unlink(missing_ok=True)
