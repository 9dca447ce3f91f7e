"""Read image files as arrays. All formats, bit depths and layouts of images are handled here.

Pillow reads PNG, JPEG, BMP, TIFF and WebP. numpy reads ``.npy`` without pickles, ``torch.load(weights_only=True)``
``.pth``. No file can run code.
"""

import re

import numpy as np
from PIL import Image

from sonogravity.common.files import BROKEN_FILE, load_torch
from sonogravity.common.messages import InputError, first_line
from sonogravity.datasets.tiff_errors import tiff_errors

EXTENSIONS = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".tif", ".tiff", ".webp", ".npy", ".pth", ".pt")
SEVERAL = (".tif", ".tiff", ".webp")  # of these types, some files hold several frames
GREY_16_BIT = ("I", "I;16", "I;16L", "I;16B", "I;16N")
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, the weights of Pillow's own conversion
MAX_PIXELS = 2**26  # 8192 x 8192; a larger image is an error or an attack, not an ultrasound frame
ORIENTATION, DESCRIPTION, PHOTOMETRIC, WHITE_IS_ZERO = 0x0112, 270, 262, 0  # EXIF tag; TIFF 6.0 tags, and a value


def decode_image(path, channels):
    """Return the array of an image file: (H, W) for channels=1 or (H, W, 3) for channels=3.

    8-bit files give uint8, 16-bit files uint16, float files float32 in 0 to 1. Colour is converted to grey for
    channels=1, and grey is repeated for channels=3. Raise InputError, with the file's name, if the file is unusable.
    """
    content = read_file(path)
    if isinstance(content, Image.Image):
        if content.mode in GREY_16_BIT or content.mode == "F":
            content = np.asarray(content)
        else:
            return np.array(content.convert("L" if channels == 1 else "RGB"))
    return image_of_array(content, channels, path)


def image_of_array(array, channels, name):
    """Return an array as decode_image returns a .npy file of it. An InputError begins with ``name``."""
    return _with_channels(_image_array(array, name), channels)


def read_file(path):
    """Return the file as a loaded Pillow image, or as an array if it is .npy or .pth."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            return _read_array(path)
        if suffix in (".pth", ".pt"):
            return _read_tensor(path)
        with Image.open(path) as image:
            _refuse_what_pillow_would_change(path, image)
            with tiff_errors():
                image.load()
            return image
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: the image is too large ({error}); crop or resize it") from error
    except BROKEN_FILE as error:
        raise InputError(f"{path}: cannot be read ({first_line(error)}); replace or remove the file") from error


def _refuse_what_pillow_would_change(path, image):
    """Raise InputError if an image is too large, has several frames, or decodes to other pixels than a viewer shows."""
    if image.width * image.height > MAX_PIXELS:
        raise InputError(
            f"{path}: the image is too large ({image.width}x{image.height}); crop or resize it to {MAX_PIXELS} pixels "
            "or fewer"
        )
    frames = _frames_in(image)
    if frames > 1:
        convert = ", or convert it with python -m sonogravity.convert" * (path.suffix.lower() in SEVERAL)
        raise InputError(f"{path}: holds {frames} frames; save each as a separate file{convert}")
    turned = image.getexif().get(ORIENTATION, 1)
    if turned not in (0, 1):
        raise InputError(
            f"{path}: has an orientation tag ({turned}), so viewers rotate it and its mask may not match; save it "
            "upright without the tag"
        )
    if image.format == "TIFF" and image.mode in GREY_16_BIT and image.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        raise InputError(f"{path}: is a 16-bit TIFF with white at zero; save it with black at zero")
    if image.format == "PNG" and image.mode not in GREY_16_BIT:  # Pillow reduces 16-bit colour to 8-bit silently
        with open(path, "rb") as file:
            header = file.read(25)  # signature 8, length 4, IHDR 4, width 4, height 4, then the bit depth
        if header[24] == 16:
            raise InputError(f"{path}: is a 16-bit colour PNG; save it as 16-bit grey, or as 8-bit")


def _frames_in(image):
    """Return the number of frames of an open Pillow image."""
    if image.format == "TIFF":  # ImageJ's larger stacks have one directory, of the first slice only
        text = str(image.tag_v2.get(DESCRIPTION, ""))
        if declared := re.findall(r"^images=(\d+)", text, re.MULTILINE):
            return int(declared[0])
    return getattr(image, "n_frames", 1)


def frame_count(path):
    """Return the number of frames of an image file, 1 if it cannot be opened as one with several."""
    if path.suffix.lower() not in SEVERAL:
        return 1
    try:
        with Image.open(path) as image:
            return _frames_in(image)
    except (*BROKEN_FILE, Image.DecompressionBombError):
        return 1


def _read_array(path):
    # Map the file first: a header that claims more data than the file holds is refused before any allocation.
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path}: is an archive of arrays; save each array as a separate .npy file")
    return np.array(array)


def _read_tensor(path):
    import torch

    tensor = load_torch(path)
    if not isinstance(tensor, torch.Tensor):
        raise InputError(f"{path}: holds a {type(tensor).__name__}, not a tensor; save the pixels as one tensor")
    return tensor.to(torch.float32).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


def two_or_colour(array, path):
    """Return the array as (H, W) or (H, W, 3 or 4), without axes of length 1. Raise InputError for other shapes."""
    shape = array.shape
    if array.ndim == 4 and shape[0] == 1:
        array = array[0]
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[2]):
        array = array[0] if array.shape[0] == 1 else array[:, :, 0]
    if array.ndim == 3 and array.shape[0] in (3, 4) and array.shape[2] not in (3, 4):
        array = np.moveaxis(array, 0, 2)
    if array.size and (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        return array
    raise InputError(f"{path}: the array has the shape {shape}; save it as (H, W), (1, H, W) or (3, H, W)")


def _image_array(array, path):
    """Return an image array as uint8, uint16 or float32. Raise InputError for other types or floats outside 0 to 1."""
    array = two_or_colour(array, path)
    array = array[:, :, :3] if array.ndim == 3 else array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype in (np.uint8, np.uint16):
        return np.ascontiguousarray(array)
    if array.dtype == np.int32 and array.min() >= 0 and array.max() <= 65535:  # Pillow's mode I
        return array.astype(np.uint16)
    if array.dtype.kind != "f":
        raise InputError(f"{path}: pixels are {array.dtype}; save them as uint8, uint16 or floats in 0 to 1")
    array = array.astype(np.float32)
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 1):  # this form also refuses NaN
        what = "not a number (NaN) in places" if np.isnan(array).any() else f"{low:g} to {high:g}"
        raise InputError(f"{path}: float pixels are {what}; save them as numbers in 0 to 1")
    return array


def _with_channels(array, channels):
    if channels == 3:
        return array if array.ndim == 3 else np.repeat(array[:, :, None], 3, 2)
    if array.ndim == 2:
        return array
    if array.dtype == np.uint8:
        return np.array(Image.fromarray(array).convert("L"))
    grey = array @ LUMA
    return grey.astype(np.float32) if array.dtype == np.float32 else np.rint(grey).astype(array.dtype)
