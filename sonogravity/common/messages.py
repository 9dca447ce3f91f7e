"""Exceptions and messages shown to the user."""

import re
import sys

from sonogravity.common.processes import is_first_process


class InputError(Exception):
    """Bad input or a wrong option: one line that says what was given, and what to do.

    Scripts print it as ``error: ...`` and end with exit code 2 (see ``commands/script.py``).
    """


class NotWritten(Exception):
    """The work is done, but a file of it could not be written: one line, exit code 1."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, from a scheduler or a shutdown: ends a script as Ctrl-C does, with exit code 143."""


def is_out_of_memory(error):
    """Whether an exception means that memory is exhausted, on any device.

    torch has a class of its own for CUDA only; on a CPU and on MPS it raises RuntimeError. oneDNN does not say why it
    "could not create a primitive"; for shapes that it has computed before it is its working memory.
    """
    text = str(error).lower()
    signs = ("out of memory", "allocate memory", "unable to allocate", "could not create a primitive")
    said = any(sign in text for sign in signs)
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and said)


def first_line(error, limit=150):
    """The first line of an exception's text, cut, or its name: what fits into a message of one line."""
    return str(error).strip().split("\n")[0][:limit] or type(error).__name__


def one_line(text):
    """Text with its line breaks and other control characters written as escapes."""
    return re.sub(r"[\x00-\x1f\x7f]", lambda found: f"\\x{ord(found[0]):02x}", text)


def some(items, limit=3):
    """``a, b, c and 4 more``: the first few of a long list, for messages."""
    items = [str(item) for item in items]
    shown = ", ".join(items[:limit])
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"


def say(message):
    """Tell the user something that is as it should be."""
    if is_first_process():
        print(message, flush=True)


def complain(message):
    """The one line of a refusal."""
    print(f"error: {one_line(message)}", file=sys.stderr, flush=True)


def warn(message):
    """Tell the user something to look into."""
    if is_first_process():
        print(f"warning: {one_line(message)}", file=sys.stderr, flush=True)
