"""Sample from a trained latent diffusion: `task2-sample --help`. Without options, from the one in this package."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.cli import Parser, command
from shared.sampling_options import SampleOptions, TrustOptions, device_of, overrides

if TYPE_CHECKING:
    from PIL import Image

    from task2_latent.model import Model


@dataclass
class SampleConfig(TrustOptions, SampleOptions):
    """What to sample, from what, and where to put it.

    To the options of stage 1 (see `SampleOptions` and `TrustOptions`) come the autoencoder and a walk through the
    latent space.
    """

    autoencoder: str | None = None
    """a run of task2-train-autoencoder, or its checkpoint; only where it does not lie with the diffusion"""
    gif: bool = True
    """write a film of the latents on their way from noise, decoded"""
    interpolate: bool = True
    """write ways from one image to another through the latent space"""


def load_for(config: Any) -> "Model":
    """The model that the options name."""
    from shared.experiments.trained import source_of
    from task2_latent.model import load

    source = source_of(config.run, "task2")
    return load(
        source, weights=config.weights, device=device_of(config), trust=config.trust, autoencoder=config.autoencoder
    )


def interpolation(model: "Model", latents: Any, upscale: int) -> "Image.Image":
    """From the images of the first half of the latents (n, Z, h, w), row by row, to those of the second."""
    from shared import pictures
    from task2_latent.views import COLUMNS, between

    half = min(len(latents) // 2, COLUMNS)
    ways = between(latents[:half], latents[half : 2 * half])
    return pictures.grid(model.decode(ways), COLUMNS, upscale)


def run() -> int:
    """Sample, with a bar, decode, and write the pictures."""
    parser = Parser(prog="task2-sample", description="Sample images from a trained model of stage 2.")
    parser.add_class_arguments(SampleConfig)
    config = parser.parse_args()

    from tqdm import tqdm

    from shared import pictures

    model = load_for(config)
    options = overrides(config)
    total = options.get("steps", model.config.sampling.steps)
    frames = []
    for step in tqdm(model.steps(config.n, config.seed, **options), total=total, unit="step", disable=None):
        if config.gif and (step.n % max(1, total // 20) == 0 or step.n == total - 1):
            frames.append(pictures.grid(model.decode(step.x), upscale=config.upscale))
    images, out = model.decode(step.x), Path(config.out)
    print(f"{config.n} images from {model.source}")
    print(f"grid: {pictures.save(pictures.grid(images, upscale=config.upscale), out / 'grid.png')}")
    if config.gif:
        print(f"from noise to image: {pictures.save_film(frames, out / 'trajectory.gif')}")
    if config.interpolate and config.n > 1:
        ways = interpolation(model, step.x, config.upscale)
        print(f"from image to image: {pictures.save(ways, out / 'interpolation.png')}")
    if config.singles:
        pictures.save_each(images, out / "images", config.upscale)
        print(f"single images: {out / 'images'}")
    return 0


def main() -> None:
    """The command `task2-sample`."""
    sys.exit(command(run))


if __name__ == "__main__":
    main()
