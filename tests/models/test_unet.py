"""The network: sizes, names, shapes; and the losses that train it."""

import sys
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from deeplab.model import DeepLabV3
from sonogravity.datasets.labels import IGNORE_INDEX
from sonogravity.datasets.loader import collate
from sonogravity.modeling.depth_channel import with_depth
from sonogravity.training.losses import HeadsLoss, SegmentationLoss, soft_dice_loss
from sonogravity.training.optimization import Plan, decayed, make_optimizer, make_scheduler
from unet.model import UNet


def test_parameters_are_as_published():
    assert sum(p.numel() for p in UNet(1, 3).parameters()) == 31_036_611
    assert sum(p.numel() for p in UNet(1, 3, bilinear=True).parameters()) == 17_261_955


def test_parameter_names_are_the_publicly_known_ones():
    names = set(UNet(1, 3, 4).state_dict())
    for name in (
        "inc.double_conv.0.weight",
        "inc.double_conv.1.running_var",
        "inc.double_conv.3.weight",
        "down1.maxpool_conv.1.double_conv.0.weight",
        "down4.maxpool_conv.1.double_conv.4.bias",
        "up1.up.weight",
        "up1.up.bias",
        "up4.conv.double_conv.3.weight",
        "outc.conv.bias",
    ):
        assert name in names
    assert len(names) == 18 * 6 + 8 + 2  # 18 convolutions with their normalisation, 4 transposed, the last


@given(st.integers(1, 40), st.integers(1, 40), st.booleans())
@settings(max_examples=15, deadline=None)
def test_any_size_goes_in_and_comes_out(height, width, bilinear):
    model = UNet(3, 2, 2, bilinear).eval()
    with torch.inference_mode():
        assert model(torch.rand(2, 3, height, width)).shape == (2, 2, height, width)


def test_padding_inside_changes_nothing_where_none_is_needed():
    torch.manual_seed(0)
    model = UNet(1, 2, 4).eval()
    image = torch.rand(1, 1, 32, 48)
    repeated = F.pad(image, (0, 16, 0, 16), mode="replicate")
    with torch.inference_mode():
        narrow = image[..., :41]
        padded = model(F.pad(narrow, (0, 7, 0, 0), mode="replicate"))
        assert torch.allclose(model(narrow), padded[..., :41])
        assert model(repeated).shape[-2:] == (48, 64)


@pytest.mark.parametrize("bilinear", [False, True])
@pytest.mark.parametrize("depth", [False, True])
@pytest.mark.parametrize("deep_supervision", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_options_are_read_from_the_weights(channels, bilinear, depth, deep_supervision):
    options = {
        "in_channels": channels,
        "classes": 5,
        "base_channels": 6,
        "bilinear": bilinear,
        "depth_channel": depth,
        "deep_supervision": deep_supervision,
    }
    assert UNet.options_from(UNet(**options).state_dict()) == options
    assert UNet.options_from({"weight": torch.zeros(3)}) is None


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([torch.float32, torch.bfloat16]))
def test_the_depth_of_each_row_is_a_channel_more(height, width, kind):
    image = torch.rand(2, 3, height, width, dtype=kind)
    seen = with_depth(image)
    assert seen.dtype == kind and torch.equal(seen[:, :3], image)
    expected = (torch.arange(1, height + 1) / height).to(kind)
    assert torch.equal(seen[:, 3], expected[None, :, None].expand(2, height, width))


@pytest.mark.parametrize(
    "model_class, options", [(UNet, {"base_channels": 4}), (DeepLabV3, {"backbone": "mobilenet_v3_large"})]
)
def test_a_frames_depths_do_not_depend_on_its_batch(model_class, options, monkeypatch):
    model, seen = model_class(1, 2, depth_channel=True, **options), []
    module = sys.modules[type(model).__module__]
    monkeypatch.setattr(module, "with_depth", lambda *inputs: seen.append(with_depth(*inputs)) or seen[-1])
    short, tall = ((torch.rand(1, rows, 33), torch.zeros(rows, 33, dtype=torch.uint8), "") for rows in (40, 81))
    batch = collate([short, tall])
    model.train()(batch.images, batch.heights)
    assert torch.equal(seen[0][0, 1, :40], with_depth(short[0][None])[0, 1])
    assert torch.equal(seen[0][0, 1, 40:], torch.ones(41, 33))
    assert torch.equal(seen[0][1, 1], with_depth(tall[0][None])[0, 1])
    model.eval()(short[0][None])  # alone: the rows that U-Net adds below, up to a multiple of 16, change no depth
    assert torch.equal(seen[1], with_depth(short[0][None]))


@pytest.mark.parametrize("depth", [False, True])
def test_only_with_depth_does_the_place_of_a_row_matter(depth):
    torch.manual_seed(0)
    model = UNet(1, 2, 4, depth_channel=depth).eval()
    image = torch.full((1, 1, 512, 32), 0.5)
    with torch.inference_mode():
        logits = model(image)
    assert torch.allclose(logits[..., 240, 16], logits[..., 272, 16], atol=1e-6) != depth  # far from the borders


def test_deep_supervision_trains_every_level_and_leaves_prediction_alone():
    torch.manual_seed(0)
    model = UNet(1, 3, 4, deep_supervision=True).train()
    images, classes = torch.rand(2, 1, 37, 45), torch.randint(3, (2, 37, 45))
    logits = model(images)
    assert [each.shape for each in logits] == [(2, 3, 37, 45)] * 5
    criterion = SegmentationLoss("ce")
    loss, main = HeadsLoss(criterion, UNet.HEAD_WEIGHTS)(logits, classes)
    finest, coarsest, eighth, fourth, half = (criterion(each, classes).item() for each in logits)
    expected = finest + half / 2 + fourth / 4 + eighth / 8 + coarsest / 16
    assert loss.item() == pytest.approx(expected) and main.item() == pytest.approx(finest)
    loss.backward()
    assert all(head.conv.weight.grad.abs().sum() > 0 for head in model.supervised)
    plain = UNet(1, 3, 4).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("supervised.")})
    model.eval()
    assert torch.equal(model(images), plain(images))
    alone = HeadsLoss(criterion, UNet.HEAD_WEIGHTS)(plain(images), classes)
    assert alone == (criterion(plain(images), classes),) * 2


def one_hot_logits(classes, count=3, height=20.0):
    return F.one_hot(classes, count).movedim(-1, 1).float() * height


@pytest.mark.parametrize("kind", ["ce", "dice", "ce+dice"])
def test_losses_have_a_gradient_that_leads_down(kind):
    torch.manual_seed(0)
    classes = torch.randint(3, (2, 6, 7))
    logits = torch.randn(2, 3, 6, 7, requires_grad=True)
    loss = SegmentationLoss(kind)
    before = loss(logits, classes)
    before.backward()
    assert logits.grad.abs().max() > 0 and torch.isfinite(logits.grad).all()
    assert loss(logits - 0.5 * logits.grad / logits.grad.norm(), classes) < before
    assert loss(one_hot_logits(classes), classes) < 1e-3


def test_soft_dice_gradient_is_right():
    torch.manual_seed(0)
    classes = torch.randint(3, (2, 3, 4))
    classes[0, 0] = IGNORE_INDEX
    logits = torch.randn(2, 3, 3, 4, requires_grad=True)
    analytic = torch.autograd.grad(soft_dice_loss(logits, classes), logits)[0]
    with torch.no_grad():
        step = 1e-2
        for index in ((0, 1, 1, 2), (1, 2, 0, 0), (0, 1, 0, 1)):
            shift = torch.zeros_like(logits)
            shift[index] = step
            slope = (soft_dice_loss(logits + shift, classes) - soft_dice_loss(logits - shift, classes)) / (2 * step)
            assert float(slope) == pytest.approx(float(analytic[index]), abs=2e-4)
    assert (analytic[0, :, 0] == 0).all(), "padding has no say"


def test_soft_dice_by_hand():
    classes = torch.tensor([[[0, 1], [1, 0]]])
    logits = torch.zeros(1, 2, 2, 2)  # probability 1/2 everywhere: 2 * 1 / (2 + 2)
    assert soft_dice_loss(logits, classes) == pytest.approx(0.5)


def test_soft_dice_is_batch_wise_and_counts_only_classes_of_the_truth():
    present, absent = torch.ones(1, 4, 4, dtype=torch.int64), torch.zeros(1, 4, 4, dtype=torch.int64)
    both = torch.cat([present, absent])
    assert soft_dice_loss(one_hot_logits(both), both) == pytest.approx(0, abs=1e-4)
    assert soft_dice_loss(torch.randn(1, 3, 4, 4), absent) == 0
    logits = torch.randn(1, 3, 4, 4)
    assert soft_dice_loss(logits, present) == pytest.approx(
        1 - 2 * float(logits.softmax(1)[:, 1].sum()) / float(logits.softmax(1)[:, 1].sum() + 16)
    )


@pytest.mark.parametrize("kind", ["ce", "dice", "ce+dice"])
def test_padding_is_left_out_of_the_loss(kind):
    torch.manual_seed(1)
    classes, logits = torch.randint(3, (1, 5, 5)), torch.randn(1, 3, 5, 5)
    padded = F.pad(classes, (0, 3, 0, 2), value=IGNORE_INDEX)
    loss = SegmentationLoss(kind)
    assert loss(F.pad(logits, (0, 3, 0, 2), value=9.0), padded) == pytest.approx(float(loss(logits, classes)), rel=1e-5)


def test_losses_are_float32_in_half_precision():
    loss = SegmentationLoss("ce+dice")(torch.randn(1, 3, 4, 4, dtype=torch.bfloat16), torch.randint(3, (1, 4, 4)))
    assert loss.dtype == torch.float32


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd", "rmsprop"])
def test_optimizers_move_weights_down(kind):
    weight = torch.nn.Parameter(torch.tensor([2.0]))
    optimizer = make_optimizer(kind, [weight], 0.05, 0.01)
    for _ in range(30):
        optimizer.zero_grad()
        (weight**2).sum().backward()
        optimizer.step()
    assert abs(float(weight.detach())) < 1.5
    assert optimizer.param_groups[0]["weight_decay"] == 0.01


def test_schedules():
    for kind in ("cosine", "poly"):
        factors = [decayed(kind, step, 100) for step in range(101)]
        assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
        assert all(a > b for a, b in pairwise(factors[5:])) and factors[-1] == pytest.approx(0)
    assert decayed("cosine", 52, 99) == pytest.approx(0.5, abs=0.02)


def test_plateau_cuts_the_rate_when_dice_stalls():
    optimizer = make_optimizer("adam", [torch.nn.Parameter(torch.zeros(1))], 1e-2, 0)
    scheduler = make_scheduler("plateau", optimizer, Plan([[0, 100]]), 1)
    for dice in [0.5] + [0.4] * 6:
        scheduler.step(dice)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-3)
