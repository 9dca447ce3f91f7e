"""How U-Net is fed in training: which augmentation, and in what batches."""

from sonogravity.datasets.augmentation import Augmentation
from sonogravity.datasets.loader import TrainingFrames, training_loader


def make_loader(store, labels, *, image_maximum, augment, batch_size, seed, workers, device):
    """The training batches: every frame once an epoch."""
    augmentation = Augmentation(labels.background, geometry=False) if augment else None
    frames = TrainingFrames(store, labels, image_maximum, augmentation)
    return training_loader(frames, batch_size=batch_size, seed=seed, workers=workers, device=device)
