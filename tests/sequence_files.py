"""Small clips, cines, stacks and volumes that tests write, as the programs that users have write them."""

from fractions import Fraction

import av
import imagecodecs
import numpy as np
import pydicom
import SimpleITK
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, UltrasoundMultiFrameImageStorage, generate_uid

SIZE = (48, 64)


def grey_frames(count=8, size=SIZE, seed=0):
    """Frames that all differ, with smooth and noisy parts and the whole range of grey levels."""
    rng = np.random.default_rng(seed)
    frames = []
    for k in range(count):
        frame = np.tile(np.linspace(0, 255, size[1]).astype(np.uint8), (size[0], 1))
        frame[: size[0] // 2] = rng.integers(0, 256, (size[0] // 2, size[1]))
        frame[-4:, :] = (k * 29) % 256
        frames.append(frame)
    return frames


def region(left=0, top=0, right=SIZE[1] - 1, bottom=SIZE[0] - 1, *, delta=(0.01, 0.01), units=(3, 3), kind=(1, 1)):
    """An item of SequenceOfUltrasoundRegions. kind: RegionSpatialFormat and RegionDataType."""
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType = kind
    item.RegionFlags = 0
    item.RegionLocationMinX0, item.RegionLocationMinY0 = left, top
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = right, bottom
    item.PhysicalUnitsXDirection, item.PhysicalUnitsYDirection = units
    item.PhysicalDeltaX, item.PhysicalDeltaY = delta
    return item


def dicom_header(array, count, syntax, photometric="MONOCHROME2", **elements):
    """A data set without pixels. array: one frame. elements: further elements by keyword."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = UID(syntax)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = UltrasoundMultiFrameImageStorage
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.Modality = "US"
    data.Rows, data.Columns = array.shape[:2]
    data.SamplesPerPixel = 3 if array.ndim == 3 else 1
    if array.ndim == 3:
        data.PlanarConfiguration = 0
    data.PhotometricInterpretation = photometric
    data.BitsAllocated = data.BitsStored = 8 * array.itemsize
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(array.dtype.kind == "i")
    if count > 1:
        data.NumberOfFrames = count
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    return data


def write_dicom(path, frames, syntax=ExplicitVRLittleEndian, encode=None, offsets=True, **elements):
    """Write frames as DICOM. encode: function of a frame that returns its compressed bytes. offsets: write a table."""
    data = dicom_header(frames[0], len(frames), syntax, **elements)
    if encode is None:
        pixels = np.stack(frames).astype(frames[0].dtype.newbyteorder("<" if UID(syntax).is_little_endian else ">"))
        content = pixels.tobytes()
        data.PixelData = content + b"\0" * (len(content) % 2)
        data["PixelData"].VR = "OW" if data.BitsAllocated > 8 else "OB"
    else:
        data.PixelData = encapsulate([encode(frame) for frame in frames], has_bot=offsets)
        data["PixelData"].VR = "OB"
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def jpeg(frame, **options):
    return imagecodecs.jpeg8_encode(frame, level=95, **options)


# Transfer syntaxes that one frame at a time can be written in: name -> (UID, encoder, whether values are kept).
ENCODERS = {
    "JPEG baseline": ("1.2.840.10008.1.2.4.50", jpeg, False),
    "JPEG lossless": ("1.2.840.10008.1.2.4.57", imagecodecs.ljpeg_encode, True),
    "JPEG lossless SV1": ("1.2.840.10008.1.2.4.70", imagecodecs.ljpeg_encode, True),
    "JPEG-LS": ("1.2.840.10008.1.2.4.80", imagecodecs.jpegls_encode, True),
    "JPEG-LS near-lossless": ("1.2.840.10008.1.2.4.81", lambda frame: imagecodecs.jpegls_encode(frame, level=3), False),
    "JPEG 2000 lossless": (
        "1.2.840.10008.1.2.4.90",
        lambda frame: imagecodecs.jpeg2k_encode(frame, codecformat="j2k", reversible=True),
        True,
    ),
    "JPEG 2000": (
        "1.2.840.10008.1.2.4.91",
        lambda frame: imagecodecs.jpeg2k_encode(frame, codecformat="j2k", level=60),
        False,
    ),
    "RLE": ("1.2.840.10008.1.2.5", lambda frame: _rle(frame), True),
}


def _rle(frame):
    from pydicom.pixels import get_encoder
    from pydicom.uid import RLELossless

    samples = 3 if frame.ndim == 3 else 1
    return get_encoder(RLELossless).encode(
        frame.tobytes(),
        rows=frame.shape[0],
        columns=frame.shape[1],
        number_of_frames=1,
        samples_per_pixel=samples,
        bits_allocated=8 * frame.itemsize,
        bits_stored=8 * frame.itemsize,
        pixel_representation=0,
        photometric_interpretation="RGB" if samples == 3 else "MONOCHROME2",
        planar_configuration=0,
    )


def write_video(path, frames, codec="ffv1", pixels="gray", *, options=None, stamps=None, rate=25, full_range=False):
    """Write frames as a video. stamps: time of each frame in ms. full_range: mark and store grey levels of 0 to 255."""
    path.parent.mkdir(parents=True, exist_ok=True)
    base = Fraction(1, 1000) if stamps else Fraction(1, rate)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.options = pixels, options or {}
        stream.codec_context.time_base = base
        if full_range:
            stream.codec_context.color_range = 2
        for number, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(array, format="gray" if array.ndim == 2 else "rgb24")
            if frame.format.name != pixels:
                frame = frame.reformat(format=pixels, dst_color_range=2 if full_range else 1)
            frame.pts, frame.time_base = (stamps[number] if stamps else number), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_volume(path, frames, spacing=(0.1, 0.1, 1.0), direction=None, compress=False):
    """Write frames as the slices of a volume, or one frame as an image, by SimpleITK."""
    array = np.stack(frames) if len(frames) > 1 else frames[0]
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(spacing[: image.GetDimension()])
    if direction:
        image.SetDirection(direction)
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(image, str(path), compress)
    return path


def write_segmentation(path, labels, segments):
    """Write labels, (N, H, W) or with layers (N, H, W, L), as 3D Slicer 5 does. segments: {name: (value, layer)}."""
    image = SimpleITK.GetImageFromArray(labels, isVector=labels.ndim == 4)
    for number, (name, (value, layer)) in enumerate(segments.items()):
        for key, text in (("ID", f"Segment_{number + 1}"), ("Name", name), ("LabelValue", value), ("Layer", layer)):
            image.SetMetaData(f"Segment{number}_{key}", str(text))
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(image, str(path), True)
    return path


def example(name):
    """The path of a real DICOM file that pydicom brings along."""
    return pydicom.data.get_testdata_file(name, download=False)
