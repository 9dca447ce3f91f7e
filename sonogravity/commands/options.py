"""The options that scripts share, and those of predict, evaluate and export.

Nothing here imports torch, so that --help answers at once.
"""

import argparse
from pathlib import Path

from sonogravity.commands.script import Parser
from sonogravity.common import choices, folders
from sonogravity.common.file_names import PANEL_KINDS
from sonogravity.common.messages import InputError
from sonogravity.common.option_types import (
    device_name,
    margin_width,
    number_type,
    positive_int,
    scale_factor,
    subject_regex,
    worker_number,
)
from sonogravity.datasets.labels import parse_value, value_text
from sonogravity.datasets.spacing import DEFAULT_MARGIN_MM, MOST_PIXELS_PER_MM
from sonogravity.metrics.margin import VARIANTS
from sonogravity.training import stored_options

pixel_density = number_type(
    float, 0, MOST_PIXELS_PER_MM, True, f"a number of pixels per mm above 0 and up to {MOST_PIXELS_PER_MM}"
)


def mask_value(text):
    try:
        return parse_value(text if isinstance(text, str) else value_text(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no mask value: 0 to 65535, or #rrggbb") from None


def class_names(text):
    names = [name.strip() for name in (text.split(",") if isinstance(text, str) else text)]
    taken = ("background", *VARIANTS)  # columns of worksheets end in these
    if not all(names) or set(names) & set(taken):
        raise argparse.ArgumentTypeError(
            f"'{text}': give the names of the foreground classes, separated by commas; {', '.join(taken)} are the "
            "names of other columns"
        )
    return names


def mask_values(text):
    return [mask_value(part) for part in text.split(",")]


def add_common(parser, batch_size):
    """--device, --amp, --workers, --batch-size: every script has them."""
    parser.add_argument(
        "--device",
        type=device_name,
        default="auto",
        metavar="{auto,cpu,cuda[:N],mps}",
        help="where to compute; auto takes a GPU if there is one",
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


def add_switch(parser, name, default, text):
    """An option with its opposite, --no-NAME."""
    parser.add_argument(name, action=argparse.BooleanOptionalAction, default=default, help=text)


def scoring_parser(script_name, documentation):
    """Return the parser of predict, evaluate, predict_w_margin or evaluate_w_margin, its options in groups.

    documentation: the docstring of the script.
    """
    predicting, parser = script_name.startswith("predict"), Parser(documentation)
    model = parser.add_argument_group("model")
    source = model if predicting else model.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--load",
        "-f",
        type=Path,
        nargs="+",
        required=predicting,
        metavar="CKPT",
        help="the checkpoint, or the name of a run; of several the mean of their probabilities",
    )
    if not predicting:
        source.add_argument(
            "--predictions", type=Path, metavar="DIR", help="masks of any origin to score, in place of a model's"
        )
    _add_network(model, predicting)
    _add_frames(parser.add_argument_group("data"))
    _add_millimetres(parser.add_argument_group("millimetres"), margin=script_name.endswith("_w_margin"))
    output = parser.add_argument_group("run")
    add_common(output, 4)
    output.add_argument("--output", type=Path, metavar="DIR", help="(default: results/<model>/<run>/<script>)")
    if predicting:
        output.add_argument(
            "--panels", choices=(*PANEL_KINDS, "none"), default="png", help="pictures of image, truth, prediction"
        )
    return parser


def _add_network(group, predicting):
    """How the network is run."""
    add = group.add_argument
    add("--scale", "-s", type=scale_factor, metavar="S", help="(default: the checkpoint's)")
    add_switch(group, "--amp", None, "mixed precision (default: as in training)")
    add(
        "--engine",
        choices=(*choices.ENGINES, "auto") if predicting else choices.ENGINES,
        default="torch",
        help="what runs the network" + "; auto: the fastest here, if nothing is scored" * predicting,
    )
    add("--int8", action="store_true", help="with --engine openvino: the int8 model that export.py --int8 made")
    add(
        "--tta",
        choices=choices.VIEWS,
        default="none",
        help="test-time augmentation, the mean of several "
        "views: flip adds a mirrored one, scales six in all (times 0.8, 1 and 1.25, mirrored or not)",
    )


def _add_frames(group):
    """Which frames, and how their masks are read."""
    add = group.add_argument
    add(
        "--input",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="a folder with images/ [and masks/], a folder of images, or files (default: data/validation)",
    )
    add("--masks", type=Path, metavar="DIR", help="the folder of the true masks, if it is not beside images/")
    add(
        "--mask-values",
        type=mask_values,
        metavar="V,V,...",
        help="mask value of each class, where neither the checkpoint nor the masks should say",
    )
    add_subject_regex(group)


def _add_millimetres(group, margin):
    """The spacing of the frames, and the margin."""
    spacing = group.add_mutually_exclusive_group()
    spacing.add_argument(
        "--pixels-per-mm", type=pixel_density, metavar="P", help="of all files: distances are then in mm"
    )
    spacing.add_argument(
        "--spacing",
        type=Path,
        metavar="FILE.csv",
        help="columns file, pixels_per_mm (or pixels_per_mm_x, pixels_per_mm_y)",
    )
    if margin:
        group.add_argument(
            "--margin-mm",
            type=margin_width,
            default=DEFAULT_MARGIN_MM,
            metavar="MM",
            help="the true borders are taken to be known to within this",
        )


def export_parser(documentation):
    """Return the parser of every export.py. documentation: the docstring of the script."""
    parser = Parser(documentation)
    add = parser.add_argument
    add("--load", "-f", type=Path, required=True, metavar="CKPT", help="the checkpoint to export, or the name of a run")
    add(
        "--input",
        type=Path,
        nargs="+",
        metavar="PATH",
        default=[folders.DATA / "validation"],
        help="frames on which the exported model must agree; with masks for --int8",
    )
    add("--masks", type=Path, metavar="DIR", help="the folder of the true masks, if it is not beside images/")
    add("--scale", "-s", type=scale_factor, metavar="S", help="(default: the checkpoint's)")
    add("--mask-values", type=mask_values, metavar="V,V,...", help="of each class, if the checkpoint holds none")
    add("--int8", action="store_true", help="8-bit integers, for predict.py --engine openvino --int8")
    add(
        "--calibration-frames",
        type=Path,
        nargs="+",
        metavar="PATH",
        default=[folders.DATA / "train"],
        help="frames that set the ranges of --int8: those of training",
    )
    add("--workers", type=worker_number, metavar="N", help="threads that decode frames (default: all)")
    return parser


def scoring_values(args):
    """The options of add_scoring that say what to score and where to write it, for score.Request."""
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
