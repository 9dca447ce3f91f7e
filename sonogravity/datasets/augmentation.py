"""Joint random changes of a frame and its mask.

Geometry moves frame and mask together (the mask by its nearest pixel); grey levels move the frame
alone. There is no vertical flip: the probe is always at the top.
"""

import math

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

# The widest change of each, a factor's logarithm: what the settings of a scanner do to grey levels in 0 to 1.
LOG_GAMMA = 0.5  # dynamic range
LOG_CONTRAST = 0.35  # about the frame's mean
LOG_GAIN = 0.3
NOISE = 0.05  # standard deviation


class Augmentation:
    """Random flip, gamma, contrast, gain and noise of one frame and its mask; with geometry rotation, shift, zoom, too.

    The recipe of each model says whether geometry pays (benchmarks/README.md).
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
        """(C, h, w) float32 in 0 to 1 and (h, w) uint8 class indices -> the same, moved together."""
        image, classes = self.joint(tv_tensors.Image(image), tv_tensors.Mask(classes))
        return other_grey_levels(image.as_subclass(torch.Tensor)), classes.as_subclass(torch.Tensor)


def other_grey_levels(image):
    """(C, h, w) float32 in 0 to 1 -> the same at another dynamic range, contrast and gain, and noisier at times."""
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
