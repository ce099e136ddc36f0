"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

The diffusion: a noise schedule, the meaning of the network's output, and the loss. It turns any network into
a denoiser, which is all that a sampler ever sees.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from shared.schedulers.config import DiffusionConfig, NoiseConfig
from shared.schedulers.noise import NoiseSchedule


class Denoised(NamedTuple):
    """What a network believes about xt, always with xt = alpha x0 + sigma eps.

    And, where it has learned that (`bound.py`), of the variance of a step down: where its logarithm lies between those
    of the smallest (0) and the largest (1) that the step can have. So it holds for a step of any length.
    """

    x0: Tensor
    eps: Tensor
    log_variance: Tensor | None = None  # x0's shape


Denoiser = Callable[[Tensor, Tensor], Denoised]  # (xt, t) -> Denoised; t is one time for the whole batch, or (B,)
Network = Callable[[Tensor, Tensor, dict[str, Tensor]], Tensor]  # (xt, t, cond) -> output of xt's shape; t is (B,)

ELEMENT_LOSSES = {
    "l2": F.mse_loss,
    "l1": F.l1_loss,
    "huber": F.smooth_l1_loss,  # quadratic below an error of 1, linear above
}

# Each draws n times in (0, T].
TIMES = {
    "levels": lambda config, T, n, device: torch.randint(1, T + 1, (n,), device=device),
    "uniform": lambda config, T, n, device: T * (1 - torch.rand(n, device=device)),  # not 0, where nothing is to learn
    # Esser 2024, eq. (19); the normal's tails are cut where float32 would make 0 of them
    "logit_normal": lambda config, T, n, device: (
        T * torch.sigmoid((config.time_mean + config.time_deviation * torch.randn(n, device=device)).clamp(-15, 15))
    ),
}


def expand(value: Tensor, like: Tensor) -> Tensor:
    """A number per sample, (B,) or (), shaped to multiply `like` (B, ...), and of its type and device."""
    return value.to(like).reshape(value.shape + (1,) * (like.ndim - 1))


class Diffusion:
    """A schedule, what the network predicts (eps, x0, v or velocity), and the loss."""

    def __init__(self, schedule: NoiseSchedule, config: DiffusionConfig):
        """Put them together.

        Raises:
            ValueError: eps is to be predicted although nothing of the signal is left at T. There xt = eps, so
                that a perfect prediction says nothing about x0. Or v, where it is not at right angles to xt.
        """
        lengths = schedule.alpha**2 + schedule.sigma**2
        if config.predict == "v" and not torch.allclose(lengths, torch.ones_like(lengths)):
            raise ValueError(
                "diffusion.predict is v, which is for alpha² + sigma² = 1: on the path flow, choose velocity"
            )
        if config.predict == "eps" and schedule.alpha[-1] == 0:
            raise ValueError(
                "diffusion.predict is eps, but the schedule has no signal at T: choose v or x0 (on "
                "the path flow, velocity or x0), or turn schedule.zero_terminal_snr off"
            )
        self.schedule = schedule
        self.config = config

    @classmethod
    def from_config(cls, schedule: NoiseConfig, diffusion: DiffusionConfig) -> "Diffusion":
        """Build schedule and diffusion from their configs."""
        return cls(NoiseSchedule.from_config(schedule), diffusion)

    def add_noise(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """xt of a clean x0 (B, ...), noise of its shape, and times (B,). DDPM, eq. (4)."""
        alpha, sigma = (expand(rate, x0) for rate in self.schedule.level(t))
        return alpha * x0 + sigma * eps

    def target(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """What the network should answer at (xt, t)."""
        alpha, sigma = (expand(rate, x0) for rate in self.schedule.level(t))
        if self.config.predict == "eps":
            return eps
        if self.config.predict == "x0":
            return x0
        if self.config.predict == "velocity":
            alpha_rate, sigma_rate = self._rates(t, x0)
            return alpha_rate * x0 + sigma_rate * eps
        return alpha * eps - sigma * x0  # v; Salimans and Ho 2022, section 4

    def _rates(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """How fast alpha and sigma change at times (B,) where all of [0, T] lasts 1; shaped to multiply `like`.

        Along its way xt then moves with alpha_rate x0 + sigma_rate eps: eps - x0 where the path is straight. Lipman
        2023, eq. (23); Albergo 2023, eq. (4).
        """
        return tuple(expand(rate * self.schedule.T, like) for rate in self.schedule.slope(t))

    def interpret(self, out: Tensor, xt: Tensor, t: Tensor) -> Denoised:
        """Read the output at (xt, t), 0 < t <= T, as clean image and noise: `target` solved for both."""
        alpha, sigma = (expand(rate, xt) for rate in self.schedule.level(t))
        if self.config.predict == "eps":
            return Denoised((xt - sigma * out) / alpha, out)
        if self.config.predict == "x0":
            return Denoised(out, (xt - alpha * out) / sigma)
        if self.config.predict == "velocity":
            alpha_rate, sigma_rate = self._rates(t, xt)
            turn = alpha * sigma_rate - sigma * alpha_rate  # 1 where the path is straight, never 0
            return Denoised((sigma_rate * xt - sigma * out) / turn, (alpha * out - alpha_rate * xt) / turn)
        return Denoised(alpha * xt - sigma * out, sigma * xt + alpha * out)

    def weight(self, t: Tensor) -> Tensor:
        """Weight of the loss at times (B,), float32.

        Uniform is DDPM's L_simple, eq. (14). min_snr is Hang 2023, eq. (8): the same (squared) loss on x0
        whatever the network predicts, weighted by SNR = alpha² / sigma² up to a cap, then expressed in the
        target that is predicted. It is 0 where nothing of the signal is left.
        """
        if self.config.weighting == "uniform":
            return torch.ones_like(t, dtype=torch.float32)
        alpha, sigma = self.schedule.level(t)
        snr = alpha**2 / sigma**2
        alpha_rate, sigma_rate = self._rates(t, alpha)
        velocity = (sigma / (alpha * sigma_rate - sigma * alpha_rate)) ** 2
        per_x0 = {"x0": 1.0, "eps": 1 / snr, "v": 1 / (snr + 1), "velocity": velocity}[self.config.predict]
        return (snr.clamp(max=self.config.snr_cap) * per_x0).float()

    def draw_times(self, n: int, device: torch.device) -> Tensor:
        """n times in (0, T] at which to ask the network, as the config wants them spread; (n,) on the device."""
        return self.schedule.shifted(TIMES[self.config.times](self.config, self.schedule.T, n, device))

    def loss(
        self,
        model: Network,
        x0: Tensor,
        cond: dict[str, Tensor],
        *,
        t: Tensor | None = None,
        eps: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The loss of each sample, (B,); the mean over the batch is the caller's. DDPM, algorithm 1.

        Args:
            model: the network.
            x0: clean data (B, ...).
            cond: what the network is told besides.
            t: times (B,) in (0, T]; drawn by `draw_times` where not given.
            eps: noise of x0's shape; drawn where not given.
            mask: (B, ...) broadcastable to x0, the elements that count; all where not given.
        """
        if t is None:
            t = self.draw_times(len(x0), x0.device)
        if eps is None:
            eps = torch.randn_like(x0)
        return self.error(model(self.add_noise(x0, eps, t), t, cond), x0, eps, t, mask)

    def error(self, out: Tensor, x0: Tensor, eps: Tensor, t: Tensor, mask: Tensor | None = None) -> Tensor:
        """The loss of each sample, (B,), for what the network has answered. Arguments as for `loss`."""
        error = ELEMENT_LOSSES[self.config.loss](
            self.predicted(out).to(x0.dtype), self.target(x0, eps, t), reduction="none"
        )
        if mask is None:
            per_sample = error.flatten(1).mean(1)
        else:
            mask = mask.expand_as(error).flatten(1)
            per_sample = (error.flatten(1) * mask).sum(1) / mask.sum(1).clamp(min=1)
        return per_sample * self.weight(t)

    def predicted(self, out: Tensor) -> Tensor:
        """The part of the output that answers to `target`: here, all of it."""
        return out

    def denoiser(self, model: Network, cond: dict[str, Tensor]) -> Denoiser:
        """The network and its condition as a function of (xt, t) alone."""

        def denoise(xt: Tensor, t: Tensor) -> Denoised:
            out = model(xt, t.to(xt.device).expand(len(xt)), cond)
            return self.interpret(out.to(xt.dtype), xt, t)

        return denoise
