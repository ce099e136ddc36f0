"""Everything that can be configured about stage 5; free of torch, so that `--help` answers at once."""

from dataclasses import dataclass, field
from typing import Any, Literal

from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveInt

from shared.blocks.config import UNetConfig
from shared.blocks.dit_config import DiTConfig
from shared.cli import Own, stored_config
from shared.conditions.config import ConditionConfig
from shared.datasets.video_config import VideoConfig
from shared.errors import UserError
from shared.experiments.config import RunConfig
from shared.latents.config import LatentsConfig
from shared.schedulers.config import DiffusionConfig, GuidanceConfig, NoiseConfig, SamplingConfig
from shared.text.config import TextConfig
from shared.training.config import AveragesConfig, OptimizerConfig, TrainConfig

STAGE = "stage 5"  # in messages


@dataclass
class TemporalConfig:
    """What is added to an image network so that its frames know of each other."""

    attention: Literal["temporal", "full", "none"] = "temporal"
    """temporal: each position looks at itself in all frames; full: at all positions of all frames, in the stages of the
    U-Net that have attention; with a transformer full has its own attention see all frames, and adds no block"""
    positions: Literal["rotary", "relative"] = "rotary"
    """how attention knows which frame is when: queries and keys are turned, or a bias is learned for each distance"""
    convolution: bool = True
    """U-Net: a convolution over three frames after each stage as well"""
    heads: PositiveInt = 4
    """U-Net: heads of the added attention"""


@dataclass
class InflateConfig:
    """From which image model a video model is made."""

    image: str | None = None
    """a run, or a checkpoint, of task1-train, task2-train, task3-train or task4-train; network, condition, schedule and
    what is predicted are then that model's, and so are the first weights"""
    weights: bool = True
    """false: only be built as that model is, and begin at random"""
    freeze: bool = False
    """train nothing but what was added"""


@dataclass
class GivenConfig:
    """Clips of which some frames are given in training: what they teach is to go on from there."""

    share: ClosedUnitInterval = 0.0
    """share of the training clips"""
    first: PositiveInt = 4
    """given are the first frames, so many at most"""
    between: ClosedUnitInterval = 0.0
    """share of these clips of which the first and the last frame are given instead"""


@dataclass
class Config:
    """A training of stage 5. A YAML file holds what differs from these defaults."""

    data: VideoConfig = field(default_factory=VideoConfig)
    own_data: Own | None = None
    """a data set of your own instead: class_path and init_args (best given in a YAML file)"""
    inflate: InflateConfig = field(default_factory=InflateConfig)
    joint_images: NonNegativeInt = 0
    """single frames of other clips that are trained beside each clip, unseen by it and by each other"""
    given: GivenConfig = field(default_factory=GivenConfig)
    latents: LatentsConfig = field(default_factory=LatentsConfig)
    """latents.autoencoder names an autoencoder of stage 2, which makes latents frame by frame; else there are pixels"""
    condition: ConditionConfig = field(default_factory=ConditionConfig)
    text: TextConfig = field(default_factory=TextConfig)
    network: Literal["unet", "dit"] = "unet"
    """which image network is made to move"""
    unet: UNetConfig = field(default_factory=UNetConfig)
    dit: DiTConfig = field(default_factory=DiTConfig)
    temporal: TemporalConfig = field(default_factory=TemporalConfig)
    schedule: NoiseConfig = field(default_factory=NoiseConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    averages: AveragesConfig = field(default_factory=AveragesConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    run: RunConfig = field(default_factory=RunConfig)


BESIDES = ("shape", "known", "space")  # what a checkpoint's config holds beside the fields of `Config`


@dataclass
class Stored:
    """What a checkpoint of this stage says of its model."""

    config: Config
    shape: tuple[int, int, int, int]
    """(C, F, H, W) of the clips"""
    known: dict[str, Any]
    """what can be said of them"""
    space: dict[str, Any] | None
    """of the latents; None where the network sees pixels"""


def stored(saved: Any) -> Stored:
    """Read the config of a checkpoint.

    Raises:
        UserError: it is not of this stage.
    """
    try:
        channels, frames, height, width = map(int, saved["shape"])
    except (KeyError, OverflowError, TypeError, ValueError):
        raise UserError(f"this is not a config of {STAGE}: it lacks the shape of the clips") from None
    known, space = saved.get("known"), saved.get("space")
    if not isinstance(known, dict):
        raise UserError(f"this is not a config of {STAGE}: it lacks what the conditions can say")
    if space is not None and not isinstance(space, dict):
        raise UserError(f"this is not a config of {STAGE}: its latent space is none")
    fields = {name: value for name, value in saved.items() if name not in BESIDES}
    return Stored(stored_config(Config, fields, STAGE), (channels, frames, height, width), known, space)
