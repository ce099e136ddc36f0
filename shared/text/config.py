"""Introduced in task 3; used by tasks 3, 4, 5.

What can be configured about text; free of torch, so that `--help` answers at once.
"""

from dataclasses import dataclass

from jsonargparse.typing import restricted_number_type

from shared.blocks.config import Blocks

Tokens = restricted_number_type("Tokens", int, [(">", 0), ("<=", 10_000)])  # a stranger's config may ask for any number


@dataclass
class TextConfig:
    """What reads the captions."""

    encoder: str = "minilm"
    """minilm (frozen; inside a package, needs no download), learned (small, trained along), or a Hugging Face model's
    name or folder (frozen)"""
    pooled: bool = False
    """of a frozen encoder: one vector for a caption, not one for each of its tokens; of CLIP's, what it compares with
    images before projecting it, of others the mean over the tokens"""
    length: Tokens = 32
    """tokens of a caption, at most, with those that an encoder adds at its ends; a longer one is an error"""
    layers: Blocks = 2
    """of the learned encoder"""
    cache: str | None = "cache/text"
    """folder where the features of frozen encoders are kept; none: they are computed for every run"""
