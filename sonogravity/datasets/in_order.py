"""Sequences that can only be decoded one frame after the other: videos, GIF, WebP and compressed arrays."""

import os
import threading
from collections import OrderedDict

from sonogravity.datasets.sequences import Sequence

# Decoded frames that are kept, because threads ask for neighbouring frames in any order; two per thread at least.
KEPT = max(16, 4 * (os.cpu_count() or 1))


class InOrder(Sequence):
    """A Sequence whose reader gives frames in order. A subclass defines _begin, _next and _end, and calls _set."""

    stays_open = True

    def __init__(self, path):
        self.path = path
        self._lock = threading.Lock()
        self._position = None  # number of the frame that _next gives, None if the file is closed
        self._recent = OrderedDict()  # number -> what _next gave

    def _set(self, count, size):
        """Set the number of frames and their (H, W)."""
        super().__init__(self.path, count, size)

    def _begin(self):
        """Open the file, so that _next gives its first frame."""
        raise NotImplementedError

    def _next(self):
        """Return the next frame, in the form that the subclass wants."""
        raise NotImplementedError

    def _end(self):
        """Close the file if it is open."""
        raise NotImplementedError

    def _seek(self, number):
        """Move towards frame ``number``. Return the number of the frame that _next then gives."""
        if number >= self._position:
            return self._position
        self._begin()
        return 0

    def _frame(self, number):
        """Return what _next gave for frame ``number``."""
        with self._lock:
            if number in self._recent:
                return self._recent[number]
            try:
                if self._position is None:
                    self._begin()
                    self._position = 0
                if not self._position <= number <= self._position + KEPT:
                    self._recent.clear()
                    self._position = self._seek(number)
                while self._position <= number:
                    self._recent[self._position] = self._next()
                    self._position += 1
                    if len(self._recent) > KEPT:
                        self._recent.popitem(last=False)
            except BaseException:
                self._forget()
                raise
            return self._recent[number]

    def _forget(self):
        self._end()
        self._position = None
        self._recent.clear()

    def close(self):
        with self._lock:
            self._forget()
