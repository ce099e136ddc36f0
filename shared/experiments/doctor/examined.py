"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

What the doctor needs of a trained model, whichever stage it is of. Each stage has a small module `examined` with two
functions: `reads(saved)`, whether a checkpoint's config is one of its own, and `examine(source, asked)`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from shared.cli import Own
from shared.errors import UserError
from shared.schedulers.diffusion import Diffusion, Network

Cond = dict[str, Tensor]
BATCH = 64  # images at a time through an autoencoder


@dataclass(frozen=True)
class Asked:
    """How much of a model and its data is looked at."""

    n: int
    """samples of the data"""
    seed: int
    """of which of them, and of all noise"""
    trust: bool = False
    """build data sets and networks of one's own, which runs the code that a config names"""


@dataclass
class Examined:
    """A trained model and some of the data that it was trained on. What is not there is None, or empty."""

    config: Any
    """of the stage"""
    source: Path
    """the checkpoint"""
    network: Network | None = None
    diffusion: Diffusion | None = None
    images: Tensor | None = None
    """of the data: (n, C, H, W), or clips (n, C, F, H, W)"""
    x0: Tensor | None = None
    """the same as the network sees them"""
    scaled: str | None = None
    """of latents, what their scale is to make 1: "overall" or "channels" """
    cond: Cond = field(default_factory=dict)
    """what is said of them"""
    null: Callable[[Cond], Cond] | None = None
    """what says nothing; None where the network has not been trained on that"""
    sample: Callable[[int, Cond, int], Tensor] | None = None
    """(n, cond, seed) -> what the model makes of as many conditions, (n, C, H, W) or (n, C, F, H, W), in [-1, 1]"""
    cost: int = 1
    """how many images a sample costs as much as: so many fewer are drawn and asked about"""
    codes: tuple[Tensor, int] | None = None
    """of a codebook: the numbers of the nearest codes, and how many codes there are"""
    unknown: dict[str, str] = field(default_factory=dict)
    """why something is not there, by what it is"""


class Stage(Protocol):
    """A stage's module `examined`."""

    def reads(self, saved: Any) -> bool:
        """Whether a checkpoint's config is of this stage."""

    def examine(self, source: Path, asked: Asked) -> Examined:
        """Load a model and some of its data. Raises UserError where there is no such model."""


def parses(read: Callable[[Any], Any], saved: Any) -> bool:
    """Whether a stage's own reader takes a config."""
    try:
        read(saved)
    except UserError:
        return False
    return True


def drawn(data: Dataset, asked: Asked) -> tuple[Tensor, Cond]:
    """Some samples (n, …) of a data set and what is said of them: the same each time, all if there are fewer.

    What a data set draws anew whenever it is asked is drawn by the item's number here.
    """
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(asked.seed))[: asked.n]
    items = []
    with torch.random.fork_rng(devices=[]):
        for i in order.tolist():
            torch.manual_seed(i)
            items.append(data[i])
    cond = {name: torch.stack([said[name] for _, said in items]) for name in items[0][1]}
    return torch.stack([x for x, _ in items]), cond


def look(found: Examined, own: Own | None, build: Callable[[], Dataset], asked: Asked) -> None:
    """Put some of the data into `found`; or why it cannot be had.

    Args:
        found: a model without its data; changed.
        own: the data set of one's own that its config names.
        build: makes the data set.
        asked: how much of it.
    """
    if own and not asked.trust:
        found.unknown["data"] = f"it is a class of one's own, {own.get('class_path')}: --trust true builds it"
        return
    try:
        data = build()
        if not len(data):
            raise UserError("it is empty")
        found.images, found.cond = drawn(data, asked)
    except UserError as error:
        found.unknown["data"] = str(error)
        found.cond = {}


def said(found: Examined, keys: list[str]) -> Cond:
    """Of what the data says, what a network reads."""
    return {name: found.cond[name] for name in keys if name in found.cond}
