"""Sample from a trained conditional model: `task3-sample --label 4 --scale 3`, `task3-sample --text "a red three …"`.

Without --run: from the models that come with the package, by class or, with --text, by caption. Under a ControlNet:
`task3-sample --control RUN --hint drawing.png`.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared import sampling_options
from shared.cli import Parser, command
from shared.sampling_options import DrawOptions, SampleOptions, device_of, guidance_with, overrides

if TYPE_CHECKING:
    from torch import Tensor

    from shared.conditions.said import Cond
    from task3_conditional.control_model import Control
    from task3_conditional.model import Model


@dataclass
class GuideOptions(sampling_options.GuideOptions):
    """How strongly samples follow what is asked, and by which kind of guidance."""

    classifier: str | None = None
    """a run of task3-train-classifier: it guides the unconditional model, in place of classifier-free guidance"""
    weak: str | None = None
    """an earlier checkpoint of the same run: autoguidance, away from what that one says"""


@dataclass
class ControlOptions:
    """ControlNets, one or a list such as '[a, b]', with as many hints and weights."""

    control: list[str] | str | None = None
    """runs of task3-train-controlnet, or files: by default of the model that comes with them; guided and sampled as the
    first was in training"""
    hint: list[str] | str | None = None
    """pictures of what each is told, such as white edges on black; as large as the samples"""
    hint_from: list[str] | str | None = None
    """pictures of any size in place of --hint, of which the hints are made: the middle, as large as the samples"""
    control_weight: list[float] | float | None = None
    """how much each counts: 1 (the default) as in training, 0 not at all; or one for all"""


@dataclass
class SampleConfig(ControlOptions, GuideOptions, SampleOptions):
    """What to sample, from what, and where to put it.

    Inherited are the model, the samples and the pictures from `SampleOptions`, the guidance from `GuideOptions`, and
    the ControlNets from `ControlOptions`.
    """

    label: str | int | None = None
    """a class by name or number, or several, with commas between them (default: all in turn)"""
    text: str | None = None
    """a caption"""
    attributes: dict[str, bool] | None = None
    """yes or no by name, such as '{Smiling: true, Eyeglasses: false}'; the others are left open"""
    image: str | None = None
    """a picture, for a model that is told one; as large as its samples"""


def load_for(config: DrawOptions, text: bool = False) -> "Model":
    """The model that the options name; where they name none, the committed one by class or by text."""
    from shared.experiments.trained import source_of
    from task3_conditional.model import COMMITTED, COMMITTED_TEXT, load

    source = source_of(config.run, "task3") or (COMMITTED_TEXT if text else COMMITTED)
    return load(source, weights=config.weights, device=device_of(config))


def guiding(config: GuideOptions, model: "Model", weights: str) -> dict[str, Any]:
    """The options for `Model.steps` about guidance.

    Raises:
        UserError: both a classifier and a weak model, or one that does not fit the model.
    """
    from shared.errors import UserError
    from task3_conditional.classifier import load_classifier
    from task3_conditional.model import weaker

    if config.classifier and config.weak:
        raise UserError("--classifier and --weak are two kinds of guidance: give one of them")
    options: dict[str, Any] = {"guidance": guidance_with(config, model.config.guidance)}
    if config.weak:
        options["weak"] = weaker(model, config.weak, weights)
    if config.classifier:
        if model.config.condition.label == "none":
            raise UserError(f"--classifier guides to a class, and {model.source} is told no label: leave it out")
        device = str(next(model.network.parameters()).device)
        loaded = load_classifier(config.classifier, device=device)
        loaded.check_fits(model.config.schedule, model.shape, model.known["classes"])
        options["classifier"] = loaded.network
    return options


def load_controls(config: SampleConfig) -> "list[Control]":
    """The ControlNets that the options name, of one base: that of --run, or the one that the first comes with.

    Raises:
        UserError: there is a hint without any, or one does not fit its base.
    """
    from shared.errors import UserError
    from shared.experiments.trained import source_of
    from task3_conditional.control_model import load_control
    from task3_conditional.model import load

    if not config.control:
        if config.hint or config.hint_from:
            raise UserError("a hint is for a ControlNet, and none is named: add --control")
        if config.control_weight is not None:
            raise UserError("--control-weight is for a ControlNet, and none is named: add --control")
        return []
    device, run = device_of(config), source_of(config.run, "task3")
    base = load(run, device=device) if run else None  # averaged: --weights are the controls'
    controls = []
    for named in several(config.control):
        source = source_of(named, "task3-controlnet")
        controls.append(load_control(source, base, weights=config.weights, device=device))
        base = controls[0].base
    return controls


def several(option: Any) -> list[Any]:
    """What an option names: a list, or one."""
    return option if isinstance(option, list) else [option]


def under(controls: "list[Control]", config: SampleConfig) -> "Model":
    """The model of these ControlNets with the weights that are asked for."""
    from task3_conditional.control_model import controlled

    given = 1.0 if config.control_weight is None else config.control_weight
    return controlled(controls, given if isinstance(given, list) else [given] * len(controls))


def read_hints(controls: "list[Control]", config: SampleConfig) -> "dict[str, Tensor]":
    """The hints of ControlNets, by kind, (C', H, W) in [-1, 1], from pictures.

    Raises:
        UserError: there are not as many, or one is no such picture.
    """
    from shared.datasets.held_out import read_picture as brought
    from shared.errors import UserError
    from task3_conditional.hints import HINTS, as_hint

    if bool(config.hint) == bool(config.hint_from):
        raise UserError("--control needs either --hint, drawn ones, or --hint-from, pictures to make them of")
    paths, hints = several(config.hint or config.hint_from), {}
    if len(paths) != len(controls):
        raise UserError(f"{len(controls)} controls need as many hints, one for each, and there are {len(paths)}")
    for path, control in zip(paths, controls, strict=True):
        kind, size = control.config.hint, control.base.shape[1:]
        try:
            if config.hint_from:
                hints[kind] = HINTS[kind](brought(Path(path), control.base.shape)[None])[0]
            else:
                hints[kind] = as_hint(kind, read_picture(Path(path), control.network.channels, size))
        except ValueError as error:
            raise UserError(f"{path} is no hint: {error}") from None
    return hints


def read_image(path: Path, model: "Model") -> "Tensor":
    """A picture for a model that is told one, (C', H, W) in [-1, 1]. Raises UserError if it is none of that size."""
    model.check_told("image")
    return read_picture(path, model.known["image"], model.shape[1:])


def read_picture(path: Path, channels: int, size: Sequence[int]) -> "Tensor":
    """A picture (channels, H, W) in [-1, 1]. Raises UserError if it is none of the size (H, W)."""
    from shared.datasets.held_out import read_pixels
    from shared.datasets.ranges import to_unit
    from shared.errors import UserError

    height, width = size
    pixels = read_pixels(path, channels, None)
    if tuple(pixels.shape[1:]) != (height, width):
        size = f"{pixels.shape[2]}×{pixels.shape[1]}"
        raise UserError(f"{path} is {size} pixels, and the model's images are {width}×{height}: resize it")
    return to_unit(pixels)


def asked(config: SampleConfig, model: "Model") -> "Cond":
    """The condition that the options describe."""
    from shared.conditions.asked import labels_of
    from shared.errors import UserError

    if (kind := model.config.given.kind) != "none":
        raise UserError(f"{model.source} is always told a picture (given.kind {kind}): use it with task3-edit")
    labels = None
    if config.label is not None or shows_classes(config, model):
        labels = labels_of(config.label, model.known, config.n)
    image = None if config.image is None else read_image(Path(config.image), model)
    return model.told(config.n, label=labels, attributes=config.attributes, text=config.text, image=image)


def shows_classes(config: SampleConfig, model: "Model") -> bool:
    """Whether the samples are of all classes in turn: then each has a column."""
    return config.label is None and model.config.condition.label != "none"


def run() -> int:
    """Sample, with a bar, and write the pictures."""
    parser = Parser(prog="task3-sample", description="Sample images from a trained model of stage 3.")
    parser.add_class_arguments(SampleConfig)
    config = parser.parse_args()

    from tqdm import tqdm

    from shared import pictures
    from task3_conditional.control_model import hinted

    controls = load_controls(config)
    model = under(controls, config) if controls else load_for(config, text=config.text is not None)
    options = overrides(config) | guiding(config, model, config.weights)
    cond = asked(config, model)
    if controls:
        cond = hinted(controls, read_hints(controls, config), cond)
    total = options.get("steps", model.config.sampling.steps)
    columns = min(config.n, len(model.known["classes"])) if shows_classes(config, model) else None
    frames = []
    for step in tqdm(model.steps(cond, config.seed, **options), total=total, unit="step", disable=None):
        if config.gif and (step.n % max(1, total // 20) == 0 or step.n == total - 1):
            frames.append(pictures.grid(step.x.clamp(-1, 1), columns, config.upscale))
    images, out = step.x.clamp(-1, 1), Path(config.out)
    print(f"{config.n} images from {model.source}, guidance scale {options['guidance'].scale:g}")
    print(f"grid: {pictures.save(pictures.grid(images, columns, config.upscale), out / 'grid.png')}")
    if config.gif:
        print(f"from noise to image: {pictures.save_film(frames, out / 'trajectory.gif')}")
    if config.singles:
        pictures.save_each(images, out / "images", config.upscale)
        print(f"single images: {out / 'images'}")
    return 0


def main() -> None:
    """The command `task3-sample`."""
    sys.exit(command(run))


if __name__ == "__main__":
    main()
