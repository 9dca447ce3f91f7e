"""Errors that libtiff finds in a file. It prints them by itself and may go on with wrong pixels; here they are kept."""

import ctypes
import functools
import threading
from contextlib import contextmanager

from PIL import _imaging

_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)  # TIFFErrorHandler
_reading = threading.local()


@_HANDLER
def _keep(module, form, values):
    getattr(_reading, "reported", []).append((module or b"").decode("ascii", "replace"))


@functools.cache
def _replace_printing():
    """Replace libtiff's printing handler. Where Pillow does not share its libtiff (on Windows), it stays."""
    try:
        replace = ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler
    except (AttributeError, OSError):
        return
    replace.restype = ctypes.c_void_p
    replace(_keep)


@contextmanager
def tiff_errors():
    """Keep libtiff quiet. At the end raise ValueError if a decoder reported an error, though the pixels were read."""
    _replace_printing()
    _reading.reported = []
    try:
        yield
        if broken := [name for name in _reading.reported if name.endswith("Decode") or name == "JPEGLib"]:
            raise ValueError(f"{broken[0]} found damaged pixels")
    finally:
        _reading.reported = []
