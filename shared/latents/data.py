"""Introduced in task 2; used by tasks 2, 4.

What a diffusion of latents trains on, and the space that it lies in.
"""

from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from shared.cli import Own, build_own
from shared.datasets import load
from shared.datasets.config import DataConfig
from shared.errors import UserError
from shared.latents.cache import read_cache
from shared.latents.config import LatentsConfig
from shared.latents.space import Space, build_space, described, fingerprint, measured, rebuilt
from shared.latents.stored import LoadedAutoencoder


def build_latents(
    config: LatentsConfig,
    data: DataConfig,
    own_data: Own | None,
    autoencoder: LoadedAutoencoder,
    facts: dict[str, Any] | None = None,
    workers: int = 0,
) -> tuple[Dataset, Space]:
    """The data to train on, images or cached moments, and the space that they lie in.

    Args:
        config: of the latents.
        data, own_data: the images.
        autoencoder: that makes the latents; where it lies, they are measured.
        facts: the space of a run that is gone on with; measured for a new one.
        workers: processes that load images while they are measured.

    Raises:
        UserError: the autoencoder is for other images, or the cache is of another autoencoder or other data.
    """
    about, statistics = described(data, own_data), None
    if config.cache:
        images, statistics = read_cache(Path(config.cache), fingerprint(autoencoder.network), about)
    else:
        images = build_own(own_data, Dataset) if own_data else load(data)
        autoencoder.check_images(images[0][0])
    if facts:
        if facts.get("autoencoder") != fingerprint(autoencoder.network):
            raise UserError(f"{autoencoder.source} is not the one of this run: take it from a copy of the run")
        return images, rebuilt(autoencoder.network, facts, autoencoder.source)
    statistics = statistics or measured(autoencoder.network, autoencoder.run, images, about, workers)
    return images, build_space(autoencoder.network, statistics, config)
