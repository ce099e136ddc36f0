"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

The noise schedule: how much signal and how much noise there is at time t,

    xt = alpha(t) x0 + sigma(t) eps,        eps ~ N(0, 1),

with alpha² + sigma² = 1 for the schedules of DDPM and its followers, and alpha + sigma = 1 for flow matching.
Time is a float in [0, T]: t = 0 is clean, t = T is noise. The papers count noise levels 1 … T, code often
counts 0 … T - 1; here level t of the papers is simply t, and t = 0 is the image itself.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from shared.schedulers.config import NoiseConfig, Spacing


class Level(NamedTuple):
    """Signal and noise at a time (or, from `slope`, how fast each changes). The time's shape, float64."""

    alpha: Tensor
    sigma: Tensor


# --- the betas of the papers: variance added between level t - 1 and level t, for t = 1 … T -----------------


def linear_betas(config: NoiseConfig) -> Tensor:
    """Evenly spaced betas. DDPM (Ho 2020), section 4."""
    return torch.linspace(config.beta_start, config.beta_end, config.T, dtype=torch.float64)


def quadratic_betas(config: NoiseConfig) -> Tensor:
    """Evenly spaced roots of betas, "scaled linear" elsewhere; that of latent diffusion (Rombach 2022)."""
    return torch.linspace(config.beta_start**0.5, config.beta_end**0.5, config.T, dtype=torch.float64) ** 2


def sigmoid_betas(config: NoiseConfig) -> Tensor:
    """Betas along a logistic curve from -6 to 6, as in GeoDiff (Xu 2022)."""
    curve = torch.sigmoid(torch.linspace(-6, 6, config.T, dtype=torch.float64))
    return curve * (config.beta_end - config.beta_start) + config.beta_start


def betas_of(alpha_bar: Callable[[Tensor], Tensor], T: int) -> Tensor:
    """Betas that make alpha² follow alpha_bar over [0, 1], at most 0.999. Improved DDPM (Nichol 2021)."""
    curve = alpha_bar(torch.arange(T + 1, dtype=torch.float64) / T)
    return (1 - curve[1:] / curve[:-1]).clamp(max=0.999)


def cosine_betas(config: NoiseConfig) -> Tensor:
    """alpha_bar falls as a squared cosine, gently at both ends. Improved DDPM, eq. (17) with s = 0.008."""
    return betas_of(lambda u: torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2, config.T)


def sigmoid_alpha_bar_betas(config: NoiseConfig) -> Tensor:
    """alpha_bar falls as a logistic curve from -3 to 3. Chen 2023 ("… importance of noise scheduling")."""
    start, end = torch.sigmoid(torch.tensor([-3.0, 3.0], dtype=torch.float64))
    return betas_of(lambda u: ((end - torch.sigmoid(6 * u - 3)) / (end - start)).clamp(min=1e-9), config.T)


BETAS = {
    "linear": linear_betas,
    "quadratic": quadratic_betas,
    "cosine": cosine_betas,
    "sigmoid": sigmoid_betas,
    "sigmoid_alpha_bar": sigmoid_alpha_bar_betas,
}


def rescale_to_zero_snr(alpha: Tensor) -> Tensor:
    """Shift and scale the (T,) alphas: the last becomes exactly 0, the first stays. Lin 2024, alg. 1."""
    first, last = alpha[0], alpha[-1]
    return (alpha - last) * first / (first - last)


class NoiseSchedule(nn.Module):
    """alpha and sigma as tables over t = 0 … T, and smooth between the integers.

    The tables are float64: at small t, sigma² = 1 - alpha² has lost all its digits in float32. They are
    buffers, so that `.to(device)` moves them, but not part of a checkpoint: the config makes them again.
    """

    def __init__(self, alpha: Tensor, sigma: Tensor):
        """Take the rates at t = 1 … T, each (T,) float64; t = 0 is added here.

        Raises:
            ValueError: the rates are not variance preserving, or signal does not fall with t.
        """
        super().__init__()
        alpha = torch.cat([alpha.new_ones(1), alpha])
        sigma = torch.cat([sigma.new_zeros(1), sigma])
        if not torch.allclose(alpha**2 + sigma**2, torch.ones_like(alpha)) or (alpha.diff() >= 0).any():
            raise ValueError("a noise schedule needs alpha² + sigma² = 1 and an alpha that falls with t")
        self.register_buffer("alpha", alpha, persistent=False)
        self.register_buffer("sigma", sigma, persistent=False)
        # alpha = cos(angle), sigma = sin(angle): between two integers the angle is interpolated, so that
        # alpha² + sigma² = 1 holds everywhere.
        self.register_buffer("angle", torch.atan2(sigma, alpha), persistent=False)

    @classmethod
    def from_config(cls, config: NoiseConfig) -> "NoiseSchedule":
        """Build the schedule that a config names.

        Raises:
            ValueError: T is below 1 (below 2 with zero terminal SNR), a beta lies outside (0, 1), or times are to be
                shifted where the path is not straight.
        """
        least = 2 if config.zero_terminal_snr else 1
        if config.T < least:
            raise ValueError(f"schedule.T is {config.T}; it must be at least {least}")
        if config.name == "flow":
            return Flow(config.T, config.shift)
        if config.shift != 1:
            raise ValueError(f"schedule.shift is {config.shift:g}, but it is for the schedule flow: leave it out")
        betas = BETAS[config.name](config)
        if not ((betas > 0) & (betas < 1)).all():
            raise ValueError("schedule: every beta must lie between 0 and 1; check beta_start and beta_end")
        # log alpha² is a sum, and 1 - alpha² = -expm1 of it: no digits are lost where alpha is close to 1.
        log_alpha_bar = torch.log1p(-betas).cumsum(0)
        alpha, sigma = (log_alpha_bar / 2).exp(), (-torch.expm1(log_alpha_bar)).sqrt()
        if config.zero_terminal_snr:
            alpha = rescale_to_zero_snr(alpha)
            sigma = (1 - alpha**2).sqrt()
        return cls(alpha, sigma)

    @property
    def T(self) -> int:
        """Number of noise levels."""
        return len(self.alpha) - 1

    def _bracket(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The table row below each t, and how far t is from it towards the next."""
        t = torch.as_tensor(t, dtype=torch.float64, device=self.alpha.device)
        row = t.floor().clamp(0, self.T - 1).long()
        return row, t - row

    def level(self, t: Tensor | float) -> Level:
        """Signal and noise rate at times t in [0, T], any shape. At an integer exactly the table's entry."""
        row, part = self._bracket(t)
        angle = torch.lerp(self.angle[row], self.angle[row + 1], part)
        alpha = torch.where(part == 0, self.alpha[row], torch.where(part == 1, self.alpha[row + 1], angle.cos()))
        sigma = torch.where(part == 0, self.sigma[row], torch.where(part == 1, self.sigma[row + 1], angle.sin()))
        return Level(alpha, sigma)

    def slope(self, t: Tensor | float) -> Level:
        """d alpha / dt and d sigma / dt at times t in [0, T]; at an integer, those of the interval above."""
        row, _ = self._bracket(t)
        speed = self.angle[row + 1] - self.angle[row]
        alpha, sigma = self.level(t)
        return Level(-sigma * speed, alpha * speed)

    def shifted(self, t: Tensor) -> Tensor:
        """Times in [0, T], moved to where the schedule wants them drawn and visited: here, left as they are."""
        return t

    def times(self, steps: int, spacing: Spacing = "trailing") -> Tensor:
        """The times that `steps` steps visit: (steps + 1,) float64 on the CPU, falling, the last 0.

        leading, linspace and trailing are those of Lin 2024, table 2 (only linspace and trailing start at T,
        where training put pure noise); quadratic is DDIM's (Song 2021, app. D.2), dense near the clean end.

        Raises:
            ValueError: `steps` is not within 1 … T.
        """
        if not 1 <= steps <= self.T:
            raise ValueError(f"{steps} sampling steps, but the schedule has T = {self.T}: choose 1 to {self.T}")
        i = torch.arange(steps, dtype=torch.float64)
        times = SPACINGS[spacing](i, steps, self.T).flip(0)
        return torch.cat([self.shifted(times), times.new_zeros(1)])


class Flow(NoiseSchedule):
    """The straight path of rectified flow (Liu 2023) and flow matching (Lipman 2023, with no noise left at t = 0):

        alpha = 1 - t / T,        sigma = t / T.

    Its velocity, eps - x0, is the same all along. At T there is noise alone.
    """

    def __init__(self, T: int, shift: float = 1.0):
        """Of T levels, as many as the network's times are to reach; `shift` is that of `shifted`."""
        nn.Module.__init__(self)  # the tables of the others are none of this one's
        sigma = torch.arange(T + 1, dtype=torch.float64) / T
        self.register_buffer("alpha", 1 - sigma, persistent=False)
        self.register_buffer("sigma", sigma, persistent=False)
        self.shift = shift

    def level(self, t: Tensor | float) -> Level:
        """Signal and noise rate at times t in [0, T], any shape."""
        sigma = torch.as_tensor(t, dtype=torch.float64, device=self.alpha.device) / self.T
        return Level(1 - sigma, sigma)

    def slope(self, t: Tensor | float) -> Level:
        """d alpha / dt and d sigma / dt: the same at all times, of t's shape."""
        speed = torch.full_like(self.level(t).sigma, 1 / self.T)
        return Level(-speed, speed)

    def shifted(self, t: Tensor) -> Tensor:
        """Times at which sigma / alpha is `shift` times what it was. Esser 2024 (Stable Diffusion 3), eq. (23).

        More pixels of the same picture drown in noise later: each says less. With n times the pixels, the root of n
        keeps what can be told of a plain picture at each time.
        """
        part = t / self.T
        shift = torch.full_like(part, self.shift)
        return t * (shift / torch.ones_like(part).lerp(shift, part))  # T stays T, as above it alpha would be negative


def between(first: float, last: float, i: Tensor, steps: int) -> Tensor:
    """`steps` evenly spaced values from first to last; the last alone where there is one step."""
    return last - (last - first) * (steps - 1 - i) / max(steps - 1, 1)


# Each gives the rising times of the steps i = 0 … steps - 1.
SPACINGS = {
    "leading": lambda i, steps, T: 1 + i * (T // steps),
    "linspace": lambda i, steps, T: 1 + between(0, T - 1, i, steps).round(),
    "trailing": lambda i, steps, T: ((i + 1) * T / steps).round(),
    # Not rounded: DDIM's own rounding visits the same level twice when there are many steps.
    "quadratic": lambda i, steps, T: 1 + between(0, (0.8 * T) ** 0.5, i, steps) ** 2 * (1 - 1 / (0.8 * T)),
}
