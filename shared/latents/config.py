"""Introduced in task 2; used by tasks 2, 4, 5.

What can be configured about a latent space, and what a checkpoint says of its autoencoder. Free of torch.
"""

from dataclasses import dataclass
from typing import Any, Literal

from jsonargparse.typing import PositiveFloat

from shared.blocks.autoencoder_config import AutoencoderConfig
from shared.cli import stored_config
from shared.errors import UserError

AUTOENCODER = "stage 2's autoencoder"  # in messages


@dataclass
class LatentsConfig:
    """Which autoencoder makes the latents, and how they are brought to unit deviation."""

    autoencoder: str | None = None
    """a run of task2-train-autoencoder, or its checkpoint (default: in stage 2 the one that comes
    with the package; in stage 4 none, and the network sees pixels)"""
    cache: str | None = None
    """folder that task2-encode wrote; default: images are encoded whenever they are needed"""
    scale: Literal["deviation", "channels"] | PositiveFloat = "deviation"
    """divide by the latents' deviation, or shift and divide each channel by its own; a number multiplies as it is"""


def stored_shape(saved: Any, stage: str) -> tuple[int, int, int]:
    """The shape (C, H, W) of the images that a checkpoint's config stores. Raises UserError if there is none."""
    try:
        channels, height, width = map(int, saved["shape"])
    except (KeyError, OverflowError, TypeError, ValueError):
        raise UserError(f"this is not a config of {stage}: it lacks the shape of the images") from None
    return channels, height, width


def stored_autoencoder(saved: Any) -> tuple[AutoencoderConfig, tuple[int, int, int]]:
    """The network's config, and the images' shape (C, H, W), that an autoencoder's checkpoint stores.

    Args:
        saved: the whole config of its training, of which nothing else is looked at.

    Raises:
        UserError: they are not an autoencoder's.
    """
    shape = stored_shape(saved, AUTOENCODER)
    if not isinstance(saved.get("autoencoder"), dict):
        raise UserError(f"this is not a config of {AUTOENCODER}: it lacks the network's, autoencoder")
    return stored_config(AutoencoderConfig, saved["autoencoder"], AUTOENCODER), shape
