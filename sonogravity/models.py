"""The names of all model folders."""

import importlib

MODELS = ("unet", "deeplab")


def model_class(name):
    """Return the SegmentationModel of a folder: its model.py's ``MODEL``. Raise KeyError for a name not in MODELS."""
    if name not in MODELS:
        raise KeyError(name)
    return importlib.import_module(f"{name}.model").MODEL
