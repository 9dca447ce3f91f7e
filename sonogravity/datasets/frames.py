"""Frames and their masks, decoded and resized once and kept in memory.

The network sees a frame resized by ``--scale``. Scores are computed at the frame's native size. Both sizes come from
one decoding.
"""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from sonogravity.common.messages import InputError
from sonogravity.datasets.frame_files import read_image, read_mask_file
from sonogravity.datasets.pairs import Pair
from sonogravity.datasets.sequences import Region


@dataclass(frozen=True)
class Frame:
    """A decoded frame.

    images: {scale: (h, w) or (h, w, 3)}, the image at each scale that a network sees; uint8, uint16 or float32. Empty
    if the prediction was read from a file.
    truth: mask values, (H, W) at native size or (h, w) at the network's size; None without a mask.
    size: (H, W), the native size of what the network sees. unlike: GreyLevels.unlikeness of the image; None if it is
    not known. region: the part of the file's image that the network sees, None for all of it; then whole is the (H, W)
    of the file's image, and of its truth.
    """

    pair: Pair
    images: dict[float, np.ndarray]
    truth: np.ndarray | None
    size: tuple[int, int]
    unlike: float | None = None
    region: Region | None = None
    whole: tuple[int, int] | None = None

    def seen(self, array):
        """Return the part of an (H, W, ...) array of the file's size that the network sees."""
        return array if self.region is None else self.region.of(array)

    def at_file_size(self, classes, background):
        """Return the (H, W) class indices of the frame at the file's size: ``background`` outside the region."""
        return classes if self.region is None else self.region.within(classes, self.whole, background)


def network_size(size, scale):
    """Return (h, w), the size that the network sees: the native (H, W) times ``--scale``, at least one pixel."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def resize_image(image, size):
    """Return an (H, W[, 3]) image resized bilinearly to (h, w[, 3]), of the same type. Shrinking averages pixels."""
    if image.shape[:2] == size:
        return image
    if image.dtype == np.uint8:
        return np.array(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
    planes = image[:, :, None] if image.ndim == 2 else image
    resized = np.stack(
        [
            np.asarray(
                Image.fromarray(planes[:, :, c].astype(np.float32)).resize(size[::-1], Image.Resampling.BILINEAR)
            )
            for c in range(planes.shape[2])
        ],
        axis=2,
    ).reshape(*size, *image.shape[2:])
    return np.rint(resized).astype(image.dtype) if image.dtype != np.float32 else resized.clip(0, 1)


def at_scales(image, scales):
    """Return {scale: the (H, W[, 3]) native image resized by this scale}."""
    return {scale: resize_image(image, network_size(image.shape[:2], scale)) for scale in scales}


def resize_mask(mask, size):
    """Return an (H, W) mask resized to (h, w) by the nearest pixel, so that no new value appears."""
    rows = ((np.arange(size[0]) + 0.5) * mask.shape[0] / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * mask.shape[1] / size[1]).astype(int)
    return mask[rows[:, None], columns]


def to_unit(image, image_maximum=None):
    """Return an (h, w[, 3]) image as a (C, h, w) float32 tensor: 8-bit divided by 255, 16-bit by image_maximum."""
    if image.dtype == np.uint8:
        image = image.astype(np.float32) / np.float32(255)
    elif image.dtype == np.uint16:
        image = image.astype(np.float32) / np.float32(image_maximum)
    image = image[None] if image.ndim == 2 else np.moveaxis(image, 2, 0)
    return torch.from_numpy(np.ascontiguousarray(image))


def check_depth(pair, image, image_maximum):
    """Raise InputError for a 16-bit image if the model was trained on none, because its range is unknown."""
    if image.dtype == np.uint16 and image_maximum is None:
        raise InputError(
            f"{pair.image}: is 16-bit, but the model was trained on 8-bit images; convert it to 8-bit, like "
            "the training images"
        )


def read_pair(pair, channels):
    """Return the image and the mask values (or None) of a pair at native size. Raise InputError if the sizes differ."""
    return read_pair_and_palette(pair, channels)[:2]


def read_pair_and_palette(pair, channels):
    """Return what read_pair returns, and the palette of the mask file."""
    image = read_image(pair.image, channels)
    mask, palette = read_mask_file(pair.mask) if pair.mask else (None, {})
    if mask is not None and mask.shape != image.shape[:2]:
        height, width = image.shape[:2]
        raise InputError(
            f"{pair.mask}: the mask is {mask.shape[1]}x{mask.shape[0]}, but its image is {width}x{height} "
            "(width x height); redraw the mask, or resize it to the image"
        )
    return image, mask, palette


class FrameStore:
    """Frames by index, decoded and resized once and kept in memory.

    Frames that exceed the memory budget, cache_mb, are decoded at each use. Kept frames share one buffer, which worker
    processes map instead of copying. native_truth: keep masks at native size (for scoring) instead of resizing them
    with the image.
    """

    def __init__(self, pairs, *, scale, channels, native_truth, cache_mb):
        self.pairs = pairs
        self.scale = scale
        self.channels = channels
        self.native_truth = native_truth
        self.largest = (0, 0)  # greatest height and width of the frames that the network sees
        self._budget = int(cache_mb * 2**20)
        self._places = {}  # index -> (size, [(offset, type, shape) of image, of truth])
        self._buffer = torch.empty(0, dtype=torch.uint8)
        self._kept = {}

    def __len__(self):
        return len(self.pairs)

    def shrink(self, index, image, mask):
        """Return the Frame of a pair that was decoded at native size."""
        size = image.shape[:2]
        truth = mask if self.native_truth else resize_mask(mask, network_size(size, self.scale))
        return Frame(self.pairs[index], at_scales(image, [self.scale]), truth, size)

    def keep(self, index, frame):
        """Keep a frame if the budget allows it. Call pack() after the last frame."""
        self.largest = tuple(map(max, self.largest, frame.images[self.scale].shape))
        need = frame.images[self.scale].nbytes + frame.truth.nbytes + 16
        if need <= self._budget:
            self._budget -= need
            self._kept[index] = frame

    def pack(self):
        """Move the kept frames into the shared buffer."""
        total = sum(_aligned(a.nbytes) for f in self._kept.values() for a in (f.images[self.scale], f.truth))
        self._buffer = torch.empty(total, dtype=torch.uint8)
        flat, offset = self._buffer.numpy(), 0
        for index in sorted(self._kept):
            frame = self._kept.pop(index)  # freed after its copy, so peak memory is about one copy
            places = []
            for array in (frame.images[self.scale], frame.truth):
                flat[offset : offset + array.nbytes] = np.ascontiguousarray(array).view(np.uint8).ravel()
                places.append((offset, array.dtype.str, array.shape))
                offset += _aligned(array.nbytes)
            self._places[index] = (frame.size, places)

    @property
    def used_mb(self):
        """Return the memory of the kept frames in MB (2**20 bytes)."""
        return self._buffer.numel() / 2**20

    @property
    def kept(self):
        """Return the number of frames in memory."""
        return len(self._places)

    def __getitem__(self, index):
        if index not in self._places:
            return self.shrink(index, *read_pair(self.pairs[index], self.channels))
        size, places = self._places[index]
        flat = self._buffer.numpy()
        image, truth = (
            flat[offset : offset + np.dtype(kind).itemsize * int(np.prod(shape))].view(kind).reshape(shape)
            for offset, kind, shape in places
        )
        return Frame(self.pairs[index], {self.scale: image}, truth, size)


def _aligned(nbytes):
    return -(-nbytes // 8) * 8
