"""Introduced in task 4; used by tasks 4, 5.

What the network sees: pixels as they are, or an autoencoder's latents. To everything else both look the same.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from shared.errors import UserError
from shared.latents.space import Space, batch_for
from shared.latents.stored import COPY, autoencoder_of, space_of
from shared.schedulers.config import SamplingConfig


class Pixels(nn.Module):
    """The space of the images themselves: as `Space`, and nothing is done."""

    def encode(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W), as they are."""
        return x

    def draw(self, moments: Tensor) -> Tensor:
        """The same."""
        return moments

    def decode(self, z: Tensor) -> Tensor:
        """Images (B, C, H, W), clamped to [-1, 1]."""
        return z.clamp(-1, 1)

    def facts(self) -> None:
        """Nothing that a checkpoint would have to hold."""
        return None


AnySpace = Pixels | Space


def shape_in(space: AnySpace, shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """The shape (C, H, W) of what the network sees of images of a shape.

    Raises:
        UserError: the autoencoder cannot halve such images as often as it must.
    """
    if isinstance(space, Pixels):
        return shape
    try:
        space.autoencoder.check_size(*shape[1:])
    except ValueError as error:
        raise UserError(str(error)) from None
    return space.autoencoder.latent_shape(shape)


def decoded(space: AnySpace, z: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Images (n, C, H, W) of a shape, in [-1, 1], of what the network made of them; as many at a time as memory has."""
    return torch.cat([space.decode(part).float() for part in z.split(batch_for(torch.empty(shape, device="meta")))])


def check_clamp(sampling: SamplingConfig, space: AnySpace) -> None:
    """Raise UserError where latents would be clamped, which know no bounds."""
    if sampling.clamp and not isinstance(space, Pixels):
        raise UserError(
            "sampling.clamp is true: latents know no bounds, so that clamping would cut them; make it false"
        )


def stored_space(facts: dict | None, checkpoint: Path) -> AnySpace:
    """The space that the model in a checkpoint works in. Raises UserError where its autoencoder is missing."""
    if facts is None:
        return Pixels()
    if autoencoder_of(checkpoint) is None:
        raise UserError(
            f"{checkpoint} is a diffusion of latents, and no {COPY} lies with it: copy that from its run as well"
        )
    return space_of(checkpoint, facts)
