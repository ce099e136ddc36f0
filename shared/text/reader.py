"""Introduced in task 3; used by tasks 3, 4, 5.

Text as a condition: captions are read once, before training, by a frozen encoder or into word numbers.

A caption becomes tokens, one for each word or part of one, with a mask that says which are there: captions in a batch
differ in length. The network attends to the tokens; it never sees letters.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from shared.datasets.images import Item
from shared.errors import UserError
from shared.text.cache import Features, features_of
from shared.text.config import TextConfig
from shared.text.encoders import load_encoder
from shared.text.frozen import FrozenReader
from shared.text.learned import LearnedText
from shared.text.vocabulary import WordReader

__all__ = ["Described", "LearnedText", "Reader", "build_reader", "described", "rebuilt_reader"]


class Reader(Protocol):
    """Turns captions into what a network is given."""

    width: int | None  # features of a token of a frozen encoder; None: it gives token ids, which the network embeds
    tokens: int  # size of the vocabulary where width is None

    def read(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """{"text": (B, N, width) float32 or (B, N) long, "text_mask": (B, N) bool}, on the CPU; N ≤ config.length.

        Raises:
            UserError: a caption is empty, too long, or in words that this reader does not know.
        """

    def facts(self) -> dict[str, Any]:
        """What a checkpoint holds, as JSON, for `rebuilt_reader`."""

    def to(self, device: torch.device | str) -> "Reader":
        """Compute on this device."""


def build_reader(config: TextConfig, captions: list[str]) -> Reader:
    """The reader that a config names; one that is trained along learns the words of these captions.

    Raises:
        UserError: there is no such encoder, a package is missing, or the config contradicts itself.
    """
    if config.encoder != "learned":
        return FrozenReader(config.encoder, load_encoder(config.encoder), config.pooled, config.length)
    if config.pooled:
        raise UserError("text.pooled is for a frozen text encoder: one that is trained along gives all of its words")
    return WordReader.learned(captions, config.length)


def rebuilt_reader(config: TextConfig, facts: dict[str, Any], source: Path) -> Reader:
    """The reader with whose facts the network in `source` was trained.

    Args:
        config: which encoder, by the name it has here.
        facts: of the reader in training; they may come from anywhere.
        source: for messages.

    Raises:
        UserError: the encoder is another one, or is not there, or the facts are none of a reader.
    """
    if not isinstance(facts, dict) or (facts.get("encoder") == "learned") != (config.encoder == "learned"):
        raise UserError(f"{source} does not say which text encoder it was trained with: give another")
    if config.encoder == "learned":
        try:
            reader: Reader = WordReader.rebuilt(facts)
        except ValueError as error:
            raise UserError(f"{source} holds no words of a text encoder ({error}): give another") from None
    else:
        reader = build_reader(config, [])
    own = reader.facts()
    if facts.get("fingerprint") != own.get("fingerprint"):
        raise UserError(
            f"{source} was trained with another text encoder than {config.encoder} is here: put that one in its place"
        )
    if {**facts, "encoder": config.encoder} != own or own["length"] != config.length:  # a path may have changed
        raise UserError(f"{source} was trained with another text.pooled or text.length than its config says")
    return reader


class Ids:
    """Word numbers by the number of a caption, in memory."""

    def __init__(self, text: Tensor, mask: Tensor):
        """`text` (M, N) long and `mask` (M, N) bool, of M captions."""
        self.text, self.mask = text, mask

    def __len__(self) -> int:
        return len(self.text)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        """(N,) and (N,)."""
        return self.text[i], self.mask[i]


class Described(Dataset):
    """A captioned data set whose items hold, for cond["caption"], the caption's "text" and "text_mask".

    They are as long as the longest caption's, so that items can be stacked. What else the data set has, such as its
    classes, it still has.
    """

    def __init__(self, data: Dataset, table: Features | Ids):
        """`table` has the text of every caption of `data`."""
        self.data, self.table = data, table

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> Item:
        x, cond = self.data[i]
        cond = dict(cond)
        caption = int(cond.pop("caption"))
        if not 0 <= caption < len(self.table):
            raise UserError(
                f"item {i} of the data set has caption {caption}; it has captions 0 … {len(self.table) - 1}"
            )
        text, mask = self.table[caption]
        return x, {**cond, "text": text, "text_mask": mask}

    def __getattr__(self, name: str) -> Any:
        if name == "data":  # an object that is being unpickled has none yet
            raise AttributeError(name)
        return getattr(self.data, name)


def described(data: Dataset, reader: Reader, config: TextConfig) -> Described:
    """A captioned data set with all its captions read; features of a frozen encoder come from the cache if they can.

    Raises:
        UserError: the data set has no captions, or one of them cannot be read.
        OSError: the cache cannot be written.
    """
    captions = getattr(data, "captions", None)
    if not captions:
        raise UserError("the data set has no captions: text needs captioned_digits, captions or emoji")
    if isinstance(reader, FrozenReader):
        cache = Path(os.path.expanduser(config.cache)) if config.cache else None
        return Described(data, features_of(reader, captions, cache))
    read = reader.read(captions)
    return Described(data, Ids(read["text"], read["text_mask"]))
