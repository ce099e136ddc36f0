"""The two networks of stage 2: built from a config for training, loaded from a run or a file for sampling."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from shared.blocks.unet import UNet
from shared.cli import build_own
from shared.datasets import load as load_data
from shared.errors import UserError
from shared.generation import batch_seeds, generate_steps, sampling_with
from shared.latents import stored
from shared.latents.space import Space, batch_for
from shared.latents.stored import LoadedAutoencoder, space_of
from shared.precision import computing_in, resolve
from shared.schedulers.diffusion import Diffusion
from shared.schedulers.samplers import Step, sampler_steps
from shared.training.checkpoint import load_into, read_facts
from shared.training.weights import newest, read_weights
from task2_latent.config import AutoencoderTraining, LatentTraining, latent_config

RESULTS = Path(__file__).parent / "results"
COMMITTED, COMMITTED_AUTOENCODER = RESULTS / "diffusion.safetensors", RESULTS / "autoencoder.safetensors"


def build_data(config: AutoencoderTraining | LatentTraining) -> Dataset:
    """The images that a config names."""
    return build_own(config.own_data, Dataset) if config.own_data else load_data(config.data)


def build_network(config: LatentTraining, shape: tuple[int, int, int]) -> nn.Module:
    """The network that a config names, for latents of a shape (Z, h, w).

    Raises:
        UserError: the latents cannot be halved as often as the U-Net wants, or its parts do not fit together.
    """
    if config.own_network:
        return build_own(config.own_network, nn.Module, channels=shape[0])
    try:
        network = UNet(shape[0], config.network)
        network.check_size(*shape[1:])
    except ValueError as error:
        raise UserError(f"latents of {shape[1]}×{shape[2]}: {error}") from None
    return network


def build_diffusion(config: LatentTraining) -> Diffusion:
    """The diffusion that a config names; raises UserError where its parts contradict each other."""
    if config.sampling.clamp:
        raise UserError("sampling.clamp is true: latents know no bounds, so that clamping would cut them; leave it out")
    try:
        diffusion = Diffusion.from_config(config.schedule, config.diffusion)
        sampler_steps(None, diffusion.schedule, None, config.sampling)  # only checks them: nothing runs until asked for
    except ValueError as error:
        raise UserError(str(error)) from None
    return diffusion


def load_autoencoder(source: str | Path | None = None, *, weights: str = "ema") -> LoadedAutoencoder:
    """As `stored.load_autoencoder`; from nothing, the autoencoder that comes with this package."""
    return stored.load_autoencoder(source or COMMITTED_AUTOENCODER, weights=weights)


@dataclass
class Model:
    """A trained diffusion of latents, with the autoencoder that makes images of them."""

    network: nn.Module
    diffusion: Diffusion
    space: Space
    config: LatentTraining
    shape: tuple[int, int, int]  # of the images
    source: Path

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(Z, h, w)."""
        return self.space.autoencoder.latent_shape(self.shape)

    def steps(self, n: int, seed: int = 0, **options: object) -> Iterator[Step]:
        """Sample n latents step by step: a generator of `Step`, whose `x` is (n, Z, h, w). See `decode`.

        Args:
            n: number of images.
            seed: of the noise; the same seed gives the same images.
            options: fields of `SamplingConfig` that differ from the run's: sampler, steps, eta, spacing.

        Raises:
            UserError: more steps than the schedule has levels, an eta outside [0, 1], or no such option.
        """
        config = sampling_with(self.config.sampling, options)
        return generate_steps(self.network, self.diffusion, (n, *self.latent_shape), config, seed)

    def decode(self, z: Tensor) -> Tensor:
        """Images (n, C, H, W) in [-1, 1] of latents (n, Z, h, w)."""
        with computing_in(resolve(self.config.sampling.precision, z.device), z.device):
            parts = z.split(batch_for(torch.empty(self.shape, device="meta")))
            return torch.cat([self.space.decode(part).float() for part in parts])

    def sample(self, n: int, seed: int = 0, batch: int = 250, **options: object) -> Tensor:
        """Sample n images, (n, C, H, W) in [-1, 1], at most `batch` at a time. Options as for `steps`."""
        parts = []
        for count, own_seed in batch_seeds(n, batch, seed):
            *_, last = self.steps(count, own_seed, **options)
            parts.append(self.decode(last.x))
        return torch.cat(parts)


def load(
    source: str | Path | None = None,
    *,
    weights: str = "ema",
    device: str = "cpu",
    trust: bool = False,
    autoencoder: str | Path | None = None,
) -> Model:
    """Load a trained latent diffusion.

    Args:
        source: a run's folder, a checkpoint file, or nothing for the one that comes with this package.
        weights: "ema", "swa", or "model" for the raw ones.
        device: where to put the networks.
        trust: build a network of one's own (a dotted path in the config): that runs code which the config names.
        autoencoder: its autoencoder, where that does not lie with it.

    Raises:
        UserError: there is no such file, it is not such a checkpoint, or the autoencoder is missing or another.
    """
    path = newest(Path(source or COMMITTED))
    config, shape, facts = latent_config(read_facts(path).get("config", {}))
    state, path = read_weights(path, weights)
    if config.own_network and not trust:
        raise UserError(
            f"{path} names a network of its own, {config.own_network.get('class_path')}: loading it runs that code; "
            "if you know it, add --trust true"
        )
    space = space_of(path, facts, autoencoder)
    network = build_network(config, space.autoencoder.latent_shape(shape))
    load_into(network, state, path)
    return Model(network.eval().to(device), build_diffusion(config), space.to(device), config, shape, path)
