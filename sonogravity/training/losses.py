"""Cross-entropy and soft Dice losses. They are computed in float32 and ignore padding."""

import torch
import torch.nn.functional as F
from torch import nn

from sonogravity.datasets.labels import IGNORE_INDEX


def soft_dice_loss(logits, classes, background=0):
    """Return 1 - soft Dice, averaged over the foreground classes in the batch's truth (Milletari et al. 2016).

    logits: (N, C, H, W); classes: (N, H, W) int64, IGNORE_INDEX in the padding.
    The sums run over all frames of the batch, so a class may be absent from single frames. A class absent
    from the whole batch is left out, because its overlap is always 0 and has no gradient. Without any
    foreground class the loss is 0.
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
    # A weighted sum, because indexing by a mask (dice[counted]) would wait for the GPU.
    return ((1 - dice) * counted).sum() / counted.sum().clamp_min(1)


def cross_entropy_loss(logits, classes, background=0):
    """Return the mean cross-entropy over all pixels except padding. Shapes as in soft_dice_loss."""
    total = F.cross_entropy(logits, classes, ignore_index=IGNORE_INDEX, reduction="sum")
    return total / (classes != IGNORE_INDEX).sum().clamp_min(1)  # 0, not NaN, if all pixels are ignored


TERMS = {"ce": cross_entropy_loss, "dice": soft_dice_loss}


class SegmentationLoss(nn.Module):
    """Sum of the TERMS that ``kind`` names (``ce``, ``dice`` or ``ce+dice``); shapes as in soft_dice_loss."""

    def __init__(self, kind, background=0):
        super().__init__()
        self.terms = [TERMS[name] for name in kind.split("+")]
        self.background = background

    def forward(self, logits, classes):
        logits = logits.float()
        return sum(term(logits, classes, self.background) for term in self.terms)


class HeadsLoss(nn.Module):
    """The criterion of the main logits, and its sum with the weighted criterion of each auxiliary head.

    weights: one per auxiliary head. forward takes the main logits alone, or (main logits, logits of the first
    auxiliary head, ...), each (N, C, H, W). It returns (the sum, whose gradient trains the network; the loss of the
    main logits, which is the quantity that the validation measures as well).
    """

    def __init__(self, criterion, weights):
        super().__init__()
        self.criterion = criterion
        self.weights = weights

    def forward(self, logits, classes):
        if isinstance(logits, torch.Tensor):
            logits, weights = (logits,), ()
        else:
            weights = self.weights
        main, *further = (self.criterion(each, classes) for each in logits)
        return main + sum(weight * each for weight, each in zip(weights, further, strict=True)), main
