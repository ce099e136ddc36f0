"""Introduced in task 2; used by tasks 2, 4.

Latents on the disk: shards of moments that are mapped into memory, and a latents.json that says whose they are.
"""

import json
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import asdict, replace
from itertools import accumulate
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.utils.data import Dataset

from shared.datasets.images import Tensors
from shared.errors import UserError
from shared.files import write_text, write_whole
from shared.latents.space import IN_MEMORY, STATISTICS, Gauge, Statistics, fingerprint, read_statistics

SHARD = 64 * 2**20  # bytes of moments in a file


class Shards(Dataset):
    """Moments (M, h, w) with their conditions, read from mapped files when asked for. Can be sent to loaders."""

    ranged = False  # moments are no images: [-1, 1] does not hold for them

    def __init__(self, paths: list[Path], owner: str):
        """In this order; all of the autoencoder with this fingerprint."""
        self.paths, self._opened = paths, {}
        sizes = []
        for path in paths:
            with opened(path) as file:
                if "moments" not in file.keys() or (file.metadata() or {}).get("autoencoder") != owner:
                    raise UserError(f"{path} holds no latents of this cache: write it again by task2-encode")
                sizes.append(file.get_slice("moments").get_shape()[0])
        self.ends = list(accumulate(sizes))
        self.shape = tuple(self[0][0].shape)

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, i: int) -> tuple[Tensor, dict[str, Tensor]]:
        shard = bisect_right(self.ends, i)
        if shard not in self._opened:
            self._opened[shard] = opened(self.paths[shard])
        file, place = self._opened[shard], i - (self.ends[shard - 1] if shard else 0)
        values = {name: file.get_slice(name)[place] for name in file.keys()}
        return values.pop("moments"), values

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_opened": {}}  # each process maps the files itself


def opened(path: Path) -> safe_open:
    """A shard. Raises UserError if it is none."""
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError):
        raise UserError(
            f"{path} is not a shard of latents, or is damaged: write the cache again by task2-encode"
        ) from None


def write_cache(
    folder: Path,
    batches: Iterable[tuple[Tensor, dict[str, Tensor]]],
    gauge: Gauge,
    about: str,
    classes: Iterable[str] = (),
) -> Statistics:
    """Write shards, measure what is in them, and say so last: a folder without latents.json is no cache.

    Args:
        folder: made; must hold no cache. Shards of an encoding that was stopped are replaced.
        batches: moments (B, M, h, w) and conditions (B, …), as `encoded` gives them.
        gauge: of their autoencoder.
        about: `described` of the data.
        classes: names of the labels, if there are any.

    Raises:
        UserError: there is a cache in the folder.
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / STATISTICS).exists():
        raise UserError(f"{folder} holds a cache: remove it, or choose another --out")
    kept: list[tuple[Tensor, dict[str, Tensor]]] = []
    number, owner = 0, fingerprint(gauge.autoencoder)
    for moments, cond in batches:
        gauge.add(moments)
        kept.append((moments, cond))
        if sum(m.numel() * 4 for m, _ in kept) >= SHARD:
            number, kept = write_shard(folder, number, kept, owner), []
    if kept:
        number = write_shard(folder, number, kept, owner)
    for path in sorted(folder.glob("shard-*.safetensors"))[number:]:  # of a run that was stopped
        path.unlink()
    statistics = replace(gauge.read(about), classes=[str(name) for name in classes])
    write_text(folder / STATISTICS, json.dumps(asdict(statistics), indent=2) + "\n")
    return statistics


def write_shard(folder: Path, number: int, kept: list[tuple[Tensor, dict[str, Tensor]]], owner: str) -> int:
    """Write one file, which says whose its latents are; returns the next number."""
    tensors = {name: torch.cat([cond[name] for _, cond in kept]).contiguous() for name in kept[0][1]}
    tensors["moments"] = torch.cat([moments for moments, _ in kept]).contiguous()
    content = save(tensors, {"autoencoder": owner})
    write_whole(folder / f"shard-{number:05d}.safetensors", lambda path: path.write_bytes(content))
    return number + 1


def read_cache(folder: Path, autoencoder: str, about: str) -> tuple[Dataset, Statistics]:
    """The data set of a cache, and its statistics.

    Args:
        folder: that `write_cache` wrote.
        autoencoder: fingerprint of the one that the latents must come from.
        about: the data that they must be of.

    Raises:
        UserError: there is no cache, or it is of another autoencoder or other data.
    """
    if not (folder / STATISTICS).is_file():
        raise UserError(
            f"{folder} holds no latents (there is no {STATISTICS}): write them by task2-encode --out {folder}"
        )
    statistics = read_statistics(folder / STATISTICS)
    if statistics.autoencoder != autoencoder:
        raise UserError(f"{folder} holds latents of another autoencoder: write them again by task2-encode")
    if statistics.data != about:
        raise UserError(f"{folder} holds latents of other data, {statistics.data}: write them again by task2-encode")
    paths = sorted(folder.glob("shard-*.safetensors"))
    shards = Shards(paths, autoencoder) if paths else ()
    if len(shards) != statistics.n:
        raise UserError(f"{folder} holds {len(shards)} of {statistics.n} latents: write them again by task2-encode")
    latents = shards
    if len(shards) * shards[0][0].numel() * 4 <= IN_MEMORY:
        items = [shards[i] for i in range(len(shards))]
        cond = {name: torch.stack([c[name] for _, c in items]) for name in items[0][1]}
        latents = Tensors(torch.stack([m for m, _ in items]), cond)
    latents.classes, latents.cached = statistics.classes, True
    return latents, statistics
