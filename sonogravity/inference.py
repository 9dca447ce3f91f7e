"""A frame in, a label map out, at native size: predict, evaluate and validation all come through here."""

import torch
import torch.nn.functional as F

from sonogravity.data import check_depth, network_size, resize_image, to_unit


class Predictor:
    """A model with all that is needed to use it on frames.

    model: (N, C_in, h, w) float32 in 0 to 1 -> logits (N, C, h, w). amp: autocast's type or None.
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

    @torch.inference_mode()
    def logits(self, frames):
        """Frames of one native size -> (N, C, H, W) float32 logits at that size, on the device.

        The logits, not the labels, are resized (bilinearly), so borders are finer than the network's grid.
        """
        for frame in frames:
            check_depth(frame.pair, frame.image, self.image_maximum)
        images = torch.stack([to_unit(frame.image, self.image_maximum) for frame in frames])
        images = images.to(self.device, memory_format=torch.channels_last)
        self.model.eval()
        with torch.autocast(self.device.type, self.amp, enabled=self.amp is not None):
            logits = self.model(images)
        return F.interpolate(logits.float(), frames[0].size, mode="bilinear", align_corners=False)

    def shrink(self, image):
        """(H, W[, 3]) native image -> the size that the network sees."""
        return resize_image(image, network_size(image.shape[:2], self.scale))


def to_label_maps(logits):
    """(N, C, H, W) logits -> (N, H, W) uint8 class indices as a numpy array."""
    return logits.argmax(1).to(torch.uint8).cpu().numpy()
