"""Sample from a trained model: `task1-sample --help`. Without options it uses the model that comes with the package."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse.typing import PositiveInt

from shared.cli import Parser, command
from shared.schedulers.config import Sampler, Spacing
from shared.training.config import Seed

if TYPE_CHECKING:
    from task1_unconditional.model import Model


@dataclass
class SampleConfig:
    """What to sample, from what, and where to put it."""

    run: str | None = None
    """a run's folder, a checkpoint file, or "latest"; default: the model that comes with the package"""
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
    """write a film of the way from noise to the images"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where to compute; auto takes a GPU if there is one"""
    trust: bool = False
    """run the code of a network of one's own that the checkpoint names"""


def overrides(config: Any) -> dict[str, Any]:
    """The sampling options that were given; the run's own hold for the others."""
    given = {name: getattr(config, name) for name in ("sampler", "steps", "eta", "spacing")}
    return {name: value for name, value in given.items() if value is not None}


def load_for(config: Any) -> "Model":
    """The model that the options name."""
    import torch

    from shared.errors import UserError
    from shared.experiments.history import latest_run
    from task1_unconditional.model import load

    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device is cuda, but torch sees no GPU: use cpu, or auto")
    device = "cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu"
    source = latest_run(Path("runs"), "task1") if config.run == "latest" else config.run
    return load(source, weights=config.weights, device=device, trust=config.trust)


def run() -> int:
    """Sample, with a bar, and write the pictures."""
    parser = Parser(prog="task1-sample", description="Sample images from a trained model of stage 1.")
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
            frames.append(pictures.grid(step.x, upscale=config.upscale))
    images, out = step.x.clamp(-1, 1), Path(config.out)
    print(f"{config.n} images from {model.source}")
    print(f"grid: {pictures.save(pictures.grid(images, upscale=config.upscale), out / 'grid.png')}")
    if config.gif:
        print(f"from noise to image: {pictures.save_film(frames, out / 'trajectory.gif')}")
    if config.singles:
        pictures.save_each(images, out / "images", config.upscale)
        print(f"single images: {out / 'images'}")
    return 0


def main() -> None:
    """The command `task1-sample`."""
    sys.exit(command(run))


if __name__ == "__main__":
    main()
