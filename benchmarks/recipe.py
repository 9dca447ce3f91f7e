"""Train and score recipes with equal epochs, frames, scale and seed, and log each run.

    python benchmarks/recipe.py --data FOLDER --models mobilenet_v3_large --recipes original default --folds 3
    python benchmarks/recipe.py --data FOLDER --models unet --recipes original default --seeds 0 1 2

FOLDER holds train/ and validation/. With --folds the subjects of train/ are cross-validated; recipes are chosen by
these scores. Without it the recipes are scored on validation/, which serves for reporting only. A recipe (see
recipes.py) is a list of train.py's options. If an experiment needs more, the recipe also has parts that replace those
of train.py's ``train``.

Each run appends one line to --log: the Dice per epoch, and the scores of the last epoch's weights at native size, with
boundary scores in pixels. With --folds an additional line has the scores over the frames of all folds.
"""

import argparse
import csv
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import common
import numpy as np
import pandas as pd
from recipes import RECIPES, named

LOG = Path(__file__).parent / "recipes.csv"
COLUMNS = (
    "date",
    "commit",
    "model",
    "recipe",
    "scored_on",
    "seed",
    "frames",
    "scale",
    "epochs",
    "best_dice",
    "dice",
    "dice_by_class",
    "hd95_px",
    "assd_px",
    "nsd",
    "missed",
    "spurious",
    "seconds",
    "dice_by_epoch",
    "options",
)


NAMES = {"missed": str, "spurious": str}  # names of classes, which may look like numbers


def folder_and_options(model):
    """Return the folder and options of a model: unet, unet_16 (16 base channels), or a backbone of DeepLabV3."""
    if model.startswith("unet"):
        channels = model.removeprefix("unet").removeprefix("_")
        return "unet", ["--base-channels", channels] if channels else []
    return "deeplab", ["--backbone", model]


def train_and_score(model, recipe, data, fold, folds, options):
    """Train and score one run. Return {"epochs", "files"}: rows of epochs.csv, and of files.csv for held-out frames."""
    import importlib

    from sonogravity.datasets.pairs import find_training_pairs
    from sonogravity.datasets.subjects import IN_NAMES, split_into_folds
    from sonogravity.models import model_class

    data = Path(data)
    folder, of_model = folder_and_options(model)
    recipe = named(recipe, folder)
    changed = recipe.model(model_class(folder)) if recipe.model else None
    train, evaluate = (importlib.import_module(f"{folder}.{script}") for script in ("train", "evaluate"))
    inputs, name = [data / "validation"], "run"
    if fold:
        pairs, _ = find_training_pairs(data / "train")
        of_pairs, _ = split_into_folds(pairs, folds, IN_NAMES, data)
        inputs = [pair.image for pair, its_fold in zip(pairs, of_pairs, strict=True) if its_fold == fold]
        options = [*options, "--folds", folds, "--fold", fold]
        name = f"run_fold_{fold}"
    with tempfile.TemporaryDirectory() as root:
        sets = ["--train", data / "train", "--validation", data / "validation"]
        roots = ["--checkpoints", root, "--results", root, "--name", "run", "--save-every", 1000]
        line = map(str, [*sets, *roots, *of_model, *recipe.options, *options])
        train.main(list(line), model_class=changed, **recipe.parts)
        run, output = Path(root) / folder / name, Path(root) / "scores"
        line = ["--load", str(run / "last.pth"), "--input", *map(str, inputs), "--output", str(output)]
        evaluate.main(line, model_class=changed)
        tables = {"epochs": pd.read_csv(run / "epochs.csv"), "files": pd.read_csv(output / "files.csv", dtype=NAMES)}
        return {name: table.to_dict("records") for name, table in tables.items()}


def in_a_process(series, data, fold, folds, fixed):
    """Call train_and_score() for a (seed, model, recipe) in its own process. Return the tables of epochs and files."""
    seed, model, recipe = series
    question = [model, recipe, str(data), fold, folds, [*fixed, "--seed", seed]]
    command = [sys.executable, __file__, "--one", json.dumps(question)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=common.environment(), check=True)
    answer = json.loads(done.stdout.splitlines()[-1])
    return tuple(pd.DataFrame(answer[name]) for name in ("epochs", "files"))


def row_of(runs):
    """Return the log's scores of one run, or of the runs of several folds over all their frames.

    runs: results of in_a_process().
    """
    files = pd.concat([of_run for _, of_run in runs])
    frames = [len(of_run) for _, of_run in runs]
    by_epoch = np.average([epochs["dice"] for epochs, _ in runs], axis=0, weights=frames)
    classes = [name.removeprefix("assd_px_") for name in files if name.startswith("assd_px_")]
    means = files.mean(numeric_only=True)
    return {
        "frames": len(files),
        "best_dice": f"{np.average([epochs['dice'].max() for epochs, _ in runs], weights=frames):.4f}",
        "dice": f"{means['dice']:.4f}",
        "dice_by_class": " ".join(f"{means[f'dice_{name}']:.4f}" for name in classes),
        "hd95_px": f"{means['hd95_px']:.2f}",
        "assd_px": f"{means['assd_px']:.2f}",
        "nsd": f"{means['nsd']:.4f}",
        **{what: sum(len(names.split(", ")) for names in files[what].dropna()) for what in ("missed", "spurious")},
        "seconds": f"{sum(epochs['seconds'].sum() for epochs, _ in runs):.0f}",
        "dice_by_epoch": " ".join(f"{value:.4f}" for value in by_epoch),
    }


def append(log, row):
    """Append a line to the log, with a header if the file is new."""
    new = not log.exists()
    with open(log, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerow(row)
    print(", ".join(f"{name} {row[name]}" for name in COLUMNS[2:17]), flush=True)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--data", type=Path, help="holds train/ and validation/")
    add("--models", nargs="+", help="unet, unet_16 (base channels), or a backbone of DeepLabV3")
    add("--recipes", nargs="+", help="names of recipes.py; A+B is A with B's options and parts")
    add("--folds", type=int, help="cross-validate the subjects of train/")
    add("--only", type=int, nargs="+", help="of these folds")
    add("--seeds", type=int, nargs="+", default=[0])
    add("--epochs", type=int, default=8)
    add("--scale", type=float, default=0.25)
    add("--jobs", type=int, default=1, help="runs at once, which share the cores (their seconds are then no measure)")
    add("--no-amp", action="store_true", help="in float32")
    add("--log", type=Path, default=LOG)
    add("--one", metavar="JSON", help="train and score one run, in this process; the last line is its tables as JSON")
    args = parser.parse_args(argv)
    if args.one:
        print(json.dumps(train_and_score(*json.loads(args.one))))
        return 0
    if not (args.data and args.models and args.recipes):
        parser.error("--data, --models and --recipes are required")
    for part in {part for name in args.recipes for part in name.split("+")} - set(RECIPES):
        parser.error(f"--recipes: no '{part}' in recipes.py, which has {', '.join(RECIPES)}")
    from sonogravity.common.provenance import commit

    fixed = ["--epochs", args.epochs, "--scale", args.scale, *([] if args.no_amp else ["--amp"])]
    folds = (args.only or range(1, args.folds + 1)) if args.folds else (None,)
    series = list(itertools.product(args.seeds, args.models, args.recipes))
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // args.jobs))
    with ThreadPoolExecutor(args.jobs) as pool:
        runs = {
            (*of_series, fold): pool.submit(in_a_process, of_series, args.data, fold, args.folds, fixed)
            for of_series in series
            for fold in folds
        }
        found = {}
        for seed, model, recipe in series:
            known = {
                "date": date.today().isoformat(),
                "commit": commit()[:8],
                "model": model,
                "recipe": recipe,
                "seed": seed,
                "scale": args.scale,
                "epochs": args.epochs,
                "options": " ".join(named(recipe, folder_and_options(model)[0]).options),
            }
            results = []
            for fold in folds:
                results.append(runs[seed, model, recipe, fold].result())
                scored_on = f"fold {fold} of {args.folds}" if fold else "validation"
                append(args.log, {**known, **row_of(results[-1:]), "scored_on": scored_on})
            if len(results) > 1:
                append(args.log, {**known, **row_of(results), "scored_on": f"{len(results)} folds of {args.folds}"})
            found.setdefault(f"{model}, {recipe}", []).append(float(row_of(results)["dice"]))
    means = {name: {"dice": values, "mean": statistics.mean(values)} for name, values in found.items()}
    common.print_json("recipe", means)
    return 0


if __name__ == "__main__":
    sys.exit(main())
