"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

Optimizers, and the learning rate as a function of the step: a resumed run needs no saved scheduler, and several
processes cannot step one twice.
"""

import math
from bisect import bisect_right

import torch
from torch import nn

from shared.training.config import OptimizerConfig


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimizer that a config names, over all parameters that take a gradient."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    common = {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.name == "sgd":
        return torch.optim.SGD(parameters, momentum=config.momentum, **common)
    # fused: one kernel for all parameters; on the CPU too
    return {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[config.name](
        parameters, betas=config.betas, fused=True, **common
    )


def cosine(config: OptimizerConfig, n: int, steps: int) -> float:
    """Half a cosine from 1 down to `final`. SGDR (Loshchilov 2017), eq. (5), without restarts."""
    return config.final + (1 - config.final) * (1 + math.cos(math.pi * n / max(steps, 1))) / 2


def onecycle(config: OptimizerConfig, n: int, steps: int) -> float:
    """Up from 1/25 over the first 30 %, down to 1/250,000; half cosines. Smith 2018, with torch's defaults."""
    peak = 0.3 * steps - 1
    if n <= peak:
        low, part = 1 / 25, n / max(peak, 1)
    else:
        low, part = 1 / 25 / 1e4, 1 - (n - peak) / max(steps - 1 - peak, 1)
    return low + (1 - low) * (1 - math.cos(math.pi * part)) / 2


SCHEDULES = {
    "constant": lambda config, n, steps: 1.0,
    "cosine": cosine,
    "onecycle": onecycle,
    "multistep": lambda config, n, steps: config.gamma ** bisect_right(sorted(config.milestones), n),
    "step": lambda config, n, steps: config.gamma ** (n // config.step_size),
}


def learning_rate(config: OptimizerConfig, n: int, steps: int) -> float:
    """The learning rate of optimizer step n (from 0) of `steps`: linear warm-up, then the schedule over the rest."""
    if n < config.warmup:
        return config.lr * (n + 1) / (config.warmup + 1)
    if config.schedule in ("multistep", "step"):  # these count from the start, as their numbers were written
        return config.lr * SCHEDULES[config.schedule](config, n, steps)
    return config.lr * SCHEDULES[config.schedule](config, n - config.warmup, steps - config.warmup)
