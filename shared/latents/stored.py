"""Introduced in task 2; used by tasks 2, 4, 5.

A trained autoencoder, from its run or from the copy that lies with every diffusion trained in its space.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from shared.blocks.autoencoder import Autoencoder, build
from shared.blocks.autoencoder_config import AutoencoderConfig
from shared.errors import UserError
from shared.files import is_run
from shared.latents.config import stored_autoencoder
from shared.latents.space import Space, rebuilt
from shared.training.checkpoint import load_into, read_facts, write_checkpoint
from shared.training.state import prefixed
from shared.training.weights import read_weights

COPY = "autoencoder.safetensors"  # in a diffusion's run folder: the run depends on no other


def build_autoencoder(config: AutoencoderConfig, shape: tuple[int, int, int]) -> Autoencoder:
    """The autoencoder that a config names, for images of a shape (C, H, W).

    Raises:
        UserError: the images cannot be halved as often, or its parts do not fit together.
    """
    try:
        autoencoder = build(config, shape[0])
        autoencoder.check_size(*shape[1:])
    except ValueError as error:
        raise UserError(str(error)) from None
    return autoencoder


@dataclass
class LoadedAutoencoder:
    """A trained autoencoder, and where it comes from."""

    network: Autoencoder
    shape: tuple[int, int, int]  # of the images
    facts: dict[str, Any]  # of its checkpoint
    source: Path

    def check_images(self, image: Tensor) -> None:
        """Raise UserError unless an image (C, H, W) is of the shape that it was trained on."""
        if tuple(image.shape) != self.shape:
            there, here = ("×".join(map(str, s)) for s in (self.shape, image.shape))
            raise UserError(f"{self.source} is an autoencoder of images {there}, not {here}: train one for these")

    @property
    def run(self) -> Path | None:
        """The folder of its run; None where it is a file that somebody was given."""
        return folder if is_run(folder := self.source.parent.parent) else None

    def copy_to(self, folder: Path) -> None:
        """Write the copy that a diffusion's run keeps, so that it depends on no other. Raises OSError if it cannot."""
        about = {name: self.facts[name] for name in ("step", "config")}
        write_checkpoint(folder / COPY, prefixed("ema", self.network.state_dict()), about)


def load_autoencoder(source: str | Path, *, weights: str = "ema") -> LoadedAutoencoder:
    """Load a trained autoencoder, on the CPU.

    Args:
        source: a run's folder, or a checkpoint file.
        weights: "ema", "swa", or "model" for the raw ones.

    Raises:
        UserError: there is no such file, or it is not the checkpoint of an autoencoder.
    """
    path = Path(source)
    if not path.exists():
        raise UserError(f"there is no autoencoder {path}: train one by task2-train-autoencoder")
    state, path = read_weights(path, weights)
    facts = read_facts(path)
    config, shape = stored_autoencoder(facts.get("config", {}))
    network = build_autoencoder(config, shape)
    load_into(network, state, path)
    return LoadedAutoencoder(network.eval(), shape, facts, path)


def autoencoder_of(checkpoint: Path) -> Path | None:
    """The copy of its autoencoder that lies with a diffusion: in its run's folder, or beside an exported file."""
    places = [checkpoint.parent / COPY, checkpoint.parent.parent / COPY]
    return next((place for place in places if place.is_file()), None)


def space_of(checkpoint: Path, facts: dict[str, Any], autoencoder: str | Path | None = None) -> Space:
    """The latent space that the diffusion in a checkpoint was trained in, on the CPU.

    Args:
        checkpoint: the file.
        facts: of the space, as the checkpoint stores them.
        autoencoder: where its autoencoder lies, if not with it.

    Raises:
        UserError: the autoencoder is missing, or another one; or the facts are none.
    """
    place = autoencoder or autoencoder_of(checkpoint)
    if place is None:
        raise UserError(
            f"{checkpoint} is a diffusion of latents, and no {COPY} lies with it: give one by --autoencoder"
        )
    return rebuilt(load_autoencoder(place).network, facts, checkpoint)
