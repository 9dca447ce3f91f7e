"""Several models as one, or one model that sees a frame several ways: the mean of their probabilities."""

from dataclasses import replace

import torch

from sonogravity.common.messages import InputError
from sonogravity.datasets.frames import network_size, resize_image

# What --tta adds: factors on --scale, each also mirrored.
VIEWS = {
    "none": ((1.0, False),),
    "flip": ((1.0, False), (1.0, True)),
    "scales": tuple((factor, flipped) for factor in (0.8, 1.0, 1.25) for flipped in (False, True)),
}


class Ensemble:
    """Predictors that answer together, with a Predictor's interface.

    members: {name: Predictor} of the same classes and channels. views: a key of VIEWS. The probabilities (softmax) of
    all members and views are averaged at the frame's own size; a mirrored view is mirrored back first.
    """

    def __init__(self, members, views="none"):
        (name, first), *others = members.items()
        for other, predictor in others:
            for what, own, its in (
                ("classes", first.labels.describe(), predictor.labels.describe()),
                ("channels", first.channels, predictor.channels),
            ):
                if own != its:
                    raise InputError(f"{other}: its {what} are {its}, those of {name} {own}; an ensemble shares them")
        self.members = list(members.values())
        self.views = VIEWS[views]
        self.labels, self.channels, self.device = first.labels, first.channels, first.device

    def describe(self):
        """How it computes, for settings.json."""
        each = [member.describe() for member in self.members]
        shared = {key: value for key, value in each[0].items() if all(other[key] == value for other in each)}
        differing = {key: [other[key] for other in each] for key in each[0] if key not in shared}
        views = [f"scale x {factor:g}{', mirrored' * flipped}" for factor, flipped in self.views]
        return {**shared, **differing, "members": len(self.members), "views": views}

    def shrink(self, image):
        """(H, W[, 3]) native image -> for each member and each factor of the views, what its network sees."""
        return {
            (index, factor): resize_image(image, network_size(image.shape[:2], member.scale * factor))
            for index, member in enumerate(self.members)
            for factor in {factor for factor, _ in self.views}
        }

    @torch.inference_mode()
    def logits(self, frames):
        """Frames of one native size -> (N, C, H, W) float32: the logarithm of the mean probabilities."""
        total = 0
        for index, member in enumerate(self.members):
            for factor, flipped in self.views:
                seen = [replace(frame, image=frame.image[index, factor]) for frame in frames]
                logits = member.logits(mirrored(seen) if flipped else seen)
                total = total + (logits.flip(-1) if flipped else logits).softmax(1)
        return (total / (len(self.members) * len(self.views))).clamp_min(torch.finfo(torch.float32).tiny).log()


def mirrored(frames):
    """The frames' images with left and right exchanged."""
    return [replace(frame, image=frame.image[:, ::-1]) for frame in frames]
