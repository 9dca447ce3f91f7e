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
    """Parse a train.py command line -> options, the Checkpoint to start from, the one to resume (None, None).

    With --load alone, architecture options that were not given are the file's. A resumed Checkpoint is also
    the one to start from.
    """
    args = parser.parse_args(argv)
    if args.resume is None:
        args.name = args.name or cli.time_stamp()
        loaded = checkpoints.load(args.load, model_class) if args.load else None
        if loaded:
            _adopt_architecture(args, cli.given_options(parser, argv, args), loaded)
        return args, loaded, None
    if args.load is not None:
        raise InputError("--load starts a new run, --resume goes on with one; give only one of them")
    resumed = checkpoints.load(args.resume, model_class)
    if resumed.training is None:
        raise InputError(
            f"{args.resume}: holds weights only; resume from last.pth beside it, or start a new run with --load"
        )
    args = cli.take_up(parser, argv, args, resumed.training["options"])
    expected = args.checkpoints.resolve() / resumed.model_name / args.name
    if args.resume.resolve().parent != expected:
        raise InputError(
            f"{args.resume}: belongs in {expected}; move it back, or give --checkpoints ROOT and --results ROOT"
        )
    return args, resumed, resumed


def _adopt_architecture(args, given, loaded):
    """Take options of the architecture from a loaded file where the command line is silent."""
    for name, value in loaded.model_options.items():
        option = "channels" if name == "in_channels" else name
        if name != "classes" and option not in given and getattr(args, option) != value:
            cli.say(f"{loaded.path.name}: --{option.replace('_', '-')} {value}, as in the file")
            setattr(args, option, value)


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
        kept = {"history": history, "options": self.settings["options"], "data": self.settings["data"]}
        training = {**training, **kept}
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


def open_run(options, resumed, *, model_name, model_options, findings, device, amp):
    """Make or take up the run's folders and write settings.json.

    options: the script's, as plain types. amp: whether mixed precision is really used. InputError if the run
    exists already, or if the data are not those that a resumed run was trained on.
    """
    name = options["name"]
    kept, results = (Path(options[root]) / model_name / name for root in ("checkpoints", "results"))
    if resumed and resumed.training["data"] != findings.counts:
        raise InputError(
            f"{resumed.path}: the data are not those of this run (then {_describe_data(resumed.training['data'])}, "
            f"now {_describe_data(findings.counts)}); bring them back, or start a new run with --load"
        )
    if not resumed and (any(kept.glob("*.pth")) or (results / "epochs.csv").exists()):
        raise InputError(
            f"{kept}: the run '{name}' exists; give another --name, or go on with --resume {kept / 'last.pth'}"
        )
    for folder in (kept, results):
        folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "options": options,
        "labels": findings.labels.as_dict(),
        "data": findings.counts,
        "image_maximum": findings.image_maximum,
        "device": str(device),
        "commit": commit(),
        "versions": describe_versions(),
    }
    worksheets.write_json(results / "settings.json", settings)
    shared = {
        "model_name": model_name,
        "model_options": model_options,
        "labels": findings.labels.as_dict(),
        "scale": options["scale"],
        "amp": amp,
        "image_maximum": findings.image_maximum,
        "run": name,
    }
    return Run(name, kept, results, settings, shared)


def _describe_data(counts):
    return f"{counts['training']} and {counts['validation']} frames, {counts['digest'][:8]}"
