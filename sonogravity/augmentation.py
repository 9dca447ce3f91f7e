"""Joint random changes of a frame and its mask.

Geometry moves frame and mask together (the mask by its nearest pixel); grey levels move the frame
alone. There is no vertical flip: the probe is always at the top.
"""

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2


class Augmentation:
    """Random flip, rotation, shift, zoom, brightness, contrast and noise of one frame and its mask."""

    def __init__(self, background=0):
        fill = {tv_tensors.Image: 0.0, tv_tensors.Mask: background, "others": 0}
        self.joint = v2.Compose(
            [
                v2.RandomHorizontalFlip(0.5),
                v2.RandomApply(
                    [
                        v2.RandomAffine(
                            degrees=10,
                            translate=(0.05, 0.05),
                            scale=(0.9, 1.1),
                            interpolation=v2.InterpolationMode.BILINEAR,
                            fill=fill,
                        )
                    ],
                    p=0.5,
                ),
                v2.RandomApply([v2.ColorJitter(brightness=0.2, contrast=0.2)], p=0.5),
                v2.RandomApply([v2.GaussianNoise(sigma=0.02)], p=0.25),
            ]
        )

    def __call__(self, image, classes):
        """(C, h, w) float32 in 0 to 1 and (h, w) uint8 class indices -> the same, moved together."""
        image, classes = self.joint(tv_tensors.Image(image), tv_tensors.Mask(classes))
        return image.as_subclass(torch.Tensor), classes.as_subclass(torch.Tensor)
