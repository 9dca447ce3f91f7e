"""The benchmark's recipes: commands that train.py takes, and the study's own among them."""

import importlib

import pytest
import torch

from sonogravity.common import folders
from sonogravity.datasets import frames
from sonogravity.datasets.labels import Labels
from sonogravity.datasets.loader import TrainingFrames, training_loader
from sonogravity.datasets.pairs import find_training_pairs


@pytest.fixture
def recipes(monkeypatch):
    monkeypatch.syspath_prepend(folders.ROOT / "benchmarks")
    return importlib.import_module("recipes")


@pytest.mark.parametrize("folder", ["unet", "deeplab"])
def test_every_recipe_is_a_command_that_train_takes(recipes, folder):
    parser = importlib.import_module(f"{folder}.train").build_parser()
    default = parser.parse_args([])
    for name in set(recipes.RECIPES) - ({"deep"} if folder == "deeplab" else {"aux"}):
        options = parser.parse_args(list(map(str, recipes.named(name, folder).options)))
        assert options.depth_channel == (name in ("default", "depth")), name
    assert parser.parse_args(recipes.named("default", folder).options) == default


def test_the_defaults_are_those_that_the_notes_give_evidence_for():
    common = {"optimizer": "adam", "scheduler": "cosine", "loss": "ce+dice", "augment": True, "depth_channel": True}
    for folder, own in (
        ("unet", {"learning_rate": 5e-4, "batch_size": 2, "deep_supervision": True}),
        ("deeplab", {"learning_rate": 1e-3, "batch_size": 4, "aux_loss": False}),
    ):
        found = vars(importlib.import_module(f"{folder}.train").build_parser().parse_args([]))
        assert {name: found[name] for name in common | own} == common | own


@pytest.mark.parametrize(("folder", "moves"), [("unet", False), ("deeplab", True)])
def test_only_deeplab_is_fed_with_rotation_shift_and_zoom(folder, moves, sets):
    pairs, _ = find_training_pairs(sets[0])
    store = frames.FrameStore(pairs, scale=1, channels=1, native_truth=False, cache_mb=100)
    dataset = importlib.import_module(f"{folder}.dataset")
    plain, augmented = (
        next(
            iter(
                training_loader(
                    TrainingFrames(store, Labels.create([0, 128, 255]), None, augmentation),
                    len(store),
                    seed=0,
                    workers=0,
                    device=torch.device("cpu"),
                )
            )
        )[1]
        for augmentation in (None, dataset.make_augmentation(0))
    )
    known = {array.numpy().tobytes() for mask in plain for array in (mask, mask.flip(1))}
    assert any(mask.numpy().tobytes() not in known for mask in augmented) == moves


def test_a_recipe_joined_with_changes_takes_the_later_option(recipes):
    parser = importlib.import_module("unet.train").build_parser()
    options = parser.parse_args(recipes.named("original_ce+depth+deep+augment", "unet").options)
    assert (options.learning_rate, options.batch_size, options.scheduler, options.loss) == (1e-4, 2, "plateau", "ce")
    assert options.depth_channel and options.deep_supervision and options.augment
    study = parser.parse_args(recipes.named("original_ce", "unet").options)
    assert not (study.depth_channel or study.deep_supervision or study.augment)
