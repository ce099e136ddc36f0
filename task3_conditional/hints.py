"""Hints: what of an image a ControlNet is told, computed from the image itself.

So any data set teaches any of them, on the fly and on the device of its images. Each is a pure function from images
(B, C, H, W) in [-1, 1] to float32 hints (B, `channels_of` it, H, W) in [-1, 1], for each image by itself. Those of
lines and shapes are 1 where there is something and -1 elsewhere, as a white drawing on black.

`edges` is written here, as no library that is installed finds edges of batches on a GPU.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

EDGE = 0.15  # in [-1, 1] a pixel: of what is steeper, a step of less than a third of the range
FACTOR = 4  # how many times smaller `low` is


def signs(chosen: Tensor) -> Tensor:
    """Booleans to 1 and -1, float32."""
    return chosen.float() * 2 - 1


def slopes(x: Tensor) -> tuple[Tensor, Tensor]:
    """By how much images (B, C, H, W) rise a pixel to the right and downwards, (B, 1, H, W) each, by Sobel's operator.

    Of the channel that is steepest at that place: a luminance would not see where one colour ends and another begins.
    """
    smooth, rise = torch.tensor([[1.0, 2.0, 1.0], [-1.0, 0.0, 1.0]], device=x.device)
    kernels = torch.stack([torch.outer(smooth, rise), torch.outer(rise, smooth)])[:, None] / 8  # (2, 1, 3, 3)
    padded = F.pad(x.float().flatten(0, 1)[:, None], (1, 1, 1, 1), mode="replicate")  # no edge around the image
    both = F.conv2d(padded, kernels).unflatten(0, x.shape[:2])  # (B, C, 2, H, W)
    steepest = both.square().sum(2).argmax(1, keepdim=True)  # (B, 1, H, W)
    return tuple(both[:, :, axis].gather(1, steepest) for axis in (0, 1))


def edges(x: Tensor) -> Tensor:
    """Thin lines where brightness or colour changes, (B, 1, H, W) of -1 and 1.

    As Canny 1986 finds them, but with one threshold: the slope, and of it only what is no less than the next pixel's in
    the direction of the slope, one of four.
    """
    across, down = slopes(x)
    steep = torch.hypot(across, down)  # (B, 1, H, W)
    height, width = steep.shape[2:]
    padded = F.pad(steep, (1, 1, 1, 1))
    turn = torch.round(torch.atan2(down, across) * (4 / torch.pi)).long() % 4  # eighths of a turn; a line has two ends
    ridge = torch.zeros_like(steep, dtype=torch.bool)
    for number, (dy, dx) in enumerate([(0, 1), (1, 1), (1, 0), (1, -1)]):
        after, before = (
            padded[..., 1 + sign * dy : 1 + sign * dy + height, 1 + sign * dx : 1 + sign * dx + width]
            for sign in (1, -1)
        )
        # One of the two strictly, up to rounding: of two pixels that are as steep, one is the edge.
        ridge |= (turn == number) & (steep > after + 1e-6) & (steep >= before - 1e-6)
    return signs(ridge & (steep > EDGE))


def mask(x: Tensor) -> Tensor:
    """The silhouette, (B, 1, H, W) of -1 and 1: where the brightest channel is above the middle of the range."""
    return signs(x.float().amax(1, keepdim=True) > 0)


def scribble(x: Tensor) -> Tensor:
    """Coarse, thick lines along the edges, (B, 1, H, W) of -1 and 1, as a person draws in haste.

    The edges three pixels wide, and of that only what half the resolution shows: places are right to a pixel or two,
    and fine parts run together.
    """
    size = x.shape[2:]
    thick = F.max_pool2d(edges(x), 3, stride=1, padding=1)
    coarse = F.adaptive_avg_pool2d(thick, [(side + 1) // 2 for side in size])
    return signs(F.interpolate(coarse, size=size, mode="bilinear", align_corners=False) > 0)


def low(x: Tensor) -> Tensor:
    """The image itself at a quarter of its resolution, and enlarged again: (B, C, H, W) in [-1, 1]."""
    small = F.adaptive_avg_pool2d(x.float(), [-(-side // FACTOR) for side in x.shape[2:]])
    return F.interpolate(small, size=x.shape[2:], mode="bilinear", align_corners=False)


HINTS: dict[str, Callable[[Tensor], Tensor]] = {"edges": edges, "mask": mask, "scribble": scribble, "low": low}


def channels_of(kind: str, channels: int) -> int:
    """How many channels a hint of images with `channels` has."""
    return channels if kind == "low" else 1


def as_hint(kind: str, picture: Tensor) -> Tensor:
    """A hint that a person has drawn, or changed, (…, H, W) in [-1, 1], as the kind has them: lines without greys.

    Raises:
        ValueError: it is of lines or shapes, and shows none.
    """
    if kind == "low":
        return picture
    drawn = signs(picture > 0)
    if (drawn == drawn.flatten()[0]).all():
        raise ValueError(f"it shows no {kind}: white on black is needed, and what is transparent counts as white")
    return drawn


class Hinted(Dataset):
    """A data set whose samples are told their own hint as well, as cond["hint"]."""

    def __init__(self, data: Dataset, kind: str):
        """Of a data set, and a name in `HINTS`."""
        self.data, self.kind = data, kind

    def __len__(self) -> int:
        """As many."""
        return len(self.data)

    def __getitem__(self, i: int) -> tuple[Tensor, dict[str, Any]]:
        """Sample i."""
        x, cond = self.data[i]
        return x, {**cond, "hint": HINTS[self.kind](x[None])[0]}
