"""Edge F1, seams and consistency, against pictures of which the answer is plain."""

import math

import pytest
import torch
from scipy.ndimage import binary_dilation

from shared.datasets import DataConfig, load
from shared.errors import UserError
from shared.metrics.edges import SeamScore, consistency_rmse, edge_f1, seam_ratio, seam_score


def line(column, rows=slice(None), size=12):
    """An edge map of one vertical line."""
    edges = torch.zeros(1, 1, size, size, dtype=torch.bool)
    edges[..., rows, column] = True
    return edges


@pytest.mark.parametrize("tolerance, shift, f1", [(0, 0, 1), (0, 1, 0), (1, 1, 1), (1, 2, 0), (2, 2, 1)])
def test_an_edge_counts_within_the_tolerance_and_not_beyond(tolerance, shift, f1):
    assert edge_f1(line(5 + shift), line(5), tolerance).f1 == f1


def test_precision_is_of_the_samples_and_recall_of_the_references():
    half = edge_f1(line(5, slice(0, 6)), line(5), 0)
    assert half == pytest.approx((1.0, 0.5, 2 / 3))
    extra = edge_f1(line(5) | line(9), line(5), 1)
    assert extra == pytest.approx((0.5, 1.0, 2 / 3))


def test_edge_f1_is_what_scipy_counts():
    edges = torch.rand(2, 7, 1, 9, 11, generator=torch.Generator().manual_seed(0)) < 0.1
    wide = [binary_dilation(maps.numpy(), torch.ones(1, 1, 3, 3).numpy()) for maps in edges]
    precision = (edges[0].numpy() & wide[1]).sum() / edges[0].sum().item()
    recall = (edges[1].numpy() & wide[0]).sum() / edges[1].sum().item()
    assert 0.2 < precision < 0.9 and precision != recall
    assert edge_f1(*edges) == pytest.approx((precision, recall, 2 / (1 / precision + 1 / recall)))


def test_edges_of_nothing():
    nothing = line(5) & False
    assert edge_f1(nothing, nothing) == (1, 1, 1)
    assert edge_f1(nothing, line(5)) == (1, 0, 0)
    assert edge_f1(line(5), nothing) == (0, 1, 0)


def test_what_are_no_edge_maps_is_refused():
    for samples, references, tolerance in [
        (line(1).float(), line(1), 1),
        (line(1), line(1, size=8), 1),
        (line(1).expand(1, 3, 12, 12), line(1).expand(1, 3, 12, 12), 1),
        (line(1), line(1), -1),
    ]:
        with pytest.raises(UserError):
            edge_f1(samples, references, tolerance)


def test_a_seam_is_a_step_where_two_pieces_meet():
    ramp = torch.arange(12.0).expand(1, 1, 6, 12)  # gradient 1 along, 0 across
    pieces = (torch.arange(12) >= 5).expand(6, 12)
    rest = 6 * 10 / (6 * 10 + 5 * 12)  # mean gradient elsewhere
    assert seam_ratio(ramp, pieces) == pytest.approx(1 / rest)
    assert seam_ratio(ramp + 3 * pieces, pieces) == pytest.approx(4 / rest)
    assert seam_ratio(ramp + 3 * (torch.arange(12) >= 6), pieces) < 1 / rest  # a step, but elsewhere
    assert seam_ratio(ramp.mT, pieces.mT) == seam_ratio(ramp, pieces)
    none = pieces.long() * 2 - 1  # all of the left does not count
    assert seam_ratio(ramp, none) is None and seam_ratio(ramp * 0, pieces) is None


def test_the_seam_of_a_ring_is_seen_where_it_closes():
    turn = torch.sin(torch.arange(16) * 2 * math.pi / 16).expand(1, 1, 4, 16)
    pieces = (torch.arange(16) >= 8).long().expand(4, 16)
    assert seam_ratio(turn, pieces, (3,)) == pytest.approx(seam_ratio(turn.roll(3, 3), pieces.roll(3, 1), (3,)))
    ramp = torch.arange(16.0).expand(1, 1, 4, 16)
    assert seam_ratio(ramp, pieces, (3,)) > 4 * seam_ratio(ramp, pieces)
    assert seam_ratio(ramp.mT, pieces.mT, (2,)) == pytest.approx(seam_ratio(ramp, pieces, (3,)))


def test_only_the_axes_that_are_joined_close():
    """A ring along its columns whose top and bottom differ: they do not touch, and are no gradient of it."""
    both = torch.arange(4.0)[:, None] + 3 * (torch.arange(16) >= 8)
    pieces = (torch.arange(16) >= 8).long().expand(4, 16)
    rest = 3 * 16 / (3 * 16 + 4 * 14)  # down it is 1, and along 0 but at the borders
    assert seam_ratio(both[None, None], pieces, (3,)) == pytest.approx(3 / rest)
    assert seam_ratio(both[None, None], pieces, (2, 3)) == pytest.approx(3 / ((3 * 16 + 3 * 16) / (4 * 16 + 4 * 14)))
    with pytest.raises(UserError, match="joined is .1,.: it names axes"):
        seam_ratio(both[None, None], pieces, (1,))


# --- what a seam is beside places without one -----------------------------------------------------------------

PIECES = torch.cat([torch.zeros(32, 34), torch.ones(32, 16), torch.full((32, 14), 2)], dim=1).long().roll(9, 1)


@pytest.fixture(scope="module")
def rings():
    """Rings (24, 3, 32, 64), each of two real scenes side by side: nothing was painted in pieces."""
    data = load(DataConfig(name="captioned_digits", objects=2, split="test", languages=["en"]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        scenes = torch.stack([data[i][0] for i in range(48)])
    return torch.cat([scenes[:24], scenes[24:]], dim=3)


def seen(rings, pieces=PIECES):
    """In how many of them a seam is visible."""
    return sum(seam_score(ring[None], pieces, (3,)).visible for ring in rings)


def test_what_was_not_joined_shows_no_seam_more_often_than_chance(rings):
    assert seen(rings) <= 5  # one in ten to twenty, and what so few may be off
    through = torch.stack([seam_ratio(ring[None], PIECES, (3,)) * torch.ones(()) for ring in rings])
    assert through.max() > 1.5  # so 1 would not be the figure of no seam: it depends on what is there


@pytest.mark.parametrize(("step", "least"), [(0.08, 0.5), (0.2, 0.8), (0.6, 1.0)])
def test_a_planted_seam_is_seen_the_more_surely_the_larger_it_is(rings, step, least):
    """The least is ten shades of 255: hardly visible."""
    planted = rings + step * (PIECES == 1)
    assert seen(planted) >= least * len(rings)
    assert seen(planted, PIECES.roll(5, 1)) < 0.5 * len(rings)  # asked for where it is not


def test_a_digit_that_is_cut_is_a_seam(rings):
    cut = torch.where(PIECES == 1, rings.roll(7, 3), rings)  # other content, abruptly
    assert seen(cut) > 0.5 * len(rings)


def test_the_limits_are_of_places_where_nothing_is_joined():
    """One column of ten is steep: of borders moved anywhere else, one in ten meets it, and a twentieth is above it."""
    canvas = torch.zeros(1, 1, 4, 80)
    canvas[..., ::10] = 1.0  # a rise and a fall of 1, every ten pixels
    pieces = (torch.arange(80) >= 40).long().expand(4, 80)
    score = seam_score(canvas, pieces, (3,))  # both borders lie on a rise
    assert score.ratio == pytest.approx(score.limit, rel=0.2) and score.ratio > 5
    quiet = seam_score(canvas, pieces.roll(4, 1), (3,))
    assert quiet.ratio == 0 and quiet.limit > 5 and quiet.visible is False
    assert quiet.beside == pytest.approx(1)
    few = seam_score(canvas[..., :8] + torch.rand(4, 8), pieces[:, 36:44], (3,))
    assert few.limit is None and few.visible is None
    assert seam_score(canvas * 0, pieces, (3,)) is None


def test_the_limits_know_nothing_of_what_is_at_the_seam(rings):
    """However large its step: places without a seam neither lie on it nor count it to what is elsewhere."""
    for ring in rings[:3, None]:
        plain, torn = (seam_score(ring + step * (PIECES == 1), PIECES, (3,)) for step in (0, 50))
        assert torn.limit == pytest.approx(plain.limit, rel=1e-3) and torn.ratio > 100 > plain.ratio
        assert torn.beside_limit == pytest.approx(plain.beside_limit, rel=1e-3) and torn.beside > 20


def test_borders_are_moved_along_either_axis(rings):
    across, down = seam_score(rings[:1], PIECES, (3,)), seam_score(rings[:1].mT, PIECES.mT, (2,))
    assert down == pytest.approx(across) and across.limit is not None


def test_places_that_hold_but_a_bit_of_the_borders_set_no_limit():
    """On the right one row of eight counts, and it is as rough as can be."""
    canvas = torch.rand(1, 1, 8, 60, generator=torch.Generator().manual_seed(0))
    canvas[..., 30:] = 100.0 * (torch.arange(30) % 2)
    pieces = (torch.arange(60) > 5).long().repeat(8, 1)
    pieces[1:, 30:] = -1
    score = seam_score(canvas, pieces)
    assert score.limit < 0.2 and score.beside_limit < 2


def test_a_seam_is_visible_by_either_measure():
    for ratio, beside, visible in [(2.0, 1.0, True), (0.5, 2.0, True), (2.0, 2.0, True), (0.5, 1.0, False)]:
        assert SeamScore(ratio, 1.0, beside, 1.5).visible is visible


def test_consistency_is_of_means_in_shades():
    low = torch.rand(3, 1, 4, 5) * 2 - 1
    high = low.repeat_interleave(4, 2).repeat_interleave(4, 3)
    board = torch.tensor([[0.1, -0.1], [-0.1, 0.1]]).repeat(8, 10)
    assert consistency_rmse(high + board, low) == pytest.approx(0, abs=1e-6)
    assert consistency_rmse(high + 2 / 255, low) == pytest.approx(1 / 255, rel=1e-4)
    with pytest.raises(UserError, match="no enlargement"):
        consistency_rmse(high[..., :-1], low)
