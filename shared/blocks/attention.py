"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

Attention over the positions of an image: every position may look at every other, which convolutions cannot.
"""

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from shared.blocks.resnet import Context, group_norm, zeroed


class Attention(nn.Module):
    """Scaled-dot-product attention (Vaswani 2017, eq. 1), added to its input. Cost grows with (H W)²."""

    def __init__(self, channels: int, heads: int):
        """`heads` must divide `channels`."""
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels do not divide into {heads} attention heads")
        self.heads = heads
        self.norm = group_norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor, c: Context) -> Tensor:
        """(B, C, H, W) to the same; the context is not used."""
        qkv = self.qkv(self.norm(x))  # (B, 3C, H, W)
        q, k, v = rearrange(qkv, "b (three n d) h w -> three b n (h w) d", three=3, n=self.heads)
        mixed = self.mix(q, k, v)  # (B, heads, HW, C / heads)
        return x + self.out(rearrange(mixed, "b n (h w) d -> b (n d) h w", h=x.shape[2]))

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Each position's mean of all values, weighted by how its query meets their keys."""
        return F.scaled_dot_product_attention(q, k, v)


class LinearAttention(Attention):
    """Attention whose cost grows with H W: keys and values are summed first, into a (d, d) matrix a head.

    "Efficient attention" (Shen 2021), eq. (4): softmax over positions for keys, over features for queries.
    """

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Each position reads the summary of all the others with its query."""
        summary = k.softmax(dim=-2).transpose(-2, -1) @ v  # (B, heads, d, d)
        return q.softmax(dim=-1) @ summary  # (B, heads, HW, d)


ATTENTION = {"linear": LinearAttention, "full": Attention}
