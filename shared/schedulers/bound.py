"""Introduced in task 1; used by task 1.

The variational bound: how many bits a number of an image costs, at most, under a diffusion model, and training by it.

DDPM, eq. (5), writes the bound as a sum of T + 1 terms,

    L_T = KL(q(xT | x0) || N(0, 1)),   L_{t-1} = KL(q(x_{t-1} | xt, x0) || p(x_{t-1} | xt)),   L_0 = -log p(x0 | x1).

All of them are in bits a dimension here. The last takes x0 to be one of 256 levels, as stored images are.
"""

import math

import torch
from torch import Tensor

from shared.schedulers.config import BoundConfig
from shared.schedulers.diffusion import Denoised, Diffusion, Network, expand
from shared.schedulers.importance import LossAware
from shared.schedulers.noise import NoiseSchedule
from shared.schedulers.steps import Variance, posterior_mean, posterior_variance, step_deviation

HALF_STEP = 1 / 255  # half the distance between two of 256 levels in [-1, 1]


class LearnedVariance(Diffusion):
    """A diffusion whose network has twice as many outputs: the second half says the variance of a step down.

    -1 stands for the smallest, 1 for the largest. Improved DDPM, eq. (15).
    """

    def predicted(self, out: Tensor) -> Tensor:
        """The first half of the channels."""
        return self._halves(out)[0]

    def interpret(self, out: Tensor, xt: Tensor, t: Tensor) -> Denoised:
        """As any diffusion's, and the variance."""
        first, second = self._halves(out)
        return super().interpret(first, xt, t)._replace(log_variance=(second + 1) / 2)

    @staticmethod
    def _halves(out: Tensor) -> tuple[Tensor, Tensor]:
        if out.shape[1] % 2:
            raise ValueError(f"a learned variance needs an even number of output channels, not {out.shape[1]}")
        return tuple(out.chunk(2, dim=1))


def bits(nats: Tensor) -> Tensor:
    """Nats of each element (B, ...) to bits a dimension of each sample, (B,)."""
    return nats.flatten(1).mean(1) / math.log(2)


def normal_kl(mean_a: Tensor, variance_a: Tensor, mean_b: Tensor, variance_b: Tensor) -> Tensor:
    """KL(N(a) || N(b)) of each element, in nats."""
    ratio = variance_a / variance_b
    return (ratio - 1 - ratio.log() + (mean_a - mean_b) ** 2 / variance_b) / 2


def level_log_probability(x0: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """log P of each element's level where N(mean, deviation²) is cut at the middles between 256 levels, in nats.

    The outermost levels take what lies beyond them. DDPM, eq. (13). In float64, and by the nearer tail: where the model
    is sure and wrong, both tails round to the same number.
    """
    x0, mean, deviation = x0.double(), mean.double(), deviation.double()
    above = torch.where(x0 > 1 - HALF_STEP, math.inf, (x0 + HALF_STEP - mean) / deviation)
    below = torch.where(x0 < HALF_STEP - 1, -math.inf, (x0 - HALF_STEP - mean) / deviation)
    right = below > 0  # both in the upper tail: look at the mirror image
    above, below = torch.where(right, -below, above), torch.where(right, -above, below)
    high, low = torch.special.log_ndtr(above), torch.special.log_ndtr(below)
    return high + torch.log1p(-(low - high).exp())


class Bound:
    """The terms of the bound, for a schedule and a variance of its steps: of t - 1 given t, one level at a time."""

    def __init__(self, schedule: NoiseSchedule, variance: Variance):
        """ "small", "large" or "learned": see `steps.py`."""
        self.schedule, self.variance = schedule, variance

    def prior(self, x0: Tensor) -> Tensor:
        """L_T of images x0 (B, ...): (B,), in bits a dimension. Nothing can be learned of it."""
        alpha, sigma = (expand(rate, x0.double()) for rate in self.schedule.level(self.schedule.T))
        zero, one = x0.new_zeros((), dtype=torch.float64), x0.new_ones((), dtype=torch.float64)
        return bits(normal_kl(alpha * x0.double(), sigma**2, zero, one))

    def term(self, denoised: Denoised, x0: Tensor, xt: Tensor, t: Tensor) -> Tensor:
        """L_{t-1} at levels t = 1 … T, (B,), of images x0 seen as xt (B, ...): (B,), in bits a dimension."""
        mean, deviation = self.step(denoised, xt, t)
        before = (t - 1).clamp(min=1)  # at t = 1 there is no such term, and its variance would be 0
        known = posterior_mean(self.schedule, xt, x0, t, t - 1)
        small = expand(posterior_variance(self.schedule, t.clamp(min=2), before)[1], xt)
        divergence = normal_kl(known, small, mean, deviation**2)
        first = expand(t == 1, xt) > 0
        return bits(torch.where(first, -level_log_probability(x0, mean, deviation).to(xt.dtype), divergence))

    def step(self, denoised: Denoised, xt: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of p(x_{t-1} | xt), at levels t = 1 … T.

        The smallest variance at t = 1 is 0, as x0 is known then; that of t = 2 stands for it (Improved DDPM's code).
        """
        large, small = posterior_variance(self.schedule, t, t - 1)
        second = torch.full_like(t, min(2, self.schedule.T))
        small = torch.where(t == 1, posterior_variance(self.schedule, second, second - 1)[1], small)
        mean = posterior_mean(self.schedule, xt, denoised.x0, t, t - 1)
        return mean, step_deviation(self.variance, denoised, small, large, xt).expand_as(mean)


class BoundLoss:
    """A training loss that is the bound, or L_simple with a share of it: in the place of `Diffusion.loss`."""

    def __init__(self, diffusion: Diffusion, config: BoundConfig):
        """Of a diffusion, and how much the bound is to count.

        Raises:
            ValueError: the bound is asked for at times between the levels, or is to teach a variance that is fixed.
        """
        if diffusion.config.times != "levels":
            raise ValueError(
                f"bound.objective {config.objective} asks about steps from level to level: "
                f"diffusion.times must be levels, not {diffusion.config.times}"
            )
        if getattr(diffusion.schedule, "shift", 1) != 1:
            raise ValueError("bound.objective asks about whole levels, which schedule.shift moves: make it 1")
        if config.objective == "hybrid" and config.variance != "learned":
            raise ValueError("bound.objective hybrid teaches a variance: set bound.variance learned, or choose vlb")
        if diffusion.schedule.T < 2:
            raise ValueError(
                "bound.objective needs schedule.T of 2 or more: with one level there is no step between two"
            )
        self.diffusion, self.config = diffusion, config
        self.bound = Bound(diffusion.schedule, config.variance)
        self.times = LossAware(diffusion.schedule.T) if config.loss_aware else None

    def __call__(self, model: Network, x0: Tensor, cond: dict[str, Tensor]) -> Tensor:
        """The loss of each sample, (B,), of clean data x0 (B, ...). Improved DDPM, eq. (16) and section 3.3."""
        if self.times is None:
            t, weight = self.diffusion.draw_times(len(x0), x0.device), 1.0
        else:
            t, weight = self.times.draw(len(x0))
        loss = self.at(model, x0, cond, t, torch.randn_like(x0))
        if self.times is not None:
            self.times.note(t, loss.detach())
        return weight * loss

    def at(self, model: Network, x0: Tensor, cond: dict[str, Tensor], t: Tensor, eps: Tensor) -> Tensor:
        """The loss of each sample at levels t (B,), with noise eps. The bound's share is that of all T terms."""
        xt = self.diffusion.add_noise(x0, eps, t)
        out = model(xt, t, cond)
        denoised = self.diffusion.interpret(out.to(xt.dtype), xt, t)
        if self.config.objective == "vlb":
            return self.whole(denoised, x0, xt, t)
        simple = self.diffusion.error(out, x0, eps, t)
        if self.config.objective == "simple":
            return simple
        frozen = denoised._replace(x0=denoised.x0.detach(), eps=denoised.eps.detach())  # the bound teaches the variance
        return simple + self.config.share * self.whole(frozen, x0, xt, t)

    def whole(self, denoised: Denoised, x0: Tensor, xt: Tensor, t: Tensor) -> Tensor:
        """The sum of all T terms, estimated by the one at t: (B,), in bits a dimension."""
        return self.diffusion.schedule.T * self.bound.term(denoised, x0, xt, t)
