"""The augmentation of training frames for U-Net."""

from sonogravity.datasets.augmentation import Augmentation


def make_augmentation(background):
    """Return the random changes of a training frame: flip, grey levels, noise. background: its class index."""
    return Augmentation(background, geometry=False)
