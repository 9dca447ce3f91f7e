"""What networks of several models may share: the depth of each row as an input."""

import torch


def with_depth(x, heights=None):
    """(N, C, H, W) -> (N, C + 1, H, W): last a channel with the depth of each row, over 0 to 1 at the last row.

    heights: (N,) rows of each frame where x is padded below them, so that a frame's depths are the same in any batch.

    A convolution labels alike what looks alike, wherever it lies; in ultrasound what lies near the probe and what lies
    deep are different tissue. The vertical coordinate of Liu et al., An intriguing failing of convolutional neural
    networks and the CoordConv solution, NeurIPS 2018.
    """
    rows = torch.ones_like(x[:, :1], dtype=torch.float32).cumsum(2)  # operations on x: traced and exported as such
    last = rows[:, :, -1:] if heights is None else heights[:, None, None, None]
    return torch.cat([x, (rows / last).clamp(max=1).type_as(x)], 1)


def image_channels(weight):
    """The first convolution's weight -> (channels of the image, whether the depth is one channel more)."""
    channels, depth = weight.shape[1], weight.shape[1] % 2 == 0  # images have 1 or 3
    return channels - depth, depth
