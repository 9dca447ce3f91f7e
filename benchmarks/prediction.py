"""Compare prediction by a plain study's code, by library models and by our engines: per file, latency, start-up.

    python benchmarks/prediction.py [--models unet resnet50 mobilenet_v3_large] [--rounds 5] [--frames 24]

Requires ``pip install -e .[benchmark]``. Frames of 800x740 are generated. Each setting runs in its own process, and
the settings take turns. The checkpoints come from a short training of the real scripts on these frames
(--train-epochs), or are given with --checkpoint unet=PATH. The output is four tables and one line of JSON:

per file    from file to mask file and worksheet row, with all steps of the project (boundary distances, CSV, workbook,
            summary): (T(many) - T(few)) / (many - few), and the mean T(many) / many, for each kind of --panels.
            "study" is the plain code, with two passes per frame and overlap scores only (it does less than ours)
latency     decode to label map at native size, batch 1, warm: p50 and p95 of the time from one label map to the next,
            with frames decoded ahead, and "alone", with each frame decoded after the previous one is done. One pass
            per frame in every setting
network     from the resized frame in memory to logits at native size, in batches of --batch-sizes; share of the ceiling
start-up    the whole process of predict.py on one file, and of predict.py --help

On a GPU --scales is 0.5 1 and --batch-sizes is 1 8 32 unless given. Five rounds take about 40 minutes on two cores.
"""

import argparse
import csv
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import common

SETTINGS = {
    **common.REFERENCES,
    "torch float32": {"engine": "torch", "amp": False},
    "torch amp": {"engine": "torch", "amp": True},
    "compile amp": {"engine": "compile", "amp": True},
    "onnx": {"engine": "onnx", "amp": False},
    "openvino amp": {"engine": "openvino", "amp": True},
}
WARM_UP = 3  # frames, or batches
CALLS = 5  # batches per turn
FOLDERS = {"unet": "unet", "resnet50": "deeplab", "mobilenet_v3_large": "deeplab"}
FILES = {
    "model": ("model", ""),
    "setting": ("setting", ""),
    "scale": ("scale", "g"),
    "panels": ("panels", ""),
    "ms/file": ("ms_a_file", ".1f"),
    "mean": ("mean_ms", ".1f"),
    "x study": ("times_study", ".2f"),
    "start MB": ("start_mb", ".0f"),
    "peak MB": ("peak_mb", ".0f"),
}
LATENCY = {
    "model": ("model", ""),
    "setting": ("setting", ""),
    "scale": ("scale", "g"),
    "p50 ms": ("p50", ".1f"),
    "p95 ms": ("p95", ".1f"),
    "alone p50": ("alone_p50", ".1f"),
    "alone p95": ("alone_p95", ".1f"),
    "x study": ("times_study", ".2f"),
    "": ("note", ""),
}
NETWORK = {
    "model": ("model", ""),
    "setting": ("setting", ""),
    "scale": ("scale", "g"),
    "batch": ("batch", "d"),
    "GFLOP/frame": ("gflop_a_frame", ".1f"),
    "ms/batch": ("ms_a_batch", ".1f"),
    "frames/s": ("frames_a_second", ".2f"),
    "GFLOP/s": ("gflop_a_second", ".0f"),
    "of ceiling": ("share", ".0%"),
    "x study": ("times_study", ".2f"),
}


def plain(model, source, scale, bfloat16=False, **_):
    """Return the turns of a worker that predicts with a source's model in plain code; see ``ours``."""
    import reference
    import torch

    from sonogravity.common import devices
    from sonogravity.common.messages import InputError
    from sonogravity.datasets import frames

    common.imported()
    torch.manual_seed(0)
    device = devices.pick_device("auto")
    if bfloat16 and devices.amp_type(device, True) is not torch.bfloat16:
        raise InputError("no units for bfloat16")
    predictor = reference.PlainPrediction(
        reference.SOURCES[source](model), scale=scale, bfloat16=bfloat16, device=device
    )

    def files(folder, output, panels):
        pairs = common.pairs_of(sorted(Path(folder, "images").iterdir()))
        return common.timed(predictor.predict_files, pairs, Path(output)) if panels == "none" else None

    def latency(images, ahead):
        return [common.timed(predictor.label_map, image) for image in images][WARM_UP:]

    def network(image, batch):
        frame, size = reference.read_image(image, scale)
        return _calls(predictor.logits, frame.expand(batch, *frame.shape).contiguous(), size)

    def gflop():
        return common.gflop_a_frame(lambda: reference.SOURCES[source](model), frames.network_size(common.FRAME, scale))

    turns = {"files": files, "latency": latency, "network": network, "gflop": gflop}
    return lambda kind, *question: turns[kind](*question)


def ours(model, checkpoint, scale, engine, amp):
    """Return the turns of a worker that predicts with the project's predictor, in seconds except ``gflop``.

    files: a folder, with all steps of predict.py; latency: each frame, decode to label map; network: each batch;
    gflop: GFLOP per frame.
    """
    import importlib

    from sonogravity import models
    from sonogravity.commands import score
    from sonogravity.commands.scoring_options import scoring_values
    from sonogravity.common.workers import threads_beside
    from sonogravity.datasets import frames
    from sonogravity.datasets.frame_files import FrameFile
    from sonogravity.datasets.pairs import Pair
    from sonogravity.inference import engines, segmentation
    from sonogravity.inference.predictor import open_predictor

    script = importlib.import_module(f"{FOLDERS[model]}.predict")
    model_class = models.model_class(FOLDERS[model])
    checkpoint = Path(checkpoint)
    common.imported()
    predictor, opened = open_predictor(checkpoint, model_class, device="auto", amp=amp, scale=scale, mask_values=None)
    predictor = engines.use(engine, predictor, checkpoint)

    def files(folder, output, panels):
        options = ["--load", checkpoint, "--input", folder, "--output", output, "--panels", panels, "--engine", engine]
        args = script.build_parser().parse_args([str(option) for option in options])
        request = score.Request("predict", **scoring_values(args))
        return common.timed(common.quietly, score.score_inputs, {checkpoint: (predictor, opened)}, request)

    def latency(images, ahead):
        pairs = [Pair(FrameFile(Path(image))) for image in images]
        read = segmentation.read_frames(predictor, pairs, threads_beside(None, predictor.device) if ahead else 0)
        times = [common.clock()]
        for _ in segmentation.segment(predictor, (frame for frame, _ in read), 1):
            times.append(common.clock())
        return [end - start for start, end in pairwise(times)][WARM_UP:]

    def network(image, batch):
        pair = Pair(FrameFile(Path(image)))
        native, _ = frames.read_pair(pair, predictor.channels)
        frame = frames.Frame(pair, frames.at_scales(native, predictor.scales), None, native.shape[:2])
        return _calls(predictor.logits, [frame] * batch)

    def gflop():
        size = frames.network_size(common.FRAME, scale)
        return common.gflop_a_frame(lambda: model_class(**opened.model_options), size, predictor.channels)

    turns = {"files": files, "latency": latency, "network": network, "gflop": gflop}
    return lambda kind, *question: turns[kind](*question)


def _calls(function, *arguments):
    """Return the seconds of each call, without the warm-up calls."""
    return [common.timed(function, *arguments) for _ in range(WARM_UP + CALLS)][WARM_UP:]


def trained(model, root, epochs):
    """Train briefly at a small size with the real script. Return the checkpoint; its masks are rough but plausible."""
    options = {
        "--train": root / "frames" / "train",
        "--validation": root / "frames" / "validation",
        "--epochs": epochs,
        "--batch-size": 4,
        "--scale": 0.125,
        "--learning-rate": 1e-3,
        "--scheduler": "cosine",
        "--name": model,
        "--loss": "ce+dice",
        "--checkpoints": root,
        "--results": root / "results",
    }
    backbone = [] if model == "unet" else ["--backbone", model]
    _run(f"{FOLDERS[model]}/train.py", "--amp", *backbone, *(part for option in options.items() for part in option))
    return root / FOLDERS[model] / model / "last.pth"


def _run(script, *options):
    """Run a script of the repository as a process. Return its seconds."""
    command = [sys.executable, common.ROOT / script, *options]
    start = time.perf_counter()
    subprocess.run([str(part) for part in command], check=True, capture_output=True, env=common.environment())
    return time.perf_counter() - start


def compare(model, scale, checkpoint, images, args, ceiling, root):
    """Measure all settings of one model in turns. Return the rows of three tables, and the measured ceiling."""
    workers = {}
    for name in args.settings:
        setting = SETTINGS[name] | {"model": model, "scale": scale}
        is_plain = "source" in setting
        workers[name] = common.Worker(
            plain if is_plain else ours, **setting | ({} if is_plain else {"checkpoint": checkpoint})
        )
    questions = {
        ("files", panels, folder): ("files", root / folder, root / "out", panels)
        for panels in args.panels
        for folder in ("few", "many")
    }
    questions |= {("latency", ahead): ("latency", images, ahead) for ahead in (True, False)}
    questions |= {("network", batch): ("network", images[0], batch) for batch in args.batch_sizes}
    found = {key: {name: [] for name in workers} for key in questions}
    ceilings = []
    for turn in range(args.rounds + 1):  # the first turn warms up and is not counted
        ceilings.append(ceiling.ask())
        for key, question in questions.items():
            for name, worker in workers.items():
                whole_files = SETTINGS[name].get("source", "study") == "study"  # the libraries do not write files
                if worker.refused or (key[0] == "files" and not whole_files):
                    continue
                answer = worker.ask(*question)
                if answer is not None and turn:
                    found[key][name].append(answer)
                first = turn == 0 and key == ("files", args.panels[0], "many")
                _look_and_clear(root / "out", name if first else None)
    measured = common.ceiling_of(ceilings)
    tables = [], [], []
    for name, worker in workers.items():
        row = {"model": model, "setting": name, "scale": scale, "note": worker.refused}
        answers = {key: found[key][name] for key in questions}
        if worker.refused is None:
            gflop = worker.ask("gflop")
            tables[0].extend(row | figures | worker.memory() for figures in files_figures(answers, args))
            tables[2].extend(row | figures for figures in network_figures(answers, args, gflop, measured["best"]))
        tables[1].append(row | latency_figures(answers))
        worker.close()
    for table, key in zip(tables, ("ms_a_file", "p50", "ms_a_batch"), strict=True):
        common.add_ratio(table, key, lambda row: row["setting"] == "study float32", "times_study", ("batch",))
    return tables, measured


def files_figures(answers, args):
    """Yield one row per kind of panels: the time per additional file, and the mean time per file."""
    for panels in args.panels:
        few, many = (answers["files", panels, folder] for folder in ("few", "many"))
        if many and len(few) == len(many):
            more = [1000 * (b - a) / (args.frames - args.few) for a, b in zip(few, many, strict=True)]
            mean = 1000 * statistics.mean(many) / args.frames
            yield {"panels": panels, "ms_a_file": statistics.median(more), "all_ms": more, "mean_ms": mean}


def latency_figures(answers):
    """Return p50 and p95 over the frames of all turns, decoded ahead and alone."""
    figures = {}
    for prefix, ahead in (("", True), ("alone_", False)):
        times = [1000 * seconds for turn in answers["latency", ahead] for seconds in turn]
        if times:
            figures |= {f"{prefix}p50": statistics.median(times), f"{prefix}p95": common.percentile(times, 0.95)}
    return figures


def network_figures(answers, args, gflop, ceiling):
    """Yield one row per batch size: the network alone."""
    for batch in args.batch_sizes:
        calls = [seconds for turn in answers["network", batch] for seconds in turn]
        if calls and gflop:
            seconds = statistics.median(calls)
            speed = gflop * batch / seconds
            yield {
                "batch": batch,
                "gflop_a_frame": gflop,
                "ms_a_batch": 1000 * seconds,
                "frames_a_second": batch / seconds,
                "gflop_a_second": speed,
                "share": speed / ceiling,
            }


def _look_and_clear(output, name):
    """Remove the predictions. If a name is given, first print their mean Dice, which reveals useless predictions."""
    table = output / "files.csv"
    if name is not None and table.is_file():
        with open(table, newline="", encoding="utf-8") as file:
            dice = [float(row["dice"] or "nan") for row in csv.DictReader(file)]
        print(f"{name}: Dice of its masks {statistics.mean(dice):.3f}", file=sys.stderr)
    shutil.rmtree(output, ignore_errors=True)


def start_up(model, checkpoint, image, root, rounds):
    """Return the seconds of whole processes: prediction of one file, and --help."""
    script, rows = f"{FOLDERS[model]}/predict.py", []
    for _ in range(rounds):
        first = _run(script, "--load", checkpoint, "--input", image, "--output", root / "first", "--panels", "none")
        rows.append((first, _run(script, "--help")))
        shutil.rmtree(root / "first")
    first, shown = (statistics.median(column) for column in zip(*rows, strict=True))
    return {"model": model, "first_mask_s": first, "help_s": shown}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--models", nargs="+", choices=common.MODELS, default=common.MODELS)
    add("--settings", nargs="+", choices=SETTINGS, metavar="SETTING", default=list(SETTINGS), help="e.g. 'torch amp'")
    add("--panels", nargs="+", choices=("none", "png", "jpg"), default=["none", "png", "jpg"])
    add("--rounds", type=int, default=5, help="turns of each setting that are counted")
    add("--frames", type=int, default=24, help="files of a turn (many)")
    add("--few", type=int, default=8, help="files of the turn that is subtracted")
    add("--scales", "--scale", type=float, nargs="+", help="(default: 0.5, on a GPU 0.5 1)")
    add("--batch-sizes", type=int, nargs="+", help="of the network alone (default: 1, on a GPU 1 8 32)")
    add("--train-epochs", type=int, default=8, help="of the checkpoints, at scale 0.125")
    add("--checkpoint", nargs="+", default=[], metavar="MODEL=PATH", help="checkpoints to use instead")
    args = parser.parse_args(argv)
    if not 0 < args.few < args.frames or args.frames <= WARM_UP:
        parser.error(f"--few must be below --frames, and --frames above {WARM_UP}")
    given = dict(each.split("=", 1) for each in args.checkpoint)
    ceiling = common.Worker(common.ceiling)
    machine = ceiling.ask()
    gpu = machine["device"] == "cuda"
    args.batch_sizes = args.batch_sizes or ([1, 8, 32] if gpu else [1])
    everything, starts = ([], [], []), []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        images = common.make_frames(root / "frames", args.frames)
        for name, count in (("few", args.few), ("many", args.frames)):
            common.copy_frames(images, root / name, count)
        for model in args.models:
            checkpoint = Path(given[model]) if model in given else trained(model, root, args.train_epochs)
            for scale in args.scales or ([0.5, 1.0] if gpu else [0.5]):
                tables, measured = compare(model, scale, checkpoint, images, args, ceiling, root)
                print(f"\n{common.describe_ceiling(measured)}")
                for table, columns, all_rows in zip(tables, (FILES, LATENCY, NETWORK), everything, strict=True):
                    common.print_table(table, columns)
                    all_rows += table
            starts.append(start_up(model, checkpoint, images[0], root, args.rounds))
    ceiling.close()
    common.print_table(
        starts, {"model": ("model", ""), "first mask s": ("first_mask_s", ".2f"), "--help s": ("help_s", ".2f")}
    )
    names = ("files", "latency", "network")
    tables = dict(zip(names, everything, strict=True))
    common.print_json("prediction", {"machine": machine, **tables, "start_up": starts})
    return 0


if __name__ == "__main__":
    sys.exit(main())
