"""Introduced in task 3; used by tasks 3, 4, 5.

Captions as word numbers, for a text encoder that is trained along with the network: it learns the words of its data.

A word is what stands between spaces and punctuation, in lower case. Chinese and Japanese put no spaces, and a character
of theirs says about as much as a word: each counts as one. Punctuation is dropped; what else stands for something,
such as # or +, is a word of its own.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from shared.errors import UserError
from shared.text.captions import check_captions, check_length, quoted

ALONE = re.compile(
    "[\u3005\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)  # kana, hanzi
SIGNS = frozenset("#%&*@")  # that Unicode counts as punctuation
LISTED = 20  # words in a message
LONGEST = 1_000_000  # words that a vocabulary of a stranger's file may hold


def words(caption: str) -> list[str]:
    """The words of a caption, in its order."""
    found: list[str] = []
    inside = False  # whether a next letter goes on with the last word
    folded = unicodedata.normalize("NFKC", caption).casefold()  # full-width forms are the same letters
    for character in folded:
        kind = unicodedata.category(character)[0]  # L a letter, M an accent on it, N a digit, S a symbol
        alone = kind == "S" or character in SIGNS or (kind in "LN" and ALONE.match(character) is not None)
        if not alone and inside and kind in "LMN":
            found[-1] += character
            continue
        inside = not alone and kind in "LN"
        if alone or inside:
            found.append(character)
    return found


class WordReader:
    """Captions to numbers of words. 0 stands where a caption has ended, 1 is the vocabulary's first word."""

    width = None

    def __init__(self, vocabulary: Iterable[str], length: int):
        """`vocabulary`, no word twice; captions of `length` words at most."""
        self.vocabulary, self.length = list(vocabulary), length
        self.numbers = {word: n for n, word in enumerate(self.vocabulary, 1)}
        self.tokens = len(self.vocabulary) + 1

    @classmethod
    def learned(cls, captions: Sequence[str], length: int) -> "WordReader":
        """With every word of these captions. Raises UserError if one of them is empty or no text."""
        check_captions(captions)
        return cls(sorted({word for caption in captions for word in words(caption)}), length)

    def to(self, device: torch.device | str) -> "WordReader":
        """There is nothing to compute."""
        return self

    def numbered(self, caption: str) -> list[int]:
        """The numbers of a caption's words.

        Raises:
            UserError: it has none, too many, or one that is not in the vocabulary.
        """
        found = words(caption)
        if not found:
            raise UserError(f"the caption {quoted(caption)} holds no word: say in words what is to be seen")
        check_length(caption, len(found), self.length)
        for word in found:
            if word not in self.numbers:
                known = ", ".join(self.vocabulary[:LISTED]) + (", …" if len(self.vocabulary) > LISTED else "")
                raise UserError(
                    f"the caption {quoted(caption)} holds the word {quoted(word)}, which the model has not learned; "
                    f"it knows {len(self.vocabulary)}: {known}"
                )
        return [self.numbers[word] for word in found]

    def read(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """{"text": (B, N) long, "text_mask": (B, N) bool}, N the longest one's words.

        Raises:
            UserError: a caption is empty, too long, or holds a word that is not in the vocabulary.
        """
        check_captions(captions)
        rows = [torch.tensor(self.numbered(caption)) for caption in captions]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)  # with 0
        return {"text": ids, "text_mask": ids > 0}

    def facts(self) -> dict[str, Any]:
        """What `rebuilt` needs."""
        return {"encoder": "learned", "length": self.length, "vocabulary": self.vocabulary}

    @classmethod
    def rebuilt(cls, facts: dict[str, Any]) -> "WordReader":
        """The reader of these facts, which may come from anywhere. Raises ValueError if they hold no vocabulary."""
        vocabulary = facts.get("vocabulary")
        if not isinstance(vocabulary, list) or not 0 < len(vocabulary) <= LONGEST:
            raise ValueError("there is no vocabulary")
        if not all(isinstance(word, str) and words(word) == [word] for word in vocabulary):
            raise ValueError("the vocabulary does not consist of words")
        if len(set(vocabulary)) < len(vocabulary):
            raise ValueError("the vocabulary holds a word twice")
        return cls(vocabulary, facts.get("length"))  # whoever knows the config looks at it
