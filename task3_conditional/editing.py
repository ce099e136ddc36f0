"""What all ways of `task3-edit` share: the options of their results, the model, and the sheet that is written.

The ways are in `edit.py` and `edit_larger.py`. Free of torch until something is done.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse.typing import ClosedUnitInterval, PositiveInt

from shared.sampling_options import device_of, overrides
from shared.schedulers.config import Sampler, Spacing
from shared.training.config import Seed, Weights

if TYPE_CHECKING:
    from torch import Tensor

    from shared.conditions.said import Cond
    from task3_conditional.model import Model


@dataclass
class ResultOptions:
    """By which model, and where the result goes."""

    run: str | None = None
    """a run's folder, a checkpoint file, or "latest"; default: the model for this that comes with the package"""
    weights: Weights = "ema"
    """ema, model (the raw ones), swa, or what else the run keeps"""
    label: str | int | None = None
    """the class that is to be seen, by name or number, for a model that is told one (default: left open)"""
    text: str | None = None
    """the caption, for a model that is told one"""
    scale: float | None = None
    """guidance: 1 is the conditional model, more exaggerates (default: the run's)"""
    n: PositiveInt = 8
    """number of results"""
    seed: Seed = 0
    """of the noise"""
    steps: PositiveInt | None = None
    """number of steps (default: the run's)"""
    sampler: Sampler | None = None
    """which solver (default: the run's)"""
    eta: ClosedUnitInterval | None = None
    """share of fresh noise in ddim (default: the run's)"""
    spacing: Spacing | None = None
    """which noise levels the steps visit (default: the run's)"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where to compute; auto takes a GPU if there is one"""
    out: str = "samples"
    """folder for the pictures"""
    upscale: PositiveInt = 1
    """side of the square that each pixel becomes"""
    singles: bool = False
    """write each result to a file of its own as well"""


@dataclass
class EditOptions(ResultOptions):
    """Which picture besides."""

    picture: str = "data:0"
    """a picture file; or data:3, a number of the images that were held out of the model's data"""


def load_model(config: ResultOptions, committed: str) -> "Model":
    """The model that the options name, or the committed one of a name."""
    from shared.experiments.trained import source_of
    from task3_conditional.model import RESULTS, load

    source = source_of(config.run, "task3") or RESULTS / f"{committed}.safetensors"
    return load(source, weights=config.weights, device=device_of(config))


def asked(model: "Model", config: ResultOptions) -> tuple["Cond", dict[str, Any]]:
    """What the results are told, and the options of sampling."""
    from dataclasses import replace

    options = overrides(config)
    if config.scale is not None:
        options["guidance"] = replace(model.config.guidance, scale=config.scale)
    return model.told(config.n, label=config.label, text=config.text), options


def given(model: "Model", config: EditOptions) -> "Tensor":
    """The picture (1, C, H, W) as large as the model's samples."""
    from shared.datasets.held_out import pictures_given

    return pictures_given(model, (config.picture,))


def show(images: "Tensor", results: "Tensor", config: ResultOptions, name: str, columns: int | None = None) -> None:
    """Write a sheet of what was given and what came of it, and say where it is."""
    import torch

    from shared import pictures

    images = images.expand(-1, results.shape[1], -1, -1).cpu()
    sheet = pictures.grid(torch.cat([images, results.cpu()]).clamp(-1, 1), columns, config.upscale)
    print(f"{name}: {pictures.save(sheet, Path(config.out) / f'{name}.png')}")
    if config.singles:
        pictures.save_each(results.cpu(), Path(config.out) / name, config.upscale)
        print(f"single images: {Path(config.out) / name}")
