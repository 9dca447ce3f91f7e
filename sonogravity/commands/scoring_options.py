"""The options of predict, evaluate and export. Nothing here imports torch, so that --help responds at once."""

from pathlib import Path

from sonogravity.commands.options import (
    add_background,
    add_common,
    add_ignore,
    add_normalise,
    add_part,
    add_subjects,
    add_switch,
    class_names,
    mask_values,
)
from sonogravity.commands.script import Parser
from sonogravity.common import choices, folders
from sonogravity.common.file_names import MASK_SUFFIXES, PANEL_KINDS
from sonogravity.common.files import absolute, digest_of_paths
from sonogravity.common.messages import InputError
from sonogravity.common.option_types import (
    margin_width,
    number_type,
    scale_factor,
    smoothing_time,
    worker_number,
)
from sonogravity.datasets.inputs import Part
from sonogravity.datasets.spacing import DEFAULT_MARGIN_MM, MOST_PIXELS_PER_MM
from sonogravity.datasets.subjects import Subjects
from sonogravity.training import stored_options

INPUT_PATHS = ("masks", "predictions", "spacing", "subjects")
PREDICTIONS_ONLY = ("prediction_values", "class_names", "background")
pixel_density = number_type(
    float, 0, MOST_PIXELS_PER_MM, True, f"a number of pixels per mm above 0 and up to {MOST_PIXELS_PER_MM}"
)


def scoring_parser(script_name, documentation):
    """Return the parser of predict, evaluate, predict_w_margin or evaluate_w_margin.

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
        help="a checkpoint, or the name of a run; several form an ensemble (mean of their probabilities)",
    )
    if not predicting:
        source.add_argument(
            "--predictions", type=Path, metavar="DIR", help="folder of masks of any origin, scored instead of a model"
        )
    _add_network(model, predicting)
    data = parser.add_argument_group("data")
    _add_frames(data)
    if predicting:
        data.add_argument("--no-masks", action="store_true", help="use no masks, even if masks/ stands beside images/")
    else:
        _add_predictions(parser.add_argument_group("with --predictions"))
    _add_millimetres(parser.add_argument_group("millimetres"), margin=script_name.endswith("_w_margin"))
    output = parser.add_argument_group("run")
    add_common(output, 4)
    output.add_argument(
        "--output", type=Path, metavar="DIR", help="folder of the results (default: results/<model>/<run>/<script>)"
    )
    if predicting:
        output.add_argument(
            "--panels",
            choices=(*PANEL_KINDS, "none"),
            default="png",
            help="file format of the panels: image, truth and prediction; of the frames of clips only if it is given",
        )
        add_switch(
            output, "--video", True, "write the overlay video of each clip; --no-video saves time and disk space"
        )
        output.add_argument(
            "--mask-format",
            choices=MASK_SUFFIXES,
            default="png",
            help="tiff, nifti: one label stack per clip, cine, stack or volume; png: one mask per frame",
        )
        output.add_argument(
            "--grey-masks",
            action="store_true",
            help="write masks without the colours of the classes, for programs that read colours as values",
        )
    return parser


def add_scale(add):
    """Add --scale to a parser or a group. add: its add_argument."""
    help_text = "factor by which frames are resized (default: as in training)"
    add("--scale", "-s", type=scale_factor, metavar="S", help=help_text)


def _add_masks(add):
    add("--masks", type=Path, metavar="DIR", help="folder of the true masks, if it is not masks/ beside images/")


def _add_network(group, predicting):
    """Add the options on how the network is run."""
    add = group.add_argument
    add_scale(add)
    add_normalise(group, "as in a checkpoint of train.py; else none")
    add_switch(group, "--amp", None, "mixed precision (default: as in training)")
    add(
        "--engine",
        choices=(*choices.ENGINES, "auto") if predicting else choices.ENGINES,
        default="torch",
        help="software that runs the network" + "; auto: the fastest, for frames without masks" * predicting,
    )
    add("--int8", action="store_true", help="with --engine openvino: use the int8 model of export.py --int8")
    add(
        "--tta",
        choices=choices.VIEWS,
        default="none",
        help="test-time augmentation, the mean over several views: flip uses the frame and its mirror image, "
        "scales uses both at 0.8, 1 and 1.25 times --scale",
    )


def _add_frames(group):
    """Add the options on the frames and their masks."""
    add = group.add_argument
    add(
        "--input",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="a folder with images/ [and masks/], a folder of images, clips or DICOM files, or files (default: "
        "data/validation)",
    )
    _add_masks(add)
    add_part(group)
    add(
        "--smooth",
        type=smoothing_time,
        metavar="SECONDS",
        help="average the logits of each frame of a clip with those of the frames before, with this time constant",
    )
    add(
        "--mask-values",
        type=mask_values,
        metavar="V,V,...",
        help="mask value of each class, for weights or true masks that do not define all of them",
    )
    add_ignore(group, "default: the checkpoint's")
    add_subjects(group)


def _add_predictions(group):
    """Add the options on masks of any origin, whose classes no checkpoint knows."""
    add = group.add_argument
    add(
        "--prediction-values",
        type=mask_values,
        metavar="V,V,...",
        help="their value of each class, in the order of the true masks' values (default: the same values)",
    )
    add("--class-names", type=class_names, metavar="A,B", help="names of the foreground values, smallest first")
    add_background(group)


def add_spacing(group):
    """Add --pixels-per-mm and --spacing, of which one may be given."""
    spacing = group.add_mutually_exclusive_group()
    spacing.add_argument(
        "--pixels-per-mm", type=pixel_density, metavar="P", help="spacing of all files; distances are then in mm"
    )
    spacing.add_argument(
        "--spacing",
        type=Path,
        metavar="FILE.csv",
        help="table with the columns file and pixels_per_mm (or pixels_per_mm_x, pixels_per_mm_y)",
    )


def _add_millimetres(group, margin):
    """Add the options on the spacing of the frames and on the margin."""
    add_spacing(group)
    if margin:
        group.add_argument(
            "--margin-mm",
            type=margin_width,
            default=DEFAULT_MARGIN_MM,
            metavar="MM",
            help="distance by which the true masks are dilated and eroded",
        )


def export_parser(documentation):
    """Return the parser of every export.py. documentation: the docstring of the script."""
    parser = Parser(documentation)
    add = parser.add_argument
    add("--load", "-f", type=Path, required=True, metavar="CKPT", help="checkpoint to export, or the name of a run")
    add(
        "--input",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="frames on which the exported model must agree with the checkpoint; --int8 needs their masks (default: "
        "data/validation)",
    )
    _add_masks(add)
    add_scale(add)
    add_normalise(parser, "as in a checkpoint of train.py; else none")
    add("--mask-values", type=mask_values, metavar="V,V,...", help="one per class, if the checkpoint has none")
    add_ignore(parser, "default: the checkpoint's")
    add("--int8", action="store_true", help="export 8-bit integers, for predict.py --engine openvino --int8")
    add(
        "--calibration-frames",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="training frames that set the ranges of --int8 (default: data/train)",
    )
    add("--workers", type=worker_number, metavar="N", help="threads that decode frames (default: one per core)")
    return parser


def scoring_values(args):
    """Return the keywords of score.Request from the options of scoring_parser."""
    names = (
        "masks",
        "output",
        "batch_size",
        "workers",
        "pixels_per_mm",
        "spacing",
        "engine",
        "int8",
        "tta",
        "mask_format",
    )
    values = {name: getattr(args, name, None) for name in names}
    panels = getattr(args, "panels", "none")
    own = (args.scale, args.normalise, args.amp, args.engine, args.int8, args.tta, args.smooth, args.region)
    of_a_model = own != (None, None, None, "torch", False, "none", None, None)
    if getattr(args, "predictions", None) and of_a_model:
        raise InputError(
            "--scale, --normalise, --amp, --engine, --int8, --tta, --smooth and --region apply to a model, but "
            "--predictions uses none; leave them out"
        )
    named = [name for name in PREDICTIONS_ONLY if getattr(args, name, None) is not None]
    if named and not args.predictions:
        raise InputError(f"--{named[0].replace('_', '-')}: is for --predictions; a model has its own, so leave it out")
    if getattr(args, "no_masks", False) and args.masks:
        raise InputError("--no-masks and --masks: exclude each other; give one of them")
    masks_only = getattr(args, "predictions", None) and args.masks
    inputs = args.input or ([] if masks_only else [folders.DATA / "validation"])
    return values | {
        "use_masks": not getattr(args, "no_masks", False),
        "inputs": inputs,
        "subjects": Subjects.given(args, inputs),
        "margin_mm": getattr(args, "margin_mm", None),
        "panels": None if panels == "none" else panels,
        "panels_of_clips": "panels" in args.given,
        "smooth_seconds": args.smooth,
        "video": getattr(args, "video", False),
        "part": Part(args.region, args.first, args.last),
        "grey_masks": getattr(args, "grey_masks", False),
        "options": _without_folders(stored_options.options_as_dict(args), inputs),
    }


def _without_folders(options, inputs):
    """Return options as settings.json stores them: input paths by their last part, because folders may name a patient.

    The digest of the whole paths tells whether two results are of the same inputs.
    """
    whole = [str(absolute(path)) for path in inputs]
    digest = digest_of_paths([*whole, *(options[name] for name in ("masks", "predictions") if options.get(name))])
    names = {name: Path(options[name]).name for name in (*INPUT_PATHS, "output") if options.get(name)}
    return options | names | {"input": [Path(path).name for path in whole], "digest_of_inputs": digest}
