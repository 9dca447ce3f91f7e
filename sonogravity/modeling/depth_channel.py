"""The depth of each row as an input channel, for networks of several models."""

import torch


def with_depth(x, heights=None):
    """Return (N, C + 1, H, W): x, (N, C, H, W), and last a channel with the depth of each row, 1 at the last row.

    heights: (N,) rows of each frame if x is padded below them, so that a frame has the same depths in any batch.

    A convolution gives the same label to the same pattern at any position. In ultrasound the same pattern can be
    different tissue near the probe and far from it. The channel is the vertical coordinate of Liu et al., An intriguing
    failing of convolutional neural networks and the CoordConv solution, NeurIPS 2018.
    """
    rows = torch.ones_like(x[:, :1], dtype=torch.float32).cumsum(2)  # operations on x, so that export records them
    last = rows[:, :, -1:] if heights is None else heights[:, None, None, None]
    return torch.cat([x, (rows / last).clamp(max=1).type_as(x)], 1)


def image_channels(weight):
    """Return (channels of the image, whether there is a depth channel) from the first convolution's weight."""
    channels, depth = weight.shape[1], weight.shape[1] % 2 == 0  # images have 1 or 3
    return channels - depth, depth
