"""How U-Net is fed in training."""

from sonogravity.datasets.augmentation import Augmentation


def make_augmentation(background):
    """The random changes of each training frame: left and right, grey levels, noise. background: its class index."""
    return Augmentation(background, geometry=False)
