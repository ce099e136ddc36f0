"""A picture drawn again from some time on, towards what is asked: SDEdit (Meng 2022), image to image."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from shared.conditions.said import Cond
from shared.errors import UserError
from shared.generation import generate_from
from shared.schedulers.samplers import Step
from task3_conditional.model import Model, batches_of


def check_range(picture: Tensor) -> None:
    """Raise UserError for a picture with values outside [-1, 1]."""
    if not (picture.min() >= -1.001 and picture.max() <= 1.001):  # so put that NaN is refused too
        raise UserError("the picture has values outside [-1, 1]: map [0, 255] there first (see ranges.to_unit)")


def placed(model: Model, cond: Cond, picture: Tensor) -> Tensor:
    """Pictures (n or 1, C, H, W) as one for each of the n conditions, float32 on the model's device.

    Raises:
        UserError: they are no float pictures in [-1, 1] as the model's samples are, or of another number.
    """
    n, (channels, height, width) = len(next(iter(cond.values()))), model.shape
    if not picture.is_floating_point() or picture.ndim != 4 or picture.numel() == 0:
        shown = f"{picture.dtype} of shape {tuple(picture.shape)}"
        raise UserError(f"the picture is {shown}: float (n, C, H, W) in [-1, 1] is needed (see ranges.to_unit)")
    if picture.shape[1] != channels:
        alpha = ", and no alpha" if picture.shape[1] in (2, 4) else ""
        raise UserError(
            f"the picture has {picture.shape[1]} channels, and the model's have {channels}: bring it to "
            f"{'grey' if channels == 1 else 'colour'}{alpha} (read as a file it is, by shared.datasets.decode)"
        )
    if picture.shape[2:] != (height, width):
        size = f"{picture.shape[3]}×{picture.shape[2]}"
        raise UserError(f"the picture is {size} pixels, and the model's are {width}×{height}: resize it")
    check_range(picture)
    if len(picture) not in (1, n):
        raise UserError(f"{n} samples need as many pictures, or one, and there are {len(picture)}")
    return picture.to(next(model.network.parameters()).device, torch.float32).expand(n, *model.shape)


def check_free(model: Model) -> None:
    """Raise UserError for a model that cannot draw by itself: it was always told a picture made of the sample."""
    kind = model.config.given.kind
    if kind != "none" and model.config.condition.dropout == 0:
        what = {"grey": "task3-edit colourise", "low": "task3-edit enlarge", "mask": "--method told"}[kind]
        raise UserError(
            f"{model.source} was never trained without a picture beside the sample (given.kind {kind}): it is for "
            f"{what}; take another model"
        )


def redrawn(model: Model, cond: Cond, picture: Tensor, strength: float, seed: int = 0, **options: Any) -> Tensor:
    """Pictures drawn again from the time strength · T on, (n, C, H, W) in [-1, 1].

    A little noise hides the details, much of it all but the rough shape; what it hides, the model makes up, and makes
    it what `cond` says.

    Args:
        model: the model.
        cond: of n samples, from `Model.told`.
        picture: (n or 1, C, H, W) in [-1, 1].
        strength: above 0, at most 1.
        seed: of the noise.
        options: as for `Model.steps`; of its steps, those below that time are taken.

    Raises:
        UserError: the strength is outside (0, 1], the picture none of the model's kind, the model cannot draw without
            being told a picture, or as for `Model.steps`.
    """
    picture, parts = placed(model, cond, picture), []
    for part, own, own_seed in batches_of(cond, seed):
        *_, last = redrawing(model, own, picture[part], strength, own_seed, **options)
        parts.append(last.x.clamp(-1, 1))
    return torch.cat(parts)


def redrawing(
    model: Model, cond: Cond, picture: Tensor, strength: float, seed: int = 0, **options: Any
) -> Iterator[Step]:
    """As `redrawn`, step by step: a generator of `Step`."""
    check_free(model)
    config, guide = model.asking(cond, **options)
    picture = placed(model, cond, picture)
    return generate_from(model.network, model.diffusion, picture, strength, config, seed, guide)
