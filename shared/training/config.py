"""Introduced in task 1; used by task 1.

What can be configured about training; free of torch, so that `--help` answers at once.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass
class OptimizerConfig:
    """How a gradient becomes a change of the weights, and how large over the course of the training."""

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    """which optimizer"""
    lr: float = 1e-3
    """learning rate: the schedule's largest"""
    betas: tuple[float, float] = (0.9, 0.99)
    """decay of the running means of gradient and squared gradient (adam, adamw)"""
    momentum: float = 0.9
    """decay of the running gradient (sgd)"""
    weight_decay: float = 0.0
    """pull of the weights towards zero"""
    schedule: Literal["constant", "cosine", "onecycle", "multistep", "step"] = "constant"
    """course of the learning rate after the warm-up"""
    warmup: int = 0
    """optimizer steps over which the rate rises to its full value"""
    final: float = 0.0
    """share of the rate left at the end (cosine)"""
    milestones: tuple[int, ...] = ()
    """optimizer steps after which the rate falls (multistep)"""
    step_size: int = 1000
    """optimizer steps between two falls of the rate (step)"""
    gamma: float = 0.1
    """factor of each fall (multistep, step)"""


@dataclass
class AveragesConfig:
    """Averages of the weights over the training: they sample better than the weights themselves."""

    ema: float = 0.999
    """decay of the exponential moving average; it starts low and rises to this (see `averages.py`)"""
    swa_start: int | None = None
    """optimizer step from which an equally weighted average (SWA) is kept as well; none by default"""
    swa_every: int = 100
    """optimizer steps between two weights that SWA takes in"""


@dataclass
class TrainConfig:
    """The loop: how much, how often, on what."""

    steps: int = 10_000
    """optimizer steps in all"""
    batch: int = 128
    """images in a micro-batch"""
    accumulate: int = 1
    """micro-batches in an optimizer step"""
    clip: float = 1.0
    """largest norm of the gradient; 0 for no limit"""
    seed: int = 0
    """everything random in the training is drawn from it"""
    precision: Literal["fp32", "bf16"] = "fp32"
    """number format of the network's arithmetic; the weights are float32 in both"""
    compile: bool = False
    """compile the network: minutes at the start, faster steps; needs a C++ compiler"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where to train; auto takes a GPU if there is one"""
    deterministic: bool = False
    """on a GPU: only algorithms that give the same bits each time (slower); a CPU always does"""
    workers: int = 2
    """processes that load and decode data; none are used for data that is held in memory"""
    log_every: int = 50
    """steps between two lines of the log"""
    sample_every: int = 500
    """steps between two pictures of samples; 0 for none"""
    save_every: int = 500
    """steps between two checkpoints; the last step is always saved"""
    keep: int = 2
    """checkpoints kept, the newest"""


# A resumed run must do what the interrupted one would have done. These fields do not enter into that.
MAY_CHANGE = ("train.steps", "train.workers", "train.log_every", "train.sample_every", "train.save_every", "train.keep")
