"""The augmentation of training frames for DeepLabV3."""

from sonogravity.datasets.augmentation import Augmentation


def make_augmentation(background):
    """Return the random changes of a training frame: flip, rotation, shift, zoom, grey levels, noise.

    background: its class index, which also fills the area outside the frame.
    """
    return Augmentation(background, geometry=True)
