"""Measure training and prediction on a GPU: speed, share of the card's ceiling, and what limits it.

    python benchmarks/gpu.py [--models unet resnet50 mobilenet_v3_large] [--scales 0.5 1] [--batch-sizes 8 32]

Frames of 800x740 are generated. Each setting runs in its own process, one after another, with bfloat16 (--amp) and the
recipe that train.py has by default: depth channel, augmentation, cross-entropy and Dice, deep supervision of U-Net. The
ceiling is the speed of a large matrix product in bfloat16, measured before each setting. One table of training:

frames/s      with the loader and the default number of worker processes, without the first steps of an epoch
held          the same steps with batches that lie in memory; the difference is the loader's share of a step
loader        frames per second of the loader alone, with each number of processes of --workers
of ceiling    of the held steps; a step is counted with three times the operations of a forward pass
conv ...      share of a held step that the GPU spends in convolutions, batch normalisation, other operations (all bound
              by memory; compiled, fused with batch normalisation), the optimizer with clipping, and copies from the
              host; idle is the rest, in which the GPU waits for the processor

and one of prediction at batch 1 and the first of --scales: decode to label map, as in prediction.py (--latency). About
50 seconds per row of training, and half a minute per model and engine of prediction.
"""

import argparse
import re
import statistics
import sys
import tempfile
from itertools import islice
from pathlib import Path

import common
import prediction
import training

SKIPPED = 5  # steps of an epoch while the loader's processes start
PROFILED = 3  # steps
HELD = 4  # batches in memory
KERNELS_SHOWN = 12  # in the JSON
# The kind of a CUDA kernel is the first whose pattern is in its name; else it is "other".
KINDS = {
    "fused": r"^triton",
    "optimizer": r"adam|multi_tensor_apply|lpnorm",
    "copy": r"^mem(cpy|set)",
    "norm": r"bn_|batch_?norm",
    "layout": r"nchwtonhwc|nhwctonchw",
    "depthwise": r"conv_depthwise",
    "native": r"at::native",
    "conv": r"conv|cudnn|cutlass|xmma|gemm|nvjet|wgrad|dgrad|implicit|sm\d+_",
}
SHARES = {
    "conv": ("conv", "depthwise"),
    "norm": ("norm",),
    "other": ("fused", "layout", "native", "other"),
    "optimizer": ("optimizer",),
    "copy": ("copy",),
}
COLUMNS = {
    "model": ("model", ""),
    "compiled": ("compiled", ""),
    "scale": ("scale", "g"),
    "batch": ("batch", "d"),
    "frames/s": ("frames_a_second", ".1f"),
    "held": ("held_a_second", ".1f"),
    "loader's share": ("loader_share", ".0%"),
    "of ceiling": ("share", ".0%"),
    **{name: (name, ".0%") for name in SHARES},
    "idle": ("idle", ".0%"),
    "first s": ("first_step", ".1f"),
    "peak MB": ("peak_mb", ".0f"),
    "": ("note", ""),
}
LATENCY = {
    "model": ("model", ""),
    "engine": ("engine", ""),
    "scale": ("scale", "g"),
    "p50 ms": ("p50", ".1f"),
    "p95 ms": ("p95", ".1f"),
    "alone p50": ("alone_p50", ".1f"),
    "alone p95": ("alone_p95", ".1f"),
    "": ("note", ""),
}


class Watched:
    """Batches of an epoch. started: the time at which the step after the SKIPPED ones began."""

    def __init__(self, batches, steps):
        self.batches = batches
        self.steps = steps
        self.started = None

    def __len__(self):
        return self.steps

    def __iter__(self):
        for i, batch in enumerate(islice(self.batches, self.steps)):
            if i == SKIPPED:
                self.started = common.clock()
            yield batch


def trained(model, images, scale, batch, compiled):
    """Return the turns of a worker that trains with the engine of train.py.

    first: seconds of one step; speed: frames per second (loaded or held); loader: frames per second without a network;
    profile: ms of a step per CUDA kernel; gflop: GFLOP per frame.
    """
    import torch

    from sonogravity.datasets.loader import training_loader
    from sonogravity.training import steps

    step, loader, memory, gflop = training.engine(model, images, scale, batch, amp=True, compiled=compiled, recipe=True)
    held = list(islice(loader, HELD))

    def again(count):
        return Watched((held[i % HELD] for i in range(count)), count)

    def epoch(batches):
        steps.train_one_epoch(step, batches, memory, "benchmark")

    def speed(source):
        batches = again(len(loader)) if source == "held" else Watched(loader, len(loader))
        epoch(batches)
        return (len(loader) - SKIPPED) * batch / (common.clock() - batches.started)

    def loading(workers):
        batches = Watched(
            training_loader(loader.dataset, batch, seed=0, workers=workers, device=step.device), len(loader)
        )
        for _ in batches:
            pass
        return (len(loader) - SKIPPED) * batch / (common.clock() - batches.started)

    def profile():
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as found:
            epoch(again(PROFILED))
            common.clock()
        return {row.key: row.self_device_time_total / 1000 / PROFILED for row in found.key_averages()}

    turns = {
        "first": lambda: common.timed(epoch, again(1)),
        "speed": speed,
        "loader": loading,
        "profile": profile,
        "gflop": lambda: gflop,
    }
    return lambda kind, *question: turns[kind](*question)


def kind_of(kernel):
    """Return the kind of a CUDA kernel by its name."""
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, kernel.lower())), "other")


def training_row(model, images, setting, args, ceiling):
    """Measure one setting of training. Return its row."""
    worker = common.Worker(trained, model=model, images=images, **setting)
    row = {"model": model, **setting, "compiled": "yes" if setting["compiled"] else "no"}
    if worker.refused is None:
        row["first_step"] = worker.ask("first")
    if worker.refused is None:  # memory suffices
        row |= training_figures(worker, setting, args, ceiling)
    row["note"] = worker.refused
    worker.close()
    return row


def training_figures(worker, setting, args, ceiling):
    """Return the numbers of a row from the turns of its worker."""
    worker.ask("speed", "held")  # warms up
    ceiling = common.ceiling_of([ceiling.ask()])["best"]
    speeds = [[worker.ask("speed", source) for source in ("loaded", "held")] for _ in range(args.rounds)]
    loaded, held = (statistics.median(column) for column in zip(*speeds, strict=True))
    gflop_a_second = 3 * worker.ask("gflop") * held
    figures = {
        "frames_a_second": loaded,
        "held_a_second": held,
        "all_speeds": speeds,
        "loader_share": 1 - loaded / held,
        "ceiling": ceiling,
        "gflop_a_second": gflop_a_second,
        "share": gflop_a_second / ceiling,
        **worker.memory(),
        **profile_figures(worker.ask("profile"), 1000 * setting["batch"] / held),
    }
    if not setting["compiled"]:
        figures |= {f"loader_{number}": worker.ask("loader", number) for number in args.workers}
    return figures


def profile_figures(kernels, step_ms):
    """Return the shares of a held step by kind of kernel, and the longest kernels, ms per step."""
    spent = dict.fromkeys([*KINDS, "other"], 0.0)
    for kernel, ms in (kernels or {}).items():
        spent[kind_of(kernel)] += ms
    figures = {name: sum(spent[kind] for kind in kinds) / step_ms for name, kinds in SHARES.items()}
    longest = sorted((kernels or {}).items(), key=lambda item: -item[1])[:KERNELS_SHOWN]
    busy = sum(figures.values())
    return figures | {"idle": max(0.0, 1 - busy), "step_ms": step_ms, "kinds_ms": spent, "kernels_ms": dict(longest)}


def latency_row(model, checkpoint, images, engine, args):
    """Measure the time from decoding to label map at batch 1 in bfloat16. Return the row."""
    scale = args.scales[0]
    worker = common.Worker(prediction.ours, model=model, checkpoint=checkpoint, scale=scale, engine=engine, amp=True)
    row = {"model": model, "engine": engine, "scale": scale}
    if worker.refused is None:
        worker.ask("latency", images, True)  # warms up
        answers = {("latency", ahead): [] for ahead in (True, False)}
        for _ in range(args.rounds):
            for (kind, ahead), turns in answers.items():
                if (answer := worker.ask(kind, images, ahead)) is not None:
                    turns.append(answer)
        row |= prediction.latency_figures(answers)
    row["note"] = worker.refused
    worker.close()
    return row


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--models", nargs="*", choices=common.MODELS, default=["unet", "resnet50"], help="to train")
    add("--latency", nargs="*", choices=common.MODELS, default=common.MODELS, help="models to predict with")
    add("--engines", nargs="+", choices=("torch", "compile"), default=["torch", "compile"], help="to predict with")
    add("--scales", type=float, nargs="+", default=[0.5, 1.0])
    add("--batch-sizes", type=int, nargs="+", default=[8, 32])
    add("--compiled", nargs="+", choices=("no", "yes"), default=["no", "yes"])
    add("--workers", type=int, nargs="*", default=[0, 4, 8], help="of the loader alone")
    add("--rounds", type=int, default=3)
    add("--steps", type=int, default=30, help="steps per epoch")
    add("--frames", type=int, default=40, help="different frames to generate; they repeat if an epoch needs more")
    args = parser.parse_args(argv)
    if args.steps <= SKIPPED or args.frames <= prediction.WARM_UP:
        parser.error(f"--steps must be above {SKIPPED}, and --frames above {prediction.WARM_UP}")
    ceiling = common.Worker(common.ceiling)
    machine = ceiling.ask()
    if machine["device"] != "cuda":
        raise SystemExit("error: this benchmark needs a GPU; on a CPU run training.py and prediction.py")
    print(common.describe_ceiling(common.ceiling_of([machine])), flush=True)
    columns = COLUMNS | {f"loader {number}": (f"loader_{number}", ".0f") for number in args.workers}
    rows, latencies = [], []
    with tempfile.TemporaryDirectory() as folder:
        images = common.make_frames(Path(folder) / "frames", args.frames)
        settings = [
            {"scale": scale, "batch": batch, "compiled": compiled == "yes"}
            for compiled in args.compiled
            for scale in args.scales
            for batch in args.batch_sizes
        ]
        for model in args.models:
            for setting in settings:
                repeated = [images[i % len(images)] for i in range(args.steps * setting["batch"])]
                rows.append(training_row(model, repeated, setting, args, ceiling))
                common.print_table(rows[-1:], columns)
        for model in args.latency:
            checkpoint = prediction.trained(model, Path(folder), epochs=1)
            latencies += [latency_row(model, checkpoint, images, engine, args) for engine in args.engines]
    ceiling.close()
    common.print_table(rows, columns)
    common.print_table(latencies, LATENCY)
    common.print_json("gpu", {"machine": machine, "rows": rows, "latency": latencies})
    return 0


if __name__ == "__main__":
    sys.exit(main())
