"""Introduced in task 3; used by tasks 3, 4, 5.

Features of captions on the disk: files that are mapped into memory, named after all that they are computed from.

A file holds the features of a stretch of captions, their tokens one after the other, without padding. It is written
whole, so that a run which is stopped loses the stretch at hand; a damaged file is noticed and made anew.
"""

import json
import tempfile
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from torch import Tensor
from tqdm import tqdm

from shared.errors import UserError
from shared.text.frozen import FrozenReader
from shared.training.checkpoint import digest, read_facts, read_tensors, write_checkpoint

SHARD = 64 * 2**20  # bytes of features in a file, at most
BATCH = 64  # captions read at a time
FEATURES, LENGTHS = "text.features", "text.lengths"  # (tokens of all captions, width) float16; (captions,) long


class Stretch:
    """Some captions and the file of their features."""

    def __init__(self, folder: Path, reader: FrozenReader, captions: Sequence[str]):
        """In a cache's folder."""
        self.reader, self.captions = reader, captions
        self.key = digest(json.dumps([reader.fingerprint, reader.pooled, reader.length, list(captions)]))
        self.path = folder / f"{self.key}.safetensors"

    def lengths(self) -> list[int] | None:
        """Tokens of each caption, as the file says; None if there is no file of these captions, or it is damaged."""
        try:
            if read_facts(self.path).get("captions") != self.key:
                return None
            there = read_tensors(self.path, "text")
            features, lengths = there["features"], there["lengths"].tolist()
        except (UserError, KeyError):
            return None
        return lengths if features.shape == (sum(lengths), self.reader.width) else None

    def make(self, tell: Callable[[int], object]) -> None:
        """Compute and write the file; `tell` is called with the number of captions after every batch of them."""
        order = sorted(range(len(self.captions)), key=lambda i: len(self.captions[i]))  # alike ones: little padding
        rows: dict[int, Tensor] = {}
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            read = self.reader.read([self.captions[i] for i in batch])
            rows |= {i: t[m].half() for i, t, m in zip(batch, read["text"], read["text_mask"], strict=True)}
            tell(len(batch))
        ordered = [rows[i] for i in range(len(order))]
        tensors = {FEATURES: torch.cat(ordered), LENGTHS: torch.tensor([len(row) for row in ordered])}
        write_checkpoint(self.path, tensors, {"captions": self.key})


class Features:
    """Features by the number of a caption. Can be sent to loader processes: each maps the files itself."""

    def __init__(self, paths: list[Path], lengths: list[list[int]], kept: tempfile.TemporaryDirectory | None = None):
        """In these files, in this order; `kept` is the folder to be removed with this object."""
        self.paths, self._kept, self._opened = paths, kept, {}
        self.places = [
            (number, start, end)
            for number, of_file in enumerate(lengths)
            for start, end in pairwise(accumulate(of_file, initial=0))
        ]
        self.tokens = max(end - start for _, start, end in self.places)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        """(N, width) float32, N the tokens of the longest caption, and (N,) bool, which of them are this one's."""
        number, start, end = self.places[i]
        if number not in self._opened:
            self._opened[number] = opened(self.paths[number])
        text = self._opened[number].get_slice(FEATURES)[start:end].float()
        return F.pad(text, (0, 0, 0, self.tokens - len(text))), torch.arange(self.tokens) < len(text)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_opened": {}, "_kept": None}


def opened(path: Path) -> safe_open:
    """A file of features. Raises UserError if it has gone since it was looked at."""
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError):
        raise UserError(f"{path} was removed or damaged while it was in use: start again") from None


def features_of(reader: FrozenReader, captions: Sequence[str], folder: Path | None) -> Features:
    """The features of all captions: from the cache what is there, the rest computed, with a bar, and put there.

    Args:
        reader: what computes them.
        captions: any number; they are not held in memory.
        folder: the cache, made where it is missing; None for a temporary one.

    Raises:
        UserError: a caption cannot be read; `FrozenReader.numbered` says why.
        OSError: the cache cannot be written.
    """
    kept = tempfile.TemporaryDirectory(prefix="text-") if folder is None else None
    folder = Path(kept.name) if kept else folder
    folder.mkdir(parents=True, exist_ok=True)
    size = max(1, SHARD // (2 * reader.width * (1 if reader.pooled else reader.length)))
    stretches = [Stretch(folder, reader, captions[i : i + size]) for i in range(0, len(captions), size)]
    lengths = [stretch.lengths() for stretch in stretches]
    if None in lengths:
        with FileLock(folder / ".lock"):  # of runs that start together, the first computes
            fill([s for s, known in zip(stretches, lengths, strict=True) if known is None and s.lengths() is None])
        lengths = [known or stretch.lengths() for stretch, known in zip(stretches, lengths, strict=True)]
    return Features([stretch.path for stretch in stretches], lengths, kept)


def fill(missing: list[Stretch]) -> None:
    """Make the files of these stretches."""
    for stretch in missing:
        stretch.reader.numbered(stretch.captions)  # whatever is wrong with a caption, before hours of computing
    total = sum(len(stretch.captions) for stretch in missing)
    with tqdm(total=total, desc="reading captions", unit="caption", leave=False, disable=None) as bar:
        for stretch in missing:
            stretch.make(bar.update)
