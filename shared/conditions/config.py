"""Introduced in task 3; used by tasks 3, 5.

What the U-Net can be told, and how. Kept apart from the code that uses it, and free of torch, so that `--help` answers
at once.
"""

from dataclasses import dataclass
from typing import Literal

from jsonargparse.typing import ClosedUnitInterval, PositiveInt

Way = Literal["none", "vanilla", "adaptive", "token", "cross_attention", "cross_attention_pooled"]


@dataclass
class ConditionConfig:
    """What the network is told, and in which way each thing enters it."""

    label: Way = "none"
    """a class, one of several: vanilla (added to the time's embedding), adaptive (norms of its own), token (in
    self-attention's sequence), cross_attention, cross_attention_pooled (and vanilla besides)"""
    attributes: Way = "none"
    """yes or no to each of several questions, as CelebA has them; the same ways"""
    text: Way = "none"
    """a caption; the same ways"""
    image: Literal["none", "concatenation"] = "none"
    """an image as large as the sample, as further channels"""
    dim: PositiveInt = 128
    """features of the vector or of each token that a condition becomes"""
    tokens: PositiveInt = 4
    """tokens that a class or a text of one vector become, besides one that is always there; each attribute is one"""
    dropout: ClosedUnitInterval = 0.1
    """share of the training samples that are told nothing: what they teach is the unconditional model"""
    together: bool = True
    """drop all conditions of a sample, or each for itself"""
    leave_open: ClosedUnitInterval = 0.5
    """share of the training samples of which a random part of the attributes is left open, as a person may do"""

    @property
    def told(self) -> dict[str, str]:
        """What the network is told, of label, attributes, text and image, and in which way."""
        ways = {name: getattr(self, name) for name in ("label", "attributes", "text", "image")}
        return {name: way for name, way in ways.items() if way != "none"}
