"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

One step from a time t to another, as pure functions: what samplers, the variational bound and inversion are made of.

The times are scalars, or (B,) for a batch of which each sample has its own.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from shared.errors import UserError
from shared.schedulers.diffusion import Denoised, expand
from shared.schedulers.noise import NoiseSchedule

Noise = Callable[[Tensor], Tensor]  # standard normal noise of the given tensor's shape
Variance = Literal["small", "large", "learned"]


def posterior_mean(schedule: NoiseSchedule, xt: Tensor, x0: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """Mean of q(xs | xt, x0) for s < t. DDPM, eq. (7), where s is t - 1."""
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule.level(t), schedule.level(s)
    added, _ = posterior_variance(schedule, t, s)
    share = expand(alpha_t / alpha_s * sigma_s**2 / sigma_t**2, xt)
    return share * xt + expand(alpha_s * added / sigma_t**2, xt) * x0


def posterior_variance(schedule: NoiseSchedule, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """Variance added from s up to t (the "beta" of a long step), and that of xs when xt and x0 are known."""
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule.level(t), schedule.level(s)
    added = sigma_t**2 - (alpha_t / alpha_s) ** 2 * sigma_s**2
    return added, added * sigma_s**2 / sigma_t**2


def step_deviation(variance: Variance, denoised: Denoised, small: Tensor, large: Tensor, like: Tensor) -> Tensor:
    """Standard deviation of a step whose variance is `variance`, to multiply `like`; for learned, of its shape.

    A learned one lies between the two others, by its logarithm, where the network says. Improved DDPM, eq. (15).

    Raises:
        UserError: it is to be learned, and the denoiser says nothing of it.
    """
    if variance != "learned":
        return expand({"small": small, "large": large}[variance].sqrt(), like)
    if denoised.log_variance is None:
        raise UserError("this model has learned no variance: choose the sampler ddpm or ddpm_large, not ddpm_learned")
    low, high = (expand(bound.log(), like) for bound in (small, large))
    return (torch.lerp(low, high, denoised.log_variance) / 2).exp()


def ddpm_step(
    schedule: NoiseSchedule, xt: Tensor, denoised: Denoised, t: Tensor, s: Tensor, variance: Variance, noise: Noise
) -> Tensor:
    """Draw xs from q(xs | xt, x0). DDPM, eqs. (6) and (7), for any s < t (its s is t - 1).

    Args:
        schedule: the noise schedule.
        xt: data at time t.
        denoised: what the denoiser says of it.
        t: the time it is at.
        s: the time to go to; nothing is drawn at s = 0.
        variance: "small" is the posterior's, right if the data were a point; "large" is beta, right if they
            were standard normal (DDPM, section 3.2); "learned" is what the network says.
        noise: where standard normal noise comes from.

    Raises:
        UserError: the variance is to be learned, and the denoiser says nothing of it.
    """
    mean = posterior_mean(schedule, xt, denoised.x0, t, s)
    if s == 0:
        return mean
    large, small = posterior_variance(schedule, t, s)
    return mean + step_deviation(variance, denoised, small, large, xt) * noise(xt)


def ddim_step(
    schedule: NoiseSchedule, xt: Tensor, denoised: Denoised, t: Tensor, s: Tensor, eta: float, noise: Noise
) -> Tensor:
    """Go from t to s along the predicted x0 and eps, a share of eps replaced by fresh noise. DDIM, eq. (12).

    With eta = 0 also upwards (s > t): inversion. With eta = 1 each step has DDPM's small variance, eq. (16).
    """
    alpha_s, sigma_s = schedule.level(s)
    if eta == 0 or s == 0:
        return alpha_s.to(xt) * denoised.x0 + sigma_s.to(xt) * denoised.eps
    fresh = eta * posterior_variance(schedule, t, s)[1].sqrt()
    kept = (sigma_s**2 - fresh**2).clamp(min=0).sqrt()
    return alpha_s.to(xt) * denoised.x0 + kept.to(xt) * denoised.eps + fresh.to(xt) * noise(xt)
