"""Write predicted masks: one PNG per frame, or one label stack (TIFF or NIfTI) per clip, cine, stack or volume."""

from contextlib import ExitStack

import numpy as np

from sonogravity.common import file_names, files
from sonogravity.common.messages import InputError
from sonogravity.datasets.labels import COLOUR
from sonogravity.datasets.mask_files import write_mask
from sonogravity.datasets.sequences import MOST_IN_MEMORY, need
from sonogravity.datasets.volume_files import write_volume
from sonogravity.reporting.pictures import mask_colours

PNG, TIFF, NIFTI = "png", "tiff", "nifti"
PACKAGES = {TIFF: "tifffile", NIFTI: "SimpleITK"}


class MaskOutput:
    """The masks of one run of predict. kind: one of file_names.MASK_SUFFIXES.

    folder: of the masks. spacings: by the name of the frame. grey: write PNG without the colours of the classes.
    """

    def __init__(self, folder, kind, labels, pairs, spacings, grey):
        self._folder, self._kind, self._labels, self._spacings = folder, kind, labels, spacings
        self._colours = None if grey else mask_colours(labels)
        self._last = {pair.image.path: pair.image.number for pair in pairs}  # the frame that completes its stack
        self._open = ExitStack()
        self._frames = []  # of the NIfTI stack in progress
        self._pages = None  # writer of the TIFF stack in progress
        self._check(pairs)

    def _check(self, pairs):
        if self._kind == PNG:
            return
        need("--mask-format", self._kind, PACKAGES[self._kind])
        if self._kind == NIFTI:
            if max(self._labels.values) >= COLOUR:
                raise InputError("--mask-format nifti: cannot hold masks whose values are colours; give tiff or png")
            large = [pair.image for pair in pairs if _bytes_of(pair.image) > MOST_IN_MEMORY]
            if large:
                raise InputError(
                    f"--mask-format nifti: the stack of {large[0].path} would need "
                    f"{_bytes_of(large[0]) / 2**30:.0f} GB of memory; give tiff"
                )
        cut = {pair.image.path for pair in pairs if pair.image.is_numbered} & _incomplete(pairs)
        if cut:
            raise InputError(
                f"--mask-format {self._kind}: --from and --to leave out frames of {min(cut)}, so a stack would have "
                "other frame numbers; give --mask-format png"
            )

    def write(self, pair, classes):
        """Write the mask of a frame that is a file of its own. Return the mask values for ``append``."""
        values = self._labels.to_values(classes)
        stem = pair.stem
        if self._kind == PNG:
            files.write_whole(self._folder / file_names.mask_name(stem), write_mask, values, self._colours)
        elif not pair.image.is_numbered:
            path = self._folder / file_names.mask_name(stem, self._kind)
            files.write_whole(path, self._write_single, values, pair.image)
        return values

    def append(self, pair, values):
        """Append a frame to the stack of its file. Frames come in order."""
        if self._kind == PNG or not pair.image.is_numbered:
            return
        path = self._folder / file_names.mask_name(pair.image.file_stem, self._kind)
        if self._kind == TIFF:
            if self._pages is None:
                import tifffile

                beside = self._open.enter_context(files.whole(path))
                self._pages = self._open.enter_context(tifffile.TiffWriter(beside))
            _write_page(self._pages, values)
        else:
            self._frames.append(values)
        if pair.image.number == self._last[pair.image.path]:
            if self._kind == NIFTI:
                files.write_whole(path, self._write_nifti, np.stack(self._frames), pair.image)
            self._frames, self._pages = [], None
            self._open.close()

    def _write_single(self, path, values, image):
        if self._kind == NIFTI:
            self._write_nifti(path, values, image)
            return
        import tifffile

        with tifffile.TiffWriter(path) as pages:
            _write_page(pages, values)

    def _write_nifti(self, path, values, image):
        spacing, own = self._spacings[image.name], image.sequence and image.sequence.spacing
        if spacing.assumed and own:  # lengths are in pixels if other files have no scale, but this one has
            spacing = own
        write_volume(path, values, image.sequence and image.sequence.geometry, spacing)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is not None:  # a stack that is not complete must not appear
            self._open.__exit__(kind, error, trace)


def _bytes_of(image):
    return image.sequence.count * image.sequence.size[0] * image.sequence.size[1] if image.sequence else 0


def _incomplete(pairs):
    """Return the files of which frames are left out."""
    counts = {}
    for pair in pairs:
        counts[pair.image.path] = counts.get(pair.image.path, 0) + 1
    return {pair.image.path for pair in pairs if counts[pair.image.path] < getattr(pair.image.sequence, "count", 1)}


def _write_page(pages, values):
    kind = "rgb" if values.ndim == 3 else "minisblack"
    pages.write(values, photometric=kind, compression="deflate", contiguous=False, metadata=None)
