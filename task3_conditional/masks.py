"""Masks as a person gives them: a side of the picture, or a file, white where the picture is to be painted anew.

Here they are bool (1, 1, H, W), true where the picture is known, as `inpainting.py` takes them.
"""

import math
from pathlib import Path

import torch
from torch import Tensor

from shared.datasets.decode import displayed_size
from shared.datasets.held_out import HELD_OUT, read_pixels
from shared.errors import UserError


def known_beside(side: str, height: int, width: int) -> Tensor:
    """A mask (1, 1, H, W) that hides the half at a side: left, right, top or bottom; or the centre, half of each side
    long."""
    hidden = torch.zeros(1, 1, height, width, dtype=torch.bool)
    rows, columns = {
        "left": (slice(None), slice(0, width // 2)),
        "right": (slice(None), slice(width // 2, None)),
        "top": (slice(0, height // 2), slice(None)),
        "bottom": (slice(height // 2, None), slice(None)),
        "centre": (slice(height // 4, height - height // 4), slice(width // 4, width - width // 4)),
    }[side]
    hidden[..., rows, columns] = True
    return ~hidden


def read_mask(path: Path, picture: str, height: int, width: int) -> Tensor:
    """The mask (1, 1, H, W) of a file, which is brought to the model's size H, W as the picture is.

    A pixel is hidden where it is brighter than the middle; one of the model's, where any of the file's within it is: so
    a thin line hides what it was drawn over.

    Args:
        path: of the mask.
        picture: what it is of: a file, or "data:3", which is as large as the model's pictures are.
        height, width: of the model's pictures.

    Raises:
        UserError: it cannot be read, or is as large neither as the picture nor as the model's are.
    """
    pixels = read_pixels(path, 1, None)
    size = height, width
    if tuple(pixels.shape[1:]) != size and not picture.startswith(HELD_OUT):
        with open(picture, "rb") as file:
            size = displayed_size(file)
    if tuple(pixels.shape[1:]) != size:
        there = f"{pixels.shape[2]}×{pixels.shape[1]}"
        raise UserError(f"the mask {path} is {there} pixels, and the picture {size[1]}×{size[0]}: resize it")
    return ~any_within(pixels[0] >= 128, height, width)[None, None]


def any_within(marked: Tensor, height: int, width: int) -> Tensor:
    """bool (H', W') brought to (height, width): true where a pixel has a part of one that is true, however small.

    The middle is taken where the sides are in another ratio, as `decode` cuts pictures out.
    """
    share = min(marked.shape[0] / height, marked.shape[1] / width)
    rows, columns = (spans(length, count, share) for length, count in zip(marked.shape, (height, width), strict=True))
    narrow = torch.stack([marked[own].any(dim=0) for own in rows])  # (height, W')
    return torch.stack([narrow[:, own].any(dim=1) for own in columns], dim=1)


def spans(length: int, count: int, share: float) -> list[slice]:
    """Which of `length` pixels each of `count` reaches into that are `share` of them long and lie in their middle."""
    start, tiny = (length - count * share) / 2, 1e-6  # what rounding alone reaches into does not count
    edges = [start + i * share for i in range(count + 1)]
    return [slice(math.floor(a + tiny), math.ceil(b - tiny)) for a, b in zip(edges[:-1], edges[1:], strict=True)]
