"""Where the images of a subject never change, which no part of the body does."""

import numpy as np

STILL_FRAMES = 8  # of one subject, from which a pixel that never changes is no part of the image
STILL_RANGE = 2  # grey levels: JPEG moves a constant area by one or two
MOST_STILL = 0.8  # of the image: if more never changes, the frames are copies of one
MOST_OPEN = 64  # subjects whose grey levels are followed at a time, which bounds the memory


class StillAreas:
    """Where the images of a subject never change: the scanner's screen around the sector.

    frames: {subject: number of its images}, so that each is packed as soon as it is complete.
    """

    def __init__(self, frames):
        self._missing = dict(frames)
        self._open = {}  # (subject, size) -> (images, lowest, highest) grey levels
        self._closed = {}  # (subject, size) -> packed map

    def add(self, subject, image):
        """Take in one (H, W) or (H, W, 3) image of a subject."""
        grey = image if image.ndim == 2 else image[:, :, 1]
        key = subject, grey.shape
        if key in self._open or len(self._open) < MOST_OPEN:
            images, low, high = self._open.get(key, (0, grey, grey))
            self._open[key] = images + 1, np.minimum(low, grey), np.maximum(high, grey)
        self._missing[subject] -= 1
        if not self._missing[subject]:
            for key in [key for key in self._open if key[0] == subject]:
                self._closed[key] = self._packed(*self._open.pop(key))

    def of(self, subject, size):
        """Return the (H, W) bool map of pixels that never change; None if the subject has too few images."""
        packed = self._closed.get((subject, size))
        return None if packed is None else np.unpackbits(packed, count=size[0] * size[1]).reshape(size).astype(bool)

    @staticmethod
    def _packed(images, low, high):
        if images < STILL_FRAMES:
            return None
        level = 1 / 255 if high.dtype == np.float32 else max(1, int(high.max()) // 255)  # one of 256 grey levels
        still = high.astype(np.float32) - low <= STILL_RANGE * level
        return None if still.mean() > MOST_STILL else np.packbits(still)
