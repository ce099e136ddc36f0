"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

From a trained network to samples. The seed decides them, whatever the device; how many are drawn at a time enters too.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from shared.errors import UserError
from shared.precision import computing_in, resolve
from shared.schedulers.config import SamplingConfig
from shared.schedulers.diffusion import Denoiser, Diffusion, Network
from shared.schedulers.inversion import times_from
from shared.schedulers.samplers import Step, sampler_steps
from shared.schedulers.steps import Noise
from shared.training.data import derive

Guide = Callable[[Network], Denoiser]  # the network as it computes here -> what the sampler asks


def sampling_with(config: SamplingConfig, options: dict[str, object]) -> SamplingConfig:
    """A run's way to sample, with the options that a person gave instead. Raises UserError for one that is none."""
    try:
        return replace(config, **options)
    except TypeError as error:
        raise UserError(str(error)) from None


def computing(network: Network, precision: str, device: torch.device) -> Network:
    """The network, computing in a number format of `SamplingConfig.precision` whenever it is asked."""
    resolved = resolve(precision, device)

    def computed(xt: Tensor, t: Tensor, cond: dict[str, Tensor]) -> Tensor:
        with computing_in(resolved, device):
            return network(xt, t, cond)

    return computed


def generated(
    network: nn.Module,
    diffusion: Diffusion,
    config: SamplingConfig,
    seed: int,
    guide: Guide | None,
    way: Callable[[Denoiser, Noise], Iterator[Step]],
) -> Iterator[Step]:
    """Go some way with what a network says: from noise, from a picture, around a hole.

    Args:
        network: `model(x, t, cond)`.
        diffusion: what its output means.
        config: its precision.
        seed: of the noise.
        guide: makes a denoiser of the network, which computes in the config's precision whenever that asks it; where
            not given, the network alone, told nothing, is the denoiser.
        way: given the denoiser and where all noise comes from, the steps.

    Raises:
        UserError: whatever `guide` or `way` refuses by a ValueError.
    """
    generator = torch.Generator().manual_seed(seed)

    def noise(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=generator).to(x)

    computed = computing(network, config.precision, next(network.parameters()).device)
    try:
        denoise = guide(computed) if guide else diffusion.denoiser(computed, {})
        return way(denoise, noise)
    except ValueError as error:
        raise UserError(str(error)) from None


def generate_steps(
    network: nn.Module,
    diffusion: Diffusion,
    size: tuple[int, ...],
    config: SamplingConfig,
    seed: int,
    guide: Guide | None = None,
) -> Iterator[Step]:
    """Sample step by step: a generator of `Step`, whose `x` has the size (n, C, H, W).

    Args:
        network, diffusion, seed, guide: as for `generated`.
        size: of the samples, their number first.
        config: sampler, steps, precision.

    Raises:
        UserError: more steps than the schedule has levels, an eta outside [0, 1], or whatever `guide` refuses by a
            ValueError.
    """
    device = next(network.parameters()).device

    def way(denoise: Denoiser, noise: Noise) -> Iterator[Step]:
        return sampler_steps(denoise, diffusion.schedule, noise(torch.empty(size, device=device)), config, noise)

    return generated(network, diffusion, config, seed, guide, way)


def generate_from(
    network: nn.Module,
    diffusion: Diffusion,
    images: Tensor,
    strength: float,
    config: SamplingConfig,
    seed: int,
    guide: Guide | None = None,
) -> Iterator[Step]:
    """Draw images again from the time strength · T on: SDEdit (Meng 2022), algorithm 1. A generator of `Step`.

    Args:
        network, diffusion, seed, guide: as for `generated`.
        images: (N, C, H, W) in [-1, 1], on the network's device.
        strength: above 0, at most 1: a little noise hides the details, much of it all but the rough shape.
        config: sampler, precision, and steps, of which those below that time are taken.

    Raises:
        UserError: the strength is outside (0, 1], there are not so many levels, or as for `generate_steps`.
    """
    schedule = diffusion.schedule

    def way(denoise: Denoiser, noise: Noise) -> Iterator[Step]:
        start = strength * schedule.T
        times = times_from(schedule, start, schedule.times(config.steps, config.spacing))
        xt = diffusion.add_noise(images, noise(images), torch.full((len(images),), start, device=images.device))
        return sampler_steps(denoise, schedule, xt, config, noise, times)

    return generated(network, diffusion, config, seed, guide, way)


def batch_seeds(n: int, batch: int, seed: int) -> Iterator[tuple[int, int]]:
    """The number of samples and the seed of each batch, for n samples, at most `batch` at a time."""
    for i, first in enumerate(range(0, n, batch)):
        # Derived, not seed + i · 2³²: torch's CPU generator takes 32 bits of it, and all batches would be one.
        yield min(batch, n - first), derive(seed, "samples", i) if i else seed
