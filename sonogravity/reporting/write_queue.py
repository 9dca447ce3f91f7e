"""Queue of files to write. A file that could not be written stays in memory and is tried again."""

import copy

from sonogravity.common import files
from sonogravity.common.messages import some, warn

MOST_WAITING = 12  # optional files: a full disk must not fill the memory, too


class Outbox:
    """Files to write, each completely or not at all, in the order of ``put``."""

    def __init__(self):
        self._waiting = {}  # path -> (write, arguments)
        self._kept = set()  # paths whose arguments are copies, which training cannot change
        self._optional = set()
        self._given_up = []

    def put(self, path, write, *arguments, optional=False):
        """Queue a file, which ``write(path, *arguments)`` writes. It replaces an earlier entry for this path.

        optional: if too many optional files wait, the oldest are dropped.
        """
        if optional:
            self._optional.add(path)
        self._waiting.pop(path, None)
        self._kept.discard(path)
        self._waiting[path] = write, arguments

    def waiting(self, path):
        """Return the arguments of a file that is not written yet, else ()."""
        return self._waiting.get(path, (None, ()))[1]

    def send(self):
        """Write the queued files. Warn about files that could not be written, and keep them for the next time."""
        refused = {}
        for path, (write, arguments) in list(self._waiting.items()):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                files.write_whole(path, write, *arguments)
            except OSError as error:
                refused[path] = error.strerror or str(error)
                if path not in self._kept:  # training continues and would change the arguments
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
                f"{some([path.name for path in refused])}; free disk space, or close the file in other programs"
            )

    def close(self):
        """Try a last time. Return the paths of the files that are not written."""
        if self._waiting:
            self.send()
        return [*self._given_up, *self._waiting]
