"""Training batches with every frame once per epoch. Seed and epoch alone determine the order and the augmentation."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

from sonogravity.common.messages import InputError
from sonogravity.common.processes import process_count, process_rank
from sonogravity.common.workers import BATCHES_AHEAD, end_worker_without_room, worker_count, workers_with_room
from sonogravity.datasets.frames import to_unit
from sonogravity.datasets.labels import IGNORE_INDEX

FEWEST = 2  # frames per batch, so that batch statistics are meaningful


class TrainingFrames(Dataset):
    """Samples (image, classes, stem) of a store: (C, h, w) float32 in 0 to 1 and (h, w) uint8 class indices.

    A key is (index, draw). The draw seeds the augmentation of this sample only, so results do not depend on the number
    of workers.
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
        image = to_unit(frame.images[self.store.scale], self.image_maximum)
        classes = torch.from_numpy(self.labels.to_classes(frame.truth, frame.pair.mask))
        if self.augmentation is not None:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(draw)
                image, classes = self.augmentation(image, classes)
        return image, classes, frame.pair.stem


class EpochBatches:
    """Batches of (index, draw) keys: every frame once per epoch, in an order determined by (seed, epoch) alone.

    smallest: a last batch with fewer frames joins the batch before it. Thus no frame is left out, and batch
    normalisation never sees fewer frames. processes, rank: each of several processes takes its share of every step's
    frames. Together they do the steps of one process with batches of processes * batch_size.
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
                f"{frames} training frames are too few for {processes} processes with at least {smallest} frames each; "
                "start fewer processes"
            )

    def __len__(self):
        full, rest = divmod(self.frames, self.batch_size)
        return max(1, full + (rest >= self.smallest)) if rest else full

    def __iter__(self):
        keys = self.keys(torch.Generator().manual_seed(epoch_seed(self.seed, self.epoch)))
        for i in range(len(self)):
            first, total = i * self.batch_size, self.frames_in(i)
            yield keys[first + self.rank * total // self.processes : first + (self.rank + 1) * total // self.processes]

    def keys(self, generator):
        """Return the (index, draw) keys of an epoch, in order. A subclass may return other keys."""
        order = torch.randperm(self.frames, generator=generator).tolist()
        draws = torch.randint(2**62, (self.frames,), generator=generator).tolist()
        return list(zip(order, draws, strict=True))

    def frames_in(self, i):
        """Return the number of frames in batch i, over all processes."""
        return self.batch_size if i < len(self) - 1 else self.frames - i * self.batch_size


def every_frame_once(frames, *options):
    """Return the EpochBatches of TrainingFrames. options: batch size, seed, smallest batch, processes, rank."""
    return EpochBatches(len(frames), *options)


def epoch_seed(seed, epoch):
    """Return one seed per (seed, epoch). The seeds of successive epochs are far apart."""
    return (seed * 1_000_003 + epoch) * 2_654_435_761 % 2**63


class Batch(NamedTuple):
    """Frames of a step.

    images: (N, C, H, W) float32, padded with 0. classes: (N, H, W) int64, padded with IGNORE_INDEX. heights: (N,) rows
    of each frame without its padding. stems: of the files.
    """

    images: torch.Tensor
    classes: torch.Tensor
    heights: torch.Tensor
    stems: list[str]


def collate(samples):
    """Return the Batch of samples (image, classes, stem) of any sizes."""
    height = max(image.shape[1] for image, _, _ in samples)
    width = max(image.shape[2] for image, _, _ in samples)
    images, masks = [], []
    for image, classes, _ in samples:
        padding = (0, width - image.shape[2], 0, height - image.shape[1])
        images.append(F.pad(image, padding))
        masks.append(F.pad(classes, padding, value=IGNORE_INDEX))
    heights = torch.tensor([image.shape[1] for image, _, _ in samples])
    return Batch(torch.stack(images), torch.stack(masks).long(), heights, [stem for _, _, stem in samples])


def _batch_bytes(frames, batch_size):
    """Return the size of the largest Batch of TrainingFrames: float32 per channel and int64 per pixel."""
    height, width = frames.store.largest
    return min(batch_size, len(frames)) * height * width * (4 * frames.store.channels + 8)


def training_loader(frames, batch_size, *, seed, workers, device, needed=1, sampler=None):
    """Return a DataLoader over TrainingFrames. Set its batch_sampler's ``epoch`` before each epoch.

    A single last frame joins the batch before it: one frame gives poor batch statistics, and none if the deepest
    features are one pixel. needed: number of frames that the network must see together; raise InputError if a batch or
    the data set has fewer. workers: processes that prepare batches; None uses the device's default.
    sampler: replaces every_frame_once and takes the same arguments.
    """
    if min(batch_size, len(frames)) < needed:
        what, remedy = f"--batch-size {batch_size}", f"give {needed} or more"
        if batch_size >= needed:
            names = ", ".join(str(pair.image) for pair in frames.store.pairs)
            what, remedy = f"{names}: the only training frame{'s' * (len(frames) > 1)}", "add frames"
        raise InputError(
            f"{what}: this model normalises over the batch, so it needs at least {needed} frames per batch; {remedy}"
        )
    smallest = max(FEWEST, needed)
    workers = workers_with_room(worker_count(workers, device), _batch_bytes(frames, batch_size + smallest - 1))
    return DataLoader(
        frames,
        batch_sampler=(sampler or every_frame_once)(
            frames, batch_size, seed, smallest, process_count(), process_rank()
        ),
        collate_fn=collate,
        num_workers=workers,
        prefetch_factor=BATCHES_AHEAD if workers else None,
        worker_init_fn=end_worker_without_room,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )
