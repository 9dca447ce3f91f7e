"""Image and mask files -> arrays, and back: every format, depth and layout is settled here.

PNG, JPEG, BMP and TIFF go through Pillow, ``.npy`` through numpy without pickles, ``.pth`` through
``torch.load(weights_only=True)``: no file can run code.
"""

import numpy as np
from PIL import Image

from sonogravity.common.files import BROKEN_FILE, load_torch
from sonogravity.common.messages import InputError, first_line
from sonogravity.datasets.labels import COLOUR

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".npy", ".pth", ".pt")
GREY_16_BIT = ("I", "I;16", "I;16L", "I;16B", "I;16N")
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, the weights of Pillow's own conversion
MAX_PIXELS = 2**26  # 8192 x 8192: more is a slip or an attack, not an ultrasound frame
ORIENTATION, PHOTOMETRIC, WHITE_IS_ZERO = 0x0112, 262, 0  # of EXIF and TIFF 6.0


def decode_image(path, channels):
    """An image file -> (H, W) for channels=1 or (H, W, 3) for channels=3.

    uint8 from 8-bit files, uint16 from 16-bit files, float32 in 0 to 1 from float files. Colour is
    turned to grey for channels=1, grey repeated for channels=3. InputError names the file.
    """
    content = _read(path)
    if isinstance(content, Image.Image):
        if content.mode in GREY_16_BIT or content.mode == "F":
            content = np.asarray(content)
        else:
            return np.array(content.convert("L" if channels == 1 else "RGB"))
    return image_of_array(content, channels, path)


def image_of_array(array, channels, name):
    """What decode_image gives for a .npy file of this array; InputError begins with ``name``."""
    return _with_channels(_image_array(array, name), channels)


def decode_mask(path):
    """A mask file -> (H, W) mask values: uint8 if they fit, else int32 (see labels.COLOUR).

    Palette files give their indices; grey pixels of a colour file their grey level, coloured ones
    ``COLOUR + 0xRRGGBB``; wholly transparent pixels 0. InputError names the file.
    """
    content = _read(path)
    if isinstance(content, Image.Image):
        if content.mode == "P" or content.mode == "L":
            return np.array(content)
        if content.mode == "1":
            return np.array(content.convert("L"))
        if content.mode in GREY_16_BIT or content.mode == "F":
            return _grey_mask(np.asarray(content), path)
        content = np.asarray(content.convert("RGBA"))
        return _colour_mask(content, path)
    array = _two_or_colour(content, path)
    if array.ndim == 2:
        return _grey_mask(array, path)
    if array.dtype != np.uint8:
        raise InputError(f"{path}: a mask of {array.shape} {array.dtype}; colour masks must be uint8")
    return _colour_mask(array, path)


def write_mask(path, values):
    """Write the mask values of Labels.to_values as PNG: 8-bit or 16-bit grey, or RGB."""
    Image.fromarray(values).save(path, format="PNG")


def _read(path):
    """The file as a loaded Pillow image, or as an array for .npy and .pth."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            return _read_array(path)
        if suffix in (".pth", ".pt"):
            return _read_tensor(path)
        with Image.open(path) as image:
            _refuse_what_pillow_would_change(path, image)
            image.load()
            return image
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: the image is too large to be a frame ({error})") from error
    except BROKEN_FILE as error:
        raise InputError(f"{path}: cannot be read ({first_line(error)}); replace or remove the file") from error


def _refuse_what_pillow_would_change(path, image):
    """Refuse an opened image whose pixels would come out otherwise than a viewer shows them: better none than wrong."""
    if image.width * image.height > MAX_PIXELS:
        raise InputError(f"{path}: the image is too large to be a frame ({image.width}x{image.height})")
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise InputError(f"{path}: holds {frames} frames; save each as a file of its own")
    turned = image.getexif().get(ORIENTATION, 1)
    if turned not in (0, 1):
        raise InputError(
            f"{path}: has an orientation tag ({turned}), so viewers turn it and its mask may not fit; save it upright "
            "without the tag"
        )
    if image.format == "TIFF" and image.mode in GREY_16_BIT and image.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        raise InputError(f"{path}: is a 16-bit TIFF with white at zero; save it with black at zero")
    if image.format == "PNG" and image.mode not in GREY_16_BIT:  # Pillow cuts those of 16 bits to 8 without a word
        with open(path, "rb") as file:
            header = file.read(25)  # signature 8, length 4, IHDR 4, width 4, height 4, then the bit depth
        if header[24] == 16:
            raise InputError(f"{path}: is a 16-bit colour PNG; save it as 16-bit grey, or as 8-bit")


def _read_array(path):
    # Mapped first: a header that claims more than the file holds is refused, not allocated.
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path}: is an archive of arrays; save each array as a .npy of its own")
    return np.array(array)


def _read_tensor(path):
    import torch

    tensor = load_torch(path)
    if not isinstance(tensor, torch.Tensor):
        raise InputError(f"{path}: holds a {type(tensor).__name__}, not a tensor; is it a checkpoint?")
    return tensor.to(torch.float32).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


def _two_or_colour(array, path):
    """Drop axes of length 1, bring (3|4, H, W) to (H, W, 3|4); refuse what is neither grey nor colour."""
    shape = array.shape
    if array.ndim == 4 and shape[0] == 1:
        array = array[0]
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[2]):
        array = array[0] if array.shape[0] == 1 else array[:, :, 0]
    if array.ndim == 3 and array.shape[0] in (3, 4) and array.shape[2] not in (3, 4):
        array = np.moveaxis(array, 0, 2)
    if array.size and (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        return array
    raise InputError(f"{path}: an array of shape {shape}; (H, W), (1, H, W) or (3, H, W) is expected")


def _image_array(array, path):
    """Check depth and range of an array that shows an image."""
    array = _two_or_colour(array, path)
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
    if not (low >= 0 and high <= 1):  # so written, NaN is refused too
        what = "not a number in places" if np.isnan(array).any() else f"{low:g} to {high:g}"
        raise InputError(f"{path}: float pixels are {what}; they must lie in 0 to 1")
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


def _grey_mask(array, path):
    """Whole numbers 0 to 65535 of any type -> uint8 or int32."""
    if array.dtype == bool:
        return array.astype(np.uint8)
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind == "f" and not (np.isfinite(array).all() and (array == np.rint(array)).all()):
        raise InputError(f"{path}: the mask holds fractions or NaN; save it as whole numbers, one a class")
    if array.dtype.kind not in "fiu":
        raise InputError(f"{path}: the mask is of type {array.dtype}; save it as whole numbers, one a class")
    if array.min() < 0 or array.max() > 65535:
        raise InputError(f"{path}: mask values run from {array.min():g} to {array.max():g}; 0 to 65535 is the range")
    return array.astype(np.uint8 if array.max() < 256 else np.int32)


def _colour_mask(pixels, path):
    """(H, W, 3 or 4) uint8 -> mask values."""
    red, green, blue = (pixels[:, :, i].astype(np.int32) for i in range(3))
    values = np.where((red == green) & (green == blue), red, COLOUR + (red << 16) + (green << 8) + blue)
    if pixels.shape[2] == 4:
        alpha = pixels[:, :, 3]
        if ((alpha > 0) & (alpha < 255)).any():
            raise InputError(f"{path}: the mask is half transparent in places; save it without transparency")
        values[alpha == 0] = 0
    return values.astype(np.uint8) if values.max() < 256 else values.astype(np.int32)
