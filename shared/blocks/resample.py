"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

Halving and doubling the resolution, and folding squares of pixels into channels.
"""

from functools import partial

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

DOWN = {
    "average": lambda channels: nn.AvgPool2d(2),
    "max": lambda channels: nn.MaxPool2d(2),
    "stride": lambda channels: nn.Conv2d(channels, channels, 3, stride=2, padding=1),
}


class Upsample(nn.Module):
    """Enlarge twofold, then convolve. A transposed convolution does both at once, and leaves a checkerboard."""

    def __init__(self, channels: int, out: int, mode: str):
        """`mode` is nearest or bilinear."""
        super().__init__()
        self.mode = mode
        self.conv = nn.Conv2d(channels, out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, out, 2H, 2W)."""
        return self.conv(F.interpolate(x, scale_factor=2, mode=self.mode))


UP = {
    "nearest": partial(Upsample, mode="nearest"),
    "bilinear": partial(Upsample, mode="bilinear"),
    # Three taps laid down two pixels apart overlap on every second row and column: those get the sum of two taps,
    # their neighbours one ("Deconvolution and checkerboard artifacts", Odena 2016).
    "transposed": lambda channels, out: nn.ConvTranspose2d(channels, out, 3, stride=2, padding=1, output_padding=1),
}


def space_to_depth(x: Tensor, patch: int) -> Tensor:
    """(B, C, H, W) to (B, C p², H/p, W/p): each p × p square becomes channels of one position."""
    return rearrange(x, "b c (h p) (w q) -> b (c p q) h w", p=patch, q=patch)


def depth_to_space(x: Tensor, patch: int) -> Tensor:
    """The inverse of `space_to_depth`."""
    return rearrange(x, "b (c p q) h w -> b c (h p) (w q)", p=patch, q=patch)
