"""Enlarging and colouring, with models whose samples are known beforehand: what was told holds of what comes out."""

import numpy as np
import pytest
import torch
from PIL import Image

from shared.conditions.said import Cond
from shared.errors import UserError
from task3_conditional.given import averaged, enlarged, grey
from task3_conditional.model import Model
from task3_conditional.super_resolution import (
    WITHIN,
    bicubic,
    cascade,
    colourise,
    consistent,
    enlarge,
    luminous,
    upsampled,
)
from task3_conditional.tests.echoes import echo, pictures


def left(difference):
    """Root mean square of each image's, the largest."""
    return difference.square().flatten(1).mean(1).sqrt().max()


def hard(n, channels, side):
    """Images of which most pixels are black or white already."""
    return (3 * pictures(n, channels, side, side)).clamp(-1, 1)


@pytest.mark.parametrize("factor", [2, 4])
def test_after_the_consistency_step_the_mean_of_each_square_is_what_was_given(factor):
    low = torch.cat([pictures(3, 1, 4, 4, seed=1), torch.ones(1, 1, 4, 4), -torch.ones(1, 1, 4, 4)])
    x = hard(5, 1, 4 * factor)
    found = consistent(x, low, factor)
    assert found.abs().max() <= 1
    blocks = found.unflatten(3, (4, factor)).unflatten(2, (4, factor)).mean((3, 5))
    assert left(blocks - low) <= 1 / 255 + 1e-6 and left(averaged(x, factor) - low) > 0.1


def test_the_consistency_step_changes_nothing_that_is_consistent_and_else_as_little_as_can_be():
    x = pictures(2, 1, 8, 8) / 2
    assert torch.equal(consistent(x, averaged(x, 4), 4), x)
    off = 0.1 * pictures(2, 1, 2, 2)  # far from black and white, the nearest one has each square moved as a whole
    moved = consistent(x, averaged(x, 4) + off, 4)
    torch.testing.assert_close(moved - x, off.repeat_interleave(4, 2).repeat_interleave(4, 3), atol=WITHIN, rtol=0)


def test_the_luminance_is_kept_and_so_are_colours_where_they_can_be():
    shades = torch.cat([pictures(3, 1, 6, 6, seed=2), torch.ones(1, 1, 6, 6)])
    x = hard(4, 3, 6)
    found = luminous(x, shades)
    assert left(grey(found) - shades) <= 1 / 255 + 1e-6 and found.abs().max() <= 1
    soft = pictures(2, 3, 6, 6) / 2
    moved = luminous(soft, grey(soft) + 0.1)
    torch.testing.assert_close(moved - soft, torch.full_like(soft, 0.1))


@pytest.mark.parametrize("how", ["nearest", "bicubic"])
def test_enlarging_is_sampling_told_the_picture_and_then_made_consistent(how):
    model, low = echo("low", off=0.2, factor=4, enlarge=how), pictures(3, 1, 2, 2) / 2
    raw = upsampled(model, low, steps=3)
    torch.testing.assert_close(raw, (enlarged(low, 4, how) + 0.2).clamp(-1, 1))
    found = enlarge(model, low, steps=3)
    assert found.shape == (3, 1, 8, 8) and left(averaged(found, 4) - low) <= 1 / 255 + 1e-6
    assert torch.equal(found, consistent(raw, low, 4)) and not torch.equal(found, raw)


def test_the_noise_on_the_low_resolution_is_of_the_level_that_is_asked_for_and_of_the_seed():
    model, low = echo("low", (1, 64, 64), factor=2, noise=0.6, enlarge="nearest"), torch.zeros(2, 1, 32, 32)
    for level in (0.0, 0.3, 0.6):
        upsampled(model, low, level=level, steps=1)
        told = model.network.told[-1]
        assert abs(told[:, 0].std() - level) < 0.03 and (told[:, 1] - (2 * level - 1)).abs().max() < 1e-6
    one, same, other = (upsampled(model, low, seed=seed, level=0.6, steps=1) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


def three() -> list[Model]:
    """A cascade from 2 to 8 pixels; only its last model was trained with noise."""
    return [echo(shape=(1, 2, 2)), echo("low", factor=2, shape=(1, 4, 4)), echo("low", factor=2, noise=0.5)]


def test_a_cascade_enlarges_what_the_model_before_has_drawn():
    base, middle, last = models = three()
    truth = pictures(2, 1, 2, 2) / 2
    conds = [base.told(2, image=truth), middle.told(2), last.told(2)]
    found = cascade(models, conds, steps=2)
    assert [tuple(x.shape) for x in found] == [(2, 1, 2, 2), (2, 1, 4, 4), (2, 1, 8, 8)]
    expected = enlarged(truth, 2).clamp(-1, 1)
    torch.testing.assert_close(found[0], truth)
    torch.testing.assert_close(found[1], expected)
    torch.testing.assert_close(found[2], enlarged(expected, 2).clamp(-1, 1))
    noisy = cascade(models, conds, steps=2, levels=[0.0, 0.5])
    assert torch.equal(noisy[1], found[1]) and not torch.allclose(noisy[2], found[2], atol=0.1)
    assert (last.network.told[-1][:, 1] == 0).all() and (middle.network.told[-1][:, 1] == -1).all()


def test_a_cascade_draws_other_noise_for_each_model_and_seed():
    """Two models of one shape see what they begin from: were it the same, the second would know the first's."""
    models = [echo(shape=(1, 2, 2)), echo("low", factor=1, shape=(1, 2, 2), noise=1.0)]
    models.append(echo("low", factor=1, shape=(1, 2, 2), noise=1.0))
    conds = [model.told(200) for model in models]
    seen = []
    for seed in (1, 1, 2):
        made = cascade(models, conds, seed, steps=1, levels=[1.0, 1.0])
        seen += [made, [model.network.told[-1][:, 0] for model in models[1:]]]
    (one, noise), (same, again), (other, others) = zip(seen[::2], seen[1::2], strict=True)
    assert all(torch.equal(a, b) for a, b in zip(one + noise, same + again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one + noise, other + others, strict=True))
    for a, b in [(noise[0], noise[1]), (noise[0], others[0]), (noise[1], others[1])]:
        assert abs(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]) < 0.15


def test_colouring_keeps_the_luminance_that_was_given():
    model, shades = echo("grey", (3, 8, 8), off=0.2), pictures(2, 1, 8, 8)
    found = colourise(model, shades, steps=2)
    assert found.shape == (2, 3, 8, 8) and left(grey(found) - shades) <= 1 / 255 + 1e-6
    assert torch.equal(model.network.told[-1], shades)


class Asked:
    """In place of a model's `sample`: notes what it is asked, and answers with zeros."""

    def __init__(self, model: Model):
        self.shape, self.said = model.shape, []
        model.sample = self

    def __call__(self, cond: Cond, seed: int = 0, **options: object) -> torch.Tensor:
        self.said.append((cond, seed, options))
        return torch.zeros(len(cond["label"]), *self.shape)


@pytest.mark.parametrize(
    ("way", "kind", "shape"),
    [(upsampled, "low", (2, 1, 2, 2)), (enlarge, "low", (2, 1, 2, 2)), (colourise, "grey", (2, 1, 8, 8))],
)
def test_what_else_is_told_the_seed_and_the_options_reach_the_model(way, kind, shape):
    model = echo(kind, (3 if kind == "grey" else 1, 8, 8))
    asked, poor = Asked(model), pictures(*shape)
    way(model, poor, {"label": torch.tensor([4, 7]), "image": torch.zeros(2)}, 11, steps=3, eta=0.5)
    ((cond, seed, options),) = asked.said
    assert cond["label"].tolist() == [4, 7] and len(cond["image"][0]) == model.known["image"]
    assert (seed, options) == (11, {"steps": 3, "eta": 0.5})


def test_a_cascade_tells_each_model_its_own_and_how_all_sample():
    models = three()
    asked = [Asked(model) for model in models]
    cascade(models, [{"label": torch.full((2,), i)} for i in range(3)], 11, steps=3)
    for i, ((cond, _, options),) in enumerate(each.said for each in asked):
        assert cond["label"].tolist() == [i, i] and options == {"steps": 3}
    assert asked[0].said[0][1] == 11 and len({each.said[0][1] for each in asked}) == 3


def test_the_height_is_not_the_width():
    model = echo("low", (1, 8, 16), factor=4)
    assert enlarge(model, pictures(1, 1, 2, 4), steps=1).shape == (1, 1, 8, 16)
    with pytest.raises(UserError, match="takes float n×1×2×4"):
        enlarge(model, pictures(1, 1, 4, 2))


def test_bicubic_is_pillows():
    low = pictures(1, 1, 5, 5) / 2
    expected = Image.fromarray(low[0, 0].numpy()).resize((20, 20), Image.Resampling.BICUBIC)
    torch.testing.assert_close(bicubic(low, 4)[0, 0], torch.from_numpy(np.array(expected)), atol=1e-5, rtol=0)


def test_bicubic_stays_in_range():
    sharp = pictures(1, 1, 4, 4).sign()
    assert bicubic(sharp, 4).abs().max() == 1 < enlarged(sharp, 4).abs().max()
    assert bicubic(sharp, 4).shape == (1, 1, 16, 16)


LOW = "^the picture is .*, and the model takes float n×1×2×2: resize it"


@pytest.mark.parametrize(
    ("low", "message"),
    [
        (pictures(2, 1, 3, 2), LOW),
        (pictures(2, 1, 8, 8), LOW),
        (pictures(2, 4, 2, 2), LOW),
        (pictures(1, 2, 2), LOW),
        (torch.zeros(2, 1, 2, 2, dtype=torch.uint8), LOW),
        (torch.full((2, 1, 2, 2), 1.1), "^the picture has values outside"),
        (torch.full((2, 1, 2, 2), -1.1), "^the picture has values outside"),
        (pictures(2, 1, 2, 2) * torch.nan, "^the picture has values outside"),
    ],
)
def test_pictures_of_another_size_or_range_are_refused(low, message):
    with pytest.raises(UserError, match=message):
        enlarge(echo("low"), low)


def test_models_levels_and_numbers_that_do_not_fit_are_refused():
    model, low = echo("low", noise=0.3), pictures(2, 1, 2, 2)
    for level in (-0.1, 0.31, float("nan")):
        with pytest.raises(UserError, match="^the noise level is .*, and the echo was trained with 0 to 0.3"):
            enlarge(model, low, level=level)
    with pytest.raises(UserError, match="^2 pictures need as many conditions, and there are 3"):
        enlarge(model, low, model.told(3))
    with pytest.raises(UserError, match="^the echo is not told a picture in low resolution"):
        enlarge(echo("mask"), low)
    with pytest.raises(UserError, match="^the echo is not told a picture without its colours"):
        colourise(model, low)


@pytest.mark.parametrize(
    ("change", "levels", "message"),
    [
        ({0: echo(shape=(1, 4, 4))}, None, "^the echo enlarges pictures of 1×2×2, and the echo makes 1×4×4"),
        ({1: echo(shape=(1, 4, 4))}, None, "^the echo is not told a picture in low resolution"),
        ({0: echo("low", factor=1, shape=(1, 2, 2))}, None, "^the echo is always told a picture .given.kind low."),
        ({2: echo("low", factor=2, shape=(3, 8, 8))}, None, "^the echo enlarges pictures of 3×4×4, .* makes 1×4×4"),
        ({}, [0.0], "^a noise level is needed for each model that enlarges: 2, not 1"),
        ({}, [0.0, 0.0, 0.0], "^a noise level is needed for each .*: 2, not 3"),
        ({}, [0.1, 0.1], "^the noise level is 0.1, and the echo was trained with 0 to 0$"),
        ({}, [0.0, 0.6], "^the noise level is 0.6, and the echo was trained with 0 to 0.5"),
    ],
)
def test_a_cascade_that_does_not_fit_is_refused_before_anything_is_drawn(change, levels, message):
    models = [change.get(i, model) for i, model in enumerate(three())]
    with pytest.raises(UserError, match=message):
        cascade(models, [model.told(1) for model in models], levels=levels)
    assert not models[0].network.told


def test_a_cascade_needs_a_condition_for_each_model():
    models = three()
    with pytest.raises(UserError, match="^3 models need as many conditions, and there are 2"):
        cascade(models, [model.told(1) for model in models[:2]])
