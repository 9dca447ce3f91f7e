"""The benchmark's recipes: commands that train.py takes, and the study's own among them."""

import ast
import importlib
import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import make_folder

from sonogravity.common import folders
from sonogravity.datasets import frames
from sonogravity.datasets.labels import Labels
from sonogravity.datasets.loader import TrainingFrames, training_loader
from sonogravity.datasets.pairs import find_training_pairs
from sonogravity.models import model_class
from sonogravity.training.losses import HeadsLoss


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


def test_no_recipe_patches_the_program(recipes):
    """Parts are passed in: the benchmarks assign to no module or class of the program, and to none of torch."""
    for path in (folders.ROOT / "benchmarks").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = {
            alias.asname or alias.name.split(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for alias in node.names
        }
        for node in ast.walk(tree):
            targets = getattr(node, "targets", [getattr(node, "target", None)])
            for target in targets if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)) else []:
                for part in target.elts if isinstance(target, ast.Tuple) else [target]:
                    if isinstance(part, ast.Attribute):
                        owner = ast.unparse(part).split(".")[0]
                        assert owner not in imported, f"{path.name}:{part.lineno}: sets an attribute of {owner}"
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            assert called.split(".")[-1] not in ("setattr", "patch"), f"{path.name}:{node.lineno}"


# Losses before and after one seeded step (training, validation) at commit f6191a4, when recipes replaced names inside
# the program.
OLD_LOSSES = json.loads((Path(__file__).parent / "old_recipe_losses.json").read_text())


def pytest_generate_tests(metafunc):
    """Every recipe in make soak; else those of U-Net that differ from others by more than options, and a few."""
    if "old_recipe" in metafunc.fixturenames:
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(folders.ROOT / "benchmarks")
            known = importlib.import_module("recipes")
        cases = list(OLD_LOSSES)
        if not metafunc.config.getoption("--soak"):
            changed = {name for name, recipe in known.RECIPES.items() if recipe.parts or recipe.model}
            quick = {f"unet {name}" for name in changed} | {"deeplab default", "deeplab geometry", "deeplab by_subject"}
            cases = [case for case in cases if case in quick]
        metafunc.parametrize("old_recipe", cases)


def test_each_recipe_gives_its_old_loss(recipes, old_recipe, tmp_path, monkeypatch):
    """The old training losses are those of all heads together; epochs.csv has that of the main output."""
    real, step_losses = HeadsLoss.forward, []

    def forward(self, *arguments):
        step_losses.append(real(self, *arguments))
        return step_losses[-1]

    monkeypatch.setattr(HeadsLoss, "forward", forward)
    folder, name = old_recipe.split()
    recipe = recipes.named(name, folder)
    make_folder(tmp_path / "train", frames=3)
    make_folder(tmp_path / "validation", subjects=("C",), frames=1, seed=1)
    for kind in ("images", "masks"):
        (tmp_path / "train" / kind / "B_002.png").unlink()  # so that one subject has more frames than the other
    model = ["--base-channels", 8] if folder == "unet" else ["--backbone", "mobilenet_v3_large"]
    sets = ["--train", tmp_path / "train", "--validation", tmp_path / "validation"]
    roots = ["--checkpoints", tmp_path, "--results", tmp_path, "--name", "run"]
    step = ["--epochs", 1, "--batch-size", 5, "--scale", 1, "--device", "cpu", "--workers", 0, "--seed", 1]
    train = importlib.import_module(f"{folder}.train")
    changed = recipe.model(model_class(folder)) if recipe.model else None
    line = [str(option) for option in (*sets, *roots, *model, *recipe.options, *step)]
    assert train.main(line, model_class=changed, **recipe.parts) == 0
    [row] = pd.read_csv(tmp_path / folder / "run" / "epochs.csv").to_dict("records")
    [(total, main)] = [[loss.item() for loss in step] for step in step_losses]
    assert total == pytest.approx(OLD_LOSSES[old_recipe][0], rel=1e-4)
    assert row["train_loss"] == pytest.approx(main, rel=1e-6)
    assert row["val_loss"] == pytest.approx(OLD_LOSSES[old_recipe][1], rel=1e-3)


def test_the_old_losses_tell_recipes_apart():
    """A part that is passed in and not used would give the losses of the recipe without it."""
    assert len(set(map(tuple, OLD_LOSSES.values()))) > 50
    plain = OLD_LOSSES["unet cosine_2"]
    for name in (
        "focal",
        "tversky",
        "weighted",
        "instance",
        "group",
        "standardised",
        "geometry",
        "whole",
        "by_subject",
    ):
        assert abs(OLD_LOSSES[f"unet {name}"][0] / plain[0] - 1) > 1e-3, name
