"""Inspect all data before training: report their properties, and raise InputError for faults.

The same pass decodes the frames into memory, so the inspection needs no second decoding.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from sonogravity.common.files import absolute
from sonogravity.common.messages import InputError, say, some, warn
from sonogravity.common.processes import is_first_process
from sonogravity.common.workers import decoding_threads
from sonogravity.datasets.duplicates import find_copies
from sonogravity.datasets.facts import Facts, look_at
from sonogravity.datasets.frames import FrameStore
from sonogravity.datasets.grey_levels import GreyLevels, full_scale
from sonogravity.datasets.label_checks import (
    background_warning,
    check_values,
    scale_warnings,
    sixteen_bit_warning,
    snap_warnings,
    value_warnings,
)
from sonogravity.datasets.label_discovery import common_palette, find_labels
from sonogravity.datasets.labels import Labels, value_text
from sonogravity.datasets.mask_components import Review, describe_review, find_suspects
from sonogravity.datasets.pairs import find_training_pairs
from sonogravity.datasets.still_areas import StillAreas
from sonogravity.datasets.subjects import EXAMPLE, IN_NAMES, Subjects, describe_folds, split_into_folds

TINY_SHARE = 1e-5  # share of a set's pixels; a rarer class is probably a drawing error


@dataclass(frozen=True)
class Findings:
    """The result of inspecting a training and a validation set.

    lines, warnings: text for the user. facts: of both sets, in the order of review's indices; review: of their labels.
    """

    labels: Labels
    image_maximum: int | None
    grey_levels: GreyLevels
    lines: list
    warnings: list
    counts: dict
    facts: list[Facts] = ()
    review: Review | None = None


def examine(training, validation, labels, *, scale, background=None, subjects=IN_NAMES, allow_overlap=False):
    """Return the Findings of both sets. Raise InputError for unknown mask values or a subject in both sets.

    training, validation: lists of Facts. scale: of the network. background: as the user gave it, which needs no
    warning. subjects: where they stand.
    """
    both = [*training, *validation]
    for fact in both:
        check_values(fact, labels)
    palette = common_palette(((fact.pair.mask, fact.palette, fact.counts) for fact in both), labels.palette)
    labels = replace(labels, palette=palette)
    sixteen = [fact.maximum for fact in training if fact.kind == "uint16"]
    image_maximum = int(max(sixteen)) or 1 if sixteen else None
    for fact in validation:
        if fact.kind == "uint16" and image_maximum is None:
            raise InputError(f"{fact.pair.image}: is 16-bit, but no training image is; convert it to 8-bit")
    lines = [f"classes:    {labels.describe()}" + (" (masks are snapped)" if labels.snap else "")]
    levels = _grey_levels(training, image_maximum, subjects)
    totals = dict(zip(labels.values, sum(labels.count_classes(fact.counts) for fact in both).tolist(), strict=True))
    checks = [background_warning(labels, totals) if background is None else None]
    checks += [*value_warnings(both, labels), *snap_warnings(both, labels), *scale_warnings(training, labels, scale)]
    checks += [sixteen_bit_warning(training, image_maximum), _unlike_warning(validation, levels, image_maximum)]
    warnings = [warning for warning in checks if warning]
    held = set().union(*(fact.counts for fact in both))
    warnings += [f"no mask holds {value_text(value)} (--ignore)" for value in labels.ignored if value not in held]
    for name, facts in (("training", training), ("validation", validation)):
        lines += _describe(name, facts, labels, warnings)
    if image_maximum:
        lines.append(f"16-bit:     images are divided by {image_maximum}, the training set's maximum")
    lines += _subjects(training, validation, subjects, allow_overlap, warnings)
    lines += find_copies(training, validation, warnings)
    counts = {"training": len(training), "validation": len(validation), "digest": _digest(both, subjects)}
    return Findings(labels, image_maximum, levels, lines, warnings, counts)


def _grey_levels(training, image_maximum, subjects):
    frames = np.array([fact.quantiles / full_scale(fact.kind, image_maximum) for fact in training])
    return GreyLevels.of(frames, subjects.or_stems([fact.pair.stem for fact in training]))


def _unlike_warning(validation, levels, image_maximum):
    """A warning if validation images are unlike the training images, else None."""
    unlike = [
        fact.pair.image.name
        for fact in validation
        if levels.unlikeness_of(fact.quantiles / full_scale(fact.kind, image_maximum)) > 1
    ]
    return unlike and (
        f"{len(unlike)} of {len(validation)} validation images are unlike the training images in brightness, contrast "
        f"or bit depth: {some(unlike)}"
    )


def _describe(name, facts, labels, warnings):
    """Return lines with the number of pairs, their sizes and types, and the share of each class; add to warnings."""
    sizes = {}
    for fact in facts:
        sizes[fact.size] = sizes.get(fact.size, 0) + 1
    listed = [f"{w}x{h} ({n})" for (h, w), n in sorted(sizes.items(), key=lambda item: -item[1])]
    kinds = ", ".join(sorted({fact.kind for fact in facts}))
    lines = [f"{name + ':':<12}{len(facts)} pairs, width x height {some(listed, 5)}, {kinds}"]
    pixels = np.zeros((len(facts), labels.count), np.int64)
    for row, fact in enumerate(facts):
        pixels[row] = labels.count_classes(fact.counts)
    for c in range(labels.count):
        lacking = int((pixels[:, c] == 0).sum())
        share = pixels[:, c].sum() / max(1, pixels.sum())
        what = "background" if c == labels.background else labels.names[c]
        lines.append(f"{'':12}{what}: {share:.2%} of pixels, absent from {lacking} of {len(facts)} frames")
        if 0 < share < TINY_SHARE:
            warnings.append(
                f"{what} covers only {share:.4%} of the {name} pixels; check the masks for stray values, or give the "
                "number of classes as --classes C"
            )
        if lacking == len(facts):
            warnings.append(f"no {name} mask holds {what}; check the masks if this class is expected")
    return lines


def _digest(facts, subjects):
    """Return a digest of all images, masks and the table of subjects, which --resume and --repeat compare."""
    whole = hashlib.blake2b(digest_size=16)
    for fact in facts:
        whole.update(fact.pair.stem.encode("utf-8", "surrogateescape") + fact.digest + repr(fact.counts).encode())
    if subjects.table is not None:
        whole.update(repr(subjects.of([fact.pair.stem for fact in facts])).encode())
    return whole.hexdigest()


def _subjects(training, validation, subjects, allow_overlap, warnings):
    """Return a line with the subjects of both sets. Raise InputError if a subject is in both, unless allowed."""
    train, val = (set(subjects.of([fact.pair.stem for fact in facts])) for facts in (training, validation))
    if train | val == {None}:
        return [f"subjects:   none found in the file names; say how they are read, for example with {EXAMPLE}"]
    common = sorted((train & val) - {None})
    if common and not allow_overlap:
        raise InputError(
            f"{len(common)} subjects are in both training and validation: {some(common)}; frames of one subject "
            "are near copies, so the validation scores would be too high: move the frames into one set, correct "
            "--subject-regex or --subjects, or give --allow-overlap"
        )
    if common:
        warnings.append(f"subjects in both sets (--allow-overlap): {some(common, 8)}; validation scores are too high")
    names = [some(sorted(s or "(no subject)" for s in found), 12) for found in (train, val)]
    return [f"subjects:   training {len(train)} ({names[0]}), validation {len(val)} ({names[1]})"]


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


def open_data(options, known_labels=None):
    """Return the training store, the validation store and the Findings. Find, decode, inspect and report both sets.

    options: DataOptions. known_labels: the classes of the weights to start from; the masks may hold no others.
    """
    naming = Subjects.given(options)
    sets, lines = _find(options, naming)
    threads = decoding_threads(options.workers)
    stems = [pair.stem for pairs in sets.values() for pair in pairs]
    subject = dict(zip(stems, naming.of(stems), strict=True))
    stores, facts, still = [], [], StillAreas(Counter(subject[stem] for stem in stems))

    def follow(pair, image):
        still.add(subject[pair.stem], image)

    for name, pairs in sets.items():
        left = options.cache_mb - sum(store.used_mb for store in stores)
        native = name == "validation"  # scored at native size
        store = FrameStore(pairs, scale=options.scale, channels=options.channels, native_truth=native, cache_mb=left)
        facts.append(look_at(store, threads, f"inspecting {name} data", follow))
        stores.append(store)
    labels = find_labels(
        facts[0] + facts[1] if options.fold else facts[0],  # all folds must have the same classes
        classes=options.classes,
        class_names=options.class_names,
        background=options.background,
        snap=options.snap_masks,
        ignored=options.ignore or (),
        known=known_labels,
    )
    findings = examine(
        *facts,
        labels,
        scale=options.scale,
        background=options.background,
        subjects=naming,
        allow_overlap=options.allow_overlap,
    )
    if is_first_process():  # of several, which all have the same masks
        both = facts[0] + facts[1]
        subjects = [subject[fact.pair.stem] for fact in both]
        review = find_suspects([fact.packed for fact in both], labels, subjects, still, threads)
        more, warnings = describe_review(review, [fact.pair.stem for fact in both])
        findings = replace(findings, facts=both, review=review)
        findings.lines.extend(more)
        findings.warnings.extend(warnings)
    for line in lines + findings.lines:
        say(line)
    kept, total = sum(s.kept for s in stores), sum(map(len, stores))
    say(f"in memory:  {kept} of {total} frames, {sum(s.used_mb for s in stores):.0f} MB (--cache-mb)")
    for warning in findings.warnings:
        warn(warning)
    return *stores, findings


def _find(options, naming):
    """Return {set: pairs} and lines that describe the folds. naming: the Subjects."""
    if options.fold is None:
        if absolute(options.train) == absolute(options.validation):
            raise InputError(
                f"{options.train}: training and validation are one folder; give a validation folder with other subjects"
            )
        return {
            "training": _pairs(options.train, "--train"),
            "validation": _pairs(options.validation, "--validation"),
        }, []
    pairs = _pairs(options.train, "--train")
    of_pairs, subjects = split_into_folds(pairs, options.folds, naming, options.train)
    sets = {"training": [], "validation": []}
    for pair, fold in zip(pairs, of_pairs, strict=True):
        sets["validation" if fold == options.fold else "training"].append(pair)
    return sets, [*describe_folds(of_pairs, subjects), f"{'':12}fold {options.fold} is validation, the rest training"]


def _pairs(folder, option):
    if not any((folder / part).is_dir() for part in ("images", "masks")):
        raise InputError(
            f"{folder}: no such folder with images/ and masks/; put frames and masks there, give the folder that holds "
            f"them as {option}, or generate frames with python data/make_phantom.py"
        )
    pairs, notes = find_training_pairs(folder)
    for note in notes:
        warn(note)
    return pairs
