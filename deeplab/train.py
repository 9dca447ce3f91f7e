"""Train DeepLabV3 on a folder of frames and masks.

    python train.py --epochs 100 --amp

Reads data/train and data/validation (each with images/ and masks/), looks at all of it first, then
writes checkpoints/deeplab/<run> and results/deeplab/<run> after every epoch.
"""

import argparse
import sys
from pathlib import Path

from sonogravity.commands import cross_validate, script
from sonogravity.commands.options import add_depth_channel, add_training
from sonogravity.common import devices, workers
from sonogravity.datasets import inspection
from sonogravity.inference.predictor import Predictor
from sonogravity.modeling import checkpoints
from sonogravity.training import distributed, steps
from sonogravity.training.losses import HeadsLoss, SegmentationLoss
from sonogravity.training.optimization import make_optimizer, make_scheduler
from sonogravity.training.run import open_run
from sonogravity.training.start import begin


def build_parser():
    """The options; the defaults are DeepLabV3's recipe."""
    parser = script.Parser("Train DeepLabV3 on a folder of frames and masks.", "python train.py --epochs 100 --amp")
    add_training(parser, batch_size=4, learning_rate=1e-3, loss="ce+dice", scheduler="cosine")
    parser.add_argument(
        "--backbone",
        choices=("resnet50", "resnet101", "mobilenet_v3_large"),
        default="resnet50",
        help="the encoder; mobilenet_v3_large for live use on a laptop",
    )
    add_depth_channel(parser)
    parser.add_argument(
        "--aux-loss",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="train a small head on an earlier stage beside the classifier",
    )
    parser.add_argument(
        "--pretrained",
        type=Path,
        nargs="?",
        const=True,
        metavar="FILE",
        help="start from torchvision's weights: downloaded, or from FILE",
    )
    return parser


@script.script
def main(argv=None):
    parser = build_parser()
    wanted = parser.parse_args(argv)  # wrong options are refused before torch is imported

    import torch

    from deeplab.dataset import make_loader
    from deeplab.model import AUX_WEIGHTS, SMALLEST_BATCH, DeepLabV3, from_torchvision, load_pretrained

    if wanted.folds and wanted.fold is None:
        return cross_validate.train_each(main, parser, argv, DeepLabV3)
    distributed.join(wanted.device)
    start = begin(parser, argv, DeepLabV3)
    args, loaded = start.options, start.loaded
    device = devices.pick_device(args.device)
    if args.compile:
        devices.need_compiler("--compile")
    training, validation, findings = inspection.open_data(
        args.train,
        args.validation,
        scale=args.scale,
        channels=args.channels,
        cache_mb=args.cache_mb,
        workers=workers.decoding_threads(args.workers),
        known_labels=start.known_labels,
        classes=args.classes,
        class_names=args.class_names,
        background=args.background,
        snap=args.snap_masks,
        subject_regex=args.subject_regex,
        allow_overlap=args.allow_overlap,
        fold=args.fold,
        of_folds=args.folds,
    )
    if args.check:
        return 0

    labels = findings.labels
    torch.manual_seed(args.seed)
    options = {
        "in_channels": args.channels,
        "classes": labels.count,
        "backbone": args.backbone,
        "aux_loss": args.aux_loss,
        "depth_channel": args.depth_channel,
    }
    model = DeepLabV3(**options)
    if args.pretrained and not loaded:
        load_pretrained(model, args.backbone, None if args.pretrained is True else args.pretrained)
    if loaded:
        loaded = from_torchvision(loaded, model, options)
        checkpoints.start_from(loaded, model, options, start.new_head)
    amp = devices.amp_type(device, args.amp)
    predictor = Predictor(
        model,
        labels=labels,
        scale=args.scale,
        channels=args.channels,
        image_maximum=findings.image_maximum,
        device=device,
        amp=amp,
    )
    loader = make_loader(
        training,
        labels,
        image_maximum=findings.image_maximum,
        augment=args.augment,
        batch_size=args.batch_size,
        seed=args.seed,
        workers=workers.worker_count(args.workers, device),
        device=device,
    )
    optimizer = make_optimizer(args.optimizer, model.parameters(), args.learning_rate, args.weight_decay)
    run = open_run(start, model=model, model_options=options, findings=findings, device=device, amp=amp)
    steps.fit(
        run=run,
        network=distributed.together(torch.compile(model) if args.compile else model, model, device),
        predictor=predictor,
        loader=loader,
        validation=validation,
        criterion=HeadsLoss(SegmentationLoss(args.loss, labels.background), AUX_WEIGHTS),
        optimizer=optimizer,
        scheduler=make_scheduler(args.scheduler, optimizer, start.plan, -(-len(loader) // args.accumulate)),
        settings=steps.Settings(
            args.epochs,
            args.save_every,
            args.patience,
            args.seed,
            args.batch_size,
            amp,
            SMALLEST_BATCH,
            accumulate=args.accumulate,
            compiled=args.compile,
            frozen_epochs=args.freeze_encoder,
        ),
        resumed=start.resumed,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
