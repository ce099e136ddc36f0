"""Introduced in task 4; used by tasks 4, 5.

What can be configured about the transformer; free of torch, so that `--help` answers at once.
"""

from dataclasses import dataclass
from typing import Literal

from jsonargparse.typing import PositiveInt

from shared.blocks.config import Blocks

Conditioning = Literal["adaln_zero", "adaln", "cross_attention", "in_context", "adaln_cross"]


@dataclass
class DiTConfig:
    """Size and kind of the transformer."""

    size: Literal["S", "B", "L", "XL"] | None = None
    """one of the paper's: it sets width, depth and heads"""
    width: PositiveInt = 128
    """features of a token"""
    depth: Blocks = 6
    """blocks"""
    heads: PositiveInt = 4
    """attention heads"""
    patch: PositiveInt = 4
    """side of the squares that become a token each; half of it costs more than four times as much"""
    mlp_ratio: PositiveInt = 4
    """hidden features of a block's feed-forward network, in widths"""
    conditioning: Conditioning = "adaln_zero"
    """how time and condition enter a block: adaln_zero, adaln (norms told by a vector), cross_attention, in_context
    (tokens), adaln_cross (time and mean by the norms, every token by cross-attention; for text)"""
    positions: Literal["sincos", "rotary"] = "sincos"
    """where a token lies: sines and cosines added to it once, or its queries and keys turned in every block"""
    qk_norm: bool = False
    """normalise queries and keys: attention cannot grow without bound"""
    checkpointing: bool = False
    """compute a block's activations again for the gradient, not keep them: less memory, a third more time"""
