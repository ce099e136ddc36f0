"""The two networks of stage 2: built from a config for training, loaded from a run or a file for sampling."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from shared.blocks.unet import UNet
from shared.cli import build_own
from shared.datasets import load as load_data
from shared.errors import UserError
from shared.experiments.history import is_run
from shared.generation import batch_seeds, generate_steps, sampling_with
from shared.precision import computing_in, resolve
from shared.schedulers.diffusion import Diffusion
from shared.schedulers.samplers import Step, sampler_steps
from shared.training.checkpoint import load_into, read_facts
from shared.training.weights import newest, read_weights
from task2_latent.autoencoder import Autoencoder, build
from task2_latent.autoencoder_config import AutoencoderConfig
from task2_latent.config import AutoencoderTraining, LatentTraining, autoencoder_config, latent_config
from task2_latent.latents import Space, batch_for, rebuilt

RESULTS = Path(__file__).parent / "results"
COMMITTED, COMMITTED_AUTOENCODER = RESULTS / "diffusion.safetensors", RESULTS / "autoencoder.safetensors"
COPY = "autoencoder.safetensors"  # in a diffusion's run folder: the run depends on no other


def build_data(config: AutoencoderTraining | LatentTraining) -> Dataset:
    """The images that a config names."""
    return build_own(config.own_data, Dataset) if config.own_data else load_data(config.data)


def build_autoencoder(config: AutoencoderConfig, shape: tuple[int, int, int]) -> Autoencoder:
    """The autoencoder that a config names, for images of a shape (C, H, W).

    Raises:
        UserError: the images cannot be halved as often, or its parts do not fit together.
    """
    try:
        autoencoder = build(config, shape[0])
        autoencoder.check_size(*shape[1:])
    except ValueError as error:
        raise UserError(str(error)) from None
    return autoencoder


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


@dataclass
class LoadedAutoencoder:
    """A trained autoencoder, and where it comes from."""

    network: Autoencoder
    config: AutoencoderTraining
    shape: tuple[int, int, int]  # of the images
    facts: dict[str, Any]  # of its checkpoint
    source: Path

    def check_images(self, image: Tensor) -> None:
        """Raise UserError unless an image (C, H, W) is of the shape that it was trained on."""
        if tuple(image.shape) != self.shape:
            there, here = ("×".join(map(str, s)) for s in (self.shape, image.shape))
            raise UserError(f"{self.source} is an autoencoder of images {there}, not {here}: train one for these")

    @property
    def run(self) -> Path | None:
        """The folder of its run; None where it is a file that somebody was given."""
        return folder if is_run(folder := self.source.parent.parent) else None


def load_autoencoder(source: str | Path | None = None, *, weights: str = "ema") -> LoadedAutoencoder:
    """Load a trained autoencoder.

    Args:
        source: a run's folder, a checkpoint file, or nothing for the one that comes with this package.
        weights: "ema", "swa", or "model" for the raw ones.

    Raises:
        UserError: there is no such file, or it is not the checkpoint of an autoencoder.
    """
    path = Path(source or COMMITTED_AUTOENCODER)
    if not path.exists():
        raise UserError(f"there is no autoencoder {path}: train one by task2-train-autoencoder")
    state, path = read_weights(path, weights)
    facts = read_facts(path)
    config, shape = autoencoder_config(facts.get("config", {}))
    network = build_autoencoder(config.autoencoder, shape)
    load_into(network, state, path)
    return LoadedAutoencoder(network.eval(), config, shape, facts, path)


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


def autoencoder_of(checkpoint: Path) -> Path | None:
    """The copy of its autoencoder that lies with a diffusion: in its run's folder, or beside an exported file."""
    places = [checkpoint.parent / COPY, checkpoint.parent.parent / COPY]
    return next((place for place in places if place.is_file()), None)


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
    place = autoencoder or autoencoder_of(path)
    if place is None:
        raise UserError(f"{path} is a diffusion of latents, and no {COPY} lies with it: give one by --autoencoder")
    space = rebuilt(load_autoencoder(place).network, facts, path)
    network = build_network(config, space.autoencoder.latent_shape(shape))
    load_into(network, state, path)
    return Model(network.eval().to(device), build_diffusion(config), space.to(device), config, shape, path)
