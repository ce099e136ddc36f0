"""Sample from a trained transformer: `task4-sample --label 4`, or `task4-sample --ckpt RUN --label 4 --output out.png`.

Without --run: from the model that comes with the package.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.cli import Parser, command
from shared.sampling_options import DrawOptions, GuideOptions, SampleOptions, device_of, guidance_with, overrides

if TYPE_CHECKING:
    from task4_dit.model import Model

SHORT = {"--ckpt": ["--run"]}


@dataclass
class SampleConfig(GuideOptions, SampleOptions):
    """What to sample, from what, and where to put it.

    Inherited are the model, the samples and the pictures from `SampleOptions`, the guidance from `GuideOptions`.
    """

    label: str | int | None = None
    """a class by name or number, or several, with commas between them (default: all in turn)"""
    text: str | None = None
    """a caption"""
    output: str | None = None
    """one picture file, such as out.png, in place of the folder --out"""


def load_for(config: DrawOptions) -> "Model":
    """The model that the options name; where they name none, the committed one."""
    from shared.experiments.trained import source_of
    from task4_dit.model import load

    return load(source_of(config.run, "task4"), weights=config.weights, device=device_of(config))


def check_output(path: str) -> Path:
    """The picture's path. Raises UserError for a name of which no picture can be made, before anything is drawn."""
    from io import BytesIO

    from PIL import Image

    from shared.errors import UserError

    out = Path(path)
    try:
        Image.new("L", (1, 1)).save(BytesIO(), Image.registered_extensions()[out.suffix.lower()])
    except (KeyError, OSError, ValueError):  # no such ending, or one that can only be read
        out = None
    if out is None or out.is_dir():
        raise UserError(f"--output is {path}: it must be a file with the ending of a picture, such as out.png")
    return out


def run() -> int:
    """Sample, with a bar, and write the pictures."""
    parser = Parser(prog="task4-sample", description="Sample images from a trained model of stage 4.", short=SHORT)
    parser.add_class_arguments(SampleConfig)
    config = parser.parse_args()

    from tqdm import tqdm

    from shared import pictures
    from shared.conditions.asked import labels_of

    output = check_output(config.output) if config.output else None
    model = load_for(config)
    options: dict[str, Any] = overrides(config) | {"guidance": guidance_with(config, model.config.guidance)}
    by_class = model.config.condition.label
    labels = labels_of(config.label, model.known, config.n) if by_class or config.label is not None else None
    cond = model.told(config.n, label=labels, text=config.text)
    total = options.get("steps", model.config.sampling.steps)
    columns = min(config.n, len(model.known["classes"])) if by_class and config.label is None else None
    film, frames = config.gif and output is None, []
    for step in tqdm(model.steps(config.n, cond, config.seed, **options), total=total, unit="step", disable=None):
        if film and (step.n % max(1, total // 20) == 0 or step.n == total - 1):
            frames.append(pictures.grid(model.decode(step.x), columns, config.upscale))
    images, out = model.decode(step.x), Path(config.out)
    guidance = f", guidance scale {options['guidance'].scale:g}" if cond else ""
    print(f"{config.n} images from {model.source}{guidance}")
    print(f"grid: {pictures.save(pictures.grid(images, columns, config.upscale), output or out / 'grid.png')}")
    if film:
        print(f"from noise to image: {pictures.save_film(frames, out / 'trajectory.gif')}")
    if config.singles:
        folder = out / "images" if output is None else output.with_suffix("")
        pictures.save_each(images, folder, config.upscale)
        print(f"single images: {folder}")
    return 0


def main() -> None:
    """The command `task4-sample`."""
    sys.exit(command(run))


if __name__ == "__main__":
    main()
