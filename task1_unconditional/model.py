"""A network with its diffusion: built from a config for training, loaded from a run or a file for sampling."""

from collections.abc import Callable, Iterator
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
from shared.schedulers.bound import BoundLoss, LearnedVariance
from shared.schedulers.diffusion import Diffusion
from shared.schedulers.samplers import Step, sampler_steps
from shared.training.checkpoint import load_into, read_facts
from shared.training.weights import read_weights
from task1_unconditional.config import Config, model_config

COMMITTED = Path(__file__).parent / "results" / "digits.safetensors"


def build_data(config: Config) -> Dataset:
    """The data set that a config names."""
    return build_own(config.own_data, Dataset) if config.own_data else load_data(config.data)


def build_network(config: Config, shape: tuple[int, int, int]) -> nn.Module:
    """The network that a config names, for images of a shape (C, H, W).

    Raises:
        UserError: the images cannot be halved as often as the U-Net wants, or its parts do not fit together.
    """
    out = shape[0] * (2 if config.bound.variance == "learned" else 1)
    if config.own_network:
        network = build_own(config.own_network, nn.Module, channels=shape[0], out_channels=out)
        check_output(network, shape, out)
        return network
    try:
        network = UNet(shape[0], config.network, out)
        network.check_size(*shape[1:])
    except ValueError as error:
        raise UserError(str(error)) from None
    return network


@torch.no_grad()
def check_output(network: nn.Module, shape: tuple[int, int, int], channels: int) -> None:
    """Raise UserError unless a network of one's own answers an image of a shape (C, H, W) with so many channels.

    A loss would stretch one channel to three, and learn something else.
    """
    wanted = (1, channels, *shape[1:])
    training = network.training
    with torch.random.fork_rng(devices=[]):
        out = network.eval()(torch.zeros(1, *shape), torch.ones(1), {})
    network.train(training)
    if tuple(out.shape) != wanted:
        raise UserError(
            f"the network {type(network).__name__} answers an image {(1, *shape)} by {tuple(out.shape)}: it must have "
            f"{channels} output channels, {wanted}"
        )


def build_diffusion(config: Config) -> Diffusion:
    """The diffusion that a config names; raises UserError where its parts contradict each other."""
    kind = LearnedVariance if config.bound.variance == "learned" else Diffusion
    try:
        diffusion = kind.from_config(config.schedule, config.diffusion)
        sampler_steps(None, diffusion.schedule, None, config.sampling)  # only checks them: nothing runs until asked for
    except ValueError as error:
        raise UserError(str(error)) from None
    return diffusion


def build_loss(config: Config, diffusion: Diffusion) -> Callable[..., Tensor]:
    """The loss of each sample, (B,), as a function of network, images (B, C, H, W) and condition.

    Raises:
        UserError: the parts of the config contradict each other.
    """
    if config.bound.objective == "simple" and config.bound.variance == "learned":
        raise UserError(
            "bound.variance is learned, but L_simple teaches no variance: choose bound.objective hybrid or vlb"
        )
    if config.bound.objective == "simple" and not config.bound.loss_aware:
        return diffusion.loss
    if config.bound.objective == "vlb" and (config.diffusion.loss, config.diffusion.weighting) != ("l2", "uniform"):
        raise UserError(
            "diffusion.loss and diffusion.weighting are of L_simple, and bound.objective is vlb: leave them out"
        )
    try:
        return BoundLoss(diffusion, config.bound)
    except ValueError as error:
        raise UserError(str(error)) from None


@dataclass
class Model:
    """A trained network, what its output means, and how it was meant to be sampled."""

    network: nn.Module
    diffusion: Diffusion
    config: Config
    shape: tuple[int, int, int]
    source: Path

    def steps(self, n: int, seed: int = 0, **options: object) -> Iterator[Step]:
        """Sample n images step by step: a generator of `Step`, whose `x` is (n, C, H, W).

        Args:
            n: number of images.
            seed: of the noise; the same seed gives the same images.
            options: fields of `SamplingConfig` that differ from the run's: sampler, steps, eta, spacing, clamp.

        Raises:
            UserError: more steps than the schedule has levels, an eta outside [0, 1], or no such option.
        """
        config = sampling_with(self.config.sampling, options)
        return generate_steps(self.network, self.diffusion, (n, *self.shape), config, seed)

    def sample(self, n: int, seed: int = 0, batch: int = 250, **options: object) -> Tensor:
        """Sample n images, (n, C, H, W) in [-1, 1], at most `batch` at a time. Options as for `steps`."""
        parts = []
        for count, own_seed in batch_seeds(n, batch, seed):
            *_, last = self.steps(count, own_seed, **options)
            parts.append(last.x.clamp(-1, 1))
        return torch.cat(parts)


def load(source: str | Path | None = None, *, weights: str = "ema", device: str = "cpu", trust: bool = False) -> Model:
    """Load a trained model.

    Args:
        source: a run's folder, a checkpoint file, or nothing for the one that comes with this package.
        weights: "ema", "model" for the raw ones, or any others that it holds or gives; see `weights.read_weights`.
        device: where to put the network.
        trust: build a network of one's own (a dotted path in the config): that runs code which the config names.

    Raises:
        UserError: there is no such file, it is not a checkpoint, or it lacks these weights.
    """
    state, path = read_weights(Path(source or COMMITTED), weights)
    config, shape = model_config(read_facts(path).get("config", {}))
    if config.own_network and not trust:
        raise UserError(
            f"{path} names a network of its own, {config.own_network.get('class_path')}: loading it runs that code; "
            "if you know it, add --trust true"
        )
    network = build_network(config, shape)
    load_into(network, state, path)
    return Model(network.eval().to(device), build_diffusion(config), config, shape, path)
