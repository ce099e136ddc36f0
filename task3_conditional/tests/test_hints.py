"""Hints against what can be known of simple shapes, against scipy's Sobel, and with pictures that are none."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from shared.datasets import DataConfig, load
from shared.datasets.images import InMemory
from task3_conditional.hints import HINTS, Hinted, as_hint, channels_of, edges, low, mask, scribble, slopes


def square(size: int = 16, first: int = 4, last: int = 11, channels: int = 1) -> torch.Tensor:
    """A white square on black, (1, C, size, size), from pixel `first` to pixel `last`."""
    x = torch.full((1, channels, size, size), -1.0)
    x[:, :, first : last + 1, first : last + 1] = 1
    return x


def digits(n: int = 20) -> torch.Tensor:
    data = load(DataConfig(name="digits"))
    return torch.stack([data[i * len(data) // n][0] for i in range(n)])


@pytest.mark.parametrize("kind", HINTS)
@pytest.mark.parametrize("shape", [(3, 1, 28, 28), (2, 3, 9, 14)])
def test_shape_range_and_each_image_by_itself(kind, shape):
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 6 - 3
    x = torch.nn.functional.avg_pool2d(noise, 5, 1, 2, count_include_pad=False).clamp(-1, 1)
    before, hint = x.clone(), HINTS[kind](x)
    assert hint.shape == (shape[0], channels_of(kind, shape[1]), *shape[2:]) and hint.dtype == torch.float32
    assert hint.abs().max() <= 1 and (kind == "low" or set(hint.unique().tolist()) == {-1.0, 1.0})
    for i in range(shape[0]):
        assert torch.equal(HINTS[kind](x[i : i + 1])[0], hint[i])
    assert torch.equal(x, before) and torch.equal(HINTS[kind](x.double()), hint)


@pytest.mark.parametrize("kind", HINTS)
@pytest.mark.parametrize("turn", [lambda x: x.flip(-1), lambda x: x.transpose(-1, -2)])
def test_a_turned_image_has_a_turned_hint(kind, turn):
    """But for ties, which must fall to one side: a few pixels."""
    x = digits()
    different = (HINTS[kind](turn(x)) - turn(HINTS[kind](x))).abs() > 1e-5
    assert different.float().mean() < 0.02


@pytest.mark.parametrize("kind", ["edges", "scribble"])
def test_what_has_no_edge_shows_none(kind):
    flat = torch.linspace(-1, 1, 5)[:, None, None, None].expand(5, 1, 12, 12)
    ramp = torch.linspace(-1, 1, 32).expand(1, 1, 32, 32)  # it rises by less than EDGE a pixel
    assert (HINTS[kind](flat) == -1).all() and (HINTS[kind](ramp) == -1).all()


@pytest.mark.parametrize("step, shown", [(0.24, False), (0.36, True)])
def test_a_step_of_a_sixth_of_the_range_is_an_edge_and_one_of_an_eighth_is_none(step, shown):
    """Sobel's operator makes of a step half of it a pixel, on either side."""
    x = torch.zeros(1, 1, 8, 8)
    x[..., 4:] = step
    assert (edges(x) > 0).any() == shown


def test_slopes_are_those_of_scipy():
    x = digits(3)
    across, down = slopes(x)
    for i in range(3):
        for found, axis in ((across, 1), (down, 0)):
            expected = ndimage.sobel(x[i, 0].double().numpy(), axis=axis, mode="nearest") / 8
            np.testing.assert_allclose(found[i, 0].numpy(), expected, atol=1e-6)


def test_the_edge_of_a_square_is_a_closed_line_one_pixel_wide_where_the_square_ends():
    found = edges(square())[0, 0] > 0
    ys, xs = torch.nonzero(found, as_tuple=True)
    for y, x in zip(ys.tolist(), xs.tolist(), strict=True):
        assert min(abs(side - place) for place in (y, x) for side in (3.5, 11.5)) == 0.5
    assert found[7].sum() == 2 and found[:, 7].sum() == 2  # two lines, each of one pixel
    inside, count = ndimage.label(~found.numpy())  # four-connected: a line without gaps, or one background
    assert count == 2 and inside[7, 7] != inside[0, 0]


@pytest.mark.parametrize("angle", range(0, 180, 15))
def test_a_line_in_any_direction_has_thin_edges_all_along(angle):
    """A half-plane, antialiased: along its border there is one line: nearly all of it, and no second row."""
    y, x = torch.meshgrid(torch.arange(40.0) - 20, torch.arange(40.0) - 20, indexing="ij")
    radians = torch.deg2rad(torch.tensor(float(angle)))
    distance = x * torch.cos(radians) + y * torch.sin(radians) + 0.2
    found = edges((2 * distance).clamp(-1, 1)[None, None])[0, 0] > 0
    assert distance[found].abs().max() < 1.2
    cosine, sine = abs(torch.cos(radians)), abs(torch.sin(radians))
    steps = 1 + min(cosine, sine) / max(cosine, sine)  # pixels a row of a line whose pixels touch at their sides
    assert 0.95 * 40 <= found.sum() <= 1.02 * 40 * steps


def test_two_colours_as_bright_as_each_other_have_an_edge_between_them():
    x = torch.full((1, 3, 8, 8), -1.0)
    x[:, 0, :, :4] = x[:, 1, :, 4:] = 1  # red beside green
    assert (edges(x)[0, 0, :, 3:5] > 0).sum() == 8 and x.mean(1).unique().numel() == 1
    assert torch.equal(mask(x), torch.ones(1, 1, 8, 8))


def test_the_mask_is_the_shape_itself_also_of_a_dark_blue():
    blue = square(channels=3)
    blue[:, :2] = -1
    assert torch.equal(mask(blue) > 0, square() > 0) and torch.equal(mask(square()) > 0, square() > 0)


def test_the_mask_parts_greys_at_the_middle():
    greys = torch.tensor([-0.3, -0.1, 0.1, 0.3]).expand(1, 1, 2, 4)
    assert mask(greys)[0, 0, 0].tolist() == [-1, -1, 1, 1]


def test_scribbles_are_thick_connected_lines_near_the_edges():
    thin, thick = square(32, 6, 25), scribble(square(32, 6, 25))[0, 0] > 0
    near = ndimage.distance_transform_edt((edges(thin)[0, 0] < 0).numpy())
    assert near[thick.numpy()].max() < 3.5 and 1.5 < thick.sum() / (edges(thin) > 0).sum() < 5
    assert not thick[15, 15] and not thick[0, 0] and ndimage.label(thick.numpy())[1] == 1
    moved = (scribble(thin.roll(1, -1)) != scribble(thin)).float().mean()
    assert moved < (edges(thin.roll(1, -1)) != edges(thin)).float().mean() * 2  # a pixel more or less says little


def test_low_keeps_the_means_of_squares_and_nothing_finer():
    x = digits(4)
    small = torch.nn.functional.avg_pool2d(x, 4)
    torch.testing.assert_close(low(small.repeat_interleave(4, -1).repeat_interleave(4, -2)), low(x))
    same = low(torch.full((1, 3, 10, 7), 0.25))
    torch.testing.assert_close(same, torch.full((1, 3, 10, 7), 0.25))


def test_low_rounds_up_the_size_of_what_is_no_multiple():
    halves = torch.tensor([-1.0] * 3 + [1.0] * 3).expand(1, 1, 6, 6)  # two small pixels wide, not one
    assert low(halves)[..., 0].unique().tolist() == [-1] and low(halves)[..., -1].unique().tolist() == [1]


def test_drawn_hints_lose_their_greys_and_must_show_something():
    drawn = torch.tensor([[[-1.0, -0.2], [0.3, 1.0]]])
    assert as_hint("edges", drawn).tolist() == [[[-1, -1], [1, 1]]] and torch.equal(as_hint("low", drawn), drawn)
    for value in (-1.0, 1.0):
        with pytest.raises(ValueError, match="^it shows no mask: white on black is needed"):
            as_hint("mask", torch.full((1, 2, 2), value))


def test_a_data_set_is_told_its_hints():
    images = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8)
    data = Hinted(InMemory(images, torch.arange(6) % 2, ["a", "b"]), "mask")
    x, cond = data[3]
    assert len(data) == 6 and cond["label"] == 1 and torch.equal(cond["hint"], mask(x[None])[0])
