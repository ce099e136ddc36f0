"""Sample clips from a trained video model: `task5-sample --label 4`; go on from a film: `task5-sample --given FILM`.

Without --run: from the model that comes with the package.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse.typing import NonNegativeFloat, PositiveInt

from shared.cli import Parser, command
from shared.sampling_options import DrawOptions, GuideOptions, device_of, guidance_with, overrides

if TYPE_CHECKING:
    from torch import Tensor

    from shared.conditions.said import Cond
    from task5_video.model import Model


@dataclass
class GivenOptions:
    """Frames that are known, and how the others hear of them."""

    given: str | None = None
    """a video, GIF or folder of frames to go on from, each frame of it; "data" takes clips that were held out"""
    given_frames: PositiveInt = 4
    """so many of its first frames are given"""
    between: bool = False
    """give its first and its last frame instead, and draw what lies between"""
    method: Literal["conditional", "replacement", "reconstruction"] = "conditional"
    """conditional: the network is told these frames, and was trained so; replacement and reconstruction guidance have
    any model go on"""
    weight: NonNegativeFloat = 10.0
    """of reconstruction guidance"""


@dataclass
class SampleConfig(GivenOptions, GuideOptions, DrawOptions):
    """What to sample, from what, and where to put it.

    Inherited are the model and the samples from `DrawOptions`, the guidance from `GuideOptions`, and what is given.
    """

    n: PositiveInt = 10
    """number of clips"""
    frames: PositiveInt | None = None
    """of a clip (default: as in training)"""
    length: PositiveInt | None = None
    """go on to so many frames, clip after clip, each given the last frames of the one before"""
    overlap: PositiveInt = 4
    """how many frames that is"""
    loop: bool = False
    """have the last frame be followed by the first"""
    label: str | int | None = None
    """a class by name or number, or several, with commas between them (default: all in turn)"""
    text: str | None = None
    """a caption (default for moving digits: each moves somewhere)"""
    out: str = "samples"
    """folder for the films and pictures"""
    fps: PositiveInt = 8
    """frames a second"""
    upscale: PositiveInt = 4
    """side of the square that each pixel becomes"""
    singles: bool = False
    """write each clip to a GIF of its own as well, pixel for pixel"""


def load_for(config: DrawOptions) -> "Model":
    """The model that the options name; where they name none, the committed one."""
    from shared.experiments.trained import source_of
    from task5_video.model import load

    return load(source_of(config.run, "task5"), weights=config.weights, device=device_of(config))


def check(config: SampleConfig) -> None:
    """Raise UserError for options that contradict each other, before anything is loaded."""
    from shared.errors import UserError

    if config.between and not config.given:
        raise UserError("--between needs the two frames: name a film or a folder of two pictures as --given")
    if config.loop and (config.given or config.length):
        raise UserError("--loop has neither beginning nor end: leave --given and --length out")
    if config.between and config.length:
        raise UserError("--between ends at a given frame: leave --length out")


def check_goes_on(config: SampleConfig, model: "Model", frames: int) -> None:
    """Raise UserError where the model cannot go on as the options say, before a first clip is drawn."""
    from shared.errors import UserError

    if config.between:
        model.check_method(config.method, (0, frames - 1))
    elif config.given:
        model.check_method(config.method, range(config.given_frames))
    if config.length and config.length > frames and config.overlap >= frames:
        raise UserError(
            f"--overlap is {config.overlap}, of clips of {frames} frames, which leaves none to be drawn: give fewer"
        )
    if config.length and config.length > frames:
        model.check_method(config.method, range(config.overlap))


def asked(config: SampleConfig, model: "Model", labels: list[int] | None) -> "Cond":
    """The condition that the options describe; of clips of the data, their own classes where none is asked for.

    Moving digits whose model is told captions are each sent somewhere, where no caption is asked for.
    """
    from shared.conditions.asked import labels_of
    from task5_video.films_given import captions_for

    told, text = model.config.condition.told, config.text
    if config.label is not None or (labels is None and "label" in told and not config.given):
        labels = labels_of(config.label, model.known, config.n)
    labels = labels if "label" in told or config.label is not None else None
    if text is None and "text" in told and not config.given:
        text = captions_for(model, labels, config.n)
    return model.told(config.n, label=labels, text=text)


def draw(config: SampleConfig, model: "Model") -> "Tensor":
    """Clips (n, C, F, H, W) as the options ask for them."""
    from task5_video import continuation
    from task5_video.films_given import given_clips

    frames = config.frames or model.shape[1]
    check_goes_on(config, model, frames)
    options: dict[str, Any] = overrides(config) | {"guidance": guidance_with(config, model.config.guidance)}
    how = {"method": config.method, "weight": config.weight}
    film, labels = given_clips(config, model, config.n, frames) if config.given else (None, None)
    cond = asked(config, model, labels)
    if film is not None and config.between:
        ends = film[:, :, [0, -1]]
        return continuation.between(model, ends, cond, config.seed, frames=frames, **how, **options)
    if film is None:
        clips = model.sample(config.n, cond, config.seed, frames=frames, loop=config.loop, **options)
    else:
        start = film[:, :, : config.given_frames]
        clips = continuation.predicted(model, start, cond, config.seed, frames=frames, **how, **options)
    if config.length is None:
        return clips
    options |= {"frames": frames, "overlap": config.overlap}
    if config.text is None:  # a caption says how a clip begins: what comes after begins otherwise
        cond |= {name: value for name, value in model.told(config.n).items() if name in ("text", "text_mask")}
    return continuation.extended(model, clips, config.length, cond, config.seed, **how, **options)


def run() -> int:
    """Sample, and write the films."""
    parser = Parser(prog="task5-sample", description="Sample clips from a trained model of stage 5.")
    parser.add_class_arguments(SampleConfig)
    config = parser.parse_args()
    check(config)

    from shared import films, pictures

    model, out = load_for(config), Path(config.out)
    clips = draw(config, model)
    guidance = guidance_with(config, model.config.guidance)
    told = f", guidance scale {guidance.scale:g}" if model.config.condition.told else ""
    print(f"{config.n} clips of {clips.shape[2]} frames from {model.source}{told}")
    print(f"moving: {films.save_gif(clips, out / 'clips.gif', fps=config.fps, upscale=config.upscale)}")
    print(f"the same: {films.save_mp4(clips, out / 'clips.mp4', fps=config.fps, upscale=config.upscale)}")
    print(f"frame by frame: {pictures.save(films.contact_sheet(clips), out / 'sheet.png')}")
    if config.singles:
        for i, clip in enumerate(clips):
            films.save_gif(clip[None], out / "clips" / f"{i:04d}.gif", fps=config.fps)
        print(f"single clips: {out / 'clips'}")
    return 0


def main() -> None:
    """The command `task5-sample`."""
    sys.exit(command(run))


if __name__ == "__main__":
    main()
