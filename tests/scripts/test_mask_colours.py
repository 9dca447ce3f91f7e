"""The masks that predict.py writes: colours to look at, and the user's own values to compute with."""

import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sonogravity.common.files import load_torch
from sonogravity.datasets.labels import Labels
from sonogravity.reporting.pictures import class_colours
from unet import evaluate, predict, train


def masks(folder):
    return {path.name: Image.open(path) for path in sorted((folder / "masks").iterdir())}


def predicted(root, best, *more):
    output = root / f"o{len(more)}"
    options = ["--load", best, "--input", root / "validation", "--output", output, "--panels", "none", *more]
    assert predict.main([str(option) for option in options]) == 0
    return output


def test_a_viewer_shows_the_colours_of_the_classes_and_the_values_stay(trained):
    best = trained / "checkpoints/unet/run/best.pth"
    coloured, grey = (predicted(trained, best, *more) for more in ([], ["--grey-masks"]))
    labels = Labels.from_dict(load_torch(best)["labels"])
    seen = set()
    for (name, shown), (_, plain) in zip(masks(coloured).items(), masks(grey).items(), strict=True):
        assert (shown.mode, plain.mode) == ("P", "L")
        assert (np.array(shown) == np.array(plain)).all()
        classes = np.searchsorted(labels.values, np.array(shown))
        assert (np.array(shown.convert("RGB")) == class_colours(labels)[classes]).all(), name
        seen |= set(np.unique(classes).tolist())
    assert seen == {0, 1, 2}
    tables = []
    for output in (coloured, grey):
        options = ["--predictions", output / "masks", "--input", trained / "validation", "--output", f"{output}_scores"]
        assert evaluate.main([str(option) for option in options]) == 0
        tables.append(pd.read_csv(f"{output}_scores/files.csv").drop(columns="seconds"))
    pd.testing.assert_frame_equal(*tables)


def recoloured(folder, colours):
    """Save the masks of a folder with a palette."""
    for path in (folder / "masks").iterdir():
        image = Image.open(path).convert("L")
        palette = np.zeros((256, 3), np.uint8)
        palette[list(colours)] = list(colours.values())
        image.putpalette(palette.tobytes())
        image.save(path)


@pytest.fixture
def run_of(sets, tmp_path):
    def run(name, *more):
        roots = ["--checkpoints", tmp_path / "c", "--results", tmp_path / "r", "--name", name]
        options = ["--train", sets[0], "--validation", sets[1], "--epochs", 1, "--base-channels", 2, "--no-augment"]
        assert train.main([str(option) for option in (*options, *roots, *more)]) == 0
        return tmp_path / "c" / "unet" / name / "best.pth"

    return run


def test_masks_with_a_palette_give_predictions_with_the_same_colours(run_of, sets, tmp_path):
    colours = {128: (255, 0, 0), 255: (0, 0, 255)}
    for folder in sets:
        recoloured(folder, colours)
    output = predicted(tmp_path, run_of("palette"))
    for shown in masks(output).values():
        palette = np.array(shown.getpalette("RGB")).reshape(-1, 3)
        assert {value: tuple(palette[value].tolist()) for value in colours} == colours


def test_predictions_may_be_training_masks_beside_masks_with_another_palette(trained, run_of, sets, tmp_path, refused):
    """Their colours are ours, not the user's, so they contradict nothing. Those of another program would."""
    output = tmp_path / "o"
    given = ["--load", trained / "checkpoints/unet/run/best.pth", "--input", sets[1] / "images", "--output", output]
    assert predict.main([str(option) for option in given]) == 0
    recoloured(sets[0], {128: (86, 180, 233), 255: (255, 0, 0)})
    for path in (output / "masks").iterdir():
        shutil.copy(path, sets[1] / "masks")
    assert run_of("mixed").is_file()
    for path in (sets[1] / "masks").iterdir():
        Image.open(path).save(path)  # as another program saves it, without our entry
    line = refused(
        train.main, ["--train", sets[0], "--validation", sets[1], "--checkpoints", tmp_path / "c", "--check"]
    )
    assert "the palette shows the value" in line
