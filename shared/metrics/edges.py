"""Introduced in task 3; used by task 3.

Whether edges lie where they were asked for, whether a picture that was painted in pieces shows it, and whether an
enlarged picture still is the small one.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from shared.errors import UserError


class EdgeScore(NamedTuple):
    """How far two sets of edge maps agree; all in [0, 1], 1 for equal ones."""

    precision: float  # share of the samples' edge pixels with one of the reference within the tolerance
    recall: float  # share of the references' edge pixels with one of the sample within the tolerance
    f1: float  # their harmonic mean


def edge_f1(samples: Tensor, references: Tensor, tolerance: int = 1) -> EdgeScore:
    """Edges of samples against those that were asked for, bool (N, 1, H, W) each, true on an edge.

    Pixels are counted over all images, as BSDS does at one threshold (Arbeláez 2011, section 3.1), but any pixel of the
    other map within `tolerance` pixels along both axes will do: pixels are not paired, so a thick edge is not punished.
    Where neither has an edge the score is 1.

    Raises:
        UserError: they are no edge maps of one shape, or the tolerance is negative.
    """
    if samples.dtype != torch.bool or references.dtype != torch.bool or samples.ndim != 4:
        raise UserError(f"edge maps must be bool (N, 1, H, W), not {samples.dtype} and {references.dtype}")
    if samples.shape != references.shape or samples.shape[1] != 1:
        shapes = f"{tuple(samples.shape)} and {tuple(references.shape)}"
        raise UserError(f"edge maps must be (N, 1, H, W) of one shape, not {shapes}")
    if tolerance < 0:
        raise UserError(f"a tolerance of {tolerance} pixels is below 0")
    precision, recall = near(samples, references, tolerance), near(references, samples, tolerance)
    total = precision + recall
    return EdgeScore(precision, recall, 2 * precision * recall / total if total else 0.0)


def near(edges: Tensor, others: Tensor, tolerance: int) -> float:
    """Share of the edge pixels with another one within the tolerance; 1 where there is none."""
    width = 2 * tolerance + 1
    wide = F.max_pool2d(others.float(), width, stride=1, padding=tolerance) > 0
    count = edges.sum().item()
    return (edges & wide).sum().item() / count if count else 1.0


def seam_ratio(canvas: Tensor, pieces: Tensor, joined: bool = False) -> float | None:
    """Mean absolute gradient across the borders of pieces over that elsewhere: 1 or less where no seam shows.

    Args:
        canvas: (N, C, H, W).
        pieces: (H, W) or (N, 1, H, W): a number, or true and false, for what was painted at once; below 0 for what
            does not count.
        joined: opposite sides of the canvas touch: a strip that was closed to a ring, say.

    Returns:
        None where there is no border, or nothing but borders, or no gradient elsewhere.

    Raises:
        UserError: the sizes differ.
    """
    if canvas.ndim != 4 or canvas.shape[2:] != pieces.shape[-2:]:
        raise UserError(f"pieces of {tuple(pieces.shape)} are not those of a canvas {tuple(canvas.shape)}")
    numbers = pieces.long().expand(len(canvas), 1, *canvas.shape[2:])
    across, elsewhere = [], []
    for axis in (2, 3):
        steps = (canvas.roll(-1, axis) - canvas).abs().mean(dim=1, keepdim=True).double()
        after = numbers.roll(-1, axis)
        counts = (numbers >= 0) & (after >= 0)
        if not joined:
            counts.select(axis, -1).fill_(False)
        border = numbers != after
        across.append(steps[counts & border])
        elsewhere.append(steps[counts & ~border])
    seam, rest = (torch.cat(parts) for parts in (across, elsewhere))
    if not len(seam) or not len(rest) or not rest.any():
        return None
    return (seam.mean() / rest.mean()).item()


def consistency_rmse(high: Tensor, low: Tensor) -> float:
    """RMSE in [0, 1] of enlarged images (N, C, kH, kW), averaged back down, against the small ones (N, C, H, W).

    Both are given in [-1, 1]; 1/255 is a shade.

    Raises:
        UserError: the sides of one are not the same multiple of the other's.
    """
    factor = high.shape[-1] // max(1, low.shape[-1])
    if high.ndim != 4 or low.ndim != 4 or high.shape[2:] != tuple(factor * side for side in low.shape[2:]):
        raise UserError(f"{tuple(high.shape)} is no enlargement of {tuple(low.shape)}: sides must be a whole multiple")
    back = F.avg_pool2d(high.double(), factor)
    return ((back - low.double()) / 2).square().mean().sqrt().item()
