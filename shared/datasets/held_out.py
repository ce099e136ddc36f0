"""Introduced in task 1; used by tasks 1, 3.

Real images beside a model: pictures that a person gives, and those of its data that it was not trained on.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from shared.datasets import load as load_data
from shared.datasets.decode import decode
from shared.datasets.images import InMemory
from shared.datasets.ranges import to_unit
from shared.datasets.sources import NoSuchPart
from shared.errors import UserError

HELD_OUT = "data:"  # and a number: one of the images that were held out


class Model(Protocol):
    """What is needed of a trained model."""

    config: Any  # with the sections `data` and `own_data`
    shape: tuple[int, int, int]
    source: Path


def part_of(model: Model, split: str) -> Dataset:
    """The part "train" or "test" of the data that a model was trained on, as the training saw it but for chance.

    Raises:
        UserError: it is data of one's own, is not there any more, or has no such part.
    """
    if model.config.own_data:
        raise UserError(f"{model.source} was trained on data of your own, of which no part is known here")
    return load_data(replace(model.config.data, split=split, flip=False, crop="centre"))


def held_out(model: Model) -> tuple[Dataset, str]:
    """Images that the model was not trained on, and "test"; those that it was, and "train", where there are no others.

    Raises:
        UserError: there are neither.
    """
    try:
        return part_of(model, "test"), "test"
    except NoSuchPart:
        return part_of(model, "train"), "train"


def chosen(data: Dataset, n: int, seed: int = 0) -> Tensor:
    """n images (n, C, H, W) in [-1, 1], or all if there are fewer; always the same, in an order that the seed draws.

    What a data set draws anew whenever it is asked, such as a scene, is drawn by the item's number here.
    """
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:n]
    if isinstance(data, InMemory):
        return to_unit(data.images[order])
    images = []
    with torch.random.fork_rng(devices=[]):
        for i in order.tolist():
            torch.manual_seed(i)
            images.append(data[i][0])
    return torch.stack(images)


def pictures_given(model: Model, names: tuple[str, ...], n: int = 8) -> Tensor:
    """Pictures (N, C, H, W) in [-1, 1] that a person names, in the model's size; n held-out ones where none is named.

    Args:
        model: the model.
        names: files, or "data:3" for the third of the images that were held out, in the order of `chosen`.
        n: of held-out images.

    Raises:
        UserError: a file cannot be read, or there is no such image.
    """
    if not names:
        return chosen(held_out(model)[0], n)
    return torch.stack([one(model, name) for name in names])


def one(model: Model, name: str) -> Tensor:
    """A picture (C, H, W) by its name."""
    if not name.startswith(HELD_OUT):
        return read_picture(Path(name), model.shape)
    data, _ = held_out(model)
    number = name.removeprefix(HELD_OUT)
    if not number.isdecimal() or len(number) > 18 or not int(number) < len(data):
        raise UserError(f"{name[:40]} is no held-out image: give {HELD_OUT} and a number from 0 to {len(data) - 1}")
    return chosen(data, int(number) + 1)[-1]


def read_picture(path: Path, shape: tuple[int, int, int]) -> Tensor:
    """A file as an image (C, H, W) in [-1, 1]: any mode, resized and its centre cut out.

    Raises:
        UserError: it cannot be read, or the shape asked for is no square and the picture has another size.
    """
    channels, height, width = shape
    pixels = read_pixels(path, channels, height if height == width else None)
    if tuple(pixels.shape) != shape:
        there, here = f"{pixels.shape[2]}×{pixels.shape[1]}", f"{width}×{height}"
        raise UserError(f"{path} is {there} pixels, and the model's images are {here}: bring it to that size")
    return to_unit(pixels)


def read_pixels(path: Path, channels: int, size: int | None) -> Tensor:
    """A file's first image as uint8 (channels, H, W), as by `decode`. Raises UserError where it cannot be read."""
    if path.exists() and not path.is_file():  # reading a pipe would wait for ever
        raise UserError(f"cannot read {path}: it is no regular file")
    try:
        with open(path, "rb") as file:
            return decode(file, channels, size)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or 'it is no picture'}") from None
    except Exception as error:  # Pillow's decoders raise whatever they trip over in a damaged file
        raise UserError(f"{path} cannot be read as an image ({error}): give another") from None
