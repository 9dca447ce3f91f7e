"""Cross-entropy and soft Dice, in float32 whatever the network computes in; padding is left out."""

import torch
import torch.nn.functional as F
from torch import nn

from sonogravity.datasets.labels import IGNORE_INDEX


def soft_dice_loss(logits, classes, background=0):
    """1 - soft Dice, over the foreground classes that the batch's truth holds (Milletari et al. 2016).

    logits: (N, C, H, W); classes: (N, H, W) int64 with IGNORE_INDEX where there is no frame.
    Batch-wise: sums run over all frames, so a class absent from one frame does no harm. A class absent
    from the whole batch has no overlap to gain, and no gradient, so it is left out; with no
    foreground at all the loss is 0.
    """
    known = classes != IGNORE_INDEX  # (N, H, W)
    truth = F.one_hot(classes.where(known, background), logits.shape[1]).movedim(-1, 1)  # (N, C, H, W)
    truth = truth * known[:, None]
    probability = logits.float().softmax(1) * known[:, None]
    overlap = (probability * truth).sum((0, 2, 3))  # (C,)
    total = probability.sum((0, 2, 3)) + truth.sum((0, 2, 3))
    counted = truth.sum((0, 2, 3)) > 0
    counted[background] = False
    dice = 2 * overlap / total.clamp_min(torch.finfo(torch.float32).tiny)
    # A weighted sum rather than dice[counted]: indexing by a mask would wait for the GPU.
    return ((1 - dice) * counted).sum() / counted.sum().clamp_min(1)


def cross_entropy_loss(logits, classes, background=0):
    """Mean cross-entropy over the pixels of frames. Shapes as of soft_dice_loss."""
    return F.cross_entropy(logits, classes, ignore_index=IGNORE_INDEX)


TERMS = {"ce": cross_entropy_loss, "dice": soft_dice_loss}


class SegmentationLoss(nn.Module):
    """A sum of TERMS, named as ``ce``, ``dice`` or ``ce+dice``, of (N, C, H, W) logits and (N, H, W) class indices."""

    def __init__(self, kind, background=0):
        super().__init__()
        self.terms = [TERMS[name] for name in kind.split("+")]
        self.background = background

    def forward(self, logits, classes):
        logits = logits.float()
        return sum(term(logits, classes, self.background) for term in self.terms)


class HeadsLoss(nn.Module):
    """The criterion of the logits, plus ``weights`` times that of each further head that a network has in training.

    forward takes the logits alone, or (logits, those of the first further head, ...), each (N, C, H, W).
    """

    def __init__(self, criterion, weights):
        super().__init__()
        self.criterion = criterion
        self.weights = weights

    def forward(self, logits, classes):
        if isinstance(logits, torch.Tensor):
            return self.criterion(logits, classes)
        main, *further = logits
        return self.criterion(main, classes) + sum(
            weight * self.criterion(each, classes) for weight, each in zip(self.weights, further, strict=True)
        )
