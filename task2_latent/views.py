"""What there is to look at in a latent space: pairs of originals and reconstructions, and ways between two images."""

import torch
from PIL import Image
from torch import Tensor

from shared import pictures

COLUMNS = 8


def side_by_side(originals: Tensor, reconstructions: Tensor, upscale: int = 1) -> Image.Image:
    """Images (N, C, H, W) in [-1, 1], each row of eight above the row of their reconstructions."""
    rows = zip(originals.split(COLUMNS), reconstructions.split(COLUMNS), strict=True)
    blank = torch.ones_like(originals[:1])
    padded = [torch.cat([row, blank.expand(COLUMNS - len(row), -1, -1, -1)]) for pair in rows for row in pair]
    return pictures.grid(torch.cat(padded), COLUMNS, upscale)


def slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """The point on the great circle from a to b, (B, …), after a share of the way.

    Noise of many dimensions lies near a sphere; the straight way between two samples of it leaves that sphere, to
    where a network has never been. Shoemake 1985.
    """
    one, other = (x.flatten(1) for x in (a, b))
    cosine = (one * other).sum(dim=1) / (one.norm(dim=1) * other.norm(dim=1))
    angle = cosine.clamp(-1, 1).acos().view(-1, *[1] * (a.ndim - 1))
    if (angle.sin() < 1e-4).any():  # the same direction, or opposite ones
        return torch.lerp(a, b, share)
    return (((1 - share) * angle).sin() * a + (share * angle).sin() * b) / angle.sin()


def between(a: Tensor, b: Tensor, columns: int = COLUMNS, curved: bool = False) -> Tensor:
    """Points on the way from each of a (B, …) to each of b, both included: (B · columns, …), row by row."""
    shares = [i / (columns - 1) for i in range(columns)]
    ways = [slerp(a, b, s) if curved else torch.lerp(a, b, s) for s in shares]
    return torch.stack(ways, dim=1).flatten(0, 1)
