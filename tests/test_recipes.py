"""The benchmark's recipes: commands that train.py takes, and the study's own among them."""

import importlib

import pytest

from sonogravity import paths


@pytest.fixture
def recipes(monkeypatch):
    monkeypatch.syspath_prepend(paths.ROOT / "benchmarks")
    return importlib.import_module("recipes")


@pytest.mark.parametrize("folder", ["unet", "deeplab"])
def test_every_recipe_is_a_command_that_train_takes(recipes, folder):
    parser = importlib.import_module(f"{folder}.train").build_parser()
    default = parser.parse_args([])
    for name in set(recipes.RECIPES) - ({"deep"} if folder == "deeplab" else {"aux"}):
        options = parser.parse_args(list(map(str, recipes.named(name, folder).options)))
        assert options.depth_channel == (name in ("default", "depth")), name
    assert parser.parse_args(recipes.named("default", folder).options) == default


def test_a_recipe_joined_with_changes_takes_the_later_option(recipes):
    parser = importlib.import_module("unet.train").build_parser()
    options = parser.parse_args(recipes.named("original_ce+depth+deep+augment", "unet").options)
    assert (options.learning_rate, options.batch_size, options.scheduler, options.loss) == (1e-4, 2, "plateau", "ce")
    assert options.depth_channel and options.deep_supervision and options.augment
    study = parser.parse_args(recipes.named("original_ce", "unet").options)
    assert not (study.depth_channel or study.deep_supervision or study.augment)
