"""Frames of a video as planes of luminance and colour (YCbCr, 4:2:0), as H.264 stores them.

Most of a frame is grey, so marking few pixels of the planes takes half the time of drawing in red, green and blue.
"""

import numpy as np

BT709, LIMITED = 1, 1  # FFmpeg's numbers: colours as browsers expect them of a video of this size
LIMITED_OF_GREY = np.rint(16 + np.arange(256) * (219 / 255)).astype(np.uint8)
RED, GREEN, BLUE = 0.2126, 0.7152, 0.0722  # of the luminance, ITU-R BT.709
# Rows: Y, Cb, Cr of limited range, from red, green and blue of 0 to 255.
OF_RGB = np.array(
    [
        [RED, GREEN, BLUE],
        [-RED / (2 - 2 * BLUE), -GREEN / (2 - 2 * BLUE), 0.5],
        [0.5, -GREEN / (2 - 2 * RED), -BLUE / (2 - 2 * RED)],
    ]
) * (np.array([[219], [224], [224]]) / 255)


def even_sized(array):
    """Return an (H, W, ...) array whose height and width are even, because H.264 needs that; the edge is repeated."""
    height, width = array.shape[:2]
    odd = ((0, height % 2), (0, width % 2), (0, 0))[: array.ndim]
    return np.pad(array, odd, "edge") if height % 2 or width % 2 else array


def planes_of(picture):
    """Return (H, W) or (H, W, 3) uint8 as Y, (H, W), and Cb and Cr, (H / 2, W / 2), of limited range."""
    import av

    height, width = picture.shape[:2]
    half = (height // 2, width // 2)
    if picture.ndim == 2:
        return np.take(LIMITED_OF_GREY, picture), np.full(half, 128, np.uint8), np.full(half, 128, np.uint8)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    flat = frame.reformat(format="yuv420p", dst_colorspace=BT709, dst_color_range=LIMITED).to_ndarray().ravel()
    return flat[: height * width].reshape(height, width), *flat[height * width :].reshape(2, *half)


def mark(planes, marks, colours):
    """Draw the marks of pictures.contour_marks. colours: (C, 3) uint8, red, green and blue of each class."""
    places, of_class, opacities = marks
    luma, *chroma = planes
    table = (colours @ OF_RGB.T + (16, 128, 128)).astype(np.float32)
    flat = luma.reshape(-1)
    own = flat[places]
    flat[places] = np.rint(own + opacities * (table[of_class, 0] - own))
    # A value of Cb and Cr is the mean of four pixels.
    rows, columns = np.divmod(places, luma.shape[1])
    quarters = rows // 2 * chroma[0].shape[1] + columns // 2
    cover = np.bincount(quarters, opacities, chroma[0].size)
    touched = np.flatnonzero(cover)
    for plane, values in zip(chroma, table.T[1:], strict=True):
        flat = plane.reshape(-1)
        added = np.bincount(quarters, opacities * values[of_class], plane.size)[touched]
        flat[touched] = np.rint(flat[touched] * (1 - cover[touched] / 4) + added / 4)


def above(plane, strip):
    """Return a plane of the frame above that of the strip, which may be wider."""
    whole = np.full((len(plane) + len(strip), strip.shape[1]), strip[0, 0])  # the strip's corner is empty
    whole[: len(plane), : plane.shape[1]] = plane
    whole[len(plane) :] = strip
    return whole


def frame_of(planes):
    """Return planes as an av.VideoFrame."""
    import av

    content = np.concatenate([plane.ravel() for plane in planes])
    return av.VideoFrame.from_ndarray(content.reshape(-1, planes[0].shape[1]), format="yuv420p")
