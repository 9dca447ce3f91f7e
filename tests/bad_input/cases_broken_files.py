"""Cases of bad input: each format broken in each way, as image and as mask, through training and scoring."""

import numpy as np
from scene import SUFFIXES, add


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
