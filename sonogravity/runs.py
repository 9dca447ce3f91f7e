"""A training run on disk: its folders, its settings, and what each epoch leaves behind."""

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sonogravity import checkpoints, cli, figures, paths, worksheets
from sonogravity.errors import InputError

PACKAGES = ("sonogravity", "torch", "torchvision", "numpy", "pillow", "scipy", "pandas", "openpyxl")


def begin(parser, argv, model_class):
    """Parse a train.py command line -> options and, with --resume, the Checkpoint taken up (else None)."""
    args = parser.parse_args(argv)
    if args.resume is None:
        args.name = args.name or cli.time_stamp()
        return args, None
    if args.load is not None:
        raise InputError("--load starts a new run, --resume goes on with one; give only one of them")
    resumed = checkpoints.load(args.resume, model_class)
    if resumed.training is None:
        raise InputError(
            f"{args.resume}: holds weights only; resume from last.pth beside it, or start a new run with --load"
        )
    return cli.take_up(parser, argv, args, resumed.training["options"]), resumed


def describe_versions():
    """Versions, processor and commit, for settings.json."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def commit():
    """The commit of the repository that the code runs from, with ``+`` if files changed; None without git."""
    git = ("git", "-C", os.fspath(paths.ROOT))
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


@dataclass(frozen=True)
class Run:
    """Folders and settings of one run, and the content that all its checkpoints share."""

    name: str
    checkpoints: Path
    results: Path
    settings: dict
    shared: dict  # model_name, model_options, labels, scale, amp, image_maximum, run

    def save(self, epoch, predictor, history, training, *, best, numbered):
        """Write an epoch's checkpoints: best.pth, epoch_NNN.pth where asked for, and always last.pth."""
        weights = {key: value.cpu() for key, value in predictor.model.state_dict().items()}
        content = {**self.shared, "epoch": epoch, "state_dict": weights}
        if best:
            checkpoints.save(self.checkpoints / "best.pth", content)
        if numbered:
            checkpoints.save(self.checkpoints / f"epoch_{epoch:03d}.pth", content)
        training = {**training, "history": history, "options": self.settings["options"]}
        checkpoints.save(self.checkpoints / "last.pth", {**content, "training": training})

    def report(self, history, labels):
        """Write epochs.xlsx, epochs.csv and progress.png."""
        worksheets.write_epochs(self.results, history, self.settings)
        with paths.whole(self.results / "progress.png") as beside:
            figures.save_progress(beside, history, labels)

    def panels_folder(self, epoch):
        """The folder of an epoch's panels, made."""
        folder = self.results / "panels" / f"epoch_{epoch:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def open_run(args, resumed, *, model_class, model_options, findings, device):
    """Make or take up the run's folders and write settings.json; InputError if the run exists already."""
    folders = [root.resolve() / model_class.NAME / args.name for root in (args.checkpoints, args.results)]
    if resumed:
        folders[0] = resumed.path.resolve().parent
    else:
        for folder in folders:
            if folder.exists():
                raise InputError(
                    f"{folder}: the run '{args.name}' exists; give another --name, or go on with --resume "
                    f"{folders[0] / 'last.pth'}"
                )
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "options": cli.options_as_dict(args),
        "labels": findings.labels.as_dict(),
        "data": findings.counts,
        "image_maximum": findings.image_maximum,
        "device": str(device),
        "commit": commit(),
        "versions": describe_versions(),
    }
    worksheets.write_json(folders[1] / "settings.json", settings)
    shared = {
        "model_name": model_class.NAME,
        "model_options": model_options,
        "labels": findings.labels.as_dict(),
        "scale": args.scale,
        "amp": args.amp,
        "image_maximum": findings.image_maximum,
        "run": args.name,
    }
    return Run(args.name, *folders, settings, shared)
