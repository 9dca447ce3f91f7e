"""Entries of a training run's settings.json, which its last.pth holds too, and the functions that read them."""

import json

from sonogravity.common.messages import InputError, some
from sonogravity.datasets.labels import Labels
from sonogravity.training.memory import Memory
from sonogravity.training.optimization import Plan

ENTRIES = {
    "script": str,
    "model": str,
    "options": dict,
    "labels": dict,
    "data": dict,
    "image_maximum": int | None,
    "device": str,
    "mixed_precision": str,
    "initial_weights": str,
    "memory": dict,
    "plan": list,
    "parts": dict,
    "processes": int,
    "commit": str | None,
    "versions": dict,
    "threads": list,
}
# Values for runs that are older than an entry. An entry added to ENTRIES needs a value here, too.
OLDER = {"parts": {}, "threads": []}
# Options of runs that are older than an option, if its default would change them.
OLDER_OPTIONS = {"normalise": "none"}


def read(path, model_name):
    """Return the settings of a training run of this model. Raise InputError if the file holds none."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the settings.json of a training run")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}); give a run's settings.json") from error
    return checked(settings, path, model_name)


def checked(settings, path, model_name):
    """Return complete settings, with values for missing newer entries. Raise InputError if they are not valid."""
    found = settings.get("script") if isinstance(settings, dict) else type(settings).__name__
    if found != "train":
        raise InputError(f"{path}: was not written by train.py (found: {found}); give the settings.json of a run")
    if settings.get("model") != model_name:
        raise InputError(
            f"{path}: is of the model {settings.get('model')}, but this script trains {model_name}; "
            f"give a run of {model_name}"
        )
    settings = OLDER | settings
    if isinstance(settings.get("options"), dict):
        settings["options"] = OLDER_OPTIONS | settings["options"]
    damaged = [name for name, kind in ENTRIES.items() if not isinstance(settings.get(name, ...), kind)]
    try:
        Memory(**settings["memory"]).parts(1, 1)
        Plan.from_stored(settings["plan"])
        Labels.from_dict(settings["labels"])
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
        damaged = damaged or ["memory, plan or labels"]
    if damaged:
        raise InputError(f"{path}: is damaged: {some(damaged)} missing or wrong; give the file as train.py wrote it")
    return settings
