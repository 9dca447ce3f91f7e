"""Properties of each image and mask, found while the frames are decoded into memory."""

import hashlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from sonogravity.common import progress
from sonogravity.common.messages import InputError
from sonogravity.common.workers import ahead
from sonogravity.datasets.frames import network_size, read_pair_and_palette, resize_mask
from sonogravity.datasets.grey_levels import grey_quantiles
from sonogravity.datasets.mask_components import PackedMask
from sonogravity.datasets.pairs import Pair

THUMBNAIL = 32  # near copies are compared at 32 x 32 pixels
BULK_PERCENT = 99.5


@dataclass(frozen=True)
class Facts:
    """Properties of one pair.

    Of the image: kind, its data type; maximum, the highest pixel value; bulk, the value that BULK_PERCENT of the pixels
    do not exceed; image_even, the share of its three most frequent grey levels; quantiles, (10,) of grey_levels;
    digest; thumbnail. Of the mask: counts, {value: pixels}; seen, the same at the size that the network sees; palette;
    packed.
    """

    pair: Pair
    size: tuple[int, int]
    kind: str
    maximum: float
    bulk: float
    image_even: float
    quantiles: np.ndarray
    digest: bytes
    thumbnail: np.ndarray
    counts: dict
    seen: dict
    palette: dict
    packed: PackedMask

    @property
    def even(self):
        """The share of the mask's three most frequent values."""
        return sum(sorted(self.counts.values())[-3:]) / sum(self.counts.values())


def look_at(store, workers, description, take=None):
    """Return the Facts of all pairs of a store, in order. Decode each pair once and fill the store.

    take: called with each pair and its image, in order.
    """

    def read(index):
        image, mask, palette = read_pair_and_palette(store.pairs[index], store.channels)
        facts = facts_of(store.pairs[index], image, mask, palette, store.scale)
        return facts, store.shrink(index, image, mask), image

    facts = []
    frames = ahead(read, range(len(store)), workers)
    for index, (fact, frame, image) in enumerate(progress.bar(frames, description, len(store), "frame")):
        facts.append(fact)
        store.keep(index, frame)
        if take is not None:
            take(store.pairs[index], image)
    store.pack()
    return facts


def look_again(store, workers, facts):
    """Decode the pairs of a store again and fill it. facts: of these pairs, in order.

    Raise InputError if a file has changed since the Facts were taken.
    """

    def read(index):
        pair = store.pairs[index]
        image, mask, _ = read_pair_and_palette(pair, store.channels)
        changed = pair.image if _digest(image) != facts[index].digest else None
        changed = pair.mask if PackedMask.of(mask) != facts[index].packed else changed
        if changed:
            raise InputError(f"{changed}: has changed since the first fold; restore it, or start a new run")
        return store.shrink(index, image, mask)

    frames = ahead(read, range(len(store)), workers)
    for index, frame in enumerate(progress.bar(frames, "reading data", len(store), "frame")):
        store.keep(index, frame)
    store.pack()


def _digest(image):
    return hashlib.blake2b(np.ascontiguousarray(image), digest_size=16).digest()


def facts_of(pair, image, mask, palette, scale):
    """Return the Facts of an (H, W) or (H, W, 3) image and its (H, W) mask values. scale: of the network."""
    grey = image if image.ndim == 2 else image[:, :, 1]
    grey = grey if grey.dtype == np.uint8 else grey.astype(np.float32)
    shallow = grey if grey.dtype == np.uint8 else (grey * (255 / max(float(grey.max()), 1e-9))).astype(np.uint8)
    return Facts(
        pair,
        image.shape[:2],
        image.dtype.name,
        float(image.max()),
        float(np.percentile(image, BULK_PERCENT)) if image.dtype == np.uint16 else float(image.max()),
        float(np.sort(np.bincount(shallow.ravel(), minlength=3))[-3:].sum() / shallow.size),
        grey_quantiles(image),
        _digest(image),
        np.asarray(Image.fromarray(grey).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)),
        count_values(mask),
        count_values(resize_mask(mask, network_size(mask.shape, scale))),
        palette,
        PackedMask.of(mask),
    )


def count_values(mask):
    """Return {mask value: pixels} of (H, W) mask values, sorted."""
    if mask.dtype == np.uint8:
        histogram = np.bincount(mask.ravel(), minlength=256)
        values, counts = np.flatnonzero(histogram), histogram[histogram > 0]
    else:
        values, counts = np.unique(mask, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))
