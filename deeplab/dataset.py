"""How DeepLabV3 is fed in training."""

from sonogravity.datasets.augmentation import Augmentation


def make_augmentation(background):
    """The random changes of each training frame: rotation, shift and zoom besides left and right, grey levels, noise.

    background: the class index that comes in from outside the frame.
    """
    return Augmentation(background, geometry=True)
