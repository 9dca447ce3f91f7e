"""Write the frames of clips, cines, stacks and volumes as PNG images, which you can annotate and train on.

    python -m sonogravity.convert SOURCE --output data/new

Write images/, subjects.csv and, if the files give their scale, spacing.csv to the folder DIR.
"""

import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from sonogravity.commands import script
from sonogravity.commands.options import add_part
from sonogravity.common import files, progress
from sonogravity.common.claims import claim_folder
from sonogravity.common.messages import InputError, say, some, warn
from sonogravity.common.option_types import positive_int, subject_regex
from sonogravity.common.workers import ahead, decoding_threads
from sonogravity.datasets import spacing, subjects
from sonogravity.datasets.frame_files import read_image
from sonogravity.datasets.inputs import Part, find_input_pairs


def build_parser():
    parser = script.Parser(__doc__)
    add = parser.add_argument
    add("source", type=Path, nargs="+", metavar="SOURCE", help="files, folders of files, or a DICOMDIR")
    add("--output", type=Path, required=True, metavar="DIR", help="folder for images/; nothing in it is replaced")
    add("--every", type=positive_int, default=1, metavar="N", help="of each clip, take every N-th frame")
    add("--channels", type=int, choices=(1, 3), default=1, help="1: write grey images; 3: keep colours")
    add_part(parser)
    add(
        "--subject-regex",
        type=subject_regex,
        metavar="RE",
        help="regular expression; its first group is the subject in a file name without extension",
    )
    return parser


@script.script
def main(argv=None):
    options = build_parser().parse_args(argv)
    part = Part(options.region, options.first, options.last)
    pairs, notes = find_input_pairs(options.source, partial=True, use_masks=False, part=part)
    for note in notes:
        warn(note)
    images = [pair.image for pair in pairs]
    images = [image for image in images if not image.is_numbered or image.number % options.every == 0]
    naming = subjects.Subjects(options.subject_regex)
    named = naming.of([image.stem for image in images], [image.clip for image in images])
    with claim_folder(options.output, ", or give another --output"):
        write_images(images, options.output, options.channels)
        write_tables(images, named, options.output)
    say(f"written: {len(images)} images to {options.output / 'images'}")
    say(f"next: draw their masks, with the same names, into {options.output / 'masks'}, then train")


def write_images(images, output, channels):
    """Write FrameFiles as ``output/images/<stem>.png``.

    Raise InputError, before anything is written, if one of these files, or a table beside images/, exists.
    """
    folder = output / "images"
    paths = [folder / f"{image.stem}.png" for image in images]
    taken = [path for path in (*paths, output / spacing.TABLE, output / subjects.TABLE) if path.exists()]
    if taken:
        raise InputError(
            f"{output}: {len(taken)} of the files to write exist ({some(taken)}); give another --output, or remove them"
        )
    folder.mkdir(parents=True, exist_ok=True)

    def convert(item):
        image, path = item
        array = read_image(image, channels)
        region = image.sequence and image.sequence.region
        files.write_whole(path, _write_png, array if region is None else region.of(array), image)

    done = ahead(convert, zip(images, paths, strict=True), decoding_threads(None))
    for _ in progress.bar(done, "converting", len(images), "frame"):
        pass


def write_tables(images, named, output):
    """Write the subject and the scale of FrameFiles as tables beside images/. named: the subject of each, or None.

    Scripts use these tables unasked, and that of subjects needs all images.
    """
    names = [f"{image.stem}.png" for image in images]
    without = [name for name, subject in zip(names, named, strict=True) if not subject]
    if without:
        say(
            f"no {subjects.TABLE}: the names of {len(without)} of {len(images)} images give no subject "
            f"({some(without)}); --subject-regex tells how to read it"
        )
    else:
        rows = list(zip(names, named, strict=True))
        files.write_whole(output / subjects.TABLE, _write_table, ("file", "subject"), rows)
        say(f"written: {output / subjects.TABLE}, subjects: {some(sorted(set(named)))}")
    scales = [image.sequence.spacing if image.sequence else None for image in images]
    rows = [(name, scale.x, scale.y) for name, scale in zip(names, scales, strict=True) if scale]
    if rows:
        head = ("file", "pixels_per_mm_x", "pixels_per_mm_y")
        files.write_whole(output / spacing.TABLE, _write_table, head, rows)
        say(f"written: {output / spacing.TABLE}, the scale of {len(rows)} of {len(images)} images")


def _write_png(path, array, image):
    if array.dtype == np.float32:
        raise InputError(f"{image}: holds floats, which PNG cannot hold; save it as uint8 or uint16")
    if array.dtype == np.uint16 and array.ndim == 3:
        raise InputError(f"{image}: is 16-bit in colour, which PNG images here cannot be; convert with --channels 1")
    Image.fromarray(array).save(path, format="PNG")


def _write_table(path, head, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])


if __name__ == "__main__":
    sys.exit(main())
