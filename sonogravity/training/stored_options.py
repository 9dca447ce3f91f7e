"""The options of a run, stored as plain types and restored when the run is resumed or repeated."""

from pathlib import Path

from sonogravity.common import files
from sonogravity.common.messages import InputError

# Options that may differ when a run is resumed or repeated, because they do not change the result. Folders and
# the table of subjects may move, because the data are compared by content.
FREE = ("device", "workers", "check", "train", "validation", "checkpoints", "results", "cache_mb", "subjects")
FREE_ON_RESUME = (*FREE, "resume", "epochs", "low_memory")
FREE_ON_REPEAT = (*FREE, "repeat", "name")


def options_as_dict(options):
    """Return options as plain types with absolute paths, as settings.json and checkpoints store them."""

    def plain(value):
        if isinstance(value, Path):
            return str(files.absolute(value))
        return [plain(item) for item in value] if isinstance(value, list) else value

    return {name: plain(value) for name, value in vars(options).items()}


def take_up(options, stored, where, free):
    """Return the options of a run to resume or repeat: the stored ones, with the current values of those in ``free``.

    Raise InputError, which names ``where``, if a given option contradicts the stored one, or if these are damaged.
    """
    try:
        run = options.with_stored(stored)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    refuse_differences(options, run, where, free, options.given)
    return run.with_given(**{name: getattr(options, name) for name in free if name in options.given})


def refuse_differences(options, run, where, free, names=None):
    """Raise InputError if options that are not in ``free`` differ from those of a run. names: to compare; None: all."""
    kept, wanted = options_as_dict(run), options_as_dict(options)
    for name in wanted if names is None else sorted(names):
        if name not in free and wanted[name] != kept[name]:
            raise InputError(
                f"--{name.replace('_', '-')} {wanted[name]} contradicts {where} ({kept[name]}); give the value of "
                "that run, or start a new run"
            )
