"""The normalisation of pixels that weights of other origin were trained with; the network applies it to its input."""

import torch

# Mean and standard deviation of each channel (red, green, blue), for pixels in 0 to 1: those of torchvision's weights.
NORMALISATIONS = {"imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))}


def constants(name, channels):
    """Return (mean, deviation), float32 (channels,), of a name in NORMALISATIONS. Raise KeyError for any other name.

    For one grey channel both are the means over the three colours.
    """
    mean, deviation = map(torch.tensor, NORMALISATIONS[name])
    return (mean, deviation) if channels == 3 else (mean.mean()[None], deviation.mean()[None])


def filters_for_grey(filters, name):
    """Return (filters (N, 1, k, k), shift (N,)) for one grey channel, from filters (N, 3, k, k) for three colours.

    For a grey frame, the new filters on the frame normalised for one channel give the old output plus the shift. At the
    frame's border this is an approximation: zero padding is each colour's mean for the old filters, but the mean over
    the colours for the new ones. name: in NORMALISATIONS.
    """
    (means, deviations), (mean, deviation) = constants(name, 3), constants(name, 1)
    shift = (filters.sum((2, 3)) * (means - mean) / deviations).sum(1)
    return (filters * (deviation / deviations)[:, None, None]).sum(1, keepdim=True), shift
