"""How DeepLabV3 is fed in training: which augmentation, and in what batches."""

from deeplab.model import SMALLEST_BATCH
from sonogravity.common.messages import InputError
from sonogravity.datasets.augmentation import Augmentation
from sonogravity.datasets.loader import TrainingFrames, training_loader


def make_loader(store, labels, *, image_maximum, augment, batch_size, seed, workers, device):
    """The training batches: every frame once an epoch, and never a batch of one."""
    if min(batch_size, len(store)) < SMALLEST_BATCH:
        what = "--batch-size 1" if batch_size == 1 else f"{store.pairs[0].image}: the only training frame"
        raise InputError(f"{what}: DeepLabV3 normalises over a batch, so it needs 2 frames at least in each")
    augmentation = Augmentation(labels.background, geometry=True) if augment else None
    frames = TrainingFrames(store, labels, image_maximum, augmentation)
    return training_loader(
        frames, batch_size=batch_size, seed=seed, workers=workers, device=device, smallest=SMALLEST_BATCH
    )
