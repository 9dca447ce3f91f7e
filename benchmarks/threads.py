"""Compare settings of the OpenMP threads on a quiet processor and on one that another training uses.

    python benchmarks/threads.py [--rounds 5] [--workloads "train small U-Net" ...] [--settings default ours ...]

Requires ``pip install -e .[benchmark]``. Each workload and setting runs in its own process, which sets the variables
before it loads torch. The processes take turns, first on a quiet processor; then others are started beside a training
with as many threads as there are cores. That training has the runtime's own settings, as a program of somebody else.
The output is medians per step or frame, the factor against the first setting, and one line of JSON.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common
from training import training_frames

SETTINGS = {
    "default": {},
    "ours": None,  # what the scripts set
    **{f"spin {count}": {"GOMP_SPINCOUNT": str(count)} for count in (1000, 10000, 30000)},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
WORKLOADS = {
    "train small U-Net": {"kind": "training", "base_channels": 16},
    "train U-Net": {"kind": "training", "base_channels": 64},
    "predict torch": {"kind": "prediction", "engine": "torch"},
    "predict onnx": {"kind": "prediction", "engine": "onnx"},
    "predict openvino": {"kind": "prediction", "engine": "openvino"},
}
COLUMNS = {
    "workload": ("workload", ""),
    "setting": ("setting", ""),
    "quiet ms": ("quiet", ".1f"),
    "x default": ("quiet_ratio", ".3f"),
    "busy ms": ("busy", ".1f"),
    "x default ": ("busy_ratio", ".3f"),
    "": ("note", ""),
}
STEPS = 4  # per turn
BUSY_S = 5  # until the training beside has begun its steps


def work(kind, variables, images, **options):
    """Return the turn of a worker: the seconds per step of training, or per frame of prediction."""
    if variables is None:
        from sonogravity.common.threads import wait_briefly

        wait_briefly()
    else:
        os.environ.update(variables)
    return (_training if kind == "training" else _prediction)(images, **options)


def _training(images, base_channels):
    import torch

    from sonogravity.common import devices
    from sonogravity.datasets.labels import Labels
    from sonogravity.datasets.loader import training_loader
    from sonogravity.training import losses, optimization, steps
    from sonogravity.training.memory import Memory
    from unet.model import UNet

    device = torch.device("cpu")
    torch.manual_seed(0)
    model = UNet(1, 3, base_channels).to(memory_format=torch.channels_last)
    frames = training_frames(images[: 2 * STEPS], 0.25, Labels.create([0, 128, 255]), None)
    loader = training_loader(frames, 2, seed=0, workers=None, device=device)
    optimizer = optimization.make_optimizer("adam", model.parameters(), 1e-4, 0.0)
    scheduler = optimization.make_scheduler("constant", optimizer, optimization.Plan([[0, 1]]), 1)
    amp = devices.amp_type(device, base_channels >= 64)
    state = optimization.Optimization(model, optimizer, scheduler, device=device, amp=amp)
    step = steps.Step(model, losses.HeadsLoss(losses.SegmentationLoss("ce"), model.HEAD_WEIGHTS), state, device, amp)
    return lambda: common.timed(steps.train_one_epoch, step, loader, Memory(), "benchmark") / STEPS


def _prediction(images, engine):
    import torch

    from sonogravity.datasets.frame_files import FrameFile
    from sonogravity.datasets.labels import Labels
    from sonogravity.datasets.pairs import Pair
    from sonogravity.inference import engines, segmentation
    from sonogravity.inference.predictor import Predictor
    from unet.model import UNet

    torch.manual_seed(0)
    labels, device = Labels.create([0, 128, 255]), torch.device("cpu")
    predictor = Predictor(UNet(1, 3, 16), labels=labels, scale=0.25, channels=1, image_maximum=None, device=device)
    predictor = engines.use(engine, predictor, Path(images[0]))
    pairs = [Pair(FrameFile(Path(image))) for image in images]
    frames = [frame for frame, _ in segmentation.read_frames(predictor, pairs, workers=0)]
    return lambda: common.timed(lambda: list(segmentation.segment(predictor, frames, 1))) / len(frames)


def beside():
    """Train a plain network until this process is killed."""
    import torch
    from torch import nn

    layers = [nn.Conv2d(1, 32, 3, padding=1), *(nn.Conv2d(32, 32, 3, padding=1) for _ in range(8))]
    network = nn.Sequential(*(part for layer in layers for part in (layer, nn.BatchNorm2d(32), nn.ReLU())))
    optimizer, images = torch.optim.Adam(network.parameters()), torch.rand(2, 1, 200, 185)
    while True:
        optimizer.zero_grad()
        network(images).square().mean().backward()
        optimizer.step()


def measure(workload, images, args):
    """Return {setting: medians of ms} and {setting: why it does not run}, by processes that start now."""
    workers = {}
    for name in args.settings:
        workers[name] = common.Worker(work, variables=SETTINGS[name], images=images, **WORKLOADS[workload])
    common.in_turns(workers, 1, ())  # not counted: threads start, buffers are made
    found = common.in_turns(workers, args.rounds, ())
    for worker in workers.values():
        worker.close()
    refused = {name: worker.refused for name, worker in workers.items() if worker.refused}
    return {name: 1000 * statistics.median(turns) for name, turns in found.items() if turns}, refused


def compare(workload, images, args):
    """Return the rows of a workload: each setting, quiet and beside another training."""
    quiet, refused = measure(workload, images, args)
    other = subprocess.Popen([sys.executable, __file__, "--beside"], env=common.environment())
    try:
        time.sleep(BUSY_S)
        busy, _ = measure(workload, images, args)
    finally:
        other.kill()
        other.wait()
    first = args.settings[0]
    rows = []
    for name in args.settings:
        row = {"workload": workload, "setting": name, "note": refused.get(name)}
        for key, found in (("quiet", quiet), ("busy", busy)):
            if name in found and first in found:
                row |= {key: found[name], f"{key}_ratio": found[name] / found[first]}
        rows.append(row)
    return rows


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS), metavar="WORKLOAD")
    add("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS), metavar="SETTING", help="the first is 1")
    add("--rounds", type=int, default=5, help="turns of each setting that are counted, quiet and busy")
    add("--beside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.beside:
        beside()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        images = [str(image) for image in common.make_frames(Path(folder) / "frames", 2 * STEPS)]
        for workload in args.workloads:
            part = compare(workload, images, args)
            common.print_table(part, COLUMNS)
            rows += part
    common.print_json("threads", {"cores": os.cpu_count(), "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
