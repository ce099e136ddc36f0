"""Introduced in task 3; used by task 3.

RePaint (Lugmayr 2022, arXiv:2201.09865): the hidden part of a sample is drawn by a model that was never told of holes.

What is known is put in with fresh noise at each time, which is replacement, see `known.py`. Alone it leaves a seam: the
known part is drawn anew each time, and the rest has no chance to agree with it. So the way down is interrupted by jumps
back up: the whole is given noise again and denoised again, and hears of what is known once more. The more often, the
closer the two come.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from shared.schedulers.config import SamplingConfig
from shared.schedulers.diffusion import Denoised, Denoiser, expand
from shared.schedulers.known import put_in
from shared.schedulers.noise import NoiseSchedule
from shared.schedulers.samplers import Step
from shared.schedulers.steps import Noise, ddim_step, ddpm_step, posterior_variance

Down = Callable[..., Tensor]  # (schedule, xt, denoised, t, s, noise=noise) -> xs, for s < t

ANCESTRAL: Down = partial(ddpm_step, variance="small")

# The samplers of which each step stands by itself; the others look at the steps before, or at times between.
DOWN: dict[str, Callable[[SamplingConfig], Down]] = {
    "ddpm": lambda config: ANCESTRAL,
    "ddpm_large": lambda config: partial(ddpm_step, variance="large"),
    "ddpm_learned": lambda config: partial(ddpm_step, variance="learned"),
    "ddim": lambda config: partial(ddim_step, eta=config.eta),
    "euler_ancestral": lambda config: partial(ddim_step, eta=1.0),
}


def down_step(config: SamplingConfig) -> Down:
    """The step of the sampler that a config names.

    Raises:
        ValueError: it has none that stands by itself, or an eta outside [0, 1].
    """
    if config.sampler not in DOWN:
        raise ValueError(
            f"RePaint goes down in steps that stand by themselves, and {config.sampler} has none: "
            f"choose the sampler {', '.join(list(DOWN)[:-1])} or {list(DOWN)[-1]}"
        )
    if not 0 <= config.eta <= 1:
        raise ValueError(f"eta is {config.eta}; it must lie between 0 (deterministic) and 1 (DDPM's noise)")
    return DOWN[config.sampler](config)


def forward_step(schedule: NoiseSchedule, xs: Tensor, s: Tensor, t: Tensor, noise: Noise) -> Tensor:
    """Draw xt from q(xt | xs) for s < t: noise is added to what has some. DDPM, eq. (2), where s is t - 1."""
    kept = schedule.level(t).alpha / schedule.level(s).alpha
    added, _ = posterior_variance(schedule, t, s)
    return expand(kept, xs) * xs + expand(added.sqrt(), xs) * noise(xs)


def resampled(times: Tensor, resample: int = 10, jump: int = 10) -> Tensor:
    """A sampler's falling `times` with jumps back up. RePaint, section 4.2 and the schedule of its appendix.

    Wherever one step more than a multiple of `jump` is left, the way goes up by `jump` steps and down again,
    `resample` - 1 times. The paper counts from 0, which is a step before clean data, so it never jumps from there: what
    is clean has no noise to hide what does not fit. RePaint goes up step by step: noise added in several steps is noise
    added in one, so here a jump is one.

    Args:
        times: as for a sampler, (steps + 1,).
        resample: how often each stretch is gone through; 1 is without jumps.
        jump: its length in steps.

    Raises:
        ValueError: either is below 1, or there are jumps to make and no room for one.
    """
    steps = len(times) - 1
    if resample < 1 or jump < 1:
        raise ValueError(f"resample is {resample} and jump {jump}: both count, so make them 1 or more")
    if resample > 1 and jump >= steps:
        raise ValueError(f"a jump of {jump} steps has no room in {steps}: make it less than the steps")
    path = [0]  # indices into times
    for n in range(1, steps + 1):
        path.append(n)
        left = steps - n
        if left > 0 and (left - 1) % jump == 0 and left - 1 < steps - jump:
            path += [n - jump + i for _ in range(resample - 1) for i in range(jump + 1)]
    return times[path]


def calls(times: Tensor) -> int:
    """How often the denoiser is asked on the way through `times`, from `resampled`: whenever they fall."""
    return int((times.diff() < 0).sum())


@torch.no_grad()
def repaint(
    denoise: Denoiser,
    schedule: NoiseSchedule,
    x: Tensor,
    times: Tensor,
    known: Tensor,
    mask: Tensor,
    *,
    step: Down = ANCESTRAL,
    noise: Noise = torch.randn_like,
) -> Iterator[Step]:
    """Sample what is hidden, given what is known. RePaint, algorithm 1.

    Args:
        denoise: what is asked; it need not know of holes.
        schedule: the noise schedule.
        x: noise (B, ...) at the first of the times.
        times: from `resampled`; there is a `Step` for each one that is lower than the one before.
        known: clean data of x's shape; what is hidden of it does not matter, if it is finite.
        mask: broadcastable to x, true where it is known.
        step: how to go down.
        noise: where standard normal noise comes from.
    """
    n = 0
    for t, s in zip(times[:-1], times[1:], strict=True):
        if s > t:
            x = forward_step(schedule, x, t, s, noise)
            continue
        denoised: Denoised = denoise(x, t)
        x = step(schedule, x, denoised, t, s, noise=noise)
        # at 0 there is no noise to put in, and what is known stands there bit for bit
        x = put_in(x, s, schedule, known, mask, noise) if s > 0 else torch.where(mask, known, x)
        yield Step(n, s, x, denoised.x0)
        n += 1
