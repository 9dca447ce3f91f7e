"""The line about the state of a live view: faults and the end of the source, on the pages and on the terminal."""

import threading

from sonogravity.common.messages import one_line, say, warn

SHOWN_S = 5.0  # how long a fault is shown after it last happened
MOST_SAID = 100  # different faults on the terminal; a clip may have thousands of damaged frames


class Status:
    """The newest fault for a few seconds, else the lasting state, such as the end of the source."""

    def __init__(self):
        self._lock = threading.Lock()
        self._lasting = self._fault = ""
        self._until = 0.0
        self._said = set()

    def settle(self, text):
        """Set the lasting state, and print it."""
        with self._lock:
            self._lasting = text
        say(text)

    def report(self, text, now):
        """Show a fault. Print it if it is new."""
        text = one_line(text)
        with self._lock:
            self._fault, self._until = text, now + SHOWN_S
            is_new = text not in self._said and len(self._said) < MOST_SAID
            if is_new:
                self._said.add(text)
            is_last = is_new and len(self._said) == MOST_SAID
        if is_new:
            warn(text)
        if is_last:
            warn(f"{MOST_SAID} different faults were printed; further ones are shown on the page only")

    def text(self, now):
        """Return the line to show."""
        with self._lock:
            return self._fault if now < self._until else self._lasting
