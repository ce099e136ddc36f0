"""Introduced in task 3; used by tasks 3, 4, 5.

Guidance: samples that follow their condition more closely than the model would by itself. Each kind is a wrapper that
makes a denoiser of others, so that no sampler ever hears of it.

The scale means the same for all: 1 is the conditional model, 0 the one without the condition; above 1 the condition
counts for more than it should. Where two outputs are combined, 1 and 0 are these models bit for bit and cost no more
than they do. (Ho and Salimans' w is this scale less 1.) Nothing is clamped here: `sampler_steps` does that to what
comes out.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from shared.schedulers.diffusion import Denoised, Denoiser, Diffusion, Network, expand
from shared.schedulers.noise import NoiseSchedule

Combine = Callable[[Tensor, Tensor, float], Tensor]  # (conditional output, unconditional output, scale) -> output
LogProbability = Callable[[Tensor, Tensor], Tensor]  # (xt, t) -> log p(y | xt) up to a constant, (B,); t is (B,)


def check_scale(scale: float) -> None:
    """Raise ValueError for a scale that is not a finite number. Any finite one will do, also below 0."""
    if not math.isfinite(scale):
        raise ValueError(f"the guidance scale is {scale}: it must be a finite number")


def lerp(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """From the unconditional output to the conditional one, or beyond. Ho and Salimans 2022, eq. (6)."""
    return torch.lerp(unconditional, conditional, scale)


def rescaled(share: float) -> Combine:
    """`lerp`, and then a share of the way back to the conditional output's deviation. Lin 2023, eqs. (14) to (16).

    Deviations are over each sample's own elements; where a sample's are all the same, it is left as it is. At the
    scales 0 and 1 `guided` has nothing to combine, so that nothing is rescaled there either.

    Raises:
        ValueError: the share is not within [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share of rescaling is {share}: it must lie between 0 and 1")

    def deviation(x: Tensor) -> Tensor:
        return x.flatten(1).std(dim=1, correction=0)  # (B,)

    def combine(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
        guided_output = lerp(conditional, unconditional, scale)
        there, here = deviation(conditional), deviation(guided_output)
        factor = torch.where(here > 0, there / here, 1.0)  # (B,)
        return guided_output * expand(share * factor + (1 - share), guided_output)

    return combine


def guided(
    diffusion: Diffusion,
    model: Network,
    cond: dict[str, Tensor],
    null: dict[str, Tensor],
    scale: float,
    combine: Combine = lerp,
) -> Denoiser:
    """Classifier-free guidance (Ho and Salimans 2022, algorithm 2): the network asked with and without the condition.

    Both questions are one call, of twice the batch. What the network predicts is combined, whether eps, x0 or v: for
    `lerp` that makes no difference, as each is linear in any other at a given xt.

    Args:
        diffusion: what the network's output means.
        model: the network.
        cond: what it is told, for each sample of the batch.
        null: what it is told where it is told nothing: the same names and shapes.
        scale: any finite number.
        combine: makes one output of the two, in xt's number format; not called at the scales 0 and 1.

    Raises:
        ValueError: the scale is not finite, or `cond` and `null` differ in names or shapes.
    """
    check_scale(scale)
    shapes = [{name: tuple(value.shape) for name, value in told.items()} for told in (cond, null)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"the null condition must be shaped as the condition: {shapes[1]} is not {shapes[0]}")
    if scale in (0, 1):
        return diffusion.denoiser(model, cond if scale == 1 else null)
    both = {name: torch.cat([value, null[name]]) for name, value in cond.items()}

    def combined(xt: Tensor, t: Tensor, told: dict[str, Tensor]) -> Tensor:
        out = model(torch.cat([xt, xt]), torch.cat([t, t]), told)  # (2B, ...)
        conditional, unconditional = out.to(xt.dtype).chunk(2)
        return combine(conditional, unconditional, scale)  # (B, ...)

    return diffusion.denoiser(combined, both)


def within(schedule: NoiseSchedule, interval: tuple[float, float], inside: Denoiser, outside: Denoiser) -> Denoiser:
    """One denoiser at some times, another at all others: a guidance interval (Kynkäänniemi 2024, section 3).

    Args:
        schedule: how long time is.
        interval: low and high, as shares of T: `inside` holds for low < t / T <= high. (0, 1) is all that samplers ask.
        inside: there.
        outside: elsewhere; only the one that is needed is asked, or both where a batch has times of both kinds.

    Raises:
        ValueError: the interval does not rise within [0, 1].
    """
    low, high = interval
    if not 0 <= low <= high <= 1:
        raise ValueError(f"the guidance interval is from {low} to {high}: it must rise within 0 and 1")
    if (low, high) == (0, 1):
        return inside  # and no time is looked at: it may lie on a device, which would have to be waited for

    def denoise(xt: Tensor, t: Tensor) -> Denoised:
        part = t.double() / schedule.T  # not t > low · T: 0.57 · 100 is below 57, and 57 / 100 is 0.57
        chosen = (part > low) & (part <= high)
        if chosen.all():
            return inside(xt, t)
        if not chosen.any():
            return outside(xt, t)
        chosen = chosen.to(xt.device).reshape(-1, *(1,) * (xt.ndim - 1))
        pairs = zip(inside(xt, t), outside(xt, t), strict=True)
        return Denoised(*(None if there is None else torch.where(chosen, there, other) for there, other in pairs))

    return denoise


def blend(strong: Denoiser, weak: Denoiser, scale: float) -> Denoiser:
    """From what a weak denoiser says to what a strong one says, or beyond: autoguidance (Karras 2024, eq. (3)).

    The weak one is best a smaller or less trained version of the strong one: beyond it lies what training has mended.
    Between 0 and 1 it is an ensemble of the two. At 1 only the strong one is asked, at 0 only the weak one.

    Raises:
        ValueError: the scale is not finite.
    """
    check_scale(scale)
    if scale in (0, 1):
        return strong if scale == 1 else weak

    def denoise(xt: Tensor, t: Tensor) -> Denoised:
        a, b = strong(xt, t), weak(xt, t)
        return a._replace(x0=lerp(a.x0, b.x0, scale), eps=lerp(a.eps, b.eps, scale))  # a variance is the strong one's

    return denoise


def gradient(log_probability: LogProbability, xt: Tensor, t: Tensor) -> Tensor:
    """The gradient of log p(y | xt) by xt, of xt's shape and without a graph, also where gradients are off."""
    with torch.enable_grad():
        x = xt.detach().requires_grad_()
        return torch.autograd.grad(log_probability(x, t).sum(), x)[0]


def classifier_guided(
    denoise: Denoiser, schedule: NoiseSchedule, log_probability: LogProbability, scale: float
) -> Denoiser:
    """Classifier guidance (Dhariwal and Nichol 2021, algorithm 2): eps - scale · sigma · gradient of log p(y | xt).

    By Bayes' rule scale 1 makes the conditional model of an unconditional one; a conditional one is guided further. A
    scale of 0 is the given denoiser itself. x0 follows from eps as xt = alpha x0 + sigma eps wants it.

    Where alpha = 0 (at T of a schedule without terminal signal) xt is noise alone and says nothing about y: the true
    gradient is 0 there, that of a trained classifier chance, and both divided by alpha nothing. So the classifier is
    not asked, and what the given denoiser says stands.

    Args:
        denoise: what is guided.
        schedule: its noise.
        log_probability: differentiable in xt; each sample's value must depend on that sample alone.
        scale: any finite number.

    Raises:
        ValueError: the scale is not finite.
    """
    check_scale(scale)
    if scale == 0:
        return denoise

    @torch.no_grad()
    def guided_denoise(xt: Tensor, t: Tensor) -> Denoised:
        denoised = denoise(xt, t)
        x0, eps = denoised.x0, denoised.eps
        alpha, sigma = schedule.level(t)
        signal = alpha > 0
        if not signal.any():
            return denoised
        pull = scale * gradient(log_probability, xt, t.to(xt.device).expand(len(xt)))
        pull = torch.where(expand(signal, xt) > 0, pull, 0.0)
        per_x0 = sigma**2 / alpha.where(signal, 1)
        return denoised._replace(x0=x0 + expand(per_x0, xt) * pull, eps=eps - expand(sigma, xt) * pull)

    return guided_denoise
