"""A frame in, a label map out, at native size: predict, evaluate and validation all come through here."""

from copy import copy, deepcopy

import torch
import torch.nn.functional as F
from torch import nn
from torch.fx.experimental.optimization import fuse

from sonogravity.data import check_depth, network_size, resize_image, to_unit


def folded(model, amp=None):
    """A copy of the model for inference: batch normalisation folded into the convolutions, weights in ``amp``'s type.

    Jacob et al., arXiv 1712.05877, 2017, section 3.2. It saves a pass over each feature map, and autocast's conversion
    of all weights at each call.
    """
    return fuse(_alone(model.eval())).to(amp or torch.float32, memory_format=torch.channels_last)


def _alone(model):
    """The model, or a copy in which synchronised batch normalisation, which is for training, is ordinary again."""
    if not any(isinstance(module, nn.SyncBatchNorm) for module in model.modules()):
        return model
    model = deepcopy(model)
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.SyncBatchNorm):
                plain = nn.BatchNorm2d(child.num_features, child.eps).to(child.weight.device)
                plain.load_state_dict(child.state_dict())
                setattr(parent, name, plain.eval())
    return model


def run_by_torch(model, amp=None):
    """The engine ``torch``: (N, C_in, h, w) float32 -> (N, C, h, w) float32 logits, operation by operation."""
    network = folded(model, amp)
    return lambda images: network(images.to(amp or torch.float32)).float()


class Predictor:
    """A model with all that is needed to use it on frames.

    model: (N, C_in, h, w) float32 in 0 to 1 -> logits (N, C, h, w). amp: the type it computes in, None for float32.
    scale: the network sees frames resized by it; label maps are always at the frame's own size.
    """

    def __init__(self, model, *, labels, scale, channels, image_maximum, device, amp=None):
        self.model = model.to(device, memory_format=torch.channels_last)
        self.labels = labels
        self.scale = scale
        self.channels = channels
        self.image_maximum = image_maximum
        self.device = device
        self.amp = amp
        self.engine = "torch"
        self._network = None

    def renew(self):
        """Take up the model's weights as they are now; before it the first call does so."""
        self._network = run_by_torch(self.model, self.amp)

    def using(self, network, engine, amp):
        """The same predictor with another engine (see engines.py), which computes in ``amp``, None for float32."""
        other = copy(self)
        other._network, other.engine, other.amp = network, engine, amp
        return other

    def describe(self):
        """How it computes, for settings.json."""
        return {
            "engine": self.engine,
            "scale": self.scale,
            "mixed_precision": str(self.amp or "float32"),
            "device": str(self.device),
        }

    def images(self, frames):
        """Frames of one size -> what the network sees: (N, C_in, h, w) float32 in 0 to 1, on the device."""
        for frame in frames:
            check_depth(frame.pair, frame.image, self.image_maximum)
        images = torch.stack([to_unit(frame.image, self.image_maximum) for frame in frames])
        return images.to(self.device, memory_format=torch.channels_last)

    @torch.inference_mode()
    def logits(self, frames):
        """Frames of one native size -> (N, C, H, W) float32 logits at that size, on the device.

        The logits, not the labels, are resized (bilinearly), so borders are finer than the network's grid.
        """
        if self._network is None:
            self.renew()
        logits = self._network(self.images(frames)).contiguous()  # one plane a class, as to_label_maps wants it
        return F.interpolate(logits, frames[0].size, mode="bilinear", align_corners=False)

    def shrink(self, image):
        """(H, W[, 3]) native image -> the size that the network sees."""
        return resize_image(image, network_size(image.shape[:2], self.scale))


def to_label_maps(logits):
    """(N, C, H, W) logits -> (N, H, W) uint8 class indices as a numpy array; of equal logits the first class wins.

    Plane by plane, as argmax over the classes of planes takes ten times as long.
    """
    highest = logits[:, 0]
    classes = torch.zeros_like(highest, dtype=torch.uint8)
    for c in range(1, logits.shape[1]):
        classes.masked_fill_(logits[:, c] > highest, c)
        highest = torch.maximum(highest, logits[:, c])
    return classes.cpu().numpy()
