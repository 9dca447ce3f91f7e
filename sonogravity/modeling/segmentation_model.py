"""The base class of all models, on which scripts, checkpoints and engines rely."""

from abc import ABC, abstractmethod

from torch import nn

from sonogravity.modeling.normalisation import constants


class SegmentationModel(nn.Module, ABC):
    """A network of one model folder.

    A subclass sets the constants and defines the methods below. Its keyword arguments are ``in_channels`` (1 or 3, of
    the image), ``classes`` (background included) and any architecture options, all of plain types and with defaults.
    Checkpoints store these arguments by name. Each architecture option is also an option of train.py with the same
    name. Parameter names are the keys of the weights. They are those of a published implementation, if there is one, so
    that its weights load.

    NAME: the folder's name. HEAD: prefixes of the keys that --new-head replaces, such as ``("outc.",)``.
    HEAD_WEIGHTS: the loss weight of each further head (deep supervision, auxiliary head), in the order in which
    ``forward`` returns the heads. SMALLEST_BATCH: number of frames that the network must see together in training.
    normalisation: what ``use_normalisation`` was called with; checkpoints store it.
    """

    NAME: str
    HEAD: tuple
    HEAD_WEIGHTS: tuple = ()
    SMALLEST_BATCH: int = 1
    normalisation: str = "none"

    def use_normalisation(self, name, channels):
        """Return the model, which from now on normalises its input. name: of choices.NORMALISATIONS. channels: 1 or 3.

        The constants are not stored with the weights (persistent=False), so these keep the names of other code.
        """
        self.normalisation = name
        if name != "none":
            mean, deviation = constants(name, channels)
            self.register_buffer("input_mean", mean[:, None, None], persistent=False)
            self.register_buffer("input_deviation", deviation[:, None, None], persistent=False)
        return self

    def normalised(self, x):
        """Return frames x, (N, in_channels, H, W) in 0 to 1, as the weights expect them. ``forward`` begins with it.

        A separate step, because zero padding in the network is then the mean, as in training. If the constants were
        folded into the first convolution, zero padding would be black.
        """
        return x if self.normalisation == "none" else (x - self.input_mean) / self.input_deviation

    @abstractmethod
    def forward(self, x, heights=None):
        """Return the logits (N, classes, H, W) of frames (N, in_channels, H, W), float32 in 0 to 1, for any H and W.

        heights: (N,) rows of each frame in training, because shorter frames are padded below. With further heads, and
        in training mode only, return (logits, logits of the first further head, ...), all of this shape. The method
        must be traceable by torch.fx and torch.export: no branches on values.
        """

    @abstractmethod
    def encoder(self):
        """Return the modules that --freeze-encoder keeps unchanged."""

    @abstractmethod
    def blocks(self):
        """Return the modules whose activations fill the memory in training. No module may be part of two of them.

        With --low-memory, each module recomputes its activations in the backward pass.
        """

    @staticmethod
    @abstractmethod
    def options_from(state_dict):
        """Return the constructor's arguments for weights of these names and shapes, None for those of another model.

        It is used to check checkpoints and to recognise bare weights of other code.
        """
