"""Inspect the images and masks of a training and a validation set: their properties, faults and doubts."""

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from sonogravity.common.messages import InputError, some
from sonogravity.datasets.duplicates import find_copies
from sonogravity.datasets.facts import Facts
from sonogravity.datasets.grey_levels import GreyLevels, full_scale
from sonogravity.datasets.label_checks import (
    background_warning,
    check_values,
    scale_warnings,
    sixteen_bit_warning,
    snap_warnings,
    value_warnings,
)
from sonogravity.datasets.label_discovery import common_palette
from sonogravity.datasets.labels import Labels, value_text
from sonogravity.datasets.mask_components import Review
from sonogravity.datasets.subjects import EXAMPLE, IN_NAMES

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
        what = "background" if c == labels.background else labels.title(c)
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
