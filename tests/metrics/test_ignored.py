"""Ignored pixels count nowhere: overlap, boundary, margin, calibration, losses (METRICS: ignored values)."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sonogravity.datasets.labels import IGNORE_INDEX, Labels
from sonogravity.datasets.spacing import Spacing
from sonogravity.metrics import confidence, margin, overlap
from sonogravity.metrics.file_scores import Measure
from sonogravity.training.losses import SegmentationLoss, soft_dice_loss

LABELS = Labels.create([0, 1], ignored=[7])
V = IGNORE_INDEX


def test_the_case_of_the_definition():
    truth, prediction = np.array([[0, 1, 1, V]], np.uint8), np.array([[0, 1, 0, 1]], np.uint8)
    shown, counts, ignored = overlap.count(truth, prediction, LABELS)
    assert counts.tolist() == [[1, 0], [1, 1]] and shown.tolist() == [[0, 1, 1, 0]]
    assert ignored.tolist() == [[False, False, False, True]]
    assert overlap.file_metrics(counts, LABELS)["dice"] == pytest.approx(2 / 3)
    assert prediction.tolist() == [[0, 1, 0, 1]], "the prediction itself stays"


def test_nothing_changes_without_ignored_pixels():
    truth, prediction = np.array([[0, 1]], np.uint8), np.array([[1, 1]], np.uint8)
    shown, counts, ignored = overlap.count(truth, prediction, LABELS)
    assert shown is truth and ignored is None and counts.tolist() == [[0, 1], [0, 1]]


def scene():
    truth = np.zeros((30, 30), np.uint8)
    truth[10:20, 10:20] = 1
    truth[:, 18:] = V
    prediction = np.zeros((30, 30), np.uint8)
    prediction[9:21, 9:30] = 1
    return truth, prediction


def test_the_variants_of_the_margin_hold_background_there():
    truth, prediction = scene()
    shown, counts, ignored = overlap.count(truth, prediction, LABELS)
    without = np.where(ignored, 0, prediction).astype(np.uint8)
    choice = margin.choose(shown, without, counts, LABELS, 2, (1, 1), ignored)
    for name, variant in choice.maps.items():
        assert (variant[ignored] == 0).all(), name
        by_hand = overlap.confusion_matrix(variant[~ignored], without[~ignored], 2)
        assert choice.dice[name] == pytest.approx(overlap.class_metrics(by_hand)["dice"][1]), name
        if name == choice.used:
            assert choice.confusion.tolist() == by_hand.tolist()
    assert counts.sum() == (~ignored).sum()
    assert (choice.maps["dilated"] != shown).any() and (choice.maps["eroded"] != shown).any()


def test_every_score_is_the_same_whatever_is_predicted_there():
    truth, prediction = scene()
    measure = Measure(LABELS, {"a.png": Spacing(1, 1)}, margin_mm=1.5)
    found = []
    for value in (0, 1):
        prediction[:, 18:] = value
        shown, counts, ignored = overlap.count(truth, prediction, LABELS)
        found.append(measure.of("a.png", shown, prediction, counts, ignored))
    assert found[0].figures == found[1].figures and found[0].sweep == found[1].sweep
    assert found[0].figures["dice"] < 1 and found[0].figures["hd_mm"] > 0


def test_calibration_leaves_them_out():
    truth, prediction = scene()
    shown, _, ignored = overlap.count(truth, prediction, LABELS)
    logits = torch.randn(2, 30, 30, generator=torch.Generator().manual_seed(0))
    sums = confidence.reliability(logits, shown, LABELS, ignored)
    assert sums[0, :, 0].sum() == (~ignored).sum() and sums[0, :, 2].sum() == (truth == 1).sum()
    part = confidence.reliability(logits[:, :, :18].contiguous(), shown[:, :18].copy(), LABELS)
    np.testing.assert_allclose(sums, part)


@pytest.mark.parametrize("kind", ["ce", "dice", "ce+dice"])
def test_losses_do_not_see_them_and_are_0_if_all_is_ignored(kind):
    truth = torch.from_numpy(scene()[0]).long()[None]
    logits = torch.randn(1, 2, 30, 30, generator=torch.Generator().manual_seed(1), requires_grad=True)
    loss = SegmentationLoss(kind)(logits, truth)
    loss.backward()
    assert loss > 0 and (logits.grad[..., 18:] == 0).all() and (logits.grad[..., :18] != 0).any()
    nothing = SegmentationLoss(kind)(logits, torch.full_like(truth, V))
    nothing.backward()
    assert nothing == 0 and torch.isfinite(logits.grad).all()


def test_cross_entropy_is_torchs_own_mean_to_the_last_bit():
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(3, 4, 61, 47, generator=generator)
        classes = torch.randint(0, 4, (3, 61, 47), generator=generator)
        classes[:, -5:] = V
        assert torch.equal(SegmentationLoss("ce")(logits, classes), F.cross_entropy(logits, classes, ignore_index=V))
    assert soft_dice_loss(logits, classes) > 0
