"""Training: one epoch after another, each validated at native size, saved and written down."""

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau
from tqdm import tqdm

from sonogravity import data, evaluation, figures, metrics, paths
from sonogravity.cli import say, warn
from sonogravity.errors import InputError, some

GRADIENT_CLIP_NORM = 1.0
SHOW_EVERY = 10  # batches between looks at the loss, each of which waits for the GPU
PANELS = 4  # validation frames shown at each saved checkpoint, besides the worst


@dataclass(frozen=True)
class Settings:
    """How long to train and what to leave behind. amp: autocast's type, or None for float32."""

    epochs: int
    save_every: int
    patience: int | None
    seed: int
    batch_size: int
    amp: torch.dtype | None = None


def train_one_epoch(network, loader, criterion, optimizer, scaler, step_scheduler, amp, device, title):
    """Every batch once -> mean loss over frames, last learning rate, frames a second.

    InputError on a loss that is not finite.
    """
    network.train()
    losses, stems, sizes = [], [], []
    start = time.perf_counter()
    with tqdm(loader, title, unit="batch", leave=False) as progress:
        for images, masks, names in progress:
            images = images.to(device, memory_format=torch.channels_last, non_blocking=True)
            masks = masks.to(device, non_blocking=True)
            with torch.autocast(device.type, amp, enabled=amp is not None):
                logits = network(images)
            loss = criterion(logits, masks)
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)  # the norm to clip is that of the true gradients
            torch.nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_CLIP_NORM)
            scaler.step(optimizer)
            scaler.update()
            rate = optimizer.param_groups[0]["lr"]
            if step_scheduler is not None:
                step_scheduler.step()
            losses.append(loss.detach())
            stems.append(names)
            sizes.append(len(names))
            if len(losses) % SHOW_EVERY == 1:
                shown = _finite(losses, stems, title)[-SHOW_EVERY:]
                speed = sum(sizes) / (time.perf_counter() - start)
                progress.set_postfix_str(f"loss {np.mean(shown):.4f}, {speed:.2f} img/s")
    values = _finite(losses, stems, title)
    return float(np.average(values, weights=sizes)), rate, sum(sizes) / (time.perf_counter() - start)


def _finite(losses, stems, title):
    """The losses as numbers; InputError names the first batch whose loss is not finite."""
    values = torch.stack(losses).cpu().numpy()
    if not np.isfinite(values).all():
        batch = int(np.argmin(np.isfinite(values)))
        raise InputError(
            f"{title}, batch {batch + 1} ({some(stems[batch])}): the loss is {values[batch]}; checkpoints of "
            "earlier epochs are kept. Try a lower --learning-rate, or --no-amp, and look at these frames"
        )
    return values


def validate(predictor, store, criterion, batch_size, shown, title):
    """Score every validation frame -> results' rows, mean loss, and the FileResults to show.

    shown: indices of frames to keep for panels; the frame of lowest Dice is kept besides. Warns where all
    predictions are background.
    """
    labels = predictor.labels
    rows, losses, kept, worst, lowest, foreground = [], [], [], None, math.inf, False
    frames = (store[i] for i in range(len(store)))
    results = evaluation.segment(predictor, frames, batch_size, criterion)
    for i, result in enumerate(tqdm(results, title, len(store), unit="frame", leave=False)):
        row = metrics.file_metrics(result.confusion, labels)
        rows.append(row)
        losses.append(result.loss)
        if i in shown:
            kept.append(("", row["dice"], result))
        if row["dice"] < lowest:
            worst, lowest = result, row["dice"]
        foreground |= bool((result.prediction != labels.background).any())
    if worst is not None:
        kept.append(("worst_", lowest, worst))
    if not foreground:
        warn("every prediction is background only; the first epochs may be so, later ones should not")
    return rows, float(np.mean(losses)), kept


def epoch_scores(rows, labels):
    """Rows of all validation files -> the epoch's figures: the mean of each column, as in files.xlsx."""
    scores = {name: float(metrics.nan_mean([row[name] for row in rows])) for name in metrics.OVERLAP}
    for c in labels.foreground:
        scores[f"dice_{labels.names[c]}"] = float(metrics.nan_mean([row[f"dice_{labels.names[c]}"] for row in rows]))
    return scores


def dice_or_lowest(row):
    """What checkpoints, plateau and patience follow; an undefined Dice ranks below all."""
    return -1.0 if math.isnan(row["dice"]) else row["dice"]


def fit(*, run, network, predictor, loader, validation, criterion, optimizer, scheduler, settings, resumed=None):
    """Train to settings.epochs, or until patience ends it; the history, a row an epoch.

    network: what is stepped, predictor.model or a compiled form of it. resumed: a Checkpoint to go on from.
    Each epoch's randomness comes from (seed, epoch) alone, so a resumed run repeats what an unbroken one does.
    """
    scaler = torch.amp.GradScaler(predictor.device.type, enabled=settings.amp is torch.float16)
    history = []
    if resumed is not None:
        history = _restore(resumed.training, optimizer, scheduler, scaler)
        run.report(history, predictor.labels)
    shown = set(np.linspace(0, len(validation) - 1, min(PANELS, len(validation))).round().astype(int).tolist())
    try:
        for epoch in range(len(history) + 1, settings.epochs + 1):
            if _out_of_patience(history, settings.patience):
                break
            _one_epoch(epoch, history, run, network, predictor, loader, validation, criterion, optimizer, scheduler,
                       scaler, settings, shown)  # fmt: skip
    except KeyboardInterrupt:
        if history:
            say(f"\nepoch {len(history)} is kept; go on with: --resume {run.checkpoints / 'last.pth'}")
        raise
    if _out_of_patience(history, settings.patience):
        say(f"stopped: no better Dice for {settings.patience} epochs (--patience)")
    best = max(history, key=dice_or_lowest)
    say(f"best: epoch {best['epoch']}, Dice {best['dice']:.6f}: {run.checkpoints / 'best.pth'}")
    say(f"figures: {run.results / 'epochs.xlsx'}")
    return history


def _one_epoch(epoch, history, run, network, predictor, loader, validation, criterion, optimizer, scheduler, scaler,
               settings, shown):  # fmt: skip
    start = time.perf_counter()
    title = f"epoch {epoch}/{settings.epochs}"
    torch.manual_seed(data.epoch_seed(settings.seed, epoch))
    loader.batch_sampler.epoch = epoch
    plateau = isinstance(scheduler, ReduceLROnPlateau)
    train_loss, rate, speed = train_one_epoch(
        network, loader, criterion, optimizer, scaler, None if plateau else scheduler, settings.amp,
        predictor.device, title,
    )  # fmt: skip
    rows, val_loss, kept = validate(predictor, validation, criterion, settings.batch_size, shown, "validation")
    if not math.isfinite(val_loss):
        raise InputError(
            f"{title}: the validation loss is {val_loss}; checkpoints of earlier epochs are kept. Try a lower "
            "--learning-rate, or --no-amp"
        )
    row = {"epoch": epoch, "learning_rate": rate, "train_loss": train_loss, "val_loss": val_loss}
    row |= epoch_scores(rows, predictor.labels)
    row |= {"seconds": time.perf_counter() - start, "images_per_second": speed}
    improved = all(dice_or_lowest(row) > dice_or_lowest(earlier) for earlier in history)
    history.append(row)
    if plateau:
        scheduler.step(dice_or_lowest(row))
    training = {name: part.state_dict() for name, part in _stateful(optimizer, scheduler, scaler)}
    numbered = epoch % settings.save_every == 0
    run.save(epoch, predictor, history, training, best=improved, numbered=numbered)
    run.report(history, predictor.labels)
    if numbered or epoch == settings.epochs:
        _write_panels(run.panels_folder(epoch), kept, predictor)
    names = [predictor.labels.names[c] for c in predictor.labels.foreground]
    per_class = ", ".join(f"{name} {row[f'dice_{name}']:.4f}" for name in names)
    say(
        f"{title}  train loss {train_loss:.4f}  val loss {val_loss:.4f}  Dice {row['dice']:.6f} ({per_class})  "
        f"{row['seconds']:.0f} s, {speed:.2f} img/s" + ("  best" if improved else "")
    )


def _stateful(optimizer, scheduler, scaler):
    return ("optimizer", optimizer), ("scheduler", scheduler), ("scaler", scaler)


def _restore(training, optimizer, scheduler, scaler):
    for name, part in _stateful(optimizer, scheduler, scaler):
        if training[name]:  # the scaler's is empty where there was no float16
            part.load_state_dict(training[name])
    return list(training["history"])


def _out_of_patience(history, patience):
    if not patience or not history:
        return False
    best = max(range(len(history)), key=lambda i: dice_or_lowest(history[i]))
    return len(history) - 1 - best >= patience


def _write_panels(folder, kept, predictor):
    for prefix, dice, result in kept:
        image, _ = data.read_pair(result.frame.pair, predictor.channels)
        maps = {"truth": result.truth, "prediction": result.prediction}
        stem = result.frame.pair.stem
        with paths.whole(folder / f"{prefix}{stem}.png") as beside:
            figures.save_panel(beside, "png", image, maps, predictor.labels, f"{stem}  Dice {dice:.4f}")
