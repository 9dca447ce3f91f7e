"""Open the data of a training: find the pairs, decode the frames into memory and inspect them, in one pass."""

from collections import Counter
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from sonogravity.common.files import absolute
from sonogravity.common.messages import InputError, say, some, warn
from sonogravity.common.processes import is_first_process
from sonogravity.common.workers import decoding_threads
from sonogravity.datasets.class_tables import refuse_other_classes
from sonogravity.datasets.facts import look_again, look_at
from sonogravity.datasets.file_kinds import SEQUENCES, describe, kind_of
from sonogravity.datasets.frames import FrameStore
from sonogravity.datasets.inspection import examine
from sonogravity.datasets.label_discovery import find_labels
from sonogravity.datasets.mask_components import describe_review, find_suspects
from sonogravity.datasets.pairs import find_training_pairs
from sonogravity.datasets.still_areas import StillAreas
from sonogravity.datasets.subjects import Subjects, describe_folds, split_into_folds


@dataclass(frozen=True)
class DataOptions:
    """The data options of train.py: which frames to train and validate on, and how to read them.

    workers: number of decoding threads; None uses all cores. If fold and folds are set, this fold of the training
    folder is the validation set, and the rest is the training set.
    """

    train: Path
    validation: Path
    scale: float
    channels: int
    cache_mb: float
    workers: int | None
    classes: int | None
    class_names: list | None
    background: int | None
    snap_masks: bool
    ignore: list | None
    subject_regex: str | None
    subjects: Path | None
    allow_overlap: bool
    folds: int | None
    fold: int | None

    @classmethod
    def from_options(cls, options):
        """Return the data options among train.py's options, selected by name."""
        return cls(**{field.name: getattr(options, field.name) for field in fields(cls)})


@dataclass
class Seen:
    """What the first of several folds found, so that the others do not inspect the same files again.

    facts: {Pair: Facts}. subjects: where they stand. warnings: those that were printed.
    """

    facts: dict = field(default_factory=dict)
    subjects: Subjects | None = None
    warnings: set = field(default_factory=set)

    def refuse_others(self, pairs, folder):
        """Raise InputError if these are not the same pairs, because another split would mix training and validation."""
        if changed := set(pairs) ^ set(self.facts):
            names = some(sorted(pair.image.name for pair in changed))
            raise InputError(
                f"{folder}: frames were added or removed since the first fold ({names}); restore them, or start again "
                "with another --name"
            )

    def warn_once(self, warnings):
        """Print the warnings that no earlier fold has printed."""
        for warning in warnings:
            if warning not in self.warnings:
                warn(warning)
        self.warnings |= set(warnings)


def open_data(options, known_labels=None, seen=None):
    """Return the training store, the validation store and the Findings. Find, decode, inspect and report both sets.

    options: DataOptions. known_labels: the classes of the weights to start from; the masks may hold no others. seen:
    the Seen that the folds of one data set share; only the first fold inspects the files and prints what it found.
    """
    seen = seen or Seen()
    again = bool(seen.facts)
    folders = [options.train] if options.fold else [options.train, options.validation]
    seen.subjects = seen.subjects or Subjects.given(options, folders)
    sets, lines = _find(options, seen)
    threads = decoding_threads(options.workers)
    stems = [pair.stem for pairs in sets.values() for pair in pairs]
    subject = dict(zip(stems, seen.subjects.of(stems), strict=True))
    stores, facts, still = [], [], StillAreas(Counter(subject[stem] for stem in stems))

    def follow(pair, image):
        still.add(subject[pair.stem], image)

    for name, pairs in sets.items():
        left = options.cache_mb - sum(store.used_mb for store in stores)
        native = name == "validation"  # scored at native size
        store = FrameStore(pairs, scale=options.scale, channels=options.channels, native_truth=native, cache_mb=left)
        if again:
            facts.append([seen.facts[pair] for pair in pairs])
            look_again(store, threads, facts[-1])
        else:
            facts.append(look_at(store, threads, f"inspecting {name} data", follow))
        stores.append(store)
    seen.facts |= {fact.pair: fact for fact in facts[0] + facts[1]}
    labels = find_labels(
        facts[0] + facts[1] if options.fold else facts[0],  # all folds must have the same classes
        classes=options.classes,
        class_names=options.class_names,
        background=options.background,
        snap=options.snap_masks,
        ignored=options.ignore or (),
        known=known_labels,
    )
    refuse_other_classes(labels, folders)
    findings = examine(
        *facts,
        labels,
        scale=options.scale,
        background=options.background,
        subjects=seen.subjects,
        allow_overlap=options.allow_overlap,
    )
    if is_first_process() and not again:  # several processes all have the same masks
        findings = _with_review(findings, facts[0] + facts[1], subject, still, threads)
    for line in lines[-1:] if again else lines + findings.lines:
        say(line)
    kept, total = sum(s.kept for s in stores), sum(map(len, stores))
    say(f"in memory:  {kept} of {total} frames, {sum(s.used_mb for s in stores):.0f} MB (--cache-mb)")
    seen.warn_once(findings.warnings)
    return *stores, findings


def _with_review(findings, facts, subject, still, threads):
    """Return the Findings with the review of the labels. facts: of both sets. subject: {stem: subject}."""
    subjects = [subject[fact.pair.stem] for fact in facts]
    review = find_suspects([fact.packed for fact in facts], findings.labels, subjects, still, threads)
    lines, warnings = describe_review(review, [fact.pair.stem for fact in facts])
    more = {"lines": findings.lines + lines, "warnings": findings.warnings + warnings}
    return replace(findings, facts=facts, review=review, **more)


def _find(options, seen):
    """Return {set: pairs} and lines that describe the folds."""
    if options.fold is None:
        if absolute(options.train) == absolute(options.validation):
            raise InputError(
                f"{options.train}: training and validation are one folder; give a validation folder with other subjects"
            )
        return {
            "training": _pairs(options.train, "--train", seen),
            "validation": _pairs(options.validation, "--validation", seen),
        }, []
    pairs = _pairs(options.train, "--train", seen)
    if seen.facts:
        seen.refuse_others(pairs, options.train)
    of_pairs, subjects = split_into_folds(pairs, options.folds, seen.subjects, options.train)
    sets = {"training": [], "validation": []}
    for pair, fold in zip(pairs, of_pairs, strict=True):
        sets["validation" if fold == options.fold else "training"].append(pair)
    return sets, [*describe_folds(of_pairs, subjects), f"{'':12}fold {options.fold} is validation, the rest training"]


def _sequences_in(path):
    """Return the clips, stacks and DICOM files that a path is, or that lie in it."""
    files = sorted(path.iterdir()) if path.is_dir() else [path] if path.is_file() else []
    return [file for file in files if file.is_file() and kind_of(file) in SEQUENCES]


def _pairs(folder, option, seen):
    if not any((folder / part).is_dir() for part in ("images", "masks")):
        if found := _sequences_in(folder):
            raise InputError(f"{folder}: training reads plain images only, but this is {describe(found)}")
        raise InputError(
            f"{folder}: no such folder with images/ and masks/; put frames and masks there, give the folder that holds "
            f"them as {option}, or generate frames with python data/make_phantom.py"
        )
    pairs, notes = find_training_pairs(folder)
    seen.warn_once(notes)
    return pairs
