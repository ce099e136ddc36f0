"""Introduced in task 3; used by tasks 3, 5.

Samples of which a part is known: the frames that come before, or the pixels around a hole. Each way is a wrapper that
makes a denoiser of another, so that any sampler fills in the rest.

`known` is clean data of the samples' shape, `mask` of a shape that broadcasts to it, true where it is known.
"""

import math

import torch
from torch import Tensor

from shared.schedulers.diffusion import Denoised, Denoiser, expand
from shared.schedulers.noise import NoiseSchedule
from shared.schedulers.steps import Noise


def kept(denoise: Denoiser, schedule: NoiseSchedule, known: Tensor, mask: Tensor) -> Denoiser:
    """What is known is taken for the clean data, whatever the denoiser says of it; so a sampler ends there."""

    def kept_denoise(xt: Tensor, t: Tensor) -> Denoised:
        denoised = denoise(xt, t)
        x0 = torch.where(mask, known, denoised.x0)
        alpha, sigma = (expand(rate, xt) for rate in schedule.level(t))
        return denoised._replace(x0=x0, eps=torch.where(mask, (xt - alpha * x0) / sigma, denoised.eps))

    return kept_denoise


def put_in(xt: Tensor, t: Tensor, schedule: NoiseSchedule, known: Tensor, mask: Tensor, noise: Noise) -> Tensor:
    """xt in which what is known stands with fresh noise of time t."""
    alpha, sigma = (expand(rate, xt) for rate in schedule.level(t))
    return torch.where(mask, alpha * known + sigma * noise(xt), xt)


def replaced(denoise: Denoiser, schedule: NoiseSchedule, known: Tensor, mask: Tensor, noise: Noise) -> Denoiser:
    """The replacement method (Song 2021, "Score-based", appendix I.2; Ho 2022, "Video diffusion models", section 3.1).

    Whenever the denoiser is asked, what is known is put in with fresh noise. The rest hears of it only through what the
    denoiser makes of the whole: it is drawn from the wrong distribution, and often does not fit.
    """

    def replaced_denoise(xt: Tensor, t: Tensor) -> Denoised:
        return denoise(put_in(xt, t, schedule, known, mask, noise), t)

    return kept(replaced_denoise, schedule, known, mask)


def reconstruction_guided(
    denoise: Denoiser, schedule: NoiseSchedule, known: Tensor, mask: Tensor, noise: Noise, weight: float
) -> Denoiser:
    """Reconstruction guidance (Ho 2022, "Video diffusion models", eq. (7)), and replacement.

    Of the rest, x0 is moved against the gradient by xt of |known - x0|² over what is known, by weight · alpha / 2:
    towards what would have the denoiser find what is known. The denoiser must let gradients through; a weight of 0 is
    `replaced`.

    Raises:
        ValueError: the weight is below 0, or not finite.
    """
    if not 0 <= weight < math.inf:
        raise ValueError(f"the weight of reconstruction guidance is {weight}: it must be a finite number, 0 or more")
    if weight == 0:
        return replaced(denoise, schedule, known, mask, noise)

    def guided_denoise(xt: Tensor, t: Tensor) -> Denoised:
        xt = put_in(xt, t, schedule, known, mask, noise)
        with torch.enable_grad():
            asked = xt.detach().requires_grad_()
            denoised = denoise(asked, t)
            error = torch.where(mask, known - denoised.x0, 0.0).square().sum()  # samples do not mix: each has its own
            (slope,) = torch.autograd.grad(error, asked)
        alpha, sigma = (expand(rate, xt) for rate in schedule.level(t))
        x0 = denoised.x0.detach() - torch.where(mask, 0.0, weight * alpha / 2 * slope)
        return Denoised(x0, (xt - alpha * x0) / sigma)

    return kept(guided_denoise, schedule, known, mask)
