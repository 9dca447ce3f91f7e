"""The subject of each file, and folds that keep all frames of a subject together.

Frames of one subject are near copies, so folds that split frames instead of subjects give scores that are too high
(Varoquaux and Cheplygina, npj Digital Medicine 2022).
"""

import re
from collections import Counter

from sonogravity.common.messages import InputError, some

# The text before the last number, and before a word such as "frame" that belongs to this number. The word may follow a
# digit without a separator, D10frame_102, but no letter, because it may then be part of a name.
SUBJECT = re.compile(
    r"(.*?[^_\-. ])(?:(?<=\d)(?:frame|img|image|slice))?[_\-. ]+(?:(?:frame|img|image|slice)[_\-. ]*)?\d+",
    re.IGNORECASE,
)
EXAMPLE = '--subject-regex "^(P[0-9]+)"'
COMMON_WORDS = ("frame", "img", "image", "im", "slice", "scan", "us", "mask", "picture", "screenshot", "file")


def subjects_of(stems, regex=None):
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


def subjects_or_stems(stems, regex=None):
    """Return the group that intervals and tests resample for each file: its subject, or its stem without a subject."""
    return [subject or stem for subject, stem in zip(subjects_of(stems, regex), stems, strict=True)]


def are_independent(stems, regex=None):
    """Whether files are taken as independent, because no name gives a subject."""
    return not any(subjects_of(stems, regex))


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


def split_into_folds(pairs, count, regex, folder):
    """Return the fold of each pair and the subject of each pair.

    Raise InputError if a file name gives no subject, or if there are fewer subjects than folds.
    """
    subjects = subjects_of([pair.stem for pair in pairs], regex)
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
