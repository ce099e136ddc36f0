"""Films that a person gives to be gone on with: a file, a folder of frames, or clips that were held out."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from shared.conditions.known import class_number
from shared.datasets.decode import decode
from shared.datasets.ranges import to_unit
from shared.datasets.video import load_video
from shared.datasets.video_files import is_frame, opened, reason
from shared.errors import UserError
from task5_video.model import Model

if TYPE_CHECKING:
    from task5_video.sample import GivenOptions


def held_out(model: Model, n: int, frames: int) -> tuple[Tensor, list[int] | None]:
    """n clips (n, C, F, H, W) of the model's data that it was not trained on, always the same, and their labels.

    Raises:
        UserError: there is no such part of the data, or not so many.
    """
    if model.config.own_data:
        raise UserError(f"{model.source} was trained on data of your own: name a film as --given, not data")
    data = load_video(replace(model.config.data, split="test", frames=frames))
    if n > len(data):
        raise UserError(f"{n} clips are asked for, and {len(data)} were held out: ask for fewer with --n")
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    items = [data[i] for i in order[:n].tolist()]
    labels = [int(cond["label"]) for _, cond in items] if "label" in items[0][1] else None
    return torch.stack([x for x, _ in items]), labels


def captions_for(model: Model, labels: Sequence[int | str] | None, n: int) -> list[str] | None:
    """n captions of held-out moving digits, of these classes where they are given; None for other data."""
    if model.config.own_data or model.config.data.name != "moving_digits":
        return None
    data = load_video(replace(model.config.data, split="test", frames=1))
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(1)).tolist()
    clips = itertools.cycle(data[i][1] for i in order)
    wanted = [None if labels is None else class_number(model.known, labels[i]) for i in range(n)]
    found = (next(c for c in clips if number is None or int(c["label"]) == number) for number in wanted)
    return [data.captions[int(cond["caption"])] for cond in found]


def read_film(path: Path, shape: tuple[int, int, int], most: int) -> Tensor:
    """The first frames of a film, at most so many, and its last: (C, F, H, W) in [-1, 1], resized to `shape` (C, H, W).

    Raises:
        UserError: it cannot be read, or is of another size and the model's frames are no squares.
    """
    channels, height, width = shape
    size = height if height == width else None
    try:
        if path.is_dir() and not any(is_frame(file.name) for file in path.iterdir()):
            raise ValueError("the folder holds no picture")
        if path.is_file() and is_frame(path.name):
            with open(path, "rb") as file:
                frames = decode(file, channels, size)[None]
        else:
            film = opened(path)
            wanted = sorted({*range(min(most, film.frames)), film.frames - 1})
            frames = film.read(wanted, channels, size)
    except Exception as error:  # decoders raise whatever they trip over in a damaged file
        raise UserError(f"{path} cannot be read as a film or picture ({reason(error)}): give another") from None
    if tuple(frames.shape[2:]) != (height, width):
        there, here = (f"{w}×{h}" for h, w in (frames.shape[2:], (height, width)))
        raise UserError(f"{path} is {there} pixels, and the model's frames are {here}: bring it to that size")
    return to_unit(frames).transpose(0, 1)


def given_clips(config: "GivenOptions", model: Model, n: int, frames: int) -> tuple[Tensor, list[int] | None]:
    """The frames that the options give, (n, C, F, H, W), and their labels where they are known.

    Raises:
        UserError: they cannot be read, or are fewer than asked for.
    """
    if config.given == "data":
        return held_out(model, n, frames)
    wanted = 2 if config.between else config.given_frames
    film = read_film(Path(config.given), (model.shape[0], *model.shape[2:]), config.given_frames)
    if film.shape[1] < wanted:
        advice = "give a longer one" + ("" if config.between else ", or fewer as --given-frames")
        raise UserError(f"{config.given} has {film.shape[1]} of the {wanted} frames that are to be given: {advice}")
    return film.repeat(n, 1, 1, 1, 1), None
