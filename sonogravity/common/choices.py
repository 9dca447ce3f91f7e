"""The names that options offer. They stand here, so that --help needs no torch; a table of the module named has each.

A name that the table lacks is a KeyError, and a test compares the two.
"""

SCHEDULES = ("plateau", "cosine", "poly", "constant")  # training/optimization.py
OPTIMIZERS = ("adam", "adamw", "sgd", "rmsprop")  # training/optimization.py
LOSSES = ("ce", "dice", "ce+dice")  # training/losses.py
ENGINES = ("torch", "compile", "onnx", "openvino")  # inference/engines.py
VIEWS = ("none", "flip", "scales")  # inference/ensemble.py
