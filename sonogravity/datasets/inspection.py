"""Inspect all data before training: report their properties, and raise InputError for faults.

The same pass decodes the frames into memory, so the inspection needs no second decoding.
"""

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from sonogravity.common.files import absolute
from sonogravity.common.messages import InputError, say, some, warn
from sonogravity.common.processes import is_first_process
from sonogravity.common.workers import ahead, decoding_threads
from sonogravity.datasets.frames import FrameStore, read_pair
from sonogravity.datasets.label_discovery import find_labels
from sonogravity.datasets.labels import Labels, value_text
from sonogravity.datasets.pairs import Pair, find_training_pairs
from sonogravity.datasets.subjects import describe_folds, split_into_folds, subjects_of

THUMBNAIL = 32  # near copies are compared at 32 x 32 pixels
# Frames are near copies if the correlation of their thumbnails is at least this. In lumbar phantom sweeps,
# neighbouring frames of one subject reach 0.99, and frames of different subjects at most 0.92.
NEAR_COPY = 0.98
COMPARED_AT_ONCE = 256  # frames per step, so that memory does not grow with the product of the sets' sizes
TINY_SHARE = 1e-5  # share of a set's pixels; a rarer class is probably a drawing error


@dataclass(frozen=True)
class Facts:
    """Properties of one pair. kind, maximum: data type and highest pixel of the image. counts: {mask value: pixels}."""

    pair: Pair
    size: tuple[int, int]
    kind: str
    maximum: float
    counts: dict
    digest: bytes
    thumbnail: np.ndarray


@dataclass(frozen=True)
class Findings:
    """The result of inspecting a training and a validation set. lines, warnings: text for the user."""

    labels: Labels
    image_maximum: int | None
    lines: list
    warnings: list
    counts: dict


def look_at(store, workers, description):
    """Return the Facts of all pairs of a store, in order. Decode each pair once and fill the store."""

    def read(index):
        image, mask = read_pair(store.pairs[index], store.channels)
        return _facts(store.pairs[index], image, mask), store.shrink(index, image, mask)

    facts = []
    frames = ahead(read, range(len(store)), workers)
    bar = tqdm(frames, description, len(store), unit="frame", leave=False, disable=not is_first_process())
    for index, (fact, frame) in enumerate(bar):
        facts.append(fact)
        store.keep(index, frame)
    store.pack()
    return facts


def _facts(pair, image, mask):
    if mask.dtype == np.uint8:
        histogram = np.bincount(mask.ravel(), minlength=256)
        values = np.flatnonzero(histogram)
        counts = histogram[values]
    else:
        values, counts = np.unique(mask, return_counts=True)
    grey = image if image.ndim == 2 else image[:, :, 1]
    grey = grey if grey.dtype == np.uint8 else grey.astype(np.float32)
    thumbnail = np.asarray(Image.fromarray(grey).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX))
    digest = hashlib.blake2b(np.ascontiguousarray(image), digest_size=16).digest()
    return Facts(
        pair,
        image.shape[:2],
        image.dtype.name,
        float(image.max()),
        dict(zip(values.tolist(), counts.tolist(), strict=True)),
        digest,
        thumbnail,
    )


def examine(training, validation, labels, *, subject_regex=None, allow_overlap=False):
    """Return the Findings of both sets. Raise InputError for unknown mask values or a subject in both sets."""
    for fact in (*training, *validation):
        strays = labels.unknown(fact.counts)
        if strays:
            raise InputError(
                f"{fact.pair.mask}: holds the unknown {'values' if len(strays) > 1 else 'value'} "
                f"{some(map(value_text, strays))} (the classes are {', '.join(map(value_text, labels.values))}); "
                "repair the mask, or use --snap-masks with --classes"
            )
    sixteen = [fact.maximum for fact in training if fact.kind == "uint16"]
    image_maximum = int(max(sixteen)) or 1 if sixteen else None
    for fact in validation:
        if fact.kind == "uint16" and image_maximum is None:
            raise InputError(f"{fact.pair.image}: is 16-bit, but no training image is; convert it to 8-bit")
    lines, warnings = [], []
    for name, facts in (("training", training), ("validation", validation)):
        lines += _describe(name, facts, labels, warnings)
    lines.insert(0, f"classes:    {labels.describe()}" + (" (masks are snapped)" if labels.snap else ""))
    if image_maximum:
        lines.append(f"16-bit:     images are divided by {image_maximum}, the training set's maximum")
    lines += _subjects(training, validation, subject_regex, allow_overlap, warnings)
    lines += _copies(training, validation, warnings)
    counts = {"training": len(training), "validation": len(validation), "digest": _digest((*training, *validation))}
    return Findings(labels, image_maximum, lines, warnings, counts)


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
        values = np.array(list(fact.counts))
        classes = labels.to_classes(values[None].astype(np.int32))[0]
        np.add.at(pixels[row], classes, list(fact.counts.values()))
    for c in range(labels.count):
        lacking = int((pixels[:, c] == 0).sum())
        share = pixels[:, c].sum() / pixels.sum()
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


def _digest(facts):
    """Return a digest of all images and masks, with which --resume and --repeat check that the data are unchanged."""
    whole = hashlib.blake2b(digest_size=16)
    for fact in facts:
        whole.update(fact.pair.stem.encode("utf-8", "surrogateescape") + fact.digest + repr(fact.counts).encode())
    return whole.hexdigest()


def _subjects(training, validation, regex, allow_overlap, warnings):
    """Return a line with the subjects of both sets. Raise InputError if a subject is in both, unless allowed."""
    stems = [fact.pair.stem for fact in (*training, *validation)]
    subjects = subjects_of(stems, regex)
    train, val = set(subjects[: len(training)]), set(subjects[len(training) :])
    if train | val == {None}:
        return ["subjects:   none found in the file names (--subject-regex sets how they are read)"]
    common = sorted((train & val) - {None})
    if common and not allow_overlap:
        raise InputError(
            f"{len(common)} subjects are in both training and validation: {some(common)}; frames of one subject "
            "are near copies, so the validation scores would be too high: move the frames into one set, correct "
            "--subject-regex, or give --allow-overlap"
        )
    if common:
        warnings.append(f"subjects in both sets (--allow-overlap): {some(common, 8)}; validation scores are too high")
    names = [some(sorted(s or "(no subject)" for s in found), 12) for found in (train, val)]
    return [f"subjects:   training {len(train)} ({names[0]}), validation {len(val)} ({names[1]})"]


def _copies(training, validation, warnings):
    """Return a line with the numbers of duplicates and of near copies across the sets; add to warnings."""
    seen, duplicates = {}, []
    for fact in (*training, *validation):
        if fact.digest in seen:
            duplicates.append(
                f"{seen[fact.digest].parent.parent.name}/{seen[fact.digest].name} = "
                f"{fact.pair.image.parent.parent.name}/{fact.pair.image.name}"
            )
        else:
            seen[fact.digest] = fact.pair.image
    if duplicates:
        warnings.append(f"{len(duplicates)} images are duplicates by content: {some(duplicates)}")
    digests = {fact.digest for fact in training}
    compared, near = _normalised(training), []
    for first in range(0, len(validation), COMPARED_AT_ONCE):
        block = validation[first : first + COMPARED_AT_ONCE]
        alike = _normalised(block) @ compared.T
        near += [
            f"{fact.pair.image.name} ~ {training[row.argmax()].pair.image.name} ({row.max():.3f})"
            for fact, row in zip(block, alike, strict=True)
            if row.max() >= NEAR_COPY and fact.digest not in digests
        ]
    if near:
        warnings.append(f"{len(near)} validation images are near copies of training images: {some(near)}")
    return [f"duplicates: {len(duplicates)} by content; near copies across the sets: {len(near)}"]


def _normalised(facts):
    """Return the thumbnails as rows of mean 0 and norm 1. The product of two rows is their correlation."""
    rows = np.stack([fact.thumbnail for fact in facts]).reshape(len(facts), -1).astype(np.float32)
    rows -= rows.mean(1, keepdims=True)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1)


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
    subject_regex: str | None
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
    sets, lines = _find(options)
    stores, facts = [], []
    for name, pairs in sets.items():
        left = options.cache_mb - sum(store.used_mb for store in stores)
        native = name == "validation"  # scored at native size
        store = FrameStore(pairs, scale=options.scale, channels=options.channels, native_truth=native, cache_mb=left)
        facts.append(look_at(store, decoding_threads(options.workers), f"inspecting {name} data"))
        stores.append(store)
    labels = find_labels(
        facts[0] + facts[1] if options.fold else facts[0],  # all folds must have the same classes
        classes=options.classes,
        class_names=options.class_names,
        background=options.background,
        snap=options.snap_masks,
        known=known_labels,
    )
    findings = examine(*facts, labels, subject_regex=options.subject_regex, allow_overlap=options.allow_overlap)
    for line in lines + findings.lines:
        say(line)
    kept, total = sum(s.kept for s in stores), sum(map(len, stores))
    say(f"in memory:  {kept} of {total} frames, {sum(s.used_mb for s in stores):.0f} MB (--cache-mb)")
    for warning in findings.warnings:
        warn(warning)
    return *stores, findings


def _find(options):
    """Return {set: pairs} and lines that describe the folds."""
    if options.fold is None:
        if absolute(options.train) == absolute(options.validation):
            raise InputError(
                f"{options.train}: training and validation are one folder; give a validation folder with other subjects"
            )
        return {"training": _pairs(options.train), "validation": _pairs(options.validation)}, []
    pairs = _pairs(options.train)
    of_pairs, subjects = split_into_folds(pairs, options.folds, options.subject_regex, options.train)
    sets = {"training": [], "validation": []}
    for pair, fold in zip(pairs, of_pairs, strict=True):
        sets["validation" if fold == options.fold else "training"].append(pair)
    return sets, [*describe_folds(of_pairs, subjects), f"{'':12}fold {options.fold} is validation, the rest training"]


def _pairs(folder):
    pairs, notes = find_training_pairs(folder)
    for note in notes:
        warn(note)
    return pairs
