"""Frames through a predictor, and each scored against its mask: one path for training and scripts."""

import time
from dataclasses import dataclass

import numpy as np
import torch

from sonogravity.common.messages import InputError, is_out_of_memory
from sonogravity.common.workers import ahead
from sonogravity.datasets.frames import Frame, at_scales, read_pair
from sonogravity.datasets.image_files import decode_mask
from sonogravity.inference.predictor import to_label_maps
from sonogravity.metrics import confidence, overlap


@dataclass(frozen=True)
class FileResult:
    """One frame's outcome. prediction, truth: (H, W) uint8 class indices; the rest None without a truth.

    seconds: the network and the resizing to native size, per frame; None if the mask came from a file.
    certainty, reliability: of metrics/confidence.py, None if not asked for.
    """

    frame: Frame
    prediction: np.ndarray
    truth: np.ndarray | None
    confusion: np.ndarray | None
    loss: float | None
    seconds: float | None
    certainty: dict | None = None
    reliability: np.ndarray | None = None


def batches_of_equal_size(frames, batch_size):
    """Group neighbours of equal native size, so that no frame is padded and results don't depend on B."""
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


def segment(predictor, frames, batch_size, criterion=None, certain=False, calibrate=False):
    """Frames -> FileResults, in order. criterion: also the loss of each frame alone, at native size.

    certain: also how sure each prediction is. calibrate: also how right its probabilities are, if it has a truth.
    A batch that does not fit into memory is taken in halves: the figures don't depend on it.
    """
    labels = predictor.labels
    batches = batches_of_equal_size(frames, batch_size)
    for batch, logits, maps, seconds in (part for whole in batches for part in _parts_that_fit(predictor, whole)):
        rows = confidence.certainty(logits, maps, labels) if certain else [None] * len(batch)
        for i, (frame, prediction) in enumerate(zip(batch, maps, strict=True)):
            truth = confusion = loss = bins = None
            if frame.truth is not None:
                truth = labels.to_classes(frame.truth, frame.pair.mask)
                confusion = overlap.confusion_matrix(truth, prediction, labels.count)
                if criterion is not None:
                    target = torch.from_numpy(truth).to(logits.device, torch.int64)
                    loss = float(criterion(logits[i : i + 1], target[None]))
                bins = confidence.reliability(logits[i], truth, labels) if calibrate else None
            yield FileResult(frame, prediction, truth, confusion, loss, seconds, rows[i], bins)


def read_frames(predictor, pairs, workers):
    """Pairs -> (Frame, native image), decoded by threads ahead of the network."""

    def read(pair):
        image, mask = read_pair(pair, predictor.channels)
        return Frame(pair, at_scales(image, predictor.scales), mask, image.shape[:2]), image

    return ahead(read, pairs, workers)


def read_predictions(pairs, predictions, labels, workers):
    """Pairs and {stem: mask file} of predictions -> FileResults without a network, in order.

    A pair's mask is its truth. InputError if sizes differ or a mask holds a value that is no class.
    """

    def read(pair):
        path = predictions[pair.stem]
        mask = decode_mask(pair.mask)
        truth = labels.to_classes(mask, pair.mask)
        prediction = labels.to_classes(decode_mask(path), path)
        if prediction.shape != truth.shape:
            sizes = [f"{shape[1]}x{shape[0]}" for shape in (prediction.shape, truth.shape)]
            raise InputError(
                f"{path}: is {sizes[0]}, the mask {pair.mask} {sizes[1]} (width x height); both must be of the "
                "image's size"
            )
        confusion = overlap.confusion_matrix(truth, prediction, labels.count)
        return FileResult(Frame(pair, {}, mask, mask.shape), prediction, truth, confusion, None, None)

    return ahead(read, pairs, workers)
