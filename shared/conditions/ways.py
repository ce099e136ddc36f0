"""Introduced in task 3; used by tasks 3, 5.

The ways in which what a network is told enters it.

*What* is said, a class, attributes, a caption, becomes a few tokens and has a null, see `shared/conditions/said.py`.
*How* it enters the U-Net is a `Condition`: a small class that puts what it is told into the `Context` which every block
is given, or beside the image. One config word chooses it.
"""

from typing import Any

import torch
from torch import Tensor, nn

from shared.blocks.resnet import Context
from shared.conditions.config import ConditionConfig
from shared.conditions.said import AttributeTokens, Cond, LabelTokens, text_tokens


class Condition(nn.Module):
    """One thing that a network is told, in one way."""

    def __init__(self, said: nn.Module, dim: int):
        """`said` makes tokens of `dim` features of what is in the batch's cond."""
        super().__init__()
        self.said = said
        # Always there: what is left where nothing is said, so that no mean and no softmax is over nothing.
        self.begin = nn.Parameter(torch.randn(dim) / dim**0.5)

    @property
    def keys(self) -> tuple[str, ...]:
        """The names in cond that it reads."""
        return self.said.keys

    def null(self, cond: Cond) -> Cond:
        """The values that say nothing, for as many samples."""
        return self.said.null(cond)

    def tokens(self, cond: Cond) -> tuple[Tensor, Tensor]:
        """Tokens (B, 1 + N, D), the first always the same, and which of them count (B, 1 + N)."""
        tokens, mask = self.said(cond)
        begin = self.begin.to(tokens.dtype).expand(len(tokens), 1, -1)
        return torch.cat([begin, tokens], dim=1), torch.cat([mask.new_ones(len(mask), 1), mask], dim=1)

    def vector(self, cond: Cond) -> Tensor:
        """The mean of the tokens that count, (B, D)."""
        tokens, mask = self.tokens(cond)
        weights = mask.to(tokens.dtype)[..., None]
        return (tokens * weights).sum(dim=1) / weights.sum(dim=1)

    def forward(self, x: Tensor, c: Context, cond: Cond) -> tuple[Tensor, Context]:
        """The network's input (B, C, H, W) and its context, with what this condition adds to either."""
        raise NotImplementedError


class Vanilla(Condition):
    """Added to the embedding of the time, which every residual block is told anyway (ADM, section 3)."""

    def __init__(self, said: nn.Module, dim: int, context: int):
        """The time's embedding has `context` numbers."""
        super().__init__(said, dim)
        self.project = nn.Sequential(nn.Linear(dim, context), nn.SiLU(), nn.Linear(context, context))

    def forward(self, x: Tensor, c: Context, cond: Cond) -> tuple[Tensor, Context]:
        """See `Condition`."""
        return x, c._replace(vector=c.vector + self.project(self.vector(cond)))


class Adaptive(Condition):
    """Told to norms of its own, `AdaptiveGroupNorm`. Several such conditions add up."""

    def forward(self, x: Tensor, c: Context, cond: Cond) -> tuple[Tensor, Context]:
        """See `Condition`."""
        vector = self.vector(cond)
        return x, c._replace(told=vector if c.told is None else c.told + vector)


class Sequence(Condition):
    """Tokens for attention to look at: `TokenAttention` or `CrossAttention`. Several such conditions line up."""

    def forward(self, x: Tensor, c: Context, cond: Cond) -> tuple[Tensor, Context]:
        """See `Condition`."""
        tokens, mask = self.tokens(cond)
        if c.tokens is not None:
            tokens, mask = torch.cat([c.tokens, tokens], dim=1), torch.cat([c.token_mask, mask], dim=1)
        return x, c._replace(tokens=tokens, token_mask=mask)


class Pooled(Sequence):
    """Tokens for cross-attention, and their mean added to the embedding of the time (GLIDE, section 3).

    The mean says at once what a caption is about; which of it belongs where is for attention to find out.
    """

    def __init__(self, said: nn.Module, dim: int, context: int):
        """The time's embedding has `context` numbers."""
        super().__init__(said, dim)
        self.project = nn.Sequential(nn.Linear(dim, context), nn.SiLU(), nn.Linear(context, context))

    def forward(self, x: Tensor, c: Context, cond: Cond) -> tuple[Tensor, Context]:
        """See `Condition`."""
        x, c = super().forward(x, c, cond)
        return x, c._replace(vector=c.vector + self.project(self.vector(cond)))


class Concatenation(nn.Module):
    """An image as large as the sample, laid beside it as further channels.

    One channel more says that it is there, so that the null is not mistaken for a grey image.
    """

    keys = ("image",)
    EXTRA = 1  # channels besides the image's own

    def null(self, cond: Cond) -> Cond:
        """As many images that say nothing: not a number, which no image is."""
        return {"image": torch.full_like(cond["image"], torch.nan)}

    def forward(self, x: Tensor, c: Context, cond: Cond) -> tuple[Tensor, Context]:
        """x (B, C, H, W) and cond["image"] (B, C', H, W) to (B, C + C' + 1, H, W)."""
        image = cond["image"]
        there = image.flatten(1).isfinite().all(dim=1).to(x.dtype)[:, None, None, None]  # (B, 1, 1, 1)
        given = torch.nan_to_num(image).to(x.dtype) * there
        return torch.cat([x, given, there.expand(-1, 1, *x.shape[2:])], dim=1), c


WAYS = {
    "vanilla": lambda said, dim, context: Vanilla(said, dim, context),
    "adaptive": lambda said, dim, context: Adaptive(said, dim),
    "token": lambda said, dim, context: Sequence(said, dim),
    "cross_attention": lambda said, dim, context: Sequence(said, dim),
    "cross_attention_pooled": lambda said, dim, context: Pooled(said, dim, context),
}


def build_conditions(config: ConditionConfig, known: dict[str, Any], context: int, layers: int = 2) -> nn.ModuleList:
    """The conditions that a config asks for.

    Args:
        config: what is told in which way.
        known: what can be said, from `known_of`: "classes" and "attributes" (lists of names), "text" (facts of the
            reader), "image" (channels).
        context: length of the time's embedding.
        layers: of a text encoder that is trained along.
    """
    dim, conditions = config.dim, nn.ModuleList()
    if config.label != "none":
        said = LabelTokens(len(known["classes"]), dim, config.tokens)
        conditions.append(WAYS[config.label](said, dim, context))
    if config.attributes != "none":
        said = AttributeTokens(len(known["attributes"]), dim)
        conditions.append(WAYS[config.attributes](said, dim, context))
    if config.text != "none":
        conditions.append(WAYS[config.text](text_tokens(known["text"], dim, config.tokens, layers), dim, context))
    if config.image != "none":
        conditions.append(Concatenation())
    return conditions
