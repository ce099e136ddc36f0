"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

MNIST, Fashion-MNIST and CIFAR-10 through torchvision, from files on disk; downloaded only when told to.
"""

import os
from pathlib import Path
from typing import NamedTuple

import torch

from shared import _torchvision
from shared.datasets.config import DataConfig
from shared.datasets.images import InMemory, padded
from shared.errors import UserError


class Published(NamedTuple):
    """What is known of a set before it is opened."""

    kind: str  # torchvision's class
    folder: str  # where that class looks, below the root
    channels: int
    side: int
    can_pad: bool  # on a black ground; a margin around a photograph would be something to learn


SETS = {
    "mnist": Published("MNIST", "MNIST/raw", 1, 28, can_pad=True),
    "fashion_mnist": Published("FashionMNIST", "FashionMNIST/raw", 1, 28, can_pad=True),
    "cifar10": Published("CIFAR10", "cifar-10-batches-py", 3, 32, can_pad=False),
}


def data_root(root: str | None) -> Path:
    """Where published data lies: what is asked for, else the environment's DIFFUSION_DATA, else `data/`."""
    return Path(root or os.environ.get("DIFFUSION_DATA") or "data").expanduser()


def load_published(config: DataConfig) -> InMemory:
    """The set that `config.name` names, uint8 (N, C, H, W): 60,000 and 10,000 images, CIFAR-10 50,000.

    Raises `UserError` where it is absent, damaged, or cannot have the size or channels asked for.
    """
    about = SETS[config.name]
    if config.channels not in (None, about.channels):
        wrong = f"{config.name} has {about.channels} channels, not {config.channels}"
        raise UserError(f"{wrong}: leave out --data.channels")
    if config.size not in (None, about.side) and not about.can_pad:
        size = f"{about.side}×{about.side}"
        raise UserError(f"{config.name} is {size} and is not resized: leave out --data.size")
    data = opened(about, data_root(config.root), config)
    images = torch.as_tensor(data.data)  # MNIST: tensor (N, 28, 28); CIFAR-10: array (N, 32, 32, 3)
    images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
    # torchvision's names, without the number before those of MNIST ("7 - seven" is "7", as in `digits`)
    classes = [name.split(" - ")[0] for name in data.classes]
    held = InMemory(padded(images, config.size, config.name), torch.as_tensor(data.targets), classes)
    held.flip = config.flip and config.split == "train"
    return held


def opened(about: Published, root: Path, config: DataConfig):
    """torchvision's data set, opened; every failure becomes a `UserError` that says what to do.

    CIFAR-10's files are pickles, which could run code. torchvision compares the MD5 of each with the
    published one *before* it unpickles any, with or without `download`; a tampered file ends here as
    "damaged" (tested). Its MNIST classes may load a `training.pt` left by an old version, with
    `weights_only=True`, which runs nothing (tested too).
    """
    _torchvision.prepare()
    from torchvision import datasets

    folder = root / about.folder
    there = folder.is_dir()
    try:
        return getattr(datasets, about.kind)(root, train=config.split == "train", download=config.download)
    except Exception as error:  # RuntimeError, OSError, AssertionError, …: torchvision has none of its own
        reason = f"{type(error).__name__}: {error}"
    if config.download and not there:
        advice = "see that the network is there and the folder can be written"
        raise UserError(f"{about.kind} could not be downloaded to {root} ({reason}): {advice}")
    if there:
        advice = "remove that folder, then fetch it again with --data.download true"
        raise UserError(f"{about.kind} in {folder} is incomplete or damaged ({reason}): {advice}")
    where = f"set DIFFUSION_DATA or --data.root to the folder that holds {about.folder}"
    raise UserError(f"{about.kind} is not in {folder}: fetch it with --data.download true, or {where}")
