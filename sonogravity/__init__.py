"""Segment grayscale ultrasound with U-Net and DeepLabV3.

import sonogravity

predictor = sonogravity.load("checkpoints/unet/RUN/best.pth")
labels = predictor.predict(image)  # (H, W) array -> (H, W) mask values, as predict.py writes them
"""

from pathlib import Path

from sonogravity.common.messages import InputError

__all__ = ["InputError", "load"]


def load(checkpoint, device="auto", normalise=None):
    """Return the Predictor of a checkpoint of any model.

    checkpoint: a .pth file of train.py, or a bare state dict of other code. device: auto, cpu, cuda, cuda:N or mps.
    normalise: imagenet for a bare state dict that was trained with ImageNet's mean and deviation. Raise InputError if
    the file is not a checkpoint of one of the models.
    """
    from sonogravity import models  # slow: imports torch
    from sonogravity.inference.predictor import open_predictor
    from sonogravity.modeling.checkpoints import find_model

    path = Path(checkpoint)
    model_class = find_model(path, models.MODELS, models.model_class)
    as_stored = {"amp": None, "scale": None, "mask_values": None}
    return open_predictor(path, model_class, device=device, normalise=normalise, **as_stored)[0]
