"""What a network can be told, and the ways in which it enters.

*What* is said, a class, attributes, a caption, becomes a few tokens: `LabelTokens`, `AttributeTokens`, `TextTokens`.
Each knows its own null, the value that says nothing. *How* it enters the network is a `Condition`: a small class that
puts what it is told into the `Context` which every block is given, or beside the image. One config word chooses it.
"""

from typing import Any

import torch
from torch import Tensor, nn

from shared.blocks.resnet import Context
from task3_conditional.config import ConditionConfig
from task3_conditional.text_learned import LearnedText

Cond = dict[str, Tensor]


# --- what is said ---------------------------------------------------------------------------------------------


class LabelTokens(nn.Module):
    """One class of several. The null is one more class, which no sample has."""

    keys = ("label",)

    def __init__(self, classes: int, dim: int, tokens: int):
        """Each of `classes` becomes `tokens` tokens of `dim` features."""
        super().__init__()
        self.classes, self.tokens = classes, tokens
        self.embed = nn.Embedding(classes + 1, tokens * dim)

    def null(self, cond: Cond) -> Cond:
        """As many labels that say nothing."""
        return {"label": torch.full_like(cond["label"], self.classes)}

    def forward(self, cond: Cond) -> tuple[Tensor, Tensor]:
        """cond["label"] (B,) to tokens (B, N, D), and which of them count (B, N)."""
        tokens = self.embed(cond["label"]).unflatten(1, (self.tokens, -1))  # (B, N, D)
        return tokens, tokens.new_ones(tokens.shape[:2], dtype=torch.bool)


class AttributeTokens(nn.Module):
    """Several questions, each answered by no (0), yes (1) or nothing (2): any of them may be left open.

    The null leaves all of them open. An open one gives no token, so that a few answers count as much as many.
    """

    keys = ("attributes",)
    OPEN = 2

    def __init__(self, attributes: int, dim: int):
        """Each of `attributes` becomes a token of `dim` features."""
        super().__init__()
        self.embed = nn.Embedding(3 * attributes, dim)  # a third of it, the open ones', is never looked at
        self.register_buffer("first", 3 * torch.arange(attributes), persistent=False)

    def null(self, cond: Cond) -> Cond:
        """As many attributes that say nothing."""
        return {"attributes": torch.full_like(cond["attributes"], self.OPEN)}

    def forward(self, cond: Cond) -> tuple[Tensor, Tensor]:
        """cond["attributes"] (B, A) in {0, 1, 2} to tokens (B, A, D), and which of them count (B, A)."""
        answers = cond["attributes"]
        return self.embed(self.first + answers), answers != self.OPEN  # (B, A, D), (B, A)

    def partly(self, answers: Tensor, share: float) -> Tensor:
        """Answers (B, A) of which, in a share of the samples, a random part is left open: from none to all of them."""
        chosen = torch.rand(len(answers), 1, device=answers.device) < share  # (B, 1)
        part = torch.rand(len(answers), 1, device=answers.device)  # (B, 1)
        return torch.where(chosen & (torch.rand(answers.shape, device=answers.device) < part), self.OPEN, answers)


class TextTokens(nn.Module):
    """A caption: features of a frozen encoder, or ids that are embedded here. The null is no token at all."""

    keys = ("text", "text_mask")

    def __init__(self, read: nn.Module):
        """`read` makes tokens (B, N, D) of cond["text"] and cond["text_mask"]."""
        super().__init__()
        self.read = read

    def null(self, cond: Cond) -> Cond:
        """As many captions that say nothing."""
        return {name: torch.zeros_like(cond[name]) for name in self.keys}

    def forward(self, cond: Cond) -> tuple[Tensor, Tensor]:
        """cond["text"] (B, N, …) and cond["text_mask"] (B, N) to tokens (B, N, D) and that mask."""
        return self.read(cond["text"], cond["text_mask"]), cond["text_mask"]


class FrozenFeatures(nn.Module):
    """Features of a frozen encoder, brought to the network's size."""

    def __init__(self, width: int, dim: int, tokens: int):
        """A feature of `width` numbers becomes `tokens` tokens: more than one where it stands for a whole caption."""
        super().__init__()
        self.tokens, self.norm, self.project = tokens, nn.LayerNorm(width), nn.Linear(width, tokens * dim)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """(B, N, width) to (B, N · tokens, D)."""
        return self.project(self.norm(features)).unflatten(2, (self.tokens, -1)).flatten(1, 2)


class PooledTokens(TextTokens):
    """A caption of which the encoder gives one vector: it becomes several tokens, all there or none."""

    def forward(self, cond: Cond) -> tuple[Tensor, Tensor]:
        """cond["text"] (B, 1, width) to tokens (B, N, D), and which of them count (B, N)."""
        tokens = self.read(cond["text"], cond["text_mask"])  # (B, N, D)
        return tokens, cond["text_mask"].expand(-1, tokens.shape[1])


# --- how it enters --------------------------------------------------------------------------------------------


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


# --- built from the config ------------------------------------------------------------------------------------

WAYS = {
    "vanilla": lambda said, dim, context: Vanilla(said, dim, context),
    "adaptive": lambda said, dim, context: Adaptive(said, dim),
    "token": lambda said, dim, context: Sequence(said, dim),
    "cross_attention": lambda said, dim, context: Sequence(said, dim),
    "cross_attention_pooled": lambda said, dim, context: Pooled(said, dim, context),
}


def text_tokens(config: ConditionConfig, text: dict[str, Any], layers: int) -> TextTokens:
    """What reads the captions that a `Reader` of these facts gives."""
    if text["width"] is None:
        return TextTokens(LearnedText(text["tokens"], config.dim, layers, text["length"]))
    if text["pooled"]:
        return PooledTokens(FrozenFeatures(text["width"], config.dim, config.tokens))
    return TextTokens(FrozenFeatures(text["width"], config.dim, 1))


def build_conditions(config: ConditionConfig, known: dict[str, Any], context: int, layers: int = 2) -> nn.ModuleList:
    """The conditions that a config asks for.

    Args:
        config: what is told in which way.
        known: what can be said: "classes" and "attributes" (lists of names), "text" (facts of the reader), "image"
            (channels).
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
        conditions.append(WAYS[config.text](text_tokens(config, known["text"], layers), dim, context))
    if config.image != "none":
        conditions.append(Concatenation())
    return conditions


def dropped(
    conditions: nn.ModuleList, cond: Cond, share: float, together: bool = True, open_share: float = 0.0
) -> Cond:
    """The condition with a share of the samples told nothing, chosen one by one (Ho and Salimans 2022, algorithm 1).

    Args:
        conditions: what reads it; each knows its null.
        cond: of a batch of B samples.
        share: of the samples, 0 to 1.
        together: drop all conditions of a sample, or each for itself.
        open_share: share of the samples of which some attributes are left open besides.
    """
    kept = dict(cond)
    for condition in conditions:
        if open_share and isinstance(getattr(condition, "said", None), AttributeTokens):
            kept["attributes"] = condition.said.partly(cond["attributes"], open_share)
    chosen = None
    for condition in conditions:
        first = cond[condition.keys[0]]
        if chosen is None or not together:
            chosen = torch.rand(len(first), device=first.device) < share  # (B,)
        for name, null in condition.null(cond).items():
            kept[name] = torch.where(chosen.view(-1, *[1] * (null.ndim - 1)), null, kept[name])
    return kept
