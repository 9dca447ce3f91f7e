"""The values that options accept. They are listed here so that --help needs no torch.

The module named beside each list implements them and raises KeyError for any other name. A test compares the two.
"""

SCHEDULES = ("plateau", "cosine", "poly", "constant")  # training/optimization.py
OPTIMIZERS = ("adam", "adamw", "sgd", "rmsprop")  # training/optimization.py
LOSSES = ("ce", "dice", "ce+dice")  # training/losses.py
ENGINES = ("torch", "compile", "onnx", "openvino")  # inference/engines.py
VIEWS = ("none", "flip", "scales")  # inference/ensemble.py
NORMALISATIONS = ("none", "imagenet")  # modeling/normalisation.py
