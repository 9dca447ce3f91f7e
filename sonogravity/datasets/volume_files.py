"""Read volumes as stacks of slices: MetaImage (also of PLUS), NRRD (also of 3D Slicer) and NIfTI, by SimpleITK."""

import os
import re
import threading
from dataclasses import dataclass

import numpy as np

from sonogravity.common.messages import InputError, one_line
from sonogravity.datasets.sequences import MOST_IN_MEMORY, Sequence, need

SLICED = (".mha", ".nii")  # formats of which SimpleITK reads a slice without the rest, if they are not compressed
LONGEST_HEADER = 2**16  # bytes
DATA_FILE = re.compile(rb"^(?:ElementDataFile *=|data ?file:)([^\r\n]*)", re.MULTILINE | re.IGNORECASE)
COLOURS = (3, 4)  # components of a pixel that are a colour


@dataclass(frozen=True)
class Geometry:
    """Where a volume lies in space: spacing and origin in mm, direction cosines by rows; of 2 or 3 axes, x first."""

    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]


class Volume(Sequence):
    """The slices of a volume, along its last axis. A volume of two axes is one image."""

    def __init__(self, path):
        need(path, "volumes", "SimpleITK")
        import SimpleITK

        _check_data_file(path)
        self._lock = threading.Lock()
        self._whole = None
        reader = SimpleITK.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        lengths, components = list(reader.GetSize()), reader.GetNumberOfComponents()
        self._shape = lengths
        while len(lengths) > 3 and 1 in lengths[2:]:  # a series of single slices has four axes
            lengths = lengths[:2] + [length for length in lengths[2:] if length > 1]
        listed = components > 1 and (path.name.endswith(".seq.nrrd") or components not in COLOURS)
        if listed and path.name.endswith(".seg.nrrd"):
            raise InputError(f"{path}: holds {components} layers of segments; in 3D Slicer, export it as a label map")
        if len(lengths) > 3 or len(lengths) < 2 or (listed and len(lengths) == 3 and lengths[2] > 1):
            shape = "x".join(map(str, [*self._shape, *([components] if listed else [])]))
            raise InputError(f"{path}: has more than three axes ({shape}); save each time point or layer as a file")
        self._listed = listed
        self._channels = (components,) if components > 1 and not listed else ()
        _check_direction(path, reader.GetDirection(), reader.GetDimension())
        count = components if listed else lengths[2] if len(lengths) == 3 else 1
        super().__init__(path, count, (lengths[1], lengths[0]))
        self.numbered = count > 1
        self.take_pixel_size(*reader.GetSpacing()[:2])
        if reader.GetDimension() <= 3 and not listed:
            self.geometry = Geometry(reader.GetSpacing(), reader.GetOrigin(), reader.GetDirection())
        self._by_slice = path.suffix.lower() in SLICED and count > 1 and not listed and not _is_compressed(path)
        bits = re.search(r"(\d+)-bit", SimpleITK.GetPixelIDValueAsString(reader.GetPixelID()))
        size = int(np.prod(self._shape)) * components * (int(bits[1]) // 8 if bits else 8)
        if not self._by_slice and size > MOST_IN_MEMORY:
            raise InputError(
                f"{path}: must be decoded as a whole, which needs {size / 2**30:.0f} GB of memory; save it as .mha "
                "without compression, or as a TIFF stack"
            )

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
                self._whole = array.reshape(self.count, *self.size, *self._channels)
            array = self._whole[number].copy()
            if number == self.count - 1:
                self._whole = None
        return array

    def _read(self, number, grey):
        return self._stored(number)


def _check_direction(path, direction, axes):
    """Raise InputError unless rows run along x to the right and columns along y downwards, as in an image."""
    matrix = np.array(direction).reshape(axes, axes)[:2, :2]
    if np.allclose(matrix, np.eye(2), atol=1e-3):
        return
    turned = np.allclose(np.abs(matrix), np.eye(2), atol=1e-3) or np.allclose(np.abs(matrix), 1 - np.eye(2), atol=1e-3)
    what = "flipped or exchanged" if turned else "oblique"
    raise InputError(
        f"{path}: its axes are {what} (direction {' '.join(f'{each:g}' for each in matrix.ravel())}), so it is not "
        "clear which side is up; turn the pixels as a viewer shows them, and save them with the direction 1 0 0 1"
    )


def _check_data_file(path):
    """Raise InputError if a header says that its pixels are anywhere but in the file itself or in one beside it."""
    with open(path, "rb") as file:
        header = file.read(LONGEST_HEADER)
    found = DATA_FILE.search(header)
    name = found[1].strip().decode("utf-8", "replace") if found else "LOCAL"
    beside = path.suffix.lower() in (".mhd", ".nhdr")
    if not (re.fullmatch(r"[\w. +-]+", name) and (path.parent / name).is_file() if beside else name == "LOCAL"):
        raise InputError(
            f"{path}: its pixels are in '{one_line(name)}', which is not read; save header and pixels anew"
        )


def _is_compressed(path):
    """Return whether the header of a MetaImage says so. A .nii file is never compressed."""
    with open(path, "rb") as file:
        return path.suffix.lower() == ".mha" and b"CompressedData = True" in file.read(4096)


def write_volume(path, values, geometry, spacing):
    """Write (H, W) or (N, H, W) mask values as NIfTI. geometry: of a volume; None to take the Spacing of a pixel."""
    import SimpleITK

    image = SimpleITK.GetImageFromArray(values)
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
