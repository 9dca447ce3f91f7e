"""Compare training by a plain study's code, by library models and by ours: speed, memory and start-up.

    python benchmarks/training.py [--models unet resnet50 mobilenet_v3_large] [--rounds 5] [--steps 2]

Requires ``pip install -e .[benchmark]``. Frames of 800x740 are generated. Each setting runs in its own process. The
settings train in turns of --steps steps; the first turn is not counted. The output is medians and one line of JSON.
All settings read the files from disk:

    study float32    plain code: NCHW, decode and resize in every epoch, Adam unfused, .item() at each step
    smp, monai       the libraries' models in the same loop, in float32 and with bfloat16 autocast
    ours ...         the engine and loader of unet/train.py and deeplab/train.py: in float32, with --amp, and --amp
                     with --low-memory or --compile; with augmentation, and for DeepLabV3 with soft Dice, as by default

A step is counted with three times the operations of a forward pass. "first s" is the time of the first step, with
compilation. "peak MB" is the peak of the process (on a GPU, of its allocator); "own MB" excludes the imports.
On a GPU --scales is 0.5 1 and --batch-sizes is 8 32 unless given. Five rounds take about half an hour on two cores.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import common

SETTINGS = {
    **common.REFERENCES,
    "ours float32": {},
    "ours amp": {"amp": True},
    "ours amp low-memory": {"amp": True, "low_memory": True},
    "ours amp compile": {"amp": True, "compiled": True},
}
COLUMNS = {
    "model": ("model", ""),
    "setting": ("setting", ""),
    "frame": ("frame", ""),
    "batch": ("batch", "d"),
    "GFLOP/step": ("gflop_a_step", ".1f"),
    "s/step": ("seconds_a_step", ".3f"),
    "frames/s": ("frames_a_second", ".3f"),
    "x study": ("times_study", ".2f"),
    "GFLOP/s": ("gflop_a_second", ".0f"),
    "of ceiling": ("share", ".0%"),
    "first s": ("first_step", ".2f"),
    "peak MB": ("peak_mb", ".0f"),
    "own MB": ("own_mb", ".0f"),
    "": ("note", ""),
}


def plain(model, source, images, scale, batch, bfloat16=False):
    """Return the turn of a worker with the plain loop and a source's model: an epoch, as (seconds, GFLOP per frame)."""
    import reference
    import torch

    from sonogravity.common import devices
    from sonogravity.common.messages import InputError
    from sonogravity.common.workers import worker_count
    from sonogravity.datasets import frames

    common.imported()
    torch.manual_seed(0)
    device = devices.pick_device("auto")
    if bfloat16 and devices.amp_type(device, True) is not torch.bfloat16:
        raise InputError("no units for bfloat16")
    epoch = reference.training(
        reference.SOURCES[source](model),
        common.pairs_of(images),
        scale=scale,
        batch_size=batch,
        bfloat16=bfloat16,
        device=device,
        workers=worker_count(None, device),
    )
    gflop = common.gflop_a_frame(lambda: reference.SOURCES[source](model), frames.network_size(common.FRAME, scale))
    return lambda: (common.timed(epoch), gflop)


def ours(model, images, scale, batch, amp=False, low_memory=False, compiled=False):
    """Return the turn of a worker with the engine of train.py: an epoch, as (seconds, GFLOP per frame)."""
    from sonogravity.training import steps

    step, loader, memory, gflop = engine(model, images, scale, batch, amp, low_memory, compiled)

    def epoch():
        steps.train_one_epoch(step, loader, memory, "benchmark")

    return lambda: (common.timed(epoch), gflop)


def engine(model, images, scale, batch, amp=False, low_memory=False, compiled=False, recipe=False):
    """Return the Step, loader and Memory of train.py, and the GFLOP of a forward pass per frame.

    recipe: with the depth channel, deep supervision and loss that train.py has by default.
    """
    import torch

    from sonogravity.common import devices
    from sonogravity.datasets.frames import network_size
    from sonogravity.datasets.labels import Labels
    from sonogravity.datasets.loader import training_loader
    from sonogravity.training import losses, optimization, steps
    from sonogravity.training.memory import Memory, compute_again

    build, make_augmentation = parts_of(model, recipe)
    common.imported()
    device, labels = devices.pick_device("auto"), Labels.create([0, 128, 255])
    torch.manual_seed(0)
    network = build().to(device, memory_format=torch.channels_last)
    frames = training_frames(images, scale, labels, make_augmentation(labels.background))
    loader = training_loader(frames, batch, seed=0, workers=None, device=device)
    amp = devices.amp_type(device, amp)
    optimizer = optimization.make_optimizer("adam", network.parameters(), 1e-4, 0.0)
    scheduler = optimization.make_scheduler("constant", optimizer, optimization.Plan([[0, 1]]), 1)
    state = optimization.Optimization(network, optimizer, scheduler, device=device, amp=amp)
    memory = Memory(checkpointing=low_memory)
    if low_memory:
        compute_again(network.blocks())
    criterion = losses.SegmentationLoss("ce" if model == "unet" and not recipe else "ce+dice", labels.background)
    loss = losses.HeadsLoss(criterion, network.HEAD_WEIGHTS)
    stepped = torch.compile(network) if compiled else network
    step = steps.Step(stepped, loss, state, device, amp, smallest_batch=min(batch, 2))
    return step, loader, memory, common.gflop_a_frame(build, network_size(common.FRAME, scale))


def training_frames(images, scale, labels, augmentation, cache_mb=4096):
    """Return the project's TrainingFrames of frames with masks, decoded into memory as far as the cache allows."""
    from sonogravity.common.workers import decoding_threads
    from sonogravity.datasets.facts import look_at
    from sonogravity.datasets.frames import FrameStore
    from sonogravity.datasets.loader import TrainingFrames

    pairs = common.pairs_of(images)
    store = FrameStore(pairs, scale=scale, channels=1, native_truth=False, cache_mb=cache_mb)
    look_at(store, decoding_threads(None), "looking")
    return TrainingFrames(store, labels, None, augmentation)


def parts_of(model, recipe=False):
    """Return the functions that differ between models: build the network, make the augmentation."""
    if model == "unet":
        from unet.dataset import make_augmentation
        from unet.model import UNet

        return lambda: UNet(1, 3, depth_channel=recipe, deep_supervision=recipe), make_augmentation
    from deeplab.dataset import make_augmentation
    from deeplab.model import DeepLabV3

    return lambda: DeepLabV3(1, 3, model, depth_channel=recipe), make_augmentation


def compare(model, scale, batch, images, args, ceiling):
    """Measure all settings of one model in turns, and the ceiling in every round. Return the rows and the ceiling."""
    images = [images[i % len(images)] for i in range(args.steps * batch)]
    common_options = {"model": model, "images": images, "scale": scale, "batch": batch}
    workers, first = {}, {}
    for name, setting in SETTINGS.items():
        if args.settings and name not in args.settings:
            continue
        worker = common.Worker(plain if "source" in setting else ours, **common_options, **setting)
        workers[name] = worker
        if worker.refused is None:
            answer = worker.ask()
            first[name] = answer and answer[0]
    ceilings = []
    turns = {name: [] for name in workers}
    for _ in range(args.rounds):
        ceilings += common.in_turns({"ceiling": ceiling}, 1, ())["ceiling"]
        common.in_turns(workers, 1, (), turns)
    measured = common.ceiling_of(ceilings)
    rows = []
    for name, worker in workers.items():
        size = "x".join(str(max(1, round(side * scale))) for side in reversed(common.FRAME))
        row = {"model": model, "setting": name, "scale": scale, "frame": size, "batch": batch, "note": worker.refused}
        if turns[name] and worker.refused is None:
            row |= figures(turns[name], first[name], args.steps, batch, measured["best"]) | worker.memory()
            row["own_mb"] = row["peak_mb"] - row["start_mb"]
        rows.append(row)
        worker.close()
    study = next((row.get("seconds_a_step") for row in rows if row["setting"] == "study float32"), None)
    for row in rows:
        if study and "seconds_a_step" in row:
            row["times_study"] = study / row["seconds_a_step"]
    return rows, measured


def figures(answers, first, steps, batch, ceiling):
    """Return the numbers of a row from the seconds of epochs of ``steps`` steps."""
    turns = [seconds / steps for seconds, _ in answers]
    seconds, gflop_a_step = statistics.median(turns), 3 * batch * answers[0][1]
    return {
        "seconds_a_step": seconds,
        "all_seconds": turns,
        "frames_a_second": batch / seconds,
        "gflop_a_step": gflop_a_step,
        "gflop_a_second": gflop_a_step / seconds,
        "share": gflop_a_step / seconds / ceiling,
        "first_step": first - (steps - 1) * seconds,
    }


def print_ratios(rows):
    """Print ours against the libraries at equal precision: frames and operations per second (sizes differ a little)."""
    found = {row["setting"]: row for row in rows if "seconds_a_step" in row}
    for library in ("smp", "monai"):
        for theirs, own in ((f"{library} float32", "ours float32"), (f"{library} bfloat16", "ours amp")):
            if theirs in found and own in found:
                ratios = [found[own][key] / found[theirs][key] for key in ("frames_a_second", "gflop_a_second")]
                print(
                    f"{rows[0]['model']}: {own} against {theirs}: {ratios[0]:.2f} times the frames/s, "
                    f"{ratios[1]:.2f} times the GFLOP/s"
                )
    print()


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--models", nargs="+", choices=common.MODELS, default=common.MODELS)
    add("--settings", nargs="+", choices=SETTINGS, metavar="SETTING", help="only these, e.g. 'ours amp'")
    add("--rounds", type=int, default=5, help="turns of each setting that are counted")
    add("--steps", type=int, help="steps per turn (default: 2, on a GPU 10)")
    add("--scales", "--scale", type=float, nargs="+", help="(default: 0.5, on a GPU 0.5 1)")
    add("--batch-sizes", type=int, nargs="+", help="(default: 2, on a GPU 8 32)")
    add("--frames", type=int, default=16, help="different frames to generate; they repeat where a turn needs more")
    args = parser.parse_args(argv)
    ceiling = common.Worker(common.ceiling)
    found = common.ceiling_of([ceiling.ask()])
    gpu = found["device"] == "cuda"
    args.steps = args.steps or (10 if gpu else 2)
    print(common.describe_ceiling(found))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        images = common.make_frames(Path(folder) / "frames", args.frames)
        for model in args.models:
            for scale in args.scales or ([0.5, 1.0] if gpu else [0.5]):
                for batch in args.batch_sizes or ([8, 32] if gpu else [2]):
                    part, measured = compare(model, scale, batch, images, args, ceiling)
                    print(f"\n{common.describe_ceiling(measured)}")
                    common.print_table(part, COLUMNS)
                    print_ratios(part)
                    rows += [row | {"ceiling": measured["best"]} for row in part]
    ceiling.close()
    common.print_json("training", {"machine": found, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
