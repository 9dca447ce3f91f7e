"""A frame in, a label map out, at native size: predict, evaluate and validation all come through here."""

from collections import Counter
from copy import copy, deepcopy
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.fx.experimental.optimization import fuse

from sonogravity.common import devices
from sonogravity.common.files import absolute
from sonogravity.common.messages import InputError, say, some
from sonogravity.common.processes import process_count
from sonogravity.datasets.frames import Frame, at_scales, check_depth, to_unit
from sonogravity.datasets.image_files import image_of_array
from sonogravity.datasets.pairs import Pair
from sonogravity.modeling import checkpoints

DEFAULT_SCALE = 0.5  # train.py's, for a weights file that doesn't say


def open_predictor(path, model_class, *, device, amp, scale, mask_values):
    """A checkpoint -> (Predictor, Checkpoint). device: ``auto``, ``cpu``, ...; amp, scale: None takes its own."""
    if process_count() > 1:
        raise InputError("this script runs as one process: torchrun is for train.py")
    device = devices.pick_device(device)
    checkpoint = checkpoints.load(path, model_class)
    model = checkpoints.open_model(model_class, checkpoint).to(device, memory_format=torch.channels_last)
    if scale is None and checkpoint.scale is None:
        say(f"{path.name}: holds no scale, so {DEFAULT_SCALE} is taken (--scale sets it)")
    predictor = Predictor(
        model,
        labels=checkpoints.labels_for(checkpoint, mask_values),
        scale=scale or checkpoint.scale or DEFAULT_SCALE,
        channels=checkpoint.model_options["in_channels"],
        image_maximum=checkpoint.image_maximum,
        device=device,
        amp=devices.amp_type(device, checkpoint.amp if amp is None else amp),
    )
    return predictor, checkpoint


def open_all(files, model_class, **options):
    """Checkpoints -> {path: (Predictor, Checkpoint)}, in order; options: as of open_predictor."""
    if repeated := [file for file, count in Counter(map(absolute, files)).items() if count > 1]:
        raise InputError(f"--load: {some(repeated)} is given twice; in an ensemble each file counts once")
    return {file: open_predictor(file, model_class, **options) for file in files}


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

    model: (N, C_in, h, w) float32 in 0 to 1 -> logits (N, C, h, w), on the device already, in channels_last memory
    format. amp: the type it computes in, None for float32. scale: the network sees frames resized by it; label maps are
    always at the frame's own size.
    """

    def __init__(self, model, *, labels, scale, channels, image_maximum, device, amp=None):
        self.model = model
        self.labels = labels
        self.scale = scale
        self.channels = channels
        self.image_maximum = image_maximum
        self.device = device
        self.amp = amp
        self.engine = "torch"
        self._network = None

    @property
    def scales(self):
        """The scales at which it sees a frame."""
        return (self.scale,)

    def renew(self):
        """Take up the model's weights as they are now; before it the first call does so."""
        self._network = run_by_torch(self.model, self.amp)

    def using(self, network, engine, amp):
        """The same predictor with another engine (see engines.py), which computes in ``amp``, None for float32."""
        other = copy(self)
        other._network, other.engine, other.amp = network, engine, amp
        return other

    def at_scale(self, scale):
        """The same predictor, network included, for frames resized by another scale."""
        if self._network is None:
            self.renew()
        other = copy(self)
        other.scale = scale
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
            check_depth(frame.pair, frame.images[self.scale], self.image_maximum)
        images = torch.stack([to_unit(frame.images[self.scale], self.image_maximum) for frame in frames])
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

    def predict(self, image):
        """Label one image: the pixels that predict.py writes for it.

        image: (H, W) or (H, W, 3) uint8, uint16, or float in 0 to 1. Return (H, W) uint8 or uint16 mask values as in
        the training masks; (H, W, 3) uint8 if those were colours. Raise InputError for another shape or type, and for
        16 bits if the model was trained on 8.
        """
        image = image_of_array(np.asarray(image), self.channels, "the image")
        frame = Frame(Pair(Path("the image")), at_scales(image, self.scales), None, image.shape[:2])
        return self.labels.to_values(to_label_maps(self.logits([frame]))[0])


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
