"""What every model offers: the base class that the scripts, checkpoints and engines rely on."""

from abc import ABC, abstractmethod

from torch import nn


class SegmentationModel(nn.Module, ABC):
    """A network of one model folder.

    A subclass sets the constants, takes ``in_channels`` (1 or 3, of the image) and ``classes`` (background included)
    and any further architecture options as keyword arguments of plain types, each with a default, and defines the
    methods below. Checkpoints keep these arguments by name; each further one is also an option of train.py of its
    name. Parameter names are the keys of the weights: those of a published implementation, if there is one, so that its
    weights load.

    NAME: the folder's name. HEAD: beginnings of the keys that --new-head replaces, such as ``("outc.",)``.
    HEAD_WEIGHTS: the weight of each further head's loss (deep supervision, auxiliary head) in the order in which
    ``forward`` returns them. SMALLEST_BATCH: frames that the network must see together in training.
    """

    NAME: str
    HEAD: tuple
    HEAD_WEIGHTS: tuple = ()
    SMALLEST_BATCH: int = 1

    @abstractmethod
    def forward(self, x, heights=None):
        """Return the logits (N, classes, H, W) of frames (N, in_channels, H, W), float32 in 0 to 1, for any H and W.

        heights: (N,) rows of each frame in training, where shorter frames are padded below. With further heads, in
        training mode only, return (logits, those of the first further head, ...), all of this shape. Must be traceable
        by torch.fx and torch.export: no branches on values.
        """

    @abstractmethod
    def encoder(self):
        """Return the modules that --freeze-encoder keeps as they are."""

    @abstractmethod
    def blocks(self):
        """Return the modules whose activations fill the memory in training; no module may be in two of them.

        With --low-memory each computes its activations again in the backward pass.
        """

    @staticmethod
    @abstractmethod
    def options_from(state_dict):
        """Return the constructor's arguments that give weights of these names and shapes, None if they are another's.

        Checkpoints are checked by it, and bare weights of other code are recognised by it.
        """
