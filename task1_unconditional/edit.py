"""Do things with pictures and a trained model: `task1-edit interpolate | reconstruct | redraw`.

What there is to read is in `editing.py`; here are the options, and the pictures that come of it.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse.typing import ClosedUnitInterval, PositiveInt, restricted_number_type

from shared.cli import Parser, command, parser_of_ways
from shared.sampling_options import TrustOptions, overrides
from shared.schedulers.config import Sampler, Spacing
from shared.training.config import Seed, Weights

if TYPE_CHECKING:
    from torch import Tensor

    from task1_unconditional.model import Model

Strength = restricted_number_type("Strength", float, [(">", 0), ("<=", 1)])
Several = restricted_number_type("Several", int, [(">=", 2), ("<=", 1000)])


@dataclass
class PictureOptions(TrustOptions):
    """With which trained model, and where the pictures go."""

    run: str | None = None
    """a run's folder, a checkpoint file, or "latest"; default: the model that comes with the package"""
    weights: Weights = "ema"
    """ema, model (the raw ones), swa, or what else the run keeps"""
    steps: PositiveInt = 100
    """number of steps, from noise or to it"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where to compute; auto takes a GPU if there is one"""
    out: str = "samples"
    """folder for the pictures"""
    upscale: PositiveInt = 1
    """side of the square that each pixel becomes"""


@dataclass
class InterpolateConfig(PictureOptions):
    """From one picture to another, by the arc between the noises that they come from."""

    first: str = "data:0"
    """a picture file; or data:3, a number of the images that were held out"""
    second: str = "data:1"
    """the other one"""
    frames: Several = 9
    """images on the way, both ends among them"""


@dataclass
class ReconstructConfig(PictureOptions):
    """Pictures into noise and back: what the model can say, and what is lost in the steps."""

    pictures: tuple[str, ...] = ()
    """picture files, or data:3 and so on (default: images that were held out)"""
    n: PositiveInt = 8
    """held-out images, where no picture is named"""


@dataclass
class RedrawConfig(ReconstructConfig):
    """SDEdit: give pictures noise, and draw them again from there."""

    strength: tuple[Strength, ...] = (0.2, 0.4, 0.6, 0.8)
    """the times to begin at, as shares of T, a row for each: little noise keeps most of a picture, 1 next to
    nothing"""
    seed: Seed = 0
    """of the noise"""
    sampler: Sampler | None = None
    """which solver (default: the run's)"""
    eta: ClosedUnitInterval | None = None
    """share of fresh noise in ddim (default: the run's)"""
    spacing: Spacing | None = None
    """which noise levels the steps visit (default: the run's)"""


def show(images: "Tensor", columns: int, config: PictureOptions, name: str) -> None:
    """Write a sheet of images (N, C, H, W), so many in a row, and say where it is."""
    from shared import pictures

    sheet = pictures.grid(images.clamp(-1, 1), columns, config.upscale)
    print(f"{name}: {pictures.save(sheet, Path(config.out) / f'{name}.png')}")


def interpolate(model: "Model", config: InterpolateConfig) -> None:
    """A row from the first picture to the second, and a film of it."""
    import torch

    from shared import pictures
    from shared.datasets.held_out import pictures_given
    from task1_unconditional.editing import interpolated

    ends = pictures_given(model, (config.first, config.second)).to(config.device)
    between = interpolated(model, *ends, config.frames, config.steps).cpu()
    show(torch.cat([ends[:1].cpu(), between, ends[1:].cpu()]), config.frames + 2, config, "interpolation")
    frames = [pictures.grid(image[None], 1, config.upscale, gap=0) for image in between]
    print(f"film: {pictures.save_film(frames, Path(config.out) / 'interpolation.gif')}")


def reconstruct(model: "Model", config: ReconstructConfig) -> None:
    """Three rows: the pictures, their noise, and what comes of it; and the error of each."""
    import torch

    from shared.datasets.held_out import pictures_given
    from task1_unconditional.editing import images_of, noise_of

    images = pictures_given(model, config.pictures, config.n)
    noise = noise_of(model, images.to(config.device), config.steps)
    back = images_of(model, noise, config.steps).cpu()
    show(torch.cat([images, noise.cpu() / 3, back]), len(images), config, "reconstruction")  # noise: ±3 deviations
    errors = ((back - images) / 2).square().flatten(1).mean(1).tolist()
    print(f"mean squared error in [0, 1], each: {' '.join(f'{error:.5f}' for error in errors)}")


def redraw(model: "Model", config: RedrawConfig) -> None:
    """The pictures, and below them a row for each strength."""
    import torch

    from shared.datasets.held_out import pictures_given
    from task1_unconditional.editing import redrawn

    images = pictures_given(model, config.pictures, config.n)
    given = images.to(config.device)
    rows = [redrawn(model, given, strength, config.seed, **overrides(config)).cpu() for strength in config.strength]
    show(torch.cat([images, *rows]), len(images), config, "redrawn")


WAYS = {
    "interpolate": (InterpolateConfig, interpolate),
    "reconstruct": (ReconstructConfig, reconstruct),
    "redraw": (RedrawConfig, redraw),
}


def build_parser() -> Parser:
    """A subcommand for each of WAYS."""
    ways = {name: options for name, (options, _) in WAYS.items()}
    return parser_of_ways("task1-edit", "Interpolate, reconstruct and redraw pictures by a trained model.", ways)


def uses_data(config: PictureOptions) -> bool:
    """Whether images of the model's data are asked for."""
    if isinstance(config, InterpolateConfig):
        names = config.first, config.second
    else:
        names = config.pictures or ("data:",)
    return any(name.startswith("data:") for name in names)


def run() -> int:
    """Do what is asked, and say where the pictures are."""
    parser = build_parser()
    asked = parser.instantiate(parser.parse_args())

    from shared.datasets.held_out import held_out
    from shared.sampling_options import device_of
    from task1_unconditional.sample import load_for

    options, do = WAYS[asked.way]
    config = options(**vars(asked[asked.way]))
    config.device = device_of(config)
    model = load_for(config, config.trust)
    print(f"model: {model.source}")
    if uses_data(config) and held_out(model)[1] == "train":
        print("its data has no held-out part: images named data:… are of the training")
    do(model, config)
    return 0


def main() -> None:
    """The command `task1-edit`."""
    sys.exit(command(run))


if __name__ == "__main__":
    main()
