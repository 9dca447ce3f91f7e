"""What networks of several models may share: the depth of each row as an input."""

import torch


def with_depth(x):
    """(N, C, H, W) -> (N, C + 1, H, W): last a channel with the depth of each row, over 0 to 1 at the last row.

    A convolution labels alike what looks alike, wherever it lies; in ultrasound what lies near the probe and what lies
    deep are different tissue. The vertical coordinate of Liu et al., An intriguing failing of convolutional neural
    networks and the CoordConv solution, NeurIPS 2018. Relative to the height of x: in training, frames of
    several heights in a batch are padded to the tallest, and measured by it.
    """
    rows = torch.ones_like(x[:, :1], dtype=torch.float32).cumsum(2)  # operations on x: traced and exported as such
    return torch.cat([x, (rows / rows[:, :, -1:]).type_as(x)], 1)


def image_channels(weight):
    """The first convolution's weight -> (channels of the image, whether the depth is one channel more)."""
    channels, depth = weight.shape[1], weight.shape[1] % 2 == 0  # images have 1 or 3
    return channels - depth, depth
