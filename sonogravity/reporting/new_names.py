"""New names for files whose names tell who a patient is, and the table that keeps them."""

import csv
from collections import Counter

from sonogravity.common import files
from sonogravity.common.messages import InputError
from sonogravity.datasets.inputs import clip_and_number

NAMES = ("name", "original", "subject")  # columns of the table
NO_SUBJECT = "F"  # first letter of the new name of a file without a subject


class Rename:
    """Names that do not tell who a patient is: S001_002 is the second file of the first subject.

    A table beside the output folder tells which file has which name, and keeps the names in a later conversion.
    """

    def __init__(self, folder):
        self.table = folder.parent / f"{folder.name}_names.csv"
        self._names, self._subjects, self._counts, self._rows = {}, {}, Counter(), []
        self._listed = frozenset()  # names in the table as it was found
        self.is_new = not self.table.exists()
        if self.is_new:
            return
        with open(self.table, newline="", encoding="utf-8-sig") as file:
            head, *rows = list(csv.reader(file)) or [()]
        if tuple(head) != NAMES or any(len(row) != len(NAMES) or ("_" not in row[0] and row[2]) for row in rows):
            raise InputError(f"{self.table}: is no table of the columns {', '.join(NAMES)}; restore or remove it")
        for name, original, subject in rows:
            self._add(name, original, subject)
        self._listed = frozenset(self._names.values())

    def knows(self, stem):
        """Return whether the table listed a stem in the data set, or the file of such a frame, from the start."""
        return stem in self._listed or clip_and_number(stem)[0] in self._listed

    def _add(self, name, original, subject):
        group = name.split("_")[0] if subject else NO_SUBJECT
        if subject:
            self._subjects[subject] = group
        self._names[original] = name
        self._counts[group] += 1
        self._rows.append((name, original, subject))

    def of(self, file_stem, subject):
        """Return the new name of a file, without extension, and of its subject (None if it has none)."""
        group = self._subjects.get(subject, f"S{len(self._subjects) + 1:03d}") if subject else NO_SUBJECT
        if file_stem not in self._names:
            number = f"{self._counts[group] + 1:03d}"
            self._add(f"{group}_{number}" if subject else f"{group}{number}", file_stem, subject or "")
        return self._names[file_stem], group if subject else None

    def save(self):
        """Write the table."""
        self.table.parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(self.table, self._write)

    def _write(self, path):
        with open(path, "w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([NAMES, *self._rows])
