"""U-Net (Ronneberger, Fischer and Brox, MICCAI 2015), with padding and batch normalisation.

The encoder has four levels with max pooling, the decoder four levels with transposed convolution (or bilinear
resizing). Each level of the decoder also gets the encoder's features of its size. Parameter names are those of the
publicly known PyTorch U-Net (``inc.double_conv.0.weight``, ..., ``outc.conv.bias``), so that its weights load.
"""

import torch
import torch.nn.functional as F
from torch import nn

from sonogravity.modeling.depth_channel import image_channels, with_depth
from sonogravity.modeling.segmentation_model import SegmentationModel

LEVELS = 4
MULTIPLE = 2**LEVELS  # height and width are padded to multiples of it


class DoubleConv(nn.Module):
    """Twice: 3x3 convolution, normalisation, ReLU; height and width stay. norm: callable, channels -> layer."""

    def __init__(self, in_channels, out_channels, mid_channels=None, *, norm=nn.BatchNorm2d):
        super().__init__()
        mid_channels = mid_channels or out_channels
        self.double_conv = nn.Sequential(
            nn.Conv2d(in_channels, mid_channels, 3, padding=1, bias=False),
            norm(mid_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(mid_channels, out_channels, 3, padding=1, bias=False),
            norm(out_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, x):
        return self.double_conv(x)


class Down(nn.Module):
    """Halve height and width, then apply DoubleConv."""

    def __init__(self, in_channels, out_channels, norm):
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), DoubleConv(in_channels, out_channels, norm=norm))

    def forward(self, x):
        return self.maxpool_conv(x)


class Up(nn.Module):
    """Double height and width, concatenate the encoder's features, then apply DoubleConv."""

    def __init__(self, in_channels, out_channels, bilinear, norm):
        super().__init__()
        if bilinear:
            self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            self.conv = DoubleConv(in_channels, out_channels, in_channels // 2, norm=norm)
        else:
            self.up = nn.ConvTranspose2d(in_channels, in_channels // 2, 2, stride=2)
            self.conv = DoubleConv(in_channels, out_channels, norm=norm)

    def forward(self, x, skip):
        return self.conv(torch.cat([skip, self.up(x)], 1))


class OutConv(nn.Module):
    """1x1 convolution to one logit per class."""

    def __init__(self, in_channels, classes):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, classes, 1)

    def forward(self, x):
        return self.conv(x)


class UNet(SegmentationModel):
    """(N, in_channels, H, W) float32 in 0 to 1 -> logits (N, classes, H, W), for any H and W.

    base_channels: number of features at full size, doubled at each of the four levels (64 in the paper).
    bilinear: resizing instead of transposed convolutions; fewer parameters (17.3 against 31.0 million).
    depth_channel: the depth of each row is a further input channel (see modeling/depth_channel.py).
    deep_supervision (Lee et al., AISTATS 2015): in training mode forward returns (logits, logits of the four coarser
    levels, coarsest first), all of this shape. norm: callable, channels -> normalisation layer. Checkpoints do not
    store it; a subclass sets another one (see docs/training.md).
    """

    NAME = "unet"
    HEAD = ("outc.", "supervised.")
    # For the coarser levels in deep supervision, coarsest first (Isensee et al., nnU-Net, Nature Methods 2021).
    HEAD_WEIGHTS = tuple(1 / 2**level for level in range(LEVELS, 0, -1))

    def __init__(
        self,
        in_channels=1,
        classes=3,
        base_channels=64,
        bilinear=False,
        depth_channel=False,
        deep_supervision=False,
        *,
        norm=nn.BatchNorm2d,
    ):
        super().__init__()
        width = [base_channels * 2**level for level in range(LEVELS + 1)]
        halved = 2 if bilinear else 1  # resizing keeps the channels, so deeper levels get half as many
        self.depth_channel = depth_channel
        self.inc = DoubleConv(in_channels + depth_channel, width[0], norm=norm)
        self.down1 = Down(width[0], width[1], norm)
        self.down2 = Down(width[1], width[2], norm)
        self.down3 = Down(width[2], width[3], norm)
        self.down4 = Down(width[3], width[4] // halved, norm)
        self.up1 = Up(width[4], width[3] // halved, bilinear, norm)
        self.up2 = Up(width[3], width[2] // halved, bilinear, norm)
        self.up3 = Up(width[2], width[1] // halved, bilinear, norm)
        self.up4 = Up(width[1], width[0], bilinear, norm)
        self.outc = OutConv(width[0], classes)
        coarse = (width[4] // halved, width[3] // halved, width[2] // halved, width[1] // halved)
        self.supervised = nn.ModuleList(OutConv(channels, classes) for channels in coarse if deep_supervision)

    def forward(self, x, heights=None):
        """Return the logits. heights: (N,) rows of each frame in training, without the padding below."""
        height, width = x.shape[2:]
        x = self.normalised(x)
        if self.depth_channel:
            x = with_depth(x, heights if self.training else None)
        # Pad to the next multiple of 16 by repeating the border, not with black.
        x = F.pad(x, (0, -width % MULTIPLE, 0, -height % MULTIPLE), mode="replicate")
        x1 = self.inc(x)  # (N, 64, H, W)
        x2 = self.down1(x1)  # (N, 128, H/2, W/2)
        x3 = self.down2(x2)  # (N, 256, H/4, W/4)
        x4 = self.down3(x3)  # (N, 512, H/8, W/8)
        x5 = self.down4(x4)  # (N, 1024, H/16, W/16)
        x6 = self.up1(x5, x4)
        x7 = self.up2(x6, x3)
        x8 = self.up3(x7, x2)
        x9 = self.up4(x8, x1)  # (N, 64, H, W)
        logits = self.outc(x9)[:, :, :height, :width]
        if not (self.training and self.supervised):
            return logits
        coarse = [head(features) for head, features in zip(self.supervised, (x5, x6, x7, x8), strict=True)]
        whole = [F.interpolate(each, x.shape[2:], mode="bilinear", align_corners=False) for each in coarse]
        return logits, *(each[:, :, :height, :width] for each in whole)

    def blocks(self):
        """Return the modules whose activations fill the memory in training (see memory.compute_again)."""
        return [module for module in self.modules() if isinstance(module, DoubleConv)]

    def encoder(self):
        """Return the modules that --freeze-encoder keeps fixed."""
        return [self.inc, self.down1, self.down2, self.down3, self.down4]

    @staticmethod
    def options_from(state_dict):
        """Return the options that give weights of these names and shapes; None if they are not a U-Net's."""
        first, last = state_dict.get("inc.double_conv.0.weight"), state_dict.get("outc.conv.weight")
        if first is None or last is None or first.ndim != 4 or last.ndim != 4:
            return None
        channels, depth_channel = image_channels(first)
        return {
            "in_channels": channels,
            "classes": last.shape[0],
            "base_channels": first.shape[0],
            "bilinear": "up1.up.weight" not in state_dict,
            "depth_channel": depth_channel,
            "deep_supervision": "supervised.0.conv.weight" in state_dict,
        }


MODEL = UNet
