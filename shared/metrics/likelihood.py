"""Introduced in task 1; used by task 1.

Bits per dimension of images of 256 levels: by the variational bound, and by the probability-flow ODE.

Both are bounds from above on what a diffusion model needs to say an image, and both say its last step alike: by the
256 levels around what the model makes of x1. They differ in how they count the way from x1 to noise.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from shared.errors import UserError
from shared.schedulers.bound import Bound, bits, level_log_probability
from shared.schedulers.diffusion import Denoiser, expand
from shared.schedulers.noise import NoiseSchedule
from shared.schedulers.samplers import velocity

TOLERANCE = 1e-5  # of the ODE's solver, relative and absolute, as in Song 2021
LOWEST = 1.0  # the time that both begin at: the lowest that the network was asked about in training


@dataclass
class Likelihood:
    """Bits per dimension of n images: the mean, its standard error over images and draws, and its parts."""

    bits_per_dim: float
    error: float
    n: int
    parts: dict[str, float]  # mean bits per dimension of each
    calls: int  # of the network, for each image


def summed(parts: dict[str, Tensor], calls: int) -> Likelihood:
    """Of the parts of each image, (N,), in bits per dimension."""
    total = sum(parts.values())
    error = (total.std() / len(total) ** 0.5).item() if len(total) > 1 else math.nan
    means = {name: part.mean().item() for name, part in parts.items()}
    return Likelihood(total.mean().item(), error, len(total), means, calls)


def joined(batches: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Parts of batches as parts of all."""
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


@torch.no_grad()
def bound_bits(
    denoise: Denoiser, bound: Bound, images: Tensor, terms: int, generator: torch.Generator, batch: int = 250
) -> Likelihood:
    """Bits per dimension by the variational bound. DDPM, eq. (5).

    Args:
        denoise: the model.
        bound: schedule and variance of its steps.
        images: (N, C, H, W) in [-1, 1], of 256 levels; on the model's device.
        terms: of L_1 … L_{T-1}, how many are computed for each image, each drawn from a section of its own; the
            sections are of one length, so that their mean times T - 1 estimates the sum without bias. L_0 and L_T are
            computed for all. T - 1 gives every term.
        generator: of the draws, on the CPU.
        batch: images at a time.

    Returns:
        parts "first" (L_0), "between" and "prior" (L_T).
    """
    between = bound.schedule.T - 1
    terms = min(terms, between)

    def term(x: Tensor, t: Tensor) -> Tensor:
        eps = torch.randn(x.shape, generator=generator).to(x)
        alpha, sigma = (expand(rate, x) for rate in bound.schedule.level(t))
        xt = alpha * x + sigma * eps
        return bound.term(denoise(xt, t), x, xt, t).double().cpu()

    parts = []
    for x in images.split(batch):
        total = torch.zeros(len(x), dtype=torch.float64)
        for k in range(terms):
            u = (k + torch.rand(len(x), generator=generator, dtype=torch.float64)) / terms
            t = 2 + (u * between).floor().clamp(max=between - 1)
            total += term(x, t.to(x.device)) * between / terms
        first = term(x, torch.ones(len(x), dtype=torch.float64, device=x.device))
        parts.append({"first": first, "between": total, "prior": bound.prior(x).cpu()})
    return summed(joined(parts), terms + 1)


def ode_bits(
    denoise: Denoiser, bound: Bound, images: Tensor, generator: torch.Generator, batch: int = 50
) -> Likelihood:
    """Bits per dimension by the probability-flow ODE from x1 to noise. Song 2021 ("Score-based"), section 4.3.

    An image has levels and the ODE a density, so that something has to stand between them. Here it is the model's own
    first step: -log p(x0) ≤ E over q(x1 | x0) of log q(x1 | x0) - log p(x1) - log P(x0 | x1). The paper adds even noise
    of the width of a level in its place.

    Args:
        denoise: the model; it must let gradients through, and is better not clamped, which breaks the ODE.
        bound: schedule, and the variance of the first step.
        images: (N, C, H, W) in [-1, 1], of 256 levels; on the model's device.
        generator: of the draws, on the CPU.
        batch: images at a time; they share the solver's steps.

    Returns:
        parts "first" (the levels given x1, less what x1 says besides) and "flow" (x1).
    """
    parts, calls = [], 0
    one = torch.tensor(LOWEST, dtype=torch.float64, device=images.device)
    for x in images.split(batch):
        alpha, sigma = (rate.to(x) for rate in bound.schedule.level(one))
        x1 = alpha * x + sigma * torch.randn(x.shape, generator=generator).to(x)
        t = one.expand(len(x))
        with torch.no_grad():
            level = level_log_probability(x, *bound.step(denoise(x1, t), x1, t))  # (B, C, H, W)
        entropy = math.log(2 * math.pi * math.e) / 2 + sigma.double().log()  # of q(x1 | x0), each dimension
        log_density, asked = flow_log_density(denoise, bound.schedule, x1, generator)
        per_dim = log_density / x[0].numel() / math.log(2)
        parts.append({"first": (bits(-level) - entropy / math.log(2)).double().cpu(), "flow": -per_dim})
        calls = max(calls, asked)
    return summed(joined(parts), calls)


def flow_log_density(
    denoise: Denoiser, schedule: NoiseSchedule, x: Tensor, generator: torch.Generator, start: float = LOWEST
) -> tuple[Tensor, int]:
    """log p(x) (B,), float64, in nats, of data x (B, ...) at time `start`; and the solver's calls.

    By the change of variables along dx/dt = v(x, t), whose divergence is estimated for each image by one vector of
    signs, kept all along (Hutchinson 1989; Grathwohl 2019, "FFJORD", section 3.1). The estimate has no bias.
    """
    signs = (torch.randint(0, 2, x.shape, generator=generator) * 2 - 1).to(x)
    size = x.numel()

    def slope(t: float, state: np.ndarray) -> np.ndarray:
        xt = torch.from_numpy(state[:size]).to(x).reshape(x.shape)
        moved, divergence = velocity_and_divergence(denoise, schedule, xt, t, signs)
        if not (moved.isfinite().all() and divergence.isfinite().all()):
            raise UserError(f"the model's velocity at t = {t:.4g} is not finite: it cannot be measured by the ODE")
        return np.concatenate([moved.double().cpu().numpy().ravel(), divergence.double().cpu().numpy()])

    state = np.concatenate([x.double().cpu().numpy().ravel(), np.zeros(len(x))])
    solved = solve_ivp(slope, (start, float(schedule.T)), state, rtol=TOLERANCE, atol=TOLERANCE)
    if not solved.success:
        raise UserError(
            f"the probability-flow ODE could not be followed to T ({solved.message}): measure without --ode"
        )
    end = torch.from_numpy(solved.y[:size, -1]).reshape(len(x), -1)
    change = torch.from_numpy(solved.y[size:, -1])
    prior = -(end**2).sum(1) / 2 - end.shape[1] * math.log(2 * math.pi) / 2
    return prior + change, solved.nfev


def velocity_and_divergence(
    denoise: Denoiser, schedule: NoiseSchedule, xt: Tensor, t: float, signs: Tensor
) -> tuple[Tensor, Tensor]:
    """How fast xt (B, ...) moves at time t, and for each image signs · (its derivative · signs), (B,)."""
    time = torch.tensor(t, dtype=torch.float64, device=xt.device)
    with torch.enable_grad():
        asked = xt.detach().requires_grad_()
        moved = velocity(schedule, denoise(asked, time), time)
        (pulled,) = torch.autograd.grad((moved * signs).sum(), asked)
    return moved.detach(), (pulled * signs).flatten(1).sum(1)
