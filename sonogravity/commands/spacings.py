"""Choose the spacing of the frames to score: that of an option, of a table beside images/, or of the files."""

from sonogravity.common.csv_tables import tables_beside_images
from sonogravity.common.messages import InputError, say, some, warn
from sonogravity.datasets.spacing import TABLE, describe, find_spacings, look_up, read_table


def choose_spacings(request, images):
    """Return {frame name: Spacing} of FrameFiles, and say where it comes from. request: a score.Request.

    Raise InputError if a table lacks a file, if the scale of a file is not clear, or if the margin would have to assume
    that of some files.
    """
    tables = tables_beside_images(request.inputs, TABLE)
    own = {image.name: image.sequence.spacing if image.sequence else None for image in images}
    clips = {image.name: image.path.name for image in images if image.is_numbered}
    option = "--spacing" if request.spacing else "--pixels-per-mm" if request.pixels_per_mm else None
    if option:
        spacings = find_spacings(list(own), request.pixels_per_mm, request.spacing, own, clips)
        _say_replaced(option, spacings, own, [table for table in tables if table != request.spacing])
        return spacings
    in_tables = {}
    for table in tables:
        names = [image.name for image in images if table.parent in image.path.parents]
        found = {name: row for name, row in look_up(names, read_table(table), clips).items() if row}
        in_tables |= found
        if found:
            say(f"spacing:    {describe(found.values())} from {table}")
        else:
            warn(f"{table}: has no line for any of {len(names)} files ({some(names)}); correct the names in it")
    _refuse_several_scales([image for image in images if image.name not in in_tables])
    of_files = {name: spacing for name, spacing in own.items() if spacing and name not in in_tables}
    own |= in_tables
    without = [name for name, spacing in own.items() if not spacing]
    if of_files and not without:
        several = len({image.path for image in images if image.name in of_files}) > 1
        say(f"spacing:    {describe(of_files.values())} from the file{'s' * several}")
    elif without and len(without) < len(own):
        given = describe(spacing for spacing in own.values() if spacing)
        line = f"{len(without)} of {len(own)} files have no spacing ({some(without)}), the others have {given}"
        if request.margin_mm is not None:
            raise InputError(f"{line}; give --spacing FILE.csv or --pixels-per-mm, or score them separately")
        warn(f"{line}, so all lengths are in pixels; give --spacing FILE.csv, or score them separately")
    return find_spacings(list(own), own=own)


def _say_replaced(option, spacings, own, tables):
    """Say which spacing of files or tables an option replaces."""
    given = {name: spacing for name, spacing in own.items() if spacing and spacing is not spacings[name]}
    if given:
        used = describe(spacings[name] for name in given)
        say(f"spacing:    {used} ({option}) is used instead of the files' own, {describe(given.values())}")
    if kept := [spacing for name, spacing in own.items() if spacing and spacing is spacings[name]]:
        say(f"spacing:    {describe(kept)} of {len(kept)} files that are not in the table")
    if tables:
        say(f"spacing:    from {option}, so {some(tables)} is not used")


def _refuse_several_scales(images):
    """Raise InputError for a DICOM file whose tissue regions differ in scale."""
    for image in {image.path: image for image in images if image.sequence}.values():
        regions = image.sequence.regions
        if image.sequence.region is None and len({region.spacing for region in regions}) > 1:
            scales = [f"{each}: {describe([each.spacing]) if each.spacing else 'none'}" for each in regions]
            raise InputError(
                f"{image.path}: its tissue regions differ in scale ({some(scales)}); choose one with --region "
                f"{regions[0].number}, or give --pixels-per-mm"
            )
