"""Write the frames of clips, cines, stacks and volumes, and what is drawn on them, as images and masks to train on.

    python -m sonogravity.convert SOURCE --output data/new

Write images/, masks/ (if there are annotations), subjects.csv, spacing.csv and classes.csv to the folder DIR.
"""

from collections import Counter
from pathlib import Path

from sonogravity.commands import script
from sonogravity.commands.convert_report import report
from sonogravity.commands.options import add_part, add_subjects, class_names
from sonogravity.common.claims import claim_folder
from sonogravity.common.csv_tables import tables_beside_images
from sonogravity.common.file_names import frame_name
from sonogravity.common.files import absolute
from sonogravity.common.messages import InputError, say, some, warn
from sonogravity.common.option_types import positive_int
from sonogravity.datasets import spacing
from sonogravity.datasets.file_kinds import stem_of
from sonogravity.datasets.inputs import Part, notes_on_images, open_frames
from sonogravity.datasets.labelling import find_labelling
from sonogravity.datasets.source_trees import find_sources
from sonogravity.datasets.subjects import Subjects, subjects_in_names
from sonogravity.reporting.converted_set import ConvertedSet, name_items
from sonogravity.reporting.new_names import Rename


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
    if options.output.exists() and not options.output.is_dir():
        raise InputError(f"{options.output}: is a file, but the output is a folder; give another --output")
    sources = find_sources(options.source, options.masks, options.output)
    images, notes = _find_images(sources, options)
    _refuse_idle_options(options, sources, images)
    with claim_folder(options.output, ", or give another --output"):  # what is read of the set must not change
        output, rename = ConvertedSet(options.output), Rename(options.output)
        _refuse_other_naming(options, rename)
        labelling, more = find_labelling(sources, images, options.class_names, output.classes)
        for note in [*sources.notes(), *notes, *more]:
            warn(note)
        if labelling is not None:
            images = _labelled(images, labelling, options.keep_empty)
            labelling.refuse_other_sizes(images.values())
        for note in notes_on_images(images.values(), names_remain=not options.rename):
            warn(note)
        frames, rename = list(images.values()), rename if options.rename else None
        items = name_items(frames, _subjects_of(frames, sources, options), _spacings_of(frames, sources), rename)
        try:
            written = output.write(items, labelling, options.channels, rename)
        except KeyboardInterrupt:
            say("if you repeat the command, it goes on where it was interrupted")
            raise
    report(output, items, labelling, written, rename)


def _refuse_other_naming(options, rename):
    """Raise InputError if files of one person would get an old and a new name in one set."""
    adds_to_itself = absolute(options.output) in map(absolute, options.source)
    if options.rename and adds_to_itself:
        raise InputError("--rename: the output is also a source, whose files keep their names; leave --rename out")
    if not options.rename and not adds_to_itself and not rename.is_new:
        raise InputError(f"{rename.table}: the files of this set have new names; give --rename, or another --output")


def _find_images(sources, options):
    """Return {identity: FrameFile} of the frames to convert, and notes on them."""
    images, notes = open_frames(sources.images, Part(options.region, options.first, options.last))
    first = {}
    for image in images.values():
        first.setdefault(image.path, image.number)
    return {
        key: image
        for key, image in images.items()
        if not image.is_numbered or (image.number - first[image.path]) % options.every == 0
    }, notes


def _refuse_idle_options(options, sources, images):
    """Raise InputError for options that would change nothing, because the user may expect that they do."""
    if not any(image.is_numbered for image in images.values()):
        for name in ("every", "first", "last"):
            if name in options.given:
                option = {"first": "from", "last": "to"}.get(name, name)
                raise InputError(f"--{option}: chooses frames of clips, but no file holds several; leave it out")
    if not sources.annotations and not sources.masks:
        for name in ("class_names", "keep_empty"):
            if name in options.given:
                raise InputError(
                    f"--{name.replace('_', '-')}: is for annotations, but there are none; leave it out, or give them"
                )
    if options.class_names and len(set(options.class_names)) < len(options.class_names):
        raise InputError("--class-names: names a label twice; give each label once")


def _labelled(images, labelling, keep_empty):
    """Return the images that have a mask, and say which are left out."""
    empty = set() if keep_empty else labelling.without_labels()
    without = [image for name, image in images.items() if name not in labelling]
    nothing = [image for name, image in images.items() if name in labelling and name in empty]
    for left, why in (
        (without, "have no annotation and are left out"),
        (nothing, "have an annotation without an area and are left out (--keep-empty takes them as background)"),
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
    own = [stem_of(_local_name(image)) for image in images]
    if given.table is not None:
        listed = given.table if options.subjects else {}  # it may name the files as the data set does
        stems = [image.stem if image.stem in listed else name for image, name in zip(images, own, strict=True)]
        return given.of(stems, [stem_of(image.path.name) for image in images])
    names = [image.clip or image.stem for image in images]
    if options.subject_regex is not None:
        unread = [name for name, found in zip(names, subjects_in_names(names, given.regex), strict=True) if not found]
        if unread:
            shown = some(dict.fromkeys(unread))
            warn(f"--subject-regex: finds no subject in {len(unread)} of {len(names)} names ({shown})")
        return given.of([image.stem for image in images], [image.clip for image in images])
    folders = [sources.subjects[image.file_stem] for image in images]
    in_names = given.of(own, [stem_of(image.path.name) if image.is_numbered else None for image in images])
    if any(folders) and any(in_names):
        taken, read = (some(dict.fromkeys(filter(None, each))) for each in (folders, in_names))
        say(f"subjects:   from the folders ({taken}); --subject-regex would read the file names instead (as {read})")
    return [folder or subject for folder, subject in zip(folders, in_names, strict=True)]


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
