"""Training batches: every frame once per epoch, in an order and with an augmentation set by seed and epoch alone."""

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

from sonogravity.common.messages import InputError
from sonogravity.common.processes import process_count, process_rank
from sonogravity.common.workers import worker_count
from sonogravity.datasets.frames import to_unit
from sonogravity.datasets.labels import IGNORE_INDEX

FEWEST = 2  # frames in a batch, for statistics that mean something


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
        image = to_unit(frame.images[self.store.scale], self.image_maximum)
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
        keys = self.keys(torch.Generator().manual_seed(epoch_seed(self.seed, self.epoch)))
        for i in range(len(self)):
            first, total = i * self.batch_size, self.frames_in(i)
            yield keys[first + self.rank * total // self.processes : first + (self.rank + 1) * total // self.processes]

    def keys(self, generator):
        """The (index, draw) keys of an epoch, in order; another sampler has others."""
        order = torch.randperm(self.frames, generator=generator).tolist()
        draws = torch.randint(2**62, (self.frames,), generator=generator).tolist()
        return list(zip(order, draws, strict=True))

    def frames_in(self, i):
        """Frames of all processes in batch i."""
        return self.batch_size if i < len(self) - 1 else self.frames - i * self.batch_size


def every_frame_once(frames, *options):
    """EpochBatches of TrainingFrames; options: batch size, seed, smallest batch, processes, rank."""
    return EpochBatches(len(frames), *options)


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


def training_loader(frames, batch_size, *, seed, workers, device, needed=1, sampler=None):
    """A DataLoader over TrainingFrames; its batch_sampler's ``epoch`` is set before each epoch.

    A lone last frame joins the batch before it, as one frame makes poor batch statistics (and none at all if the
    deepest features are one pixel). needed: frames that the network must see together; InputError if a batch, or the
    data set, has fewer. workers: processes that prepare batches, None for the device's
    usual number. sampler: called as every_frame_once is, in its place.
    """
    if min(batch_size, len(frames)) < needed:
        what, remedy = f"--batch-size {batch_size}", f"give {needed} or more"
        if batch_size >= needed:
            names = ", ".join(str(pair.image) for pair in frames.store.pairs)
            what, remedy = f"{names}: the only training frame{'s' * (len(frames) > 1)}", "add frames"
        raise InputError(
            f"{what}: this model normalises over a batch, so it needs {needed} frames at least in each; {remedy}"
        )
    workers = worker_count(workers, device)
    return DataLoader(
        frames,
        batch_sampler=(sampler or every_frame_once)(
            frames, batch_size, seed, max(FEWEST, needed), process_count(), process_rank()
        ),
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )
