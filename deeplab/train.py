"""Train DeepLabV3 on a folder of frames and masks.

    python train.py --epochs 100 --amp

Read data/train and data/validation (each with images/ and masks/) and check all files first. Write
checkpoints/deeplab/<run> and results/deeplab/<run> after every epoch.
"""

import argparse
import sys
import time
from pathlib import Path

from sonogravity.commands.script import Parser, script
from sonogravity.commands.training_options import add_depth_channel, add_training


def build_parser():
    """Return the parser; its defaults are DeepLabV3's recipe."""
    parser = Parser(__doc__)
    group = add_training(parser, batch_size=4, learning_rate=1e-3, loss="ce+dice", scheduler="cosine")
    group.add_argument(
        "--backbone",
        choices=("resnet50", "resnet101", "mobilenet_v3_large"),
        default="resnet50",
        help="encoder; mobilenet_v3_large for live use on a laptop",
    )
    add_depth_channel(group)
    group.add_argument(
        "--aux-loss",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="also train a small head on an earlier stage of the backbone",
    )
    group.add_argument(
        "--pretrained",
        type=Path,
        nargs="?",
        const=True,
        metavar="FILE",
        help="start from torchvision's weights, downloaded or read from FILE",
    )
    return parser


def model_options_of(options, classes):
    """Return the arguments of the network's constructor, which its checkpoints also store."""
    return {
        "in_channels": options.channels,
        "classes": classes,
        "backbone": options.backbone,
        "aux_loss": options.aux_loss,
        "depth_channel": options.depth_channel,
    }


@script
def main(argv=None, model_class=None, **parts):
    """Train one run, or with --folds one run per fold, and score all folds. parts: keyword arguments of ``train``."""
    options = build_parser().parse_args(argv)  # wrong options are refused before torch is imported

    from deeplab.model import DeepLabV3
    from sonogravity.commands.cross_validate import CrossValidation
    from sonogravity.training import distributed
    from sonogravity.training.start import begin

    given = {**parts, "model_class": model_class}
    model_class = model_class or DeepLabV3
    if options.folds and options.fold is None:
        with CrossValidation(options, model_class, given) as cross_validation:
            for start in cross_validation.starts():
                train(start, model_class, **parts)
            cross_validation.score()
        return
    distributed.join(options.device)
    train(begin(options, model_class, given), model_class, **parts)


def train(start, model_class, *, criterion=None, augmentation=None, sampler=None, optimizer=None, averaging=None):
    """Train one run from ``start``, a Beginning. Each keyword replaces the part of that name (docs/training.md)."""
    import torch

    from deeplab.dataset import make_augmentation
    from deeplab.model import from_torchvision, load_pretrained
    from sonogravity.common import devices
    from sonogravity.datasets.loader import TrainingFrames, training_loader
    from sonogravity.datasets.opening import DataOptions, open_data
    from sonogravity.metrics.summary import dice_or_lowest
    from sonogravity.modeling.checkpoints import start_from
    from sonogravity.reporting.inspection_workbook import write_inspection
    from sonogravity.training import distributed, losses, optimization, steps
    from sonogravity.training.memory import Memory, MemoryRetry, compute_again
    from sonogravity.training.run_opening import open_run

    options, device = start.options, devices.pick_device(start.options.device)
    if options.compile:
        devices.need_compiler("--compile")
    training, validation, findings = open_data(DataOptions.from_options(options), start.known_labels, start.seen)
    if options.check:
        write_inspection(options.results / model_class.NAME / options.name, findings, options.channels)
        return
    labels = findings.labels

    torch.manual_seed(options.seed)
    model_options = model_options_of(options, labels.count)
    model = model_class(**model_options).use_normalisation(options.normalise, options.channels)
    if options.pretrained and not start.loaded:
        load_pretrained(model, options.backbone, None if options.pretrained is True else options.pretrained)
    if start.loaded:
        start_from(from_torchvision(start.loaded, model, model_options), model, model_options, start.new_head)
    model.to(device, memory_format=torch.channels_last)
    network = distributed.wrap_model(torch.compile(model) if options.compile else model, model, device)

    changes = (augmentation or make_augmentation)(labels.background) if options.augment else None
    frames = TrainingFrames(training, labels, findings.image_maximum, changes)
    loader = training_loader(
        frames,
        options.batch_size,
        seed=options.seed,
        workers=options.workers,
        device=device,
        needed=model.SMALLEST_BATCH,
        sampler=sampler,
    )
    criterion = (criterion or losses.SegmentationLoss)(options.loss, labels.background)
    loss = losses.HeadsLoss(criterion, model.HEAD_WEIGHTS)
    optimizer = (optimizer or optimization.make_optimizer)(
        options.optimizer, model.parameters(), options.learning_rate, options.weight_decay
    )
    steps_per_epoch = -(-len(loader) // options.accumulate)
    scheduler = optimization.make_scheduler(options.scheduler, optimizer, start.plan, steps_per_epoch)
    amp = devices.amp_type(device, options.amp)
    state = optimization.Optimization(model, optimizer, scheduler, device=device, amp=amp, averaging=averaging)
    step = steps.Step(network, loss, state, device, amp, options.accumulate, model.SMALLEST_BATCH, options.compile)
    predictor = steps.validation_predictor(state.result, validation, findings, device, amp)
    shown = steps.frames_to_show(len(validation))

    memory = Memory(checkpointing=options.low_memory)
    # At its end the run prints its best epoch, or how to resume it.
    with open_run(start, model, model_options, findings, device=device, amp=amp, memory=memory) as run:
        run.begin(state, start.resumed, steps_per_epoch)
        retry = MemoryRetry(run, step)
        if retry.memory.checkpointing:
            compute_again(model.blocks())
        while epoch := run.next_epoch:
            with retry:  # repeats the epoch with less memory if memory runs out
                begun, title = time.perf_counter(), f"epoch {epoch}/{options.epochs}"
                steps.begin_epoch(loader, options.seed, epoch)
                frozen = steps.freeze(model.encoder(), epoch <= options.freeze_encoder)
                train_loss, rate, speed = steps.train_one_epoch(step, loader, retry.memory, title, frozen=frozen)
                distributed.average_statistics(model, state.result)
                rows, val_loss, pictured = steps.validate(predictor, validation, criterion, options.batch_size, shown)
                row = {"epoch": epoch, "learning_rate": rate, "train_loss": train_loss, "val_loss": val_loss}
                row |= steps.epoch_scores(rows, labels)
                run.record(row | {"seconds": time.perf_counter() - begun, "images_per_second": speed})
                state.end_epoch(dice_or_lowest(row))
                run.save_epoch(state, predictor, pictured)
    distributed.leave()


if __name__ == "__main__":
    sys.exit(main())
