"""RePaint on jointly Gaussian data, of which what is hidden given what is known is known in closed form."""

import math

import pytest
import torch

from shared.schedulers.config import NoiseConfig, SamplingConfig
from shared.schedulers.diffusion import Denoised
from shared.schedulers.noise import NoiseSchedule
from shared.schedulers.repaint import DOWN, calls, down_step, forward_step, repaint, resampled
from shared.schedulers.samplers import ddim, ddpm

SCHEDULES = [NoiseConfig(), NoiseConfig(name="flow"), NoiseConfig(name="linear", zero_terminal_snr=True)]
NAMES = ["cosine", "flow", "zero terminal SNR"]
RHO, GIVEN = 0.9, 1.5  # two standard normal numbers, correlated; the first is known
FIRST = torch.tensor([True, False])


def drawn(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype)


def normal(*shape, seed=0):
    return drawn(seed)(torch.empty(shape, dtype=torch.float64))


def pair(schedule):
    """The exact denoiser of two standard normal numbers with correlation RHO."""
    spread = torch.tensor([[1.0, RHO], [RHO, 1.0]]).double()

    def denoise(xt, t):
        alpha, sigma = schedule.level(t)
        inverse = torch.linalg.inv(alpha**2 * spread + sigma**2 * torch.eye(2).double())
        return Denoised(alpha * xt @ inverse @ spread, sigma * xt @ inverse)

    return denoise


def painted(config, resample, jump=5, n=4000, steps=40, **options):
    """The second number, (n,), given the first."""
    schedule = NoiseSchedule.from_config(config)
    times = resampled(schedule.times(steps), resample, jump)
    known = torch.full((n, 2), GIVEN).double()
    *_, last = repaint(pair(schedule), schedule, normal(n, 2), times, known, FIRST, noise=drawn(1), **options)
    assert torch.equal(last.x[:, 0], known[:, 0]) and last.t == 0
    return last.x[:, 1]


@pytest.mark.parametrize("config", SCHEDULES, ids=NAMES)
def test_replacement_alone_is_wrong_and_resampling_comes_to_the_conditional_distribution(config):
    """RePaint, section 4.2. The hidden number is N(RHO · GIVEN, 1 - RHO²), by the rule for Gaussian variables."""
    mean, deviation = RHO * GIVEN, math.sqrt(1 - RHO**2)
    off = [abs(painted(config, resample).mean() - mean).item() for resample in (1, 3, 10)]
    assert off[0] > 0.15  # of replacement: it goes but part of the way to where it belongs
    assert off[0] > 1.5 * off[1] > 0 and off[2] < 0.35 * off[0]
    assert abs(painted(config, 10).std() - deviation) < 0.06


def test_the_hidden_hears_of_what_is_known_and_not_of_what_the_picture_hides():
    schedule = NoiseSchedule.from_config(NoiseConfig())
    times, ends = resampled(schedule.times(10), 2, 3), []
    for known in ([1.0, 5.0], [1.0, -5.0], [2.0, 5.0]):
        steps = repaint(
            pair(schedule), schedule, normal(9, 2), times, torch.tensor(known).double(), FIRST, noise=drawn()
        )
        ends.append(list(steps)[-1].x[:, 1])
    assert torch.equal(ends[0], ends[1]) and not torch.equal(ends[0], ends[2])


@pytest.mark.parametrize("config", SCHEDULES, ids=NAMES)
@pytest.mark.parametrize("down", ["ddpm", "ddim"])
def test_where_nothing_is_known_and_no_jump_made_it_is_the_sampler(config, down):
    schedule = NoiseSchedule.from_config(config)
    times, x, nothing = schedule.times(12), normal(5, 2), torch.zeros(2, dtype=torch.bool)
    sampler = {"ddpm": ddpm, "ddim": ddim}[down]
    expected = list(sampler(pair(schedule), schedule, x, times, noise=drawn_once()))
    step = down_step(SamplingConfig(sampler=down, eta=0.0))
    found = list(repaint(pair(schedule), schedule, x, resampled(times, 1), x, nothing, step=step, noise=drawn_once()))
    assert [step.n for step in found] == list(range(12))
    for one, two in zip(found, expected, strict=True):
        assert torch.equal(one.x, two.x) and torch.equal(one.x0, two.x0) and one.t == two.t


def drawn_once():
    """Noise that depends on nothing but the shape, however often it is asked: what is not used changes nothing."""
    return lambda x: normal(*x.shape, seed=3)


@pytest.mark.parametrize("config", SCHEDULES, ids=NAMES)
@pytest.mark.parametrize(("s", "t"), [(0, 1000), (0, 1), (137.5, 600), (999, 1000), (1, 2)])
def test_noise_added_to_what_has_some_is_noise_added_to_clean_data(config, s, t):
    """xs = alpha_s x0 + sigma_s eps with more noise has the signal and the noise of time t: their variances add up."""
    schedule = NoiseSchedule.from_config(config)
    s, t = torch.tensor(s).double(), torch.tensor(t).double()
    one, zero = torch.ones(1, 3).double(), torch.zeros(1, 3).double()
    kept = forward_step(schedule, one, s, t, torch.zeros_like)
    added = forward_step(schedule, zero, s, t, torch.ones_like)
    (alpha_s, sigma_s), (alpha_t, sigma_t) = schedule.level(s), schedule.level(t)
    torch.testing.assert_close(kept * alpha_s, alpha_t.expand(1, 3))
    torch.testing.assert_close((kept * sigma_s) ** 2 + added**2, (sigma_t**2).expand(1, 3))


def test_a_jump_in_one_is_a_jump_step_by_step():
    """Of q(xt | xs): what is kept multiplies, and what is added is kept in part by the next."""
    schedule = NoiseSchedule.from_config(NoiseConfig())
    times = torch.tensor([100.0, 150.0, 300.0]).double()
    one, zero = torch.ones(1, 1).double(), torch.zeros(1, 1).double()
    kept, variance = one, zero
    for s, t in zip(times[:-1], times[1:], strict=True):
        factor = forward_step(schedule, one, s, t, torch.zeros_like)
        added = forward_step(schedule, zero, s, t, torch.ones_like)
        kept, variance = kept * factor, variance * factor**2 + added**2
    torch.testing.assert_close(forward_step(schedule, one, times[0], times[-1], torch.zeros_like), kept)
    torch.testing.assert_close(forward_step(schedule, zero, times[0], times[-1], torch.ones_like) ** 2, variance)


def as_in_the_appendix(steps, jump, resample):
    """RePaint's schedule as its appendix writes it: with counters that each stretch uses up.

    Its times count from 0, and clean data are -1: one more is the number of steps left."""
    jumps = dict.fromkeys(range(0, steps - jump, jump), resample - 1)
    t, path = steps, []
    while t >= 1:
        t -= 1
        path.append(t)
        if jumps.get(t, 0) > 0:
            jumps[t] -= 1
            for _ in range(jump):
                t += 1
                path.append(t)
    return [t + 1 for t in [*path, -1]]


@pytest.mark.parametrize(
    ("steps", "jump", "resample"), [(250, 10, 10), (50, 10, 3), (7, 3, 2), (12, 1, 4), (9, 9, 1), (9, 8, 2)]
)
def test_the_jumps_are_those_of_the_paper(steps, jump, resample):
    path = as_in_the_appendix(steps, jump, resample)
    corners = [  # of a way up, only its end: here a jump is one step
        a for i, a in enumerate(path) if not (0 < i < len(path) - 1 and path[i - 1] < a < path[i + 1])
    ]
    times = resampled(torch.arange(steps, -1, -1).double(), resample, jump)
    assert times.tolist() == corners
    assert calls(times) == sum(b < a for a, b in zip(path, path[1:], strict=False))


def test_the_denoiser_is_asked_as_often_as_is_said_and_at_those_times():
    schedule, asked = NoiseSchedule.from_config(NoiseConfig()), []

    def denoise(xt, t):
        asked.append(float(t))
        return pair(schedule)(xt, t)

    times = resampled(schedule.times(20), 4, 5)
    steps = list(repaint(denoise, schedule, normal(1, 2), times, normal(1, 2), FIRST))
    assert len(steps) == len(asked) == calls(times) == 20 + 3 * 3 * 5
    assert asked == [float(t) for t, s in zip(times[:-1], times[1:], strict=True) if s < t]


def test_the_jumps_of_seven_steps_written_out():
    """By hand from the paper's text: up where 0 and 3 stand, counted from 0, and never from clean data."""
    times = resampled(torch.arange(7, -1, -1).double(), 2, 3)
    assert times.tolist() == [7, 6, 5, 4, 7, 6, 5, 4, 3, 2, 1, 4, 3, 2, 1, 0]


@pytest.mark.parametrize("config", SCHEDULES, ids=NAMES)
@pytest.mark.parametrize("sampler", DOWN)
def test_every_step_keeps_what_is_known_and_what_is_finite(config, sampler):
    schedule = NoiseSchedule.from_config(config)

    def denoise(xt, t):
        return pair(schedule)(xt, t)._replace(log_variance=torch.full_like(xt, 0.5))

    step = down_step(SamplingConfig(sampler=sampler, eta=0.5))
    known = torch.tensor([0.1, 0.0])
    times = resampled(schedule.times(10), 3, 2)
    steps = list(repaint(denoise, schedule, normal(4, 2), times, known, FIRST, step=step, noise=drawn()))
    assert all(step.x.isfinite().all() for step in steps)
    assert (steps[-1].x[:, 0] == known[0]).all()


@pytest.mark.parametrize("resample", [0, -1])
def test_counts_that_are_none_are_refused(resample):
    with pytest.raises(ValueError, match="^resample is .* and jump 2: both count"):
        resampled(torch.arange(9.0).flip(0), resample, 2)
    with pytest.raises(ValueError, match="both count"):
        resampled(torch.arange(9.0).flip(0), 2, resample)


def test_a_jump_longer_than_the_way_is_refused_where_there_is_one_to_make():
    times = torch.arange(9.0).flip(0)
    with pytest.raises(ValueError, match="a jump of 8 steps has no room in 8"):
        resampled(times, 2, 8)
    assert torch.equal(resampled(times, 1, 8), times)


@pytest.mark.parametrize("sampler", ["heun", "dpm_solver_pp", "flow_heun", "consistency"])
def test_samplers_whose_steps_do_not_stand_alone_are_refused(sampler):
    with pytest.raises(ValueError, match=f"{sampler} has none: choose the sampler ddpm, .* or euler_ancestral$"):
        down_step(SamplingConfig(sampler=sampler))
    with pytest.raises(ValueError, match="eta is 2"):
        down_step(SamplingConfig(sampler="ddim", eta=2))


def test_after_each_step_what_is_known_has_the_signal_of_that_time():
    schedule = NoiseSchedule.from_config(NoiseConfig())
    known = torch.full((1, 2), GIVEN).double()
    times = resampled(schedule.times(10), 2, 2)
    for step in repaint(pair(schedule), schedule, normal(1, 2), times, known, FIRST, noise=torch.zeros_like):
        assert torch.equal(step.x[:, 0], schedule.level(step.t).alpha * known[:, 0])


def test_the_large_variance_is_that_of_the_sampler():
    schedule = NoiseSchedule.from_config(NoiseConfig())
    times, x, nothing = schedule.times(5), normal(5, 2), torch.zeros(2, dtype=torch.bool)
    *_, expected = ddpm(pair(schedule), schedule, x, times, variance="large", noise=drawn_once())
    step = down_step(SamplingConfig(sampler="ddpm_large"))
    *_, found = repaint(pair(schedule), schedule, x, times, x, nothing, step=step, noise=drawn_once())
    assert torch.equal(found.x, expected.x)
