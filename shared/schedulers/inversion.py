"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

The way from data up to noise: DDIM's ODE the other way round, and what can be done with the noise that it ends in.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from shared.schedulers.diffusion import Denoiser
from shared.schedulers.noise import NoiseSchedule
from shared.schedulers.samplers import Step
from shared.schedulers.steps import ddim_step

LOWEST = 1.0  # at t = 0 a denoiser has nothing to say: no noise is there, and none was in training


@torch.no_grad()
def invert(denoise: Denoiser, schedule: NoiseSchedule, x: Tensor, times: Tensor) -> Iterator[Step]:
    """The noise that DDIM with eta 0 would make x (B, ...) of, step by step: `times` as for a sampler, taken upwards.

    DDIM (Song 2021), section 4.3 and eq. (14). Each step goes on with what is predicted where it begins; down again it
    is predicted at the other end, and the difference is the error of reconstruction. It falls with the number of steps.
    At t = 0 x is the clean data itself, and only its noise is asked for, at the lowest time.
    """
    upwards = times.flip(0)
    for n, (s, t) in enumerate(zip(upwards[:-1], upwards[1:], strict=True)):
        denoised = denoise(x, s.clamp(min=LOWEST))
        if s == 0:
            denoised = denoised._replace(x0=x)
        x = ddim_step(schedule, x, denoised, s, t, 0.0, torch.randn_like)
        yield Step(n, t, x, denoised.x0)


def slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """From noise a (B, ...) to noise b along the arc between them: a at share 0, b at 1. DDIM, appendix D.5.

    A straight line would pass through the middle, where there is too little noise for any image. Where a and b point
    the same way the arc is a line.
    """
    flat_a, flat_b = a.flatten(1).double(), b.flatten(1).double()
    cosine = torch.nn.functional.cosine_similarity(flat_a, flat_b, dim=1).clamp(-1, 1)
    angle = torch.arccos(cosine)
    sine = angle.sin()
    line = sine < 1e-6
    safe = torch.where(line, 1.0, sine)
    of_a = torch.where(line, 1 - share, ((1 - share) * angle).sin() / safe)
    of_b = torch.where(line, share, (share * angle).sin() / safe)
    return (of_a[:, None] * flat_a + of_b[:, None] * flat_b).reshape(a.shape).to(a.dtype)


def times_from(schedule: NoiseSchedule, start: float, times: Tensor) -> Tensor:
    """The part of a sampler's times that lies below `start`, in (0, T], with `start` before it.

    SDEdit (Meng 2022), algorithm 1: a picture is given noise of that time, and sampled from there.

    Raises:
        ValueError: `start` is not within (0, T].
    """
    if not 0 < start <= schedule.T:
        raise ValueError(f"the time {start:g} to begin at must be above 0 and at most T = {schedule.T}")
    begin = torch.as_tensor([start], dtype=times.dtype)
    return torch.cat([begin, times[times < start]])
