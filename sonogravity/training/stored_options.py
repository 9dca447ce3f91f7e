"""The options of a run, kept as plain types, and taken up again when it is resumed or repeated."""

from pathlib import Path

from sonogravity.common import files
from sonogravity.common.messages import InputError

# Options that may differ when a run is resumed or repeated: they don't change what is computed. Folders may
# move, for the data are compared by content.
FREE = ("device", "workers", "check", "train", "validation", "checkpoints", "results", "cache_mb")
FREE_ON_RESUME = (*FREE, "resume", "epochs")
FREE_ON_REPEAT = (*FREE, "repeat", "name")


def options_as_dict(options):
    """Options as plain types, paths absolute: what settings.json and checkpoints keep."""

    def plain(value):
        if isinstance(value, Path):
            return str(files.absolute(value))
        return [plain(item) for item in value] if isinstance(value, list) else value

    return {name: plain(value) for name, value in vars(options).items()}


def take_up(options, stored, where, free):
    """The options of a run to resume or repeat: the stored ones, and those that are free to change as given now.

    InputError names ``where`` if an option given now contradicts the stored one, or if these are damaged.
    """
    try:
        run = options.with_stored(stored)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    refuse_differences(options, run, where, free, options.given)
    return run.with_given(**{name: getattr(options, name) for name in free if name in options.given})


def refuse_differences(options, run, where, free, names=None):
    """InputError if options, all or those of the names given, differ from those of a run in what is not free."""
    kept, wanted = options_as_dict(run), options_as_dict(options)
    for name in wanted if names is None else sorted(names):
        if name not in free and wanted[name] != kept[name]:
            raise InputError(
                f"--{name.replace('_', '-')} {wanted[name]} contradicts {where} ({kept[name]}); give what that run "
                "has, or start a run of its own"
            )
