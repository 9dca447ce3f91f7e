"""Fuzzing of the readers of clips, stacks and volumes: a damaged file gives frames or one InputError, nothing else."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from PIL import Image
from sequence_files import ENCODERS, example, grey_frames, region, write_dicom, write_video, write_volume
from test_fuzz import damaged, in_one_folder

from sonogravity.common.messages import InputError
from sonogravity.datasets.readers import open_sequence

FRAMES = grey_frames(3, (20, 24))
VIDEOS = {
    "mkv": [("ffv1", "gray"), ("mjpeg", "yuvj420p")],
    "avi": [("ffv1", "gray"), ("mjpeg", "yuvj420p")],
    "mp4": [("libx264", "yuv420p"), ("mpeg4", "yuv420p")],
    "webm": [("libvpx-vp9", "yuv420p")],
}


def dicom_seeds(path):
    for syntax, encode, _ in ENCODERS.values():
        yield write_dicom(path, FRAMES, syntax, encode)
    yield write_dicom(path, FRAMES, SequenceOfUltrasoundRegions=[region(right=10, bottom=10)], FrameTime=40)
    for name in ("examples_palette.dcm", "SC_rgb_small_odd.dcm", "MR_small.dcm"):
        yield Path(example(name))


def tiff_seeds(path):
    colour = np.stack([np.stack(FRAMES)] * 3, axis=3)
    for array, options in (
        (np.stack(FRAMES), {"imagej": True, "metadata": {"axes": "TYX"}}),
        (np.stack(FRAMES), {"photometric": "minisblack"}),
        (np.stack(FRAMES), {"photometric": "minisblack", "compression": "lzw"}),
        (np.stack(FRAMES), {"photometric": "minisblack", "compression": "deflate", "bigtiff": True}),
        (colour, {"photometric": "rgb"}),
    ):
        tifffile.imwrite(path, array, **options)
        yield path


def seeds(suffix, path):
    """Contents of good files of a kind."""
    if suffix in VIDEOS:
        files = (write_video(path, FRAMES, *codec) for codec in VIDEOS[suffix])
    elif suffix in ("mha", "nrrd", "nii", "nii.gz"):
        files = (write_volume(path, FRAMES, compress=compress) for compress in (False, True))
    elif suffix in ("gif", "webp"):
        images = [Image.fromarray(frame) for frame in FRAMES]
        buffer = BytesIO()
        images[0].save(buffer, suffix.upper(), save_all=True, append_images=images[1:], duration=40)
        return [buffer.getvalue()]
    elif suffix == "npz":
        contents = [BytesIO(), BytesIO()]
        np.savez(contents[0], np.stack(FRAMES))
        np.savez_compressed(contents[1], np.stack(FRAMES))
        return [content.getvalue() for content in contents]
    else:
        files = {"dcm": dicom_seeds, "tif": tiff_seeds}[suffix](path)
    return [file.read_bytes() for file in files]


@pytest.mark.parametrize("suffix", ["dcm", "tif", "gif", "webp", "npz", *VIDEOS, "mha", "nrrd", "nii", "nii.gz"])
def test_readers(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"

    @in_one_folder
    @given(damaged(seeds(suffix, tmp_path / f"seed.{suffix}")))
    def check(content):
        path.write_bytes(content)
        try:
            sequence = open_sequence(path)
            if sequence is None:  # one frame is left, which decode_image reads
                return
            assert sequence.count >= 1 and (sequence.times is None or len(sequence.times) == sequence.count)
            for number in {0, sequence.count - 1}:
                image = sequence.read(number, 1)
                assert image.shape == sequence.size and image.dtype in (np.uint8, np.uint16, np.float32)
                sequence.read_values(number)
        except InputError as error:
            assert str(path) in str(error)

    check()
