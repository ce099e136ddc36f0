"""Sample from a trained latent diffusion: `task2-sample --help`. Without options, from the one in this package."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse.typing import PositiveInt

from shared.cli import Parser, command
from shared.schedulers.config import Sampler, Spacing
from shared.training.config import Seed

if TYPE_CHECKING:
    from PIL import Image

    from task2_latent.model import Model


@dataclass
class SampleConfig:
    """What to sample, from what, and where to put it."""

    run: str | None = None
    """a run's folder, a checkpoint file, or "latest"; default: the model that comes with the package"""
    autoencoder: str | None = None
    """a run of task2-train-autoencoder, or its checkpoint; only where it does not lie with the diffusion"""
    weights: Literal["ema", "model", "swa"] = "ema"
    """the averaged weights, the raw ones, or the equally weighted average"""
    n: PositiveInt = 64
    """number of images"""
    seed: Seed = 0
    """of the noise; the same seed gives the same images"""
    sampler: Sampler | None = None
    """which solver (default: the run's)"""
    steps: int | None = None
    """number of steps (default: the run's)"""
    eta: float | None = None
    """share of fresh noise in ddim, 0 to 1 (default: the run's)"""
    spacing: Spacing | None = None
    """which noise levels the steps visit (default: the run's)"""
    out: str = "samples"
    """folder for the pictures"""
    upscale: PositiveInt = 1
    """side of the square that each pixel becomes"""
    singles: bool = False
    """write each image to a file of its own as well"""
    gif: bool = True
    """write a film of the latents on their way from noise, decoded"""
    interpolate: bool = True
    """write ways from one image to another through the latent space"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where to compute; auto takes a GPU if there is one"""
    trust: bool = False
    """run the code of a network of one's own that the checkpoint names"""


def overrides(config: Any) -> dict[str, Any]:
    """The sampling options that were given; the run's own hold for the others."""
    given = {name: getattr(config, name) for name in ("sampler", "steps", "eta", "spacing")}
    return {name: value for name, value in given.items() if value is not None}


def device_of(config: Any) -> str:
    """Where to compute. Raises UserError if it is to be a GPU and there is none."""
    import torch

    from shared.errors import UserError

    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device is cuda, but torch sees no GPU: use cpu, or auto")
    return "cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu"


def load_for(config: Any) -> "Model":
    """The model that the options name."""
    from shared.experiments.history import latest_run
    from task2_latent.model import load

    source = latest_run(Path("runs"), "task2") if config.run == "latest" else config.run
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
