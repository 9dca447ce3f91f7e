"""Exceptions and messages shown to the user."""

import re
import sys

from sonogravity.common.processes import is_first_process


class InputError(Exception):
    """Bad input or a wrong option: one line that states the problem and the remedy.

    Scripts print it as ``error: ...`` and end with exit code 2 (see ``commands/script.py``).
    """


class OutputClosed(Exception):
    """The program that read the output has ended, as ``head`` does. The script ends quietly, with exit code 141."""


class NotWritten(Exception):
    """The work is complete, but a result file could not be written: one line, exit code 1."""


class Terminated(KeyboardInterrupt):
    """SIGTERM from a scheduler or a shutdown, or SIGHUP from a closed terminal: args[0] is the signal's number.

    It ends a script as Ctrl-C does, with the exit code 128 + number.
    """


def is_out_of_memory(error):
    """Return whether an exception means that memory is exhausted, on any device.

    torch has its own exception for CUDA only; on a CPU and on MPS it raises RuntimeError. oneDNN only reports that it
    "could not create a primitive". If it has computed the same shape before, the cause is lack of memory.
    """
    text = str(error).lower()
    signs = ("out of memory", "allocate memory", "unable to allocate", "could not create a primitive")
    said = any(sign in text for sign in signs)
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and said)


def first_line(error, limit=150):
    """Return the first line of an exception's text, cut to ``limit`` characters, or the exception's name."""
    return str(error).strip().split("\n")[0][:limit] or type(error).__name__


def one_line(text):
    """Return a text with its line breaks and other control characters written as escapes."""
    return re.sub(r"[\x00-\x1f\x7f]", lambda found: f"\\x{ord(found[0]):02x}", text)


def some(items, limit=3):
    """Return the first few items of a list, for messages: ``a, b, c and 4 more``."""
    items = [str(item) for item in items]
    shown = ", ".join(items[:limit])
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"


def say(message):
    """Print a message about normal progress."""
    if is_first_process():
        try:
            print(message, flush=True)
        except BrokenPipeError:
            raise OutputClosed from None


def complain(message):
    """Print an error line."""
    print(f"error: {one_line(message)}", file=sys.stderr, flush=True)


def warn(message):
    """Print a warning, which the user should check."""
    if is_first_process():
        print(f"warning: {one_line(message)}", file=sys.stderr, flush=True)
