"""Introduced in task 3; used by task 3.

Whether edges lie where they were asked for, whether a picture that was painted in pieces shows it, and whether an
enlarged picture still is the small one.
"""

import itertools
from collections.abc import Sequence
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


class SeamScore(NamedTuple):
    """How much a seam shows, and how much its borders would at places of the same canvas where nothing was joined."""

    ratio: float  # the mean absolute gradient across the borders over that elsewhere
    limit: float | None  # what that ratio exceeds at one place in twenty without a seam; None where there are too few
    beside: float  # the gradient across the borders over that one pixel before and behind them
    beside_limit: float | None  # as `limit`, of `beside`

    @property
    def visible(self) -> bool | None:
        """Whether it shows more than places without a seam do, by either measure; None where that cannot be told.

        By chance alone that is so for one canvas in ten to twenty.
        """
        if self.limit is None:
            return None
        return self.ratio > self.limit or self.beside > self.beside_limit


SHADES = 4 * 2 / 255  # of images in [-1, 1]: the least step that an eye sees, 1.5 % of the range. It is added to both
# sides of `beside`, so that what nobody sees does not count.
PLACES, LEAST = 200, 20  # without a seam: as many at most, and at least
Steps = list[tuple[Tensor, Tensor, Tensor]]  # along each axis: gradients, which of them count, which cross a border


def steps_of(canvas: Tensor, pieces: Tensor, joined: Sequence[int]) -> Steps:
    """The gradients of a canvas (N, C, H, W) from each pixel to the next, (N, 1, H, W), down and to the right.

    Raises:
        UserError: the sizes differ, or `joined` names other axes than 2 and 3.
    """
    if canvas.ndim != 4 or canvas.shape[2:] != pieces.shape[-2:]:
        raise UserError(f"pieces of {tuple(pieces.shape)} are not those of a canvas {tuple(canvas.shape)}")
    if not {*joined} <= {2, 3}:
        raise UserError(f"joined is {tuple(joined)}: it names axes of a canvas (N, C, H, W), 2 and 3")
    numbers = pieces.long().expand(len(canvas), 1, *canvas.shape[2:])
    found = []
    for axis in (2, 3):
        steps = (canvas.roll(-1, axis) - canvas).abs().mean(dim=1, keepdim=True).double()
        after = numbers.roll(-1, axis)
        counts = (numbers >= 0) & (after >= 0)
        if axis not in joined:
            counts.select(axis, -1).fill_(False)
        found.append((steps, counts, counts & (numbers != after)))
    return found


def across(steps: Steps, borders: list[Tensor]) -> tuple[float, float] | None:
    """The gradient across borders, bool (N, 1, H, W) for each axis, over that elsewhere, and over that beside them.

    What crosses a border of `steps` is neither elsewhere nor beside. None where there is no border, nothing but
    borders, or no gradient elsewhere.
    """
    at, elsewhere, beside = [], [], []
    for axis, ((size, counts, seams), border) in enumerate(zip(steps, borders, strict=True), 2):
        plain = counts & ~seams & ~border
        at.append(size[counts & border])
        elsewhere.append(size[plain])
        beside.append(size[plain & (border.roll(1, axis) | border.roll(-1, axis))])
    seam, rest, near = (torch.cat(parts) for parts in (at, elsewhere, beside))
    if not len(seam) or not len(near) or not rest.any():
        return None
    mean = seam.mean()
    return (mean / rest.mean()).item(), ((mean + SHADES) / (near.mean() + SHADES)).item()


def seam_ratio(canvas: Tensor, pieces: Tensor, joined: Sequence[int] = ()) -> float | None:
    """Mean absolute gradient across the borders of pieces over that elsewhere.

    1 is the mean of all places, and not that of no seam: a border through the middle of a digit crosses more edges than
    one through the black around it. See `seam_score`.

    Args:
        canvas: (N, C, H, W).
        pieces: (H, W) or (N, 1, H, W): a number, or true and false, for what was painted at once; below 0 for what
            does not count.
        joined: axes of the canvas whose ends touch: (3,) for a strip that was closed to a ring, say.

    Returns:
        None where there is no border, or nothing but borders, or no gradient elsewhere.

    Raises:
        UserError: the sizes differ, or `joined` names other axes than 2 and 3.
    """
    steps = steps_of(canvas, pieces, joined)
    found = across(steps, [border for *_, border in steps])
    return found[0] if found else None


def seam_score(canvas: Tensor, pieces: Tensor, joined: Sequence[int] = ()) -> SeamScore | None:
    """As `seam_ratio`, beside the same measure at places of the same canvas where nothing was joined.

    There the borders are moved as a whole, around the canvas, to where none of them is on a true one or beside one.
    """
    steps = steps_of(canvas, pieces, joined)
    seams = [border for *_, border in steps]
    found = across(steps, seams)
    if found is None:
        return None
    close = [seam | seam.roll(1, axis) | seam.roll(-1, axis) for axis, seam in enumerate(seams, 2)]
    count, others = sum(int(seam.sum()) for seam in seams), []
    ways = [1 if straight(seams, axis) else canvas.shape[axis] for axis in (2, 3)]
    for shift in evenly([shift for shift in itertools.product(*map(range, ways)) if free(seams, close, shift)]):
        moved = [seam.roll(shift, (2, 3)) for seam in seams]
        there = sum(int((border & counts).sum()) for border, (_, counts, _) in zip(moved, steps, strict=True))
        if there > count / 2 and (other := across(steps, moved)):
            others.append(other)
    if len(others) < LEAST:
        return SeamScore(found[0], None, found[1], None)
    limits = torch.tensor(others).double().quantile(0.95, dim=0).tolist()
    return SeamScore(found[0], limits[0], found[1], limits[1])


def straight(seams: list[Tensor], axis: int) -> bool:
    """Whether borders moved along an axis are the same borders."""
    return all(torch.equal(seam, seam.roll(1, axis)) for seam in seams)


def free(seams: list[Tensor], close: list[Tensor], shift: tuple[int, int]) -> bool:
    """Whether borders moved by a shift are nowhere close to where they were."""
    return not any((seam.roll(shift, (2, 3)) & near).any() for seam, near in zip(seams, close, strict=True))


def evenly(shifts: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """PLACES of them at most, all over the list."""
    return shifts[:: -(-len(shifts) // PLACES)] if shifts else []


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
