"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

Samples as pictures that people look at: grids, single images, films.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from torch import Tensor

from shared.datasets.ranges import to_uint8
from shared.files import write_whole


def grid(images: Tensor, columns: int | None = None, upscale: int = 1, gap: int = 2) -> Image.Image:
    """Images (N, C, H, W) in [-1, 1], C 1 or 3, side by side in rows; as square as may be unless columns are given."""
    images = F.interpolate(images.detach().float().cpu(), scale_factor=upscale, mode="nearest")
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    padded = F.pad(images, (0, gap, 0, gap), value=1.0)  # a light line right of and below each
    missing = padded.new_full((rows * columns - len(images), *padded.shape[1:]), 1.0)
    sheet = rearrange(torch.cat([padded, missing]), "(r c) ch h w -> (r h) (c w) ch", r=rows)
    sheet = F.pad(sheet, (0, 0, gap, 0, gap, 0), value=1.0)  # and around them all
    return picture(sheet)


def picture(pixels: Tensor) -> Image.Image:
    """One image (H, W, C) in [-1, 1] for Pillow."""
    values = to_uint8(pixels).numpy()
    return Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values)


def save(image: Image.Image, path: Path) -> Path:
    """Write a picture whole or not at all, in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, image.save)
    return path


def save_each(images: Tensor, folder: Path, upscale: int = 1) -> None:
    """Write every image (N, C, H, W) to a PNG of its own: 0000.png, 0001.png, …"""
    images = F.interpolate(images.detach().float().cpu(), scale_factor=upscale, mode="nearest")
    for i, pixels in enumerate(rearrange(images, "n c h w -> n h w c")):
        save(picture(pixels), folder / f"{i:04d}.png")


def save_film(frames: Sequence[Image.Image], path: Path, seconds: float = 4.0, hold: float = 1.5) -> Path:
    """Write pictures as a GIF that runs for `seconds`, holds the last one, and begins again."""
    each = max(20, round(1000 * seconds / len(frames)))  # milliseconds; viewers ignore less than 20
    durations = [each] * (len(frames) - 1) + [round(1000 * hold)]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(
        path,
        lambda file: frames[0].save(
            file, format="GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0
        ),
    )
    return path
