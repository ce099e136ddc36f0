"""Everything that can be configured about stage 2; free of torch, so that `--help` answers at once."""

from dataclasses import dataclass, field
from typing import Any

from shared.blocks.autoencoder_config import AutoencoderConfig
from shared.blocks.config import UNetConfig
from shared.cli import Own, stored_config
from shared.datasets.config import DataConfig
from shared.errors import UserError
from shared.experiments.config import RunConfig
from shared.latents.config import AUTOENCODER, LatentsConfig, stored_shape
from shared.schedulers.config import DiffusionConfig, NoiseConfig, SamplingConfig
from shared.training.config import AveragesConfig, OptimizerConfig, TrainConfig
from task2_latent.loss_config import DiscriminatorConfig, LossConfig

LATENT = "stage 2's diffusion"  # in messages


@dataclass
class AutoencoderTraining:
    """A training of an autoencoder. A YAML file holds what differs from these defaults."""

    data: DataConfig = field(default_factory=DataConfig)
    own_data: Own | None = None
    """a data set of your own instead: class_path and init_args (best given in a YAML file)"""
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(betas=(0.5, 0.9)))
    discriminator_optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(betas=(0.5, 0.9)))
    averages: AveragesConfig = field(default_factory=AveragesConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    run: RunConfig = field(default_factory=RunConfig)
    stages: list[dict[str, Any]] = field(default_factory=list)
    """what is trained afterwards, each stage a run from the weights of the one before: a list of what changes"""


@dataclass
class LatentTraining:
    """A training of a diffusion in the latent space. A YAML file holds what differs from these defaults."""

    data: DataConfig = field(default_factory=DataConfig)
    own_data: Own | None = None
    """a data set of your own instead: class_path and init_args (best given in a YAML file)"""
    latents: LatentsConfig = field(default_factory=LatentsConfig)
    network: UNetConfig = field(default_factory=UNetConfig)
    own_network: Own | None = None
    """a network of your own instead of the U-Net: class_path and init_args (best given in a YAML file)"""
    schedule: NoiseConfig = field(default_factory=NoiseConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    averages: AveragesConfig = field(default_factory=AveragesConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    sampling: SamplingConfig = field(default_factory=lambda: SamplingConfig(clamp=False))
    run: RunConfig = field(default_factory=RunConfig)


def autoencoder_config(saved: Any) -> tuple[AutoencoderTraining, tuple[int, int, int]]:
    """The config, and the images' shape (C, H, W), that an autoencoder's checkpoint stores.

    Raises:
        UserError: they are not an autoencoder's.
    """
    shape = stored_shape(saved, AUTOENCODER)
    fields = {name: value for name, value in saved.items() if name != "shape"}
    return stored_config(AutoencoderTraining, fields, AUTOENCODER), shape


def latent_config(saved: Any) -> tuple[LatentTraining, tuple[int, int, int], dict[str, Any]]:
    """The config, the images' shape (C, H, W), and the latent space, that a diffusion's checkpoint stores.

    Raises:
        UserError: they are not those of a diffusion of this stage.
    """
    shape = stored_shape(saved, LATENT)
    space = saved.get("space")
    if not isinstance(space, dict):
        raise UserError(f"this is not a config of {LATENT}: it lacks the latent space")
    fields = {name: value for name, value in saved.items() if name not in ("shape", "space")}
    return stored_config(LatentTraining, fields, LATENT), shape, space
