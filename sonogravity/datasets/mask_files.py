"""Read mask files as mask values, and write masks. All encodings of labels are handled here."""

from typing import NamedTuple

import numpy as np
from PIL import Image, PngImagePlugin

from sonogravity.common.messages import InputError
from sonogravity.datasets.image_files import GREY_16_BIT, read_file, two_or_colour
from sonogravity.datasets.labels import COLOUR, values_in

# An entry of the masks that we write: their palettes only show the classes, and may differ from model to model.
VALUES_ARE_INDICES = ("Comment", "SonoGravity: the mask values are the palette indices")


class MaskFile(NamedTuple):
    """The (H, W) values of a mask, and the colour (red, green, blue) of each value; {} if the file has no palette."""

    values: np.ndarray
    palette: dict[int, tuple[int, int, int]]


def decode_mask(path):
    """Return the (H, W) mask values of a mask file: uint8 if they fit, else int32 (see labels.COLOUR).

    Palette files give their indices. In colour files, grey pixels give their grey level, coloured pixels
    ``COLOUR + 0xRRGGBB`` and fully transparent pixels 0. Raise InputError, with the file's name, if the file is
    unusable.
    """
    return read_mask(path).values


def read_mask(path):
    """Return the MaskFile of a path. Values and errors as of decode_mask."""
    content = read_file(path)
    if not isinstance(content, Image.Image):
        return MaskFile(mask_of_array(content, path), {})
    if content.mode == "P":
        return _palette_mask(content, path)
    if content.mode in ("L", "1"):
        return MaskFile(np.array(content.convert("L")), {})
    if content.mode in GREY_16_BIT or content.mode == "F":
        return MaskFile(_grey_mask(np.asarray(content), path), {})
    pixels = np.asarray(content.convert("RGBA"))
    _refuse_one_hot(pixels[:, :, :3], path)
    return MaskFile(_colour_mask(pixels, path), {})


def mask_of_array(array, name):
    """Return the (H, W) mask values of an array, as decode_mask does. An InputError begins with ``name``."""
    _refuse_one_hot(array, name)
    array = two_or_colour(array, name)
    if array.ndim == 2:
        return _grey_mask(array, name)
    if array.dtype != np.uint8:
        raise InputError(
            f"{name}: a mask of {array.shape} {array.dtype}; save class numbers (H, W), or colours as uint8"
        )
    return _colour_mask(array, name)


def write_mask(path, values, colours=None):
    """Write the mask values of Labels.to_values as PNG: 8-bit or 16-bit grey, or RGB.

    colours: {value: (red, green, blue)}; 8-bit values are then written as indices of a palette with these colours.
    """
    image, entries = Image.fromarray(values), None
    if colours and values.dtype == np.uint8 and values.ndim == 2:
        palette = np.zeros((256, 3), np.uint8)
        palette[list(colours)] = list(colours.values())
        image.putpalette(palette.tobytes())
        entries = PngImagePlugin.PngInfo()
        entries.add_text(*VALUES_ARE_INDICES)
    image.save(path, format="PNG", pnginfo=entries)


def _palette(image):
    """The colour of each index of a palette image; {} if it only repeats the index as a grey level, or is our own."""
    key, text = VALUES_ARE_INDICES
    if image.info.get(key) == text:
        return {}
    colours = np.array(image.getpalette("RGB"), int).reshape(-1, 3)
    if (colours == np.arange(len(colours))[:, None]).all():
        return {}
    return {index: tuple(colour) for index, colour in enumerate(colours.tolist())}


def _palette_mask(image, path):
    """The MaskFile of a palette image: its indices, 0 if their entry is transparent, and its colours."""
    indices, transparent = np.array(image), image.info.get("transparency")
    alpha = np.full(256, 255)
    if isinstance(transparent, int):
        alpha[transparent] = 0
    elif transparent:
        alpha[: len(transparent)] = list(transparent)
    present = values_in(indices)
    if any(0 < alpha[index] < 255 for index in present):
        raise InputError(f"{path}: palette entries are partly transparent; save the mask without transparency")
    clear = [index for index in present if alpha[index] == 0]
    if any(clear) and 0 in present and alpha[0]:
        raise InputError(
            f"{path}: palette entry {max(clear)} is transparent and entry 0 is a colour, so both would be background; "
            "save the mask without transparency"
        )
    indices[np.isin(indices, clear)] = 0
    hidden = {*clear, 0} if clear else set()
    return MaskFile(indices, {index: colour for index, colour in _palette(image).items() if index not in hidden})


def _refuse_one_hot(array, path):
    """Raise InputError for (C, H, W) or (H, W, C) channels of 0 and 1, which are no colours."""
    if array.ndim != 3 or 1 in (array.shape[0], array.shape[2]) or not array.size or array.dtype.kind not in "biuf":
        return
    if array.max() > 1 or not np.isin(array, (0, 1)).all():
        return
    sums = {axis: array.sum(axis, dtype=int) for axis in (0, 2)}
    axis = min(sums, key=lambda axis: ((sums[axis] > 1).mean(), array.shape[axis]))
    channels, most = array.shape[axis], sums[axis].max()
    if (np.take(array, [0], axis) == array).all():  # a grey mask of 0 and 1 that is stored in each channel
        return
    background = " + 1, and 0 where no channel is set" if sums[axis].min() == 0 else ""
    raise InputError(
        f"{path}: holds {channels} channels of 0 and 1 (one-hot), not colours; save one class number per pixel: "
        + (f"numpy.argmax(mask, axis={axis}){background}" if most == 1 else "here pixels have several classes at once")
    )


def _grey_mask(array, path):
    """Return whole numbers 0 to 65535 of any type as uint8 or int32."""
    if array.dtype == bool:
        return array.astype(np.uint8)
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind == "f" and not (np.isfinite(array).all() and (array == np.rint(array)).all()):
        raise InputError(f"{path}: the mask holds fractions or NaN; save whole numbers, one per class")
    if array.dtype.kind not in "fiu":
        raise InputError(f"{path}: the mask has the type {array.dtype}; save whole numbers, one per class")
    if array.min() < 0 or array.max() > 65535:
        raise InputError(f"{path}: mask values are {array.min():g} to {array.max():g}; save values from 0 to 65535")
    return array.astype(np.uint8 if array.max() < 256 else np.int32)


def _colour_mask(pixels, path):
    """Return the mask values of (H, W, 3 or 4) uint8 pixels."""
    red, green, blue = (pixels[:, :, i].astype(np.int32) for i in range(3))
    values = np.where((red == green) & (green == blue), red, COLOUR + (red << 16) + (green << 8) + blue)
    if pixels.shape[2] == 4:
        alpha = pixels[:, :, 3]
        partly = ((alpha > 0) & (alpha < 255)).any()
        if alpha.min() < alpha.max() and (values == values[0, 0]).all() and (partly or not values[0, 0]):
            raise InputError(f"{path}: the labels are in the alpha channel only; save that channel as a grey mask")
        if partly:
            raise InputError(f"{path}: the mask is partly transparent; save it without transparency")
        values[alpha == 0] = 0
    return values.astype(np.uint8) if values.max() < 256 else values.astype(np.int32)
