"""Cases of bad input: masks against masks."""

import shutil

from cases_broken_files import cut
from PIL import Image
from scene import add


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
