"""Files on their way to disk: what the disk refuses waits in memory and is tried again."""

import copy

from sonogravity.common import files
from sonogravity.common.messages import some, warn

MOST_WAITING = 12  # files that are optional; a full disk must not fill the memory, too


class Outbox:
    """Files to write, each whole or not at all, in the order in which they were put."""

    def __init__(self):
        self._waiting = {}  # path -> (write, arguments)
        self._kept = set()  # of these, arguments that later work cannot change any more
        self._optional = set()
        self._given_up = []

    def put(self, path, write, *arguments, optional=False):
        """Queue a file, in place of its earlier content: ``write(path, *arguments)`` writes it.

        optional: if many of these wait, the oldest are given up.
        """
        if optional:
            self._optional.add(path)
        self._waiting.pop(path, None)
        self._kept.discard(path)
        self._waiting[path] = write, arguments

    def waiting(self, path):
        """Return the arguments of a file that could not be written yet, else ()."""
        return self._waiting.get(path, (None, ()))[1]

    def send(self):
        """Write what waits; warn of what the disk refuses, and keep that for the next time."""
        refused = {}
        for path, (write, arguments) in list(self._waiting.items()):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                files.write_whole(path, write, *arguments)
            except OSError as error:
                refused[path] = error.strerror or str(error)
                if path not in self._kept:  # training goes on and would change it
                    self._waiting[path] = write, copy.deepcopy(arguments)
                    self._kept.add(path)
            else:
                del self._waiting[path]
                self._kept.discard(path)
        spare = [path for path in self._waiting if path in self._optional]
        for path in spare[: max(0, len(spare) - MOST_WAITING)]:
            del self._waiting[path]
            self._given_up.append(path)
        if refused:
            first, reason = next(iter(refused.items()))
            warn(
                f"{first}: {reason}; not written, kept in memory and tried again after the next epoch: "
                f"{some([path.name for path in refused])}; make room, or close the file elsewhere"
            )

    def close(self):
        """Try a last time -> the paths that are not written."""
        if self._waiting:
            self.send()
        return [*self._given_up, *self._waiting]
