"""Cases of bad input: pixels."""

import struct
import zlib

import numpy as np
import pandas as pd
from conftest import write_frame
from PIL import Image
from scene import add


def pixels(suffix, make, kind="images", part="validation"):
    """The frame's array put through make and saved in another format."""

    def arrange(scene):
        old = np.array(Image.open(scene.frame(kind, part=part)))
        scene.replace(suffix, make(old), kind=kind, part=part)
        return []

    return arrange


def encoded(suffix, make, kind="images"):
    """The frame as a Pillow image put through make, which gives an image and options of save."""

    def arrange(scene):
        old = scene.frame(kind)
        image, options = make(Image.open(old).copy())
        old.unlink()
        image.save(old.with_suffix(f".{suffix}"), **options)
        return []

    return arrange


def as_plain(suffix):
    """The row of the re-saved frame equals that of the PNG that it was made from."""

    def check(scene):
        reference = pd.read_csv(scene.checkpoints["reference"]).set_index("file")
        columns = [c for c in reference if c not in ("seconds", "missed", "spurious")]
        one, other = scene.rows().loc[f"C_001.{suffix}", columns], reference.loc["C_001.png", columns]
        return np.allclose(one.astype(float), other.astype(float), atol=1e-6, equal_nan=True)

    return check


def nan_pixels(array):
    unit = (array / 255).astype(np.float32)
    unit[3, 4] = np.nan
    return unit


def bomb_png(scene):
    scene.replace("png", png((60000, 60000), 8, 0, b"\0" * 999))
    return []


def png(size, depth, colour, raw):
    """A PNG file put together by hand."""
    header = b"IHDR" + struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)
    chunks = (header, b"IDAT" + zlib.compress(raw), b"IEND")
    body = b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def bomb_npy(scene):
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (3000000, 3000000), }".ljust(117) + b"\n"
    scene.replace("npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"x" * 50)
    return []


def unending_header(scene):
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (20, 24), }tran_order': False, }".ljust(117) + b"\n"
    scene.replace("npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"x" * 480)
    return []


def bomb_bmp(scene):
    head = struct.pack("<IiiHHIIiiII", 40, 60000, 60000, 1, 8, 0, 0, 0, 0, 256, 0)
    scene.replace("bmp", b"BM" + struct.pack("<IHHI", 2000, 0, 0, 1078) + head + b"\0" * 1024)
    return []


def frames_of(image):
    return image, {"save_all": True, "append_images": [image, image]}


def turned(image):
    exif = Image.Exif()
    exif[0x0112] = 6
    return image, {"exif": exif, "quality": 95}


def sixteen_bit_rgb(scene):
    """A PNG that Pillow would cut to 8 bits without a word."""
    raw = b"".join(b"\0" + np.arange(36 * 3, dtype=">u2").tobytes() for _ in range(40))
    scene.replace("png", png((36, 40), 16, 2, raw))
    return []


def white_is_zero(image):
    array = np.array(image).astype(np.uint16) * 200
    return Image.fromarray(array), {"tiffinfo": {262: 0}}


add(
    "PNG content named .jpg works",
    "unet/predict",
    lambda s: s.frame().rename(s.frame().with_suffix(".jpg")) and [],
    check=as_plain("jpg"),
)
add(
    "a TIFF named .png works",
    "unet/predict",
    lambda s: Image.open(s.frame()).copy().save(s.frame(), format="TIFF") or [],
    check=as_plain("png"),
)
add("an array named .png", "unet/predict", lambda s: _named_png(s), "C_001.png", "cannot be read")


def _named_png(scene):
    path = scene.replace("npy")
    path.rename(path.with_suffix(".png"))
    return []


add(
    "an RGB image of grey content works",
    "unet/predict",
    encoded("png", lambda i: (i.convert("RGB"), {})),
    check=as_plain("png"),
)
add("an RGBA image works", "unet/predict", encoded("png", lambda i: (i.convert("RGBA"), {})), check=as_plain("png"))
add("a CMYK TIFF works", "unet/predict", encoded("tif", lambda i: (i.convert("CMYK"), {})), check=as_plain("tif"))
add("a palette image works", "unet/predict", encoded("png", lambda i: (i.convert("P"), {})), check=as_plain("png"))
add("a BMP works", "unet/predict", pixels("bmp", lambda a: a), check=as_plain("bmp"))
add("a tensor works", "unet/evaluate", pixels("pth", lambda a: a), check=as_plain("pth"))
add(
    "float pixels in 0 to 1 work",
    "unet/evaluate",
    pixels("npy", lambda a: (a / 255).astype(np.float32)),
    check=as_plain("npy"),
)
add("float pixels up to 255", "unet/predict", pixels("npy", lambda a: a.astype(np.float32)), "C_001.npy", "0 to 1")
add("NaN pixels, predict", "unet/predict", pixels("npy", nan_pixels), "C_001.npy", "not a number")
add("NaN pixels in a TIFF", "unet/predict", pixels("tif", nan_pixels), "C_001.tif", "not a number")
add("NaN pixels, train", "deeplab/train", pixels("pth", nan_pixels), "C_001.pth", "not a number")
add("negative pixels", "unet/predict", pixels("npy", lambda a: -a.astype(np.int16)), "C_001.npy", "int16")
add("complex pixels", "unet/predict", pixels("npy", lambda a: a.astype(np.complex64)), "C_001.npy", "complex64")
add("an array of words", "unet/predict", pixels("npy", lambda a: np.array(["a", "b"])), "C_001.npy", "shape")
add("an array of five axes", "unet/predict", pixels("npy", lambda a: a[None, None, None]), "C_001.npy", "shape")
add("an array without pixels", "unet/predict", pixels("npy", lambda a: a[:0]), "C_001.npy", "shape")
add("an array of numbers without shape", "unet/train", pixels("npy", lambda a: np.uint8(3)), "C_001.npy", "shape")
add(
    "16 bits where 8 were trained",
    "unet/predict",
    pixels("tif", lambda a: a.astype(np.uint16) * 200),
    "C_001.tif",
    "16-bit",
)
add("16 bits in validation only", "unet/train", pixels("png", lambda a: a.astype(np.uint16) * 9), "C_001.png", "16-bit")
add("16-bit colour", "unet/predict", sixteen_bit_rgb, "C_001.png", "16-bit colour")
add("16 bits with white at zero", "unet/train", encoded("tif", white_is_zero), "C_001.tif", "white")
add("an animated PNG", "unet/predict", encoded("png", frames_of), "C_001.png", "3 frames")
add("a TIFF of three pages", "unet/train", encoded("tif", frames_of), "C_001.tif", "3 frames")
add(
    "a TIFF of three pages is three frames",
    "unet/predict",
    encoded("tif", frames_of),
    check=lambda s: len(s.rows()) == 6,
)
add("a GIF named .png with three frames", "unet/evaluate", lambda s: _animated_gif(s), "C_001.png", "frames")


def _animated_gif(scene):
    images = [Image.open(scene.frame(number=n)).copy() for n in (1, 2, 3)]
    images[0].save(scene.frame(), format="GIF", save_all=True, append_images=images[1:])
    return []


add("a JPEG with a rotation tag", "unet/predict", encoded("jpg", turned), "C_001.jpg", "orientation")
add("a decompression bomb", "unet/predict", bomb_png, "C_001.png", "too large")
add("a decompression bomb, train", "unet/train", bomb_png, "C_001.png", "too large")
add("an array that claims 9 TB", "unet/predict", bomb_npy, "C_001.npy", "cannot be read")
add("a BMP that claims 3.6 GB", "unet/predict", bomb_bmp, "C_001.bmp", "too large")
add("an array whose header does not end", "unet/predict", unending_header, "C_001.npy", "cannot be read")
add(
    "an image of one pixel works",
    "unet/predict",
    lambda s: write_frame(s.validation, "C_001", np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.uint8)) or [],
    check=lambda s: s.rows().loc["C_001.png", ["width", "height"]].tolist() == [1, 1],
)
add(
    "an image of one row works",
    "deeplab/predict",
    lambda s: write_frame(s.validation, "C_001", np.zeros((1, 99), np.uint8), np.zeros((1, 99), np.uint8)) or [],
    check=lambda s: s.rows().loc["C_001.png", ["width", "height"]].tolist() == [99, 1],
)
