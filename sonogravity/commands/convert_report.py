"""The last lines of convert: the data set, shapes that are not in the masks, and the command that trains on it."""

import shlex
from argparse import ArgumentTypeError
from collections import Counter

from sonogravity.commands.options import class_names
from sonogravity.common.folders import ROOT
from sonogravity.common.messages import InputError, say, some, warn
from sonogravity.datasets import class_tables, spacing
from sonogravity.datasets.label_discovery import MANY_VALUES
from sonogravity.datasets.labels import Labels, value_text
from sonogravity.datasets.shapes import HIDDEN, NO_PIXEL
from sonogravity.datasets.subjects import TABLE
from sonogravity.reporting.converted_set import ConvertedSet

MOST_FOLDS = 5  # that the proposed command has


def report(output, items, labelling, written, rename):
    """Print what was made, and the command that trains on it."""
    masks = " with masks" * (labelling is not None)
    kept = f", {written.kept} were there already" * bool(written.kept)
    others = f"; {len(written.others)} others in the set" * bool(written.others)
    say(f"written:    {written.new} of {len(items)} images{masks} to {output.folder}{kept}{others}")
    without = [item.file for item in items if not item.subject]
    if written.subjects:
        say(f"subjects:   {len(written.subjects)} ({some(written.subjects)}), in {output.folder / TABLE}")
    else:
        say(
            f"no {TABLE}: the names of {len(without)} of {len(items)} images give no subject ({some(without)}); "
            "--subject-regex tells how to read it"
        )
    if scaled := sum(item.spacing is not None for item in items):
        say(f"spacing:    of {scaled} of {len(items)} images, in {output.folder / spacing.TABLE}")
    if rename is not None:
        say(f"names:      {rename.table} tells which file has which name; keep it safe, and apart from {output.folder}")
    if labelling is not None:
        _report_labels(output, labelling, written)
    if written.without_mask:
        count, shown = len(written.without_mask), some(written.without_mask)
        say(f"next: draw masks for {count} images ({shown}), and convert them into the same folder, then train")
    else:
        say(f"next: {_train_command(output, written)}")


def _report_labels(output, labelling, written):
    """Print the values of the masks and their names, and shapes that are not in the masks."""
    names = {value: label for label, value in labelling.values.items()}
    shown = [f"{value_text(value)} {names.get(value, '')}".strip() for value in written.values]
    say(f"values:     {some(shown, MANY_VALUES)}" + (f", in {output.folder / class_tables.TABLE}" if names else ""))
    if len(shown) > MANY_VALUES:
        warn(f"{output.masks}: hold {len(shown)} values, as images or JPEG files do; check that they are masks")
    alike = Counter(label.casefold() for label in names.values())
    if same := [label for label in names.values() if alike[label.casefold()] > 1]:
        warn(f"labels differ only in upper and lower case ({some(same)}), and count as different structures")
    for why in (NO_PIXEL, HIDDEN):
        lost = sorted(f"{label} on {drawing}" for drawing, label, each in labelling.lost if each == why)
        if lost:
            warn(f"{len(lost)} shapes are not in the masks, because each {why}: {some(lost)}")


def _train_command(output, written):
    """Return the command that trains on the set, with the folder of the other set if it lies beside it."""
    folder, own = output.folder, output
    words = ["python", str(ROOT / "unet" / "train.py"), "--train", str(folder)]
    other = folder.parent / {"train": "validation", "validation": "train"}.get(folder.name, "")
    values = written.values
    if folder.name in ("train", "validation") and (other / "images").is_dir() and (other / "masks").is_dir():
        pair = {folder.name: folder, other.name: other}
        words[2:] = ["--train", str(pair["train"]), "--validation", str(pair["validation"])]
        if folder.name == "validation":  # the classes are those of the training masks
            own = ConvertedSet(other)
            values = own.values_in_masks()
    elif len(written.subjects) > 1:
        words += ["--folds", str(min(MOST_FOLDS, len(written.subjects)))]
    else:
        words += ["--validation", "FOLDER_OF_OTHER_SUBJECTS"]
    return shlex.join(words) + _names_option(class_tables.read_classes(own.folder / class_tables.TABLE), values)


def _names_option(classes, values):
    """Return the option --class-names for mask values, with a warning if train.py cannot take the names."""
    names = {value: label for label, value in classes.items()}
    foreground = [names.get(value) for value in values if value]
    if None in foreground or not foreground:
        return ""
    try:
        if class_names(",".join(foreground)) != foreground:
            raise ArgumentTypeError("a name holds a comma")
        Labels.create(values, 0 if 0 in values else None, foreground)
    except (ArgumentTypeError, InputError) as error:
        warn(f"train.py cannot take the names {some(foreground)} ({error}); rename the labels in the annotation tool")
        return ""
    return (
        f" {shlex.quote('--class-names=' + ','.join(foreground))}"
        if foreground[0].startswith("-")
        else (f" --class-names {shlex.quote(','.join(foreground))}")
    )
