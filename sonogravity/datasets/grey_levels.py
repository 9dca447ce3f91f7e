"""The grey levels of the training images, and how far those of another image lie from them.

On images of another brightness, contrast or bit depth a network fails, and its probabilities do not show it.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

QUANTILES = (10, 25, 50, 75, 90, 95, 98, 99, 99.5, 99.9)  # percent
LONGEST_SIDE = 256  # pixels that images are reduced to, so that speckle averages out
# The distance, in 0 to 1, from which an image counts as unlike the training images. On lumbar phantom frames at most
# 0.10 between unseen acquisitions and the training set, at least 0.12 if the gain is doubled or halved.
USUAL_DISTANCE = 0.11
LARGEST_DISTANCE = 0.22  # however much the training set's own subjects differ
SPREAD = 2  # times the distances between the training set's own subjects, if they differ more than that
MOST_COMPARED = 512  # frames between which distances are measured, so that the time does not grow with their square
MOST_FRAMES = 256  # that a checkpoint keeps


def grey_quantiles(image):
    """(H, W) or (H, W, 3) image -> (10,) float64: QUANTILES of the reduced image, in the image's own unit."""
    grey = image if image.ndim == 2 else image[:, :, 1]
    reduced = Image.fromarray(grey if grey.dtype == np.uint8 else grey.astype(np.float32))
    return np.percentile(np.asarray(reduced.reduce(-(-max(grey.shape) // LONGEST_SIDE))), QUANTILES)


def full_scale(dtype, image_maximum):
    """The pixel value that the network sees as 1."""
    return {"uint8": 255, "uint16": image_maximum}.get(np.dtype(dtype).name, 1)


@dataclass(frozen=True)
class GreyLevels:
    """Grey levels of a training set.

    frames: (n, 10) QUANTILES of its frames, in 0 to 1. limit: the distance that is usual between its subjects.
    """

    frames: np.ndarray
    limit: float

    @classmethod
    def of(cls, frames, groups):
        """Describe a training set. frames: (n, 10) in 0 to 1. groups: (n,) the subject of each, or its stem."""
        step = -(-len(frames) // MOST_COMPARED)
        some, of_some = frames[::step], np.asarray(groups)[::step]
        apart = [_distances(some[of_some == group], some[of_some != group]) for group in np.unique(of_some)]
        apart = np.concatenate([found for found in apart if len(found)] or [np.zeros(1)])
        limit = min(max(USUAL_DISTANCE, SPREAD * float(np.percentile(apart, 95))), LARGEST_DISTANCE)
        return cls(_most_different(frames, MOST_FRAMES), limit)

    @classmethod
    def from_dict(cls, stored):
        """Rebuild from as_dict's plain types; KeyError, TypeError or ValueError if they are damaged."""
        frames, limit = np.array(stored["frames"], float), float(stored["limit"])
        if frames.ndim != 2 or frames.shape[1] != len(QUANTILES) or not (np.isfinite(frames).all() and limit > 0):
            raise ValueError("grey levels")
        return cls(frames, limit)

    def as_dict(self):
        """Plain types, for checkpoints."""
        return {"frames": self.frames.round(4).tolist(), "limit": self.limit}

    def unlikeness(self, image, image_maximum):
        """How unlike the training images an image is: 0 as like as one of them, above 1 unlike.

        The largest difference of a quantile from those of the nearest training image, divided by ``limit``.
        """
        return self.unlikeness_of(grey_quantiles(image) / full_scale(image.dtype, image_maximum))

    def unlikeness_of(self, quantiles):
        """Return the unlikeness of an image with these (10,) quantiles, in 0 to 1."""
        return float(_distances(quantiles[None], self.frames)[0] / self.limit)


def _distances(frames, others):
    """(n, 10) and (m, 10) quantiles -> (n,) largest difference of a quantile from the nearest of the others."""
    if not len(others):
        return np.empty(0)
    return np.array([np.abs(others - frame).max(1).min() for frame in frames])


def _most_different(frames, count):
    """At most ``count`` of (n, 10) quantiles, each time the one farthest from those taken before."""
    if len(frames) <= count:
        return frames
    taken, nearest = [0], np.abs(frames - frames[0]).max(1)
    while len(taken) < count:
        taken.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.abs(frames - frames[taken[-1]]).max(1))
    return frames[sorted(taken)]
