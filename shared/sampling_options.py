"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

The options of the two commands that draw samples from a trained model: `taskN-sample`, to look at them, and
`taskN-evaluate`, to measure them. A stage inherits these and adds its own. Free of torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from jsonargparse.typing import ClosedUnitInterval, PositiveInt

from shared.errors import UserError
from shared.schedulers.config import GuidanceConfig, Sampler, Spacing
from shared.training.config import Seed, Weights


@dataclass
class DrawOptions:
    """From which trained model samples are drawn, and how."""

    run: str | None = None
    """a run's folder, a checkpoint file, or "latest"; default: the model that comes with the package"""
    weights: Weights = "ema"
    """ema, model (the raw ones), swa, or what else the run keeps: ema-0.99, post-hoc-0.1 (see AveragesConfig)"""
    n: PositiveInt = 64
    """number of images"""
    seed: Seed = 0
    """of the noise; the same seed gives the same images"""
    sampler: Sampler | None = None
    """which solver (default: the run's)"""
    steps: int | None = None
    """number of steps (default: the run's)"""
    eta: float | None = None
    """share of fresh noise in ddim, 0 to 1 (default: the run's)"""
    spacing: Spacing | None = None
    """which noise levels the steps visit (default: the run's)"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where to compute; auto takes a GPU if there is one"""


@dataclass
class SampleOptions(DrawOptions):
    """How samples are shown: what `taskN-sample` takes besides."""

    out: str = "samples"
    """folder for the pictures"""
    upscale: PositiveInt = 1
    """side of the square that each pixel becomes"""
    singles: bool = False
    """write each image to a file of its own as well"""
    gif: bool = True
    """write a film of the way from noise to the images"""


@dataclass
class EvaluateOptions(DrawOptions):
    """Where figures are written, and over how many samples: what `taskN-evaluate` takes besides."""

    n: PositiveInt = 1000
    """number of samples"""
    seed: Seed = 0
    """of the noise"""
    out: str | None = None
    """folder for evaluation.json and evaluation.md (default: a new one in the run's evaluations/; none for a file)"""


@dataclass
class GuideOptions:
    """How strongly samples follow what is asked: what the commands of a conditional stage take besides."""

    scale: float | None = None
    """1 is the conditional model, 0 the unconditional one, more than 1 exaggerates (default: the run's)"""
    rescale: ClosedUnitInterval | None = None
    """share of the way back to the conditional prediction's deviation (default: the run's)"""
    interval: tuple[ClosedUnitInterval, ClosedUnitInterval] | None = None
    """times, as shares of T, between which there is guidance (default: the run's)"""


@dataclass
class TrustOptions:
    """What a stage whose network may be one's own takes besides."""

    trust: bool = False
    """run the code of a network of one's own that the checkpoint names"""


def overrides(config: DrawOptions) -> dict[str, Any]:
    """The sampling options that were given; the run's own hold for the others."""
    given = {name: getattr(config, name) for name in ("sampler", "steps", "eta", "spacing")}
    return {name: value for name, value in given.items() if value is not None}


def guidance_with(config: GuideOptions, guidance: GuidanceConfig) -> GuidanceConfig:
    """A run's guidance, with what was given instead."""
    given = {name: getattr(config, name) for name in ("scale", "rescale", "interval")}
    return replace(guidance, **{name: value for name, value in given.items() if value is not None})


def guidance_told(guidance: GuidanceConfig, extra: Sequence[str] = ()) -> float | str:
    """The guidance as a protocol states it: the scale, and whatever else there is; `extra` comes first of that."""
    extra = list(extra)
    if guidance.rescale:
        extra.append(f"rescale {guidance.rescale:g}")
    if tuple(guidance.interval) != (0.0, 1.0):
        extra.append(f"within {guidance.interval[0]:g} to {guidance.interval[1]:g}")
    return ", ".join([f"{guidance.scale:g}", *extra]) if extra else guidance.scale


def device_of(config: Any) -> str:
    """Where to compute: "cpu" or "cuda", from the field `device` of a config.

    Raises:
        UserError: it is to be a GPU, and there is none.
    """
    import torch

    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device is cuda, but torch sees no GPU: use cpu, or auto")
    return "cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu"
