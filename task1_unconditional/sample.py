"""Sample from a trained model: `task1-sample --help`. Without options it uses the model that comes with the package."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shared.cli import Parser, command
from shared.sampling_options import DrawOptions, SampleOptions, TrustOptions, device_of, overrides

if TYPE_CHECKING:
    from task1_unconditional.model import Model


@dataclass
class SampleConfig(TrustOptions, SampleOptions):
    """What to sample, from what, and where to put it.

    All of it is inherited. From `SampleOptions`: the model (run, weights, device), the samples (n, seed, sampler,
    steps, eta, spacing), and the pictures (out, upscale, singles, gif). From `TrustOptions`: trust.
    """


def load_for(config: DrawOptions, trust: bool = False) -> "Model":
    """The model that the options name; a network of one's own only if it is trusted."""
    from shared.experiments.trained import source_of
    from task1_unconditional.model import load

    device = device_of(config)
    return load(source_of(config.run, "task1"), weights=config.weights, device=device, trust=trust)


def run() -> int:
    """Sample, with a bar, and write the pictures."""
    parser = Parser(prog="task1-sample", description="Sample images from a trained model of stage 1.")
    parser.add_class_arguments(SampleConfig)
    config = parser.parse_args()

    from tqdm import tqdm

    from shared import pictures

    model = load_for(config, config.trust)
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
