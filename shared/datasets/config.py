"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

What can be configured about the data; free of torch, so that `--help` answers at once.
"""

from dataclasses import dataclass
from typing import Literal

from jsonargparse.typing import ClosedUnitInterval

Crop = Literal["centre", "random"]
DataName = Literal[
    "digits",
    "mnist",
    "fashion_mnist",
    "cifar10",
    "folder",
    "lmdb",
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
    """where it lies (default: the environment's DIFFUSION_DATA, else data/); for folder, the folder or zip; for lmdb,
    the LMDB; for captions and emoji, the folder or LMDB"""
    size: int | None = None
    """height and width: MNIST-like sets are padded, a folder is resized and cropped (default: as they are);
    moving_digits are 32 and have two digits from 56 on"""
    channels: int | None = None
    """for folder and lmdb: 1 is greyscale, 3 is colour (default: 3); the other sets have their own"""
    download: bool = False
    """fetch mnist, fashion_mnist, cifar10 or celeba into root where it is missing"""
    languages: tuple[str, ...] = ("en",)
    """of the captions, such as [en, zh]; each time a picture is shown its caption is drawn among them"""
    objects: Literal[1, 2, 3] = 2
    """for captioned_digits: digits in a picture, at most"""
    flip: bool = False
    """turn half of the images of the training part left-right, drawn anew each time they are shown; not for digits"""
    crop: Crop = "centre"
    """for folder, lmdb, captions and emoji with a size: which square of an image is shown; random draws one each time
    in the training part, which is then decoded anew each time"""
    bad_share: ClosedUnitInterval = 0.01
    """for folder, lmdb and celeba: the share of images that may be unreadable; these are left out and named in the
    run's record, more stop it"""
