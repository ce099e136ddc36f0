"""Pictures enlarged, and pictures coloured, by models that were trained to be told the poorer picture.

What was told is a fact: averaged down again, the enlarged picture is the small one, and the luminance of the coloured
one is the grey one. Samples keep to it nearly; a last step makes it exact.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from shared.conditions.said import Cond
from shared.errors import UserError
from shared.training.data import derive
from task3_conditional.given import averaged, enlarged, grey, lowered
from task3_conditional.model import Model
from task3_conditional.redrawing import check_range

WITHIN = 1 / 255  # root mean square of what is left of an image's error, in [-1, 1]: half a grey level of 8 bits
ROUNDS = 1000


def fitted(x: Tensor, target: Tensor, reduce: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor]) -> Tensor:
    """Images x (n, C, H, W) in [-1, 1], changed by little so that `reduce` makes `target` of each, within `WITHIN`.

    Projections in turn on what fulfils that, and on [-1, 1]: both are convex, so they come to where both hold.

    Args:
        x: the images.
        target: what they must become, in [-1, 1].
        reduce: linear.
        back: of all images that `reduce` makes such a target of, the smallest.
    """
    for _ in range(ROUNDS):
        rest = target - reduce(x)
        if (rest.square().flatten(1).mean(1).sqrt() <= WITHIN).all():
            break
        x = (x + back(rest)).clamp(-1, 1)
    return x


def consistent(x: Tensor, low: Tensor, factor: int) -> Tensor:
    """Images x (n, C, H, W), changed so that averaged down by `factor` they are `low` (n, C, h, w)."""
    return fitted(x, low, lambda y: averaged(y, factor), lambda rest: enlarged(rest, factor, "nearest"))


def luminous(x: Tensor, shades: Tensor) -> Tensor:
    """Colour images x (n, 3, H, W), changed so that their luminance is `shades` (n, 1, H, W): all channels alike."""
    return fitted(x, shades, grey, lambda rest: rest)


def poorer(model: Model, kind: str) -> tuple[int, int, int]:
    """The shape (C', h, w) of the pictures of a kind that a model is told. Raises UserError if it is told no such."""
    given = model.config.given
    if given.kind != kind:
        names = {"low": "a picture in low resolution", "grey": "a picture without its colours"}
        raise UserError(f"{model.source} is not told {names[kind]}: give a model trained with given.kind {kind}")
    channels, height, width = model.shape
    return (1, height, width) if kind == "grey" else (channels, height // given.factor, width // given.factor)


def check_poor(model: Model, kind: str, poor: Tensor) -> None:
    """Raise UserError unless a model is told pictures of this kind, and these (n, C', h, w) are such."""
    needed = poorer(model, kind)
    if not poor.is_floating_point() or poor.ndim != 4 or tuple(poor.shape[1:]) != needed:
        shown = f"{poor.dtype} {'×'.join(map(str, poor.shape))}"
        raise UserError(f"the picture is {shown}, and the model takes float n×{'×'.join(map(str, needed))}: resize it")
    check_range(poor)


def told_besides(model: Model, cond: Cond | None, n: int) -> Cond:
    """What n samples are told besides the picture; nothing where that is None. Raises UserError for another number."""
    cond = model.told(n) if cond is None else cond
    if len(next(iter(cond.values()))) != n:
        raise UserError(f"{n} pictures need as many conditions, and there are {len(next(iter(cond.values())))}")
    return cond


def check_level(model: Model, level: float) -> None:
    """Raise UserError unless a model that enlarges was trained with noise of such a level."""
    most = model.config.given.noise
    if not 0 <= level <= most:
        raise UserError(f"the noise level is {level:g}, and {model.source} was trained with 0 to {most:g}")


def upsampled(
    model: Model, low: Tensor, cond: Cond | None = None, seed: int = 0, *, level: float = 0.0, **options: Any
) -> Tensor:
    """As `enlarge`, without its last step: for pictures that are not to be taken at their word, as those of a model."""
    check_poor(model, "low", low)
    check_level(model, level)
    generator = torch.Generator().manual_seed(derive(seed, "augmentation"))
    eps = torch.randn(low.shape, generator=generator).to(low)
    image = lowered(low, torch.full((len(low),), level, device=low.device), eps, model.config.given)
    return model.sample({**told_besides(model, cond, len(low)), "image": image}, seed, **options)


def enlarge(
    model: Model, low: Tensor, cond: Cond | None = None, seed: int = 0, *, level: float = 0.0, **options: Any
) -> Tensor:
    """Pictures enlarged, (n, C, H, W) in [-1, 1]; averaged down again they are what was given.

    Args:
        model: trained with given.kind low, whose factor it is enlarged by.
        low: (n, C, h, w) in [-1, 1].
        cond: what else is told of them, from `Model.told`; nothing where not given.
        seed: of the noise.
        level: of the noise put on them first, within what the model was trained with. See `given.lowered`.
        options: as for `Model.steps`.

    Raises:
        UserError: the model takes no such pictures, or as for `Model.steps`.
    """
    x = upsampled(model, low, cond, seed, level=level, **options)
    return consistent(x, low.to(x), model.config.given.factor)


def check_cascade(models: Sequence[Model], levels: Sequence[float]) -> None:
    """Raise UserError unless each model but the first takes what the one before makes, with noise of its level."""
    first, *others = models
    if (kind := first.config.given.kind) != "none":
        raise UserError(f"{first.source} is always told a picture (given.kind {kind}): a cascade begins without one")
    if len(levels) != len(others):
        raise UserError(f"a noise level is needed for each model that enlarges: {len(others)}, not {len(levels)}")
    for before, after, level in zip(models[:-1], others, levels, strict=True):
        taken, made = ("×".join(map(str, shape)) for shape in (poorer(after, "low"), before.shape))
        if taken != made:
            raise UserError(f"{after.source} enlarges pictures of {taken}, and {before.source} makes {made}")
        check_level(after, level)


def cascade(
    models: Sequence[Model],
    conds: Sequence[Cond],
    seed: int = 0,
    *,
    levels: Sequence[float] | None = None,
    **options: Any,
) -> list[Tensor]:
    """Samples of the first model, enlarged by each of the others in turn. Ho 2022, "Cascaded diffusion models".

    Args:
        models: one that is sampled from noise, then such as `enlarge` takes.
        conds: what each is told of the n samples, from its `told`.
        seed: of the noise.
        levels: of the noise on what each of the others is given; none where not given.
        options: as for `Model.steps`, for all of them.

    Returns:
        What each of the models makes, (n, C, H, W) in [-1, 1]: the last one's are the cascade's samples.

    Raises:
        UserError: a model does not take what the one before makes, or there are too few conditions or levels.
    """
    first, *others = models
    levels = [0.0] * len(others) if levels is None else levels
    if len(conds) != len(models):
        raise UserError(f"{len(models)} models need as many conditions, and there are {len(conds)}")
    check_cascade(models, levels)  # at once, and not when hours have been spent
    made = [first.sample(conds[0], seed, **options)]
    for i, (model, cond, level) in enumerate(zip(others, conds[1:], levels, strict=True)):
        made.append(upsampled(model, made[-1], cond, derive(seed, "cascade", i), level=level, **options))
    return made


def colourise(model: Model, shades: Tensor, cond: Cond | None = None, seed: int = 0, **options: Any) -> Tensor:
    """Grey pictures (n, 1, H, W) in [-1, 1] in colour, (n, 3, H, W); their luminance is what was given.

    Raises:
        UserError: the model takes no such pictures, or as for `Model.steps`.
    """
    check_poor(model, "grey", shades)
    x = model.sample({**told_besides(model, cond, len(shades)), "image": shades}, seed, **options)
    return luminous(x, shades.to(x))


def bicubic(low: Tensor, factor: int) -> Tensor:
    """(n, C, h, w) enlarged without a model, (n, C, H, W) in [-1, 1]: what to compare with."""
    return enlarged(low, factor).clamp(-1, 1)
