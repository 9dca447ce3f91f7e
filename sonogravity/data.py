"""Frames and their masks: decoded and resized once, kept in memory, batched.

The network sees a frame resized by ``--scale``; scores are taken at the frame's own size. Both
sizes come from one decoding.
"""

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from sonogravity import parallel
from sonogravity.decoding import decode_image, decode_mask
from sonogravity.errors import InputError
from sonogravity.labels import IGNORE_INDEX
from sonogravity.pairs import Pair


@dataclass(frozen=True)
class Frame:
    """A decoded frame.

    image: (h, w) or (h, w, 3), resized to what the network sees; uint8, uint16 or float32.
    truth: mask values, (H, W) native or (h, w), or None. size: (H, W), the image's own.
    """

    pair: Pair
    image: np.ndarray
    truth: np.ndarray | None
    size: tuple[int, int]


def network_size(size, scale):
    """(H, W) and ``--scale`` -> the (h, w) that the network sees, at least one pixel."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def resize_image(image, size):
    """Resize (H, W[, 3]) to (h, w[, 3]) bilinearly, averaging when it shrinks; the type stays."""
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


def resize_mask(mask, size):
    """Resize (H, W) to (h, w) by the nearest pixel, so that no new value appears."""
    rows = ((np.arange(size[0]) + 0.5) * mask.shape[0] / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * mask.shape[1] / size[1]).astype(int)
    return mask[rows[:, None], columns]


def to_unit(image, image_maximum=None):
    """(h, w[, 3]) of Frame.image -> (C, h, w) float32 tensor: 8-bit by 255, 16-bit by image_maximum."""
    if image.dtype == np.uint8:
        image = image.astype(np.float32) / np.float32(255)
    elif image.dtype == np.uint16:
        image = image.astype(np.float32) / np.float32(image_maximum)
    image = image[None] if image.ndim == 2 else np.moveaxis(image, 2, 0)
    return torch.from_numpy(np.ascontiguousarray(image))


def check_depth(pair, image, image_maximum):
    """Refuse a 16-bit image where no 16-bit image was trained on: its range would be a guess."""
    if image.dtype == np.uint16 and image_maximum is None:
        raise InputError(
            f"{pair.image}: is 16-bit, and the model was trained on none such; convert it to 8-bit as the "
            "training images were"
        )


def read_pair(pair, channels):
    """Decode a pair at native size: image, mask values or None. InputError where sizes differ."""
    image = decode_image(pair.image, channels)
    mask = decode_mask(pair.mask) if pair.mask else None
    if mask is not None and mask.shape != image.shape[:2]:
        height, width = image.shape[:2]
        raise InputError(
            f"{pair.mask}: the mask is {mask.shape[1]}x{mask.shape[0]}, its image {width}x{height} "
            "(width x height); redraw or resize the mask to its image"
        )
    return image, mask


def ahead(function, items, workers):
    """``map(function, items)`` in order, run by threads that stay a few items ahead of the caller.

    Decoding lets go of the interpreter lock, so threads suffice and nothing is pickled. Where ``items`` ends with an
    InputError, the results of the items before it come first.
    """
    if workers <= 0:
        yield from map(function, items)
        return
    items, waiting, refused = iter(items), deque(), None
    pool = ThreadPoolExecutor(workers)
    try:
        while True:
            try:
                for item in islice(items, 2 * workers - len(waiting)):
                    waiting.append(pool.submit(function, item))
            except InputError as error:
                refused, items = error, iter(())
            if not waiting:
                break
            yield waiting.popleft().result()
        if refused is not None:
            raise refused
    finally:
        pool.shutdown(cancel_futures=True)


class FrameStore:
    """Frames by index, decoded and resized once; what does not fit the budget is decoded at each use.

    Kept frames share one buffer, which worker processes map instead of copying.
    native_truth: masks stay at the image's own size (scoring), else they shrink with the image.
    """

    def __init__(self, pairs, *, scale, channels, native_truth, cache_mb):
        self.pairs = pairs
        self.scale = scale
        self.channels = channels
        self.native_truth = native_truth
        self._budget = int(cache_mb * 2**20)
        self._places = {}  # index -> (size, [(offset, type, shape) of image, of truth])
        self._buffer = torch.empty(0, dtype=torch.uint8)
        self._kept = {}

    def __len__(self):
        return len(self.pairs)

    def shrink(self, index, image, mask):
        """A pair decoded at native size -> its Frame."""
        size = image.shape[:2]
        small = network_size(size, self.scale)
        truth = mask if self.native_truth else resize_mask(mask, small)
        return Frame(self.pairs[index], resize_image(image, small), truth, size)

    def keep(self, index, frame):
        """Keep a frame if the budget allows; pack() ends the filling."""
        need = frame.image.nbytes + frame.truth.nbytes + 16
        if need <= self._budget:
            self._budget -= need
            self._kept[index] = frame

    def pack(self):
        """Move the kept frames into the one buffer."""
        total = sum(_aligned(a.nbytes) for f in self._kept.values() for a in (f.image, f.truth))
        self._buffer = torch.empty(total, dtype=torch.uint8)
        flat, offset = self._buffer.numpy(), 0
        for index in sorted(self._kept):
            frame = self._kept.pop(index)  # freed as it goes, so the peak is about one copy
            places = []
            for array in (frame.image, frame.truth):
                flat[offset : offset + array.nbytes] = np.ascontiguousarray(array).view(np.uint8).ravel()
                places.append((offset, array.dtype.str, array.shape))
                offset += _aligned(array.nbytes)
            self._places[index] = (frame.size, places)

    @property
    def used_mb(self):
        """Memory that the kept frames take."""
        return self._buffer.numel() / 2**20

    @property
    def kept(self):
        """How many frames are in memory."""
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
        return Frame(self.pairs[index], image, truth, size)


def _aligned(nbytes):
    return -(-nbytes // 8) * 8


class TrainingFrames(Dataset):
    """(image, classes, stem) of a store: (C, h, w) float32 in 0 to 1 and (h, w) uint8 class indices.

    A key is (index, draw): the draw seeds the augmentation of this one sample, so results do not
    depend on the number of workers.
    """

    def __init__(self, store, labels, image_maximum=None, augmentation=None):
        self.store = store
        self.labels = labels
        self.image_maximum = image_maximum
        self.augmentation = augmentation

    def __len__(self):
        return len(self.store)

    def __getitem__(self, key):
        index, draw = key
        frame = self.store[index]
        image = to_unit(frame.image, self.image_maximum)
        classes = torch.from_numpy(self.labels.to_classes(frame.truth, frame.pair.mask))
        if self.augmentation is not None:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(draw)
                image, classes = self.augmentation(image, classes)
        return image, classes, frame.pair.stem


class EpochBatches:
    """Batches of (index, draw) keys: every frame once an epoch, in an order set by (seed, epoch) alone.

    smallest: a last batch below it joins the one before, so that no frame is left out and batch
    normalisation never sees fewer. processes, rank: of several processes each takes its share of every step's
    frames, so their epoch is that of one process with batches as large as all of theirs.
    """

    def __init__(self, frames, batch_size, seed, smallest=1, processes=1, rank=0):
        self.frames = frames
        self.batch_size = batch_size * processes
        self.seed = seed
        self.smallest = smallest * processes
        self.processes = processes
        self.rank = rank
        self.epoch = 1
        if processes > 1 and frames < self.smallest:
            raise InputError(
                f"{frames} training frames are too few for {processes} processes of {smallest} at least; start fewer"
            )

    def __len__(self):
        full, rest = divmod(self.frames, self.batch_size)
        return max(1, full + (rest >= self.smallest)) if rest else full

    def __iter__(self):
        generator = torch.Generator().manual_seed(epoch_seed(self.seed, self.epoch))
        order = torch.randperm(self.frames, generator=generator).tolist()
        draws = torch.randint(2**62, (self.frames,), generator=generator).tolist()
        keys = list(zip(order, draws, strict=True))
        for i in range(len(self)):
            first, total = i * self.batch_size, self.frames_in(i)
            yield keys[first + self.rank * total // self.processes : first + (self.rank + 1) * total // self.processes]

    def frames_in(self, i):
        """Frames of all processes in batch i."""
        return self.batch_size if i < len(self) - 1 else self.frames - i * self.batch_size


def epoch_seed(seed, epoch):
    """One seed for each (seed, epoch), far apart."""
    return (seed * 1_000_003 + epoch) * 2_654_435_761 % 2**63


def collate(samples):
    """Samples of any sizes -> (N, C, H, W) images padded with 0, (N, H, W) int64 with IGNORE_INDEX, stems."""
    height = max(image.shape[1] for image, _, _ in samples)
    width = max(image.shape[2] for image, _, _ in samples)
    images, masks = [], []
    for image, classes, _ in samples:
        padding = (0, width - image.shape[2], 0, height - image.shape[1])
        images.append(F.pad(image, padding))
        masks.append(F.pad(classes, padding, value=IGNORE_INDEX))
    return torch.stack(images), torch.stack(masks).long(), [stem for _, _, stem in samples]


def heights(masks):
    """(N, H, W) of collate -> (N,) rows of each frame without its padding."""
    return (masks != IGNORE_INDEX).any(2).sum(1)


def training_loader(frames, *, batch_size, seed, workers, device, smallest=2):
    """A DataLoader over TrainingFrames; its batch_sampler's ``epoch`` is set before each epoch.

    smallest: a lone last frame joins the batch before it, as one frame makes poor batch statistics (and none
    at all where the deepest features are one pixel).
    """
    return DataLoader(
        frames,
        batch_sampler=EpochBatches(len(frames), batch_size, seed, smallest, parallel.count(), parallel.rank()),
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )
