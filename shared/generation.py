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
from shared.schedulers.samplers import Step, sampler_steps
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
        network: `model(x, t, cond)`.
        diffusion: what its output means.
        size: of the samples, their number first.
        config: sampler, steps, precision.
        seed: of the noise.
        guide: makes a denoiser of the network, which computes in the config's precision whenever that asks it; where
            not given, the network alone, told nothing, is the denoiser.

    Raises:
        UserError: more steps than the schedule has levels, an eta outside [0, 1], or whatever `guide` refuses by a
            ValueError.
    """
    device = next(network.parameters()).device
    generator = torch.Generator().manual_seed(seed)

    def noise(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=generator).to(x)

    start = torch.randn(size, generator=generator).to(device)
    computed = computing(network, config.precision, device)
    try:
        denoise = guide(computed) if guide else diffusion.denoiser(computed, {})
        return sampler_steps(denoise, diffusion.schedule, start, config, noise)
    except ValueError as error:
        raise UserError(str(error)) from None


def batch_seeds(n: int, batch: int, seed: int) -> Iterator[tuple[int, int]]:
    """The number of samples and the seed of each batch, for n samples, at most `batch` at a time."""
    for i, first in enumerate(range(0, n, batch)):
        # Derived, not seed + i · 2³²: torch's CPU generator takes 32 bits of it, and all batches would be one.
        yield min(batch, n - first), derive(seed, "samples", i) if i else seed
