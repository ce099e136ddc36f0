"""Painting what is hidden: with a model whose samples are known beforehand, and what a person may get wrong."""

import pytest
import torch

from shared.errors import UserError
from shared.schedulers.repaint import repaint, resampled
from task3_conditional.inpainting import fill, inpaint, inpainting, mean_filled, on_canvas, outpaint, steps_of
from task3_conditional.redrawing import redrawn
from task3_conditional.tests.echoes import echo, pictures

MASK = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
MASK[..., :3] = True
QUICK = {"resample": 2, "jump": 2}


@pytest.mark.parametrize("mask", [MASK, MASK.expand(3, -1, -1, -1)], ids=["one", "each"])
@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_what_is_known_stands_bit_for_bit_and_the_rest_is_the_models(mask, sampler):
    model, x, truth = echo(), pictures(3, 1, 8, 8), pictures(3, 1, 8, 8, seed=1)
    painted = inpaint(model, model.told(3, image=truth), x, mask, sampler=sampler, **QUICK)
    assert painted.shape == (3, 1, 8, 8)
    assert torch.equal(painted[..., :3], x[..., :3])
    torch.testing.assert_close(painted[..., 3:], truth[..., 3:])
    one = inpaint(model, model.told(3, image=truth), x[:1], mask, sampler=sampler, **QUICK)
    assert torch.equal(one[..., :3], x[:1, ..., :3].expand(3, -1, -1, -1))


def test_it_is_the_shared_loop_asked_as_often_as_is_said():
    model, x = echo(), pictures(2, 1, 8, 8)
    steps = list(inpainting(model, model.told(2), x, MASK, 5, **QUICK))
    assert len(steps) == len(model.network.told) == steps_of(model, **QUICK) == 6 + 2 * 2
    assert steps_of(model, 12, 3, 4) == 12 + 2 * 2 * 4
    generator = torch.Generator().manual_seed(5)

    def noise(like):
        return torch.randn(like.shape, generator=generator)

    schedule = model.diffusion.schedule
    own = model.diffusion.denoiser(model.network, model.told(2))
    from functools import partial

    from shared.schedulers.samplers import clamped
    from shared.schedulers.steps import ddim_step

    *_, last = repaint(
        clamped(own, schedule),
        schedule,
        noise(x),
        resampled(schedule.times(6), 2, 2),
        x,
        MASK,
        step=partial(ddim_step, eta=0.0),
        noise=noise,
    )
    assert torch.equal(last.x, steps[-1].x)
    assert torch.equal(inpaint(model, model.told(2), x, MASK, 5, **QUICK), last.x.clamp(-1, 1))
    assert not torch.equal(inpaint(model, model.told(2), x, MASK, 6, **QUICK), last.x.clamp(-1, 1))


def test_a_model_that_is_told_the_masked_picture_fills_and_sees_nothing_of_what_is_hidden():
    model, x = echo("mask", off=0.25), pictures(2, 1, 8, 8)
    filled = fill(model, model.told(2), x, MASK)
    assert torch.equal(filled[..., :3], x[..., :3])  # although the model says something else
    torch.testing.assert_close(filled[..., 3:], torch.full((2, 1, 8, 5), 0.25))
    (told,) = model.network.told[-1:]
    assert torch.equal(told[:, 1:] == 1, MASK.expand(2, -1, -1, -1)) and (told[:, :1, :, 3:] == 0).all()


def test_a_picture_on_a_canvas_lies_where_it_is_put():
    x = pictures(2, 1, 3, 4)
    canvas, mask = on_canvas(x, (8, 9))
    assert torch.equal(canvas[:, :, 2:5, 2:6], x) and mask.sum() == 12 and mask[0, 0, 2:5, 2:6].all()
    canvas, mask = on_canvas(x, (8, 9), (5, 0))
    assert (
        torch.equal(canvas[:, :, 5:, :4], x)
        and mask[0, 0, 5:, :4].all()
        and canvas[~mask.expand_as(canvas)].eq(0).all()
    )


@pytest.mark.parametrize("by", [inpaint, fill])
def test_outpainting_keeps_the_picture_and_paints_around_it(by):
    model, x = echo("mask", off=0.25), pictures(2, 1, 4, 5)
    options = QUICK if by is inpaint else {}
    wider = outpaint(model, model.told(2), x, place=(0, 3), by=by, **options)
    assert wider.shape == (2, 1, 8, 8) and torch.equal(wider[:, :, :4, 3:], x)
    assert not torch.equal(wider, outpaint(model, model.told(2), x, by=by, **options))


def test_mean_filling_is_the_mean_of_what_is_known_of_each_picture_and_channel():
    x, mask = pictures(2, 3, 4, 4), pictures(2, 1, 4, 4, seed=3) > 0
    filled = mean_filled(x, mask)
    for i in range(2):
        for c in range(3):
            known = x[i, c][mask[i, 0]]
            torch.testing.assert_close(filled[i, c][~mask[i, 0]], known.mean().expand(int((~mask[i, 0]).sum())))
            assert torch.equal(filled[i, c][mask[i, 0]], known)


def test_drawn_again_a_picture_ends_at_what_the_model_makes_of_it():
    model, x, truth = echo(), pictures(2, 1, 8, 8), pictures(2, 1, 8, 8, seed=1)
    torch.testing.assert_close(redrawn(model, model.told(2, image=truth), x, 0.5), truth)
    model.network.told.clear()
    redrawn(model, model.told(2), x[:1], 0.5)
    assert len(model.network.told) == 3  # of six steps those from the middle on: at 500, 333 and 167
    with pytest.raises(UserError, match="^the time 0 to begin at must be above 0"):
        redrawn(model, model.told(2), x, 0.0)


# --- what a person may get wrong ----------------------------------------------------------------------------------

NOT_MASKS = {
    "other size": (MASK[..., :6], "the mask is 6×8 pixels, and the picture 8×8"),
    "nothing": (torch.ones(1, 1, 8, 8) > 0, "the mask hides nothing: there is nothing to paint"),
    "everything": (torch.zeros(1, 1, 8, 8) > 0, "the mask hides everything: nothing is known"),
    "one of three": (torch.cat([MASK, MASK, ~MASK & MASK]), "mask 2 hides everything"),
    "numbers": (MASK.float(), "the mask is torch.float32 of shape .*: bool .n, 1, H, W. is needed"),
    "colours": (MASK.expand(1, 3, 8, 8), "the mask is torch.bool of shape"),
    "two": (MASK.expand(2, 1, 8, 8), "3 pictures need as many masks, or one, and there are 2"),
}


@pytest.mark.parametrize("by", [inpaint, fill])
@pytest.mark.parametrize(("mask", "message"), NOT_MASKS.values(), ids=NOT_MASKS)
def test_masks_that_are_none_are_refused_in_one_line(by, mask, message):
    model = echo("mask")
    with pytest.raises(UserError, match=f"^{message}") as refused:
        by(model, model.told(3), pictures(3, 1, 8, 8), mask)
    assert "\n" not in str(refused.value)


NOT_PICTURES = {
    "alpha": (
        pictures(3, 4, 8, 8),
        "the picture has 4 channels, and the model's have 1: bring it to grey, and no alpha",
    ),
    "colour": (pictures(3, 3, 8, 8), "the picture has 3 channels, and the model's have 1: bring it to grey .read"),
    "bytes": (torch.zeros(3, 1, 8, 8, dtype=torch.uint8), "the picture is torch.uint8"),
    "no batch": (pictures(1, 8, 8), "the picture is torch.float32 of shape"),
    "size": (pictures(3, 1, 8, 9), "the picture is 9×8 pixels, and the model's are 8×8"),
    "range": (pictures(3, 1, 8, 8) * 100, "the picture has values outside"),
    "NaN": (pictures(3, 1, 8, 8) * torch.nan, "the picture has values outside"),
    "two": (pictures(2, 1, 8, 8), "3 samples need as many pictures, or one, and there are 2"),
}


@pytest.mark.parametrize(("picture", "message"), NOT_PICTURES.values(), ids=NOT_PICTURES)
def test_pictures_that_are_not_the_models_are_refused_in_one_line(picture, message):
    model = echo("mask")
    for by in (inpaint, fill):
        with pytest.raises(UserError, match=f"^{message}"):
            by(model, model.told(3), picture, MASK)
    with pytest.raises(UserError, match=f"^{message}"):
        redrawn(model, model.told(3), picture, 0.5)


@pytest.mark.parametrize("kind", ["low", "grey", "mask"])
def test_a_model_that_is_always_told_a_picture_does_not_draw_without(kind):
    """One that was sometimes told none does."""
    model = echo("none", shape=(3, 8, 8))
    model.config.given.kind = kind
    x, cond = pictures(2, 3, 8, 8), model.told(2)
    assert redrawn(model, cond, x, 0.5).shape == inpaint(model, cond, x, MASK, **QUICK).shape == x.shape
    model.config.condition.dropout = 0.0
    for draw in (lambda: redrawn(model, cond, x, 0.5), lambda: inpaint(model, cond, x, MASK, **QUICK)):
        with pytest.raises(
            UserError, match=f"^the echo was never trained without a picture.*given.kind {kind}"
        ) as refused:
            draw()
        assert "\n" not in str(refused.value)


def test_ways_that_cannot_be_gone_are_refused():
    model, x = echo(), pictures(1, 1, 8, 8)
    for options, message in [
        ({"jump": 6}, "a jump of 6 steps has no room in 6"),
        ({"resample": 0}, "resample is 0"),
        ({"sampler": "heun", "jump": 2}, "RePaint goes down in steps that stand by themselves, and heun has none"),
        ({"steps": 5000}, "5000 sampling steps"),
        ({"stepz": 5}, ".*stepz"),
    ]:
        with pytest.raises(UserError, match=f"^{message}"):
            inpaint(model, model.told(1), x, MASK, **options)
    with pytest.raises(UserError, match="^a jump of 10 steps has no room in 6"):
        steps_of(model)
    with pytest.raises(UserError, match="^the echo is told no masked picture: paint with RePaint"):
        fill(model, model.told(1), x, MASK)
    for place in [(6, 0), (0, -1)]:
        with pytest.raises(UserError, match="leaves the canvas of 8×8"):
            outpaint(model, model.told(1), pictures(1, 1, 4, 4), place=place)
    with pytest.raises(UserError, match="leaves the canvas"):
        outpaint(model, model.told(1), pictures(1, 1, 4, 12))
    with pytest.raises(UserError, match="hides nothing"):
        outpaint(model, model.told(1), x)
