"""Read DICOM files: single images and cines, uncompressed, compressed or as a video."""

import io
from collections.abc import Iterable

import numpy as np

from sonogravity.common.messages import InputError
from sonogravity.datasets.dicom_frames import UNDEFINED, Joined, PixelData, has_end, refuse_other_size
from sonogravity.datasets.dicom_header import (
    group_of,
    identifying_in_name,
    pixel_size_of,
    regions_of,
    times_of,
)
from sonogravity.datasets.sequences import EXTRA, NotAnImage, Sequence, need, readable
from sonogravity.datasets.video_files import Video

DEFLATED, IMPLICIT = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2"  # transfer syntaxes
VIDEOS = "1.2.840.10008.1.2.4.10"  # MPEG2, MPEG-4 and HEVC begin so: .100 to .108
JPEGS = tuple(f"1.2.840.10008.1.2.4.{number}" for number in ("5", "7", "8", "9", "20"))  # also JPEG-LS, JPEG 2000
PIXEL_DATA = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")  # the tag, little and big endian
LUMINANCE_FIRST = ("YBR_FULL", "YBR_FULL_422")


def open_dicom(path):
    """Return the Sequence of a DICOM file. Raise NotAnImage if it holds no image, InputError if it is unusable."""
    need(path, "DICOM files", "pydicom")
    import pydicom

    with readable(path, pydicom.errors.InvalidDicomError, pydicom.errors.BytesLengthException):
        header, pixel_data = _open(path)
        syntax = str(header.file_meta.get("TransferSyntaxUID") or IMPLICIT)
        return (DicomVideo if syntax.startswith(VIDEOS) else DicomImages)(path, header, pixel_data, syntax)


def _open(path):
    """Return the header, without pixels, and the PixelData."""
    import pydicom

    with open(path, "rb") as file:
        header = pydicom.dcmread(file, stop_before_pixels=True, force=True)
        after = file.tell()
        held = file.read(4) in PIXEL_DATA
    implicit, little_endian = header.original_encoding
    content = path
    if header.file_meta.get("TransferSyntaxUID") == DEFLATED:  # only such a file is unpacked as a whole
        whole = pydicom.dcmread(path)
        held, after = "PixelData" in whole, 0
        value = whole.get("PixelData", b"")
        content = PIXEL_DATA[0] + b"OW\0\0" + len(value).to_bytes(4, "little") + value
    if not (held and header.get("Rows") and header.get("Columns")):
        kind = getattr(header.get("SOPClassUID"), "name", "file")
        if "Image Storage" in kind:
            raise InputError(f"{path}: ends before its pixels ({kind}); replace or remove the file")
        raise NotAnImage(f"{path}: is DICOM ({kind}), but holds no image; leave it out")
    return header, PixelData(content, after, not implicit, little_endian)


def _describe(sequence, header):
    """Take the scale, the tissue regions and the warnings of a header over."""
    sequence.regions, found = regions_of(header, sequence.size)
    scales = {region.spacing for region in sequence.regions}
    if len(scales - {None}) == 1 == len(scales):
        sequence.spacing = scales.pop()
    elif scales <= {None} and (pixel_size := pixel_size_of(header)):
        sequence.take_pixel_size(*pixel_size)
    sequence.scale_warnings += [f"{sequence.path}: {warning}" for warning in found]
    sequence.identifying = identifying_in_name(header, sequence.path)


class DicomVideo(Video):
    """A DICOM file whose pixel data is a video (MPEG2, MPEG-4, HEVC)."""

    def __init__(self, path, header, pixel_data, syntax):
        parts = pixel_data.frames(1)
        if not parts:
            raise InputError(f"{path}: holds no complete frame; replace or remove the file")
        super().__init__(path, lambda: io.BufferedReader(Joined(pixel_data, parts[0])))
        self.declared = int(header.get("NumberOfFrames") or self.count)
        if self.count < self.declared and not self.warnings:
            self.cut_to(self.count, f"the video ends in frame {self.count} of {self.declared}")
        self.times = self.times or times_of(header, self.count)
        _describe(self, header)


class DicomImages(Sequence):
    """A DICOM file of images that are compressed one by one, or not at all."""

    def __init__(self, path, header, pixel_data, syntax):
        from pydicom.pixels import get_decoder
        from pydicom.pixels.utils import as_pixel_options
        from pydicom.uid import UID

        options = as_pixel_options(header, pixel_keyword="PixelData", pixel_vr=pixel_data.vr)
        options.pop("extended_offsets", None)
        declared = max(1, int(options["number_of_frames"]))
        self._options, self._pixel_data, self._decoder = options, pixel_data, get_decoder(UID(syntax))
        if not self._decoder.is_available:
            raise InputError(f"{path}: to read {UID(syntax).name}, a decoder must be installed; {EXTRA}")
        self._has_end_marker = syntax.startswith(JPEGS)
        super().__init__(path, declared, (header.Rows, header.Columns))
        self._parts, count = None, self._uncompressed_frames()
        if pixel_data.length == UNDEFINED:
            self._parts = pixel_data.frames(declared, header.get("ExtendedOffsetTable"))
            count = len(self._parts)
            if self._has_end_marker and self._parts and not pixel_data.ends(self._parts[-1]):
                count -= 1  # decoders fill what is missing with grey
        if count < declared:
            self.cut_to(count, f"the file ends in frame {count} of {declared}")
        self.numbered = declared > 1
        self.times = times_of(header, self.count)
        self._grey_table, self._colours = _grey_table(header, path), _colour_table(header)
        _describe(self, header)
        if self._grey_table is not None and isinstance(header.get("WindowCenter"), Iterable):
            self.warnings.append(f"{path}: has {len(header.WindowCenter)} windows, of which the first is used")

    def _uncompressed_frames(self):
        """Return the number of complete frames of pixel data that is not compressed."""
        o, data = self._options, self._pixel_data
        bits = self.size[0] * self.size[1] * o["samples_per_pixel"] * o["bits_allocated"]
        if o["photometric_interpretation"] == "YBR_FULL_422":
            bits = bits * 2 // 3
        return min(data.length, data.size - data.offset) * 8 // bits

    def _decode(self, number, raw):
        """Return a frame and its photometric interpretation. raw: leave luminance and chrominance as they are."""
        if self._parts is None:
            with self._pixel_data.open() as file:
                file.seek(self._pixel_data.offset)
                array, described = self._as_array(file, number, raw, self._options)
        else:
            from pydicom.encaps import encapsulate

            data = self._pixel_data.read(self._parts[number])
            if self._has_end_marker and not has_end(data):
                raise ValueError("the end of the image is missing")
            refuse_other_size(self.path, number, data, self.size)
            options = self._options | {"number_of_frames": 1}
            array, described = self._as_array(encapsulate([data]), 0, raw, options)
        return array.astype(array.dtype.newbyteorder("=")), described["photometric_interpretation"]

    def _as_array(self, source, index, raw, options):
        try:
            return self._decoder.as_array(source, index=index, raw=raw, **options)
        except RuntimeError as error:  # the reason stands in the last line, after the names of the decoders
            raise ValueError(str(error).strip().split("\n")[-1].strip()) from error

    def _read(self, number, grey):
        array, kind = self._decode(number, raw=grey)
        if array.ndim == 3:
            if grey and kind in LUMINANCE_FIRST:
                return array[:, :, 0]
            array = array if not grey or kind == "RGB" else self._decode(number, raw=False)[0]
            return (array >> max(0, self._options["bits_stored"] - 8)).astype(np.uint8)
        if self._colours is not None:
            return self._colours[np.minimum(array, len(self._colours) - 1)]
        if self._grey_table is not None:
            return self._grey_table[array.view(f"u{array.itemsize}")]
        return array

    def _read_values(self, number):
        return self._decode(number, raw=True)[0]


def _colour_table(header):
    """Return the (n, 3) uint8 colours of the pixel values of a PALETTE COLOR image, None for other images."""
    if header.get("PhotometricInterpretation") != "PALETTE COLOR":
        return None
    from pydicom.pixels import apply_color_lut

    values = np.arange(2 ** min(16, header.BitsStored), dtype=np.uint16)
    colours = apply_color_lut(values, header)[:, :3]
    wide = colours.max() > 255  # some files hold 8-bit colours in a table of 16 bits
    return (colours >> (8 if wide else 0)).astype(np.uint8)


def _grey_table(header, path):
    """Return the image's grey level of each stored value, None if the stored value is the grey level.

    Values of more than 8 bits become 8-bit by the first window of the header (PS3.3, C.11.2); without a window they
    stay. MONOCHROME1 shows 0 as white, so it is inverted.
    """
    from pydicom.dataset import Dataset
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    if not str(header.get("PhotometricInterpretation")).startswith("MONOCHROME"):
        return None
    allocated, stored, signed = header.BitsAllocated, header.BitsStored, header.get("PixelRepresentation", 0)
    if header.get("HighBit", stored - 1) != stored - 1:
        raise InputError(f"{path}: its {stored} bits end at bit {header.HighBit}, not {stored - 1}; export it again")
    inverted = header.PhotometricInterpretation == "MONOCHROME1"
    if allocated == 1:
        return np.array([255, 0] if inverted else [0, 255], np.uint8)
    if allocated not in (8, 16):
        raise InputError(f"{path}: its pixels have {allocated} bits; export it with 8 or 16 bits per pixel")
    values = np.arange(2**allocated, dtype=f"u{allocated // 8}")
    if stored <= 8 and not signed:
        table = np.minimum(values, 2**stored - 1).astype(np.uint8)
        return np.uint8(2**stored - 1) - table if inverted else None if allocated == 8 else table
    window = Dataset()
    window.set_original_encoding(*header.original_encoding)
    source = group_of(header, "FrameVOILUTSequence") or header
    for keyword in ("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"):
        if source.get(keyword) not in (None, "", []):
            setattr(window, keyword, source.get(keyword))
    if not ("WindowCenter" in window or "VOILUTSequence" in window):
        if signed:
            raise InputError(
                f"{path}: its pixels are signed, but it has no window; export it with one, or leave it out"
            )
        return np.uint16(2**stored - 1) - values if inverted else None
    window.PhotometricInterpretation, window.BitsStored, window.PixelRepresentation = "MONOCHROME2", 8, 0
    measured = apply_modality_lut(values.view(f"i{allocated // 8}") if signed else values, header)
    shown = apply_voi_lut(measured, window)
    if "VOILUTSequence" in window:
        shown = shown * (255 / (2 ** int(window.VOILUTSequence[0].LUTDescriptor[2]) - 1))
    table = np.rint(np.clip(shown, 0, 255)).astype(np.uint8)
    return 255 - table if inverted else table
