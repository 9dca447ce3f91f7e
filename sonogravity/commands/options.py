"""The options that several scripts have. Nothing here imports torch, so that --help responds at once."""

import argparse
from pathlib import Path

from sonogravity.common import choices
from sonogravity.common.option_types import (
    device_name,
    frame_limit,
    positive_int,
    region_number,
    subject_regex,
    worker_number,
)
from sonogravity.datasets.inputs import ONLY_REGION
from sonogravity.datasets.labels import parse_value, value_text
from sonogravity.metrics.margin import VARIANTS


def mask_value(text):
    try:
        return parse_value(text if isinstance(text, str) else value_text(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a mask value; give 0 to 65535, or #rrggbb") from None


def class_names(text):
    names = [name.strip() for name in (text.split(",") if isinstance(text, str) else text)]
    taken = ("background", *VARIANTS)  # worksheet columns end in these names
    if not all(names) or set(names) & set(taken):
        raise argparse.ArgumentTypeError(
            f"'{text}': give the names of the foreground classes, separated by commas; {', '.join(taken)} are reserved "
            "for other columns"
        )
    return names


def mask_values(text):
    return [mask_value(part) for part in text.split(",")]


def add_device(parser):
    """Add --device."""
    parser.add_argument(
        "--device",
        type=device_name,
        default="auto",
        metavar="{auto,cpu,cuda[:N],mps}",
        help="device to compute on; auto uses a GPU if there is one",
    )


def add_common(parser, batch_size):
    """Add --device, --workers and --batch-size."""
    add_device(parser)
    parser.add_argument(
        "--workers",
        type=worker_number,
        metavar="N",
        help="threads or processes that prepare frames (default: depends on the device)",
    )
    parser.add_argument(
        "--batch-size",
        "-b",
        type=positive_int,
        default=batch_size,
        metavar="B",
        help="frames per batch (train.py with torchrun: per process)",
    )


def add_subjects(parser):
    """Add --subject-regex, which finds the subject in a file's stem, and --subjects, a table."""
    parser.add_argument(
        "--subjects",
        type=Path,
        metavar="FILE.csv",
        help="table with the columns file and subject (default: the subject stands in the file name)",
    )
    parser.add_argument(
        "--subject-regex",
        type=subject_regex,
        metavar="RE",
        help="regular expression; its first group is the subject in a file name without extension",
    )


def add_background(parser):
    """Add --background, the mask value of the background."""
    parser.add_argument(
        "--background",
        type=mask_value,
        metavar="V",
        help="mask value of the background (default: 0 if the masks hold it, else the value of most pixels)",
    )


def add_ignore(parser, default):
    """Add --ignore, mask values that nothing counts."""
    parser.add_argument(
        "--ignore",
        type=mask_values,
        metavar="V,V,...",
        help=f"mask values of pixels that neither the loss nor any score counts ({default})",
    )


def add_normalise(group, of_others):
    """Add --normalise, the input that weights of other code expect. of_others: what the option's default means."""
    group.add_argument(
        "--normalise",
        choices=choices.NORMALISATIONS,
        help="input of weights of other code: pixels in 0 to 1 (none), or these normalised with ImageNet's mean and "
        f"deviation (imagenet) (default: {of_others})",
    )


def add_region(group):
    """Add --region, the tissue region to use (datasets.inputs.Part)."""
    group.add_argument(
        "--region",
        type=region_number,
        nargs="?",
        const=ONLY_REGION,
        metavar="N",
        help="of DICOM files: use the tissue region only; N if there are several",
    )


def add_part(group):
    """Add --region, --from and --to, the part of the frames to use (datasets.inputs.Part)."""
    add_region(group)
    add = group.add_argument
    add("--from", dest="first", type=frame_limit, metavar="F", help="first frame of each clip: a number from 0, or 3s")
    add("--to", dest="last", type=frame_limit, metavar="F", help="last frame of each clip: a number from 0, or 3s")


def add_switch(parser, name, default, text):
    """Add an option with its opposite, --no-NAME."""
    parser.add_argument(name, action=argparse.BooleanOptionalAction, default=default, help=text)
