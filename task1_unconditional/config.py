"""Everything that can be configured about stage 1; free of torch, so that `--help` answers at once."""

from dataclasses import dataclass, field
from typing import Any

from shared.blocks.config import UNetConfig
from shared.cli import Own, stored_config
from shared.datasets.config import DataConfig
from shared.errors import UserError
from shared.experiments.config import RunConfig
from shared.schedulers.config import BoundConfig, DiffusionConfig, NoiseConfig, SamplingConfig
from shared.training.config import AveragesConfig, OptimizerConfig, TrainConfig

STAGE = "stage 1"  # in messages


@dataclass
class Config:
    """A training of stage 1. A YAML file holds what differs from these defaults."""

    data: DataConfig = field(default_factory=DataConfig)
    own_data: Own | None = None
    """a data set of your own instead: class_path and init_args (best given in a YAML file)"""
    network: UNetConfig = field(default_factory=UNetConfig)
    own_network: Own | None = None
    """a network of your own instead of the U-Net: class_path and init_args (best given in a YAML file)"""
    schedule: NoiseConfig = field(default_factory=NoiseConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    bound: BoundConfig = field(default_factory=BoundConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    averages: AveragesConfig = field(default_factory=AveragesConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    run: RunConfig = field(default_factory=RunConfig)


def model_config(saved: Any) -> tuple[Config, tuple[int, int, int]]:
    """The config and the shape (C, H, W) of the data that a checkpoint stores.

    Raises:
        UserError: they are not of this stage.
    """
    try:
        channels, height, width = map(int, saved["shape"])
    except (KeyError, TypeError, ValueError):
        raise UserError(f"this is not a config of {STAGE}: it lacks the shape of the images") from None
    fields = {key: value for key, value in saved.items() if key != "shape"}
    return stored_config(Config, fields, STAGE), (channels, height, width)
