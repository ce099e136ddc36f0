"""What a training clip consists of, and what its loss counts."""

import pytest
import torch
from torch.utils.data import Dataset

from shared.schedulers.config import DiffusionConfig, NoiseConfig
from shared.schedulers.diffusion import Diffusion
from task5_video.clips import WithStills, draw_given, examples, told_less, with_given
from task5_video.config import GivenConfig
from task5_video.tests.small import new_dit, new_unet, normal, wake

CPU = torch.device("cpu")


class Numbered(Dataset):
    """Clips (2, 4, 3, 3) all of whose numbers are 100 · clip + frame; what is said of each is its number."""

    def __len__(self):
        return 6

    def __getitem__(self, i):
        x = 100 * i + torch.arange(4.0)[None, :, None, None].expand(2, 4, 3, 3)
        return x, {"label": torch.tensor(i), "words": torch.tensor([i, -i])}


# --- stills ---------------------------------------------------------------------------------------------------


def test_stills_are_frames_of_any_clip_and_each_brings_what_is_said_of_its_own():
    data = WithStills(Numbered(), 3)
    torch.manual_seed(0)
    drawn = torch.zeros(6, 4)
    assert len(data) == 6
    for i in [k % 6 for k in range(600)]:
        x, cond = data[i]
        assert x.shape == (2, 7, 3, 3) and cond["owner"].tolist() == [0, 0, 0, 0, 1, 2, 3]
        assert torch.equal(x[:, :4], Numbered()[i][0]) and cond["label"][0] == i
        assert cond["owner"].dtype == torch.long and (x == x[:1, :, :1, :1]).all()
        for k in range(3):
            clip, frame = divmod(int(x[0, 4 + k, 0, 0]), 100)
            assert cond["label"][1 + k] == clip and cond["words"][1 + k].tolist() == [clip, -clip]
            drawn[clip, frame] += 1
    assert drawn.sum() == 1800 and drawn.min() > 45 and drawn.max() < 110  # 75 of each, all equally likely


def test_stills_follow_torchs_generator():
    data = WithStills(Numbered(), 2)
    torch.manual_seed(7)
    first = [data[0][0] for _ in range(5)]
    torch.manual_seed(7)
    assert all(torch.equal(a, data[0][0]) for a in first) and len({float(x[0, 4, 0, 0]) for x in first}) > 1


def test_examples_are_the_same_each_time_and_disturb_no_generator():
    torch.manual_seed(3)
    first, state = examples(Numbered(), ["label", "words"], 20), torch.get_rng_state()
    torch.manual_seed(4)
    again = examples(Numbered(), ["label", "words"], 20)
    assert torch.equal(first["label"], again["label"]) and set(first["label"].tolist()) == set(range(6))
    assert torch.equal(first["words"], torch.stack([first["label"], -first["label"]], dim=1))
    torch.manual_seed(3)
    assert torch.equal(torch.get_rng_state(), state)


# --- what is dropped ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [new_unet(), new_dit()], ids=["unet", "dit"])
def test_a_share_is_told_nothing_each_clip_and_each_still_for_itself(network):
    torch.manual_seed(0)
    label = torch.arange(3).expand(4000, 3)
    owner = torch.tensor([0, 0, 1, 2]).expand(4000, 4)
    told = told_less(network, {"label": label, "owner": owner, "unread": label}, 0.3, True)
    assert told.keys() == {"label", "owner"} and torch.equal(told["owner"], owner)
    gone = told["label"] == 10
    assert torch.equal(told["label"][~gone], label[~gone])
    assert (gone.float().mean(0) - 0.3).abs().max() < 0.03
    together = torch.corrcoef(gone.T.float())
    assert (together - torch.eye(3)).abs().max() < 0.06  # of one, nothing follows for the others
    plain = told_less(network, {"label": label[:, 1]}, 0.3, True)["label"]
    assert plain.shape == (4000,) and abs((plain == 10).float().mean() - 0.3) < 0.03


def test_nothing_is_dropped_at_0_and_all_at_1():
    cond = {"label": torch.arange(6).view(2, 3), "owner": torch.tensor([[0, 1, 2]] * 2)}
    assert torch.equal(told_less(new_unet(), cond, 0.0, True)["label"], cond["label"])
    assert told_less(new_unet(), cond, 1.0, True)["label"].eq(10).all()


# --- what is given --------------------------------------------------------------------------------------------


def test_the_first_frames_are_given_in_a_share_of_the_clips_one_to_so_many_evenly():
    torch.manual_seed(0)
    known = draw_given(GivenConfig(share=0.6, first=3, between=0.0), 20000, 6, CPU)
    count = known.sum(1)
    assert known.shape == (20000, 6) and torch.equal(known, torch.arange(6) < count[:, None])
    shares = torch.bincount(count, minlength=4) / 20000
    assert (shares - torch.tensor([0.4, 0.2, 0.2, 0.2])).abs().max() < 0.015 and len(shares) == 4


def test_or_the_first_and_the_last():
    torch.manual_seed(0)
    known = draw_given(GivenConfig(share=0.5, first=1, between=0.4), 20000, 5, CPU)
    ends = torch.tensor([True, False, False, False, True])
    share = (known == ends).all(1).float().mean()
    assert abs(share - 0.2) < 0.015 and abs(known[:, 0].float().mean() - 0.5) < 0.015
    assert not known[:, 1:4].any()


@pytest.mark.parametrize("frames", [1, 2, 3, 5])
@pytest.mark.parametrize("first", [1, 4, 99])
def test_never_all_frames_are_given(first, frames):
    torch.manual_seed(0)
    known = draw_given(GivenConfig(share=1.0, first=first, between=0.5), 2000, frames, CPU)
    assert not known.all(1).any()
    assert frames < 3 or known.any(1).all()
    assert frames < 3 or known.sum(1).max() == max(min(first, frames - 1), 2)


def test_frames_of_a_clip_are_given_and_never_a_still():
    torch.manual_seed(0)
    x, cond = normal(500, 1, 6, 2, 2), {"label": torch.arange(500)}
    told, counted = with_given(GivenConfig(share=1.0, first=3), x, cond, stills=2)
    assert told["label"] is cond["label"] and torch.equal(told["given"], x) and "given" not in cond
    assert not told["given_mask"][:, 4:].any() and told["given_mask"][:, 0].all()
    assert told["given_mask"][:, 2].any() and not told["given_mask"][:, 3].any()
    assert counted.shape == (500, 1, 6, 1, 1) and torch.equal(counted[:, 0, :, 0, 0], ~told["given_mask"])


def test_without_a_share_nothing_is_given_and_all_is_counted():
    cond = {"label": torch.arange(3)}
    assert with_given(GivenConfig(), normal(3, 1, 4, 2, 2), cond) == (cond, None)


# --- the loss -------------------------------------------------------------------------------------------------

DIFFUSION = Diffusion.from_config(NoiseConfig(), DiffusionConfig(predict="v"))
T, EPS, X0 = torch.tensor([200, 800]), normal(2, 1, 5, 8, 8, seed=2), normal(2, 1, 5, 8, 8, seed=1)
BESIDE = {"label": torch.tensor([[1, 3, 4], [2, 5, 6]]), "owner": torch.tensor([[0, 0, 0, 1, 2]] * 2)}


def rates():
    """alpha and sigma of the cosine schedule, Improved DDPM, eq. (17), at T."""
    curve = torch.cos((torch.stack([T, 0 * T]) / 1000 + 0.008) / 1.008 * torch.pi / 2).double() ** 2
    alpha = (curve[0] / curve[1]).sqrt().view(2, 1, 1, 1)
    return alpha, (1 - alpha**2).sqrt()


def test_the_loss_of_clips_and_stills_is_the_mean_of_their_frames():
    """Each frame by itself, v = alpha eps - sigma x0: a still weighs as much as a frame of the clip."""
    network = wake(new_unet())
    found = DIFFUSION.loss(network, X0, BESIDE, t=T, eps=EPS)
    alpha, sigma = rates()
    parts = [(slice(0, 3), 0), (slice(3, 4), 1), (slice(4, 5), 2)]
    errors = []
    for frames, row in parts:
        x0, eps = X0[:, :, frames], EPS[:, :, frames]
        xt = alpha[..., None] * x0 + sigma[..., None] * eps
        out = network(xt, T, {"label": BESIDE["label"][:, row]})
        errors += list((out - (alpha[..., None] * eps - sigma[..., None] * x0)).square().mean((1, 3, 4)).unbind(1))
    assert len(errors) == 5
    torch.testing.assert_close(found, torch.stack(errors, dim=1).mean(1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [new_unet, new_dit], ids=["unet", "dit"])
def test_the_loss_counts_only_what_was_not_given(make):
    torch.manual_seed(3)
    config = GivenConfig(share=1.0, first=2)
    cond, counted = with_given(config, X0, {"label": torch.tensor([1, 2])})
    inner, wrong = wake(make()), torch.zeros_like(X0, requires_grad=True)

    def network(x, t, cond):
        return inner(x, t, cond) + wrong

    loss = DIFFUSION.loss(network, X0, cond, t=T, eps=EPS, mask=counted)
    (slope,) = torch.autograd.grad(loss.sum(), wrong)
    given = cond["given_mask"][:, None, :, None, None].expand_as(X0)
    assert given.any() and (slope[given] == 0).all() and (slope[~given] != 0).all()
    with torch.no_grad():
        wrong += 50 * given
    assert torch.equal(DIFFUSION.loss(network, X0, cond, t=T, eps=EPS, mask=counted), loss)
    alpha, sigma = (rate[..., None] for rate in rates())
    error = (inner(alpha * X0 + sigma * EPS, T, cond) - (alpha * EPS - sigma * X0)).square()
    by_hand = torch.stack([one[~there].mean() for one, there in zip(error, given, strict=True)])
    torch.testing.assert_close(loss, by_hand, rtol=1e-5, atol=1e-6)
