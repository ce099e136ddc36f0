"""The clips to train on, and the space that the network sees them in."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from shared.cli import build_own
from shared.datasets.video import load_video
from shared.errors import UserError
from shared.latents.space import build_space, measured, rebuilt
from shared.latents.spaces import AnySpace, Pixels
from shared.latents.stored import LoadedAutoencoder, load_autoencoder
from shared.training.processes import say
from task5_video.config import Config

NAMED = 10  # films left out that are named; there may be thousands


class Frames(Dataset):
    """One frame of each clip of a data set, as images."""

    def __init__(self, clips: Dataset):
        """Of clip i the frame i modulo their number: the same each time."""
        self.clips = clips

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, i: int) -> tuple[Tensor, dict[str, Tensor]]:
        """x (C, H, W), and what is said of its clip."""
        x, cond = self.clips[i]
        return x[:, i % x.shape[1]], cond


def load_clips(config: Config) -> Dataset:
    """The data set that a config names; films that had to be left out are named on standard error.

    Raises:
        UserError: it is not to be had, or its items are no clips.
    """
    data = build_own(config.own_data, Dataset) if config.own_data else load_video(config.data)
    if len(data) == 0:
        raise UserError("the data set is empty: there is nothing to train on")
    first = data[0][0] if isinstance(data[0], tuple) else data[0]
    if not isinstance(first, Tensor) or first.ndim != 4:
        there = tuple(first.shape) if isinstance(first, Tensor) else type(first).__name__
        raise UserError(f"the data set gives {there}: clips (C, F, H, W) are needed; for images there is task3-train")
    if first.shape[0] not in (1, 3):
        raise UserError(f"the data set gives clips of {first.shape[0]} channels: 1 or 3 are needed, to be shown")
    skipped = getattr(data, "skipped", None) or []
    for film in skipped[:NAMED]:
        say(f"left out: {film}", sys.stderr)
    if len(skipped) > NAMED:
        say(f"left out: {len(skipped) - NAMED} more", sys.stderr)
    return data


def build_data(
    config: Config, place: str | Path | None, facts: dict[str, Any] | None, device: torch.device
) -> tuple[Dataset, AnySpace, LoadedAutoencoder | None]:
    """The data set, the space that the network works in, and the autoencoder if there is one.

    Args:
        config: of the training.
        place: where the autoencoder lies; None where the network sees pixels.
        facts: the space of a run that is gone on with, or of the image model that is inflated; measured where there is
            none.
        device: where the autoencoder encodes.

    Raises:
        UserError: the data is not to be had, or the autoencoder is for other images.
    """
    if config.latents.cache:
        raise UserError("latents.cache holds latents of images: clips are encoded as they are needed; leave it out")
    data = load_clips(config)
    if place is None:
        return data, Pixels(), None
    loaded, frames = load_autoencoder(place), Frames(data)
    loaded.check_images(frames[0][0])
    loaded.network.to(device)
    if facts:
        return data, rebuilt(loaded.network, facts, loaded.source), loaded
    about = json.dumps({"own": config.own_data} if config.own_data else asdict(config.data), sort_keys=True)
    statistics = measured(loaded.network, loaded.run, frames, about, config.train.workers)
    return data, build_space(loaded.network, statistics, config.latents), loaded
