"""Everything that can be configured about stage 4; free of torch, so that `--help` answers at once."""

from dataclasses import dataclass, field
from typing import Any, Literal

from jsonargparse.typing import ClosedUnitInterval, PositiveInt

from shared.blocks.dit_config import DiTConfig
from shared.cli import Own, stored_config
from shared.datasets.config import DataConfig
from shared.errors import UserError
from shared.experiments.config import RunConfig
from shared.latents.config import LatentsConfig, stored_shape
from shared.schedulers.config import DiffusionConfig, GuidanceConfig, NoiseConfig, SamplingConfig
from shared.text.config import TextConfig
from shared.training.config import AveragesConfig, OptimizerConfig, TrainConfig

STAGE = "stage 4"  # in messages

# What a learner types, and the fields that it means; what follows the first is set besides. Both commands that train.
SHORT = {
    "--batch-size": ["--train.batch"],
    "--channels": ["--data.channels"],
    "--epochs": ["--train.epochs"],
    "--img-size": ["--data.size"],
    "--lr": ["--optimizer.lr"],
    "--lr-decay-rate": ["--optimizer.gamma", "--optimizer.schedule=step"],
    "--lr-decay-step": ["--optimizer.step_epochs", "--optimizer.schedule=step"],
    "--patch-size": ["--network.patch"],
    "--save-dir": ["--run.folder"],
    "--save-freq": ["--train.save_epochs"],
    "--seed": ["--train.seed"],
}


@dataclass
class ConditionConfig:
    """What the network is told besides the time. How it enters is `network.conditioning`."""

    label: bool = False
    """a class, one of several"""
    text: bool = False
    """a caption, as tokens"""
    tokens: PositiveInt = 4
    """tokens that a caption becomes of which the encoder gives one vector"""
    dropout: ClosedUnitInterval = 0.1
    """share of the training samples that are told nothing: what they teach is the unconditional model"""

    @property
    def told(self) -> dict[str, str]:
        """What it is told, by name."""
        return {name: "true" for name in ("label", "text") if getattr(self, name)}


@dataclass
class Config:
    """A training of stage 4. A YAML file holds what differs from these defaults."""

    data: DataConfig = field(default_factory=DataConfig)
    own_data: Own | None = None
    """a data set of your own instead: class_path and init_args (best given in a YAML file)"""
    latents: LatentsConfig = field(default_factory=LatentsConfig)
    """latents.autoencoder names an autoencoder of stage 2; where it is not given, the network sees pixels"""
    condition: ConditionConfig = field(default_factory=ConditionConfig)
    text: TextConfig = field(default_factory=TextConfig)
    network: DiTConfig = field(default_factory=DiTConfig)
    schedule: NoiseConfig = field(default_factory=NoiseConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    averages: AveragesConfig = field(default_factory=AveragesConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    run: RunConfig = field(default_factory=RunConfig)


@dataclass
class DistillConfig:
    """What few steps are learned from."""

    teacher: str | None = None
    """a run of task4-train, or its checkpoint (default: the one that comes with the package)"""
    method: Literal["consistency", "reflow"] = "consistency"
    """consistency: say at once where the teacher's way ends; reflow: learn straight ways to what the teacher drew"""
    scale: float | None = None
    """the teacher's guidance, which becomes the student's own (default: the teacher's)"""
    levels: PositiveInt = 32
    """consistency: steps of the teacher's way from noise to data; the student is compared over one of them"""
    pairs: PositiveInt = 10_000
    """reflow: how many pairs of noise and what the teacher makes of it"""
    steps: PositiveInt = 25
    """reflow: steps of the teacher for each of them"""


@dataclass
class Distillation:
    """A training by task4-distill. Data, network, schedule and condition are the teacher's."""

    distill: DistillConfig = field(default_factory=DistillConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    averages: AveragesConfig = field(default_factory=AveragesConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    run: RunConfig = field(default_factory=RunConfig)


BESIDES = ("shape", "known", "space", "distill")  # what a checkpoint's config holds beside the fields of `Config`


@dataclass
class Stored:
    """What a checkpoint of this stage says of its model."""

    config: Config
    shape: tuple[int, int, int]
    """of the images"""
    known: dict[str, Any]
    """what can be said of them"""
    space: dict[str, Any] | None
    """of the latents; None where the network sees pixels"""


def stored(saved: Any) -> Stored:
    """Read the config of a checkpoint.

    Raises:
        UserError: it is not of this stage.
    """
    shape = stored_shape(saved, STAGE)
    known, space = saved.get("known"), saved.get("space")
    if not isinstance(known, dict):
        raise UserError(f"this is not a config of {STAGE}: it lacks what the conditions can say")
    if space is not None and not isinstance(space, dict):
        raise UserError(f"this is not a config of {STAGE}: its latent space is none")
    fields = {name: value for name, value in saved.items() if name not in BESIDES}
    return Stored(stored_config(Config, fields, STAGE), shape, known, space)
