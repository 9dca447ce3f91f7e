"""Random augmentation of a frame and its mask.

Geometric changes apply to frame and mask together (the mask is resampled by the nearest pixel). Grey-level changes
apply to the frame only. There is no vertical flip, because the probe is always at the top.
"""

import math

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

# The largest absolute logarithm of each random factor. The factors imitate scanner settings on grey levels 0 to 1.
LOG_GAMMA = 0.5  # dynamic range
LOG_CONTRAST = 0.35  # relative to the frame's mean
LOG_GAIN = 0.3
NOISE = 0.05  # largest standard deviation


class Augmentation:
    """Random flip, gamma, contrast, gain and noise for one frame and its mask.

    geometry: add rotation, shift and zoom. Whether they improve the scores depends on the model (benchmarks/README.md).
    """

    def __init__(self, background=0, *, geometry):
        self.joint = v2.RandomHorizontalFlip(0.5)
        if geometry:
            fill = {tv_tensors.Image: 0.0, tv_tensors.Mask: background, "others": 0}
            affine = v2.RandomAffine(
                degrees=10,
                translate=(0.05, 0.05),
                scale=(0.9, 1.1),
                interpolation=v2.InterpolationMode.BILINEAR,
                fill=fill,
            )
            self.joint = v2.Compose([self.joint, v2.RandomApply([affine], p=0.5)])

    def __call__(self, image, classes):
        """Return the augmented image, (C, h, w) float32 in 0 to 1, and its classes, (h, w) uint8 indices."""
        image, classes = self.joint(tv_tensors.Image(image), tv_tensors.Mask(classes))
        return other_grey_levels(image.as_subclass(torch.Tensor)), classes.as_subclass(torch.Tensor)


def other_grey_levels(image):
    """Return an image, (C, h, w) float32 in 0 to 1, with random dynamic range, contrast, gain and noise."""
    if _chance(0.5):
        image = image ** _factor(LOG_GAMMA)
    if _chance(0.5):
        mean = image.mean()
        image = (image - mean) * _factor(LOG_CONTRAST) + mean
    if _chance(0.5):
        image = image * _factor(LOG_GAIN)
    if _chance(0.25):
        image = image + torch.randn_like(image) * (NOISE * torch.rand(()))
    return image.clamp(0, 1)


def _chance(probability):
    return torch.rand(()) < probability


def _factor(log_widest):
    return math.exp(log_widest * (2 * float(torch.rand(())) - 1))
