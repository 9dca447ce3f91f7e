"""Optimizers, learning-rate schedules, and the state of both, which a resumed run restores."""

import inspect
import math
import warnings
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
    """Return an optimizer of OPTIMIZERS. It updates all weights in one pass (``fused``) if torch supports this."""
    parameters = list(parameters)
    build, options = OPTIMIZERS[kind]
    if "fused" in inspect.signature(build).parameters:
        options = options | {"fused": parameters[0].device.type in ("cpu", "cuda")}
    return build(parameters, learning_rate, weight_decay=weight_decay, **options)


@dataclass(frozen=True)
class Plan:
    """The planned number of epochs of a run: [[0, E]], and one more pair for each time the run was lengthened.

    pairs: [epochs completed at that time, total epochs planned from then on].
    """

    pairs: list

    @classmethod
    def from_stored(cls, pairs):
        """Return the Plan stored in settings.json. Raise ValueError, TypeError or LookupError if it is not valid."""
        if pairs[0][0] != 0 or not all(0 <= done < planned for done, planned in pairs):
            raise ValueError(f"plan {pairs}")
        return cls(pairs)

    def lengthened(self, done, epochs):
        """Return the plan of a run that resumes after ``done`` epochs and will have ``epochs`` in total."""
        return self if epochs == self.pairs[-1][1] else Plan([*self.pairs, [done, epochs]])

    def epochs(self, done):
        """Return the total number of epochs that was planned when ``done`` epochs were completed."""
        return [planned for begun, planned in self.pairs if begun <= done][-1]


# Factor of the learning rate. ``done``: completed fraction of the steps after the warm-up, from 0 to 1.
DECAYS = {
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "poly": lambda done: (1 - done) ** POLY_POWER,
}


def decayed(kind, step, total_steps):
    """Return the factor of the learning rate at a step, counted from 0: a linear warm-up, then the decay ``kind``."""
    warm_up = max(1, round(WARM_UP_SHARE * total_steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return DECAYS[kind](min(1.0, (step - warm_up) / max(1, total_steps - warm_up)))


def make_scheduler(kind, optimizer, plan, steps_per_epoch):
    """Return the schedule ``plateau``, which changes after an epoch, or ``constant`` or one of DECAYS, per step.

    The rate of a decay depends only on the step and the Plan. A run that is resumed with more epochs therefore follows
    the longer curve from then on, and can be repeated. Raise KeyError if ``kind`` is unknown.
    """
    if kind == "plateau":
        return ReduceLROnPlateau(optimizer, mode="max", factor=PLATEAU_FACTOR, patience=PLATEAU_PATIENCE)
    if kind == "constant":
        return LambdaLR(optimizer, lambda step: 1.0)
    if kind not in DECAYS:
        raise KeyError(kind)
    return LambdaLR(optimizer, lambda step: decayed(kind, step, plan.epochs(step // steps_per_epoch) * steps_per_epoch))


class Optimization:
    """An optimizer with its schedule and gradient scaler, which are stepped, saved and restored together.

    model: its gradients are clipped. amp: autocast's dtype, None for float32; float16 needs the scaler.
    averaging: returns a copy of the model that follows each step (torch.optim.swa_utils.AveragedModel), or None.
    """

    def __init__(self, model, optimizer, scheduler, *, device, amp=None, averaging=None, clip_norm=GRADIENT_CLIP_NORM):
        self.model = model
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp is torch.float16)
        if self.scaler.is_enabled():  # it leaves out steps that overflow, often the first
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
        self.average = None if averaging is None else averaging(model)
        self.clip_norm = clip_norm
        self._stateful = {"optimizer": optimizer, "scheduler": scheduler, "scaler": self.scaler}

    @property
    def result(self):
        """Return the model to validate and to save: the average if there is one."""
        return self.model if self.average is None else self.average.module

    def step(self):
        """Update the weights and return the learning rate of the step. Gradients are clipped to ``clip_norm``.

        Gradients are unscaled first, so that the clipped norm is the norm of the true gradients.
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
        """Pass the epoch's score to the schedule ``plateau``. The other schedules do not use it."""
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(score)

    def state(self):
        """Return the state for ``restore``: plain types and tensors."""
        state = {name: part.state_dict() for name, part in self._stateful.items()}
        if self.average is not None:  # a checkpoint's state_dict holds the average
            stepped = {key: value.cpu() for key, value in self.model.state_dict().items()}
            state["average"] = {"steps": int(self.average.n_averaged), "stepped": stepped}
        return state

    def restore(self, state, path, steps_per_epoch=None):
        """Restore a state. Raise InputError, which names ``path``, if the state does not fit.

        steps_per_epoch: of this process, if it may differ from the earlier one (another number of processes).
        """
        if ("average" in state) != (self.average is not None):
            raise InputError(f"{path}: only one of file and run averages the weights; resume with the run's averaging")
        for name, load in self._loaders().items():
            try:
                if state[name]:  # the scaler's state is empty without float16
                    load(state[name])
            except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
                raise InputError(
                    f"{path}: is damaged: the {name}'s state does not fit ({first_line(error)}); "
                    "restore the file, or start a new run with --load"
                ) from error
        if isinstance(self.scheduler, LambdaLR):
            if steps_per_epoch is not None:
                self.scheduler.last_epoch = len(state["history"]) * steps_per_epoch
            # The stored learning rate follows the earlier plan.
            groups = self.optimizer.param_groups
            for group, base, factor in zip(groups, self.scheduler.base_lrs, self.scheduler.lr_lambdas, strict=True):
                group["lr"] = base * factor(self.scheduler.last_epoch)

    def _loaders(self):
        """Return {name in a state: function that restores it}."""
        loaders = {name: part.load_state_dict for name, part in self._stateful.items()}
        return loaders if self.average is None else {**loaders, "average": self._restore_average}

    def _restore_average(self, state):
        """Restore the average and the stepped weights. The model has loaded the average from the checkpoint."""
        self.average.module.load_state_dict(self.model.state_dict())
        self.average.n_averaged.fill_(int(state["steps"]))
        self.model.load_state_dict(state["stepped"])
