"""Encode a data set once, so that a diffusion trains on latents from the disk: `task2-encode --help`."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jsonargparse.typing import NonNegativeInt

from shared.cli import Own, Parser, command
from shared.datasets.config import DataConfig
from task2_latent.sample import device_of


@dataclass
class EncodeConfig:
    """Which images, by which autoencoder, and where to."""

    autoencoder: str | None = None
    """a run of task2-train-autoencoder, or its checkpoint (default: the one that comes with the package)"""
    data: DataConfig = field(default_factory=DataConfig)
    own_data: Own | None = None
    """a data set of your own instead: class_path and init_args"""
    out: str = "latents"
    """folder for the latents"""
    workers: NonNegativeInt = 0
    """processes that load and decode images"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where to compute; auto takes a GPU if there is one"""


def run() -> int:
    """Encode, with a bar, and say what was measured."""
    parser = Parser(prog="task2-encode", description="Write the latents of a data set to the disk.")
    parser.add_class_arguments(EncodeConfig)
    config = parser.instantiate(parser.parse_args())

    from tqdm import tqdm

    from shared.latents.cache import write_cache
    from shared.latents.space import Gauge, batch_for, described, encoded, keep
    from shared.training.data import check_data
    from task2_latent.model import build_data, load_autoencoder

    loaded = load_autoencoder(config.autoencoder)
    autoencoder = loaded.network.to(device_of(config))
    data = build_data(config)
    check_data(data)
    loaded.check_images(data[0][0])
    total = -(-len(data) // batch_for(data[0][0]))
    batches = tqdm(encoded(autoencoder, data, config.workers), total=total, unit="batch", disable=None)
    about, classes = described(config.data, config.own_data), getattr(data, "classes", None) or ()
    measured = write_cache(Path(config.out), batches, Gauge(autoencoder), about, classes)
    keep(measured, loaded.run)
    print(f"{measured.n} latents: {config.out}")
    channels = ", ".join(f"{m:.3f} ± {d:.3f}" for m, d in zip(measured.mean, measured.deviation, strict=True))
    print(f"deviation {measured.overall:.4f} (scale {1 / measured.overall:.4f}); by channel: {channels}")
    return 0


def main() -> None:
    """The command `task2-encode`."""
    sys.exit(command(run))


if __name__ == "__main__":
    main()
