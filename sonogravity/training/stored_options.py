"""The options of a run, kept as plain types, and taken up again when it is resumed or repeated."""

import argparse
from pathlib import Path

from sonogravity.common import files
from sonogravity.common.messages import InputError
from sonogravity.datasets.labels import value_text

# Options that may differ when a run is resumed or repeated: they don't change what is computed. Folders may
# move, for the data are compared by content.
FREE = ("device", "workers", "check", "train", "validation", "checkpoints", "results", "cache_mb")
FREE_ON_RESUME = (*FREE, "resume", "epochs")
FREE_ON_REPEAT = (*FREE, "repeat", "name")
UNSET = object()


def options_as_dict(args):
    """Options as plain types, paths absolute: what settings.json and checkpoints keep."""

    def plain(value):
        if isinstance(value, Path):
            return str(files.absolute(value))
        return [plain(item) for item in value] if isinstance(value, list) else value

    return {name: plain(value) for name, value in vars(args).items()}


def given_options(parser, argv, args):
    """The part of args that was given on the command line rather than by default."""
    given = parser.parse_args(argv, argparse.Namespace(**dict.fromkeys(vars(args), UNSET)))
    return argparse.Namespace(**{name: value for name, value in vars(given).items() if value is not UNSET})


def parse(parser, stored, where):
    """The inverse of options_as_dict, checked as a command line is; InputError names ``where``."""
    defaults = vars(parser.parse_args([]))
    argv = []
    later = {name: False for name, value in defaults.items() if value is True and name not in stored}
    for name, value in {**later, **stored}.items():  # a run older than a switch was made without it
        option = f"--{name.replace('_', '-')}"
        if value is True:
            argv.append(option)
        elif value is False and defaults.get(name) is True:
            argv.append(f"--no-{option[2:]}")
        elif value is not None and value is not False:
            if name == "class_names" and isinstance(value, list):
                value = ",".join(map(str, value))
            elif name == "background" and isinstance(value, int):
                value = value_text(value)
            argv.append(f"{option}={value}")
    try:
        return parser.parse_args(argv)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def take_up(parser, argv, stored, where, free):
    """Options of a run to resume or repeat: the stored ones, with those that are free to change from argv.

    InputError where an option given in argv contradicts the stored one, or where these are damaged.
    """
    args = parse(parser, stored, where)
    given = given_options(parser, argv, args)
    refuse_differences(given, args, where, free)
    for name in free:
        if hasattr(given, name):
            setattr(args, name, getattr(given, name))
    return args


def refuse_differences(options, run, where, free):
    """InputError where options, all or some, differ from those of a run in what is not free."""
    kept = options_as_dict(run)
    for name, value in options_as_dict(options).items():
        if name not in free and value != kept[name]:
            raise InputError(
                f"--{name.replace('_', '-')} {value} contradicts {where} ({kept[name]}); give what that run has, or "
                "start a run of its own"
            )
