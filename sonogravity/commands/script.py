"""The start and the end of every script: parser, exit codes and error line."""

import argparse
import difflib
import functools
import glob
import os
import signal
import sys
import threading
import warnings
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

from sonogravity.common import messages, processes, threads
from sonogravity.common.messages import InputError, NotWritten, OutputClosed, Terminated, first_line, some

WRITTEN = ("output", "checkpoints", "results")  # options whose paths are created if needed


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Show defaults in the help, except "(default: None)": those help texts state the default in words."""

    def _get_help_string(self, action):
        return action.help if action.default is None else super()._get_help_string(action)


class Options(argparse.Namespace):
    """The options of a script as values. given: the names of those that the user gave; all others have defaults."""

    __slots__ = ("_parser", "given")  # kept out of vars(), which holds the options

    def __init__(self, values, given, parser):
        super().__init__(**values)
        self.given = frozenset(given)
        self._parser = parser

    def with_given(self, **values):
        """Return a copy in which these values are given as well."""
        return Options({**vars(self), **values}, {*self.given, *values}, self._parser)

    def with_stored(self, stored):
        """Return the options of an earlier run from the plain values in settings.json, checked like a command line.

        None of them counts as given by the user. A switch that is on by default but not stored is off, because the run
        is older than the switch. Raise InputError if a value is not valid for this script.
        """
        values = {name: value is not True and value for name, value in self._parser.default_values().items()}
        values |= {name: self._parser.checked(name, value) for name, value in stored.items()}
        return Options(values, (), self._parser)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that returns Options and raises each error as an InputError of one line.

    documentation: a script's docstring; its first line describes the script, its first indented line is an example.
    """

    def __init__(self, documentation):
        lines = documentation.split("\n")
        example = next(line.strip() for line in lines if line.startswith("    "))
        super().__init__(
            description=lines[0],
            epilog=f"example: {example}",
            allow_abbrev=False,
            formatter_class=_Help,
        )
        self.add_argument("--version", action="version", version=f"SonoGravity {version('sonogravity')}")

    def error(self, message):
        raise InputError(f"{message}{self._near_miss(message)}; {self.prog} --help lists the options")

    def _near_miss(self, message):
        """Return a question that names the known options nearest to unknown ones, or an empty text."""
        if not message.startswith("unrecognized arguments:"):
            return ""
        wrong = [word.split("=")[0] for word in message.split()[2:] if word.startswith("-")]
        near = [found for word in wrong for found in difflib.get_close_matches(word, self._option_string_actions, 1)]
        return f"; did you mean {' and '.join(dict.fromkeys(near))}?" if near else ""

    def parse_args(self, argv=None, namespace=None):
        """Return the Options of a command line. Expand patterns with * in paths, because some shells do not."""
        unset = object()
        actions = self._settable()
        found = vars(super().parse_args(argv, argparse.Namespace(**dict.fromkeys(actions, unset))))
        given = {name: _expanded(actions[name], value) for name, value in found.items() if value is not unset}
        return Options({**self.default_values(), **given}, given, self)

    def default_values(self):
        """Return {name: default} of all options."""
        return {name: action.default for name, action in self._settable().items()}

    def checked(self, name, value):
        """Return a stored plain value in the option's own type. Raise InputError if no command line could give it."""
        action = self._settable().get(name)
        option = f"--{name.replace('_', '-')}"
        if action is None:
            raise InputError(f"{option} is not an option of this script")
        try:
            return _own_value(action, value)
        except (argparse.ArgumentTypeError, AttributeError, TypeError, ValueError) as error:
            raise InputError(f"{option}: {error}") from error

    def _settable(self):
        return {action.dest: action for action in self._actions if action.dest not in ("help", "version")}


def _own_value(action, value):
    """Return a plain value in the action's own type. Raise one of several errors if the action cannot have it."""
    if value is None:
        if action.default is not None:
            raise ValueError("is missing")
        return None
    if action.nargs == 0:  # a switch
        if not isinstance(value, bool):
            raise ValueError(f"{value} is neither true nor false")
        return value
    if action.nargs in ("+", "*"):
        return [action.type(each) for each in value]
    if action.nargs == "?" and value == action.const:
        return value
    own = action.type(value) if action.type else value
    if isinstance(value, bool) or (isinstance(value, float) and own != value):
        raise ValueError(f"{value} has the wrong type")
    if action.choices and own not in action.choices:
        raise ValueError(f"{value} is not one of {', '.join(map(str, action.choices))}")
    return own


def _expanded(action, value):
    """Return the value of an option, with each path that contains ``*`` replaced by its matches, in order.

    A path that exists, or that will be written, is taken literally. Raise InputError if a pattern has no match, or
    several for an option that takes one path.
    """
    if action.type is not Path or action.dest in WRITTEN:
        return value
    if isinstance(value, list):
        return [path for each in value for path in _matches(each)]
    if not isinstance(value, Path):
        return value
    found = _matches(value)
    if len(found) > 1:
        raise InputError(f"{action.option_strings[0]} {value}: matches {some(found)}; name one of them")
    return found[0]


def _matches(path):
    if "*" not in str(path) or path.exists():
        return [path]
    pattern = "*".join(map(glob.escape, str(path).split("*")))  # brackets and question marks are literal
    found = sorted(map(Path, glob.glob(pattern)))
    if not found:
        raise InputError(f"{path}: no file or folder matches; check the pattern")
    return found


def script(main):
    """Decorate a script's main: end each known error with one line and an exit code.

    Exit code 2: InputError, OSError, out of memory or a lost process. 1: NotWritten. 130: Ctrl-C. 143: SIGTERM. 129:
    SIGHUP. 141, without a line: the program that read the output has ended, as ``head`` does.
    """

    @functools.wraps(main)
    def run(argv=None, **parts):
        for stream in (sys.stdout, sys.stderr):  # a name that the terminal cannot show must not end the run
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        threads.wait_briefly()
        warnings.filterwarnings(
            "ignore", module=r"PIL\.|pydicom\.|torch\._weights_only_unpickler"
        )  # an InputError reports it
        try:
            with _signals_raise():
                return main(argv, **parts) or 0
        except InputError as error:
            text = str(error)
            if "Traceback (most recent call last)" in text:  # from a worker process; its last line is the InputError
                text = text.strip().split("\n")[-1].removeprefix(f"{InputError.__module__}.InputError: ")
            _end(text, 2)
        except NotWritten as error:
            _end(str(error), 1)
        except OutputClosed:
            with suppress(OSError):  # else Python complains when it flushes the output at its end
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(141) from None
        except OSError as error:
            where = error.filename or "reading or writing"
            _end(f"{where}: {error.strerror or error}; check the path, its permissions and the disk", 2)
        except (MemoryError, RuntimeError) as error:
            if messages.is_out_of_memory(error):
                remedy = "try a smaller --scale, --batch-size or model, or another --device"
                _end(f"out of memory ({first_line(error)}); {remedy}", 2)
            if processes.is_lost_process(error):
                _end("another process has ended, see its own error line; the files of earlier epochs are complete", 2)
            if "DataLoader worker" in str(error):
                _end("a worker process died, probably out of memory or shared memory (/dev/shm); try --workers 0", 2)
            raise
        except KeyboardInterrupt as stop:
            print("interrupted", file=sys.stderr)
            raise SystemExit(128 + (stop.args[0] if isinstance(stop, Terminated) else signal.SIGINT)) from None

    return run


def _end(line, code):
    if processes.is_first_process():  # an error that ends several processes is printed once
        messages.complain(line)
    raise SystemExit(code) from None


@contextmanager
def _signals_raise():
    """Raise Terminated in the script on SIGTERM and SIGHUP, as Python raises KeyboardInterrupt on Ctrl-C.

    A signal that is ignored from the start, as SIGHUP is under ``nohup``, stays ignored.
    """

    def stop(number, frame):
        raise Terminated(number)

    if threading.current_thread() is not threading.main_thread():  # Python handles signals in the main thread only
        yield
        return
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
