"""Gaussian data, for which everything a sampler should do is known in closed form.

For x0 ~ N(mean, deviation²), each dimension by itself, xt = alpha x0 + sigma eps is Gaussian too, so that the
best denoiser is linear and the probability-flow ODE only shifts and scales. Nothing here calls the code under
test but for alpha and sigma.
"""

import torch
from torch import Tensor

from shared.schedulers.diffusion import Denoised
from shared.schedulers.noise import NoiseSchedule


class Gaussian:
    """N(mean, deviation²) seen through a schedule; mean and deviation are (D,), data (B, D)."""

    def __init__(self, schedule: NoiseSchedule, mean: Tensor, deviation: Tensor):
        self.schedule, self.mean, self.deviation = schedule, mean, deviation

    def marginal(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """Mean and variance of xt."""
        alpha, sigma = self.schedule.level(t)
        return alpha * self.mean, alpha**2 * self.deviation**2 + sigma**2

    def denoise(self, xt: Tensor, t: Tensor) -> Denoised:
        """The posterior means E[x0 | xt] and E[eps | xt], by the rule for jointly Gaussian variables."""
        alpha, sigma = self.schedule.level(t)
        mean, variance = self.marginal(t)
        surprise = (xt - mean) / variance
        return Denoised(self.mean + alpha * self.deviation**2 * surprise, sigma * surprise)

    def flow(self, xt: Tensor, t: Tensor | float, s: Tensor | float) -> Tensor:
        """Where the probability-flow ODE takes xt by time s: it keeps (x - mean) / standard deviation."""
        (mean_t, variance_t), (mean_s, variance_s) = self.marginal(t), self.marginal(s)
        return mean_s + (xt - mean_t) * torch.sqrt(variance_s / variance_t)

    def bayes_step(self, mean: Tensor, variance: Tensor, t: Tensor, s: Tensor, large: bool) -> tuple[Tensor, Tensor]:
        """Mean and variance of xs after one DDPM step, from those of xt.

        The mean of xs given xt and x0 by precision weighting (known: xs = alpha_s x0 + sigma_s eps, and xt =
        a xs plus noise of variance `added`), with E[x0 | xt] put for x0. The noise is the posterior's or,
        `large`, `added`.
        """
        (alpha_t, sigma_t), (alpha_s, sigma_s) = self.schedule.level(t), self.schedule.level(s)
        a = alpha_t / alpha_s
        added = sigma_t**2 - (a * sigma_s) ** 2
        posterior = 1 / (1 / sigma_s**2 + a**2 / added)
        mean_t, variance_t = self.marginal(t)
        gain = alpha_t * self.deviation**2 / variance_t  # of x0 in xt
        slope = posterior * (alpha_s * gain / sigma_s**2 + a / added)
        x0 = self.mean + gain * (mean - mean_t)
        centre = posterior * (alpha_s * x0 / sigma_s**2 + a * mean / added)
        return centre, slope**2 * variance + (added if large else posterior)
