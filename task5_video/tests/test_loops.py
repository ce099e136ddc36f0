"""Loops: what turning clips round changes, and what it must not."""

from collections import Counter

import pytest
import torch

from shared.schedulers.config import NoiseConfig, SamplingConfig
from shared.schedulers.diffusion import Denoised
from shared.schedulers.noise import NoiseSchedule
from shared.schedulers.samplers import sampler_steps
from task5_video.loops import rolling
from task5_video.tests.small import normal

T = torch.tensor(500.0)


def test_a_denoiser_that_knows_no_time_is_not_changed():
    """One of frames, and one that mixes each with its neighbours all round."""

    def around(xt, t):
        return Denoised(torch.sin(xt) + xt.roll(1, 2) * xt.roll(-1, 2), xt.roll(2, 2) * 3)

    rolled, x = rolling(around), normal(2, 3, 7, 2, 2)
    for _ in range(12):
        found, expected = rolled(x, T), around(x, T)
        assert torch.equal(found.x0, expected.x0) and torch.equal(found.eps, expected.eps)


@pytest.mark.parametrize("frames", [1, 2, 5, 16, 20])
def test_all_ways_round_are_asked_evenly_and_what_is_said_is_turned_back(frames):
    seen = []

    def marked(xt, t):
        seen.append(int(xt[0, 0, 0, 0, 0]))  # which frame is asked about as the first
        return Denoised(xt + 1000, -xt)

    rolled = rolling(marked)
    x = torch.arange(frames)[:, None, None].expand(1, 2, frames, 1, 1).double()
    for _ in range(50 * frames):
        found = rolled(x, T)
        assert torch.equal(found.x0, x + 1000) and torch.equal(found.eps, -x)
    counts = Counter(seen)
    assert len(counts) == frames and all(45 <= count <= 55 for count in counts.values())
    assert all(len(set(seen[i : i + 3])) == min(frames, 3) for i in range(0, 50 * frames - 3)) or frames < 5
    for start in range(0, 40 * frames, frames):  # nor does any place wait long for its turn
        assert len(set(seen[start : start + 3 * frames])) >= 0.95 * frames


def test_two_denoisers_do_not_share_their_turns():
    seen = []

    def marked(xt, t):
        seen.append(xt[0, 0, :, 0, 0].tolist())
        return Denoised(xt, xt)

    x = torch.arange(5.0)[:, None, None].expand(1, 1, 5, 1, 1)
    one, two = rolling(marked), rolling(marked)
    for rolled in (one, one, one, two, two, two):
        rolled(x, T)
    assert seen[:3] == seen[3:]


def seam(x):
    """How much the last and first frame differ, as a share of what neighbours do; mean squares."""
    steps = x.diff(dim=2).square().mean()
    return ((x[:, :, 0] - x[:, :, -1]).square().mean() / steps).item()


@pytest.mark.parametrize(("sampler", "most"), [("ddim", 4.0), ("ddpm", 2.5)])
def test_clips_with_ends_become_loops(sampler, most):
    """Clips in which each frame resembles the last one (correlation 0.95), beginning and end not at all. Their exact
    denoiser knows which frame is which: nothing is the same after turning."""
    schedule, frames = NoiseSchedule.from_config(NoiseConfig()), 16
    place = torch.arange(frames).double()
    spread = 0.95 ** (place[:, None] - place).abs() * (1 + place / 8)[:, None].sqrt() * (1 + place / 8).sqrt()

    def denoise(xt, t):
        alpha, sigma = schedule.level(t)
        gain = alpha * spread @ torch.linalg.inv(alpha**2 * spread + sigma**2 * torch.eye(frames).double())
        x0 = torch.einsum("ij,bcjhw->bcihw", gain, xt)
        return Denoised(x0, (xt - alpha * x0) / sigma)

    def sampled(denoise):
        torch.manual_seed(1)
        options = SamplingConfig(sampler=sampler, steps=50, clamp=False)
        *_, last = sampler_steps(denoise, schedule, normal(500, 1, frames, 1, 1), options)
        return seam(last.x)

    plain, loop = sampled(denoise), sampled(rolling(denoise))
    assert plain > 8  # 1 - 0.95^15 against 1 - 0.95
    assert loop < most
