"""Open a run: make or reuse its folders, and compare its settings with those of the run to resume or repeat."""

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import torch

from sonogravity.common import claims, files
from sonogravity.common.devices import describe_use
from sonogravity.common.file_names import BEST, EPOCHS_CSV, EPOCHS_XLSX, LAST, epoch_name
from sonogravity.common.messages import InputError, say, some, warn
from sonogravity.common.processes import is_first_process, process_count
from sonogravity.common.provenance import commit, describe_versions, digest_of_weights
from sonogravity.common.threads import say_if_busy
from sonogravity.metrics.columns import check
from sonogravity.modeling.checkpoints import epoch_of
from sonogravity.training import distributed, stored_options
from sonogravity.training.run import Run
from sonogravity.training.steps import epoch_columns


def open_run(beginning, model, model_options, findings, *, device, amp, memory):
    """Return the Run, with its folders made or reused, and claimed until its ``with`` block ends.

    amp: autocast's dtype or None. memory: the Memory of a new run. Raise InputError if the run exists already or
    another process trains it, or if the data (for a repeated run also the initial weights) differ from those of the
    run to resume or repeat.
    """
    check(epoch_columns(findings.labels), findings.labels.column_names)
    options = stored_options.options_as_dict(beginning.options)
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
    if beginning.repeated:
        _same_start(beginning.options.repeat, beginning.repeated, settings)
    roots = [Path(options[root]) / model.NAME for root in ("checkpoints", "results")]
    name, held = options["name"], ExitStack()
    if is_first_process():
        name, held = claims.claim_name(name, beginning.named, lambda *tried: _claim(beginning, roots, *tried))
    name = distributed.broadcast(name)
    settings["options"]["name"] = name
    kept, results = (root / name for root in roots)
    shared = {
        "model_name": model.NAME,
        "model_options": model_options,
        "labels": found["labels"],
        "scale": options["scale"],
        "amp": amp is not None,
        "image_maximum": findings.image_maximum,
        "grey_levels": findings.grey_levels.as_dict(),
        "normalise": model.normalisation,
        "run": name,
    }
    _describe(name, model, beginning, found, options["epochs"])
    say_if_busy()
    say(f"folders:    {kept} and {results}")
    return Run(kept, results, settings, shared, findings.labels, writing=is_first_process(), claims=held)


def _describe(name, model, beginning, found, epochs):
    """Print what is about to be trained, and how."""
    parameters = sum(weight.numel() for weight in model.parameters())
    begins = f"resumes after epoch {beginning.resumed.epoch} of {epochs}" if beginning.resumed else f"{epochs} epochs"
    frozen = beginning.options.freeze_encoder
    say(
        f"run:        {name}, {model.NAME} with {parameters:,} parameters, {begins}"
        f"{f', the encoder frozen for {frozen}' if frozen else ''}; "
        f"{describe_use(found['device'], found['mixed_precision'])}"
    )


def _settings_of(beginning, options, found, model_name):
    """Return the content of settings.json: the current values, and those that a run to resume or repeat determines."""
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
        "threads": [[0, torch.get_num_threads()]],
    }
    if beginning.resumed:
        earlier = beginning.resumed.training["settings"]
        _same_data(beginning.resumed.path, earlier, settings)
        _same_program(beginning.resumed.path, earlier, settings)
        settings |= {key: earlier[key] for key in ("initial_weights", "memory")}
        if options["low_memory"]:  # given when the run was resumed, perhaps after it had run out of memory
            settings["memory"] = {**earlier["memory"], "checkpointing": True}
        settings["options"]["load"] = earlier["options"]["load"]
        settings["threads"] = _threads_so_far(beginning.resumed, earlier, found["device"])
        heads = options.get("deep_supervision") or options.get("aux_loss")
        if heads and not earlier["threads"]:  # of an earlier version
            warn(f"{beginning.resumed.path}: train_loss contains the auxiliary heads so far, but not from now on")
    if beginning.repeated:
        settings["memory"] = beginning.repeated["memory"]
    return settings


def _threads_so_far(resumed, earlier, device):
    """Return pairs of epochs completed and threads used from then on. On a CPU, warn if this number differs."""
    pairs = earlier["threads"] or [[0, earlier["versions"].get("threads")]]  # empty in earlier versions
    now = torch.get_num_threads()
    if pairs[-1][1] in (now, None):
        return pairs
    if device == "cpu":  # rounding depends on the number of threads
        warn(
            f"{resumed.path}: was trained with {pairs[-1][1]} threads, but {now} are used now, so the scores will "
            f"differ from those of an uninterrupted run; set the environment variable OMP_NUM_THREADS={pairs[-1][1]}"
        )
    return [*pairs, [resumed.epoch, now]]


def _claim(beginning, roots, name, held):
    """Enter the claims of both folders of a run into ``held``. Raise InputError if its folders are taken."""
    folders = [root / name for root in roots]
    for folder in dict.fromkeys(map(files.absolute, folders)):  # one, if both roots are the same
        held.enter_context(claims.claim_folder(folder, "" if beginning.resumed else ", or give another --name"))
    if beginning.resumed is None:
        _free_name(*folders, name)
    elif epoch_of(beginning.resumed.path) != beginning.resumed.epoch:
        raise InputError(f"{beginning.resumed.path}: another process has just trained this run; give the command again")


def _free_name(kept, results, name):
    """Raise InputError if a run of that name has results. Remove the files of one interrupted in its first epoch."""
    if epoch_of(kept / LAST) == 0:
        for path in (kept / BEST, kept / f"{epoch_name(1)}.pth", results / EPOCHS_CSV, results / EPOCHS_XLSX):
            path.unlink(missing_ok=True)  # of an epoch that was not completed
        for folder in (kept, results):
            files.remove_leftovers(folder)
    elif any(kept.glob("*.pth")) or (results / EPOCHS_CSV).exists():
        raise InputError(
            f"{kept}: the run '{name}' exists; give another --name, or resume it with --resume {kept / LAST}"
        )


def _same_data(path, earlier, now):
    if earlier["data"] != now["data"]:
        raise InputError(
            f"{path}: the data differ from those of this run (then {_describe_data(earlier['data'])}, "
            f"now {_describe_data(now['data'])}); restore images, masks and the table of subjects, or start a new run "
            "with --load"
        )


def _same_program(path, earlier, now):
    commits = [str(settings["commit"])[:12] for settings in (earlier, now)]
    if earlier["commit"] != now["commit"]:
        warn(
            f"{path}: is of commit {commits[0]} of this program, which is now at {commits[1]} (+: with changed files); "
            "if the training code has changed, the scores will differ"
        )


def _same_start(path, earlier, now):
    """Raise InputError if data or initial weights differ from the run to repeat; warn of smaller differences."""
    _same_data(path, earlier, now)
    _same_program(path, earlier, now)
    if earlier["initial_weights"] != now["initial_weights"]:
        raise InputError(
            f"{path}: that run began with other weights; restore its --load or --pretrained file, or install torch "
            f"{earlier['versions'].get('torch')} (here {now['versions']['torch']})"
        )
    differing = [name for name in ("device", "mixed_precision", "processes") if earlier[name] != now[name]]
    differing += [name for name, value in now["versions"].items() if earlier["versions"].get(name) != value]
    if differing:
        warn(f"{path}: that run had another {some(differing, 20)}, so its scores cannot be repeated exactly")
    if len(earlier["threads"]) > 1 and earlier["device"] == "cpu":
        used = ", ".join(f"{threads} after epoch {epochs}" for epochs, threads in earlier["threads"])
        warn(f"{path}: that run used several numbers of threads ({used}), so no run repeats it to the last bit")


def _describe_data(counts):
    return (
        f"{counts.get('training')} training and {counts.get('validation')} validation frames, "
        f"digest {str(counts.get('digest'))[:8]}"
    )
