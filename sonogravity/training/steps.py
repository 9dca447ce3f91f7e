"""Training: one epoch after another, each validated at native size, saved and written down."""

import math
import time
from dataclasses import asdict, dataclass
from itertools import chain, islice

import numpy as np
import torch
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from tqdm import tqdm

from sonogravity.common import files
from sonogravity.common.messages import InputError, complain, first_line, is_out_of_memory, say, some, warn
from sonogravity.common.processes import is_first_process
from sonogravity.datasets.frames import read_pair
from sonogravity.datasets.loader import epoch_seed, heights
from sonogravity.inference import segmentation
from sonogravity.metrics import overlap
from sonogravity.reporting.pictures import write_panel
from sonogravity.training import distributed
from sonogravity.training.memory import Memory, compute_again
from sonogravity.training.run import best_epoch, dice_or_lowest

GRADIENT_CLIP_NORM = 1.0
SHOW_EVERY = 10  # batches between looks at the loss, each of which waits for the GPU
COMPILING = 3  # a first step of that many times the others has compiled
PANELS = 4  # validation frames shown at each saved checkpoint, besides the worst


@dataclass(frozen=True)
class Settings:
    """How long to train and what to leave behind. amp: autocast's type, or None for float32.

    smallest_part: frames that must go through the network together, where memory does not hold a batch.
    accumulate: batches whose gradients are summed for a step. compiled: the network is torch.compile's.
    frozen_epochs: the first ones, in which the encoder stays as it is.
    """

    epochs: int
    save_every: int
    patience: int | None
    seed: int
    batch_size: int
    amp: torch.dtype | None = None
    smallest_part: int = 1
    accumulate: int = 1
    compiled: bool = False
    frozen_epochs: int = 0


def train_one_epoch(
    network, loader, criterion, optimizer, scaler, step_scheduler, settings, memory, device, title, frozen=()
):
    """Every frame once, a step every ``accumulate`` batches -> mean loss over frames, last rate, frames a second.

    frozen: modules whose weights and running statistics stay as they are. InputError on a loss that is not finite.
    """
    network.train()
    kept = [weight for module in frozen for weight in module.eval().parameters()]
    losses, stems, sizes = [], [], []
    start = time.perf_counter()
    with tqdm(loader, title, unit="batch", leave=False, disable=not is_first_process()) as progress:
        batches = iter(progress)
        while group := list(islice(batches, settings.accumulate)):
            names = [name for _, _, of_batch in group for name in of_batch]
            frames = len(names)
            if distributed.count() > 1:  # the mean gradient of all processes is to be that of all their frames
                done = len(losses) * settings.accumulate
                all_frames = sum(loader.batch_sampler.frames_in(done + i) for i in range(len(group)))
                frames = all_frames / distributed.count()
            optimizer.zero_grad(set_to_none=True)
            parts = [
                (images[part], masks[part])
                for images, masks, of_batch in group
                for part in memory.parts(len(of_batch), settings.smallest_part)
            ]
            loss = 0
            for i, (images, masks) in enumerate(parts):
                with distributed.apart(network, last=i == len(parts) - 1):
                    loss = loss + _backward(network, images, masks, criterion, scaler, settings.amp, device, frames)
            for weight in kept:  # of several processes each computes them all the same
                weight.grad = None
            scaler.unscale_(optimizer)  # the norm to clip is that of the true gradients
            torch.nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_CLIP_NORM)
            scaler.step(optimizer)
            scaler.update()
            rate = optimizer.param_groups[0]["lr"]
            if step_scheduler is not None:
                step_scheduler.step()
            losses.append(loss)
            stems.append(names)
            sizes.append(frames)
            if len(losses) == 1:
                first = time.perf_counter() - start
            if len(losses) % SHOW_EVERY == 1:
                shown = _finite(losses, stems, title)[-SHOW_EVERY:]
                speed = sum(sizes) / (time.perf_counter() - start)
                progress.set_postfix_str(f"loss {np.mean(shown):.4f}, {speed:.2f} img/s")
    values = np.mean(distributed.gathered(_finite(losses, stems, title)), axis=0)
    seconds = time.perf_counter() - start
    if settings.compiled and len(sizes) > 1:
        later = (seconds - first) / (len(sizes) - 1)
        if first > COMPILING * later:
            say(f"--compile: the first step took {first:.1f} s, the others {later:.2f} s each")
    return float(np.average(values, weights=sizes)), rate, sum(sizes) * distributed.count() / seconds


def _backward(network, images, masks, criterion, scaler, amp, device, frames):
    """Add the gradients of a part of a step's frames; the part's share of the step's loss."""
    images = images.to(device, memory_format=torch.channels_last, non_blocking=True)
    masks = masks.to(device, non_blocking=True)
    with torch.autocast(device.type, amp, enabled=amp is not None):
        logits = network(images, heights(masks))
    loss = criterion(logits, masks) * (len(images) / frames)
    scaler.scale(loss).backward()
    return loss.detach()


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
    predictor.renew()
    scored, kept, worst, lowest, foreground = [], [], [], math.inf, False
    mine = range(distributed.rank(), len(store), distributed.count())
    results = segmentation.segment(predictor, (store[i] for i in mine), batch_size, criterion)
    bar = tqdm(results, title, len(mine), unit="frame", leave=False, disable=not is_first_process())
    for i, result in zip(mine, bar, strict=True):
        row = overlap.file_metrics(result.confusion, labels)
        scored.append((i, row, result.loss))
        if i in shown:
            kept.append((i, row["dice"], result))
        if row["dice"] < lowest:
            worst, lowest = [(row["dice"], i, result)], row["dice"]
        foreground |= bool((result.prediction != labels.background).any())
    scored, kept, worst, foreground = zip(*distributed.gathered((scored, kept, worst, foreground)), strict=True)
    scored, kept, worst = (sorted(chain(*parts), key=lambda part: part[:2]) for parts in (scored, kept, worst))
    shown_frames = [("", dice, result) for _, dice, result in kept]
    shown_frames += [("worst_", dice, result) for dice, _, result in worst[:1]]
    if not any(foreground):
        warn("every prediction is background only; the first epochs may be so, later ones should not")
    return [row for _, row, _ in scored], float(np.mean([loss for *_, loss in scored])), shown_frames


def epoch_scores(rows, labels):
    """Rows of all validation files -> the epoch's figures: the mean of each column, as in files.xlsx."""
    scores = {name: float(overlap.nan_mean([row[name] for row in rows])) for name in overlap.OVERLAP}
    for c in labels.foreground:
        scores[f"dice_{labels.names[c]}"] = float(overlap.nan_mean([row[f"dice_{labels.names[c]}"] for row in rows]))
    return scores


def fit(*, run, network, predictor, loader, validation, criterion, optimizer, scheduler, settings, resumed=None):
    """Train to settings.epochs, or until patience ends it; the history, a row an epoch.

    network: what is stepped, predictor.model or a compiled form of it. resumed: a Checkpoint to go on from.
    Each epoch's randomness comes from (seed, epoch) alone, so a resumed run repeats what an unbroken one does. An
    epoch that does not fit into memory starts again with less (see memory.Memory).
    """
    scaler = torch.amp.GradScaler(predictor.device.type, enabled=settings.amp is torch.float16)
    stateful = {"optimizer": optimizer, "scheduler": scheduler, "scaler": scaler}
    history = []
    if resumed is not None:
        _restore(resumed.training, stateful, resumed.path, -(-len(loader) // settings.accumulate))
        history = list(resumed.training["history"])
        run.take_up(resumed, predictor.labels)
        if len(history) >= settings.epochs:
            say(f"{resumed.path}: the run has its {len(history)} epochs; ask for more with --epochs")
    else:
        run.start(predictor.model, _state_of(stateful))
    memory = Memory(**run.settings["memory"])
    if memory.checkpointing:
        compute_again(predictor.model.blocks())
    shown = set(np.linspace(0, len(validation) - 1, min(PANELS, len(validation))).round().astype(int).tolist())
    try:
        while len(history) < settings.epochs and not _out_of_patience(history, settings.patience):
            fitted = _epoch_that_fits(
                history, run, network, predictor, loader, validation, criterion, stateful, settings, memory, shown
            )
            if not fitted:
                memory = _with_less(memory, history, run, network, predictor, stateful, settings)
    except (KeyboardInterrupt, InputError) as stop:
        run.outbox.send()
        if isinstance(stop, InputError) and not is_first_process():  # what this process alone knows
            complain(stop)
        if isinstance(stop, KeyboardInterrupt):
            say(f"\n{run.how_to_go_on()}")
        raise
    if _out_of_patience(history, settings.patience):
        say(f"stopped: no better Dice for {settings.patience} epochs (--patience)")
    best = history[best_epoch(history) - 1]
    say(f"best: epoch {best['epoch']}, Dice {best['dice']:.6f}: {run.checkpoints / 'best.pth'}")
    say(f"figures: {run.results / 'epochs.xlsx'}")
    run.close(history)
    distributed.leave()
    return history


def _epoch_that_fits(*parts):
    """Train one more epoch; False where memory does not suffice, and then nothing of the failed step is held."""
    try:
        _one_epoch(*parts)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        if distributed.count() > 1:  # the others wait for this one's gradients, so it cannot start again alone
            raise InputError(
                f"process {distributed.rank()}: out of memory; try --low-memory, or a smaller --batch-size or --scale"
            ) from error
        return False
    return True


def _with_less(memory, history, run, network, predictor, stateful, settings):
    """Go back to the last completed epoch, and choose what takes less memory; the new Memory."""
    sparer = memory.sparer(settings.batch_size, settings.smallest_part)
    if sparer is None:
        raise InputError(
            f"out of memory even with {settings.smallest_part} frames at a time; try a smaller --scale or model, or "
            "another --device"
        )
    warn(f"out of memory: {sparer.describe(settings.batch_size)}; the epoch starts again")
    stateful["optimizer"].zero_grad(set_to_none=True)
    torch.cuda.empty_cache()
    content = run.training_state()
    predictor.model.load_state_dict(content["state_dict"])
    _restore(content["training"], stateful, run.last)
    history[:] = list(content["training"]["history"])
    compute_again(predictor.model.blocks())
    if network is not predictor.model:
        torch.compiler.reset()  # it was compiled for keeping all activations
    run.settings["memory"] = asdict(sparer)  # for a resumed or repeated run to do the same
    return sparer


def _one_epoch(history, run, network, predictor, loader, validation, criterion, stateful, settings, memory, shown):
    start = time.perf_counter()
    epoch = len(history) + 1
    title = f"epoch {epoch}/{settings.epochs}"
    torch.manual_seed(epoch_seed(settings.seed, epoch) + distributed.rank())
    loader.batch_sampler.epoch = epoch
    scheduler = stateful["scheduler"]
    plateau = isinstance(scheduler, ReduceLROnPlateau)
    frozen = predictor.model.encoder() if epoch <= settings.frozen_epochs else []
    for module in predictor.model.encoder():
        module.requires_grad_(not frozen or distributed.count() > 1)  # DistributedDataParallel waits for each gradient
    train_loss, rate, speed = train_one_epoch(
        network,
        loader,
        criterion,
        stateful["optimizer"],
        stateful["scaler"],
        None if plateau else scheduler,
        settings,
        memory,
        predictor.device,
        title,
        frozen=frozen,
    )
    distributed.average_statistics(predictor.model)
    rows, val_loss, kept = validate(predictor, validation, criterion, settings.batch_size, shown, "validation")
    if not math.isfinite(val_loss):
        raise InputError(
            f"{title}: the validation loss is {val_loss}; checkpoints of earlier epochs are kept. Try a lower "
            "--learning-rate, or --no-amp"
        )
    row = {"epoch": epoch, "learning_rate": rate, "train_loss": train_loss, "val_loss": val_loss}
    row |= epoch_scores(rows, predictor.labels)
    row |= {"seconds": time.perf_counter() - start, "images_per_second": speed}
    history.append(row)
    if plateau:
        scheduler.step(dice_or_lowest(row))
    panels_due = run.writing and (epoch % settings.save_every == 0 or epoch == settings.epochs)
    pictures = _panels(kept, predictor) if panels_due else {}
    run.leave(epoch, predictor.model, history, _state_of(stateful), pictures=pictures, labels=predictor.labels)
    names = [predictor.labels.names[c] for c in predictor.labels.foreground]
    per_class = ", ".join(f"{name} {row[f'dice_{name}']:.4f}" for name in names)
    say(
        f"{title}  train loss {train_loss:.4f}  val loss {val_loss:.4f}  Dice {row['dice']:.6f} ({per_class})  "
        f"{row['seconds']:.0f} s, {speed:.2f} img/s" + ("  best" if best_epoch(history) == epoch else "")
    )


def _state_of(stateful):
    return {name: part.state_dict() for name, part in stateful.items()}


def _restore(training, stateful, path, steps_per_epoch=None):
    """Load the state of optimizer, scheduler and scaler; InputError where it is not theirs.

    steps_per_epoch: of this process, where it may differ from that of the run so far (other processes than then).
    """
    for name, part in stateful.items():
        try:
            if training[name]:  # the scaler's is empty where there was no float16
                part.load_state_dict(training[name])
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise InputError(f"{path}: is damaged: the {name}'s state does not fit ({first_line(error)})") from error
    if isinstance(scheduler := stateful["scheduler"], LambdaLR):
        if steps_per_epoch is not None:
            scheduler.last_epoch = len(training["history"]) * steps_per_epoch
        # The optimizer's rate is that of the earlier plan.
        for group, base, factor in zip(
            scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True
        ):
            group["lr"] = base * factor(scheduler.last_epoch)


def _out_of_patience(history, patience):
    return bool(patience and history) and len(history) - best_epoch(history) >= patience


def _panels(kept, predictor):
    """{file name: (write, content)} of the frames to show."""
    pictures = {}
    for prefix, dice, result in kept:
        image, _ = read_pair(result.frame.pair, predictor.channels)
        maps = {"truth": result.truth, "prediction": result.prediction}
        stem = result.frame.pair.stem
        content = ("png", image, maps, predictor.labels, f"{stem}  Dice {dice:.4f}")
        pictures[f"{prefix}{files.short(stem)}.png"] = write_panel, content
    return pictures
