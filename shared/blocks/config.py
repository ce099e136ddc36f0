"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

What can be configured about the U-Net and its parts; free of torch, so that `--help` answers at once.
"""

from dataclasses import dataclass
from typing import Literal

from jsonargparse.typing import ClosedUnitInterval, PositiveInt, restricted_number_type

Decay = restricted_number_type("Decay", float, [(">=", 0), ("<", 1)])
Blocks = restricted_number_type("Blocks", int, [(">", 0), ("<=", 100)])  # a stranger's config may ask for any number

AttentionKind = Literal["none", "linear", "full"]
DownKind = Literal["average", "max", "stride"]


@dataclass
class UNetConfig:
    """Width, depth and kind of every part of the U-Net. Level 0 has the full resolution (after the stem)."""

    width: PositiveInt = 64
    """channels at level 0"""
    multipliers: tuple[PositiveInt, ...] = (1, 2)
    """channels of each level, in widths; their number is the number of levels"""
    blocks: Blocks = 1
    """residual blocks a level, on the way down and again on the way up"""
    attention: tuple[AttentionKind, ...] = ("none", "none")
    """attention after each residual block, level by level"""
    middle_attention: AttentionKind = "full"
    """attention between the two residual blocks at the bottom"""
    heads: PositiveInt = 4
    """attention heads"""
    patch: PositiveInt = 1
    """side of the squares that the stem folds into channels; 1 is a plain stem, 2 costs a quarter"""
    down: DownKind = "average"
    """how a level hands on to the next lower one"""
    up: Literal["nearest", "bilinear"] = "nearest"
    """how a level is enlarged on the way up, before a convolution"""
    dropout: ClosedUnitInterval = 0.0
    """share of a residual block's features dropped in training"""
    time_dropout: ClosedUnitInterval = 0.0
    """share of the time embedding's features dropped in training"""
    checkpointing: bool = False
    """compute a block's activations again for the gradient, not keep them: less memory, a third more time"""
