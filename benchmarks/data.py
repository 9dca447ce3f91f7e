"""Measure whether the loader keeps up with the network, and how time and memory grow with frames and pixels.

    python benchmarks/data.py [--rounds 3] [--counts 100 200 400 800 1600] [--scales 0.125 0.25 0.5 1]

The output is tables and one line of JSON. Each setting runs in its own process, and the settings take turns:

loader      frames per second of the project's training loader alone, kept in memory or decoded at each use, with and
            without augmentation, per number of worker processes (0: loading runs in the training process and adds to
            the time of a step); and frames per second that training consumes. "of a step" is the loader's share of the
            time if loading and training run one after the other
frames      ``unet/train.py`` on 100 to 1600 frames of 200x185 (and a quarter as many for validation) with two base
            channels: seconds per epoch as in epochs.csv, with validation and scores, and seconds of training alone.
            The first epoch is left out. The intercept of the fitted line is the fixed cost of an epoch
pixels      the same script on frames of 800x740 at scales 0.125 to 1: seconds per training step, ns per pixel of the
            frame and ns per pixel that U-Net computes, because it pads each side to a multiple of 16
memory      peak memory of the script on 100 to 1600 frames with a cache that is far too small for them (--cache-mb 2)

readers     the readers of scanner files (readers.py): frames per second, memory, and with --checkpoint, of DeepLabV3,
            the time of predict.py on a clip against that on its frames

"off linear" is the deviation of the unit cost from the median of its column. About 30 minutes on two cores.
"""

import argparse
import csv
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import common
import readers
import training

SMALL_HEIGHT = 200
SMALL_CACHE_MB = 2
TABLES = ("loader", "frames", "pixels", "readers")
BATCH = 2
MULTIPLE = 16  # of U-Net's padding, see unet/model.py


def loader(images, scale, cached, augment, workers):
    """Return the turn of a worker with the training loader: an epoch without a network, in frames per second."""
    from sonogravity.common import devices
    from sonogravity.datasets.labels import Labels
    from sonogravity.datasets.loader import training_loader
    from unet.dataset import make_augmentation

    common.imported()
    labels = Labels.create([0, 128, 255])
    augmentation = make_augmentation(labels.background) if augment else None
    frames = training.training_frames(images, scale, labels, augmentation, cache_mb=4096 if cached else 0)
    batches = training_loader(frames, BATCH, seed=0, workers=workers, device=devices.pick_device("auto"))

    def epoch():
        for _ in batches:
            pass

    epoch()  # starts the worker processes
    return lambda: len(images) / common.timed(epoch)


def loader_table(images, args):
    """Measure frames per second of each kind of loading, and of training in the same rounds."""
    images = [images[i % len(images)] for i in range(args.loader_frames)]
    kinds = [
        (cached, augment, workers) for cached in (True, False) for augment in (False, True) for workers in args.workers
    ]
    workers = {
        kind: common.Worker(
            loader,
            images=images,
            scale=args.loader_scale,
            **dict(zip(("cached", "augment", "workers"), kind, strict=True)),
        )
        for kind in kinds
    }
    step = images[:BATCH]
    for model in args.models:
        workers[model] = common.Worker(
            training.ours, model=model, images=step, scale=args.loader_scale, batch=BATCH, amp=True
        )
        workers[model].ask()  # warms up
    answers = common.in_turns(workers, args.rounds, ())
    consumed = {}
    for model in args.models:
        seconds = [turn[0] / len(step) for turn in answers[model]]
        consumed[model] = 1 / statistics.median(seconds) if seconds else None
    rows = []
    for kind in kinds:
        row = dict(zip(("cached", "augment", "workers"), kind, strict=True))
        row = {
            "frames": "in memory" if row["cached"] else "decoded",
            "augment": "yes" if row["augment"] else "no",
            "workers": row["workers"],
            "note": workers[kind].refused,
        }
        if answers[kind]:
            speed = row["frames_a_second"] = statistics.median(answers[kind])
            for model in args.models:
                if consumed[model]:
                    row[f"share_{model}"] = consumed[model] / (consumed[model] + speed)
        rows.append(row)
    for worker in workers.values():
        worker.close()
    print(
        f"\nloader at scale {args.loader_scale:g}, batch {BATCH}; training with --amp consumes, frames/s: "
        + ", ".join(f"{model} {speed:.2f}" for model, speed in consumed.items() if speed)
    )
    columns = {
        "frames": ("frames", ""),
        "augment": ("augment", ""),
        "workers": ("workers", "d"),
        "frames/s": ("frames_a_second", ".1f"),
    }
    shares = {f"of a step, {model}": (f"share_{model}", ".1%") for model in args.models}
    common.print_table(rows, columns | shares)
    return {"consumed": consumed, "rows": rows}


def run_training(root, data_folder, *options):
    """Run unet/train.py as a process. Return its rows of epochs.csv and its peak memory in MB."""
    command = [
        sys.executable,
        common.ROOT / "unet" / "train.py",
        "--train",
        data_folder / "train",
        "--validation",
        data_folder / "validation",
        "--name",
        "run",
        "--checkpoints",
        root / "runs",
        "--results",
        root / "runs",
        "--save-every",
        1000,
        "--batch-size",
        BATCH,
        *options,
    ]
    with open(root / "log.txt", "w+", encoding="utf-8") as log:
        process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log, env=common.environment())
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            log.seek(0)
            raise SystemExit(f"{' '.join(map(str, command))} failed:\n{log.read()[-2000:]}")
    with open(root / "runs" / "unet" / "run" / "epochs.csv", newline="", encoding="utf-8") as file:
        rows = [{name: float(value or "nan") for name, value in row.items()} for row in csv.DictReader(file)]
    shutil.rmtree(root / "runs")
    return rows, usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def with_deviation(rows, key):
    """Add to each row the relative deviation of ``key`` from the median of the column."""
    middle = statistics.median(row[key] for row in rows)
    for row in rows:
        row[f"{key}_off"] = row[key] / middle - 1
    return rows


def frames_tables(root, args):
    """Measure the time per epoch, and the peak memory with a small cache, against the number of frames."""
    images = common.make_frames(root / "small", 50, SMALL_HEIGHT, validation=10)
    unseen = sorted((root / "small" / "validation" / "images").iterdir())
    for count in args.counts:
        common.copy_frames(images, root / str(count) / "train", count)
        common.copy_frames(unseen, root / str(count) / "validation", count // 4)
    small = ("--base-channels", 2, "--scale", args.small_scale)
    seconds, training_only, peaks = ({count: [] for count in args.counts} for _ in range(3))
    for _ in range(args.rounds):
        for count in args.counts:
            rows, _ = run_training(root, root / str(count), *small, "--epochs", 3)
            seconds[count] += [row["seconds"] for row in rows[1:]]
            training_only[count] += [count / row["images_per_second"] for row in rows[1:]]
            _, peak = run_training(root, root / str(count), *small, "--epochs", 1, "--cache-mb", SMALL_CACHE_MB)
            peaks[count].append(peak)
    times, memory = [], []
    for count in args.counts:
        took, peak = statistics.median(seconds[count]), statistics.median(peaks[count])
        training_s = statistics.median(training_only[count])
        times.append(
            {
                "frames": count,
                "seconds": took,
                "ns": 1e9 * took / count,
                "training_s": training_s,
                "training_ns": 1e9 * training_s / count,
            }
        )
        memory.append({"frames": count, "peak_mb": peak, "more_mb": peak - statistics.median(peaks[args.counts[0]])})
    print("time of an epoch against frames:")
    common.print_table(
        with_deviation(with_deviation(times, "ns"), "training_ns"),
        {
            "frames": ("frames", "d"),
            "s/epoch": ("seconds", ".2f"),
            "ns/frame": ("ns", ",.0f"),
            "off linear": ("ns_off", "+.1%"),
            "training s": ("training_s", ".2f"),
            "training ns/frame": ("training_ns", ",.0f"),
            "off": ("training_ns_off", "+.1%"),
        },
    )
    line = None
    if len(args.counts) > 1:
        unit, fixed = statistics.linear_regression(args.counts, [row["seconds"] for row in times])
        off = max(abs(row["seconds"] / (fixed + unit * row["frames"]) - 1) for row in times)
        print(f"fitted: {fixed:.2f} s + {1000 * unit:.2f} ms per frame; at most {off:.1%} off this line\n")
        line = {"fixed_s": fixed, "unit_s": unit, "off": off}
    print(f"peak memory against frames, --cache-mb {SMALL_CACHE_MB}:")
    common.print_table(
        memory, {"frames": ("frames", "d"), "peak MB": ("peak_mb", ".1f"), "more than the first": ("more_mb", "+.1f")}
    )
    return {"time": times, "line": line, "memory": memory}


def pixels_table(root, args):
    """Measure the time per training step against the number of pixels in the network."""
    channels = ("--base-channels", args.base_channels, *(["--amp"] if args.amp else []))
    seconds = {scale: [] for scale in args.scales}
    for _ in range(args.rounds):
        for scale in args.scales:
            rows, _ = run_training(root, root / "frames", *channels, "--scale", scale, "--epochs", 3)
            seconds[scale] += [BATCH / row["images_per_second"] for row in rows[1:]]
    table = []
    for scale in args.scales:
        height, width = (round(side * scale) for side in common.FRAME)
        computed = BATCH * (height + -height % MULTIPLE) * (width + -width % MULTIPLE)
        took = statistics.median(seconds[scale])
        table.append(
            {
                "scale": scale,
                "size": f"{width}x{height}",
                "seconds": took,
                "ns": 1e9 * took / (BATCH * height * width),
                "ns_computed": 1e9 * took / computed,
            }
        )
    with_deviation(with_deviation(table, "ns"), "ns_computed")
    print(f"time of a step against pixels, --base-channels {args.base_channels}, batch {BATCH}:")
    common.print_table(
        table,
        {
            "scale": ("scale", "g"),
            "frame": ("size", ""),
            "s/step": ("seconds", ".3f"),
            "ns/px": ("ns", ".1f"),
            "off linear": ("ns_off", "+.1%"),
            "ns/computed px": ("ns_computed", ".1f"),
            "off": ("ns_computed_off", "+.1%"),
        },
    )
    return table


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--tables", nargs="+", choices=TABLES, default=TABLES[:3])
    add("--rounds", type=int, default=3, help="turns of each setting")
    add("--models", nargs="*", choices=common.MODELS, default=["unet", "mobilenet_v3_large"], help="that consume")
    add("--workers", type=int, nargs="+", default=[0, 1, 2], help="of the loader")
    add("--frames", type=int, default=16, help="different frames of 800x740 to generate")
    add("--loader-frames", type=int, default=64, help="of an epoch of the loader")
    add("--loader-scale", type=float, default=0.5)
    add("--counts", type=int, nargs="+", default=[100, 200, 400, 800, 1600])
    add("--small-scale", type=float, default=0.5, help="of the frames of 200x185 for --counts")
    add("--scales", "--scale", type=float, nargs="+", default=[0.125, 0.25, 0.5, 1.0])
    add("--base-channels", type=int, default=16, help="of U-Net against pixels; 64 is the real one")
    add("--clip-frames", type=int, default=60, help="of the clips of the readers")
    add("--checkpoint", type=Path, help="of DeepLabV3, to predict with")
    add("--amp", action="store_true", help="mixed precision against pixels")
    args = parser.parse_args(argv)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        images = common.make_frames(root / "frames", args.frames, validation=2)
        if "loader" in args.tables:
            found["loader"] = loader_table(images, args)
        if "frames" in args.tables:
            found["frames"] = frames_tables(root, args)
        if "pixels" in args.tables:
            found["pixels"] = pixels_table(root, args)
        if "readers" in args.tables:
            found["readers"] = readers.tables(root, images, args)
    common.print_json("data", found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
