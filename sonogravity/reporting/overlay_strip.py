"""The strip below the frames of an overlay video: the classes with their confidence, the frame and its time."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sonogravity.metrics.columns import EXPECTED_DICE
from sonogravity.reporting.overlay_planes import LIMITED_OF_GREY, planes_of
from sonogravity.reporting.pictures import class_colours

GROUND, TEXT, WARNING = (24, 24, 24), (235, 235, 235), (255, 190, 90)
NARROWEST = 24  # font sizes: a smaller frame gets a strip that is wider than itself
HEADING = f"confidence ({EXPECTED_DICE}):"
UNLIKE = "unlike the training images"
NOT_PREDICTED = "-"


@dataclass(frozen=True)
class Details:
    """What the strip says of one frame. confidences: {class index: number, NaN if the class is not predicted}."""

    confidences: dict[int, float]
    name: str
    time: str
    unlike: bool


class Strip:
    """The strip of one clip. Its layout fits every frame, so nothing moves from frame to frame.

    size: (H, W) of the frames. longest: Details whose name and time are as long as any of the clip.
    """

    def __init__(self, labels, size, longest):
        self._size = max(11, min(28, min(size) // 36))
        self._font = ImageFont.load_default(self._size)
        self._step = int(self._size * 1.5)
        self.width = even(max(size[1], NARROWEST * self._size))
        self._x, self._y = self._size // 2, 0
        rows = self._lay_out(labels, longest)
        self.height = even(self._y + rows)
        self._bases = {unlike: planes_of(np.asarray(self._base(unlike))) for unlike in (False, True)}

    def _base(self, unlike):
        """Return the image of all that is the same in frames that are, or are not, unlike the training images."""
        base = Image.new("RGB", (self.width, self.height), GROUND)
        draw = ImageDraw.Draw(base)
        for (x, y), colour in self._swatches:
            half = self._size // 2
            draw.rectangle((x, y - half, x + self._size, y + half), colour, TEXT)
        for place, text in self._fixed:
            draw.text(place, text, TEXT, self._font, anchor="lm")
        if unlike:
            draw.text(self._unlike, self._fitting(UNLIKE), WARNING, self._font, anchor="lm")
        return base

    def _lay_out(self, labels, longest):
        """Set the places of all texts. Return the height of the last row."""
        self._fixed, self._swatches, self._confidences = [], [], {}
        self._fixed.append((self._place(self._width_of(HEADING)), self._fitting(HEADING)))
        swatch, number = int(1.4 * self._size), self._width_of(" 0.00")
        for c in labels.foreground:
            title = self._fitting(labels.title(c), swatch + number)
            x, y = self._place(swatch + self._width_of(title) + number)
            self._swatches.append(((x, y), tuple(class_colours(labels)[c].tolist())))
            self._fixed.append(((x + swatch, y), title))
            self._confidences[c] = x + swatch + self._width_of(f"{title} "), y
        self._x, self._y = self._size // 2, self._y + self._step
        places = [self._place(self._width_of(self._fitting(text))) for text in (longest.name, longest.time, UNLIKE)]
        self._name, self._time, self._unlike = places
        return self._step

    def _place(self, width):
        """Return (x, y), the left middle of a text of this width, in this row if it has room, else in the next."""
        if self._x + width > self.width and self._x > self._size:
            self._x, self._y = self._size // 2, self._y + self._step
        place = self._x, self._y + self._step // 2
        self._x += int(width + self._size)
        return place

    def _width_of(self, text):
        return self._font.getlength(text)

    def _fitting(self, text, besides=0):
        """Return a text, cut in its middle if it is wider than the strip less ``besides`` pixels."""
        room, kept = self.width - self._size - besides, len(text)
        shown = text
        while self._width_of(shown) > room and kept > 2:
            kept -= 1
            shown = f"{text[: kept // 2]}...{text[len(text) - (kept - kept // 2) :]}"
        return shown

    def draw(self, details):
        """Return the strip of one frame as planes (overlay_planes.py). Several threads may call it."""
        luma, *chroma = self._bases[details.unlike]
        strip = Image.fromarray(luma)  # a copy
        draw = ImageDraw.Draw(strip)
        texts = [
            (place, NOT_PREDICTED if np.isnan(details.confidences[c]) else f"{details.confidences[c]:.2f}")
            for c, place in self._confidences.items()
        ]
        for place, text in (*texts, (self._name, self._fitting(details.name)), (self._time, details.time)):
            draw.text(place, text, int(LIMITED_OF_GREY[TEXT[0]]), self._font, anchor="lm")  # grey has no chroma
        return np.asarray(strip), *chroma


def even(number):
    """Return a number, or the next if it is odd. H.264 needs even heights and widths."""
    return number + number % 2
