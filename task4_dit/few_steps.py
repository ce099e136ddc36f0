"""Few steps instead of many: what a student learns from a trained model, by consistency or by reflow.

A sampler takes many steps because the way from noise to data bends: each prediction is right for a moment only. Two
remedies. *Consistency distillation*: teach a network to say, anywhere on a way, where that way ends. *Reflow*: let the
teacher draw, tie each noise to what came of it, and train on these pairs; ways between them cross less, and are
straighter. Neither needs a new network, schedule or diffusion: a student is a model like its teacher.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from shared.conditions.said import Cond
from shared.datasets.images import Tensors
from shared.generation import batch_seeds, computing
from shared.schedulers.config import SamplingConfig
from shared.schedulers.diffusion import Denoiser, Diffusion
from shared.schedulers.samplers import clamped, ddim_step, sampler_steps
from task4_dit.model import Model


def pseudo_huber(difference: Tensor) -> Tensor:
    """The length of each sample's difference (B, …), rounded at 0; (B,). Song and Dhariwal 2024, eq. (8)."""
    flat = difference.flatten(1)
    c = 0.00054 * flat.shape[1] ** 0.5
    return (flat.square().sum(dim=1) + c**2).sqrt() - c


def consistency_loss(
    diffusion: Diffusion, student: Denoiser, teacher: Denoiser, x0: Tensor, eps: Tensor, times: Tensor, k: Tensor
) -> Tensor:
    """How much two neighbours on one way disagree about its end, (B,). Song 2023, algorithm 2.

    The noisier neighbour lies at times[k]; one step of the teacher leads from it to the other, at times[k + 1], whose
    answer is the target. At the end of the way the answer is the place itself: from there, truth spreads to the noise.
    The target is the student's own, without a gradient; an average of its weights there only slows this down (Song and
    Dhariwal 2024, section 3.2).

    Args:
        diffusion: the noise.
        student: the denoiser that is trained; of it only x0 is used.
        teacher: a trained one, guidance and all.
        x0: clean data (B, …).
        eps: noise of x0's shape.
        times: of the teacher's steps, (N + 1,), falling from T to 0.
        k: which of them, (B,), from 0 to N - 1.
    """
    t, s = times[k], times[k + 1]  # (B,)
    xt = diffusion.add_noise(x0, eps, t)
    with torch.no_grad():
        step = [time.reshape(-1, *(1,) * (x0.ndim - 1)) for time in (t, s)]  # (B, 1, …)
        xs = ddim_step(diffusion.schedule, xt, teacher(xt, t), *step, 0.0, torch.randn_like)
        there = student(xs, s.clamp(min=times[-2]))  # at 0 there is nothing to ask: replaced below
        target = torch.where(step[1] > 0, there.x0, xs)
    return pseudo_huber(student(xt, t).x0 - target)


def taught_by(teacher: Model, scale: float | None) -> Callable[[Cond], Denoiser]:
    """The teacher as a denoiser, for a batch's condition: guided by `scale` (its own where None), and kept in range."""
    config = teacher.config
    network = computing(teacher.network, config.sampling.precision, next(teacher.network.parameters()).device)
    guidance = config.guidance if scale is None else replace(config.guidance, scale=scale)

    def denoiser(cond: Cond) -> Denoiser:
        denoise = teacher.guide(network, cond, guidance)
        return clamped(denoise, teacher.diffusion.schedule) if config.sampling.clamp else denoise

    return denoiser


@torch.no_grad()
def draw_pairs(
    teacher: Model, n: int, cond: Cond, steps: int, scale: float | None, seed: int, batch: int = 250
) -> tuple[Tensor, Tensor]:
    """Noise, and what the teacher makes of it; both (n, C, H, W) on the CPU. Liu 2023, eq. (3).

    Args:
        teacher: a trained model.
        n: samples.
        cond: of them.
        steps: of its sampler.
        scale: of its guidance; its own where None.
        seed: of the noise.
        batch: samples at a time.
    """
    schedule, device = teacher.diffusion.schedule, next(teacher.network.parameters()).device
    denoiser, first = taught_by(teacher, scale), 0
    config = SamplingConfig(sampler="ddim", steps=steps, clamp=False)  # the denoiser is in range where it is to be
    noises, ends = [], []
    for count, own_seed in batch_seeds(n, batch, seed):
        own = {name: value[first : first + count].to(device) for name, value in cond.items()}
        noise = torch.randn(count, *teacher.network.shape, generator=torch.Generator().manual_seed(own_seed))
        *_, last = sampler_steps(denoiser(own), schedule, noise.to(device), config)
        noises.append(noise)
        ends.append(last.x.cpu())
        first += count
    return torch.cat(noises), torch.cat(ends).contiguous()  # patches of 1×1 leave them in another order of memory


def paired(noise: Tensor, ends: Tensor, cond: Cond) -> Tensors:
    """The data set of reflow: what the teacher made, told what it was made of as "eps"."""
    return Tensors(ends, {**cond, "eps": noise})
