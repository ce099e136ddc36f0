"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

From a time, one number, to a vector that every block of a network is told.
"""

import math

import torch
from torch import Tensor, nn


def sinusoidal(t: Tensor, dim: int, longest: float = 10_000.0) -> Tensor:
    """Cosines and sines of t at dim / 2 frequencies falling from 1 towards 1 / longest (Vaswani 2017, 3.5).

    Args:
        t: (B,) times, any range.
        dim: length of the embedding, even.
        longest: inverse of the frequency that the falling ends short of.

    Returns:
        (B, dim) float32.
    """
    powers = torch.arange(dim // 2, device=t.device, dtype=torch.float32) / (dim // 2)
    phase = t.float()[:, None] * torch.exp(-math.log(longest) * powers)  # (B, dim/2)
    return torch.cat([phase.cos(), phase.sin()], dim=1)


class TimeEmbedding(nn.Module):
    """Sinusoidal features, near for near times, and a small network over them. DDPM, appendix B."""

    def __init__(self, dim: int, out: int, dropout: float = 0.0):
        """`dim` (even) sinusoidal features to `out` learned ones, a share `dropout` dropped in training."""
        super().__init__()
        if dim % 2:
            raise ValueError(f"a sinusoidal embedding has a sine and a cosine a frequency: {dim} features are not even")
        self.dim = dim
        self.mlp = nn.Sequential(nn.Linear(dim, out), nn.SiLU(), nn.Linear(out, out), nn.Dropout(dropout))

    def forward(self, t: Tensor) -> Tensor:
        """(B,) times to (B, out)."""
        features = sinusoidal(t, self.dim)  # (B, dim)
        return self.mlp(features.to(self.mlp[0].weight.dtype))  # (B, out)
