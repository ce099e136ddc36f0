"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

Your own images: any tree, zip or LMDB of them, sub-folders as classes.

What cannot be read is left out and named in the set's `skipped`: at once where all are decoded here, else when it is
met. Where it is more than the share `config.bad_share`, it is an error.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from tqdm import tqdm

from shared.datasets.config import DataConfig
from shared.datasets.database import Database, is_lmdb
from shared.datasets.decode import displayed_size
from shared.datasets.images import ImageFolder, Images, InMemory
from shared.datasets.sources import Source, arrange, open_source
from shared.datasets.streamed import Unreadable, check_share
from shared.errors import UserError

IN_MEMORY = 256 * 2**20  # bytes of pixels up to which a folder is decoded once, and then costs nothing a step
SHOW_PROGRESS = 2_000  # images from which it takes long enough to show


def load_folder(config: DataConfig) -> Images:
    """The images of a folder or zip at `config.root`; see `load_images`. Raises `UserError` if there are none."""
    if config.root is None:
        raise UserError("the data set folder needs --data.root: a folder or zip of images")
    return load_images(open_source(Path(config.root).expanduser()), config)


def load_lmdb(config: DataConfig) -> Images:
    """The images of an LMDB at `config.root`; see `load_images`. Raises `UserError` if it is none, or damaged."""
    if config.root is None:
        raise UserError("the data set lmdb needs --data.root: an LMDB of images, made for instance by prepare-images")
    root = Path(config.root).expanduser()
    if not is_lmdb(root):
        what = "is no LMDB" if root.exists() else "does not exist"
        raise UserError(f"{root} {what}: --data.root must name one, made for instance by prepare-images")
    return load_images(Database(root), config)


def load_images(source: Source, config: DataConfig) -> Images:
    """The images of a source: 3 channels unless told otherwise, resized and cropped if a size is given.

    `InMemory` where the decoded pixels fit into IN_MEMORY bytes and each is always the same, else `ImageFolder`.
    Raises `UserError` for images of several sizes where no size is given, and if too many of them cannot be read.
    """
    pictures = arranged(source, config, config.bad_share)
    if held(pictures):
        return decoded(pictures)
    if config.size is None:
        check_sizes(pictures)
    return pictures


def arranged(source: Source, config: DataConfig, share: float) -> ImageFolder:
    """The images of a source as a config wants them, to be decoded when asked for; `share` may be unreadable."""
    entries, classes = arrange(source, config.split)
    training = config.split == "train"  # what is measured is always the same
    crop, flip = config.crop if training else "centre", config.flip and training
    return ImageFolder(source, entries, classes, config.channels or 3, config.size, crop, flip, share)


def held(folder: ImageFolder) -> bool:
    """Whether the images are to be decoded once and kept: they fit, and are not to be cropped anew each time."""
    return folder.crop == "centre" and len(folder) * math.prod(folder.shape) <= IN_MEMORY


def decoded(folder: ImageFolder) -> InMemory:
    """All readable images of a folder as one tensor; `skipped` names the others.

    Threads suffice: Pillow lets others run while it decodes. Raises `UserError` if too many cannot be read.
    """

    def attempt(index: int) -> torch.Tensor | Unreadable:
        try:
            return folder.pixels(index)
        except Unreadable as error:
            return error

    images = torch.empty(len(folder), *folder.shape, dtype=torch.uint8)
    labels, bad = [], []
    quiet = True if len(folder) < SHOW_PROGRESS else None  # None: shown on a terminal only
    with ThreadPoolExecutor() as pool:
        found = tqdm(pool.map(attempt, range(len(folder))), "decoding", len(folder), leave=False, disable=quiet)
        for image, (_, label) in zip(found, folder.entries, strict=True):
            if isinstance(image, Unreadable):
                bad.append(image)
                continue
            images[len(labels)] = image
            labels.append(label)
    if bad:
        check_share(len(bad), len(folder), folder.share, bad[0])
    if not labels:
        raise UserError(f"none of {len(folder)} images can be read: {bad[0]}")
    data = InMemory(images[: len(labels)], torch.tensor(labels), folder.classes)
    data.flip, data.skipped = folder.flip, [f"{error.place} ({error.why})" for error in bad]
    return data


def check_sizes(folder: ImageFolder) -> None:
    """Raise `UserError` for the first image whose header declares another size than the first image has.

    An unreadable header is passed over: what to do about the file is decided where it is needed.
    """
    quiet = True if len(folder) < SHOW_PROGRESS else None
    for i, (name, _) in enumerate(tqdm(folder.entries, "checking sizes", leave=False, disable=quiet)):
        try:
            with folder.source.open(name) as file:
                size = displayed_size(file)
        except Exception:
            continue
        if size != folder.shape[1:]:
            raise folder.mixed_sizes(i, *size)
