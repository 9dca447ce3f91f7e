"""Optimizers and learning-rate schedules by name."""

import math

import torch
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

PLATEAU_PATIENCE = 5  # epochs
PLATEAU_FACTOR = 0.1
WARM_UP_SHARE = 0.05  # of all steps, for cosine and poly
POLY_POWER = 0.9  # Chen et al. 2017


def make_optimizer(kind, parameters, learning_rate, weight_decay):
    """Adam, AdamW, SGD with Nesterov momentum 0.9, or RMSprop with momentum 0.9.

    All but the last update all weights in one pass over memory where torch can (``fused``).
    """
    parameters = list(parameters)
    fused = parameters[0].device.type in ("cpu", "cuda")
    if kind == "sgd":
        return torch.optim.SGD(
            parameters, learning_rate, momentum=0.9, nesterov=True, weight_decay=weight_decay, fused=fused
        )
    if kind == "rmsprop":
        return torch.optim.RMSprop(parameters, learning_rate, momentum=0.9, weight_decay=weight_decay)
    build = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[kind]
    return build(parameters, learning_rate, weight_decay=weight_decay, fused=fused)


def schedule_factor(kind, step, total_steps):
    """Share of the full learning rate at a step (counted from 0) of ``cosine``, ``poly``, ``constant``."""
    if kind == "constant":
        return 1.0
    warm_up = max(1, round(WARM_UP_SHARE * total_steps))
    if step < warm_up:
        return (step + 1) / warm_up
    done = min(1.0, (step - warm_up) / max(1, total_steps - warm_up))
    return 0.5 * (1 + math.cos(math.pi * done)) if kind == "cosine" else (1 - done) ** POLY_POWER


def make_scheduler(kind, optimizer, plan, steps_per_epoch):
    """``plateau`` follows the validation Dice, once an epoch; the others are stepped after each batch.

    plan: [epochs done, epochs in all as planned from there on] pairs, [[0, E]] at first. The rate is a function of the
    step and the plan alone, so a run resumed with more epochs goes on along the longer curve, and can be repeated.
    """
    if kind == "plateau":
        return ReduceLROnPlateau(optimizer, mode="max", factor=PLATEAU_FACTOR, patience=PLATEAU_PATIENCE)

    def factor(step):
        epochs = [planned for done, planned in plan if done * steps_per_epoch <= step][-1]
        return schedule_factor(kind, step, epochs * steps_per_epoch)

    return LambdaLR(optimizer, factor)
