"""Checkpoints: written whole, made of plain types and tensors, read without running code.

Our checkpoints hold the weights under ``state_dict`` and all other content beside it. A bare state dict of other code
also loads. What it lacks is taken from the options, with a message.
"""

from argparse import ArgumentTypeError
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch

from sonogravity.common import choices, files
from sonogravity.common.file_names import BEST, LAST, is_fold
from sonogravity.common.files import BROKEN_FILE, load_torch
from sonogravity.common.messages import InputError, first_line, say, some
from sonogravity.common.option_types import run_name, scale_factor
from sonogravity.datasets.grey_levels import GreyLevels
from sonogravity.datasets.labels import Labels
from sonogravity.modeling import foreign_weights
from sonogravity.modeling.foreign_weights import check_tensors

FORMAT = "sonogravity checkpoint 1"
SUFFIXES = (".pth", ".pt")


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint file. labels and scale are None for a bare state dict without them."""

    path: object
    model_name: str
    model_options: dict
    state_dict: dict
    labels: Labels | None = None
    scale: float | None = None
    amp: bool = False
    image_maximum: int | None = None
    grey_levels: GreyLevels | None = None
    normalise: str = "none"  # of choices.NORMALISATIONS
    run: str | None = None
    epoch: int | None = None
    training: dict | None = None  # optimizer, scheduler, scaler, history, settings: in last.pth only


def save(path, content):
    """Write a dictionary of plain types and tensors, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_whole(path, write, content)


def write(path, content):
    """Write a dictionary of plain types and tensors to a path of ``files.whole``."""
    with open(path, "wb") as file:
        try:
            torch.save({"format": FORMAT, **content}, file)
        except RuntimeError as error:
            # If the disk is full or a signal arrives during writing, torch raises a later error. Raise the cause.
            if isinstance(error.__context__, (OSError, KeyboardInterrupt)):
                raise error.__context__ from None
            raise


def read(path):
    """Return the dictionary in a checkpoint file, without running code. Raise InputError if the file holds none."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a checkpoint (.pth)")
    try:
        content = load_torch(path)
    except BROKEN_FILE as error:
        raise InputError(
            f"{path}: cannot be read safely as a checkpoint ({first_line(error)}): it is damaged, or holds more than "
            "tensors and plain values, as a whole pickled model does: save model.state_dict(), or give another file"
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a checkpoint; give another file")
    if _is_ours(content) and (not isinstance(content["format"], str) or content["format"] != FORMAT):
        raise InputError(
            f"{path}: is a '{first_line(content['format'])}', but this version reads '{FORMAT}'; give another file"
        )
    return content


def _is_ours(content):
    return "format" in content and "state_dict" in content


def epoch_of(path):
    """Return the epoch of a checkpoint of ours without reading its weights; None if there is no such file."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True).get("epoch")
    except BROKEN_FILE:
        return None


def find_checkpoint(path, root):
    """Return the checkpoint of a path or of a run's name: best.pth of a run, last.pth if the run is a fold.

    root: the folder of the runs. A path that exists, has a folder or ends in .pth or .pt is returned unchanged. Raise
    InputError if a plain name is neither a file nor a run.
    """
    name = path.name
    if path.exists() or path != Path(name) or path.suffix in SUFFIXES:
        return path
    if (root / name).is_dir():
        # Not best.pth of a fold, because its epoch was chosen with the frames that score the fold.
        return root / name / (LAST if is_fold(name) else BEST)
    runs = sorted(each.name for each in root.iterdir() if each.is_dir()) if root.is_dir() else []
    raise InputError(
        f"{path}: neither a file nor a run in {root}; give a file or one of the runs: {some(runs, 8) or 'none yet'}"
    )


def find_model(path, names, model_class):
    """Return the model class of a checkpoint file. names: of the models. model_class: returns the class of a name.

    Our checkpoints name their model. Bare weights are tried with each model.
    """
    content = read(path)
    if _is_ours(content):
        name = content.get("model_name")
        if name not in names:
            raise InputError(
                f"{path}: holds the unknown model '{first_line(name)}'; give a checkpoint of {' or '.join(names)}"
            )
        return model_class(name)
    for each in map(model_class, names):
        if foreign_weights.fits(content, each):
            return each
    raise InputError(f"{path}: holds no weights of {' or '.join(names)}; give a checkpoint of train.py")


def load(path, model_class, normalise=None):
    """Return the Checkpoint in a file (ours or a bare state dict). Raise InputError if it is not of model_class.

    normalise: what bare weights expect (see foreign_weights.expected_input); a checkpoint of ours has its own.
    """
    content = read(path)
    if _is_ours(content):
        checkpoint = _ours(path, content, model_class)
        if normalise not in (None, checkpoint.normalise):
            raise InputError(
                f"--normalise {normalise}: {path} has its own ({checkpoint.normalise}); leave this option out"
            )
        return checkpoint
    options, weights, labels = foreign_weights.interpret(path, content, model_class)
    normalise = foreign_weights.expected_input(path, options["in_channels"], normalise)
    return Checkpoint(path, model_class.NAME, options, weights, labels, normalise=normalise)


def _ours(path, content, model_class):
    strange = [key for key in content if key not in ("state_dict", "training") and not _is_plain(content[key])]
    if strange:
        raise InputError(f"{path}: is damaged: {some(strange)} hold more than plain values; give another file")
    name = content.get("model_name")
    if name != model_class.NAME:
        raise InputError(
            f"{path}: holds a {name} model, but this script runs {model_class.NAME}; use the scripts in {name}/"
        )
    content = {key: value for key, value in content.items() if key != "format"}
    known = {item.name for item in fields(Checkpoint)} - {"path"}
    missing = {"model_options", "state_dict", "labels", "scale", "run", "epoch"} - set(content)
    if missing or set(content) - known:
        raise InputError(
            f"{path}: is damaged: {some(sorted(missing | (set(content) - known)))} missing or unknown; give another "
            "file"
        )
    try:
        read = {"labels": Labels.from_dict(content["labels"])}
        if content.get("grey_levels") is not None:
            read["grey_levels"] = GreyLevels.from_dict(content["grey_levels"])
        checkpoint = Checkpoint(path=path, **(content | read))
        checkpoint = replace(checkpoint, model_options=_check_content(checkpoint, model_class))
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, ArgumentTypeError) as error:
        raise InputError(f"{path}: is damaged ({first_line(error)}); give another file") from error
    return checkpoint


def _is_plain(value):
    """Return whether a value consists of dictionaries, lists, texts, numbers and None only."""
    if isinstance(value, (dict, list, tuple)):
        inner = [*value, *value.values()] if isinstance(value, dict) else value
        return all(map(_is_plain, inner))
    return value is None or isinstance(value, (bool, int, float, str))


def _check_content(checkpoint, model_class):
    """Return the model's options. Raise one of several errors if an entry is not as we write it; trust no entry."""
    check_tensors(checkpoint.state_dict)
    found = model_class.options_from(checkpoint.state_dict)
    if {**found, **checkpoint.model_options} != found:  # a file that is older than an option does not hold it
        raise ValueError(f"model options {checkpoint.model_options}, weights of {found}")
    if checkpoint.labels.count != found["classes"]:
        raise ValueError(f"{checkpoint.labels.count} labels, {found['classes']} classes")
    scale_factor(str(checkpoint.scale))
    run_name(checkpoint.run)  # it names folders
    if not isinstance(checkpoint.epoch, int) or checkpoint.epoch < 0 or not isinstance(checkpoint.amp, bool):
        raise ValueError(f"epoch {checkpoint.epoch}, mixed precision {checkpoint.amp}")
    if checkpoint.image_maximum is not None and checkpoint.image_maximum not in range(1, 65536):
        raise ValueError(f"image maximum {checkpoint.image_maximum}")
    if checkpoint.normalise not in choices.NORMALISATIONS:
        raise ValueError(f"normalisation {checkpoint.normalise}")
    if checkpoint.training is not None:
        lacking = {"optimizer", "scheduler", "scaler", "history", "settings"} - set(checkpoint.training)
        if lacking or not isinstance(checkpoint.training["settings"], dict):
            raise ValueError(f"nothing to resume from: {some(sorted(lacking)) or 'settings'}")
        epochs = [row["epoch"] for row in checkpoint.training["history"]]
        if epochs != list(range(1, checkpoint.epoch + 1)):
            raise ValueError(f"epoch {checkpoint.epoch}, rows of {some(epochs)}")
    return found


def _differences(found, expected):
    """Return the keys that differ, as text."""
    missing = [key for key in expected if key not in found]
    extra = [key for key in found if key not in expected]
    shapes = [
        f"{key} {tuple(found[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in expected
        if key in found and found[key].shape != expected[key].shape
    ]
    kinds = [
        f"{key} {found[key].dtype} instead of {expected[key].dtype}"
        for key in expected
        if key in found and found[key].is_floating_point() != expected[key].is_floating_point()
    ]
    parts = [("missing", missing), ("unexpected", extra), ("of another shape", shapes), ("of another type", kinds)]
    return "; ".join(f"{len(keys)} {what} ({some(keys)})" for what, keys in parts if keys)


def open_model(model_class, checkpoint):
    """Return a model with a checkpoint's options and weights. No initial weights are computed."""
    with torch.device("meta"):
        model = model_class(**checkpoint.model_options)
    load_weights(model, checkpoint, assign=True)
    model.use_normalisation(checkpoint.normalise, checkpoint.model_options["in_channels"])
    return model.float()  # weights in the file may be in half precision


def start_from(checkpoint, model, options, new_head):
    """Load a checkpoint's weights to start training: all, or with new_head all except those of the head."""
    if not new_head:
        check_options(checkpoint, options)
        load_weights(model, checkpoint)
        return
    check_options(checkpoint, {name: value for name, value in options.items() if name != "classes"})
    own = {key: value for key, value in model.state_dict().items() if key.startswith(model.HEAD)}
    others = {key: value for key, value in checkpoint.state_dict.items() if not key.startswith(model.HEAD)}
    load_weights(model, replace(checkpoint, state_dict=others | own))
    had = checkpoint.labels.describe() if checkpoint.labels else f"{checkpoint.model_options['classes']} classes"
    say(f"{checkpoint.path.name}: the head ({some(own)}) is replaced by a new one; it was for {had}")


def load_weights(model, checkpoint, assign=False):
    """Load a checkpoint's weights into a model, strictly. Raise InputError with the keys that differ.

    assign: use the checkpoint's tensors themselves, also if the model has none yet.
    """
    differences = _differences(checkpoint.state_dict, model.state_dict())
    if differences:
        raise InputError(f"{checkpoint.path}: its weights do not fit this model: {differences}; give another file")
    broken = [key for key, value in checkpoint.state_dict.items() if not torch.isfinite(value).all()]
    if broken:
        raise InputError(
            f"{checkpoint.path}: NaN or infinity in {len(broken)} weights ({some(broken)}); give an earlier checkpoint"
        )
    model.load_state_dict(checkpoint.state_dict, assign=assign)


def check_options(checkpoint, options):
    """Raise InputError if a checkpoint has other architecture options than this run."""
    differing = [
        f"{name} is {checkpoint.model_options[name]} in the file, but {value} here"
        for name, value in options.items()
        if checkpoint.model_options.get(name) != value
    ]
    if differing:
        raise InputError(f"{checkpoint.path}: {', '.join(differing)}; give the options of the file")


def labels_for(checkpoint, mask_values=None):
    """Return the classes to score with: the checkpoint's, else --mask-values, else 0, 1, ... with a message."""
    classes = checkpoint.model_options["classes"]
    if checkpoint.labels is not None:
        if mask_values and tuple(mask_values) != checkpoint.labels.values:
            raise InputError(
                f"--mask-values: {checkpoint.path} has its own ({checkpoint.labels.describe()}); leave this option out"
            )
        return checkpoint.labels
    if mask_values and len(mask_values) != classes:
        raise InputError(
            f"--mask-values: {len(mask_values)} values, but {checkpoint.path} has {classes} classes; give one per class"
        )
    if not mask_values:
        say(f"{checkpoint.path.name}: holds no mask values, so 0 to {classes - 1} are used (--mask-values sets them)")
    return Labels.create(mask_values or range(classes))
