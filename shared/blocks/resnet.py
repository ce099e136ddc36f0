"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

The residual block, told the time by scaling and shifting its features; or, in an autoencoder, told nothing.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Context(NamedTuple):
    """What every block of a network is told besides its input."""

    vector: Tensor | None = None  # (B, E): the time, and whatever else fits into one vector
    told: Tensor | None = None  # (B, D): what adaptive norms are told besides the time
    tokens: Tensor | None = None  # (B, N, D): a sequence for attention to look at
    token_mask: Tensor | None = None  # (B, N) bool: which of its tokens there are
    frames: int = 1  # how many of the batch, one after the other, are frames of one clip
    frame_mask: Tensor | None = None  # (B / frames, frames, frames) bool: which frames may look at which; None: all


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation in as many groups, up to 32, as leave each four channels or more.

    Groups of one would take each feature's mean out of the image: the bias before them would be without
    effect, and on a single pixel nothing at all would be left.
    """
    groups = max(n for n in (1, 2, 4, 8, 16, 32) if n == 1 or (channels % n == 0 and channels >= 4 * n))
    return nn.GroupNorm(groups, channels)


def zeroed(module: nn.Module) -> nn.Module:
    """The module with all parameters zero: a residual branch that ends in it adds nothing at the start."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class Modulation(nn.Linear):
    """Scales and shifts features by what the context says: adaptive group norm (Dhariwal 2021), after its norm."""

    def __init__(self, context: int, channels: int):
        """For `channels` features, from a context vector of `context` numbers."""
        super().__init__(context, 2 * channels)

    def forward(self, h: Tensor, c: Context) -> Tensor:
        """(B, channels, H, W) to the same."""
        scale, shift = super().forward(F.silu(c.vector))[..., None, None].chunk(2, dim=1)  # each (B, channels, 1, 1)
        return torch.addcmul(shift, h, 1 + scale)  # shift + h · (1 + scale), in one pass over memory


class Unmodulated(nn.Module):
    """In the place of `Modulation` where there is no context."""

    def forward(self, h: Tensor, c: Context) -> Tensor:
        """(B, channels, H, W), handed on."""
        return h


class ResidualBlock(nn.Module):
    """Two convolutions and between them, if there is a context, its scale and shift; added to the input."""

    def __init__(self, channels: int, out: int, context: int | None, dropout: float = 0.0):
        """From `channels` to `out` features, with a context vector of `context` numbers, or None."""
        super().__init__()
        self.norm1 = group_norm(channels)
        self.conv1 = nn.Conv2d(channels, out, 3, padding=1)
        self.modulation = Unmodulated() if context is None else Modulation(context, out)
        self.norm2 = group_norm(out)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zeroed(nn.Conv2d(out, out, 3, padding=1))
        self.skip = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor, c: Context) -> Tensor:
        """(B, channels, H, W) to (B, out, H, W)."""
        h = self.conv1(F.silu(self.norm1(x)))  # (B, out, H, W)
        h = self.modulation(self.norm2(h), c)  # (B, out, H, W)
        h = self.conv2(self.dropout(F.silu(h)))
        return self.skip(x) + h
