"""Introduced in task 3; used by tasks 3, 4, 5.

What a network can be told: a class, attributes, a caption, each of which becomes a few tokens, and its null.

`LabelTokens`, `AttributeTokens` and `TextTokens` each name the keys of cond that they read (`keys`), make tokens of
what is there, and know the value that says nothing (`null`). `always` says whether all of these tokens are there for
every sample, so that nobody needs to look at the mask. How the tokens enter a network is that network's matter.
"""

from typing import Any

import torch
from torch import Tensor, nn

from shared.text.learned import LearnedText

Cond = dict[str, Tensor]


class LabelTokens(nn.Module):
    """One class of several. The null is one more class, which no sample has."""

    keys = ("label",)
    always = True

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
    always = False
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
    always = False

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


def text_tokens(text: dict[str, Any], dim: int, tokens: int, layers: int) -> TextTokens:
    """What reads captions.

    Args:
        text: what is known of them: "text" of `known.known_of`.
        dim: features of a token.
        tokens: that a text of one vector becomes.
        layers: of a text encoder that is trained along.

    Raises:
        ValueError: `dim` features do not divide into the heads of such an encoder.
    """
    if text["width"] is None:
        return TextTokens(LearnedText(text["tokens"], dim, layers, text["length"]))
    if text["pooled"]:
        return PooledTokens(FrozenFeatures(text["width"], dim, tokens))
    return TextTokens(FrozenFeatures(text["width"], dim, 1))


def dropped(
    conditions: nn.ModuleList, cond: Cond, share: float, together: bool = True, open_share: float = 0.0
) -> Cond:
    """The condition with a share of the samples told nothing, chosen one by one (Ho and Salimans 2022, algorithm 1).

    Args:
        conditions: what reads it; each knows its null. What is said, or modules that hold it as `said`.
        cond: of a batch of B samples.
        share: of the samples, 0 to 1.
        together: drop all conditions of a sample, or each for itself.
        open_share: share of the samples of which some attributes are left open besides.
    """
    kept = dict(cond)
    for condition in conditions:
        said = getattr(condition, "said", condition)
        if open_share and isinstance(said, AttributeTokens):
            kept["attributes"] = said.partly(cond["attributes"], open_share)
    chosen = None
    for condition in conditions:
        first = cond[condition.keys[0]]
        if chosen is None or not together:
            chosen = torch.rand(len(first), device=first.device) < share  # (B,)
        for name, null in condition.null(cond).items():
            kept[name] = torch.where(chosen.view(-1, *[1] * (null.ndim - 1)), null, kept[name])
    return kept
