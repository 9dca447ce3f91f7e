"""Optimizers, learning-rate schedules, and the state of both that a resumed run takes up."""

import inspect
import math
from dataclasses import dataclass

import torch
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from sonogravity.common.messages import InputError, first_line

PLATEAU_PATIENCE = 5  # epochs
PLATEAU_FACTOR = 0.1
WARM_UP_SHARE = 0.05  # of all steps, for cosine and poly
POLY_POWER = 0.9  # Chen et al. 2017
GRADIENT_CLIP_NORM = 1.0


OPTIMIZERS = {
    "adam": (torch.optim.Adam, {}),
    "adamw": (torch.optim.AdamW, {}),
    "sgd": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "rmsprop": (torch.optim.RMSprop, {"momentum": 0.9}),
}


def make_optimizer(kind, parameters, learning_rate, weight_decay):
    """Return the optimizer of OPTIMIZERS; it updates all weights in one pass over memory if torch can (``fused``)."""
    parameters = list(parameters)
    build, options = OPTIMIZERS[kind]
    if "fused" in inspect.signature(build).parameters:
        options = options | {"fused": parameters[0].device.type in ("cpu", "cuda")}
    return build(parameters, learning_rate, weight_decay=weight_decay, **options)


@dataclass(frozen=True)
class Plan:
    """The number of epochs that a run was to have: [[0, E]], and a further pair for each time that it was lengthened.

    pairs: [epochs completed at the time, epochs in all as planned from then on].
    """

    pairs: list

    @classmethod
    def from_stored(cls, pairs):
        """The Plan that settings.json holds; ValueError, TypeError or LookupError if it holds none."""
        if pairs[0][0] != 0 or not all(0 <= done < planned for done, planned in pairs):
            raise ValueError(f"plan {pairs}")
        return cls(pairs)

    def lengthened(self, done, epochs):
        """The plan of a run that is resumed after ``done`` epochs to have ``epochs`` in all."""
        return self if epochs == self.pairs[-1][1] else Plan([*self.pairs, [done, epochs]])

    def epochs(self, done):
        """Epochs in all, as planned when ``done`` of them were completed."""
        return [planned for begun, planned in self.pairs if begun <= done][-1]


# Share of the full learning rate when a share ``done`` of the steps after the warm-up is done.
DECAYS = {
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "poly": lambda done: (1 - done) ** POLY_POWER,
}


def decayed(kind, step, total_steps):
    """Share of the full learning rate at a step, counted from 0: a linear warm-up, then the decay of that name."""
    warm_up = max(1, round(WARM_UP_SHARE * total_steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return DECAYS[kind](min(1.0, (step - warm_up) / max(1, total_steps - warm_up)))


def make_scheduler(kind, optimizer, plan, steps_per_epoch):
    """Return the schedule: ``plateau``, stepped after each epoch, ``constant``, or one of DECAYS, stepped with weights.

    The rate of a decay is a function of the step and the Plan alone. So a run that is resumed with more epochs follows
    the longer curve from then on, and can be repeated.
    """
    if kind == "plateau":
        return ReduceLROnPlateau(optimizer, mode="max", factor=PLATEAU_FACTOR, patience=PLATEAU_PATIENCE)
    if kind == "constant":
        return LambdaLR(optimizer, lambda step: 1.0)
    if kind not in DECAYS:
        raise KeyError(kind)
    return LambdaLR(optimizer, lambda step: decayed(kind, step, plan.epochs(step // steps_per_epoch) * steps_per_epoch))


class Optimization:
    """An optimizer with its schedule and gradient scaler: stepped, saved and restored together.

    model: whose gradients are clipped. amp: autocast's type, None for float32; float16 needs the scaler.
    averaging: makes a copy of the model that follows each step (torch.optim.swa_utils.AveragedModel), or None.
    """

    def __init__(self, model, optimizer, scheduler, *, device, amp=None, averaging=None, clip_norm=GRADIENT_CLIP_NORM):
        self.model = model
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp is torch.float16)
        self.average = None if averaging is None else averaging(model)
        self.clip_norm = clip_norm
        self._stateful = {"optimizer": optimizer, "scheduler": scheduler, "scaler": self.scaler}

    @property
    def result(self):
        """The model to validate and to save: the average if there is one."""
        return self.model if self.average is None else self.average.module

    def step(self):
        """Update the weights by their gradients, clipped to ``clip_norm``. Return the learning rate of the step.

        Gradients are unscaled first, so the norm that is clipped is that of the true gradients.
        """
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        rate = self.optimizer.param_groups[0]["lr"]
        if not isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        return rate

    def end_epoch(self, score):
        """Tell the schedule ``plateau`` the epoch's score; the others know no epochs."""
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(score)

    def state(self):
        """What ``restore`` takes: plain types and tensors."""
        state = {name: part.state_dict() for name, part in self._stateful.items()}
        if self.average is not None:  # a checkpoint's own weights are the average's
            stepped = {key: value.cpu() for key, value in self.model.state_dict().items()}
            state["average"] = {"steps": int(self.average.n_averaged), "stepped": stepped}
        return state

    def restore(self, state, path, steps_per_epoch=None):
        """Take up a state; InputError names ``path`` if it is another optimizer's.

        steps_per_epoch: of this process, if it may differ from that of the run so far (other processes than then).
        """
        if ("average" in state) != (self.average is not None):
            raise InputError(f"{path}: weights are averaged in one of file and run only; resume as the run began")
        for name, load in self._loaders().items():
            try:
                if state[name]:  # the scaler's is empty where there was no float16
                    load(state[name])
            except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
                raise InputError(
                    f"{path}: is damaged: the {name}'s state does not fit ({first_line(error)})"
                ) from error
        if isinstance(self.scheduler, LambdaLR):
            if steps_per_epoch is not None:
                self.scheduler.last_epoch = len(state["history"]) * steps_per_epoch
            # The optimizer's rate is that of the earlier plan.
            groups = self.optimizer.param_groups
            for group, base, factor in zip(groups, self.scheduler.base_lrs, self.scheduler.lr_lambdas, strict=True):
                group["lr"] = base * factor(self.scheduler.last_epoch)

    def _loaders(self):
        """{name in a state: function that takes up what it holds}."""
        loaders = {name: part.load_state_dict for name, part in self._stateful.items()}
        return loaders if self.average is None else {**loaders, "average": self._restore_average}

    def _restore_average(self, state):
        """The model has the checkpoint's own weights, the average's; it gets back those that were stepped."""
        self.average.module.load_state_dict(self.model.state_dict())
        self.average.n_averaged.fill_(int(state["steps"]))
        self.model.load_state_dict(state["stepped"])
