"""Introduced in task 1; used by tasks 1, 2.

What can be configured about the data; free of torch, so that `--help` answers at once.
"""

from dataclasses import dataclass
from typing import Literal

DataName = Literal["digits", "mnist", "fashion_mnist", "cifar10", "folder"]


@dataclass
class DataConfig:
    """Which images to learn from, and in which size."""

    name: DataName = "digits"
    """digits are 5,000 images of MNIST that need no download; folder is your own images"""
    split: Literal["train", "test"] = "train"
    """part of the data; a folder has a test part if it holds folders named train and test"""
    root: str | None = None
    """where it lies (default: the environment's DIFFUSION_DATA, else data/); for folder, the folder or zip"""
    size: int | None = None
    """height and width: MNIST-like sets are padded, a folder is resized and cropped (default: as they are)"""
    channels: int | None = None
    """for folder: 1 is greyscale, 3 is colour (default: 3); the other sets have their own"""
    download: bool = False
    """fetch mnist, fashion_mnist or cifar10 into root where it is missing"""
