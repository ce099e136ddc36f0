"""Everything that can be configured about stage 3; free of torch, so that `--help` answers at once."""

from dataclasses import dataclass, field
from typing import Any, Literal

from jsonargparse.typing import ClosedUnitInterval, PositiveInt

from shared.blocks.config import UNetConfig
from shared.cli import Own, stored_config
from shared.conditions.config import ConditionConfig
from shared.datasets.config import DataConfig
from shared.errors import UserError
from shared.experiments.config import RunConfig
from shared.schedulers.config import DiffusionConfig, GuidanceConfig, NoiseConfig, SamplingConfig
from shared.text.config import TextConfig
from shared.training.config import AveragesConfig, OptimizerConfig, TrainConfig

STAGE = "stage 3"  # in messages


@dataclass
class GivenConfig:
    """A picture that is given beside each sample, made of it; for condition.image (see `given.py`)."""

    kind: Literal["none", "mask", "grey", "low"] = "none"
    """none: what the data set gives; mask: with a part hidden, to be filled; grey: without its colours, to be coloured;
    low: in low resolution, to be enlarged"""
    factor: PositiveInt = 4
    """of low: how many times smaller each side is"""
    enlarge: Literal["nearest", "bicubic"] = "bicubic"
    """of low: how it is brought back to the sample's size, for the network to look at"""
    noise: ClosedUnitInterval = 0.0
    """of low: standard deviation of the strongest noise on it, for cascades; its level is drawn for each sample, and
    told"""

    def channels(self, of: int) -> int | None:
        """Channels of that picture for samples of so many; None where the data set gives it."""
        return {"none": None, "mask": of + 1, "grey": 1, "low": of + 1}[self.kind]


@dataclass
class Config:
    """A training of stage 3. A YAML file holds what differs from these defaults."""

    data: DataConfig = field(default_factory=DataConfig)
    own_data: Own | None = None
    """a data set of your own instead: class_path and init_args (best given in a YAML file)"""
    condition: ConditionConfig = field(default_factory=ConditionConfig)
    given: GivenConfig = field(default_factory=GivenConfig)
    text: TextConfig = field(default_factory=TextConfig)
    network: UNetConfig = field(default_factory=UNetConfig)
    schedule: NoiseConfig = field(default_factory=NoiseConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    averages: AveragesConfig = field(default_factory=AveragesConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    run: RunConfig = field(default_factory=RunConfig)


def model_config(saved: Any) -> tuple[Config, tuple[int, int, int], dict[str, Any]]:
    """The config, the shape (C, H, W) of the data, and what the conditions can say, that a checkpoint stores.

    Raises:
        UserError: they are not of this stage.
    """
    try:
        channels, height, width = map(int, saved["shape"])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise UserError(f"this is not a config of {STAGE}: it lacks the shape of the images") from None
    if not isinstance(vocabulary := saved.get("known"), dict):
        raise UserError(f"this is not a config of {STAGE}: it lacks what the conditions can say")
    fields = {key: value for key, value in saved.items() if key not in ("shape", "known")}
    return stored_config(Config, fields, STAGE), (channels, height, width), vocabulary
