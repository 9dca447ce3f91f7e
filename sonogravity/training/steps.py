"""One epoch: training on all frames in optimizer steps, then validation of every frame at native size."""

import math
import time
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
import torch

from sonogravity.common import progress
from sonogravity.common.messages import InputError, say, some, warn
from sonogravity.common.processes import process_count, process_rank
from sonogravity.datasets.loader import epoch_seed
from sonogravity.inference import segmentation
from sonogravity.inference.predictor import Predictor
from sonogravity.metrics import overlap
from sonogravity.training import distributed
from sonogravity.training.optimization import Optimization

SHOW_EVERY = 10  # steps between updates of the displayed loss; each update waits for the GPU
COMPILING = 3  # a first step that took more than this many times as long as the others included the compilation
PANELS = 4  # validation frames shown per saved checkpoint, in addition to the worst


@dataclass(frozen=True)
class Step:
    """Objects and settings of a training step.

    network: the model, or a compiled or distributed form of it. criterion: a HeadsLoss. optimization: an Optimization.
    amp: autocast's dtype, None for float32. accumulate: number of batches whose gradients are summed per step.
    smallest_batch: smallest number of frames per forward pass. compiled: whether torch.compile compiled the network.
    """

    network: torch.nn.Module
    criterion: torch.nn.Module
    optimization: Optimization
    device: torch.device
    amp: torch.dtype | None = None
    accumulate: int = 1
    smallest_batch: int = 1
    compiled: bool = False


def begin_epoch(loader, seed, epoch):
    """Seed all randomness of an epoch from (seed, epoch) alone, so that a resumed run equals an uninterrupted one."""
    torch.manual_seed(epoch_seed(seed, epoch) + process_rank())
    loader.batch_sampler.epoch = epoch


def freeze(modules, frozen):
    """Freeze modules, or train them again. Return the frozen modules."""
    for module in modules:
        module.requires_grad_(not frozen or process_count() > 1)  # DistributedDataParallel needs every gradient
    return modules if frozen else []


def train_one_epoch(step, loader, memory, title, frozen=()):
    """Train on every frame once. Return the mean loss of the main logits over frames, the last learning rate and the
    frames per second.

    memory: a Memory, which splits batches into micro-batches. title: name of the epoch in messages. frozen: modules
    whose weights and running statistics do not change. Raise InputError if a loss is not finite.
    """
    step.network.train()
    kept = [weight for module in frozen for weight in module.eval().parameters()]
    losses, stems, sizes = [], [], []
    start = time.perf_counter()
    with progress.bar(loader, title, len(loader), "batch") as bar:
        batches = iter(bar)
        while group := list(islice(batches, step.accumulate)):
            frames = _frames_per_process(loader, len(losses) * step.accumulate, group)
            step.optimization.optimizer.zero_grad(set_to_none=True)
            losses.append(forward_and_backward(step, group, memory, frames))
            for weight in kept:  # with several processes, frozen weights get gradients, too
                weight.grad = None
            rate = step.optimization.step()
            stems.append([stem for batch in group for stem in batch.stems])
            sizes.append(frames)
            if len(losses) == 1:
                first = time.perf_counter() - start
            if len(losses) % SHOW_EVERY == 1:
                shown = _finite(losses, stems, title)[-SHOW_EVERY:, 1]
                speed = sum(sizes) / (time.perf_counter() - start)
                bar.set_postfix_str(f"loss {np.mean(shown):.4f}, {speed:.2f} img/s", refresh=False)
    values = np.mean(distributed.gather(_finite(losses, stems, title)), axis=0)[:, 1]
    seconds = time.perf_counter() - start
    if step.compiled and len(sizes) > 1:
        _say_compile_time(first, (seconds - first) / (len(sizes) - 1))
    return float(np.average(values, weights=sizes)), rate, sum(sizes) * process_count() / seconds


def _frames_per_process(loader, done, group):
    """Return the mean number of frames per process, so that the mean gradient over processes is that of all frames."""
    if process_count() == 1:
        return sum(len(batch.stems) for batch in group)
    return sum(loader.batch_sampler.frames_in(done + i) for i in range(len(group))) / process_count()


def forward_and_backward(step, group, memory, frames):
    """Add the gradients of a step's batches, one micro-batch after another. Return the step's losses, a tensor of
    (sum over all heads, main logits).

    group: Batches. frames: number of frames of the mean loss.
    """
    micro_batches = [
        (batch.images[part], batch.classes[part], batch.heights[part])
        for batch in group
        for part in memory.parts(len(batch.stems), step.smallest_batch)
    ]
    total = 0
    for i, (images, masks, heights) in enumerate(micro_batches):
        images = images.to(step.device, memory_format=torch.channels_last, non_blocking=True)
        masks = masks.to(step.device, non_blocking=True)
        with distributed.no_sync(step.network, last=i == len(micro_batches) - 1):
            with torch.autocast(step.device.type, step.amp, enabled=step.amp is not None):
                logits = step.network(images, heights.to(step.device))
            losses = torch.stack(step.criterion(logits, masks)) * (len(images) / frames)
            step.optimization.scaler.scale(losses[0]).backward()
        total = total + losses.detach()
        del logits, losses  # the next forward pass needs their memory
    return total


def _say_compile_time(first, later):
    if first > COMPILING * later:
        say(f"--compile: the first step took {first:.1f} s, the others {later:.2f} s each")


def _finite(losses, stems, title):
    """Return the losses as (steps, 2). Raise InputError, which names the first step whose loss is not finite."""
    values = torch.stack(losses).cpu().numpy()
    finite = np.isfinite(values).all(1)
    if not finite.all():
        batch = int(np.argmin(finite))
        raise InputError(
            f"{title}, batch {batch + 1} ({some(stems[batch])}): the loss is {values[batch, 0]}; checkpoints of "
            "earlier epochs are kept. Try a lower --learning-rate, or --no-amp, and check these frames"
        )
    return values


def validation_predictor(model, store, findings, device, amp):
    """Return the Predictor that scores a store's frames, with the scale and channels of the store."""
    return Predictor(
        model,
        labels=findings.labels,
        scale=store.scale,
        channels=store.channels,
        image_maximum=findings.image_maximum,
        device=device,
        amp=amp,
    )


def frames_to_show(count):
    """Return the indices of the validation frames that are shown as panels: a few, evenly spaced."""
    return set(np.linspace(0, count - 1, min(PANELS, count)).round().astype(int).tolist())


def validate(predictor, store, criterion, batch_size, shown, title="validation"):
    """Score every validation frame. Return rows of scores, mean loss, and (prefix, Dice, FileResult) of frames to show.

    shown: indices of frames to keep for panels; the frame with the lowest Dice is kept, too. Warn if all predictions
    are background.
    """
    labels = predictor.labels
    predictor.renew()
    scored, kept, worst, lowest, foreground = [], [], [], math.inf, False
    mine = range(process_rank(), len(store), process_count())
    results = segmentation.segment(predictor, (store[i] for i in mine), batch_size, criterion)
    bar = progress.bar(results, title, len(mine), "frame")
    for i, result in zip(mine, bar, strict=True):
        row = overlap.file_metrics(result.confusion, labels)
        scored.append((i, row, result.loss))
        if i in shown:
            kept.append((i, row["dice"], result))
        if row["dice"] < lowest:
            worst, lowest = [(row["dice"], i, result)], row["dice"]
        foreground |= bool((result.prediction != labels.background).any())
    scored, kept, worst, foreground = zip(*distributed.gather((scored, kept, worst, foreground)), strict=True)
    scored, kept, worst = (sorted(chain(*parts), key=lambda part: part[:2]) for parts in (scored, kept, worst))
    frames = [("", dice, result) for _, dice, result in kept]
    frames += [("worst_", dice, result) for dice, _, result in worst[:1]]
    if not any(foreground):
        warn("all predictions are background; this can happen in the first epochs, but should not happen later")
    return [row for _, row, _ in scored], float(np.mean([loss for *_, loss in scored])), frames


def epoch_columns(labels):
    """Return the columns of epochs.csv, which are known before the first epoch."""
    classes = [f"dice_{labels.names[c]}" for c in labels.foreground]
    rates = ["epoch", "learning_rate", "train_loss", "val_loss"]
    return [*rates, *overlap.OVERLAP, *classes, "seconds", "images_per_second"]


def epoch_scores(rows, labels):
    """Return the epoch's scores: the mean of each column over the rows of all validation files, as in files.xlsx."""
    scores = {name: float(overlap.nan_mean([row[name] for row in rows])) for name in overlap.OVERLAP}
    for c in labels.foreground:
        scores[f"dice_{labels.names[c]}"] = float(overlap.nan_mean([row[f"dice_{labels.names[c]}"] for row in rows]))
    return scores
