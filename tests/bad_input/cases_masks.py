"""Cases of bad input: masks."""

import numpy as np
import pandas as pd
from cases_no_pictures import without
from cases_pixels import as_plain, encoded, pixels
from conftest import simple_frame, write_frame
from PIL import Image
from scene import add


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
add("one class only", "unet/train", one_value("train"), "1 value", "at least two")
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
add("one training frame, DeepLab", "deeplab/train", one_frame, "A_000.png", "at least 2 frames")
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
