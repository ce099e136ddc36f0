"""Motions, on a world that is known: `paint` looks up there what is hidden, so each frame has one right answer."""

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from shared.errors import UserError
from shared.metrics.edges import seam_ratio
from shared.metrics.loops import seam
from task3_conditional.animate import Motion
from task3_conditional.editing_measures import animation_figures
from task3_conditional.motion import MOTIONS, ZOOMS, around, begun, path
from task3_conditional.zooms import RATIO, composed, nested, rings, scales, zoomed

WINDOW, FRAMES = (12, 16), 40
WAYS = [motion for motion in MOTIONS if motion not in ZOOMS]
MOVES = {"pan-right": (0, 1), "pan-left": (0, -1), "pan-up": (-1, 0), "pan-down": (1, 0), "pan-diagonal": (1, 1)}


def painted_from(world: Tensor, way) -> tuple[Tensor, list[Tensor]]:
    """The canvas of a way on which each piece is taken from a world (1, C, height, width), and what was known of it."""
    places, masks = iter([piece.place for piece in way.pieces()]), []

    def paint(picture, known):
        here = way.seen(world, next(places))
        assert torch.equal(picture[known], here[known])  # the canvas and its mask are in step
        masks.append(known)
        return here

    return way.paint(way.seen(world, way.places[0]), paint), masks


def world_of(way):
    return torch.rand(1, 1, *way.canvas, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_the_motions_are_those_of_the_command():
    assert set(get_args(Motion)) == set(MOTIONS)


@pytest.mark.parametrize("motion", WAYS)
def test_every_frame_shows_the_world_and_nothing_unpainted(motion):
    way = path(motion, FRAMES, 1, WINDOW)
    world = world_of(way)
    canvas, masks = painted_from(world, way)
    clip = way.frames(canvas)
    assert clip.shape == (1, 1, FRAMES, *WINDOW)
    assert torch.equal(clip, way.frames(world)) and torch.equal(clip[:, :, 0], way.seen(world, way.places[0]))
    for known in masks:
        assert 1 / 16 <= known.float().mean() < 1  # something to go by, and something to paint
    assert len(masks) <= 24


@pytest.mark.parametrize("motion, move", MOVES.items())
@pytest.mark.parametrize("speed", [1, 2])
def test_a_pan_shows_the_frame_before_shifted_against_its_direction(motion, move, speed):
    way = path(motion, FRAMES, speed, WINDOW)
    clip = way.frames(world_of(way))
    down, right = (speed * step for step in move)
    for now in range(FRAMES):  # the first frame comes after the last
        before, after = clip[0, 0, now - 1], clip[0, 0, now]
        shifted = before.roll((-down, -right), (0, 1))
        rows = slice(max(0, -down), WINDOW[0] - max(0, down))
        columns = slice(max(0, -right), WINDOW[1] - max(0, right))
        assert torch.equal(after[rows, columns], shifted[rows, columns])
        assert not torch.equal(after, shifted)


def test_the_circle_goes_once_around_and_moves_by_a_pixel_at_a_time():
    way = path("circle", FRAMES, 1, WINDOW)
    ys, xs = (torch.tensor(part, dtype=torch.float64) for part in zip(*way.places, strict=True))
    radius = FRAMES / (2 * math.pi)
    assert ((ys - ys.mean()).hypot(xs - xs.mean()) - radius).abs().max() < 1.2
    for values in (ys, xs):
        assert (values - values.roll(1)).abs().max() <= 1 and values.min() == 0
    assert ys[0] == 0 and ys[FRAMES // 2] == ys.max() and xs[FRAMES // 4] == xs.max()
    assert all(max(part) + size == whole for part, size, whole in zip((ys, xs), WINDOW, way.canvas, strict=True))


@pytest.mark.parametrize("motion", MOVES)
def test_the_last_piece_of_a_pan_sees_both_its_ends(motion):
    """A cylinder: what is hidden in it has known pixels on either side, along the way."""
    way = path(motion, FRAMES, 1, WINDOW)
    *_, last = way.pieces()
    for axis, step in enumerate(MOVES[motion], 2):
        if step:
            ends = (
                last.known.amin(dim=5 - axis)[0, 0] if motion != "pan-diagonal" else last.known.amax(dim=5 - axis)[0, 0]
            )
            assert ends[0] and ends[-1]


@pytest.mark.parametrize("motion", WAYS)
def test_where_pieces_are_is_told_of_each_pixel(motion):
    way = path(motion, FRAMES, 1, WINDOW)
    found = way.painted()
    for number, piece in enumerate(way.pieces(), 1):
        assert (way.seen(found, piece.place)[~piece.known[0, 0]] == number).all()
    assert (way.seen(found, way.places[0]) == 0).all() and (found == 0).sum() == math.prod(WINDOW)


def test_ways_that_show_a_thing_twice_are_refused():
    for motion, frames, speed in [("pan-right", 20, 1), ("pan-down", 8, 2), ("pan-diagonal", 27, 1), ("circle", 4, 1)]:
        with pytest.raises(UserError, match="frames"):
            path(motion, frames, 1 if motion != "pan-down" else speed, WINDOW) if motion != "circle" else path(
                motion, 200, 1, WINDOW
            )


# --- zooms ----------------------------------------------------------------------------------------------------


def rings_of(share: float, size: int = 24) -> Tensor:
    """A smooth world that looks the same at every size of picture: rings about the middle, `share` of them seen."""
    at = (torch.arange(size) + 0.5) / size * 2 - 1
    distance = torch.hypot(at[:, None], at[None, :]) * share
    return torch.cos(4 * distance)[None, None]


def test_a_zoom_out_shows_ever_more_of_the_world():
    wide = scales(16, 1 / 24)
    assert wide[0] == 1 and max(wide) == wide[8] == pytest.approx(math.exp(16 / 2 / 24))
    wide = scales(32, 1 / 16)
    number = iter(range(1, 9))
    levels, masks = nested(rings_of(1), max(wide), lambda *_: rings_of(RATIO ** next(number)))
    assert len(levels) == rings(max(wide)) + 1 == 5 and torch.equal(levels[0], rings_of(1))
    for known in masks[1:]:
        assert known[0, 0].sum() == 18 * 18 and known[0, 0, 3:-3, 3:-3].all()
    clip = zoomed(levels, "zoom-out", wide)
    assert torch.equal(clip[:, :, 0], rings_of(1))
    for frame, scale in zip(clip.unbind(2), wide, strict=True):
        assert (frame - rings_of(scale)).abs().mean() < 0.06
    assert torch.equal(zoomed(levels, "zoom-in", wide), clip.roll(16, 2))


def test_the_finer_picture_is_in_front_and_what_is_beyond_is_not_covered():
    inner, outer = torch.full((1, 1, 24, 24), 0.5), torch.full((1, 1, 24, 24), -0.5)
    whole, covered = composed([inner], RATIO)
    assert covered.sum() == 18 * 18 and (whole[covered == 0] == 0).all()
    whole, covered = composed([inner, outer], RATIO)
    assert covered.all() and torch.allclose(whole[0, 0, 3:-3, 3:-3], inner[0, 0, 3:-3, 3:-3])
    assert torch.allclose(whole[0, 0, :3], outer[0, 0, :3])


# --- loops ----------------------------------------------------------------------------------------------------


def test_a_film_begins_where_it_closes():
    clip = torch.zeros(1, 1, 6, 2, 2) + torch.tensor([0.0, 1, 2, 3, 2.5, 2])[:, None, None]
    assert seam(clip).ratio > 1
    cut = begun(clip)
    assert torch.equal(cut, clip.roll(-1, 2)) and seam(cut).ratio <= 1
    one_jumps = torch.zeros(1, 1, 6, 2, 2) + torch.tensor([0.0, 1, 0, 1, 12, 2])[:, None, None]
    assert torch.equal(begun(one_jumps), one_jumps.roll(-1, 2))  # into the first it is 2, and 1 into most others
    closed = torch.zeros(1, 1, 6, 2, 2) + torch.tensor([0.0, 1, 2, 3, 2, 1])[:, None, None]
    assert torch.equal(begun(closed), closed)


def test_a_strip_that_does_not_close_is_found():
    """However the film is cut: by the largest step of the ring, and by the seam where its ends are joined."""
    wide, high = 40, 12
    turn = torch.sin(torch.arange(wide) * 2 * math.pi / wide).expand(1, 1, high, wide)
    ramp = torch.linspace(-1, 1, wide).expand(1, 1, high, wide)  # as smooth, but where its ends meet
    halves = (torch.arange(wide) >= wide // 2).expand(high, wide)

    def figures(canvas, joined=(3,)):  # a window of one column: each step of the film is one of the canvas
        clip = begun(canvas.permute(0, 1, 3, 2)[..., None])
        return animation_figures(clip, [canvas], [halves], joined)

    whole, torn = figures(turn), figures(ramp)
    assert whole["loop_ratio"] <= 1 and 1.3 < whole["worst_step"] < 1.6  # of a sine sqrt(2)
    assert torn["loop_ratio"] == pytest.approx(1) and torn["worst_step"] == pytest.approx(wide - 1)
    # of a ring's two borders one is torn, and steps down the strip are none
    rest = (wide - 2) * high / ((wide - 2) * high + wide * (high - 1))
    assert torn["seam_ratio"] == pytest.approx((1 + wide - 1) / 2 / rest, rel=1e-4)
    assert figures(ramp, joined=())["seam_ratio"] < 3 and whole["seam_ratio"] < 4


def test_the_worst_step_is_of_the_whole_ring_and_the_seam_of_all_canvases():
    ramp = torch.arange(6.0)[:, None, None].expand(1, 1, 6, 4, 4)
    canvas, pieces = torch.arange(12.0).expand(1, 1, 6, 12), (torch.arange(12) >= 5).expand(6, 12)
    stepped = canvas + 3 * pieces
    found = animation_figures(ramp, [canvas, stepped, canvas], [pieces, pieces, pieces & False], joined=())
    assert found["loop_ratio"] == found["worst_step"] == 5  # nothing but the step that closes it is larger than 1
    ratios = [seam_ratio(canvas, pieces), seam_ratio(stepped, pieces)]
    assert found["seam_ratio"] == pytest.approx(sum(ratios) / 2) and ratios[1] > 3 * ratios[0]
    assert animation_figures(ramp * 0, [canvas], [pieces & False], joined=()) == dict.fromkeys(found)


@pytest.mark.parametrize("motion", WAYS)
def test_a_canvas_is_joined_along_the_axes_of_its_pan(motion):
    axes = {axis for axis, step in enumerate(MOVES.get(motion, (0, 0)), 2) if step}
    assert set(path(motion, FRAMES, 1, WINDOW).joined) == axes


@pytest.mark.parametrize("length", [16, 24, 31, 32, 40, 47, 64, 100])
def test_around_a_ring_whole_windows_are_painted_and_the_last_joins_its_ends(length):
    """The windows reach everywhere, each new one hears of the one before, and the last of both its ends."""
    stops, known = around(16, length), torch.zeros(length, dtype=torch.bool)
    for stop in stops:
        where = (torch.arange(16) + stop) % length
        assert not known[where].all() and known[where[0]] == (stop > 0)
        if stop == stops[-1] > 0:
            ends = [int((~part).nonzero()[0]) for part in (known[where], known[where].flip(0))]
            assert min(ends) >= 1 and abs(ends[0] - ends[1]) <= 1  # as much of the one as of the other
        known[where] = True
    assert known.all() and len(stops) <= 2 + length // 15
