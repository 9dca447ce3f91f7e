"""The names that options offer are those that can be built, and no other name is taken for one of them."""

import pytest
import torch
from torch import nn

from deeplab import model as deeplab_model
from deeplab import train as deeplab_train
from sonogravity.common import choices
from sonogravity.inference.engines import ENGINES, check
from sonogravity.inference.ensemble import VIEWS
from sonogravity.training import losses, optimization
from sonogravity.training.optimization import Plan


def test_the_tables_have_the_names_that_options_offer():
    assert tuple(ENGINES) == choices.ENGINES
    assert tuple(VIEWS) == choices.VIEWS
    assert tuple(optimization.OPTIMIZERS) == choices.OPTIMIZERS
    assert {"plateau", "constant", *optimization.DECAYS} == set(choices.SCHEDULES)
    assert set("+".join(choices.LOSSES).split("+")) == set(losses.TERMS)
    [backbone] = [action for action in deeplab_train.build_parser()._actions if action.dest == "backbone"]
    assert tuple(backbone.choices) == tuple(deeplab_model.BUILDERS)


@pytest.mark.parametrize("kind", choices.SCHEDULES)
def test_every_schedule_is_built(kind):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.5)
    scheduler = optimization.make_scheduler(kind, optimizer, Plan([[0, 4]]), 5)
    rates = []
    for _ in range(20):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step(1.0) if kind == "plateau" else scheduler.step()
    # plateau: the first of 20 equal scores is the best, and the 5 after it are waited for
    assert (len(set(rates)) == 1) == (kind == "constant")


@pytest.mark.parametrize("kind", choices.OPTIMIZERS)
def test_every_optimizer_steps(kind):
    weight = nn.Parameter(torch.ones(2))
    optimizer = optimization.make_optimizer(kind, [weight], 0.1, 0.0)
    weight.sum().backward()
    optimizer.step()
    assert (weight < 1).all()


@pytest.mark.parametrize(
    "build",
    [
        lambda: losses.SegmentationLoss("lovasz"),
        lambda: losses.SegmentationLoss("ce+lovasz"),
        lambda: optimization.make_optimizer("lion", [nn.Parameter(torch.zeros(1))], 0.1, 0.0),
        lambda: optimization.make_scheduler("step", torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1), None, 1),
        lambda: check("tensorrt", torch.device("cpu")),
    ],
    ids=["loss", "one term of a loss", "optimizer", "schedule", "engine"],
)
def test_an_unknown_name_is_never_taken_for_another(build):
    with pytest.raises(KeyError):
        build()


def test_a_lengthened_plan_keeps_what_was_planned_before():
    plan = Plan([[0, 10]]).lengthened(6, 20)
    assert [plan.epochs(done) for done in (0, 5, 6, 19)] == [10, 10, 20, 20]
    assert plan.lengthened(12, 20) is plan and plan.pairs == [[0, 10], [6, 20]]
    assert Plan.from_stored(plan.pairs) == plan
    for damaged in ([], [[1, 10]], [[0, 0]], [[0, 10], [12, 11]], "plan", None):
        with pytest.raises((LookupError, TypeError, ValueError)):
            Plan.from_stored(damaged)
