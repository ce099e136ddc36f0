"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

Your own images: any tree or zip of them, sub-folders as classes.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from tqdm import tqdm

from shared.datasets.config import DataConfig
from shared.datasets.decode import displayed_size
from shared.datasets.images import ImageFolder, Images, InMemory
from shared.datasets.sources import arrange, open_source
from shared.errors import UserError

IN_MEMORY = 256 * 2**20  # bytes of pixels up to which a folder is decoded once, and then costs nothing a step
SHOW_PROGRESS = 2_000  # images from which it takes long enough to show


def load_folder(config: DataConfig) -> Images:
    """The images at `config.root`: 3 channels unless told otherwise, resized and cropped if a size is given.

    `InMemory` where the decoded pixels fit into IN_MEMORY bytes, else `ImageFolder`. Raises `UserError` for a
    missing or empty source, for images of several sizes where no size is given, and for an unreadable image:
    any of them where all are decoded here, else the first (the others when they are met).
    """
    if config.root is None:
        raise UserError("the data set folder needs --data.root: a folder or zip of images")
    source = open_source(Path(config.root).expanduser())
    entries, classes = arrange(source, config.split)
    folder = ImageFolder(source, entries, classes, config.channels or 3, config.size)
    if len(folder) * math.prod(folder.shape) <= IN_MEMORY:
        return decoded(folder)
    if config.size is None:
        check_sizes(folder)
    return folder


def decoded(folder: ImageFolder) -> InMemory:
    """All images of a folder as one tensor. Threads suffice: Pillow lets others run while it decodes."""
    images = torch.empty(len(folder), *folder.shape, dtype=torch.uint8)
    quiet = True if len(folder) < SHOW_PROGRESS else None  # None: shown on a terminal only
    with ThreadPoolExecutor() as pool:
        pixels = pool.map(folder.pixels, range(len(folder)))
        for i, image in enumerate(tqdm(pixels, "decoding", len(folder), leave=False, disable=quiet)):
            images[i] = image
    return InMemory(images, torch.tensor([label for _, label in folder.entries]), folder.classes)


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
