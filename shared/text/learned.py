"""Introduced in task 3; used by tasks 3, 4, 5.

A small text encoder, trained along with the network whose captions it reads.
"""

import torch
from torch import Tensor, nn


class LearnedText(nn.Module):
    """A transformer over the words of a caption (Vaswani 2017), normalised before each part (Xiong 2020, figure 1b)."""

    def __init__(self, tokens: int, dim: int, layers: int, length: int, heads: int = 4):
        """For captions of at most `length` words out of `tokens`, to `dim` features a word; `heads` must divide `dim`.

        Raises:
            ValueError: `heads` do not divide `dim`.
        """
        super().__init__()
        if dim % heads:
            raise ValueError(f"{dim} features of a word do not divide into {heads} attention heads")
        self.words = nn.Embedding(tokens, dim)
        self.positions = nn.Embedding(length, dim)
        nn.init.normal_(self.positions.weight, std=0.02)  # at first a word is the same wherever it stands
        self.layers = nn.ModuleList(  # not nn.TransformerEncoder: it makes all layers copies of one
            nn.TransformerEncoderLayer(dim, heads, 4 * dim, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim)
        for embedding in (self.words, self.positions):  # small beside what a layer adds: learned sooner
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Word numbers (B, N) long, and which of them count (B, N) bool, to features (B, N, dim).

        The features of a word depend on the words that count. Where none counts, all do: a softmax over nothing is NaN,
        and without a caption nobody looks at the result.
        """
        x = self.words(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))  # (B, N, dim)
        silent = ~mask & mask.any(dim=1, keepdim=True)  # (B, N)
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=silent)  # (B, N, dim)
        return self.norm(x)
