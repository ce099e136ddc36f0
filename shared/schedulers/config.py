"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

What can be configured about the noise, the diffusion and the sampler. Kept apart from the code that uses it,
and free of torch, so that `--help` answers at once.
"""

from dataclasses import dataclass
from typing import Literal

from jsonargparse.typing import ClosedUnitInterval, PositiveFloat, PositiveInt, restricted_number_type

Schedule = Literal["linear", "quadratic", "cosine", "sigmoid", "sigmoid_alpha_bar", "flow"]
Prediction = Literal["eps", "x0", "v", "velocity"]
Spacing = Literal["trailing", "leading", "linspace", "quadratic"]
Sampler = Literal[
    "ddpm",
    "ddpm_large",
    "ddpm_learned",
    "ddim",
    "dpm_solver_pp",
    "heun",
    "euler_ancestral",
    "flow_euler",
    "flow_heun",
    "consistency",
]

# A stranger's config may ask for any number: of more levels the tables fill the memory, and further times are all one.
Levels = restricted_number_type("Levels", int, [(">", 0), ("<=", 10**6)])
Shift = restricted_number_type("Shift", float, [(">=", 0.01), ("<=", 100)])


@dataclass
class NoiseConfig:
    """How fast the signal drowns in noise."""

    name: Schedule = "cosine"
    """shape of the schedule; flow is the straight path from data to noise"""
    T: Levels = 1000
    """number of noise levels"""
    beta_start: float = 1e-4
    """first beta of linear, quadratic and sigmoid"""
    beta_end: float = 0.02
    """last beta of linear, quadratic and sigmoid"""
    zero_terminal_snr: bool = False
    """rescale so that nothing of the signal is left at t = T"""
    shift: Shift = 1.0
    """for flow: above 1, the times that are drawn and visited move towards noise; the larger the image the more of
    them it needs, as the root of its pixels over those for which 1 was good"""


@dataclass
class DiffusionConfig:
    """What the network predicts and how its error is counted."""

    predict: Prediction = "v"
    """what the network's output means; velocity is how fast xt moves, the target of flow matching"""
    loss: Literal["l2", "l1", "huber"] = "l2"
    """distance between output and target, averaged over each sample's elements"""
    weighting: Literal["uniform", "min_snr"] = "uniform"
    """weight of a sample's loss by its noise level"""
    snr_cap: PositiveFloat = 5.0
    """gamma of min-SNR weighting"""
    times: Literal["levels", "uniform", "logit_normal"] = "levels"
    """which times the loss is asked at: the T levels, all between 0 and T, or more often those in the middle"""
    time_mean: float = 0.0
    """of logit_normal, the logit of the middle: above 0 there is more noise"""
    time_deviation: PositiveFloat = 1.0
    """of logit_normal, how wide it is"""


@dataclass
class BoundConfig:
    """The variational bound: what is known of the variance of a step down, and how much of the loss the bound is."""

    variance: Literal["small", "large", "learned"] = "small"
    """of a step, in the bound: fixed at the smallest or largest that it can be, or learned between them by twice as
    many outputs; the samplers of the three are ddpm, ddpm_large and ddpm_learned"""
    objective: Literal["simple", "vlb", "hybrid"] = "simple"
    """the loss: diffusion's own; the bound in bits/dim, without diffusion.loss and weighting; or the first and a share
    of the second, which then teaches the learned variance alone"""
    share: PositiveFloat = 0.001
    """of the bound in hybrid"""
    loss_aware: bool = False
    """ask more often at those times where the loss is large, and count it less: for vlb, whose terms differ widely"""


@dataclass
class SamplingConfig:
    """How samples are drawn from a trained model."""

    sampler: Sampler = "ddim"
    """which solver"""
    steps: PositiveInt = 50
    """number of steps, at most T"""
    eta: ClosedUnitInterval = 0.0
    """share of fresh noise in ddim: 0 is deterministic, 1 is DDPM's"""
    spacing: Spacing = "trailing"
    """which of the T noise levels the steps visit"""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """number format of the network's arithmetic; auto is bf16 where the processor has it"""
    clamp: bool = True
    """keep every prediction of the clean image within [-1, 1]; off for latents"""


@dataclass
class GuidanceConfig:
    """How strongly samples follow their condition."""

    scale: float = 2.0
    """1 is the conditional model, 0 the unconditional one; above 1 the condition counts for more than it should"""
    rescale: ClosedUnitInterval = 0.0
    """share of the way back to the deviation that the conditional prediction has (Lin 2023)"""
    interval: tuple[ClosedUnitInterval, ClosedUnitInterval] = (0.0, 1.0)
    """times, as shares of T, between which there is guidance; outside them the model samples by itself"""
