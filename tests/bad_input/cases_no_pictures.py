"""Cases of bad input: what lies where a picture should."""

import shutil
from pathlib import Path

from scene import add


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
add(
    "an input that is no image",
    "unet/predict",
    lambda s: ["--input", Path(__file__)],
    "cases_no_pictures.py",
    "not an image",
)


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
add("an empty input", "unet/predict", without("validation/images/*", "validation/masks/*"), "holds no images")
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
add("two inputs of one stem", "unet/predict", lambda s: ["--input", s.frame(), _twin(s)], "same stem")


def _twin(scene):
    twin = scene.root / "elsewhere" / "C_001.png"
    twin.parent.mkdir()
    return shutil.copy(scene.frame(), twin)
