"""Introduced in task 3; used by tasks 3, 4, 5.

What reads captions with a frozen text encoder.
"""

import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from shared.errors import UserError
from shared.text.captions import check_captions, check_length, quoted
from shared.text.encoders import Encoder
from shared.training.checkpoint import digest

PROBE = "A photo of 3 naïve Sevens! 左边是红色的三"  # tokenizers that read it alike read alike


class FrozenReader:
    """Captions to features of a frozen encoder: its last hidden states, or one vector for a caption.

    They are rounded to float16, in which they are cached: a caption has the same features in training and sampling.
    """

    tokens = 0

    def __init__(self, name: str, encoder: Encoder, pooled: bool, length: int):
        """`name` is the config's; captions of `length` tokens at most, those that the encoder adds included."""
        self.name, self.encoder, self.pooled, self.length = name, encoder, pooled, length
        self.width: int = encoder.model.config.hidden_size

    def to(self, device: torch.device | str) -> "FrozenReader":
        """Compute on this device; features come back to the CPU."""
        self.encoder.model.to(device)
        return self

    @cached_property
    def fingerprint(self) -> str:
        """A digest of weights and vocabulary; names are left out, as they change with the library's version."""
        tokenizer = self.encoder.tokenizer
        read = json.dumps([sorted(tokenizer.get_vocab().items()), tokenizer(PROBE)["input_ids"]])
        return digest(" ".join([*map(digest, self.encoder.model.parameters()), digest(read)]))

    def facts(self) -> dict[str, Any]:
        """What tells whether another reader gives the same features."""
        about = {"encoder": self.name, "fingerprint": self.fingerprint}
        return about | {"pooled": self.pooled, "length": self.length}

    def numbered(self, captions: Sequence[str]) -> list[list[int]]:
        """The token ids of each caption, with those that the encoder adds.

        Raises:
            UserError: a caption is empty, too long, or mostly made of what the encoder's vocabulary does not hold.
        """
        check_captions(captions)
        tokenizer = self.encoder.tokenizer
        answer = tokenizer(list(captions), truncation=False, return_special_tokens_mask=True, verbose=False)
        for caption, ids, added in zip(captions, answer["input_ids"], answer["special_tokens_mask"], strict=True):
            check_length(caption, len(ids), self.length, self.encoder.limit, self.name)
            own = [i for i, is_added in zip(ids, added, strict=True) if not is_added]
            if 2 * sum(i == tokenizer.unk_token_id for i in own) >= len(own):
                raise UserError(
                    f"{self.name} does not know half of the words of the caption {quoted(caption)}: choose an encoder "
                    "of its language, or text.encoder learned"
                )
        return answer["input_ids"]

    @torch.no_grad()
    def read(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """{"text": (B, N, width) float32, "text_mask": (B, N) bool}, on the CPU; N the longest one's tokens, or 1.

        Raises:
            UserError: as for `numbered`; or features are too large for float16.
        """
        model, rows = self.encoder.model, [torch.tensor(ids) for ids in self.numbered(captions)]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(model.device)  # with 0, which the mask hides
        mask = torch.tensor([len(row) for row in rows])[:, None] > torch.arange(ids.shape[1])  # (B, N)
        output = model(input_ids=ids, attention_mask=mask.long().to(ids.device))
        text = output.last_hidden_state  # (B, N, width)
        if self.pooled:
            text, mask = self.encoder.pool(output, mask.to(ids.device))[:, None], mask[:, :1]  # (B, 1, width)
        text = text.cpu().half().masked_fill(~mask[..., None], 0)
        if not text.isfinite().all():
            raise UserError(f"{self.name} gives features that are not finite in float16: choose another text.encoder")
        return {"text": text.float(), "text_mask": mask}
