"""A step of the optimizer: batches that are summed, fused updates, and torch.compile."""

import pandas as pd
import pytest
import torch
from conftest import train_arguments
from torch import nn
from two_processes import gradients

from sonogravity.common import devices
from sonogravity.common.files import load_torch
from sonogravity.training.optimization import Optimization, Plan, make_optimizer, make_scheduler
from unet import train


@pytest.mark.parametrize(("batch_size", "accumulate", "frames"), [(2, 2, 8), (1, 4, 6), (3, 2, 11)])
def test_accumulated_batches_are_one_large_batch(batch_size, accumulate, frames):
    loss, found = gradients(frames, batch_size, accumulate)
    whole_loss, expected = gradients(frames, batch_size * accumulate)
    assert loss == pytest.approx(whole_loss, rel=1e-6)
    assert len(found) == len(expected) == -(-frames // (batch_size * accumulate))
    for ours, theirs in zip(found, expected, strict=True):
        assert any(grad.abs().max() > 0 for grad in ours)
        for one, other in zip(ours, theirs, strict=True):
            assert torch.allclose(one, other, rtol=1e-9, atol=1e-13)


def test_the_schedule_counts_steps(sets, tmp_path):
    """8 frames, batches of 2, 4 batches a step: three steps in three epochs, the first of which warms up."""
    rates = {}
    for accumulate in (1, 4):
        root = tmp_path / str(accumulate)
        more = ("--scheduler", "poly", "--accumulate", accumulate, "--epochs", 3)
        assert train.main(train_arguments(*sets, root, *more)) == 0
        rates[accumulate] = pd.read_csv(root / "results/unet/run/epochs.csv")["learning_rate"].tolist()
        state = load_torch(root / "checkpoints/unet/run/last.pth")["training"]["scheduler"]
        assert state["last_epoch"] == 12 // accumulate
    assert rates[4] == pytest.approx([0.01, 0.01, 0.01 * 0.5**0.9])
    assert rates[1][-1] < rates[4][-1]


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd"])
def test_optimizers_are_fused_and_equal_plain_ones(kind):
    weights = []
    for fused in (True, False):
        torch.manual_seed(0)
        layer = nn.Linear(5, 3)
        optimizer = make_optimizer(kind, layer.parameters(), 0.01, 0.1)
        assert optimizer.param_groups[0]["fused"]
        optimizer.param_groups[0]["fused"] = fused
        for _ in range(3):
            optimizer.zero_grad()
            layer(torch.ones(2, 5)).square().sum().backward()
            optimizer.step()
        weights.append(layer.weight.detach())
    assert torch.allclose(*weights, atol=1e-6)


@pytest.mark.parametrize("kind", ["adam", "rmsprop"], ids=["fused", "not fused"])
def test_a_float16_step_that_overflows_is_left_out_without_a_word(kind, recwarn):
    torch.manual_seed(0)
    layer, device = nn.Linear(2, 1), torch.device("cpu")
    optimizer = make_optimizer(kind, layer.parameters(), 0.01, 0.0)
    scheduler = make_scheduler("cosine", optimizer, Plan([[0, 2]]), 1)
    state = Optimization(layer, optimizer, scheduler, device=device, amp=torch.float16)
    before, scale = layer.weight.detach().clone(), state.scaler.get_scale()
    for factor in (1e38, 1.0):
        optimizer.zero_grad()
        state.scaler.scale(layer(torch.ones(3, 2)).sum() * factor).backward()
        state.step()
        assert torch.equal(layer.weight, before) == (factor > 1) and layer.weight.isfinite().all()
    assert state.scaler.get_scale() == scale / 2 and scheduler.last_epoch == 2
    assert not [warned for warned in recwarn if "lr_scheduler" in str(warned.message)]


def test_compile_for_real(sets, tmp_path, capsys):
    if devices.cpp_compiler() is None:
        pytest.skip("no C++ compiler")
    more = ("--compile", "--epochs", 1, "--base-channels", 2, "--batch-size", 4)
    assert train.main(train_arguments(*sets, tmp_path, *more)) == 0
    assert "--compile: the first step took" in capsys.readouterr().out


def test_compile_without_a_compiler_is_one_line(sets, tmp_path, monkeypatch, refused):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    line = refused(train.main, train_arguments(*sets, tmp_path / "out", "--compile"))
    assert "--compile: torch.compile needs a C++ compiler" in line
    assert not (tmp_path / "out").exists()
