"""What can be configured about the training of a ControlNet; free of torch, so that `--help` answers at once."""

from dataclasses import dataclass, field
from typing import Any, Literal

from jsonargparse.typing import ClosedUnitInterval

from shared.cli import Own, stored_config
from shared.datasets.config import DataConfig
from shared.errors import UserError
from shared.experiments.config import RunConfig
from shared.schedulers.config import GuidanceConfig, SamplingConfig
from shared.training.config import AveragesConfig, OptimizerConfig, TrainConfig

CONTROL = "stage 3's ControlNet"  # in messages
BESIDES = ("shape", "digest")  # in a checkpoint, beside the config: of the base

Hint = Literal["edges", "mask", "scribble", "low"]
Shape = tuple[int, int, int]  # (C, H, W)


@dataclass
class ControlTraining:
    """A training of a ControlNet. A YAML file holds what differs from these defaults.

    A hint is never dropped in training: a sample without one is drawn by the frozen base alone, and teaches nothing.
    """

    base: str | None = None
    """the model of this stage that is controlled: a run, a checkpoint, "text" for the committed one by caption
    (default: the committed one by class); with --init-from it may be another than those weights were trained on, which
    is said"""
    hint: Hint = "edges"
    """what of an image is told: thin edges, the silhouette, coarse thick lines, or the image in low resolution"""
    data: DataConfig = field(default_factory=DataConfig)
    own_data: Own | None = None
    """a data set of your own instead: class_path and init_args (best given in a YAML file)"""
    dropout: ClosedUnitInterval = 0.3
    """share of the training samples that are told nothing but the hint: so it learns what the hint alone says"""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    averages: AveragesConfig = field(default_factory=AveragesConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    run: RunConfig = field(default_factory=RunConfig)


def control_config(saved: Any) -> tuple[ControlTraining, Shape, str]:
    """The config, the shape (C, H, W) of the base's images, and the digest of its weights, that a checkpoint stores.

    Raises:
        UserError: they are not a ControlNet's.
    """
    try:
        channels, height, width = (int(side) for side in saved["shape"])
        digest = saved["digest"]
    except (KeyError, TypeError, ValueError, OverflowError):
        raise UserError(f"this is not a config of {CONTROL}: it does not say which base it controls") from None
    if not isinstance(digest, str):
        raise UserError(f"this is not a config of {CONTROL}: its digest of the base is none")
    fields = {name: value for name, value in saved.items() if name not in BESIDES}
    return stored_config(ControlTraining, fields, CONTROL), (channels, height, width), digest
