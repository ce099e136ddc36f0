"""Introduced in task 2; used by tasks 2, 4, 5.

What the doctor needs to know of an autoencoder beside a model: see `examined.py`.
"""

from typing import Any

import torch
from torch import Tensor

from shared.blocks.autoencoder import Autoencoder
from shared.blocks.bottlenecks import VQ
from shared.experiments.doctor.examined import BATCH


@torch.no_grad()
def codes_of(autoencoder: Autoencoder, images: Tensor | None) -> tuple[Tensor, int] | None:
    """The codes that images (n, C, H, W) fall to, and how many there are; None where there is no codebook."""
    bottleneck = autoencoder.bottleneck
    if images is None or not isinstance(bottleneck, VQ):
        return None
    numbers = [bottleneck.indices(autoencoder.encode(part)).flatten() for part in images.split(BATCH)]
    return torch.cat(numbers), bottleneck.config.codes


@torch.no_grad()
def seen(space: Any, images: Tensor, seed: int) -> Tensor:
    """What a network sees of images (n, C, H, W): pixels as they are, or latents, drawn by a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.cat([space.draw(space.encode(part)) for part in images.split(BATCH)])


def scale_of(latents: Any) -> str:
    """What the scale of a `LatentsConfig` is to make 1."""
    return "channels" if latents.scale == "channels" else "overall"
