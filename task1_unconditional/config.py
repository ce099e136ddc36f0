"""Everything that can be configured about stage 1; free of torch, so that `--help` answers at once."""

from dataclasses import asdict, dataclass, field
from typing import Any

from jsonargparse import ArgumentParser

from shared.blocks.config import UNetConfig
from shared.cli import Own
from shared.datasets.config import DataConfig
from shared.errors import UserError
from shared.experiments.config import RunConfig
from shared.schedulers.config import DiffusionConfig, NoiseConfig, SamplingConfig
from shared.training.config import AveragesConfig, OptimizerConfig, TrainConfig


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
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    averages: AveragesConfig = field(default_factory=AveragesConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    run: RunConfig = field(default_factory=RunConfig)


def config_from(saved: Any) -> Config:
    """The config that a run stores.

    Raises:
        UserError: it is not a config of this stage.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Config)
    try:
        for name in saved.keys() - {"own_data", "own_network"}:  # of these alone, which are not imported here
            if not isinstance(saved[name], dict) or "class_path" in saved[name]:
                raise ValueError(f"{name} must hold names and values, and no class_path")
        parsed = parser.instantiate(parser.parse_object(saved))
    except Exception as error:  # jsonargparse lets through what the types' own parsing raises
        raise UserError(f"this is not a config of stage 1: {' '.join(str(error).split())}") from None
    return Config(**{name: getattr(parsed, name) for name in asdict(Config())})


def model_config(saved: Any) -> tuple[Config, tuple[int, int, int]]:
    """The config and the shape (C, H, W) of the data that a checkpoint stores.

    Raises:
        UserError: they are not of this stage.
    """
    try:
        channels, height, width = map(int, saved["shape"])
    except (KeyError, TypeError, ValueError):
        raise UserError("this is not a config of stage 1: it lacks the shape of the images") from None
    config = config_from({key: value for key, value in saved.items() if key != "shape"})
    return config, (channels, height, width)
