"""Introduced in task 3; used by tasks 3, 5.

The three blocks by which features of an image listen to a condition. Each adds nothing at the start.

A network that has just been built is therefore the unconditional one, and learns to listen from there.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from shared.blocks.attention import Attention
from shared.blocks.embeddings import sinusoidal
from shared.blocks.resnet import Context, group_norm, zeroed
from shared.blocks.stage import Stage, stage


def positions(x: Tensor) -> Tensor:
    """Where each position of (B, C, H, W) lies: (C, H, W), half of the features for its row, half for its column."""
    channels, height, width = x.shape[1:]
    half = channels // 2
    # Image sides in units of 1: rows and columns from 0 to 100, so that neighbours differ in the fast features and
    # halves of the image in the slow ones, whatever its size.
    rows = sinusoidal(torch.arange(height, device=x.device) * 100 / height, half - half % 2)  # (H, half)
    columns = sinusoidal(torch.arange(width, device=x.device) * 100 / width, half - half % 2)  # (W, half)
    both = torch.cat([rows.T[:, :, None].expand(-1, -1, width), columns.T[:, None].expand(-1, height, -1)])
    return F.pad(both, (0, 0, 0, 0, 0, channels - len(both))).to(x.dtype)


class AdaptiveGroupNorm(nn.Module):
    """Normalised features, scaled and shifted by what a condition says; added to the input.

    Dhariwal and Nichol 2021, eq. (1), with a projection of its own: the time has that of the residual block.
    """

    def __init__(self, channels: int, dim: int):
        """For `channels` features, told a vector of `dim` numbers."""
        super().__init__()
        self.norm = group_norm(channels)
        self.project = zeroed(nn.Linear(dim, 2 * channels))

    def forward(self, x: Tensor, c: Context) -> Tensor:
        """(B, C, H, W) to the same."""
        scale, shift = self.project(F.silu(c.told))[..., None, None].chunk(2, dim=1)  # each (B, C, 1, 1)
        return x + torch.addcmul(shift, self.norm(x), scale)


class CrossAttention(nn.Module):
    """Every position of an image asks, the tokens of a condition answer (Rombach 2022, section 3.3).

    Over a single token a softmax is 1 whatever was asked: all positions get the same answer, a constant shift. Two
    tokens are the least.
    """

    def __init__(self, channels: int, heads: int, dim: int):
        """`heads` must divide `channels`; tokens have `dim` features."""
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels do not divide into {heads} attention heads")
        self.heads = heads
        self.norm = group_norm(channels)
        self.query = nn.Conv2d(channels, channels, 1)
        self.token_norm = nn.LayerNorm(dim)
        self.keys_values = nn.Linear(dim, 2 * channels)
        self.out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor, c: Context) -> Tensor:
        """(B, C, H, W) to the same, looking at c.tokens (B, N, D) where c.token_mask (B, N) allows."""
        asked = self.norm(x) + positions(x)  # in pure noise nothing else tells left from right
        q = rearrange(self.query(asked), "b (n d) h w -> b n (h w) d", n=self.heads)
        k, v = rearrange(
            self.keys_values(self.token_norm(c.tokens)), "b m (two n d) -> two b n m d", two=2, n=self.heads
        )  # each (B, heads, N, C / heads)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=c.token_mask[:, None, None])  # (B, heads, HW, d)
        return x + self.out(rearrange(mixed, "b n (h w) d -> b (n d) h w", h=x.shape[2]))


class TokenAttention(Attention):
    """Self-attention whose sequence goes on after the positions of the image: with the tokens of a condition.

    GLIDE (Nichol 2021, section 3): tokens are projected to keys and values beside those of the image.
    """

    def __init__(self, channels: int, heads: int, dim: int):
        """`heads` must divide `channels`; tokens have `dim` features."""
        super().__init__(channels, heads)
        self.token_norm = nn.LayerNorm(dim)
        self.keys_values = nn.Linear(dim, 2 * channels)

    def forward(self, x: Tensor, c: Context) -> Tensor:
        """(B, C, H, W) to the same, looking at itself and at c.tokens (B, N, D) where c.token_mask (B, N) allows."""
        qkv = self.qkv(self.norm(x))  # (B, 3C, H, W)
        q, k, v = rearrange(qkv, "b (three n d) h w -> three b n (h w) d", three=3, n=self.heads)
        said = rearrange(
            self.keys_values(self.token_norm(c.tokens)), "b m (two n d) -> two b n m d", two=2, n=self.heads
        )  # (2, B, heads, N, d)
        k, v = torch.cat([k, said[0]], dim=2), torch.cat([v, said[1]], dim=2)  # (B, heads, HW + N, d)
        mask = torch.cat([c.token_mask.new_ones(len(x), q.shape[2]), c.token_mask], dim=1)  # (B, HW + N)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])  # (B, heads, HW, d)
        return x + self.out(rearrange(mixed, "b n (h w) d -> b (n d) h w", h=x.shape[2]))


def conditional_stage(
    before: int,
    after: int,
    kind: str,
    heads: int,
    *,
    ways: set[str],
    dim: int,
    context: int | None = None,
    dropout: float = 0.0,
) -> Stage:
    """A stage of the U-Net, and after it the blocks that listen.

    Adaptive norms come with every stage; attention to tokens where the stage has attention, because it costs as much.

    Args:
        before, after, kind, heads, context, dropout: as for `stage`.
        ways: in which a condition enters, of "adaptive", "cross_attention", "token"; others need no block.
        dim: features of the condition's vector and tokens.

    Raises:
        ValueError: `heads` do not divide `after`.
    """
    if "token" in ways and kind != "none":
        parts = [*stage(before, after, "none", heads, context=context, dropout=dropout)]
        parts.append(TokenAttention(after, heads, dim))
    else:
        parts = [*stage(before, after, kind, heads, context=context, dropout=dropout)]
    if "cross_attention" in ways and kind != "none":
        parts.append(CrossAttention(after, heads, dim))
    if "adaptive" in ways:
        parts.append(AdaptiveGroupNorm(after, dim))
    return Stage(*parts)
