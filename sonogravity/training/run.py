"""A training run on disk: its folders, settings and history, and the files of each epoch."""

import math
import statistics
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from sonogravity.common import file_names as names
from sonogravity.common import files, folders
from sonogravity.common.messages import InputError, NotWritten, complain, say, some, warn
from sonogravity.common.processes import is_first_process
from sonogravity.datasets.labels import Labels
from sonogravity.metrics.summary import best_epoch
from sonogravity.modeling import checkpoints
from sonogravity.reporting import pictures, plots, workbook
from sonogravity.reporting.write_queue import Outbox

LAST_EPOCHS = 5  # of which the time left is estimated


@dataclass
class Run:
    """Folders, settings and history of one run, entries common to its checkpoints, and files that are not written yet.

    history: one row per completed epoch. writing: whether this process writes files; of several processes only the
    first does. claims: of the folders. At the end of its ``with`` block it prints the best epoch, or how to resume an
    interrupted run, and releases the claims.
    """

    checkpoints: Path
    results: Path
    settings: dict
    shared: dict  # model_name, model_options, labels, scale, amp, image_maximum, run
    labels: Labels
    history: list = field(default_factory=list)
    outbox: Outbox = field(default_factory=Outbox)
    writing: bool = True
    claims: ExitStack = field(default_factory=ExitStack)

    @property
    def last(self):
        """Return the path of the checkpoint to resume from."""
        return self.checkpoints / names.LAST

    @property
    def best(self):
        """Return the path of the checkpoint of the best epoch."""
        return self.checkpoints / names.BEST

    @property
    def next_epoch(self):
        """Return the number of the next epoch, from 1; None if all epochs are done or --patience has ended the run."""
        done = len(self.history)
        return None if done >= self.settings["options"]["epochs"] or self._out_of_patience else done + 1

    @property
    def _out_of_patience(self):
        patience = self.settings["options"]["patience"]
        return bool(patience and self.history) and len(self.history) - best_epoch(self.history) >= patience

    def begin(self, optimization, resumed, steps_per_epoch):
        """Write the state before the first epoch, or restore that of a resumed Checkpoint and update the files."""
        if resumed is None:
            self._start(optimization)
            return
        optimization.restore(resumed.training, resumed.path, steps_per_epoch)
        self.history[:] = resumed.training["history"]
        self._take_up(resumed)
        if len(self.history) >= self.settings["options"]["epochs"]:
            say(f"{resumed.path}: all {len(self.history)} epochs are done; train more with a larger --epochs")

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        with self.claims:
            self._end(error)

    def _end(self, error):
        if error is None:
            self._finish()
            return
        if not isinstance(error, (KeyboardInterrupt, InputError)):
            return
        self.outbox.send()
        if isinstance(error, InputError) and not is_first_process():  # the first process does not know this error
            complain(error)
        if isinstance(error, KeyboardInterrupt):
            say(f"\n{self._how_to_resume()}")

    def _start(self, optimization):
        """Write settings.json and the first state, so that a full disk ends the run before training."""
        if not self.writing:
            return
        files.write_whole(self.results / names.SETTINGS, workbook.write_json, self.settings)
        checkpoints.save(self.last, self._content(0, optimization))

    def record(self, row):
        """Add the row of a completed epoch to the history. Raise InputError if its validation loss is not finite."""
        if not math.isfinite(row["val_loss"]):
            raise InputError(
                f"epoch {row['epoch']}/{self.settings['options']['epochs']}: the validation loss is {row['val_loss']}; "
                "checkpoints of earlier epochs are kept. Try a lower --learning-rate, or --no-amp"
            )
        self.history.append(row)

    def save_epoch(self, optimization, predictor, frames):
        """Save the files of the last epoch and print its scores.

        frames: from steps.validate, shown as panels every --save-every epochs. last.pth is written after the scores,
        so a run that is killed before that repeats the epoch when it is resumed.
        """
        row, options = self.history[-1], self.settings["options"]
        epoch = row["epoch"]
        if self.writing:
            put = self.outbox.put
            self._report()
            if epoch % options["save_every"] == 0 or epoch == options["epochs"]:
                folder = self.results / names.PANELS / names.epoch_name(epoch)
                for name, panel in pictures.epoch_panels(frames, predictor.channels, self.labels).items():
                    put(folder / name, pictures.write_panel, *panel, optional=True)
            content = self._content(epoch, optimization)
            put(self.last, checkpoints.write, content)
            self._put_copies(epoch, {key: value for key, value in content.items() if key != "training"})
            self.outbox.send()
        labels = self.labels
        per_class = ", ".join(f"{labels.title(c)} {row[f'dice_{labels.names[c]}']:.4f}" for c in labels.foreground)
        usual = statistics.median(each["seconds"] for each in self.history[-LAST_EPOCHS:])
        left = timedelta(seconds=round(usual * (options["epochs"] - epoch)))
        say(
            f"epoch {epoch}/{options['epochs']}  train loss {row['train_loss']:.4f}  val loss {row['val_loss']:.4f}  "
            f"Dice {row['dice']:.4f} ({per_class})  {row['seconds']:.0f} s, {row['images_per_second']:.2f} img/s"
            + (f", about {left} left" if epoch < options["epochs"] else "")
            + ("  best" if best_epoch(self.history) == epoch else "")
        )

    def go_back(self, optimization):
        """Reset model, optimization and history to the last completed epoch, from the outbox or from disk."""
        [content] = self.outbox.waiting(self.last) or [checkpoints.read(self.last)]
        optimization.model.load_state_dict(content["state_dict"])
        optimization.restore(content["training"], self.last)
        self.history[:] = content["training"]["history"]

    def _content(self, epoch, optimization):
        weights = {key: value.cpu() for key, value in optimization.result.state_dict().items()}
        training = {**optimization.state(), "history": self.history, "settings": self.settings}
        return {**self.shared, "epoch": epoch, "state_dict": weights, "training": training}

    def _put_copies(self, epoch, content):
        if best_epoch(self.history) == epoch:
            self.outbox.put(self.best, checkpoints.write, content)
        if epoch % self.settings["options"]["save_every"] == 0:
            path = self.checkpoints / f"{names.epoch_name(epoch)}.pth"
            self.outbox.put(path, checkpoints.write, content, optional=True)

    def _take_up(self, resumed):
        """Write those files of a resumed run again that a kill or a full disk left older than its last.pth."""
        if not self.writing:
            return
        for folder in (self.checkpoints, self.results):
            files.remove_leftovers(folder)
        files.write_whole(self.results / names.SETTINGS, workbook.write_json, self.settings)
        if not self.history:
            return
        best = best_epoch(self.history)
        if best < resumed.epoch and checkpoints.epoch_of(self.best) != best:
            warn(
                f"{self.best}: is missing, or not of epoch {best}, the best so far; copy the best.pth of this run "
                "there, else the weights of that epoch are lost"
            )
        self._put_copies(resumed.epoch, {**self.shared, "epoch": resumed.epoch, "state_dict": resumed.state_dict})
        self._report()
        self.outbox.send()

    def _report(self):
        """Queue settings.json, epochs.csv, epochs.xlsx and progress.png; all are rewritten completely."""
        put = self.outbox.put
        put(self.results / names.SETTINGS, workbook.write_json, self.settings)
        put(self.results / names.EPOCHS_CSV, workbook.write_csv, self.history)
        put(self.results / names.EPOCHS_XLSX, workbook.write_epochs, self.history, self.settings)
        put(self.results / names.PROGRESS, plots.write_progress, self.history, self.labels)

    def _how_to_resume(self):
        """Return the message after an interruption."""
        epoch = checkpoints.epoch_of(self.last)
        if not epoch:
            return "no epoch was completed; give the same command again"
        return f"epoch {epoch} is kept; resume with: --resume {self.last}"

    def _finish(self):
        """Print the best epoch and write the remaining files. Raise NotWritten if a file could not be written."""
        if self._out_of_patience:
            patience = self.settings["options"]["patience"]
            say(f"early stopping: no better Dice for {patience} epochs (--patience)")
        best = self.history[best_epoch(self.history) - 1]
        say(f"best: epoch {best['epoch']}, Dice {best['dice']:.4f}: {self.best}")
        say(f"scores of every epoch: {self.results / names.EPOCHS_XLSX}")
        if not self.writing:
            return
        if unwritten := dict.fromkeys(self.outbox.close()):
            raise NotWritten(
                f"{len(unwritten)} files could not be written: {some(unwritten)}; free disk space, or close them in "
                f"other programs, then --resume {self.last} writes all that can be restored"
            )
        if checkpoints.epoch_of(self.best) != best["epoch"]:
            raise NotWritten(
                f"{self.best}: does not hold epoch {best['epoch']}, the best, whose weights {self.last} does not keep; "
                f"copy the best.pth of this run there, or use {self.last}"
            )
        script = folders.ROOT / self.shared["model_name"] / "predict.py"
        say(f"next: python {script} --load {self.best} --input FOLDER")
