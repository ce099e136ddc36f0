"""Loss-aware times: frequencies, weights, and the mean that must not change."""

import pytest
import torch

from shared.schedulers.importance import LossAware

T, KEEP = 6, 4


def memory(sizes=(1.0, 2.0, 3.0, 4.0, 5.0, 6.0), evenly=0.001):
    """After KEEP losses at each level, all of the size given for it."""
    kept = LossAware(T, KEEP, evenly)
    for _ in range(KEEP):
        kept.take(torch.arange(1, T + 1), torch.tensor(sizes))
    return kept


def test_before_every_level_is_known_all_are_alike():
    kept = LossAware(T, KEEP)
    for _ in range(KEEP):
        assert torch.allclose(kept.probabilities(), torch.full((T,), 1 / T))
        kept.take(torch.arange(2, T + 1), torch.arange(2, T + 1).float())  # level 1 is never seen
    assert torch.allclose(kept.probabilities(), torch.full((T,), 1 / T))
    kept.take(torch.ones(KEEP), torch.ones(KEEP))
    assert kept.probabilities().std() > 0.05


def test_levels_are_drawn_as_often_as_their_losses_are_large():
    """Improved DDPM, eq. (18): the root of the mean square."""
    kept = LossAware(2, KEEP, evenly=0.0)
    kept.take(torch.tensor([1, 1, 1, 1, 2, 2, 2, 2]), torch.tensor([0.0, 0.0, 0.0, 6.0, 1.0, 1.0, 1.0, 1.0]))
    assert kept.probabilities().tolist() == pytest.approx([0.75, 0.25])  # a root of 3, and of 1; means: 1.5 and 1
    torch.manual_seed(0)
    t, _ = kept.draw(20_000)
    assert (t == 1).double().mean().item() == pytest.approx(0.75, abs=0.015)


def test_weighted_the_mean_is_that_of_even_draws_with_less_spread():
    sizes = torch.tensor([100.0, 1.0, 1.0, 2.0, 1.0, 1.0])
    kept = memory(sizes.tolist())
    torch.manual_seed(0)
    t, weight = kept.draw(50_000)
    assert t.min() == 1 and t.max() == T
    weighted, even = weight * sizes[t - 1], sizes[torch.randint(0, T, (50_000,))]
    assert weighted.mean().item() == pytest.approx(sizes.mean().item(), rel=0.01)
    assert weighted.std() < even.std() / 5


def test_a_level_that_costs_nothing_is_still_drawn():
    kept = memory((0.0, 1.0, 1.0, 1.0, 1.0, 1.0), evenly=0.06)
    assert kept.probabilities()[0].item() == pytest.approx(0.06 / T)
    assert memory((0.0,) * T).probabilities().tolist() == pytest.approx([1 / T] * T)


def test_only_the_last_losses_count_whatever_their_number_in_one_step():
    """Against a list per level, kept in Python."""
    kept, lists = LossAware(T, KEEP), {level: [] for level in range(1, T + 1)}
    generator = torch.Generator().manual_seed(3)
    for size in (1, 3, 40, 7, 2):
        t = torch.randint(1, T + 1, (size,), generator=generator)
        losses = torch.rand(size, generator=generator)
        kept.take(t, losses)
        for level, loss in zip(t.tolist(), losses.tolist(), strict=True):
            lists[level] = [*lists[level], loss][-KEEP:]
    assert all(len(held) == KEEP for held in lists.values())
    for level, held in lists.items():
        assert sorted(kept.losses[level - 1].tolist()) == pytest.approx(sorted(held))
    assert kept.seen.sum().item() == 53


def test_what_a_step_notes_counts_from_the_next_step_on():
    kept = memory()
    before = kept.probabilities()
    kept.note(torch.tensor([1, 2]), torch.tensor([9.0, 8.0]))
    kept.note(torch.tensor([3, 1]), torch.tensor([7.0, 6.0]))
    assert torch.equal(kept.probabilities(), before)
    noted = kept.pending()
    assert noted.shape == (2, 2, 2) and not kept.noted
    kept.take(*noted.transpose(0, 1).flatten(1))
    assert {9.0, 6.0} <= set(kept.losses[0].tolist()) and 8.0 in kept.losses[1] and 7.0 in kept.losses[2]


def test_a_checkpoint_holds_all_of_it():
    kept, other = memory(), LossAware(T, KEEP)
    other.load_state_dict(kept.state_dict())
    assert torch.equal(other.probabilities(), kept.probabilities())
