"""Write the frames of clips, cines, stacks and volumes, and what is drawn on them, as images and masks to train on.

    python -m sonogravity.convert SOURCE --output data/new

Write images/, masks/ (if there are annotations), subjects.csv, spacing.csv and classes.csv to the folder DIR.
"""

import shlex
from collections import Counter
from pathlib import Path

from sonogravity.commands import script
from sonogravity.commands.options import add_part, add_subjects, class_names
from sonogravity.common.claims import claim_folder
from sonogravity.common.csv_tables import tables_beside_images
from sonogravity.common.file_names import frame_name
from sonogravity.common.messages import InputError, say, some, warn
from sonogravity.common.option_types import positive_int
from sonogravity.datasets import class_tables, spacing
from sonogravity.datasets.file_kinds import stem_of
from sonogravity.datasets.inputs import Part, notes_on_images, open_frames
from sonogravity.datasets.labelling import find_labelling
from sonogravity.datasets.labels import value_text
from sonogravity.datasets.source_trees import find_sources
from sonogravity.datasets.subjects import TABLE, Subjects
from sonogravity.reporting.converted_set import ConvertedSet, Rename, name_items

LOOK_FIRST = 5  # number of shapes that are named on the terminal
MOST_FOLDS = 5  # that the proposed command has


def build_parser():
    parser = script.Parser(__doc__)
    add = parser.add_argument
    add(
        "source",
        type=Path,
        nargs="+",
        metavar="SOURCE",
        help="images, clips, annotations (LabelMe, COCO, CVAT, .seg.nrrd), folders or trees of folders of them, or a "
        "DICOMDIR",
    )
    add("--output", type=Path, required=True, metavar="DIR", help="folder of the data set; nothing in it is replaced")
    add(
        "--masks",
        type=Path,
        nargs="+",
        default=[],
        metavar="PATH",
        help="label stacks and masks, if they are not in masks/ beside images/",
    )
    add("--class-names", type=class_names, metavar="A,B", help="labels in the order of their mask values 1, 2, ...")
    add("--keep-empty", action="store_true", help="also take frames on which nothing is drawn, as background")
    add("--every", type=positive_int, default=1, metavar="N", help="of each clip, take every N-th frame")
    add("--channels", type=int, choices=(1, 3), default=1, help="1: write grey images; 3: keep colours")
    add_part(parser)
    add("--rename", action="store_true", help="number subjects and files, because names may tell who a patient is")
    add_subjects(parser)
    return parser


@script.script
def main(argv=None):
    options = build_parser().parse_args(argv)
    sources = find_sources(options.source, options.masks, options.output)
    images, notes = open_frames(sources.images, Part(options.region, options.first, options.last))
    images = {key: each for key, each in images.items() if not each.is_numbered or each.number % options.every == 0}
    output = ConvertedSet(options.output)
    labelling, more = find_labelling(sources, images, options.class_names, output.classes)
    for note in [*sources.notes(), *notes, *more]:
        warn(note)
    if labelling is not None:
        images = _labelled(images, labelling, options.keep_empty)
        labelling.refuse_other_sizes(images.values())
    for note in notes_on_images(images.values(), names_remain=not options.rename):
        warn(note)
    rename = Rename(options.output) if options.rename else None
    frames = list(images.values())
    with claim_folder(options.output, ", or give another --output"):
        items = name_items(frames, _subjects_of(frames, sources, options), _spacings_of(frames, sources), rename)
        if rename is not None:
            rename.save()
        values = output.write(items, labelling, options.channels)
    _report(output, items, labelling, values, rename)


def _labelled(images, labelling, keep_empty):
    """Return the images that have a mask, and say which are left out."""
    empty = set() if keep_empty else labelling.without_labels()
    without = [image for name, image in images.items() if name not in labelling]
    nothing = [image for name, image in images.items() if name in labelling and name in empty]
    for left, why in (
        (without, "are not annotated, and are left out"),
        (nothing, "are annotated, but nothing is drawn on them, and are left out (--keep-empty takes them)"),
    ):
        if left:
            say(f"{len(left)} of {len(images)} images {why}: {_by_source(left)}")
    left = {image.stem for image in (*without, *nothing)}
    kept = {name: image for name, image in images.items() if name not in left}
    if not kept:
        raise InputError(f"nothing is drawn on any of {len(images)} images; --keep-empty takes them as background")
    return kept


def _by_source(images):
    """Return images as text: the frames of a clip by their number."""
    counts = Counter(image.file_stem for image in images if image.is_numbered)
    return some(
        [
            *(f"{count} frames of {name}" for name, count in counts.items()),
            *(image.name for image in images if not image.is_numbered),
        ]
    )


def _local_name(image):
    """Return the name of a FrameFile without the folders of its tree, as a table beside it gives it."""
    return frame_name(stem_of(image.path.name), image.number) if image.is_numbered else image.path.name


def _subjects_of(images, sources, options):
    """Return the subject of each FrameFile: of a table or --subject-regex, else its folder in a tree, else its name."""
    given = Subjects.given(options, sources.folders)
    if given.table is not None and options.subjects is None:
        return given.of(
            [stem_of(_local_name(image)) for image in images], [stem_of(image.path.name) for image in images]
        )
    found = given.of([image.stem for image in images], [image.clip for image in images])
    if given.table is not None or options.subject_regex is not None:
        return found
    folders = [sources.subjects[image.file_stem] for image in images]
    return [folder or subject for folder, subject in zip(folders, found, strict=True)]


def _spacings_of(images, sources):
    """Return the Spacing of each FrameFile: of a table beside images/, else of the file, else None."""
    found = [image.sequence.spacing if image.sequence else None for image in images]
    for table in tables_beside_images(sources.folders, spacing.TABLE):
        names = {i: _local_name(image) for i, image in enumerate(images) if table.parent in image.path.parents}
        clips = {name: images[i].path.name for i, name in names.items()}
        rows = spacing.look_up(list(names.values()), spacing.read_table(table), clips)
        for i, name in names.items():
            found[i] = rows[name] or found[i]
    return found


def _report(output, items, labelling, values, rename):
    """Print what was made, and the command that trains on it."""
    masks = " and their masks" * (labelling is not None)
    say(f"written:    {len(items)} images{masks} to {output.folder}")
    known = sorted({item.subject for item in items if item.subject})
    without = [item.file for item in items if not item.subject]
    if without:
        say(
            f"no {TABLE}: the names of {len(without)} of {len(items)} images give no subject ({some(without)}); "
            "--subject-regex tells how to read it"
        )
    else:
        say(f"subjects:   {len(known)} ({some(known)}), in {output.folder / TABLE}")
    if scaled := sum(item.spacing is not None for item in items):
        say(f"spacing:    of {scaled} of {len(items)} images, in {output.folder / spacing.TABLE}")
    if rename is not None:
        say(f"names:      {rename.table} tells which file has which name; keep it apart from {output.folder}")
    if labelling is None:
        say(f"next: draw the masks, with the same names, into {output.masks}, then train")
        return
    names = {value: label for label, value in labelling.values.items()}
    shown = [f"{value_text(value)} {names.get(value, '')}".strip() for value in values]
    say(f"values:     {', '.join(shown)}" + (f", in {output.folder / class_tables.TABLE}" if names else ""))
    for drawing in labelling.too_small[:LOOK_FIRST]:
        warn(f"{drawing.source}: {drawing} has a shape that holds no pixel centre, so it is not in the mask")
    say(f"next: {_train_command(output.folder, known, not without, [names.get(value) for value in values if value])}")


def _train_command(folder, subjects_known, all_known, names):
    """Return the command that trains on a folder. names: of the foreground values, None for a value without one."""
    words = ["python", "unet/train.py", "--train", str(folder)]
    other = folder.parent / ("train" if folder.name == "validation" else "validation")
    if (other / "images").is_dir() and (other / "masks").is_dir() and folder.name in ("train", "validation"):
        words[2:] = ["--train", str(folder.parent / "train"), "--validation", str(folder.parent / "validation")]
    elif all_known and len(subjects_known) > 1:
        words += ["--folds", str(min(MOST_FOLDS, len(subjects_known)))]
    else:
        words += ["--validation", "FOLDER_OF_OTHER_SUBJECTS"]
    if names and None not in names:
        words += ["--class-names", ",".join(names)]
    return shlex.join(words)
