"""The subject of each file, from a table or the file's name, and folds that keep all frames of a subject together.

Frames of one subject are near copies, so folds that split frames instead of subjects give scores that are too high
(Varoquaux and Cheplygina, npj Digital Medicine 2022).
"""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from sonogravity.common.csv_tables import read_table, tables_beside_images
from sonogravity.common.messages import InputError, say, some
from sonogravity.datasets.file_kinds import stem_of

# The text before the last number, and before a word such as "frame" that belongs to this number. The word may follow a
# digit without a separator, D10frame_102, but no letter, because it may then be part of a name.
SUBJECT = re.compile(
    r"(.*?[^_\-. ])(?:(?<=\d)(?:frame|img|image|slice))?[_\-. ]+(?:(?:frame|img|image|slice)[_\-. ]*)?\d+",
    re.IGNORECASE,
)
TABLE = "subjects.csv"  # beside images/
EXAMPLE = '--subject-regex "^(P[0-9]+)" or --subjects FILE.csv'
COMMON_WORDS = ("frame", "img", "image", "im", "slice", "scan", "us", "mask", "picture", "screenshot", "file")


@dataclass(frozen=True)
class Subjects:
    """Where the subject of a file stands: in a table, {file name: subject}, else in its name (see subjects_in_names).

    regex: for names. path: of the table. All None: the names alone.
    """

    regex: str | None = None
    table: dict | None = None
    path: Path | None = None

    @classmethod
    def given(cls, options, paths=()):
        """Return the Subjects of --subjects, else of --subject-regex, else of the tables beside images/, else of names.

        paths: folders and files that the user gave. Raise InputError if a table is wrong.
        """
        tables = [table for table in tables_beside_images(paths, TABLE) if table != options.subjects]
        not_used = [*tables, *(["--subject-regex"] if options.subject_regex is not None else [])]
        if options.subjects is not None:
            if not_used:
                say(f"subjects:   from {options.subjects} (--subjects), so {some(not_used)} is not used")
            return cls(None, _read_subjects(options.subjects), options.subjects)
        if options.subject_regex is not None or not tables:
            if tables:
                say(f"subjects:   from the file names (--subject-regex), so {some(tables)} is not used")
            return cls(options.subject_regex)
        say(f"subjects:   from {some(tables)}")
        whole = {}
        for table in tables:
            for name, subject in _read_subjects(table).items():
                if whole.setdefault(name, subject) != subject:
                    raise InputError(f"{table}: {name} has another subject than in {tables[0]}; give one --subjects")
        return cls(None, whole, tables[0])

    def of(self, stems, clips=None):
        """Return the subject of each file, None for a name without one. Raise InputError if the table lacks a file.

        clips: for frames the stem of the clip, stack or volume that holds them, else None. All frames of a clip have
        one subject: that of the clip's name, or else the clip itself, because its frames are near copies.
        """
        clips = clips or [None] * len(stems)
        if self.table is None:
            names = [clip or stem for stem, clip in zip(stems, clips, strict=True)]
            found = subjects_in_names(names, self.regex)
            return [subject or clip for subject, clip in zip(found, clips, strict=True)]
        found = [
            self.table.get(_composed(stem)) or self.table.get(_composed(clip or ""))
            for stem, clip in zip(stems, clips, strict=True)
        ]
        missing = [stem for stem, subject in zip(stems, found, strict=True) if subject is None]
        if missing:
            raise InputError(
                f"{self.path}: no line for {len(missing)} of {len(stems)} files: {some(missing)}; add them, to this "
                f"table or to a {TABLE} beside their own images/"
            )
        return found

    def or_stems(self, stems, clips=None):
        """Return the group that intervals and tests resample for each file: its subject, or its stem without one."""
        return [subject or stem for subject, stem in zip(self.of(stems, clips), stems, strict=True)]

    def unknown(self, stems, clips=None):
        """Return whether no file has a subject, so that files are taken as independent."""
        return not any(self.of(stems, clips))


IN_NAMES = Subjects()


def _read_subjects(path):
    """Return {file name, and the same without extension: subject} of a CSV with the columns file and subject."""
    found, whole_names = {}, {}
    for where, row in read_table(path, "--subjects", [("subject",)]).rows:
        name, subject = _composed(row["file"]), row["subject"]
        if not subject:
            raise InputError(f"{where}: {row['file']} has no subject; name it")
        if whole_names.setdefault(name, subject) != subject:
            raise InputError(f"{where}: {row['file']} is in the table twice, with different subjects; keep one line")
        stem = stem_of(name)
        if found.setdefault(stem, subject) != subject:
            raise InputError(
                f"{where}: {row['file']} and another file of the same name, but with another ending, have different "
                "subjects; rename one of them"
            )
    return found | whole_names


def _composed(name):
    return unicodedata.normalize("NFC", name)


def subjects_in_names(stems, regex=None):
    """Return the subject in each file name, None for a name without one.

    regex: its first group (or the whole match) is the subject; callers validate it. Without regex, the subject is the
    text before a last number that follows ``_``, ``-``, ``.`` or a space: ``D10_032`` -> ``D10``. If all names give the
    same common word (``frame_001``), none has a subject.
    """
    if regex:
        found = [re.search(regex, stem) for stem in stems]
        return [(m.group(1) if m.re.groups else m.group(0)) if m else None for m in found]
    found = [SUBJECT.fullmatch(stem) for stem in stems]
    subjects = [m.group(1) if m else None for m in found]
    common = set(subjects) <= {None} or (len(set(subjects)) == 1 and subjects[0].lower() in COMMON_WORDS)
    return [None] * len(stems) if common else subjects


def assign_folds(subjects, count):
    """Return {subject: fold, from 1}; each subject, the largest first, goes to the fold with the fewest frames.

    subjects: one per frame.
    """
    frames = Counter(subjects)
    sizes = dict.fromkeys(range(1, count + 1), 0)
    folds = {}
    for subject in sorted(frames, key=lambda subject: (-frames[subject], subject)):
        fold = min(sizes, key=lambda fold: (sizes[fold], fold))
        folds[subject] = fold
        sizes[fold] += frames[subject]
    return folds


def split_into_folds(pairs, count, subjects, folder):
    """Return the fold of each pair and the subject of each pair. subjects: where they stand, a Subjects.

    Raise InputError if a file name gives no subject, or if there are fewer subjects than folds.
    """
    subjects = subjects.of([pair.stem for pair in pairs])
    unknown = [pair.image.name for pair, subject in zip(pairs, subjects, strict=True) if not subject]
    if unknown:
        raise InputError(
            f"--folds {count}: {len(unknown)} of {len(pairs)} file names in {folder} give no subject "
            f"({some(unknown)}); folds split the subjects, so say how to read them, for example with {EXAMPLE}"
        )
    if len(set(subjects)) < count:
        raise InputError(
            f"--folds {count}: {folder} has {len(set(subjects))} subjects ({some(sorted(set(subjects)), 8)}); use at "
            f"most that many folds, or say how to read them, for example with {EXAMPLE}"
        )
    of_subject = assign_folds(subjects, count)
    return [of_subject[subject] for subject in subjects], subjects


def describe_folds(folds, subjects):
    """Return one line per fold with its subjects and their numbers of frames."""
    lines = []
    for fold in sorted(set(folds)):
        own = [subject for each, subject in zip(folds, subjects, strict=True) if each == fold]
        listed = ", ".join(f"{subject} ({frames})" for subject, frames in sorted(Counter(own).items()))
        lines.append(f"{'folds:' if fold == 1 else '':<12}{fold}: {len(own)} frames of {listed}")
    return lines
