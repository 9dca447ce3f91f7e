"""Cases of bad input: names."""

import os

from conftest import simple_frame, write_frame
from scene import LARGEST_PORTABLE_NAME, add


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
