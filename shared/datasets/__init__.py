"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

Data sets by name. `load(DataConfig(name="digits"))` gives images in [-1, 1] with their labels.

Nothing heavy is imported before `load` is called, so that whoever only needs the configuration pays nothing
for torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.datasets.config import DataConfig
from shared.errors import UserError

if TYPE_CHECKING:
    from shared.datasets.images import Images

__all__ = ["DataConfig", "load"]


def load(config: DataConfig) -> Images:
    """The data set that the config names: per item `x` (C, H, W) in [-1, 1] and what is said of it, mostly its label.

    `{"label": long scalar}`; of faces `{"attributes": long (40,)}`; of captioned pictures `{"caption": long scalar}`.

    Sets that fit are `InMemory`; a folder that does not is an `ImageFolder`, to be read through loader processes. Some
    of the training part may be turned left-right, or cropped anew each time, if told so. Raises `UserError` where the
    data is missing, damaged, or cannot have the size or channels asked for.
    """
    from shared.datasets.captioned_digits import load_captioned_digits
    from shared.datasets.captions import load_captions
    from shared.datasets.celeba import load_celeba
    from shared.datasets.digits import load_digits
    from shared.datasets.folder import load_folder, load_lmdb
    from shared.datasets.moving_digits import load_moving_digits
    from shared.datasets.published import load_published

    loaders = {
        "digits": load_digits,
        "mnist": load_published,
        "fashion_mnist": load_published,
        "cifar10": load_published,
        "folder": load_folder,
        "lmdb": load_lmdb,
        "celeba": load_celeba,
        "captioned_digits": load_captioned_digits,
        "captions": load_captions,
        "emoji": load_captions,
        "moving_digits": load_moving_digits,
    }
    if config.name not in loaders:
        raise UserError(f"no data set is named {config.name!r}: --data.name is one of {', '.join(loaders)}")
    if config.size is not None and config.size < 1:
        raise UserError(f"--data.size is {config.size}: it must be at least 1")
    if config.channels not in (None, 1, 3):
        raise UserError(f"--data.channels is {config.channels}: it must be 1 (greyscale) or 3 (colour)")
    check_changes(config)
    return loaders[config.name](config)


def check_changes(config: DataConfig) -> None:
    """Raise `UserError` where images are to be flipped or cropped that cannot be."""
    if config.flip and config.name in ("digits", "mnist", "captioned_digits", "moving_digits"):
        raise UserError(f"--data.flip does not go with {config.name}: a digit in a mirror is none; leave it out")
    if config.crop == "centre":
        return
    if config.name not in ("folder", "lmdb", "captions", "emoji"):
        raise UserError(
            f"--data.crop random does not go with {config.name}, whose images are not cropped: leave it out"
        )
    if config.size is None:
        raise UserError("--data.crop random needs --data.size: the height and width of the square")
