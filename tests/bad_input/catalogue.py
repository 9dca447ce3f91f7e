"""What users and strangers put in: every case a scene that is spoilt, a script, and what must come of it.

test_catalogue.py runs each through the script's main, a sample also through the shell.
"""

import json
import os
import pickle
import shutil
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from conftest import make_folder, simple_frame, write_frame
from PIL import Image

SUFFIXES = ("png", "jpg", "bmp", "tif", "npy", "pth")
SMALL_RUN = ["--epochs", "1", "--scale", "0.5", "--device", "cpu", "--workers", "0", "--name", "run"]
LARGEST_PORTABLE_NAME = 240  # bytes; file systems take 255, and outputs add to a stem


@dataclass
class Scene:
    """A folder with good data, and what a case makes of it.

    root: everything lies here. checkpoints: {"unet": ..., "deeplab": ...} trained before on like data.
    """

    root: Path
    checkpoints: dict
    output: Path = field(init=False)
    trace: Path = field(init=False)  # what hostile files would leave if their code ran

    def __post_init__(self):
        make_folder(self.root / "train")
        make_folder(self.root / "validation", subjects=("C",), seed=1)
        self.output, self.trace = self.root / "out", self.root / "trace"

    @property
    def train(self):
        return self.root / "train"

    @property
    def validation(self):
        return self.root / "validation"

    @property
    def best(self):
        return self.checkpoints["unet"]

    def frame(self, kind="images", number=1, part="validation"):
        """The path of one good PNG frame or mask."""
        subject = "A" if part == "train" else "C"
        return self.root / part / kind / f"{subject}_{number:03d}.png"

    def replace(self, suffix, content=None, *, kind="images", part="validation", number=1):
        """Put a file of another format in a frame's place: its pixels re-saved, or the given array or bytes."""
        old = self.frame(kind, number, part)
        path = old.with_suffix(f".{suffix}")
        array = np.array(Image.open(old))
        old.unlink()
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            save_as(path, array if content is None else content)
        return path

    def rows(self):
        """files.csv of the output, by file."""
        return pd.read_csv(self.output / "files.csv", dtype={"missed": str, "spurious": str}).set_index("file")

    def content(self):
        """The good checkpoint's dictionary, to be changed and saved with ``write``."""
        return torch.load(self.best, weights_only=True)

    def write(self, content, name="spoilt.pth"):
        torch.save(content, self.root / name)
        return self.root / name


@dataclass(frozen=True)
class Case:
    """One entry. arrange(scene) spoils it and returns options; says: parts of the refusal, or None where it works."""

    name: str
    script: str
    arrange: object
    says: tuple | None = None
    check: object = None
    rights: bool = False  # file rights mean nothing to root


def save_as(path, array):
    """An array in the format of the path's suffix."""
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".pth":
        torch.save(torch.from_numpy(array), path)
    else:
        Image.fromarray(array).save(path)


class Payload:
    """Unpickled carelessly, this makes a folder: the trace."""

    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return os.mkdir, (self.trace,)


CASES = []


def add(name, script, arrange, *says, check=None, rights=False):
    CASES.append(Case(name, script, arrange, says or None, check, rights))


# Broken files: each format, as image and as mask, in each way, through training and through scoring.


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 5])


def emptied(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("this is no picture\n" * 9)


def noise(path):
    path.write_bytes(np.random.default_rng(3).bytes(900))


def flipped(path):
    """One bit of the pixels changed, which a checksum tells where the format has one."""
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 0x10
    path.write_bytes(content)


def broken(script, how, suffix, kind):
    part = "train" if script.endswith("train") else "validation"

    def arrange(scene):
        how(scene.replace(suffix, kind=kind, part=part))
        return []

    stem = "A_001" if part == "train" else "C_001"
    add(f"{how.__name__} {suffix} in {kind}, {script}", script, arrange, f"{stem}.{suffix}")


for _i, _suffix in enumerate(SUFFIXES):
    for _j, _how in enumerate((cut, emptied, text, noise)):
        for _k, _kind in enumerate(("images", "masks")):
            broken(
                ("unet/train", "unet/predict", "deeplab/evaluate", "unet/evaluate_w_margin")[(_i + _j + _k) % 4],
                _how,
                _suffix,
                _kind,
            )
broken("unet/predict", flipped, "png", "images")
broken("unet/evaluate", flipped, "png", "masks")


# What lies where a picture should.


def folder_for_file(scene):
    scene.frame().unlink()
    scene.frame().mkdir()
    return []


def linked(target):
    def arrange(scene):
        scene.frame().unlink()
        scene.frame().symlink_to(scene.frame() if target is None else target)
        return []

    return arrange


def looped_folder(scene):
    (scene.root / "loop").symlink_to(scene.root / "loop")
    return ["--input", scene.root / "loop"]


def unreadable(scene):
    scene.frame().chmod(0)
    return []


def unreadable_folder(scene):
    (scene.validation / "images").chmod(0)
    return []


add("a folder named like an image, evaluate", "unet/evaluate", folder_for_file, "C_001.png")
add("a folder named like an image, train", "unet/train", folder_for_file, "C_001.png")
add("a link to itself as image", "unet/predict", linked(None), "C_001.png", "link")
add("a link to nothing as image", "unet/train", linked("nowhere.png"), "C_001.png", "link")
add("a link loop as input folder", "unet/predict", looped_folder, "loop")
add("a link loop as checkpoint", "unet/predict", lambda s: ["--load", looped_folder(s)[1]], "loop", "no such file")
add("an image without reading rights", "unet/predict", unreadable, "C_001.png", "ermission", rights=True)
add("a folder without reading rights", "unet/train", unreadable_folder, "images", "ermission", rights=True)
add("no such input", "unet/predict", lambda s: ["--input", s.root / "nowhere"], "nowhere", "no such")
add("no such training folder", "unet/train", lambda s: ["--train", s.root / "nowhere"], "nowhere", "no such")
add("an input that is no image", "unet/predict", lambda s: ["--input", Path(__file__)], "catalogue.py", "not an image")


def without(*patterns):
    def arrange(scene):
        for pattern in patterns:
            for path in scene.root.glob(pattern):
                path.unlink()
        return []

    return arrange


add("an image without mask, train", "unet/train", without("train/masks/A_002.png"), "A_002.png", "no mask")
add("an image without mask, evaluate", "unet/evaluate", without("validation/masks/C_002.png"), "C_002.png", "no mask")
add("a mask without image, train", "deeplab/train", without("train/images/A_002.png"), "A_002.png", "no image")
add("a mask without image, evaluate", "unet/evaluate", without("validation/images/C_002.png"), "C_002.png", "no image")
add(
    "an image without mask is predicted",
    "unet/predict",
    without("validation/masks/C_002.png"),
    check=lambda s: (len(s.rows()), int(s.rows()["dice"].isna()["C_002.png"])) == (4, 1),
)
add("empty images", "unet/train", without("train/images/*"), "images", "holds no image")
add("an empty input", "unet/predict", without("validation/images/*", "validation/masks/*"), "no image found")
add("empty masks", "unet/train", without("train/masks/*"), "no mask")


def copied(source, name, kinds=("images",)):
    def arrange(scene):
        for kind in kinds:
            shutil.copy(scene.frame(kind, source), scene.frame(kind).with_name(name))
        return []

    return arrange


add("a stem doubled across formats", "unet/predict", copied(1, "C_001.bmp"), "C_001.png", "same stem")
add("a stem doubled among masks", "unet/evaluate", copied(1, "C_001.tif", ("masks",)), "C_001", "same stem")
add("stems that differ in case only", "unet/predict", copied(2, "c_001.png", ("images", "masks")), "c_001.png", "case")
add("two inputs of one stem", "unet/predict", lambda s: ["--input", s.frame(), _twin(s)], "one stem")


def _twin(scene):
    twin = scene.root / "elsewhere" / "C_001.png"
    twin.parent.mkdir()
    return shutil.copy(scene.frame(), twin)


# Names.


def named(stem):
    """A good pair of that name beside the others; the row of it is checked."""

    def arrange(scene):
        write_frame(scene.validation, stem, *simple_frame(7))
        return []

    return arrange


def row_of(stem):
    def check(scene):
        masks = {path.name for path in (scene.output / "masks").iterdir()}
        return f"{stem}.png" in scene.rows().index and f"{stem}.png" in masks and len(masks) == 5

    return check


GOOD_NAMES = {
    "letters of other scripts": "腰椎_ώμος_ü_001",
    "a name with spaces and quotes": "sub 1 'left' \"a\", b; c",
    "a name like a formula": "=1+1_001",
    "a name like a function": "@SUM(A1)_001",
    "a name that begins with minus": "-rf_001",
    "a name that begins with plus": "+1_001",
    "a name with dots": "a..b.c_001",
    "a name with percent and braces": "%s_{0}_$HOME_001",
    "a long name": "x" * (LARGEST_PORTABLE_NAME - 4),
    "a long name of other letters": "腰" * ((LARGEST_PORTABLE_NAME - 4) // 3),
    "a name that a shell would expand": "~_*_?_001",
}
for _title, _stem in GOOD_NAMES.items():
    add(_title, "unet/predict", named(_stem), check=row_of(_stem))
add(
    "a long name in training",
    "unet/train",
    named("y" * (LARGEST_PORTABLE_NAME - 4)),
    check=lambda s: len(list(s.output.glob("results/unet/run/panels/epoch_001/*.png"))) >= 4,
)
add("a name too long for its outputs", "unet/predict", named("z" * 251), "zzz", "bytes long")
add("a name with a line break", "unet/predict", named("a\nb_001"), "a\\nb_001", "rename")
add("a name with a bell", "unet/train", named("a\x07b_001"), "\\x07", "rename")
add("a name that is not Unicode", "unet/predict", named(os.fsdecode(b"a\xff_001")), "rename")
add(
    "a name of combining letters finds its mask",
    "unet/evaluate",
    lambda s: _move(s.frame(), "u\u0308_001.png") or _move(s.frame("masks"), "\u00fc_001.png") or [],
    check=lambda s: len(s.rows()) == 4,
)


def _move(path, name):
    path.rename(path.with_name(name))


# Pixels.


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
add("a TIFF of three pages", "unet/predict", encoded("tif", frames_of), "C_001.tif", "3 frames")
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


# Masks.


def grown(array):
    return np.pad(array, ((0, 1), (0, 0)))


def anti_aliased(array):
    image = Image.fromarray(array)
    return np.array(image.resize((90, 100), Image.Resampling.BICUBIC).resize(image.size, Image.Resampling.BICUBIC))


def one_value(part):
    def arrange(scene):
        for path in (scene.root / part / "masks").iterdir():
            Image.fromarray(np.zeros((40, 36), np.uint8)).save(path)
        return []

    return arrange


def with_value(value, kind=np.uint8):
    def make(array):
        array = array.astype(kind)
        array[0, 0] = value
        return array

    return make


def half_transparent(image):
    image = image.convert("RGBA")
    image.putalpha(100)
    return image, {}


def coloured(image):
    image = image.convert("RGB")
    image.putpixel((0, 0), (255, 0, 0))
    return image, {}


for _script, _part in (("unet/train", "train"), ("unet/evaluate", "validation"), ("deeplab/predict", "validation")):
    add(
        f"a mask of another size, {_script}",
        _script,
        pixels("png", grown, "masks", _part),
        ("A" if _part == "train" else "C") + "_001.png",
        "36x41",
        "36x40",
    )
add("an unknown mask value, train", "unet/train", pixels("png", with_value(77), "masks"), "C_001.png", "77")
add("an unknown mask value, evaluate", "unet/evaluate", pixels("png", with_value(77), "masks"), "C_001.png", "77")
add("an unknown mask value, predict", "unet/predict", pixels("png", with_value(77), "masks"), "C_001.png", "77")
add(
    "an anti-aliased mask, train",
    "unet/train",
    pixels("png", anti_aliased, "masks", "train"),
    "A_001.png",
    "--snap-masks",
)
add(
    "an anti-aliased mask, evaluate", "unet/evaluate", pixels("png", anti_aliased, "masks"), "C_001.png", "--snap-masks"
)
add("a JPEG mask", "unet/train", pixels("jpg", lambda a: a, "masks", "train"), "A_001.jpg", "--snap-masks")
add(
    "a JPEG mask is snapped when asked",
    "unet/train",
    lambda s: [*pixels("jpg", lambda a: a, "masks", "train")(s), "--snap-masks", "--classes", 3],
    check=lambda s: (s.output / "results" / "unet" / "run" / "epochs.csv").exists(),
)
add(
    "a float mask of whole numbers works",
    "unet/evaluate",
    pixels("npy", lambda a: a.astype(np.float32), "masks"),
    check=lambda s: as_plain("png")(s),
)
add("a float mask of fractions", "unet/evaluate", pixels("npy", lambda a: a / 255, "masks"), "C_001.npy", "fractions")
add(
    "a mask with NaN", "unet/train", pixels("npy", with_value(np.nan, np.float32), "masks", "train"), "A_001.npy", "NaN"
)
add("a negative mask value", "unet/train", pixels("npy", with_value(-1, np.int16), "masks", "train"), "A_001.npy", "-1")
add(
    "a mask value above 16 bits",
    "unet/train",
    pixels("npy", with_value(70000, np.int32), "masks", "train"),
    "A_001.npy",
    "70000",
)
add("a half transparent mask", "unet/evaluate", encoded("png", half_transparent, "masks"), "C_001.png", "transparent")
add("a coloured pixel in a grey mask", "unet/evaluate", encoded("png", coloured, "masks"), "C_001.png", "#ff0000")
add(
    "an RGB mask of grey content works",
    "unet/evaluate",
    encoded("png", lambda i: (i.convert("RGB"), {}), "masks"),
    check=as_plain("png"),
)
add("one class only", "unet/train", one_value("train"), "1 value", "two at least")
add(
    "validation of one class only works",
    "unet/train",
    one_value("validation"),
    check=lambda s: pd.read_csv(s.output / "results/unet/run/epochs.csv")["sensitivity"].isna().all(),
)


def one_frame(scene):
    without("train/*/A_001.png", "train/*/A_002.png", "train/*/A_003.png", "train/*/B_*.png")(scene)
    return []


add(
    "one training frame, U-Net",
    "unet/train",
    one_frame,
    check=lambda s: (s.output / "checkpoints" / "unet" / "run" / "best.pth").exists(),
)
add("one training frame, DeepLab", "deeplab/train", one_frame, "A_000.png", "2 frames at least")
add(
    "one validation frame works",
    "unet/train",
    without(*[f"validation/*/C_00{n}.png" for n in (1, 2, 3)]),
    check=lambda s: (s.output / "checkpoints" / "unet" / "run" / "best.pth").exists(),
)
add(
    "a subject in both sets",
    "unet/train",
    lambda s: write_frame(s.train, "C_009", *simple_frame(3)) or [],
    "C",
    "--allow-overlap",
)
add("training and validation are one folder", "unet/train", lambda s: ["--validation", s.train], "one folder")


# Hostile files: nothing in them may run.


def hostile(suffix, kind, part="validation"):
    def arrange(scene):
        path = scene.replace(suffix, kind=kind, part=part)
        if suffix == "npy":
            np.save(path, np.array([Payload(scene.trace)], dtype=object), allow_pickle=True)
        elif suffix == "pth":
            torch.save(Payload(scene.trace), path)
        else:
            path.write_bytes(pickle.dumps(Payload(scene.trace)))
        return []

    return arrange


for _suffix in ("pth", "npy", "png"):
    add(f"a pickle with code as .{_suffix} image", "unet/predict", hostile(_suffix, "images"), f"C_001.{_suffix}")
    add(f"a pickle with code as .{_suffix} mask", "unet/train", hostile(_suffix, "masks", "train"), f"A_001.{_suffix}")
add(
    "an old-style pickle with code as image",
    "unet/evaluate",
    lambda s: s.replace("pth", pickle.dumps(Payload(s.trace), protocol=2)) and [],
    "C_001.pth",
)
add(
    "a checkpoint with code",
    "unet/predict",
    lambda s: ["--load", s.write({"a": Payload(s.trace)})],
    "spoilt.pth",
    "safely",
)
add(
    "a checkpoint with code beside good weights",
    "deeplab/evaluate",
    lambda s: ["--load", s.write({**s.content(), "extras": Payload(s.trace)})],
    "spoilt.pth",
    "safely",
)
add("an old-style checkpoint with code", "unet/train", lambda s: ["--load", _pickled(s)], "spoilt.pth", "safely")
add(
    "a checkpoint with code to resume",
    "unet/train",
    lambda s: ["--resume", s.write(Payload(s.trace))],
    "spoilt.pth",
    "safely",
)
add(
    "weights with code as --pretrained",
    "deeplab/train",
    lambda s: ["--pretrained", s.write({"a": Payload(s.trace)})],
    "spoilt.pth",
    "safely",
)


def _pickled(scene):
    (scene.root / "spoilt.pth").write_bytes(pickle.dumps(Payload(scene.trace)))
    return scene.root / "spoilt.pth"


# Checkpoints.


def changed(**entries):
    """The good checkpoint with entries changed; None takes one out."""

    def arrange(scene):
        content = scene.content() | entries
        return ["--load", scene.write({key: value for key, value in content.items() if value is not None})]

    return arrange


def with_weights(change):
    def arrange(scene):
        content = scene.content()
        change(content["state_dict"])
        return ["--load", scene.write(content)]

    return arrange


def without_depth(scene):
    weights = scene.content()["state_dict"]
    return weights | {"inc.double_conv.0.weight": weights["inc.double_conv.0.weight"][:, :1].clone()}


def bytes_of_checkpoint(change):
    def arrange(scene):
        (scene.root / "spoilt.pth").write_bytes(change(scene.best.read_bytes()))
        return ["--load", scene.root / "spoilt.pth"]

    return arrange


LABELS = {"values": [0, 128, 255], "names": ["0", "128", "255"], "background": 0, "snap": False}
OPTIONS = {"in_channels": 1, "classes": 3, "base_channels": 4, "bilinear": False}
add("a truncated checkpoint", "unet/predict", bytes_of_checkpoint(lambda b: b[: len(b) // 2]), "spoilt.pth", "safely")
add("an empty checkpoint", "unet/predict", bytes_of_checkpoint(lambda b: b""), "spoilt.pth", "safely")
add(
    "a checkpoint with a byte changed in its weights",
    "unet/predict",
    bytes_of_checkpoint(lambda b: b[: len(b) // 2] + bytes([b[len(b) // 2] ^ 255]) + b[len(b) // 2 + 1 :]),
    "spoilt.pth",
    "damaged",
)
add("a text as checkpoint", "deeplab/predict", bytes_of_checkpoint(lambda b: b"hello"), "spoilt.pth", "safely")
add("a folder as checkpoint", "unet/predict", lambda s: ["--load", s.root], "no such file")
add("no such checkpoint", "deeplab/evaluate", lambda s: ["--load", s.root / "no.pth"], "no.pth", "no such file")
add("a list as checkpoint", "unet/predict", lambda s: ["--load", s.write([1, 2])], "spoilt.pth", "list")
add("a tensor as checkpoint", "unet/predict", lambda s: ["--load", s.write(torch.ones(3))], "spoilt.pth", "Tensor")
add("an empty dictionary as checkpoint", "unet/predict", lambda s: ["--load", s.write({})], "spoilt.pth", "no weights")
add("DeepLab's checkpoint in U-Net", "unet/predict", lambda s: ["--load", s.checkpoints["deeplab"]], "deeplab")
add("U-Net's checkpoint in DeepLab", "deeplab/predict", lambda s: ["--load", s.best], "unet")
add(
    "U-Net's weights alone in DeepLab",
    "deeplab/evaluate",
    lambda s: ["--load", s.write(s.content()["state_dict"])],
    "spoilt.pth",
    "no deeplab model",
)
add("an image as checkpoint", "unet/evaluate", lambda s: ["--load", s.frame()], "C_001.png", "safely")
add(
    "a checkpoint of a later version",
    "unet/predict",
    changed(format="sonogravity checkpoint 9"),
    "spoilt.pth",
    "checkpoint 9",
)
add(
    "a checkpoint of an older version",
    "unet/train",
    changed(format="sonogravity checkpoint 0"),
    "spoilt.pth",
    "checkpoint 0",
)
add("a checkpoint of another class count", "unet/train", lambda s: [*_two_classes(s), "--load", s.best], "128", "255")


def _two_classes(scene):
    for path in (*(scene.train / "masks").iterdir(), *(scene.validation / "masks").iterdir()):
        Image.fromarray((np.array(Image.open(path)) > 0).astype(np.uint8) * 9).save(path)
    return []


add(
    "a checkpoint whose labels are fewer than its classes",
    "unet/predict",
    changed(labels={**LABELS, "values": [0, 255], "names": ["0", "255"]}),
    "spoilt.pth",
    "damaged",
)
add(
    "a checkpoint whose names are alike",
    "unet/predict",
    changed(labels={**LABELS, "names": ["0", "a", "a"]}),
    "spoilt.pth",
    "damaged",
)
add("a checkpoint whose labels are text", "unet/predict", changed(labels="none"), "spoilt.pth", "damaged")
add(
    "a checkpoint with a background that is no class",
    "unet/predict",
    changed(labels={**LABELS, "background": 7}),
    "spoilt.pth",
    "damaged",
)
add("a checkpoint without labels", "unet/predict", changed(labels=None), "spoilt.pth", "damaged")
add("a checkpoint of scale NaN", "unet/predict", changed(scale=float("nan")), "spoilt.pth", "damaged")
add("a checkpoint of scale 0", "unet/predict", changed(scale=0.0), "spoilt.pth", "damaged")
add(
    "a checkpoint of a billion channels",
    "unet/predict",
    changed(model_options={**OPTIONS, "base_channels": 10**9}),
    "spoilt.pth",
    "damaged",
)
add(
    "a checkpoint with a strange option",
    "unet/predict",
    changed(model_options={**OPTIONS, "depth": 9}),
    "spoilt.pth",
    "damaged",
)
add("a checkpoint whose run leads elsewhere", "unet/predict", changed(run="../../../escape"), "spoilt.pth", "damaged")
add("a checkpoint with an unknown entry", "unet/predict", changed(surprise=1), "spoilt.pth", "surprise")
add(
    "a checkpoint of weights NaN",
    "unet/predict",
    with_weights(lambda w: w["outc.conv.weight"].fill_(float("nan"))),
    "spoilt.pth",
    "outc.conv.weight",
)
add("a checkpoint with tensors for its labels", "unet/predict", changed(labels=torch.ones(3)), "spoilt.pth", "labels")
add("a checkpoint whose format is a tensor", "unet/predict", changed(format=torch.ones(2, 2)), "spoilt.pth", "is a")
add(
    "a checkpoint whose model is a tensor",
    "unet/predict",
    changed(model_name=torch.ones(2, 2)),
    "spoilt.pth",
    "model_name",
)
add(
    "a checkpoint whose weight claims more than the file holds",
    "unet/predict",
    with_weights(lambda w: w.update({"outc.conv.bias": torch.ones(1).expand(10**6, 10**5)})),
    "spoilt.pth",
    "outc.conv.bias",
)
add(
    "a checkpoint that lacks a weight",
    "unet/predict",
    with_weights(lambda w: w.pop("outc.conv.bias")),
    "spoilt.pth",
    "outc.conv.bias",
)
add(
    "a checkpoint with a weight of another shape",
    "unet/predict",
    with_weights(lambda w: w.update({"outc.conv.bias": torch.zeros(7)})),
    "spoilt.pth",
    "outc.conv.bias",
)
add(
    "a checkpoint whose weight is a number",
    "unet/predict",
    with_weights(lambda w: w.update({"outc.conv.bias": 3})),
    "spoilt.pth",
    "outc.conv.bias",
)
add("weights without scores to resume from", "unet/train", lambda s: ["--resume", s.best], "weights only")
add(
    "a bare state dict works",
    "unet/evaluate",
    lambda s: ["--load", s.write(without_depth(s)), "--mask-values", "0,128,255"],
    check=lambda s: len(s.rows()) == 4,
)
add(
    "a bare state dict with a channel that nothing explains",
    "unet/evaluate",
    lambda s: ["--load", s.write(s.content()["state_dict"]), "--mask-values", "0,128,255"],
    "spoilt.pth",
    "2 channels",
)
add(
    "mask values too few for the checkpoint",
    "unet/evaluate",
    lambda s: ["--load", s.write(without_depth(s)), "--mask-values", "0,128"],
    "spoilt.pth",
    "3 classes",
)


# Options: out of range, and at odds with one another.

OUT_OF_RANGE = {
    "unet/train": (
        ("--epochs", "0"),
        ("--epochs", "-3"),
        ("--epochs", "1.5"),
        ("--epochs", "many"),
        ("--batch-size", "0"),
        ("--learning-rate", "0"),
        ("--learning-rate", "-1e-3"),
        ("--learning-rate", "inf"),
        ("--scale", "0"),
        ("--scale", "nan"),
        ("--scale", "5"),
        ("--classes", "1"),
        ("--classes", "256"),
        ("--channels", "2"),
        ("--patience", "0"),
        ("--seed", "-1"),
        ("--workers", "-1"),
        ("--workers", "100000"),
        ("--save-every", "0"),
        ("--weight-decay", "-1"),
        ("--cache-mb", "-5"),
        ("--base-channels", "3"),
        ("--base-channels", "0"),
        ("--device", "tpu"),
        ("--device", "cuda:99"),
        ("--name", "../up"),
        ("--name", "a/b"),
        ("--name", ".."),
        ("--class-names", "a,,b"),
        ("--class-names", "a"),
        ("--class-names", "a,a"),
        ("--class-names", "background,b"),
        ("--background", "-1"),
        ("--background", "70000"),
        ("--background", "#12"),
        ("--background", "7"),
        ("--subject-regex", "("),
        ("--optimizer", "lion"),
        ("--scheduler", "step"),
        ("--loss", "focal"),
        ("--accumulate", "0"),
        ("--accumulate", "1.5"),
        ("--folds", "1"),
        ("--folds", "200"),
        ("--fold", "1"),
        ("--fold", "0"),
        ("--freeze-encoder", "-1"),
    ),
    "unet/evaluate_w_margin": (
        ("--margin-mm", "0"),
        ("--margin-mm", "-1"),
        ("--margin-mm", "1000"),
        ("--pixels-per-mm", "0"),
        ("--pixels-per-mm", "nan"),
        ("--pixels-per-mm", "1e9"),
        ("--mask-values", "a,b"),
        ("--mask-values", "0,128"),
    ),
    "deeplab/train": (("--backbone", "vgg"), ("--batch-size", "1"), ("--base-channels", "8")),
    "unet/predict": (
        ("--panels", "gif"),
        ("--margin-mm", "1"),
        ("--threshold", "0.5"),
        ("--engine", "tensorrt"),
        ("--engine", "auto"),
        ("--tta", "vertical"),
    ),
    "unet/evaluate": (("--engine", "auto"), ("--engine", "")),
}
for _script, _options in OUT_OF_RANGE.items():
    for _name, _value in _options:
        add(f"{_script} {_name} {_value}", _script, lambda s, pair=(_name, _value): list(pair), _name)

add("--load and --resume", "unet/train", lambda s: ["--load", s.best, "--resume", s.best], "only one")
add("--new-head without --load", "unet/train", lambda s: ["--new-head"], "--new-head", "--load")
add("--folds and --resume", "unet/train", lambda s: ["--folds", 2, "--resume", s.best], "--folds", "one fold")
add("--folds and --repeat", "unet/train", lambda s: ["--folds", 2, "--repeat", s.best], "--folds", "one fold")
add("folds of names without a subject", "unet/train", lambda s: ["--folds", 2, "--subject-regex", "(zebra)"], "subject")
add("one checkpoint twice", "unet/predict", lambda s: ["--load", s.best, s.best], "given twice")
add(
    "an ensemble with another model",
    "unet/evaluate",
    lambda s: ["--load", s.best, s.checkpoints["deeplab"]],
    "deeplab",
    "this script runs unet",
)
add("an ensemble that lacks a file", "unet/evaluate", lambda s: ["--load", s.best, s.root / "no.pth"], "no.pth")
add(
    "--tta for masks",
    "unet/evaluate",
    lambda s: ["--predictions", s.validation / "masks", "--tta", "flip"],
    "--tta",
    "no",
)
add("--int8 without its engine", "unet/predict", lambda s: ["--int8"], "--int8", "--engine openvino")
add(
    "an int8 model that was never made",
    "unet/predict",
    lambda s: ["--engine", "openvino", "--int8"],
    "int8.xml",
    "export.py",
)
add(
    "--engine for masks",
    "unet/evaluate",
    lambda s: ["--predictions", s.validation / "masks", "--engine", "onnx"],
    "--engine",
    "no",
)
add("--snap-masks without --classes", "unet/train", lambda s: ["--snap-masks"], "--classes")
add(
    "--pretrained and --load",
    "deeplab/train",
    lambda s: ["--load", s.checkpoints["deeplab"], "--pretrained", s.best],
    "--pretrained",
    "--load",
)
add(
    "--predictions and --load",
    "unet/evaluate",
    lambda s: ["--predictions", s.root, "--load", s.best],
    "--predictions",
    "not allowed",
)
add(
    "--spacing and --pixels-per-mm",
    "unet/evaluate",
    lambda s: ["--spacing", s.root, "--pixels-per-mm", 3],
    "not allowed",
)
add("more classes than the masks hold", "unet/train", lambda s: ["--classes", "5"], "--classes says 5")
add("fewer classes than the masks hold", "unet/train", lambda s: ["--classes", "2"], "3 values")
add(
    "other mask values than the checkpoint's",
    "unet/evaluate",
    lambda s: ["--mask-values", "0,1,2"],
    "--mask-values",
    "has its own",
)
add("a model too large for any memory", "unet/train", lambda s: ["--base-channels", "1000000"], "out of memory")


# Outputs.


def occupied(scene):
    scene.output.mkdir()
    (scene.output / "thesis.docx").write_text("mine")
    return []


def output_file(scene):
    scene.output.write_text("mine")
    return []


add("an output folder with other files", "unet/predict", occupied, "thesis.docx", "--output")
add("an output that is a file", "unet/evaluate", output_file, "is a file")
add("an output under a file", "unet/predict", lambda s: output_file(s) or ["--output", s.output / "deep"], "out")
add("checkpoints under a file", "unet/train", lambda s: _under_file(s), "taken")


def _under_file(scene):
    (scene.root / "taken").write_text("mine")
    return ["--checkpoints", scene.root / "taken"]


# Calibration tables.

TABLES = {
    "without its columns": ("name,ppm\nC_000.png,3\n", "columns"),
    "with a negative number": ("file,pixels_per_mm\nC_000.png,-3\n", "line 2"),
    "with text for a number": ("file,pixels_per_mm\nC_000.png,many\n", "many"),
    "that lacks files": ("file,pixels_per_mm\nC_000.png,3\n", "C_001.png"),
    "with a file twice": ("file,pixels_per_mm\nC_000.png,3\nC_000.png,4\n", "twice"),
    "that is empty": ("", "columns"),
    "with a line without a name": ("file,pixels_per_mm\n,3\n", "no file name"),
    "with a density of a million": ("file,pixels_per_mm\n" + "".join(f"C_00{n}.png,1e6\n" for n in range(4)), "line 2"),
}
for _title, (_text, _says) in TABLES.items():
    add(
        f"a table {_title}",
        "unet/evaluate_w_margin",
        lambda s, text=_text: ["--spacing", _written(s.root / "spacing.csv", text)],
        "spacing.csv",
        _says,
    )
add(
    "a table in another encoding",
    "unet/evaluate",
    lambda s: ["--spacing", _written(s.root / "spacing.csv", "file,pixels_per_mm\nü.png,3\n", "latin-1")],
    "spacing.csv",
    "UTF-8",
)
add("a table that is a folder", "unet/evaluate", lambda s: ["--spacing", s.root], "no such file")
add(
    "a table of semicolons and decimal commas works",
    "unet/evaluate",
    lambda s: [
        "--spacing",
        _written(s.root / "t.csv", "file;pixels_per_mm\n" + "".join(f"C_00{n}.png;3,5\n" for n in range(4))),
    ],
    check=lambda s: "hd95_mm" in s.rows(),
)


def _written(path, content, encoding="utf-8"):
    path.write_text(content, encoding=encoding)
    return path


# Masks against masks.


def predictions(change):
    def arrange(scene):
        folder = scene.root / "drawn"
        shutil.copytree(scene.validation / "masks", folder)
        change(folder)
        return ["--predictions", folder]

    return arrange


add(
    "predictions that lack a file",
    "unet/evaluate",
    predictions(lambda f: (f / "C_001.png").unlink()),
    "C_001.png",
    "no prediction",
)
add(
    "predictions with a file too many",
    "deeplab/evaluate",
    predictions(lambda f: shutil.copy(f / "C_001.png", f / "D_001.png")),
    "D_001.png",
    "no true mask",
)
add(
    "a prediction of another size",
    "unet/evaluate",
    predictions(lambda f: Image.new("L", (9, 9)).save(f / "C_001.png")),
    "C_001.png",
    "9x9",
    "36x40",
)
add(
    "a prediction with an unknown value",
    "unet/evaluate_w_margin",
    predictions(lambda f: Image.new("L", (36, 40), 3).save(f / "C_001.png")),
    "C_001.png",
    "3",
)
add("a broken prediction", "unet/evaluate", predictions(lambda f: cut(f / "C_001.png")), "C_001.png", "cannot be read")
add(
    "predictions equal to the truth score 1",
    "deeplab/evaluate",
    predictions(lambda f: None),
    check=lambda s: (s.rows()["dice"].dropna() == 1).all(),
)


# Settings to repeat.


def settings(change):
    def arrange(scene):
        content = json.loads(scene.checkpoints["settings"].read_text())
        content["options"] |= {"train": str(scene.train), "validation": str(scene.validation)}
        path = scene.root / "settings.json"
        changed_content = change(content)
        path.write_text(changed_content if isinstance(changed_content, str) else json.dumps(content))
        return ["--repeat", path]

    return arrange


add("no such settings", "unet/train", lambda s: ["--repeat", s.root / "no.json"], "no.json", "no such file")
add("settings cut in half", "unet/train", settings(lambda c: json.dumps(c)[:200]), "settings.json", "JSON")
add("settings that are a list", "unet/train", settings(lambda c: "[1, 2]"), "settings.json", "train.py")
add("settings without options", "unet/train", settings(lambda c: c.pop("options") and None), "settings.json", "options")
add(
    "settings with an unknown option",
    "unet/train",
    settings(lambda c: c["options"].update(magic=1)),
    "settings.json",
    "magic",
)
add(
    "settings out of range", "unet/train", settings(lambda c: c["options"].update(scale=-1)), "settings.json", "--scale"
)
add(
    "settings with a line break",
    "unet/train",
    settings(lambda c: c["options"].update(workers="\n")),
    "settings.json",
    "\\x0a",
)
add(
    "settings of another type",
    "unet/train",
    settings(lambda c: c["options"].update(epochs=[1])),
    "settings.json",
    "--epochs",
)
add("U-Net's settings in DeepLab", "deeplab/train", settings(lambda c: None), "settings.json", "unet")
add(
    "settings of a prediction", "unet/train", settings(lambda c: c.update(script="predict")), "settings.json", "predict"
)
add(
    "settings of other data",
    "unet/train",
    settings(lambda c: c["data"].update(digest="0" * 32)),
    "settings.json",
    "data",
)
add("--repeat and --load", "unet/train", lambda s: [*settings(lambda c: None)(s), "--load", s.best], "--repeat")
add(
    "--repeat and --learning-rate",
    "unet/train",
    lambda s: [*settings(lambda c: None)(s), "--learning-rate", "0.5"],
    "--learning-rate",
)
add(
    "settings that are whole repeat",
    "unet/train",
    settings(lambda c: None),
    check=lambda s: (s.output / "results" / "unet" / "run" / "epochs.csv").exists(),
)
