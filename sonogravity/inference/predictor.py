"""Predict label maps of frames at native size, for predict, evaluate and validation alike."""

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
from sonogravity.datasets.frame_files import FrameFile
from sonogravity.datasets.frames import Frame, at_scales, check_depth, to_unit
from sonogravity.datasets.image_files import image_of_array
from sonogravity.datasets.pairs import Pair
from sonogravity.modeling import checkpoints

DEFAULT_SCALE = 0.5  # the default of train.py, for weights files without a scale


def open_predictor(path, model_class, *, device, amp, scale, mask_values, ignored=None, normalise=None):
    """Return (Predictor, Checkpoint). device: ``auto``, ``cpu``, ...

    amp, scale, ignored (mask values): None uses those of the checkpoint. normalise: of bare weights, see
    checkpoints.load.
    """
    if process_count() > 1:
        raise InputError("this script runs as one process; use torchrun for train.py only")
    device = devices.pick_device(device)
    checkpoint = checkpoints.load(path, model_class, normalise)
    model = checkpoints.open_model(model_class, checkpoint).to(device, memory_format=torch.channels_last)
    if scale is None and checkpoint.scale is None:
        say(f"{path.name}: holds no scale, so {DEFAULT_SCALE} is used (--scale sets it)")
    if checkpoint.grey_levels is None:
        say(f"{path.name}: holds no grey levels of its training images, so images unlike them are not pointed out")
    labels = checkpoints.labels_for(checkpoint, mask_values)
    predictor = Predictor(
        model,
        labels=labels if ignored is None else labels.with_ignored(ignored),
        scale=scale or checkpoint.scale or DEFAULT_SCALE,
        channels=checkpoint.model_options["in_channels"],
        image_maximum=checkpoint.image_maximum,
        grey_levels=checkpoint.grey_levels,
        device=device,
        amp=devices.amp_type(device, checkpoint.amp if amp is None else amp),
    )
    return predictor, checkpoint


def open_all(files, model_class, **options):
    """Return {path: (Predictor, Checkpoint)} of checkpoint files, in order. options: those of open_predictor."""
    if repeated := [file for file, count in Counter(map(absolute, files)).items() if count > 1]:
        raise InputError(f"--load: {some(repeated)} is given twice; give each file of an ensemble once")
    return {file: open_predictor(file, model_class, **options) for file in files}


def folded(model, amp=None):
    """Return a copy of the model for inference: batch normalisation folded into convolutions, weights of type ``amp``.

    Jacob et al., arXiv 1712.05877, 2017, section 3.2. This saves a pass over each feature map, and autocast's
    conversion of all weights at each call.
    """
    return fuse(_alone(model.eval())).to(amp or torch.float32, memory_format=torch.channels_last)


def _alone(model):
    """Return the model, or a copy with ordinary instead of synchronised batch normalisation, which is for training."""
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
    """Return the engine ``torch``: (N, C_in, h, w) float32 -> (N, C, h, w) float32 logits, operation by operation."""
    network = folded(model, amp)
    return lambda images: network(images.to(amp or torch.float32)).float()


class Predictor:
    """A model with all settings that are needed to use it on frames.

    model: (N, C_in, h, w) float32 in 0 to 1 -> logits (N, C, h, w), on the device already, in channels_last memory
    format. amp: the type of the computation, None for float32. scale: the network sees frames resized by it; label maps
    are always at native size.
    """

    def __init__(self, model, *, labels, scale, channels, image_maximum, device, amp=None, grey_levels=None):
        self.model = model
        self.labels = labels
        self.scale = scale
        self.channels = channels
        self.image_maximum = image_maximum
        self.grey_levels = grey_levels
        self.device = device
        self.amp = amp
        self.engine = "torch"
        self._network = None

    @property
    def scales(self):
        """Return the scales at which the network sees a frame."""
        return (self.scale,)

    def renew(self):
        """Use the model's current weights from now on. The first prediction also does this."""
        self._network = run_by_torch(self.model, self.amp)

    def using(self, network, engine, amp):
        """Return the same predictor with another engine (see engines.py). amp: its data type, None for float32."""
        other = copy(self)
        other._network, other.engine, other.amp = network, engine, amp
        return other

    def at_scale(self, scale):
        """Return the same predictor, with the same network, for frames resized by another scale."""
        if self._network is None:
            self.renew()
        other = copy(self)
        other.scale = scale
        return other

    @property
    def knows_grey_levels(self):
        """Whether unlikeness() can tell."""
        return self.grey_levels is not None

    def unlikeness(self, image):
        """Return GreyLevels.unlikeness of a native image; None if the checkpoint has no grey levels."""
        if self.grey_levels is None or (image.dtype == np.uint16 and self.image_maximum is None):
            return None
        return self.grey_levels.unlikeness(image, self.image_maximum)

    def describe(self):
        """Return the settings of the computation, for settings.json."""
        return {
            "engine": self.engine,
            "scale": self.scale,
            "mixed_precision": str(self.amp or "float32"),
            "device": str(self.device),
        }

    def images(self, frames):
        """Return the network's input for frames of one size: (N, C_in, h, w) float32 in 0 to 1, on the device."""
        for frame in frames:
            check_depth(frame.pair, frame.images[self.scale], self.image_maximum)
        images = torch.stack([to_unit(frame.images[self.scale], self.image_maximum) for frame in frames])
        return images.to(self.device, memory_format=torch.channels_last)

    @torch.inference_mode()
    def logits(self, frames):
        """Return (N, C, H, W) float32 logits of frames of one native size, at this size, on the device.

        The logits, not the labels, are resized (bilinearly), so boundaries are finer than the network's grid. A GPU
        does not use TF32, because scores would then depend on the device and the batch size.
        """
        if self._network is None:
            self.renew()
        with devices.full_float32():
            logits = self._network(self.images(frames)).contiguous()  # one plane per class, as to_label_maps needs it
        return F.interpolate(logits, frames[0].size, mode="bilinear", align_corners=False)

    def predict(self, image):
        """Return the predicted mask of one image, with the same pixels as the file that predict.py writes.

        image: (H, W) or (H, W, 3) uint8, uint16, or float in 0 to 1. The mask is (H, W) uint8 or uint16 with the values
        of the training masks, or (H, W, 3) uint8 if these were colours. Raise InputError for another shape or type, and
        for a 16-bit image if the model was trained on 8-bit images.
        """
        image = image_of_array(np.asarray(image), self.channels, "the image")
        frame = Frame(Pair(FrameFile(Path("the image"))), at_scales(image, self.scales), None, image.shape[:2])
        return self.labels.to_values(to_label_maps(self.logits([frame]))[0])


def to_label_maps(logits):
    """Return (N, H, W) uint8 class indices of (N, C, H, W) logits, as a numpy array. On a tie the first class wins.

    The loop over planes is ten times as fast as argmax over the classes.
    """
    highest = logits[:, 0]
    classes = torch.zeros_like(highest, dtype=torch.uint8)
    for c in range(1, logits.shape[1]):
        classes.masked_fill_(logits[:, c] > highest, c)
        highest = torch.maximum(highest, logits[:, c])
    return classes.cpu().numpy()
