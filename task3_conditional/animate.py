"""A moving picture of a caption: `task3-animate "a red three above a blue seven" --motion pan-right`.

The picture is drawn, the canvas around it is painted by RePaint, and a window moves over it; see `motion.py` and
`zooms.py`.
"""

import itertools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from jsonargparse.typing import PositiveInt, restricted_number_type

from shared.cli import Parser, command
from shared.sampling_options import DrawOptions, GuideOptions, guidance_with, overrides
from task3_conditional.sample import load_for

if TYPE_CHECKING:
    from torch import Tensor

    from shared.conditions.said import Cond
    from task3_conditional.model import Model

Motion = Literal["pan-right", "pan-left", "pan-up", "pan-down", "pan-diagonal", "zoom-out", "zoom-in", "circle"]
Frames = restricted_number_type("Frames", int, [(">=", 4), ("<=", 1000)])


@dataclass
class AnimateConfig(GuideOptions, DrawOptions):
    """What to draw, how it moves, and where it goes.

    Inherited are the model and how it is sampled from `DrawOptions`, the guidance from `GuideOptions`.
    """

    n: PositiveInt = 1
    """number of films; each begins with another picture"""
    label: str | int | None = None
    """a class by name or number, for a model by class"""
    motion: Motion = "pan-right"
    """where the window goes over the picture; a zoom goes there and back"""
    around: str | None = None
    """what is told of what is painted around the picture: a caption or class, or "nothing" (default: nothing; in pans
    the same as of the picture, but for pieces of which half is known)"""
    frames: Frames = 64
    """of the film"""
    speed: PositiveInt = 1
    """pixels a frame; of a zoom what a side of the picture shrinks by, on average"""
    resample: PositiveInt = 4
    """RePaint's resampling count: more fits better, and takes as many times as long"""
    jump: PositiveInt = 10
    """RePaint's jump, in steps"""
    fps: PositiveInt = 16
    """frames a second"""
    upscale: PositiveInt = 8
    """side of the square that each pixel becomes"""
    out: str = "samples"
    """folder for the films and pictures"""


def told(model: "Model", text: str | None, label: str | int | None) -> "Cond":
    """The condition of one sample. Raises UserError for what the model is not told."""
    return model.told(1, text=text, label=label)


def told_around(config: AnimateConfig, model: "Model", text: str | None) -> "Cond":
    """The condition of what is painted around the picture; of pieces of which half is known see `filmed`."""
    from task3_conditional.motion import DIRECTIONS

    around = config.around if config.around or config.motion in DIRECTIONS else "nothing"
    if around is None:
        return told(model, text, config.label)
    if around == "nothing":
        return told(model, None, None)
    return told(model, around, None) if text is not None else told(model, None, around)


class Film(NamedTuple):
    """A film, and what it was cut from; the last three are what `animation_figures` takes."""

    picture: "Tensor"  # (1, C, H, W), what the model drew
    clip: "Tensor"  # (1, C, F, H, W)
    canvases: list["Tensor"]  # each (1, C, height, width): one that a window moves over, or those painted for a zoom
    pieces: list["Tensor"]  # what was painted at once in each, (height, width) or (1, 1, height, width)
    joined: tuple[int, ...]  # axes of the canvases whose ends touch


def filmed(model: "Model", cond: "Cond", around: "Cond", config: AnimateConfig, seed: int) -> Film:
    """The film of a picture, with a bar over the pieces that are painted.

    A piece of which half is known has no room for what the caption asks for. It is told nothing, unless `config.around`
    says what: so it only joins what is there.

    Raises:
        UserError: frames and speed do not make such a motion, or as for `inpaint`.
    """
    from tqdm import tqdm

    from shared.training.data import derive
    from task3_conditional import motion, zooms
    from task3_conditional.inpainting import inpaint

    options: dict[str, Any] = overrides(config) | {"guidance": guidance_with(config, model.config.guidance)}
    window = tuple(model.shape[1:])
    zoom = config.motion in motion.ZOOMS
    wide = zooms.scales(config.frames, config.speed / max(window))
    way = None if zoom else motion.path(config.motion, config.frames, config.speed, window)
    count = zooms.rings(max(wide)) if zoom else len(list(way.pieces()))
    nothing, number = told(model, None, None), itertools.count()  # not the bar's: without a terminal it counts nothing
    with tqdm(total=count, unit="piece", disable=None) as bar:

        def paint(picture: "Tensor", known: "Tensor") -> "Tensor":
            resampling = {"resample": config.resample, "jump": config.jump}
            joins = config.around is None and known.float().mean() >= 0.5
            said = nothing if joins else around
            own = derive(seed, "piece", next(number))
            whole = inpaint(model, said, picture, known, own, **resampling, **options)
            bar.update()
            return whole.cpu()

        picture = model.sample(cond, seed, **options).cpu()
        if zoom:
            levels, known = zooms.nested(picture, max(wide), paint)
            clip, canvases, pieces = zooms.zoomed(levels, config.motion, wide), levels[1:], known[1:]
        else:
            canvas = way.paint(picture, paint)
            clip, canvases, pieces = way.frames(canvas), [canvas], [way.painted()]
    return Film(picture, motion.begun(clip), canvases, pieces, joined=way.joined if way else ())


def run() -> int:
    """Draw, paint, and write the films."""
    parser = Parser(prog="task3-animate", description="A looping film of a picture that a model of stage 3 draws.")
    parser.add_argument("text", nargs="?", type=str | None, help="a caption, for a model by caption")
    parser.add_class_arguments(AnimateConfig)
    asked = vars(parser.parse_args())
    text = asked.pop("text")
    config = AnimateConfig(**asked)

    import torch

    from shared import films, pictures
    from shared.errors import UserError
    from shared.generation import batch_seeds

    if text is None and config.label is None:
        raise UserError('say what to draw: a caption, such as "a red three above a blue seven", or --label 3')
    model, out = load_for(config, text=text is not None), Path(config.out)
    cond, around = told(model, text, config.label), told_around(config, model, text)
    made = [filmed(model, cond, around, config, seed) for _, seed in batch_seeds(config.n, 1, config.seed)]
    first, clips = (torch.cat([film[part] for film in made]) for part in range(2))
    print(f"{config.motion}, {config.frames} frames, from {model.source}")
    print(f"moving: {films.save_gif(clips, out / 'film.gif', fps=config.fps, upscale=config.upscale)}")
    print(f"the same: {films.save_mp4(clips, out / 'film.mp4', fps=config.fps, upscale=config.upscale)}")
    sheet = pictures.grid(first, upscale=config.upscale, gap=2 if config.n > 1 else 0)
    print(f"the picture it is of: {pictures.save(sheet, out / 'picture.png')}")
    print(f"frame by frame: {pictures.save(films.contact_sheet(clips, upscale=2), out / 'sheet.png')}")
    return 0


def main() -> None:
    """The command `task3-animate`."""
    sys.exit(command(run))


if __name__ == "__main__":
    main()
