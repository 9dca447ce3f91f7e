"""Where a frame lies, in a file of its own or in one with others, and its pixels or mask values."""

from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from sonogravity.common.file_names import frame_name
from sonogravity.common.files import BROKEN_FILE
from sonogravity.datasets.file_kinds import stem_of
from sonogravity.datasets.image_files import decode_image
from sonogravity.datasets.mask_files import MaskFile, mask_of_array, read_mask
from sonogravity.datasets.sequences import Sequence


@dataclass(frozen=True, slots=True)
class FrameFile:
    """Where a frame lies: in a plain image or mask file, or in a file that a reader opened as a sequence.

    file_stem: of the file, else the stem of its path. sequence: None for a plain file. number: of the frame in the
    sequence, from 0.
    """

    path: Path
    file_stem: str = ""
    sequence: Sequence | None = field(default=None, compare=False)
    number: int = 0

    def __post_init__(self):
        if not self.file_stem:
            object.__setattr__(self, "file_stem", stem_of(self.path.name))

    @property
    def is_numbered(self):
        """Whether the frame has a number in its name, because its file may hold several."""
        return self.sequence is not None and self.sequence.numbered

    @property
    def is_of_several(self):
        """Whether the file holds several frames."""
        return self.is_numbered and self.sequence.count > 1

    @property
    def stem(self):
        """Return the identity of the frame, which pairs images and masks and names outputs."""
        return frame_name(self.file_stem, self.number) if self.is_numbered else self.file_stem

    @property
    def clip(self):
        """Return the stem of the file if the frame has a number, else None."""
        return self.file_stem if self.is_numbered else None

    @property
    def name(self):
        """Return the name of the frame in tables: that of its file, or its identity if this is another."""
        return self.path.name if self.stem == stem_of(self.path.name) else self.stem

    @property
    def time_s(self):
        """Return the seconds from the first frame of the sequence, None if the file does not give them."""
        times = self.sequence and self.sequence.times
        return times[self.number] if times else None

    def __str__(self):
        return f"{self.path}, frame {self.number}" if self.is_numbered else str(self.path)


def read_image(file, channels):
    """Return the image of a FrameFile as image_files.decode_image returns it."""
    return file.sequence.read(file.number, channels) if file.sequence else decode_image(file.path, channels)


def size_of(file):
    """Return the (H, W) of a FrameFile. Raise InputError if it cannot be read."""
    if file.sequence:
        return file.sequence.size
    try:
        with Image.open(file.path) as image:  # reads the header only
            return image.height, image.width
    except (*BROKEN_FILE, Image.DecompressionBombError):  # an array, or a file that decode_image explains
        return decode_image(file.path, 1).shape[:2]


def read_mask_file(file):
    """Return the MaskFile of a FrameFile."""
    if file.sequence is None:
        return read_mask(file.path)
    return MaskFile(mask_of_array(file.sequence.read_values(file.number), file), {})
