"""`task3-edit colourise | enlarge | cascade`: what a model is told is a poorer picture, or one that another model drew.

What there is to read is in `super_resolution.py`; here are the options, and the pictures that come of it.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse.typing import NonNegativeFloat

from shared.sampling_options import overrides
from task3_conditional.editing import EditOptions, ResultOptions, asked, given, load_model, show

if TYPE_CHECKING:
    from shared.conditions.said import Cond
    from task3_conditional.model import Model


@dataclass
class ColouriseConfig(EditOptions):
    """Colours for a grey picture; its luminance stays."""


@dataclass
class EnlargeConfig(EditOptions):
    """Enlarge a picture; averaged down again, it is what was given."""

    level: NonNegativeFloat = 0.0
    """noise put on the small picture first, within what the model was trained with: for pictures that are not clean"""


@dataclass
class CascadeConfig(ResultOptions):
    """Draw small pictures, and enlarge them: a first model, and then others, each of which is given what was made."""

    then: list[str] | str | None = None
    """the models that enlarge, as for --run, which is the first: one, or in their order '[a,b]' (default: the one that
    comes with the package)"""
    level: list[NonNegativeFloat] | NonNegativeFloat = 0.0
    """noise put on what each of them is given, within what it was trained with: one for all, or as many"""
    label: str | int | None = None
    """a class by name or number, or several, with commas between them (default: all in turn)"""
    scale: float | None = None
    """guidance of the first model (default: its run's)"""


# --- the ways -------------------------------------------------------------------------------------------------------


def colourise(config: ColouriseConfig) -> None:
    """The grey picture, and n ways to colour it."""
    from task3_conditional.given import grey
    from task3_conditional.super_resolution import colourise as coloured

    model = load_model(config, "colour")
    shades = grey(given(model, config))
    cond, options = asked(model, config)
    results = coloured(model, shades.expand(config.n, -1, -1, -1), cond, config.seed, **options)
    show(shades, results, config, "coloured")


def enlarge(config: EnlargeConfig) -> None:
    """The small picture, as it is and by bicubic interpolation, and n ways to see it large."""
    import torch

    from shared.datasets.held_out import HELD_OUT, read_picture
    from task3_conditional.given import averaged, enlarged
    from task3_conditional.super_resolution import bicubic
    from task3_conditional.super_resolution import enlarge as larger

    model = load_model(config, "sr")
    factor = model.config.given.factor
    if config.picture.startswith(HELD_OUT):
        low = averaged(given(model, config), factor)
    else:
        channels, height, width = model.shape
        low = read_picture(Path(config.picture), (channels, height // factor, width // factor))[None]
    cond, options = asked(model, config)
    results = larger(model, low.expand(config.n, -1, -1, -1), cond, config.seed, level=config.level, **options)
    show(torch.cat([enlarged(low, factor, "nearest"), bicubic(low, factor)]), results, config, "enlarged")


def told(model: "Model", config: CascadeConfig) -> "Cond":
    """What a model of a cascade is told, of what it can be: a class for each picture, and the caption."""
    from shared.conditions.asked import labels_of

    labels, heard = None, model.config.condition.told
    if "label" in heard and (config.label is not None or config.text is None):
        labels = labels_of(config.label, model.known, config.n)
    return model.told(config.n, label=labels, text=config.text if "text" in heard else None)


def cascade(config: CascadeConfig) -> None:
    """A row of what each model makes, all as large as the last one's."""
    import torch

    from shared.errors import UserError
    from task3_conditional.given import enlarged
    from task3_conditional.super_resolution import cascade as cascaded

    names = config.then if isinstance(config.then, list) else [config.then]
    if not names:
        raise UserError("--then names no model that enlarges: give one or more")
    first = load_model(config, "small7")
    for name in ("label", "text"):  # that the first hears nothing of it would be seen in every picture
        if getattr(config, name) is not None:
            first.check_told(name)
    if config.scale is not None:
        guidance = replace(first.config.guidance, scale=config.scale)
        first = replace(first, config=replace(first.config, guidance=guidance))
    models = [first, *(load_model(replace(config, run=name), "sr") for name in names)]
    levels = config.level if isinstance(config.level, list) else [config.level] * len(names)
    conds = [told(model, config) for model in models]
    *smaller, results = cascaded(models, conds, config.seed, levels=levels, **overrides(config))
    rows = [enlarged(x, results.shape[-1] // x.shape[-1], "nearest") for x in smaller]
    show(torch.cat(rows), results, config, "cascaded", config.n)
