"""Zooms of a moving picture: nested pictures, each painted around the one before, and what is seen of them at a scale.

A zoom goes there and back. One that never turns would need a picture that holds itself in its middle, and what was
asked for stands there.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from task3_conditional.motion import Paint

RATIO = 4 / 3  # of each picture to the one before: an eighth of each side is painted at a time


def scales(frames: int, speed: float) -> list[float]:
    """How much wider than the picture each frame looks: from 1 out and back, slower at both ends.

    `speed` is what the sides of the picture lose a frame on the way out, on average, as a share of what they are then.
    """
    widest = frames / 2 * speed  # the logarithm of the last scale
    return [math.exp(widest * (1 - math.cos(2 * math.pi * i / frames)) / 2) for i in range(frames)]


def shown(picture: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """The middle of a picture (1, C, H, W), `share` of its sides, resampled to (1, C, H, W); and how much of each pixel
    it covers, (1, 1, H, W) in [0, 1]: all of it, unless `share` is above 1.

    Bicubic, and antialiased where it shrinks.
    """
    height, width = picture.shape[2:]
    margins = [math.ceil(max(0.0, share - 1) / 2 * side) + 1 for side in (height, width)]
    around = (margins[1], margins[1], margins[0], margins[0])
    cover = F.pad(torch.ones(1, 1, height, width), around)
    padded = F.pad(picture.float().cpu(), around, mode="replicate")
    middle = [margin + side / 2 for margin, side in zip(margins, (height, width), strict=True)]
    half = [share * side / 2 for side in (height, width)]
    box = (middle[1] - half[1], middle[0] - half[0], middle[1] + half[1], middle[0] + half[0])

    def resampled(pixels: Tensor, how: Image.Resampling) -> Tensor:
        planes = [Image.fromarray(plane.numpy()).resize((width, height), how, box=box) for plane in pixels[0]]
        return torch.from_numpy(np.stack([np.asarray(plane) for plane in planes]))[None]

    bright = resampled(padded, Image.Resampling.BICUBIC).clamp(-1, 1)
    return bright.to(picture), resampled(cover, Image.Resampling.BOX).clamp(0, 1).to(picture)


def composed(levels: list[Tensor], scale: float) -> tuple[Tensor, Tensor]:
    """What is seen at a scale of nested pictures, each RATIO wider than the one before, the finer in front.

    Returns:
        The picture (1, C, H, W), and how much of each pixel is covered, (1, 1, H, W).
    """
    whole, covered = torch.zeros_like(levels[0]), torch.zeros_like(levels[0][:, :1])
    for number, level in reversed(list(enumerate(levels))):
        image, cover = shown(level, scale / RATIO**number)
        whole, covered = torch.lerp(whole, image, cover), torch.maximum(covered, cover)
    return whole, covered


def nested(picture: Tensor, scale: float, paint: Paint) -> tuple[list[Tensor], list[Tensor]]:
    """The picture (1, C, H, W) and those around it up to a scale, each painted around the one before.

    Returns:
        The pictures, and what was known of each, (1, 1, H, W) bool.
    """
    levels, masks = [picture], [torch.ones_like(picture[:, :1], dtype=torch.bool)]
    for number in range(1, rings(scale) + 1):
        whole, covered = composed(levels, RATIO**number)
        masks.append(covered > 1 - 1e-4)
        levels.append(paint(whole, masks[-1]))
    return levels, masks


def rings(scale: float) -> int:
    """How many times something is painted around the picture until a scale is reached."""
    return math.ceil(math.log(scale) / math.log(RATIO) - 1e-9)


def zoomed(levels: list[Tensor], motion: str, wide: list[float]) -> Tensor:
    """The clip (1, C, F, H, W) of these scales; zoom-in begins at the widest, half a film later."""
    if motion == "zoom-in":
        wide = wide[len(wide) // 2 :] + wide[: len(wide) // 2]
    return torch.stack([composed(levels, scale)[0] for scale in wide], dim=2)
