"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

What can be configured about the data; free of torch, so that `--help` answers at once.
"""

from dataclasses import dataclass
from typing import Literal

DataName = Literal[
    "digits",
    "mnist",
    "fashion_mnist",
    "cifar10",
    "folder",
    "celeba",
    "captioned_digits",
    "captions",
    "emoji",
    "moving_digits",
]


@dataclass
class DataConfig:
    """Which images to learn from, and in which size."""

    name: DataName = "digits"
    """digits are 5,000 images of MNIST that need no download; folder is your own images, captions those with texts;
    moving_digits are single frames of the clips of that name"""
    split: Literal["train", "test"] = "train"
    """part of the data; a folder has a test part if it holds folders named train and test"""
    root: str | None = None
    """where it lies (default: the environment's DIFFUSION_DATA, else data/); for folder, the folder or zip; for
    captions and emoji, the folder or LMDB"""
    size: int | None = None
    """height and width: MNIST-like sets are padded, a folder is resized and cropped (default: as they are);
    moving_digits are 32 and have two digits from 56 on"""
    channels: int | None = None
    """for folder: 1 is greyscale, 3 is colour (default: 3); the other sets have their own"""
    download: bool = False
    """fetch mnist, fashion_mnist, cifar10 or celeba into root where it is missing"""
    languages: tuple[str, ...] = ("en",)
    """of the captions, such as [en, zh]; each time a picture is shown its caption is drawn among them"""
    objects: Literal[1, 2, 3] = 2
    """for captioned_digits: digits in a picture, at most"""
