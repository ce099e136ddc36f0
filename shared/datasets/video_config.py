"""Introduced in task 5; used by task 5.

What can be configured about clips of video; free of torch, so that `--help` answers at once.
"""

from dataclasses import dataclass
from typing import Literal

from jsonargparse.typing import ClosedUnitInterval, PositiveInt


@dataclass
class VideoConfig:
    """Which clips to learn from, how long, and in which size."""

    name: Literal["moving_digits", "videos", "ucf101"] = "moving_digits"
    """moving_digits are drawn and need no download; videos is a folder of your own; ucf101 people's actions"""
    split: Literal["train", "test"] = "train"
    """part of the data; a folder has a test part if it holds folders named train and test"""
    root: str | None = None
    """for videos, the folder with videos, GIFs and folders of frames; for ucf101, the one that holds UCF-101 and
    ucfTrainTestlist (default: the environment's DIFFUSION_DATA, else data/)"""
    frames: PositiveInt = 16
    """frames of a clip; Moving MNIST as published has 20"""
    stride: PositiveInt = 1
    """take every how-manieth frame: 2 shows twice the time"""
    hop: PositiveInt | None = None
    """for videos: frames from the start of one clip to that of the next (default: a clip's length, no overlap)"""
    size: int | None = None
    """height and width (default: moving_digits 32 for one digit, 64 for two; videos as they are, else resized and
    cropped)"""
    channels: Literal[1, 3] | None = None
    """for videos: 1 is greyscale, 3 is colour (default: 3); moving_digits has 1"""
    digits: Literal[1, 2] = 1
    """for moving_digits: how many move; 2 at 64×64 is Moving MNIST as published"""
    fold: Literal[1, 2, 3] = 1
    """for ucf101: which of its three divisions into training and test videos"""
    cache: bool = True
    """for videos: keep all clips in memory where they take at most 512 MB, else decode them anew each time"""
    skip: ClosedUnitInterval = 0.1
    """for videos: the share of them that may be unreadable; these are named and left out, more is an error"""
