"""How a run is opened: its folders made or taken up, its settings compared with those of an earlier part of it."""

from dataclasses import asdict
from pathlib import Path

from sonogravity.common import files
from sonogravity.common.file_names import BEST, EPOCHS_CSV, EPOCHS_XLSX, LAST, epoch_name
from sonogravity.common.messages import InputError, some, warn
from sonogravity.common.processes import is_first_process, process_count
from sonogravity.common.provenance import commit, describe_versions, digest_of_weights
from sonogravity.metrics.columns import check
from sonogravity.modeling.checkpoints import epoch_of
from sonogravity.training import stored_options
from sonogravity.training.run import Run
from sonogravity.training.steps import epoch_columns


def open_run(beginning, model, model_options, findings, *, device, amp, memory):
    """Make the run's folders, or take up those that exist -> Run.

    amp: autocast's type or None. memory: what a new run starts with. InputError if the run exists already, or if the
    data (and, for a repeated run, the weights at the start) are not those of the run to resume or repeat.
    """
    check(epoch_columns(findings.labels), findings.labels.column_names)
    options = stored_options.options_as_dict(beginning.options)
    name = options["name"]
    kept, results = (Path(options[root]) / model.NAME / name for root in ("checkpoints", "results"))
    found = {
        "labels": findings.labels.as_dict(),
        "data": findings.counts,
        "image_maximum": findings.image_maximum,
        "device": str(device),
        "mixed_precision": str(amp or "float32"),
        "initial_weights": digest_of_weights(model),
        "memory": asdict(memory),
    }
    settings = _settings_of(beginning, options, found, model.NAME)
    if beginning.resumed is None and is_first_process():
        _free_name(kept, results, name)
    if beginning.repeated:
        _same_start(beginning.options.repeat, beginning.repeated, settings)
    for folder in (kept, results):
        folder.mkdir(parents=True, exist_ok=True)
    shared = {
        "model_name": model.NAME,
        "model_options": model_options,
        "labels": found["labels"],
        "scale": options["scale"],
        "amp": amp is not None,
        "image_maximum": findings.image_maximum,
        "run": name,
    }
    return Run(kept, results, settings, shared, findings.labels, writing=is_first_process())


def _settings_of(beginning, options, found, model_name):
    """The content of settings.json: what was asked for and found now, with what an earlier run has to go on with."""
    settings = {
        "script": "train",
        "model": model_name,
        "options": options | {"resume": None, "repeat": None, "check": False},
        **found,
        "plan": beginning.plan.pairs,
        "parts": beginning.parts,
        "processes": process_count(),
        "commit": commit(),
        "versions": describe_versions(),
    }
    if beginning.resumed:
        earlier = beginning.resumed.training["settings"]
        _same_data(beginning.resumed.path, earlier, settings)
        _same_program(beginning.resumed.path, earlier, settings)
        settings |= {key: earlier[key] for key in ("initial_weights", "memory")}
        settings["options"]["load"] = earlier["options"]["load"]
    if beginning.repeated:
        settings["memory"] = beginning.repeated["memory"]
    return settings


def _free_name(kept, results, name):
    """InputError if a run of that name has figures to lose; one that was stopped in its first epoch has none."""
    if epoch_of(kept / LAST) == 0:
        for path in (kept / BEST, kept / f"{epoch_name(1)}.pth", results / EPOCHS_CSV, results / EPOCHS_XLSX):
            path.unlink(missing_ok=True)  # of an epoch that was never completed
        for folder in (kept, results):
            files.remove_leftovers(folder)
    elif any(kept.glob("*.pth")) or (results / EPOCHS_CSV).exists():
        raise InputError(
            f"{kept}: the run '{name}' exists; give another --name, or resume it with --resume {kept / LAST}"
        )


def _same_data(path, earlier, now):
    if earlier["data"] != now["data"]:
        raise InputError(
            f"{path}: the data are not those of this run (then {_describe_data(earlier['data'])}, "
            f"now {_describe_data(now['data'])}); bring them back, or start a new run with --load"
        )


def _same_program(path, earlier, now):
    commits = [str(settings["commit"])[:12] for settings in (earlier, now)]
    if earlier["commit"] != now["commit"]:
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
    differing = [name for name in ("device", "mixed_precision", "processes") if earlier[name] != now[name]]
    differing += [name for name, value in now["versions"].items() if earlier["versions"].get(name) != value]
    if differing:
        warn(f"{path}: not as it was: {some(differing, 20)}; the figures may differ in their last digits")


def _describe_data(counts):
    return f"{counts.get('training')} and {counts.get('validation')} frames, {str(counts.get('digest'))[:8]}"
