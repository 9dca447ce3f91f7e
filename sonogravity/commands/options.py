"""The options that the scripts of all models share. Nothing here imports torch, so that --help answers at once."""

import argparse
from pathlib import Path

from sonogravity.common import folders
from sonogravity.common.messages import InputError
from sonogravity.common.option_types import (
    _number,
    class_count,
    class_names,
    device_name,
    fold_count,
    margin_width,
    natural,
    non_negative_float,
    positive_float,
    positive_int,
    run_name,
    scale_factor,
    subject_regex,
    worker_number,
)
from sonogravity.datasets.labels import parse_value
from sonogravity.datasets.spacing import DEFAULT_MARGIN_MM, MOST_PIXELS_PER_MM
from sonogravity.training import stored_options

pixel_density = _number(
    float, 0, MOST_PIXELS_PER_MM, True, f"a number of pixels per mm above 0 and up to {MOST_PIXELS_PER_MM}"
)


def mask_value(text):
    try:
        return parse_value(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no mask value: 0 to 65535, or #rrggbb") from None


def mask_values(text):
    return [mask_value(part) for part in text.split(",")]


def add_common(parser, batch_size):
    """--device, --amp, --workers, --batch-size: every script has them."""
    parser.add_argument(
        "--device",
        type=device_name,
        default="auto",
        metavar="{auto,cpu,cuda[:N],mps}",
        help="where to compute; auto takes a GPU where there is one",
    )
    parser.add_argument(
        "--workers",
        type=worker_number,
        metavar="N",
        help="threads or processes that prepare frames (default: by the device)",
    )
    parser.add_argument(
        "--batch-size",
        "-b",
        type=positive_int,
        default=batch_size,
        metavar="B",
        help="frames at a time (with torchrun: of each process)",
    )


def add_subject_regex(parser):
    """--subject-regex: how the subject is read from a file's name."""
    parser.add_argument(
        "--subject-regex", type=subject_regex, metavar="RE", help="finds the subject in a file's stem (first group)"
    )


def _switch(parser, name, default, text):
    parser.add_argument(name, action=argparse.BooleanOptionalAction, default=default, help=text)


def add_training(parser, *, batch_size, learning_rate, loss, optimizer="adam", scheduler="plateau"):
    """The options of every train.py; the defaults are the model's recipe."""
    add_common(parser, batch_size)
    add = parser.add_argument
    _switch(parser, "--amp", False, "mixed precision, where the device has it")
    add("--epochs", "-e", type=positive_int, default=100, metavar="E", help="epochs in all, resumed ones included")
    add("--learning-rate", "-l", type=positive_float, default=learning_rate, metavar="LR", help="at its highest")
    add("--scale", "-s", type=scale_factor, default=0.5, metavar="S", help="the network sees frames resized by this")
    add("--classes", "-c", type=class_count, metavar="C", help="checked against the masks; background included")
    add("--channels", type=int, choices=(1, 3), default=1, help="1: frames are read as grey; 3: as colour")
    add("--train", type=Path, default=folders.DATA / "train", metavar="DIR", help="holds images/ and masks/")
    add("--validation", type=Path, default=folders.DATA / "validation", metavar="DIR", help="holds images/ and masks/")
    add("--name", type=run_name, metavar="RUN", help="name of the run (default: a time stamp)")
    add("--checkpoints", type=Path, default=folders.CHECKPOINTS, metavar="DIR", help="root of <model>/<run>/*.pth")
    add("--results", type=Path, default=folders.RESULTS, metavar="DIR", help="root of <model>/<run>/epochs.xlsx ...")
    add("--load", "-f", type=Path, metavar="CKPT", help="start from the weights of this file")
    _switch(parser, "--new-head", False, "with --load: train for the classes of these masks, with a fresh last layer")
    add(
        "--freeze-encoder",
        type=natural,
        default=0,
        metavar="N",
        help="keep the encoder's weights as they are for the first N epochs",
    )
    add("--resume", type=Path, metavar="CKPT", help="go on with the run of this last.pth, with its options")
    add("--repeat", type=Path, metavar="SETTINGS", help="train again as the run of this settings.json did")
    add("--save-every", type=positive_int, default=5, metavar="N", help="epochs between epoch_NNN.pth and panels")
    add("--optimizer", choices=("adam", "adamw", "sgd", "rmsprop"), default=optimizer, help="how weights are updated")
    add("--weight-decay", type=non_negative_float, default=0.0, metavar="W", help="of the optimizer")
    add(
        "--scheduler",
        choices=("plateau", "cosine", "poly", "constant"),
        default=scheduler,
        help="plateau: a tenth after 5 epochs without a better Dice; cosine and poly warm up first",
    )
    add("--loss", choices=("ce", "dice", "ce+dice"), default=loss, help="cross-entropy, soft Dice, or their sum")
    _switch(parser, "--augment", True, "random flips, gamma, contrast, gain and noise (which more: dataset.py)")
    add("--patience", type=positive_int, metavar="N", help="stop after N epochs without a better Dice (default: never)")
    add("--seed", type=natural, default=0, metavar="N", help="of weights, order and augmentation")
    add("--class-names", type=class_names, metavar="A,B", help="names of the foreground values, smallest first")
    add("--background", type=mask_value, metavar="V", help="the background's mask value (default: the smallest)")
    add("--snap-masks", action="store_true", help="take the nearest class for mask values between; needs --classes")
    add_subject_regex(parser)
    add("--allow-overlap", action="store_true", help="allow a subject in both training and validation")
    add(
        "--folds",
        type=fold_count,
        metavar="K",
        help="cross-validate: K folds of the subjects in --train, each "
        "validated by a run trained on the others; --validation is not read",
    )
    add("--fold", type=positive_int, metavar="k", help="train this one of --folds only")
    add("--cache-mb", type=non_negative_float, default=4096, metavar="N", help="memory for decoded frames")
    add(
        "--accumulate",
        type=positive_int,
        default=1,
        metavar="N",
        help="sum the gradients of N batches for each step (batch statistics stay those of each batch)",
    )
    _switch(
        parser,
        "--low-memory",
        False,
        "compute activations again in the backward pass instead of keeping them: the same mathematics, slower",
    )
    add("--compile", action="store_true", help="torch.compile: a minute or more to start, then faster steps")
    add("--check", action="store_true", help="look at the data, print what was found, and stop")


def add_depth_channel(parser):
    """--depth-channel: of the models that take the depth of each row as an input."""
    _switch(
        parser,
        "--depth-channel",
        True,
        "show the network how deep each row lies: near the probe and far from it like things differ",
    )


def add_scoring(parser, *, predicting, margin):
    """The options of predict (predicting) and evaluate, with a margin or without."""
    add_common(parser, 4)
    add = parser.add_argument
    _switch(parser, "--amp", None, "mixed precision (default: as in training)")
    source = parser if predicting else parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--load",
        "-f",
        type=Path,
        nargs="+",
        required=predicting,
        metavar="CKPT",
        help="the checkpoint to use; of several the mean of their probabilities",
    )
    if not predicting:
        source.add_argument(
            "--predictions", type=Path, metavar="DIR", help="masks of any origin to score, in place of a model's"
        )
    add(
        "--input",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="a folder with images/ [and masks/], a folder of images, or files (default: data/validation)",
    )
    add("--masks", type=Path, metavar="DIR", help="the folder of the true masks, where it is not beside images/")
    add("--output", type=Path, metavar="DIR", help="(default: results/<model>/<run>/<script>)")
    add("--scale", "-s", type=scale_factor, metavar="S", help="(default: the checkpoint's)")
    calibration = parser.add_mutually_exclusive_group()
    calibration.add_argument(
        "--pixels-per-mm", type=pixel_density, metavar="P", help="of all files: distances are then in mm"
    )
    calibration.add_argument(
        "--spacing",
        type=Path,
        metavar="FILE.csv",
        help="columns file, pixels_per_mm (or pixels_per_mm_x, pixels_per_mm_y)",
    )
    if margin:
        add(
            "--margin-mm",
            type=margin_width,
            default=DEFAULT_MARGIN_MM,
            metavar="MM",
            help="the true borders are taken to be known to within this",
        )
    add_subject_regex(parser)
    add(
        "--mask-values",
        type=mask_values,
        metavar="V,V,...",
        help="mask value of each class, where neither the checkpoint nor the masks should say",
    )
    engines = ("torch", "compile", "onnx", "openvino")
    add(
        "--engine",
        choices=(*engines, "auto") if predicting else engines,
        default="torch",
        help="what runs the network" + "; auto: the fastest here, if nothing is scored" * predicting,
    )
    add("--int8", action="store_true", help="with --engine openvino: the int8 model that export.py --int8 made")
    add(
        "--tta",
        choices=("none", "flip", "scales"),
        default="none",
        help="test-time augmentation, the mean of several "
        "views: flip adds a mirrored one, scales six in all (times 0.8, 1 and 1.25, mirrored or not)",
    )
    if predicting:
        add("--panels", choices=("png", "jpg", "none"), default="png", help="pictures of image, truth, prediction")


def add_export(parser):
    """The options of every export.py."""
    add = parser.add_argument
    add("--load", "-f", type=Path, required=True, metavar="CKPT", help="the checkpoint to export")
    add(
        "--input",
        type=Path,
        nargs="+",
        metavar="PATH",
        default=[folders.DATA / "validation"],
        help="frames on which the exported model must agree; with masks for --int8",
    )
    add("--masks", type=Path, metavar="DIR", help="the folder of the true masks, where it is not beside images/")
    add("--scale", "-s", type=scale_factor, metavar="S", help="(default: the checkpoint's)")
    add("--mask-values", type=mask_values, metavar="V,V,...", help="of each class, where the checkpoint holds none")
    add("--int8", action="store_true", help="8-bit integers, for predict.py --engine openvino --int8")
    add(
        "--calibration",
        type=Path,
        nargs="+",
        metavar="PATH",
        default=[folders.DATA / "train"],
        help="frames that set the ranges of --int8: those of training",
    )
    add("--workers", type=worker_number, metavar="N", help="threads that decode frames (default: all)")


def scoring_values(args):
    """The options of add_scoring that say what to score and where to write it, for scoring.Request."""
    names = (
        "masks",
        "output",
        "batch_size",
        "workers",
        "subject_regex",
        "pixels_per_mm",
        "spacing",
        "engine",
        "int8",
        "tta",
    )
    values = {name: getattr(args, name) for name in names}
    panels = getattr(args, "panels", "none")
    of_a_model = (args.scale, args.amp, args.engine, args.int8, args.tta) != (None, None, "torch", False, "none")
    if getattr(args, "predictions", None) and of_a_model:
        raise InputError(
            "--scale, --amp, --engine, --int8 and --tta are for a model; with --predictions there is none, so leave "
            "them out"
        )
    masks_only = getattr(args, "predictions", None) and args.masks
    return values | {
        "inputs": args.input or ([] if masks_only else [folders.DATA / "validation"]),
        "margin_mm": getattr(args, "margin_mm", None),
        "panels": None if panels == "none" else panels,
        "options": stored_options.options_as_dict(args),
    }
