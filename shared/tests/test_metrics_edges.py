"""Edge F1, seams and consistency, against pictures of which the answer is plain."""

import math

import pytest
import torch
from scipy.ndimage import binary_dilation

from shared.errors import UserError
from shared.metrics.edges import consistency_rmse, edge_f1, seam_ratio


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
    assert seam_ratio(turn, pieces, joined=True) == pytest.approx(seam_ratio(turn.roll(3, 3), pieces.roll(3, 1), True))
    ramp = torch.arange(16.0).expand(1, 1, 4, 16)
    assert seam_ratio(ramp, pieces, joined=True) > 4 * seam_ratio(ramp, pieces)


def test_consistency_is_of_means_in_shades():
    low = torch.rand(3, 1, 4, 5) * 2 - 1
    high = low.repeat_interleave(4, 2).repeat_interleave(4, 3)
    board = torch.tensor([[0.1, -0.1], [-0.1, 0.1]]).repeat(8, 10)
    assert consistency_rmse(high + board, low) == pytest.approx(0, abs=1e-6)
    assert consistency_rmse(high + 2 / 255, low) == pytest.approx(1 / 255, rel=1e-4)
    with pytest.raises(UserError, match="no enlargement"):
        consistency_rmse(high[..., :-1], low)
