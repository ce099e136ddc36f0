"""Change a picture: `task3-edit inpaint | outpaint | redraw | colourise | enlarge`, or draw one by `cascade`.

What there is to read is in `inpainting.py` and `redrawing.py`; here are the options, and the pictures that come of it.
The last three ways are in `edit_larger.py`.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse.typing import PositiveInt, restricted_number_type

from shared.cli import Parser, command, parser_of_ways
from task3_conditional.edit_larger import CascadeConfig, ColouriseConfig, EnlargeConfig, cascade, colourise, enlarge
from task3_conditional.editing import EditOptions, asked, given, load_model, show

if TYPE_CHECKING:
    from task3_conditional.model import Model

Strength = restricted_number_type("Strength", float, [(">", 0), ("<=", 1)])
Hidden = Literal["left", "right", "top", "bottom", "centre"]


@dataclass
class PaintOptions(EditOptions):
    """By which way the hidden part is painted."""

    method: Literal["auto", "told", "repaint"] = "auto"
    """told is by a model that is told the masked picture, repaint by any model; auto is told where the model is"""
    resample: PositiveInt | None = None
    """repaint: how often each stretch of the way is gone through (default: 10); 1 is replacement alone"""
    jump: PositiveInt | None = None
    """repaint: the length of a stretch, in steps (default: 10)"""


@dataclass
class InpaintConfig(PaintOptions):
    """Paint what is hidden of a picture."""

    mask: str | None = None
    """a picture of the same size, or of the samples', white where the picture is to be painted anew, black where it is
    kept"""
    hide: Hidden | None = None
    """what to paint anew where no mask is given (default: right)"""


@dataclass
class OutpaintConfig(PaintOptions):
    """Paint what may lie around a picture."""

    size: PositiveInt | None = None
    """pixels of the picture's sides on the canvas, which is as large as the samples (default: three quarters)"""


@dataclass
class RedrawConfig(EditOptions):
    """SDEdit: give a picture noise, and draw it again from there towards what is asked."""

    strength: tuple[Strength, ...] = (0.3, 0.5, 0.7)
    """the times to begin at, as shares of T, a row for each"""


# --- the ways -------------------------------------------------------------------------------------------------------


def painting(model: "Model", config: PaintOptions):
    """The function that paints, and its own options. Raises UserError for RePaint's where it does not paint."""
    from shared.errors import UserError
    from task3_conditional.inpainting import fill, inpaint

    own = {name: value for name in ("resample", "jump") if (value := getattr(config, name)) is not None}
    told = model.config.given.kind == "mask"
    if config.method == "told" or (config.method == "auto" and told):
        if own:
            named = f"--{' and --'.join(own)} {'is' if len(own) == 1 else 'are'}"
            raise UserError(f"{named} for RePaint, and a told model paints: add --method repaint")
        return fill, {}
    return inpaint, own


def inpaint(config: InpaintConfig) -> None:
    """What is known, and n ways to paint the rest."""
    from shared.errors import UserError
    from task3_conditional.inpainting import checked
    from task3_conditional.masks import known_beside, read_mask

    if config.mask is not None and config.hide is not None:
        raise UserError("--mask and --hide both say what to paint anew: give one of them")
    model = load_model(config, "digits" if config.method == "repaint" else "inpaint")
    paint, own = painting(model, config)
    picture, size = given(model, config), model.shape[1:]
    if config.mask is None:
        mask = known_beside(config.hide or "right", *size)
    else:
        mask = read_mask(Path(config.mask), config.picture, *size)
    checked(mask, picture)
    cond, options = asked(model, config)
    results = paint(model, cond, picture, mask, config.seed, **own, **options)
    show(picture.where(mask, 0.0), results, config, "inpainted")


def outpaint(config: OutpaintConfig) -> None:
    """The picture on its canvas, and n ways to go on around it."""
    import torch.nn.functional as F

    from shared.errors import UserError
    from task3_conditional.inpainting import on_canvas
    from task3_conditional.inpainting import outpaint as around

    model = load_model(config, "digits" if config.method == "repaint" else "inpaint")
    paint, own = painting(model, config)
    side = min(model.shape[1:])
    size = config.size or side * 3 // 4
    if size >= side:
        raise UserError(f"--size {size} leaves no room: the model's pictures are {side} pixels; make it smaller")
    small = F.interpolate(given(model, config), size=(size, size), mode="bilinear", antialias=True)
    cond, options = asked(model, config)
    results = around(model, cond, small, config.seed, by=paint, **own, **options)
    show(on_canvas(small, model.shape[1:])[0], results, config, "outpainted")


def redraw(config: RedrawConfig) -> None:
    """The picture, and a row of results for each strength."""
    import torch

    from shared.errors import UserError
    from task3_conditional.redrawing import redrawn

    if not config.strength:
        raise UserError("--strength names no time to begin at: give one or more, above 0 and at most 1")
    model = load_model(config, "captions" if config.text is not None else "digits")
    picture = given(model, config)
    cond, options = asked(model, config)
    rows = [redrawn(model, cond, picture, strength, config.seed, **options) for strength in config.strength]
    show(picture.expand(config.n, *picture.shape[1:]), torch.cat(rows), config, "redrawn", config.n)


WAYS = {
    "inpaint": (InpaintConfig, inpaint),
    "outpaint": (OutpaintConfig, outpaint),
    "redraw": (RedrawConfig, redraw),
    "colourise": (ColouriseConfig, colourise),
    "enlarge": (EnlargeConfig, enlarge),
    "cascade": (CascadeConfig, cascade),
}


def build_parser() -> Parser:
    """A subcommand for each of WAYS."""
    ways = {name: options for name, (options, _) in WAYS.items()}
    return parser_of_ways("task3-edit", "Paint, redraw, colour and enlarge pictures by a trained model.", ways)


def run() -> int:
    """Do what is asked, and say where the pictures are."""
    parser = build_parser()
    found = parser.instantiate(parser.parse_args())
    options, do = WAYS[found.way]
    do(options(**vars(found[found.way])))
    return 0


def main() -> None:
    """The command `task3-edit`."""
    sys.exit(command(run))


if __name__ == "__main__":
    main()
