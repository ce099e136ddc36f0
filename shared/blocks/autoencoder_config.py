"""Introduced in task 2; used by tasks 2, 4, 5.

What can be configured about an autoencoder; free of torch, so that `--help` answers at once.
"""

from dataclasses import dataclass, field
from typing import Literal

from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveInt

from shared.blocks.config import AttentionKind, Blocks, Decay, DownKind


@dataclass
class VQConfig:
    """The codebook of a vector-quantised autoencoder."""

    codes: PositiveInt = 512
    """vectors in the codebook"""
    decay: Decay = 0.99
    """how much of a code's running mean a training step keeps; the codebook is learnt by these means alone"""
    commitment: NonNegativeFloat = 0.25
    """weight of the pull of the encoder's outputs towards their codes: beta in the paper's eq. (3)"""
    revive_below: Decay = 0.1
    """a code used less than this share of the mean use is replaced by an output of the encoder"""


@dataclass
class AutoencoderConfig:
    """Width, depth and kind of every part. Level 0 has the full resolution (after the stem), the last the latents'."""

    width: PositiveInt = 32
    """channels at level 0"""
    multipliers: tuple[PositiveInt, ...] = (1, 2)
    """channels of each level, in widths; their number is the number of levels, each half as large as the one before"""
    blocks: Blocks = 1
    """residual blocks a level, in the encoder and again in the decoder"""
    attention: tuple[AttentionKind, ...] = ("none", "none")
    """attention after each residual block, level by level"""
    middle_attention: AttentionKind = "full"
    """attention between the two residual blocks at the latents' resolution"""
    heads: PositiveInt = 4
    """attention heads"""
    patch: PositiveInt = 2
    """side of the squares that the stem folds into channels; 1 is a plain stem, 2 costs a quarter"""
    down: DownKind = "average"
    """how a level of the encoder hands on to the next lower one"""
    up: Literal["nearest", "bilinear", "transposed"] = "nearest"
    """how a level of the decoder is enlarged: before a convolution, or by a transposed one, which leaves its mark"""
    tanh: bool = False
    """bend the decoder's output into [-1, 1]"""
    dropout: ClosedUnitInterval = 0.0
    """share of a residual block's features dropped in training"""
    latent_channels: PositiveInt = 4
    """numbers at each position of the latents"""
    bottleneck: Literal["kl", "vq"] = "kl"
    """what is between encoder and decoder: a normal distribution, or the nearest vector of a codebook"""
    vq: VQConfig = field(default_factory=VQConfig)

    @property
    def compression(self) -> int:
        """How many times smaller than the image's the sides of the latents are."""
        return self.patch * 2 ** (len(self.multipliers) - 1)
