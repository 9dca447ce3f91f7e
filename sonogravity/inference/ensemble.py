"""Ensembles: the mean probabilities of several models, or of one model that sees several views of a frame."""

from dataclasses import replace

import torch

from sonogravity.common.messages import InputError

# The views of --tta: (factor on --scale, whether the frame is mirrored).
VIEWS = {
    "none": ((1.0, False),),
    "flip": ((1.0, False), (1.0, True)),
    "scales": tuple((factor, flipped) for factor in (0.8, 1.0, 1.25) for flipped in (False, True)),
}


class Ensemble:
    """Several predictors with the interface of one Predictor.

    members: {name: Predictor} of the same classes and channels. views: a key of VIEWS. The probabilities (softmax) of
    all members and views are averaged at the frame's native size. A mirrored view is mirrored back first.
    """

    def __init__(self, members, views="none"):
        (name, first), *others = members.items()
        for other, predictor in others:
            for what, own, its in (
                ("classes", first.labels.describe(), predictor.labels.describe()),
                ("channels", first.channels, predictor.channels),
            ):
                if own != its:
                    raise InputError(
                        f"{other}: its {what} are {its}, but those of {name} are {own}; give members with equal {what}"
                    )
        self.members = list(members.values())
        self.views = VIEWS[views]
        self.labels, self.channels, self.device = first.labels, first.channels, first.device
        self._seen = [
            (member.at_scale(member.scale * factor), flipped)
            for member in self.members
            for factor, flipped in self.views
        ]

    @property
    def scales(self):
        """Return the scales at which the members see a frame."""
        return tuple(dict.fromkeys(predictor.scale for predictor, _ in self._seen))

    @property
    def knows_grey_levels(self):
        """Whether unlikeness() can tell."""
        return all(member.knows_grey_levels for member in self.members)

    def unlikeness(self, image):
        """Return the unlikeness of a native image to the training images of the member it is least like."""
        found = [member.unlikeness(image) for member in self.members]
        return None if None in found else max(found)

    def describe(self):
        """Return the settings of the computation, for settings.json."""
        each = [member.describe() for member in self.members]
        shared = {key: value for key, value in each[0].items() if all(other[key] == value for other in each)}
        differing = {key: [other[key] for other in each] for key in each[0] if key not in shared}
        views = [f"scale x {factor:g}{', mirrored' * flipped}" for factor, flipped in self.views]
        return {**shared, **differing, "members": len(self.members), "views": views}

    @torch.inference_mode()
    def logits(self, frames):
        """Return (N, C, H, W) float32, the logarithm of the mean probabilities, of frames of one native size."""
        total = 0
        for predictor, flipped in self._seen:
            logits = predictor.logits(mirrored(frames) if flipped else frames)
            total = total + (logits.flip(-1) if flipped else logits).softmax(1)
        return (total / len(self._seen)).clamp_min(torch.finfo(torch.float32).tiny).log()


def mirrored(frames):
    """Return the frames with left and right of their images exchanged."""
    return [replace(frame, images={scale: image[:, ::-1] for scale, image in frame.images.items()}) for frame in frames]
