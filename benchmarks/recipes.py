"""The recipes that recipe.py can train: train.py's options, and for what it does not have a change to the program."""

from collections.abc import Callable
from dataclasses import dataclass


def nothing():
    """No change."""


@dataclass(frozen=True)
class Recipe:
    """options: of train.py. change: called before the scripts are imported."""

    options: tuple = ()
    change: Callable = nothing


ORIGINAL = ("--optimizer", "adam", "--learning-rate", "1e-4", "--batch-size", "2", "--scheduler", "plateau",
            "--no-augment")  # fmt: skip
COSINE = ("--optimizer", "adam", "--learning-rate", "1e-3", "--batch-size", "4", "--scheduler", "cosine")
RECIPES = {
    # The study's: cross-entropy for U-Net, with a Dice term for DeepLabV3; the two differ in nothing else.
    "original_ce": Recipe((*ORIGINAL, "--loss", "ce")),
    "original_ce_dice": Recipe((*ORIGINAL, "--loss", "ce+dice")),
    "cosine": Recipe((*COSINE, "--loss", "ce+dice", "--no-augment")),
    "cosine_augmented": Recipe((*COSINE, "--loss", "ce+dice")),
    "default": Recipe(),
}
