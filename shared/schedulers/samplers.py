"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

Samplers: from noise to data with a denoiser. Each is a generator that yields after every step, so that a
progress bar, a film of the trajectory or an early stop is the caller's `for` loop. A sampler sees a denoiser
and a schedule, nothing else: it never hears of networks, classes, text or latents.

Times are float64 on the CPU, rates float64 where the schedule is; only what multiplies an image is turned
into the image's type. alpha may be 0 at T, and nothing divides by it there.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from shared.schedulers.config import SamplingConfig
from shared.schedulers.diffusion import Denoised, Denoiser, expand
from shared.schedulers.noise import NoiseSchedule
from shared.schedulers.steps import Noise, Variance, ddim_step, ddpm_step


class Step(NamedTuple):
    """A sampler has arrived at time `t` with `x`; `x0` is what it took for the clean data on the way."""

    n: int
    t: Tensor
    x: Tensor
    x0: Tensor


def clamped(denoise: Denoiser, schedule: NoiseSchedule, limit: float = 1.0) -> Denoiser:
    """Keep x0 within [-limit, limit], and eps what it must then be for xt = alpha x0 + sigma eps to hold.

    For pixels, whose range is known. Without re-deriving eps the two would contradict each other, and a step
    that uses both (ddim) would drift away from one that uses only x0 (ddpm).
    """

    def clamped_denoise(xt: Tensor, t: Tensor) -> Denoised:
        denoised = denoise(xt, t)
        x0 = denoised.x0.clamp(-limit, limit)
        alpha, sigma = (expand(rate, xt) for rate in schedule.level(t))
        return denoised._replace(x0=x0, eps=(xt - alpha * x0) / sigma)

    return clamped_denoise


# --- the samplers -------------------------------------------------------------------------------------------


@torch.no_grad()
def ddpm(
    denoise: Denoiser,
    schedule: NoiseSchedule,
    x: Tensor,
    times: Tensor,
    *,
    variance: Variance = "small",
    noise: Noise = torch.randn_like,
) -> Iterator[Step]:
    """Ancestral sampling. DDPM, algorithm 2, over any falling `times` that end at 0."""
    for n, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
        denoised = denoise(x, t)
        x = ddpm_step(schedule, x, denoised, t, s, variance, noise)
        yield Step(n, s, x, denoised.x0)


@torch.no_grad()
def ddim(
    denoise: Denoiser,
    schedule: NoiseSchedule,
    x: Tensor,
    times: Tensor,
    *,
    eta: float = 0.0,
    noise: Noise = torch.randn_like,
) -> Iterator[Step]:
    """DDIM (Song 2021): at eta = 0 the first-order solver of the ODE, at eta = 1 with DDPM's variance."""
    for n, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
        denoised = denoise(x, t)
        x = ddim_step(schedule, x, denoised, t, s, eta, noise)
        yield Step(n, s, x, denoised.x0)


def euler_ancestral(
    denoise: Denoiser,
    schedule: NoiseSchedule,
    x: Tensor,
    times: Tensor,
    *,
    eta: float = 1.0,
    noise: Noise = torch.randn_like,
) -> Iterator[Step]:
    """Euler's step to a lower noise level than asked for, then fresh noise up to it (Karras 2022's notation).

    In x / alpha it goes down to sigma_down² = sigma_s² - sigma_up² and up by sigma_up² = eta² sigma_s²
    (sigma_t² - sigma_s²) / sigma_t². Multiply by alpha_s, put alpha² + sigma² = 1, and it is DDIM's step with
    the same eta: two names for one sampler. So here it is one; a test holds it against a library that writes
    it the other way.
    """
    return ddim(denoise, schedule, x, times, eta=eta, noise=noise)


@torch.no_grad()
def heun(
    denoise: Denoiser, schedule: NoiseSchedule, x: Tensor, times: Tensor, *, noise: Noise = torch.randn_like
) -> Iterator[Step]:
    """Second order: try Euler's step, then go with the mean of the slopes at both ends. EDM, algorithm 1.

    In y = x / alpha over r = sigma / alpha the ODE is dy / dr = eps, EDM's eq. (3). Two calls of the denoiser
    a step. `noise` is not used.

    One call, so Euler's step, in the last (at t = 0 there is no noise to predict), and where the signal grows
    tenfold or more at once: out of alpha = 0, where r is infinite, and out of the cosine schedule's last
    level, where r falls from 20,000 to 30 in a step. That is too long for a mean of slopes; EDM starts at 80.
    """
    for n, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule.level(t), schedule.level(s)
        here = denoise(x, t)
        tried = ddim_step(schedule, x, here, t, s, 0.0, noise)
        if s > 0 and alpha_s < 10 * alpha_t:
            there = denoise(tried, s)
            length = sigma_s - alpha_s * sigma_t / alpha_t  # alpha_s (r_s - r_t)
            tried = tried + length.to(x) * (there.eps - here.eps) / 2
        x = tried
        yield Step(n, s, x, here.x0)


@torch.no_grad()
def dpm_solver_pp(
    denoise: Denoiser, schedule: NoiseSchedule, x: Tensor, times: Tensor, *, noise: Noise = torch.randn_like
) -> Iterator[Step]:
    """DPM-Solver++ (2M): second order, one call a step, from the last two predictions. Lu 2022, algorithm 2.

    The first step has no previous prediction and the last ends at infinite lambda = log(alpha / sigma): both
    are of first order. `noise` is not used.
    """
    lambdas = [alpha.log() - sigma.log() for alpha, sigma in map(schedule.level, times)]
    previous = None
    for n, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule.level(t), schedule.level(s)
        x0 = denoise(x, t).x0
        estimate = x0
        # Where alpha was 0 at the previous time, lambda was -inf, and its prediction's share is nothing.
        if previous is not None and s > 0:
            half_ratio = (lambdas[n + 1] - lambdas[n]) / (lambdas[n] - lambdas[n - 1]) / 2  # 1 / (2 r)
            estimate = x0 + half_ratio.to(x) * (x0 - previous)
        # sigma_s / sigma_t x - alpha_s (exp(-h) - 1) D, where exp(-h) = alpha_t sigma_s / (sigma_t alpha_s)
        x = (sigma_s / sigma_t).to(x) * x + (alpha_s - sigma_s * alpha_t / sigma_t).to(x) * estimate
        previous = x0
        yield Step(n, s, x, x0)


def velocity(schedule: NoiseSchedule, denoised: Denoised, t: Tensor) -> Tensor:
    """How fast xt moves with t, by what the denoiser says of it: alpha' x0 + sigma' eps. Lipman 2023, eq. (23)."""
    alpha_rate, sigma_rate = schedule.slope(t)
    return alpha_rate.to(denoised.x0) * denoised.x0 + sigma_rate.to(denoised.x0) * denoised.eps


@torch.no_grad()
def flow_euler(
    denoise: Denoiser, schedule: NoiseSchedule, x: Tensor, times: Tensor, *, noise: Noise = torch.randn_like
) -> Iterator[Step]:
    """Straight on with the velocity of the moment: Euler's method in t. `noise` is not used.

    On the straight path of flow matching this is ddim; on another it is not, as alpha and sigma bend between t and s.
    The last step ends at x0 itself: on the straight path that is where the velocity leads.
    """
    for n, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
        here = denoise(x, t)
        x = x + (s - t).to(x) * velocity(schedule, here, t) if s > 0 else here.x0
        yield Step(n, s, x, here.x0)


@torch.no_grad()
def flow_heun(
    denoise: Denoiser, schedule: NoiseSchedule, x: Tensor, times: Tensor, *, noise: Noise = torch.randn_like
) -> Iterator[Step]:
    """Heun's method in t: second order, two calls a step but for the last. `noise` is not used.

    The last step ends at x0, as Euler's: at t = 0 no noise is left to say anything of. Karras 2022, algorithm 1, in t.
    """
    for n, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
        here = denoise(x, t)
        if s > 0:
            first = velocity(schedule, here, t)
            second = velocity(schedule, denoise(x + (s - t).to(x) * first, s), s)
            x = x + (s - t).to(x) * (first + second) / 2
        else:
            x = here.x0
        yield Step(n, s, x, here.x0)


@torch.no_grad()
def consistency(
    denoise: Denoiser, schedule: NoiseSchedule, x: Tensor, times: Tensor, *, noise: Noise = torch.randn_like
) -> Iterator[Step]:
    """To the clean data at once, and back to the next time with fresh noise. Song 2023, algorithm 1.

    For a denoiser that was distilled to say where the whole way ends; one that was not says the mean of all ends.
    """
    for n, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
        x0 = denoise(x, t).x0
        alpha_s, sigma_s = schedule.level(s)
        x = alpha_s.to(x) * x0 + sigma_s.to(x) * noise(x) if s > 0 else x0
        yield Step(n, s, x, x0)


SAMPLERS = {
    "ddpm": lambda config: (ddpm, {"variance": "small"}),
    "ddpm_large": lambda config: (ddpm, {"variance": "large"}),
    "ddpm_learned": lambda config: (ddpm, {"variance": "learned"}),
    "ddim": lambda config: (ddim, {"eta": config.eta}),
    "euler_ancestral": lambda config: (euler_ancestral, {}),
    "heun": lambda config: (heun, {}),
    "dpm_solver_pp": lambda config: (dpm_solver_pp, {}),
    "flow_euler": lambda config: (flow_euler, {}),
    "flow_heun": lambda config: (flow_heun, {}),
    "consistency": lambda config: (consistency, {}),
}


def sampler_steps(
    denoise: Denoiser,
    schedule: NoiseSchedule,
    x: Tensor,
    config: SamplingConfig,
    noise: Noise = torch.randn_like,
    times: Tensor | None = None,
) -> Iterator[Step]:
    """Run the sampler that a config names, from noise x (B, ...) at the first of its times.

    `times` are other ones than the config's, falling to 0: from the middle, say.

    Raises:
        ValueError: more steps than the schedule has levels, or an eta outside [0, 1].
    """
    if not 0 <= config.eta <= 1:
        raise ValueError(f"eta is {config.eta}; it must lie between 0 (deterministic) and 1 (DDPM's noise)")
    times = schedule.times(config.steps, config.spacing) if times is None else times
    if config.clamp:
        denoise = clamped(denoise, schedule)
    sampler, options = SAMPLERS[config.sampler](config)
    return sampler(denoise, schedule, x, times, noise=noise, **options)
