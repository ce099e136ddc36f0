"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

What can be configured about training; free of torch, so that `--help` answers at once.
"""

import re
from dataclasses import dataclass
from typing import Literal

from jsonargparse.typing import (
    ClosedUnitInterval,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    extend_base_type,
    restricted_number_type,
)

from shared.blocks.config import Decay

Rate = restricted_number_type("Rate", float, [(">", 0), ("<", 1e38)])  # float32 holds no more
Seed = restricted_number_type("Seed", int, [(">=", 0), ("<", 2**32)])
# The standard deviation of a power function on [0, 1], which is at most that of the plain mean, 1/√12.
Width = restricted_number_type("Width", float, [(">=", 0.001), ("<=", 0.288)])

NUMBER = r"\d+(?:\.\d+)?(?:e-\d+)?"
STORED = re.compile(rf"(?:model|swa|ema(?:-{NUMBER})?|profile-{NUMBER})(?![^.])")  # at the start of a tensor's name
POST_HOC = re.compile(rf"post-hoc-({NUMBER})")


def check_name(_: type, name: str) -> None:
    """Raise ValueError if weights are never called so. Which of them a run has, its checkpoint says."""
    if not STORED.fullmatch(name) and not POST_HOC.fullmatch(name):
        raise ValueError(f"{name} are no weights: say ema, model, swa, such as ema-0.99, or such as post-hoc-0.1")


Weights = extend_base_type("Weights", str, check_name)


@dataclass
class OptimizerConfig:
    """How a gradient becomes a change of the weights, and how large over the course of the training."""

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    """which optimizer"""
    lr: Rate = 1e-3
    """learning rate: the schedule's largest"""
    betas: tuple[Decay, Decay] = (0.9, 0.99)
    """decay of the running means of gradient and squared gradient (adam, adamw)"""
    momentum: NonNegativeFloat = 0.9
    """decay of the running gradient (sgd)"""
    weight_decay: NonNegativeFloat = 0.0
    """pull of the weights towards zero"""
    schedule: Literal["constant", "cosine", "onecycle", "multistep", "step"] = "constant"
    """course of the learning rate after the warm-up"""
    warmup: NonNegativeInt = 0
    """optimizer steps over which the rate rises to its full value"""
    final: ClosedUnitInterval = 0.0
    """share of the rate left at the end (cosine)"""
    milestones: tuple[PositiveInt, ...] = ()
    """optimizer steps after which the rate falls (multistep)"""
    step_size: PositiveInt | None = None
    """optimizer steps between two falls of the rate (step; default: those of a pass over the data)"""
    step_epochs: PositiveInt | None = None
    """passes over the data between two falls of the rate (step); where given, they decide step_size"""
    gamma: NonNegativeFloat = 0.1
    """factor of each fall (multistep, step)"""


@dataclass
class AveragesConfig:
    """Averages of the weights over the training: they sample better than the weights themselves."""

    ema: ClosedUnitInterval = 0.999
    """decay of the exponential moving average; it starts low and rises to this (see `averages.py`)"""
    more: tuple[Decay, ...] = ()
    """decays of further such averages, kept beside it: 0.99 makes the weights ema-0.99"""
    swa_start: NonNegativeInt | None = None
    """optimizer step from which an equally weighted average (SWA) is kept as well; none by default"""
    swa_every: PositiveInt = 100
    """optimizer steps between two weights that SWA takes in"""
    profiles: tuple[Width, ...] = ()
    """widths of power-function averages, as shares of the training, from whose snapshots any other is made afterwards:
    post-hoc-0.15; two of them, such as 0.05 and 0.1"""
    snapshot_every: PositiveInt = 200
    """optimizer steps between two snapshots of the profiles; all are kept: 16 to 64 in a training serve well"""


@dataclass
class TrainConfig:
    """The loop: how much, how often, on what."""

    steps: PositiveInt = 10_000
    """optimizer steps in all"""
    epochs: PositiveInt | None = None
    """passes over the data; where given, they decide the steps"""
    batch: PositiveInt = 128
    """images in a micro-batch"""
    accumulate: PositiveInt = 1
    """micro-batches in an optimizer step; several processes share them"""
    clip: NonNegativeFloat = 1.0
    """largest norm of the gradient; 0 for no limit"""
    seed: Seed = 0
    """everything random in the training is drawn from it"""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """number format of the network's arithmetic; auto is bf16 where the processor has it; weights are always float32"""
    compile: bool = False
    """compile the network: minutes at the start, faster steps; needs a C++ compiler"""
    shard: bool = False
    """several processes: each keeps a share of weights, averages and optimizer state, not all of them (FSDP2)"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where to train; auto takes a GPU if there is one"""
    deterministic: bool = False
    """on a GPU: only algorithms that give the same bits each time (slower); a CPU always does"""
    workers: NonNegativeInt = 2
    """processes that load and decode data that does not fit in memory"""
    log_every: NonNegativeInt = 50
    """steps between two lines of the log; 0 for none"""
    sample_every: NonNegativeInt = 500
    """steps between two pictures of samples; 0 for none"""
    save_every: NonNegativeInt = 500
    """steps between two checkpoints; the last step is always saved"""
    save_epochs: NonNegativeInt | None = None
    """passes over the data between two checkpoints; where given, they decide save_every"""
    keep: PositiveInt = 2
    """checkpoints kept, the newest"""


# A resumed run must do what the interrupted one would have done. These fields do not enter into that.
MAY_CHANGE = (
    "train.steps",
    "train.workers",
    "train.log_every",
    "train.sample_every",
    "train.save_every",
    "train.keep",
    "train.shard",
    "text.cache",
)
