"""Introduced in task 3; used by task 3.

Whether a picture follows its caption: for scenes of `shared/datasets/captioned_digits.py`, where it can be measured.

Each pixel that is lit belongs to the nearest place where the caption wants a digit. What lies there must be one thing,
as large as a digit, at that place; its mean colour must be nearest to the colour wanted; and the digit judge must read
the digit wanted. All three, for every digit of the scene, make a picture right.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from shared.datasets.captioned_digits import BOX, COLOURS, SIZE, TILE, Scene, centres
from shared.errors import UserError
from shared.metrics.judge import SIZE as JUDGED
from shared.metrics.judge import inspect, load_judge

LIT = 0.25  # of full brightness: what counts as part of a digit
SMALLEST, LARGEST = 6, TILE + 3  # pixels: sides of the box around a digit
OFF = 4.0  # pixels that the middle of that box may lie off its place
OFF_FREE = 7.0  # the same along the side at which a single digit stands: there it may lie anywhere


class Wanted(NamedTuple):
    """One digit of a scene, and where it should be."""

    digit: int
    colour: int  # index into COLOURS
    y: float
    x: float
    off_y: float
    off_x: float


@dataclass(frozen=True)
class Followed:
    """Shares of the pictures in which every digit is right, in one respect and in all."""

    n: int
    place: float
    colour: float
    identity: float
    all: float


def wanted(scene: Scene) -> list[Wanted]:
    """The digits of a scene."""
    found = []
    for group, places in zip(scene, centres(scene), strict=True):
        free = OFF_FREE if len(scene) == 1 and group.count == 1 else OFF
        off_y, off_x = (free, OFF) if group.place in ("left", "right") else (OFF, free)
        found += [Wanted(group.digit, list(COLOURS).index(group.colour), y, x, off_y, off_x) for y, x in places]
    return found


def looked_at(image: Tensor, digits: list[Wanted]) -> tuple[Tensor, list[bool], list[int]]:
    """What lies where each digit should be: crops (N, 1, 28, 28) for the judge, whether placed, and the colour.

    `image` is (3, 32, 32) in [0, 1]. Where nothing is lit the crop is black and nothing is right.
    """
    brightness = image.amax(dim=0)  # (H, W)
    rows, columns = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    distance = torch.stack([(rows + 0.5 - d.y) ** 2 + (columns + 0.5 - d.x) ** 2 for d in digits])  # (N, H, W)
    nearest = distance.argmin(dim=0)
    palette = F.normalize(torch.tensor(list(COLOURS.values()), dtype=torch.float32), dim=1)  # (colours, 3)
    crops, placed, colours = [], [], []
    for number, digit in enumerate(digits):
        own = (nearest == number) & (brightness >= LIT)
        if not own.any():
            crops.append(torch.full((1, JUDGED, JUDGED), -1.0))
            placed.append(False)
            colours.append(-1)
            continue
        ys, xs = own.nonzero().unbind(dim=1)
        (top, bottom), (left, right) = ((int(v.min()), int(v.max()) + 1) for v in (ys, xs))
        middle_y, middle_x = (top + bottom) / 2, (left + right) / 2
        tall, wide = bottom - top, right - left
        placed.append(
            abs(middle_y - digit.y) <= digit.off_y
            and abs(middle_x - digit.x) <= digit.off_x
            and max(tall, wide) <= LARGEST
            and max(tall, wide) >= SMALLEST
        )
        colours.append(int((palette @ F.normalize(image[:, own].mean(dim=1), dim=0)).argmax()))
        crops.append(for_judge(torch.where(nearest == number, brightness, 0.0), middle_y, middle_x))
    return torch.stack(crops), placed, colours


def for_judge(brightness: Tensor, middle_y: float, middle_x: float) -> Tensor:
    """The digit around a point of (32, 32) in [0, 1], as large as MNIST has it: (1, 28, 28) in [-1, 1]."""
    window = round(JUDGED * TILE / BOX)  # of the scene, which becomes the judge's whole image
    margin = window
    padded = F.pad(brightness, (margin,) * 4)
    top, left = (round(v - window / 2) + margin for v in (middle_y, middle_x))
    part = padded[top : top + window, left : left + window][None, None]
    large = F.interpolate(part, size=(JUDGED, JUDGED), mode="bicubic", align_corners=False)
    return large[0].clamp(0, 1) * 2 - 1


def judge_scenes(images: Tensor, scenes: list[Scene]) -> Followed:
    """How many of the pictures (N, 3, 32, 32) in [-1, 1] show the scenes, one each.

    Raises `UserError` for another shape, another number, or values outside [-1, 1].
    """
    if images.ndim != 4 or tuple(images.shape[1:]) != (3, SIZE, SIZE) or len(images) != len(scenes):
        shape = tuple(images.shape)
        raise UserError(f"{len(scenes)} scenes need as many pictures (N, 3, {SIZE}, {SIZE}), not {shape}")
    if not images.isfinite().all() or images.min() < -1.001 or images.max() > 1.001:
        raise UserError("pictures of scenes must be finite and in [-1, 1]")
    asked = [wanted(scene) for scene in scenes]
    seen = [looked_at((image + 1) / 2, digits) for image, digits in zip(images.float().cpu(), asked, strict=True)]
    _, probabilities = inspect(load_judge(), torch.cat([crops for crops, _, _ in seen]))
    read = iter(probabilities.argmax(dim=1).tolist())
    right = []
    for (_, placed, colours), digits in zip(seen, asked, strict=True):
        found = any(colour >= 0 for colour in colours)
        identity = [next(read) == digit.digit for digit in digits]
        shown = all(colour >= 0 for colour in colours) and found
        colour = [c == digit.colour for c, digit in zip(colours, digits, strict=True)]
        right.append((all(placed), all(colour), shown and all(identity)))
    table = torch.tensor(right, dtype=torch.float64)
    place, colour, identity = table.mean(dim=0).tolist()
    return Followed(len(images), place, colour, identity, table.prod(dim=1).mean().item())
