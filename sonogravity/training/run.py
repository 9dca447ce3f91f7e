"""A training run on disk: its folders, its settings, and what each epoch leaves behind."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from sonogravity.common import files
from sonogravity.common.files import BROKEN_FILE
from sonogravity.common.messages import InputError, NotWritten, some, warn
from sonogravity.common.provenance import commit, describe_versions, digest_of_weights
from sonogravity.modeling import checkpoints
from sonogravity.reporting import workbook
from sonogravity.reporting.pictures import write_progress
from sonogravity.reporting.write_queue import Outbox
from sonogravity.training import distributed, stored_options
from sonogravity.training.memory import Memory


def best_epoch(history):
    """The epoch of highest validation Dice, the first of equals; an undefined Dice ranks below all. 0 without any."""
    return max(history, key=dice_or_lowest)["epoch"] if history else 0


def dice_or_lowest(row):
    """What checkpoints, plateau and patience follow."""
    return row["dice"] if row["dice"] == row["dice"] else -1.0


@dataclass
class Run:
    """Folders and settings of one run, the content that all its checkpoints share, and files not written yet.

    writing: whether this process writes: of several that train together only the first does.
    """

    name: str
    checkpoints: Path
    results: Path
    settings: dict
    shared: dict  # model_name, model_options, labels, scale, amp, image_maximum, run
    outbox: Outbox = field(default_factory=Outbox)
    writing: bool = True

    @property
    def last(self):
        """The checkpoint to resume from."""
        return self.checkpoints / "last.pth"

    def start(self, model, training):
        """Write settings.json, and the state before the first epoch: a disk that refuses it ends the run at once."""
        if not self.writing:
            return
        files.write_whole(self.results / "settings.json", workbook.write_json, self.settings)
        checkpoints.save(self.last, self._content(0, model, [], training))

    def leave(self, epoch, model, history, training, *, pictures, labels):
        """Write what an epoch leaves. last.pth comes after the figures: a run killed before it repeats the epoch."""
        if not self.writing:
            return
        put = self.outbox.put
        self.report(history, labels)
        for name, (write, content) in pictures.items():
            put(self.results / "panels" / f"epoch_{epoch:03d}" / name, write, content, optional=True)
        content = self._content(epoch, model, history, training)
        put(self.last, checkpoints.write, content)
        self._put_copies(epoch, history, {key: value for key, value in content.items() if key != "training"})
        self.outbox.send()

    def _content(self, epoch, model, history, training):
        weights = {key: value.cpu() for key, value in model.state_dict().items()}
        training = {**training, "history": history, "settings": self.settings}
        return {**self.shared, "epoch": epoch, "state_dict": weights, "training": training}

    def _put_copies(self, epoch, history, content):
        if best_epoch(history) == epoch:
            self.outbox.put(self.checkpoints / "best.pth", checkpoints.write, content)
        if epoch % self.settings["options"]["save_every"] == 0:
            self.outbox.put(self.checkpoints / f"epoch_{epoch:03d}.pth", checkpoints.write, content, optional=True)

    def take_up(self, resumed, labels):
        """Bring a resumed run's files up to its last.pth: those that a kill, or a full disk, kept from following."""
        if not self.writing:
            return
        history = resumed.training["history"]
        for folder in (self.checkpoints, self.results):
            files.remove_leftovers(folder)
        files.write_whole(self.results / "settings.json", workbook.write_json, self.settings)
        if not history:
            return
        best = best_epoch(history)
        if best < resumed.epoch and _epoch_of(self.checkpoints / "best.pth") != best:
            warn(f"{self.checkpoints / 'best.pth'}: is not of epoch {best}, the best so far, whose weights are lost")
        content = {**self.shared, "epoch": resumed.epoch, "state_dict": resumed.state_dict}
        self._put_copies(resumed.epoch, history, content)
        self.report(history, labels)
        self.outbox.send()

    def report(self, history, labels):
        """Queue settings.json, epochs.csv, epochs.xlsx and progress.png: all anew, whoever removed them."""
        put = self.outbox.put
        put(self.results / "settings.json", workbook.write_json, self.settings)
        put(self.results / "epochs.csv", workbook.write_csv, history)
        put(self.results / "epochs.xlsx", workbook.write_epochs, (history, self.settings))
        put(self.results / "progress.png", write_progress, (history, labels))

    def how_to_go_on(self):
        """What to do after an interruption."""
        epoch = _epoch_of(self.last)
        return (
            f"epoch {epoch} is kept; go on with: --resume {self.last}"
            if epoch
            else ("no epoch was completed; give the same command again")
        )

    def training_state(self):
        """The ``state_dict`` and ``training`` of the last completed epoch, from disk, or from memory if not written."""
        content = self.outbox.content_of(self.last)
        return content or torch.load(self.last, map_location="cpu", weights_only=True)

    def close(self, history):
        """Try again what the disk refused; NotWritten if it still does, or if the best weights are not there."""
        if not self.writing:
            return
        missing = self.outbox.close()
        best = self.checkpoints / "best.pth"
        if _epoch_of(best) != best_epoch(history):
            missing.append(best)
        if missing:
            names = dict.fromkeys(missing)
            raise NotWritten(
                f"{len(names)} files could not be written: {some(names)}; make room, or close them elsewhere, "
                f"then --resume {self.last} writes what it can"
            )


def _epoch_of(path):
    """The epoch of a checkpoint of ours, None where there is none."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True).get("epoch")
    except BROKEN_FILE:
        return None


def open_run(beginning, *, model, model_options, findings, device, amp):
    """Make or take up the run's folders.

    amp: autocast's type or None. InputError if the run exists already, or if the data (and, for a repeated run, the
    weights at the start) are not those of the run to resume or repeat.
    """
    options = stored_options.options_as_dict(beginning.options)
    name = options["name"]
    kept, results = (Path(options[root]) / model.NAME / name for root in ("checkpoints", "results"))
    settings = {
        "script": "train",
        "model": model.NAME,
        "options": options | {"resume": None, "repeat": None, "check": False},
        "labels": findings.labels.as_dict(),
        "data": findings.counts,
        "image_maximum": findings.image_maximum,
        "device": str(device),
        "mixed_precision": str(amp or "float32"),
        "initial_weights": digest_of_weights(model),
        "memory": asdict(Memory(checkpointing=options["low_memory"])),
        "plan": beginning.plan,
        "processes": distributed.count(),
        "commit": commit(),
        "versions": describe_versions(),
    }
    if beginning.resumed:
        earlier = beginning.resumed.training["settings"]
        _same_data(beginning.resumed.path, earlier, settings)
        _same_program(beginning.resumed.path, earlier, settings)
        settings |= {key: earlier[key] for key in ("initial_weights", "memory")}
        settings["options"]["load"] = earlier["options"]["load"]
    elif distributed.rank() == 0:
        _free_name(kept, results, name)
    if beginning.repeated:
        settings["memory"] = beginning.repeated["memory"]
        _same_start(beginning.options.repeat, beginning.repeated, settings)
    for folder in (kept, results):
        folder.mkdir(parents=True, exist_ok=True)
    shared = {
        "model_name": model.NAME,
        "model_options": model_options,
        "labels": findings.labels.as_dict(),
        "scale": options["scale"],
        "amp": amp is not None,
        "image_maximum": findings.image_maximum,
        "run": name,
    }
    return Run(name, kept, results, settings, shared, writing=distributed.rank() == 0)


def _free_name(kept, results, name):
    """InputError where a run of that name has figures to lose; one that was stopped in its first epoch has none."""
    if _epoch_of(kept / "last.pth") == 0:
        for path in (kept / "best.pth", kept / "epoch_001.pth", results / "epochs.csv", results / "epochs.xlsx"):
            path.unlink(missing_ok=True)  # of an epoch that was never completed
        for folder in (kept, results):
            files.remove_leftovers(folder)
    elif any(kept.glob("*.pth")) or (results / "epochs.csv").exists():
        raise InputError(
            f"{kept}: the run '{name}' exists; give another --name, or go on with --resume {kept / 'last.pth'}"
        )


def _same_data(path, earlier, now):
    if earlier["data"] != now["data"]:
        raise InputError(
            f"{path}: the data are not those of this run (then {_describe_data(earlier['data'])}, "
            f"now {_describe_data(now['data'])}); bring them back, or start a new run with --load"
        )


def _same_program(path, earlier, now):
    commits = [str(settings.get("commit"))[:12] for settings in (earlier, now)]
    if earlier.get("commit") != now["commit"]:
        warn(
            f"{path}: is of commit {commits[0]} of this program, which is now at {commits[1]} (+: files were changed): "
            "where training itself has changed, so do the figures"
        )


def _same_start(path, earlier, now):
    """What a repeated run must share with the first one, and what may change its last digits."""
    _same_data(path, earlier, now)
    _same_program(path, earlier, now)
    if earlier["initial_weights"] != now["initial_weights"]:
        raise InputError(
            f"{path}: that run began with other weights; bring back its --load or --pretrained file, or torch "
            f"{earlier['versions'].get('torch')} (here {now['versions']['torch']})"
        )
    differing = [name for name in ("device", "mixed_precision") if earlier.get(name) != now[name]]
    differing += ["processes"] if earlier.get("processes", 1) != now["processes"] else []
    differing += [name for name, value in now["versions"].items() if earlier["versions"].get(name) != value]
    if differing:
        warn(f"{path}: not as it was: {some(differing, 20)}; the figures may differ in their last digits")


def _describe_data(counts):
    return f"{counts.get('training')} and {counts.get('validation')} frames, {str(counts.get('digest'))[:8]}"
