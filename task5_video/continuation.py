"""Longer than a clip: on and on from what is there, and what lies between two frames."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from shared.conditions.said import Cond
from shared.errors import UserError
from shared.training.data import derive
from task5_video.model import Given, Method, Model


def known_at(frames: Tensor, places: Sequence[int], length: int, method: Method, weight: float) -> Given:
    """Frames (n, C, k, H, W) that are known at k places of clips of a length."""
    clips = frames.new_zeros(*frames.shape[:2], length, *frames.shape[3:])
    mask = torch.zeros(length, dtype=torch.bool)
    for k, place in enumerate(places):
        clips[:, :, place], mask[place] = frames[:, :, k], True
    return Given(clips, mask, method, weight)


def predicted(
    model: Model, start: Tensor, cond: Cond, seed: int, *, method: Method, weight: float, **options: Any
) -> Tensor:
    """Clips of the model's length that begin with the frames `start` (n, C, k, H, W), in [-1, 1].

    Raises:
        UserError: there are as many as a clip has, or more; or as for `Model.steps`.
    """
    length = options.pop("frames", None) or model.shape[1]
    if not 0 < start.shape[2] < length:
        raise UserError(
            f"{start.shape[2]} frames are given, of clips of {length}: give at least 1, and fewer than that"
        )
    given = known_at(start, range(start.shape[2]), length, method, weight)
    return model.sample(len(start), cond, seed, given=given, frames=length, **options)


def extended(
    model: Model,
    start: Tensor,
    length: int,
    cond: Cond,
    seed: int,
    *,
    overlap: int = 4,
    method: Method,
    weight: float,
    **options: Any,
) -> Tensor:
    """Clips (n, C, length, H, W) that go on from `start` (n, C, k, H, W): the last frames are given again and again.

    Args:
        model: draws a clip at a time.
        start: frames that there are, at least 1.
        length: frames in all.
        cond: what is told of each clip, all along.
        seed: of the noise; each clip that is drawn has its own of it.
        overlap: of the frames that are there, so many are given for the next clip.
        method, weight: how; see `Given`.
        options: as for `Model.sample`.

    Raises:
        UserError: there is nothing to go on from, or more is given than a clip has; or as for `Model.steps`.
    """
    clips, drawn = start[:, :, :length], 0
    while clips.shape[2] < length:
        last = clips[:, :, -overlap:]
        more = predicted(model, last, cond, derive(seed, "extended", drawn), method=method, weight=weight, **options)
        clips = torch.cat([clips, more[:, :, last.shape[2] :].to(clips)], dim=2)[:, :, :length]
        drawn += 1
    return clips


def between(
    model: Model, ends: Tensor, cond: Cond, seed: int, *, method: Method, weight: float, **options: Any
) -> Tensor:
    """Clips whose first and last frame are `ends` (n, C, 2, H, W), in [-1, 1].

    Raises:
        UserError: as for `Model.steps`.
    """
    length = options.pop("frames", None) or model.shape[1]
    if length < 3:
        raise UserError(f"clips of {length} frames have none between the first and the last: take at least 3")
    given = known_at(ends, (0, length - 1), length, method, weight)
    return model.sample(len(ends), cond, seed, given=given, frames=length, **options)
