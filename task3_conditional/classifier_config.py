"""What can be configured about the classifier of noisy images; free of torch, so that `--help` answers at once."""

from dataclasses import dataclass, field
from typing import Any

from shared.blocks.config import UNetConfig
from shared.cli import Own, stored_config
from shared.datasets.config import DataConfig
from shared.errors import UserError
from shared.experiments.config import RunConfig
from shared.schedulers.config import NoiseConfig
from shared.training.config import AveragesConfig, OptimizerConfig, TrainConfig

CLASSIFIER = "stage 3's classifier"  # in messages
LARGEST = 1 << 20  # channels, or pixels a side: a stranger's config may state any number

Shape = tuple[int, int, int]  # (C, H, W)


@dataclass
class ClassifierTraining:
    """A training of a classifier of noisy images. A YAML file holds what differs from these defaults."""

    data: DataConfig = field(default_factory=DataConfig)
    own_data: Own | None = None
    """a data set of your own instead, with labels and `classes`: class_path and init_args (best in a YAML file)"""
    network: UNetConfig = field(default_factory=UNetConfig)
    """the U-Net of which the classifier is the way down; network.up is of no effect"""
    schedule: NoiseConfig = field(default_factory=NoiseConfig)
    """the noise: that of the diffusion which is to be guided"""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    averages: AveragesConfig = field(default_factory=AveragesConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    """the loop; train.sample_every is the number of steps between two measurements of the accuracy"""
    run: RunConfig = field(default_factory=RunConfig)


def classifier_config(saved: Any) -> tuple[ClassifierTraining, Shape, list[str]]:
    """The config, the images' shape (C, H, W), and the classes' names, that a classifier's checkpoint stores.

    Raises:
        UserError: they are not a classifier's.
    """
    try:
        channels, height, width = (int(side) for side in saved["shape"])
        classes = saved["classes"]
    except (KeyError, TypeError, ValueError, OverflowError):
        raise UserError(f"this is not a config of {CLASSIFIER}: it lacks the images' shape or the classes") from None
    if not all(1 <= side <= LARGEST for side in (channels, height, width)):
        raise UserError(f"this is not a config of {CLASSIFIER}: no image has the shape {channels}×{height}×{width}")
    if not isinstance(classes, list) or len(classes) < 2 or not all(isinstance(name, str) for name in classes):
        raise UserError(f"this is not a config of {CLASSIFIER}: it does not name two classes or more")
    fields = {name: value for name, value in saved.items() if name not in ("shape", "classes")}
    return stored_config(ClassifierTraining, fields, CLASSIFIER), (channels, height, width), classes
