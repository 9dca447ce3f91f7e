"""Predict frames and score each against its mask. Training and scripts use the same code."""

import time
from dataclasses import dataclass

import numpy as np
import torch

from sonogravity.common.messages import InputError, is_out_of_memory
from sonogravity.common.workers import ahead
from sonogravity.datasets.facts import count_values
from sonogravity.datasets.frame_files import read_mask_file
from sonogravity.datasets.frames import Frame, at_scales, read_pair_and_palette
from sonogravity.datasets.label_discovery import Palettes
from sonogravity.datasets.labels import IGNORE_INDEX, values_in
from sonogravity.datasets.snapping import refuse_lost_structures
from sonogravity.inference.predictor import to_label_maps
from sonogravity.metrics import confidence, overlap

UNKNOWN_VALUES = (
    "give masks of these classes, leave out pixels of one value with --ignore, train with --snap-masks if borders are "
    "blurred, or predict with --no-masks"
)


@dataclass(frozen=True)
class FileResult:
    """The result of one frame. prediction, truth: (H, W) uint8 class indices.

    truth, confusion and loss are None without a mask, and loss is None without a criterion. ignored: (H, W) bool of
    pixels that no score counts, which are background in truth; None if there are none.

    seconds: time of the network and of resizing to native size, per frame; None if the mask was read from a file.
    certainty, reliability: of metrics/confidence.py, None if not requested. unsmoothed: the prediction without
    smoothing over time, None if the frame was not smoothed.
    """

    frame: Frame
    prediction: np.ndarray
    truth: np.ndarray | None
    confusion: np.ndarray | None
    loss: float | None
    seconds: float | None
    certainty: dict | None = None
    reliability: np.ndarray | None = None
    ignored: np.ndarray | None = None
    unsmoothed: np.ndarray | None = None


@dataclass(frozen=True)
class Requested:
    """The confidence figures that a FileResult contains. reliability: of frames with a truth."""

    certainty: bool = False
    reliability: bool = False


NOTHING = Requested()


def batches_of_equal_size(frames, batch_size):
    """Yield batches of successive frames of equal native size. No frame is padded, so results do not depend on them."""
    batch = []
    for frame in frames:
        if batch and frame.size != batch[0].size:
            yield batch
            batch = []
        batch.append(frame)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def _parts_that_fit(predictor, batch):
    """Yield (frames, logits, label maps, seconds per frame) per batch; halve the batch and retry if memory runs out."""
    outcome, start = None, time.perf_counter()
    try:
        logits = predictor.logits(batch)
        outcome = logits, to_label_maps(logits)
    except (MemoryError, RuntimeError) as error:
        if len(batch) == 1 or not is_out_of_memory(error):
            raise
    if outcome is not None:
        yield batch, *outcome, (time.perf_counter() - start) / len(batch)
        return
    torch.cuda.empty_cache()
    for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
        yield from _parts_that_fit(predictor, half)


def _smoothed(parts, smoothing):
    """Yield (frames, logits, label maps, seconds per frame, maps without smoothing or Nones) of _parts_that_fit.

    Frames of clips are smoothed one by one, so the result depends neither on batches nor on their halves.
    """
    for batch, logits, maps, seconds in parts:
        if smoothing is None:
            yield batch, logits, maps, seconds, [None] * len(batch)
            continue
        for i, frame in enumerate(batch):
            own, plain, image = logits[i : i + 1], maps[i : i + 1], frame.pair.image
            if image.clip is None or image.time_s is None:  # an image, or the only frame of its file
                yield [frame], own, plain, seconds, [None]
                continue
            own = smoothing.smooth(logits[i], image.time_s, image.path)[None]
            yield [frame], own, to_label_maps(own), seconds, plain


def segment(predictor, frames, batch_size, criterion=None, requested=NOTHING, smoothing=None):
    """Yield the FileResults of frames, in order. criterion: also compute the loss of each frame, at native size.

    smoothing: a Smoothing of the logits of successive frames of clips, at native size; None for none. All results of a
    frame are those of its smoothed logits. A batch that does not fit into memory is halved; the results do not depend
    on it.
    """
    labels = predictor.labels
    batches = batches_of_equal_size(frames, batch_size)
    parts = (part for whole in batches for part in _parts_that_fit(predictor, whole))
    for batch, logits, maps, seconds, plain in _smoothed(parts, smoothing):
        rows = confidence.certainty(logits, maps, labels) if requested.certainty else [None] * len(batch)
        for i, (frame, prediction) in enumerate(zip(batch, maps, strict=True)):
            truth = confusion = loss = bins = ignored = None
            prediction = frame.at_file_size(prediction, labels.background)
            unsmoothed = None if plain[i] is None else frame.at_file_size(plain[i], labels.background)
            if frame.truth is not None:
                drawn = labels.to_classes(frame.truth, frame.pair.mask, UNKNOWN_VALUES)
                truth, confusion, ignored = overlap.count(drawn, prediction, labels)
                if criterion is not None:
                    target = torch.from_numpy(drawn).to(logits.device, torch.int64)
                    loss = float(criterion(logits[i : i + 1], target[None]))
                if requested.reliability:
                    left_out = None if ignored is None else frame.seen(ignored)
                    bins = confidence.reliability(logits[i], frame.seen(truth), labels, left_out)
            yield FileResult(
                frame, prediction, truth, confusion, loss, seconds, rows[i], bins, ignored, unsmoothed=unsmoothed
            )


def read_frames(predictor, pairs, workers):
    """Return an iterator of (Frame, native image of what the network sees), decoded by threads ahead of the network.

    Raise InputError if palettes of masks differ, or if the masks are snapped and one would lose a structure.
    """
    labels = predictor.labels
    palettes = Palettes(labels.palette)

    def read(pair):
        image, mask, palette = read_pair_and_palette(pair, predictor.channels)
        if palette:
            palettes.add(pair.mask, palette, values_in(mask))
        if mask is not None and labels.snap:
            refuse_lost_structures(pair.mask, mask, count_values(mask), labels)
        region, whole = pair.image.sequence and pair.image.sequence.region, image.shape[:2]
        image = image if region is None else region.of(image)
        unlike = predictor.unlikeness(image)
        images = at_scales(image, predictor.scales)
        return Frame(pair, images, mask, image.shape[:2], unlike, region, whole), image

    return ahead(read, pairs, workers)


def read_predictions(pairs, predictions, labels, own_labels, workers, voids):
    """Return an iterator of the FileResults of predictions in files, in order, without a network.

    pairs: their masks are the truth. predictions: {stem: mask file}. own_labels: the Labels of these files, in the
    order of labels. voids: a list that takes the names of those with ignored values, which count as background. Raise
    InputError if sizes differ or a mask holds a value that is not a class.
    """
    palettes = Palettes(own_labels.palette)

    def read(pair):
        path = predictions[pair.stem]
        mask, (predicted, palette) = read_mask_file(pair.mask).values, read_mask_file(path)
        palettes.add(path, palette, values_in(predicted))
        truth = labels.to_classes(mask, pair.mask)
        remedy = "repair it, or give the values of these files as --prediction-values"
        prediction = own_labels.to_classes(predicted, path, remedy)
        if (prediction == IGNORE_INDEX).any():
            voids.append(path.name)
            prediction = overlap.with_background(prediction, prediction == IGNORE_INDEX, labels.background)
        if prediction.shape != truth.shape:
            sizes = [f"{shape[1]}x{shape[0]}" for shape in (prediction.shape, truth.shape)]
            raise InputError(
                f"{path}: is {sizes[0]}, but the mask {pair.mask} is {sizes[1]} (width x height); give both at "
                "the image's size"
            )
        truth, confusion, ignored = overlap.count(truth, prediction, labels)
        return FileResult(Frame(pair, {}, mask, mask.shape), prediction, truth, confusion, None, None, ignored=ignored)

    return ahead(read, pairs, workers)
