"""How every script starts and ends: its parser, its exit codes, its last line."""

import argparse
import functools
import signal
import sys
import threading
import warnings
from contextlib import contextmanager

from sonogravity.common import messages, processes
from sonogravity.common.messages import InputError, NotWritten, Terminated, first_line


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Defaults in the help, but no "(default: None)": such options say in words what happens without them."""

    def _get_help_string(self, action):
        return action.help if action.default is None else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose refusals are the one line of all our refusals."""

    def __init__(self, description, example):
        super().__init__(
            description=description,
            epilog=f"example: {example}",
            allow_abbrev=False,
            formatter_class=_Help,
        )

    def error(self, message):
        raise InputError(f"{message}; {self.prog} --help lists the options")


def script(main):
    """Decorate a script's main, so that it ends as a user expects.

    InputError, and what the system refuses: one line, exit code 2. NotWritten: one line, 1. Ctrl-C: 130; SIGTERM: 143.
    """

    @functools.wraps(main)
    def run(argv=None, **parts):
        for stream in (sys.stdout, sys.stderr):  # a name that the terminal cannot show must not end the run
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        warnings.filterwarnings("ignore", module=r"PIL\.|torch\._weights_only_unpickler")  # our refusals say it
        try:
            with _sigterm_raises():
                return main(argv, **parts)
        except InputError as error:
            text = str(error)
            if "Traceback (most recent call last)" in text:  # from a worker process; the last line is ours
                text = text.strip().split("\n")[-1].removeprefix(f"{InputError.__module__}.InputError: ")
            _end(text, 2)
        except NotWritten as error:
            _end(str(error), 1)
        except OSError as error:
            where = error.filename or "reading or writing"
            _end(f"{where}: {error.strerror or error}; check the path, its rights and the disk", 2)
        except (MemoryError, RuntimeError) as error:
            if messages.is_out_of_memory(error):
                remedy = "try a smaller --scale, --batch-size or model, or another --device"
                _end(f"out of memory ({first_line(error)}); {remedy}", 2)
            if processes.is_lost_process(error):
                _end("another process has ended, and its own line says why; what earlier epochs wrote is whole", 2)
            if "DataLoader worker" in str(error):
                _end("a worker process died, most often for lack of memory; try --workers 0", 2)
            raise
        except KeyboardInterrupt as stop:
            print("interrupted", file=sys.stderr)
            raise SystemExit(143 if isinstance(stop, Terminated) else 130) from None

    return run


def _end(line, code):
    if processes.is_first_process():  # what stops all of several processes is said once
        messages.complain(line)
    raise SystemExit(code) from None


@contextmanager
def _sigterm_raises():
    """SIGTERM raises Terminated where the script is, as Ctrl-C raises KeyboardInterrupt."""

    def stop(number, frame):
        raise Terminated

    if threading.current_thread() is not threading.main_thread():  # Python hands signals to the main thread only
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
