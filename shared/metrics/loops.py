"""Introduced in task 3; used by tasks 3, 5.

How well films that begin again close.
"""

from typing import NamedTuple

from torch import Tensor

from shared.errors import UserError


class Seam(NamedTuple):
    """How well loops close."""

    n: int
    seam: float  # mean absolute difference of the first frame to the last
    step: float  # the same between frames in a row: median of each clip, mean over the clips
    ratio: float | None  # seam / step: 1 is seamless; None where nothing moves


def seam(clips: Tensor) -> Seam:
    """The step from the last frame to the first beside the others, of clips (N, C, F, H, W) in [-1, 1], F ≥ 3.

    Raises:
        UserError: for another shape.
    """
    if clips.ndim != 5 or clips.shape[2] < 3 or len(clips) < 1:
        raise UserError(f"loops are clips (N, C, F ≥ 3, H, W), not {tuple(clips.shape)}")
    clips = clips.detach().double()
    steps = clips.diff(dim=2).abs().mean(dim=(1, 3, 4))  # (N, F - 1)
    closing = (clips[:, :, 0] - clips[:, :, -1]).abs().mean().item()
    step = steps.median(dim=1).values.mean().item()
    return Seam(len(clips), closing, step, closing / step if step else None)
