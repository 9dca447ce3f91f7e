"""Pictures of frames: overlays, contours and panels, and the colours of the classes."""

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sonogravity.common.files import short
from sonogravity.datasets.frame_files import read_image

OVERLAY = 0.45  # opacity of the class colour
FAINT = 0.15  # opacity inside contours, so that the tissue stays visible
GAP = 6  # pixels between the pictures of a panel
ROWS_PER_PIXEL = 450  # of a contour's width: 2 px at 800 rows. A video halves the resolution of colour
# The colours of the classes, in everything that shows them. With any colour vision they are told apart from each other
# and from every grey level, so on bright and on dark tissue (tests/reporting/test_class_colours.py). Orange and the two
# blues are of Okabe and Ito's palette; its other colours are too near to each other or to grey. The background is
# black. From the eighth foreground class on, the colours repeat.
PALETTE = (
    (230, 159, 0),
    (86, 180, 233),
    (40, 235, 145),
    (250, 225, 15),
    (0, 114, 178),
    (213, 80, 0),
    (175, 100, 250),
)


def class_colours(labels):
    """Return (C, 3) uint8, the colour of each class. The background is black."""
    table = np.zeros((labels.count, 3), np.uint8)
    for k, c in enumerate(labels.foreground):
        table[c] = colour_of(k)
    return table


def colour_of(place):
    """Return the colour (red, green, blue) of the foreground class at a place in the order of the classes, from 0."""
    return PALETTE[place % len(PALETTE)]


def mask_colours(labels):
    """Return {value: (red, green, blue)} of the values below 256: as in the training masks, else as in panels."""
    shown = dict(zip(labels.values, map(tuple, class_colours(labels).tolist()), strict=True))
    return {value: labels.palette.get(value, colour) for value, colour in shown.items() if value < 256}


def to_8_bit(image, maximum=None):
    """Return an (H, W) or (H, W, 3) image of any supported type as uint8 for display.

    maximum: the 16-bit grey level that is shown white, of the image itself if it is not given.
    """
    if image.dtype == np.float32:
        return np.rint(image * 255).astype(np.uint8)
    if image.dtype == np.uint16:
        white = max(1, int(image.max()) if maximum is None else maximum)
        return (image.astype(np.float32) * (255 / white)).clip(0, 255).astype(np.uint8)
    return image


def grey_to_rgb(image):
    """Return an (H, W) or (H, W, 3) image of any supported type as (H, W, 3) uint8 for display."""
    return np.array(Image.fromarray(to_8_bit(image)).convert("RGB"))


def overlay(image, classes, labels):
    """Return the (H, W, 3) uint8 frame with the colours of (H, W) class indices. The background does not change."""
    laid = image.copy()
    places = np.flatnonzero(classes != labels.background)  # few pixels: mixing the whole frame takes ten times as long
    mixed = laid.reshape(-1, 3)
    colours = class_colours(labels)[classes.ravel()[places]]
    mixed[places] = (mixed[places] * (1 - OVERLAY) + colours * OVERLAY).astype(np.uint8)
    return laid


def contours(classes, background, width=1):
    """Return the places (indices of the flat frame) of the classes' contours, and of the outline beside them.

    classes: (H, W) class indices. The contour of a class consists of its pixels that have a pixel of another class
    above, below, left or right of them. The edge of the image is no contour. A wider contour grows into its class. The
    outline consists of the background pixels beside contours, half as wide.
    """
    differs = np.zeros(classes.shape, bool)
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        apart = classes[one] != classes[other]
        differs[one] |= apart
        differs[other] |= apart
    places = np.flatnonzero(differs)
    inside = classes.ravel()[places] != background
    return _grown(places[inside], classes, width), _grown(places[~inside], classes, max(1, width // 2))


def _grown(places, classes, width):
    """Return places and those of the same class within ``width`` - 1 steps of them, some of them twice."""
    height, row_length = classes.shape
    flat, found, front = classes.ravel(), [places], places
    for _ in range(width - 1):
        rows, columns = np.divmod(front, row_length)
        steps = ((rows > 0, -row_length), (rows < height - 1, row_length))
        steps += ((columns > 0, -1), (columns < row_length - 1, 1))
        near = [front[exists] + step for exists, step in steps]
        same = [flat[at] == flat[front[exists]] for at, (exists, _) in zip(near, steps, strict=True)]
        front = np.concatenate([at[kept] for at, kept in zip(near, same, strict=True)])
        found.append(front)
    return np.concatenate(found)


def contour_marks(classes, labels):
    """Return what contours and a faint fill change in a frame: places, the class of each, and opacities from 0 to 1.

    classes: (H, W) class indices. places: indices of the flat frame. A dark outline beside the contours sets them off
    on bright tissue: opaque background.
    """
    lines, outline = contours(classes, labels.background, math.ceil(classes.shape[0] / ROWS_PER_PIXEL))
    kinds = (classes != labels.background).ravel().view(np.uint8)
    kinds[lines] = kinds[outline] = 2
    places = np.flatnonzero(kinds.view(bool))
    return places, classes.ravel()[places], np.array([0, FAINT, 1], np.float32)[kinds[places]]


def contour_overlay(image, classes, labels):
    """Return the (H, W, 3) uint8 frame with contours of (H, W) class indices and a faint fill."""
    laid = image.copy()
    drawn = laid.reshape(-1, 3)
    places, of_class, opacities = contour_marks(classes, labels)
    wanted = class_colours(labels)[of_class].astype(np.float32)
    drawn[places] = np.rint(drawn[places] + opacities[:, None] * (wanted - drawn[places]))
    return laid


def panel(image, maps, labels, caption=""):
    """Return a Pillow image: the frame, and beside it one overlay per entry of ``maps``.

    maps: {title: (H, W) class indices}. The strip above shows the titles, the strip below the colours of the classes
    and the caption.
    """
    picture = grey_to_rgb(image)
    height, width = picture.shape[:2]
    tiles = {"image": picture} | {title: overlay(picture, classes, labels) for title, classes in maps.items()}
    size = max(11, min(28, height // 28))
    font = ImageFont.load_default(size)
    strip = int(size * 1.6)
    sheet = Image.new("RGB", (len(tiles) * width + (len(tiles) - 1) * GAP, height + 2 * strip), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (title, tile) in enumerate(tiles.items()):
        left = i * (width + GAP)
        sheet.paste(Image.fromarray(tile), (left, strip))
        draw.text((left + 4, strip // 2), title, "black", font, anchor="lm")
    x, y = 4, strip + height + strip // 2
    for c in labels.foreground:
        draw.rectangle((x, y - size // 2, x + size, y + size // 2), tuple(class_colours(labels)[c].tolist()), "black")
        draw.text((x + 1.4 * size, y), labels.names[c], "black", font, anchor="lm")
        x += int(2.4 * size + draw.textlength(labels.names[c], font))
    draw.text((x, y), caption, "black", font, anchor="lm")
    return sheet


def write_panel(path, kind, image, maps, labels, caption):
    """Write a panel as ``png`` or ``jpg``."""
    options = {"format": "JPEG", "quality": 90} if kind == "jpg" else {"format": "PNG", "compress_level": 2}
    panel(image, maps, labels, caption).save(path, **options)


def epoch_panels(shown, channels, labels):
    """Return {file name: arguments of write_panel after the path} for (prefix, Dice, FileResult) of frames."""
    panels = {}
    for prefix, dice, result in shown:
        image = read_image(result.frame.pair.image, channels)
        maps = {"truth": result.truth, "prediction": result.prediction}
        stem = result.frame.pair.stem
        panels[f"{prefix}{short(stem)}.png"] = "png", image, maps, labels, f"{stem}  Dice {dice:.4f}"
    return panels
