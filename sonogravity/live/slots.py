"""The hand-over between two threads of live labelling: one item, of which the newest wins."""

import threading


class Slot:
    """A place for one item. Whoever puts never waits: a newer item replaces one that was not taken.

    A queue would keep every item and grow old when the taker is slower. dropped: the number of replaced items.
    """

    def __init__(self):
        self._changed = threading.Condition()
        self._items = []  # empty or one item, so that any item, None too, can be told from none
        self._closed = False
        self.dropped = 0

    def put(self, item):
        """Hand an item over, in place of one that still waits. A closed slot takes none."""
        with self._changed:
            if self._closed:
                return
            self.dropped += len(self._items)
            self._items = [item]
            self._changed.notify()

    def take(self):
        """Return the item as soon as there is one; None when the slot is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed)
            return None if self._closed else self._items.pop()

    def take_now(self):
        """Return the item, or None if there is none."""
        with self._changed:
            return self._items.pop() if self._items else None

    def clear(self):
        """Forget the item without counting it, because nobody wants it any longer."""
        with self._changed:
            self._items = []

    def close(self):
        """Let nobody wait any longer. Items that were not taken are forgotten."""
        with self._changed:
            self._closed, self._items = True, []
            self._changed.notify_all()
