"""The hidden part of a picture, painted: by any model with RePaint, or by one that was trained to be told the rest.

A mask is bool, true where the picture is known; what is known stands in the result bit for bit as it was given.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from shared.conditions.said import Cond
from shared.errors import UserError
from shared.generation import generated
from shared.schedulers.diffusion import Denoiser
from shared.schedulers.repaint import calls, down_step, repaint, resampled
from shared.schedulers.samplers import Step, clamped
from shared.schedulers.steps import Noise
from task3_conditional.given import masked
from task3_conditional.model import Model, batches_of
from task3_conditional.redrawing import check_free, placed


def checked(mask: Tensor, picture: Tensor) -> Tensor:
    """A mask (n or 1, 1, H, W) as one for each of the pictures (n, C, H, W), on their device.

    Raises:
        UserError: it is no such mask, of another size, or hides nothing or everything.
    """
    if mask.dtype != torch.bool or mask.ndim != 4 or mask.shape[1] != 1:
        shown = f"{mask.dtype} of shape {tuple(mask.shape)}"
        raise UserError(f"the mask is {shown}: bool (n, 1, H, W) is needed, true where the picture is known")
    n, _, height, width = picture.shape
    if mask.shape[2:] != (height, width):
        size = f"{mask.shape[3]}×{mask.shape[2]}"
        raise UserError(f"the mask is {size} pixels, and the picture {width}×{height}: bring them to one size")
    if len(mask) not in (1, n):
        raise UserError(f"{n} pictures need as many masks, or one, and there are {len(mask)}")
    for i, known in enumerate(mask.flatten(1).cpu()):
        which = "the mask" if len(mask) == 1 else f"mask {i}"
        if known.all():
            raise UserError(f"{which} hides nothing: there is nothing to paint; mark as unknown what is to be painted")
        if not known.any():
            raise UserError(f"{which} hides everything: nothing is known; mark a part as known, or sample")
    return mask.to(picture.device).expand(n, 1, height, width)


# --- RePaint ------------------------------------------------------------------------------------------------------


def inpaint(
    model: Model,
    cond: Cond,
    picture: Tensor,
    mask: Tensor,
    seed: int = 0,
    *,
    resample: int = 10,
    jump: int = 10,
    **options: Any,
) -> Tensor:
    """Pictures with what is hidden painted by RePaint, (n, C, H, W) in [-1, 1]. For any model; see `repaint.py`.

    Args:
        model: the model.
        cond: of n samples, from `Model.told`.
        picture: (n or 1, C, H, W) in [-1, 1]; what is hidden of it does not matter, if it is in there too.
        mask: bool (n or 1, 1, H, W), true where it is known.
        seed: of the noise.
        resample: how often each stretch of the way is gone through; 1 is replacement alone, the cost grows with it.
        jump: the length of a stretch in steps.
        options: as for `Model.steps`; the sampler is ddim, ddpm or another whose steps stand by themselves.

    Raises:
        UserError: picture or mask do not fit the model or each other, a mask hides nothing or everything, there is no
            such sampler or no room for a jump, the model cannot draw without being told a picture, or as for
            `Model.steps`.
    """
    picture = placed(model, cond, picture)
    mask, parts = checked(mask, picture), []
    for part, own, own_seed in batches_of(cond, seed):
        *_, last = inpainting(model, own, picture[part], mask[part], own_seed, resample=resample, jump=jump, **options)
        parts.append(last.x.clamp(-1, 1))
    return torch.cat(parts)


def inpainting(
    model: Model,
    cond: Cond,
    picture: Tensor,
    mask: Tensor,
    seed: int = 0,
    *,
    resample: int = 10,
    jump: int = 10,
    **options: Any,
) -> Iterator[Step]:
    """As `inpaint`, step by step: a generator of as many `Step` as `steps_of` says."""
    check_free(model)
    config, guide = model.asking(cond, **options)
    picture = placed(model, cond, picture)
    mask, schedule = checked(mask, picture), model.diffusion.schedule

    def way(denoise: Denoiser, noise: Noise) -> Iterator[Step]:
        times = resampled(schedule.times(config.steps, config.spacing), resample, jump)
        denoise = clamped(denoise, schedule) if config.clamp else denoise
        start = noise(picture)
        return repaint(denoise, schedule, start, times, picture, mask, step=down_step(config), noise=noise)

    return generated(model.network, model.diffusion, config, seed, guide, way)


def steps_of(model: Model, steps: int | None = None, resample: int = 10, jump: int = 10) -> int:
    """How often RePaint asks the model, in so many sampling steps (those of the run where None): its cost.

    Raises:
        UserError: there are not so many levels, or no room for a jump.
    """
    sampling = model.config.sampling
    try:
        return calls(
            resampled(model.diffusion.schedule.times(steps or sampling.steps, sampling.spacing), resample, jump)
        )
    except ValueError as error:
        raise UserError(str(error)) from None


# --- by a model that is told --------------------------------------------------------------------------------------


def fill(model: Model, cond: Cond, picture: Tensor, mask: Tensor, seed: int = 0, **options: Any) -> Tensor:
    """As `inpaint`, by a model that is told the masked picture (given.kind mask): in as many calls as sampling takes.

    Raises:
        UserError: it is a model that is told none, or as for `inpaint`.
    """
    if model.config.given.kind != "mask":
        raise UserError(f"{model.source} is told no masked picture: paint with RePaint, or train with given.kind mask")
    picture = placed(model, cond, picture)
    mask = checked(mask, picture)
    sampled = model.sample({**cond, "image": masked(picture, mask)}, seed, **options)
    return torch.where(mask, picture, sampled)


def on_canvas(picture: Tensor, size: tuple[int, int], place: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
    """A picture (n, C, h, w) on a larger canvas (n, C, H, W) of grey, and the mask (1, 1, H, W) of where it lies.

    Args:
        picture: in [-1, 1].
        size: (H, W).
        place: (top, left) of its upper left corner on the canvas, the middle where not given.

    Raises:
        UserError: it does not lie on the canvas as a whole.
    """
    height, width = picture.shape[2:]
    top, left = place or ((size[0] - height) // 2, (size[1] - width) // 2)
    if min(top, left) < 0 or top + height > size[0] or left + width > size[1]:
        where = f"a picture of {width}×{height} pixels at row {top}, column {left}"
        raise UserError(f"{where} leaves the canvas of {size[1]}×{size[0]}: make it smaller, or move it")
    canvas = picture.new_zeros(*picture.shape[:2], *size)
    canvas[..., top : top + height, left : left + width] = picture
    mask = torch.zeros(1, 1, *size, dtype=torch.bool, device=picture.device)
    mask[..., top : top + height, left : left + width] = True
    return canvas, mask


def outpaint(
    model: Model,
    cond: Cond,
    picture: Tensor,
    seed: int = 0,
    *,
    place: tuple[int, int] | None = None,
    by: Callable[..., Tensor] = inpaint,
    **options: Any,
) -> Tensor:
    """A picture (n or 1, C, h, w) smaller than the model's, with what may lie around it: (n, C, H, W).

    Args:
        model, cond, seed: as for `inpaint`.
        picture: in [-1, 1].
        place: (top, left) of its upper left corner, the middle where not given.
        by: `inpaint` or `fill`.
        options: of either.

    Raises:
        UserError: it is not smaller, or as for `by`.
    """
    canvas, mask = on_canvas(picture, model.shape[1:], place)
    return by(model, cond, canvas, mask, seed, **options)


def mean_filled(picture: Tensor, mask: Tensor) -> Tensor:
    """Pictures (n, C, H, W) whose hidden part is the mean of what is known, by channel: what to compare with."""
    known = mask.expand_as(picture).flatten(2)
    mean = torch.where(known, picture.flatten(2), 0.0).sum(2) / known.sum(2)
    return torch.where(mask, picture, mean[..., None, None])
