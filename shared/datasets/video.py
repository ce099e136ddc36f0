"""Introduced in task 5; used by task 5.

Sets of clips by name. `load_video(VideoConfig())` gives clips in [-1, 1] with their labels and captions.

Nothing heavy is imported before it is called, so that whoever only needs the configuration pays nothing for torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.datasets.video_config import VideoConfig
from shared.errors import UserError

if TYPE_CHECKING:
    from shared.datasets.moving_digits import MovingDigits
    from shared.datasets.video_clips import Clips, StreamedClips


def load_video(config: VideoConfig) -> MovingDigits | Clips | StreamedClips:
    """The set that the config names: per item `x` (C, F, H, W) in [-1, 1], {"label": long (), "caption": long ()}.

    The label is an index into its `classes`, the caption one into its `captions`; `shape` is that of x. Films that had
    to be left out are named in `skipped`, a list of texts, where there are films.

    Raises:
        UserError: the data is missing or damaged, or cannot have the form asked for.
    """
    loaders = {"moving_digits": moving_digits, "videos": films, "ucf101": films}
    if config.size is not None and config.size < 1:
        raise UserError(f"--data.size is {config.size}: it must be at least 1")
    return loaders[config.name](config)


def moving_digits(config: VideoConfig) -> MovingDigits:
    """Clips of moving digits, drawn when asked for: 45,000 for training and 10,000 held out."""
    from shared.datasets.moving_digits import MovingDigits

    if config.channels not in (None, 1):
        raise UserError(f"moving_digits has 1 channel, not {config.channels}: leave out --data.channels")
    size = config.size or {1: 32, 2: 64}[config.digits]
    return MovingDigits(config.split, config.digits, size, config.frames, config.stride)


def films(config: VideoConfig) -> Clips | StreamedClips:
    """Clips of films on the disk, in memory where they fit."""
    from shared.datasets.video_folder import load_ucf101, load_videos

    return load_ucf101(config) if config.name == "ucf101" else load_videos(config)
