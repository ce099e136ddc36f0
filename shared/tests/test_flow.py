"""The straight path of flow matching: its levels, its velocity, the times at which it is learned, its samplers."""

import math
from types import SimpleNamespace
from typing import get_args

import pytest
import torch
from scipy import stats

from shared.schedulers.config import DiffusionConfig, NoiseConfig, Sampler, SamplingConfig, Schedule, Spacing
from shared.schedulers.diffusion import Denoised, Diffusion
from shared.schedulers.noise import Flow, NoiseSchedule
from shared.schedulers.samplers import consistency, ddim, flow_euler, flow_heun, sampler_steps, velocity
from shared.tests.gaussian import Gaussian

SAMPLERS = [name for name in get_args(Sampler) if name != "ddpm_learned"]  # that one: test_bound.py
SHAPE = (5, 2, 3, 4)
SHIFTS = (0.1, 0.3, 1.15, 2.2, 3.0, 6.0)  # in floats most of them are not what 1 + (shift - 1) makes


def flow(T=1000, **options):
    return NoiseSchedule.from_config(NoiseConfig(name="flow", T=T, **options))


def diffusion(name="flow", zero=False, T=1000, shift=1.0, **options):
    return Diffusion.from_config(
        NoiseConfig(name=name, zero_terminal_snr=zero, T=T, shift=shift), DiffusionConfig(**options)
    )


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def last(steps):
    *_, step = steps
    return step


def gaussian(schedule, mean=(0.3, -0.5, 0.0), deviation=(0.5, 0.2, 1.4)):
    return Gaussian(schedule, torch.tensor(mean).double(), torch.tensor(deviation).double())


@pytest.fixture
def batch():
    """x0, eps and a time a sample, float64; the last is T."""
    return SimpleNamespace(x0=normal(*SHAPE), eps=normal(*SHAPE, seed=1), t=torch.tensor([0.5, 20, 333.25, 876, 1000]))


# --- levels and times -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("T", [1, 2, 10, 1000])
def test_signal_and_noise_are_shares_of_one(T):
    schedule = flow(T)
    assert isinstance(schedule, Flow) and schedule.T == T
    t = torch.linspace(0, T, 41, dtype=torch.float64)
    alpha, sigma = schedule.level(t)
    torch.testing.assert_close(sigma, t / T, rtol=1e-15, atol=0)
    torch.testing.assert_close(alpha + sigma, torch.ones(41).double(), rtol=1e-15, atol=0)
    assert [rate.item() for rate in schedule.level(T)] == [0, 1] and [rate.item() for rate in schedule.level(0)] == [
        1,
        0,
    ]
    assert [rate.tolist() for rate in schedule.slope(t)] == [[-1 / T] * 41, [1 / T] * 41]


def test_its_tables_move_with_the_module_and_stay_out_of_checkpoints():
    schedule = flow()
    assert schedule.state_dict() == {}
    assert schedule.to("meta").level(torch.ones(3, device="meta")).sigma.device.type == "meta"


@pytest.mark.parametrize("shift", SHIFTS)
def test_shift_multiplies_noise_over_signal(shift):
    """Esser 2024, eq. (23) solved: r = sigma / alpha becomes shift · r, at every time."""
    schedule, t = flow(shift=shift), torch.linspace(1, 999, 77, dtype=torch.float64)
    (alpha, sigma), (alpha_then, sigma_then) = schedule.level(t), schedule.level(schedule.shifted(t))
    torch.testing.assert_close(sigma_then / alpha_then, shift * sigma / alpha, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shift", SHIFTS)
def test_shift_leaves_both_ends_where_they_are_to_the_last_digit(shift, dtype):
    """Half a unit above T, alpha is below 0, and its logarithm, which dpm_solver_pp takes, no number."""
    ends = torch.tensor([0, 1000], dtype=dtype)
    assert torch.equal(flow(shift=shift).shifted(ends), ends)


@pytest.mark.parametrize("spacing", get_args(Spacing))
def test_a_shift_of_1_changes_no_bit_and_others_move_every_time_inside(spacing):
    straight = flow(T=100)
    for steps in (1, 7, 99, 100):
        times = straight.times(steps, spacing)
        # the spacings are those of every schedule, which other tests hold against the papers
        assert torch.equal(times, NoiseSchedule.from_config(NoiseConfig(T=100)).times(steps, spacing))
        for shift in (0.3, 3.0):
            moved = flow(T=100, shift=shift).times(steps, spacing)
            expected = 100 * shift * times / (100 + (shift - 1) * times)
            torch.testing.assert_close(moved, expected, rtol=1e-12, atol=0)
            assert (moved.diff() < 0).all() and moved[-1] == 0 and moved.dtype == torch.float64
            inside = (times > 0) & (times < 100)
            assert ((moved > times) == (shift > 1))[inside].all()


@pytest.mark.parametrize(
    "options, word", [({"T": 0}, "T is 0"), ({"name": "cosine", "shift": 3.0}, "schedule.shift is 3")]
)
def test_impossible_paths_are_refused(options, word):
    with pytest.raises(ValueError, match=word):
        NoiseSchedule.from_config(NoiseConfig(**{"name": "flow"} | options))


# --- what the network says ------------------------------------------------------------------------------------

PATHS = [(name, zero) for name in get_args(Schedule) for zero in (False, True)]


@pytest.mark.parametrize("name, zero", PATHS)
def test_the_true_velocity_is_read_as_the_true_x0_and_eps(name, zero, batch):
    """On every path and at T, too, where nothing of the signal is left: there the velocity still tells x0."""
    d = diffusion(name, zero, predict="velocity")
    xt = d.add_noise(batch.x0, batch.eps, batch.t)
    x0, eps = d.interpret(d.target(batch.x0, batch.eps, batch.t), xt, batch.t)[:2]
    torch.testing.assert_close(x0, batch.x0, rtol=0, atol=1e-9)
    torch.testing.assert_close(eps, batch.eps, rtol=0, atol=1e-9)
    wrong = d.interpret(normal(*SHAPE, seed=2), batch.x0, batch.t)
    torch.testing.assert_close(d.add_noise(wrong.x0, wrong.eps, batch.t), batch.x0, rtol=0, atol=1e-9)


def test_on_the_straight_path_x0_is_read_as_it_was_written(batch):
    d = diffusion(predict="x0")
    xt = d.add_noise(batch.x0, batch.eps, batch.t)
    torch.testing.assert_close(d.interpret(batch.x0, xt, batch.t).eps, batch.eps, rtol=0, atol=1e-10)


def test_the_straight_paths_velocity_is_the_difference_of_its_ends(batch):
    target = diffusion(predict="velocity").target(batch.x0, batch.eps, batch.t)
    torch.testing.assert_close(target, batch.eps - batch.x0, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", get_args(Schedule))
def test_velocity_is_how_fast_xt_moves_where_all_of_the_time_lasts_1(name, batch):
    d, h = diffusion(name, predict="velocity"), 1e-3
    t = torch.tensor([0.5, 20.5, 333.25, 876.5, 999.5], dtype=torch.float64)
    moved = (d.add_noise(batch.x0, batch.eps, t + h) - d.add_noise(batch.x0, batch.eps, t - h)) / (2 * h)
    expected = moved * d.schedule.T
    torch.testing.assert_close(d.target(batch.x0, batch.eps, t), expected, rtol=1e-5, atol=1e-7)
    column = t.reshape(-1, 1, 1, 1)
    torch.testing.assert_close(velocity(d.schedule, Denoised(batch.x0, batch.eps), column), moved, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", ["linear", "cosine", "quadratic"])
def test_where_alpha_and_sigma_turn_velocity_is_v_times_the_speed_of_the_angle(name, batch):
    """alpha = cos(angle), sigma = sin(angle): d xt / dt = v · d angle / dt, and that is one number an interval."""
    t = torch.tensor([0, 20, 333, 876, 998]) + 0.5
    of_time, turned = (diffusion(name, predict=predict) for predict in ("velocity", "v"))
    above, below = (torch.atan2(*reversed(of_time.schedule.level(t + half))) for half in (0.5, -0.5))
    speed = (1000 * (above - below)).reshape(-1, 1, 1, 1)
    expected = speed * turned.target(batch.x0, batch.eps, t)
    torch.testing.assert_close(of_time.target(batch.x0, batch.eps, t), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name, zero", PATHS)
def test_min_snr_counts_the_same_error_on_x0_whether_told_as_x0_or_velocity(name, zero, batch):
    """Hang 2023, eq. (5): min(SNR, 5) times the squared error; the last, at T without signal, counts nothing."""
    wrong = batch.x0 + normal(*SHAPE, seed=2)
    found = []
    for predict in ("x0", "velocity"):
        d = diffusion(name, zero, predict=predict, weighting="min_snr")
        alpha, sigma = d.schedule.level(batch.t)
        column = (-1, 1, 1, 1)
        xt = d.add_noise(batch.x0, batch.eps, batch.t)
        implied_eps = (xt - alpha.view(column) * wrong) / sigma.view(column)
        out = {"x0": wrong, "velocity": d.target(wrong, implied_eps, batch.t)}[predict]
        losses = d.loss(lambda x, t, cond, out=out: out, batch.x0, {}, t=batch.t, eps=batch.eps)
        snr = (alpha / sigma).square().clamp(max=5)
        expected = snr * (wrong - batch.x0).square().flatten(1).mean(1)
        torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-12)
        found.append(losses)
    if name == "flow" or zero:
        assert found[0][-1] == found[1][-1] == 0
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("predict", ["v", "eps"])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_what_says_nothing_on_the_straight_path_is_refused(predict, shift):
    """eps at T is xt itself; v is not at right angles to xt, so that it would not give x0 as `interpret` reads it."""
    with pytest.raises(ValueError, match=f"predict is {predict}.*velocity"):
        diffusion(shift=shift, predict=predict)


@pytest.mark.parametrize("name", get_args(Schedule))
def test_float32_stays_float32_and_nothing_waits_for_the_device(name):
    """Also where the network answers in bfloat16; on the meta device no number can be read."""
    d = diffusion(name, predict="velocity", weighting="min_snr", times="logit_normal")
    x0 = torch.rand(4, 1, 2, 2)
    t = d.draw_times(4, torch.device("cpu"))
    assert d.add_noise(x0, x0, t).dtype == d.target(x0, x0, t).dtype == torch.float32
    assert all(part.dtype == torch.float32 for part in d.interpret(x0, x0, t)[:2])
    assert d.loss(lambda x, t, cond: x.bfloat16(), x0, {}).dtype == torch.float32
    d.schedule.to("meta")
    network = torch.nn.Conv2d(1, 1, 3, padding=1, device="meta")
    losses = d.loss(lambda x, t, cond: network(x), torch.zeros(4, 1, 8, 8, device="meta"), {})
    assert losses.device.type == "meta" and losses.shape == (4,)
    losses.mean().backward()


# --- the times at which it is learned -------------------------------------------------------------------------


def drawn(n=20_000, seed=0, **options):
    """Shares of T."""
    torch.manual_seed(seed)
    d = diffusion(predict="velocity", **options)
    times = d.draw_times(n, torch.device("cpu"))
    assert times.shape == (n,) and (times > 0).all() and (times <= d.schedule.T).all()
    return times.double() / d.schedule.T


def looks_like(shares, cdf):
    """Kolmogorov and Smirnov: with 20,000 draws a distribution that differs by 0.02 anywhere has p below 1e-6."""
    return stats.kstest(shares.numpy(), cdf).pvalue > 1e-3


@pytest.mark.parametrize("name", ["flow", "cosine"])
def test_uniform_times_are_uniform_and_lie_between_the_levels_too(name):
    shares = drawn(times="uniform", name=name, T=50)
    assert looks_like(shares, "uniform")
    assert ((50 * shares) % 1 > 0).float().mean() > 0.99


@pytest.mark.parametrize("shift", SHIFTS)
def test_uniform_times_that_are_shifted_have_the_distribution_of_the_inverse(shift):
    """What becomes of a uniform u: P(shifted u <= y) = y / (shift - (shift - 1) y)."""
    shares = drawn(times="uniform", shift=shift)
    assert looks_like(shares, lambda y: y / (shift - (shift - 1) * y)) and not looks_like(shares, "uniform")


@pytest.mark.parametrize(
    "mean, deviation, shift", [(0.0, 1.0, 1.0), (0.5, 0.6, 1.0), (-1.0, 1.7, 1.0), (0.0, 1.0, 3.0)]
)
def test_logit_normal_times_have_a_normal_logit(mean, deviation, shift):
    """Esser 2024, eq. (19). A shift multiplies u / (1 - u), so that it adds its logarithm to the mean."""

    def cdf(of):
        return lambda u: stats.norm.cdf((torch.tensor(u).logit().numpy() - of) / deviation)

    shares = drawn(times="logit_normal", time_mean=mean, time_deviation=deviation, shift=shift)
    assert looks_like(shares, cdf(mean + math.log(shift))) and not looks_like(shares, cdf(mean + math.log(shift) + 0.1))


def test_levels_are_the_same_levels_as_everywhere():
    counts = (drawn(times="levels", T=20) * 20).round().long().bincount(minlength=21)
    assert len(counts) == 21 and counts[0] == 0
    assert stats.chisquare(counts[1:].numpy()).pvalue > 1e-3
    moved = (drawn(times="levels", T=20, shift=3.0) * 20).unique()
    levels = torch.arange(1, 21) / 20
    torch.testing.assert_close(moved, 60 * levels.double() / (1 + 2 * levels.double()), rtol=1e-5, atol=0)


@pytest.mark.parametrize("mean", [-1e6, 1e6])
def test_no_time_is_ever_0_nor_above_T(mean, monkeypatch):
    """At 0 nothing is to learn, and the weights divide by sigma."""
    d = diffusion(predict="velocity", weighting="min_snr", times="logit_normal", time_mean=mean)
    t = d.draw_times(100, torch.device("cpu"))
    assert (t > 0).all() and (t <= 1000).all() and d.weight(t).isfinite().all()
    for shift in (0.1, 1.0, 6.0):
        for extreme in (0.0, 1 - 2**-24):  # the least and the most that torch.rand gives
            monkeypatch.setattr(torch, "rand", lambda n, device, value=extreme: torch.full((n,), value, device=device))
            t = diffusion(predict="velocity", times="uniform", shift=shift).draw_times(3, torch.device("cpu"))
            assert (t > 0).all() and (t <= 1000).all()


def test_the_loss_is_asked_at_the_times_that_are_drawn():
    d, asked = diffusion(predict="velocity", times="logit_normal", shift=2.0), []

    def model(x, t, cond):
        asked.append(t)
        return x

    torch.manual_seed(4)
    d.loss(model, torch.zeros(8, 3), {})
    torch.manual_seed(4)
    assert torch.equal(asked[0], d.draw_times(8, torch.device("cpu")))


# --- samplers -------------------------------------------------------------------------------------------------


def network(x, t, cond):
    """Smooth, nonlinear, mixing neighbours."""
    return 1.5 * torch.sin(x + 2 * x.roll(1, -1) + t.reshape(-1, 1, 1, 1) / 50)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_on_the_straight_path_eulers_method_is_ddim_and_elsewhere_not(shift):
    for name in ("flow", "cosine"):
        d = diffusion(name, predict="velocity", shift=shift if name == "flow" else 1.0)
        denoise, times = d.denoiser(network, {}), d.schedule.times(9)
        both = zip(*(s(denoise, d.schedule, normal(*SHAPE), times) for s in (flow_euler, ddim)), strict=True)
        apart = [(a.x - b.x).abs().max().item() for a, b in both]
        assert max(apart) < 1e-12 if name == "flow" else min(apart) > 1e-3


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_a_point_is_reached_by_any_number_of_straight_steps(steps):
    """If the data are one point, every way to it is straight: its velocity never changes."""
    schedule = flow()
    data, x = gaussian(schedule, deviation=(0.0, 0.0, 0.0)), normal(16, 3)
    for sampler in (flow_euler, flow_heun, ddim):
        for step in sampler(data.denoise, schedule, x, schedule.times(steps)):
            alpha, sigma = schedule.level(step.t)
            torch.testing.assert_close(step.x, alpha * data.mean + sigma * x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shift", [1.0, 0.5, 2.0])
@pytest.mark.parametrize("sampler, order", [(flow_euler, 1), (flow_heun, 2)])
def test_from_noise_to_data_with_the_order_of_the_method(sampler, order, shift):
    """To t = 0, in float64 and with T so large that the times need no rounding to speak of."""
    data, x = gaussian(flow(T=10**6, shift=shift)), normal(64, 3)
    exact, errors = data.flow(x, 10**6, 0), []
    for steps in (100, 200):
        reached = last(sampler(data.denoise, data.schedule, x, data.schedule.times(steps)))
        errors.append((reached.x - exact).abs().max().item())
    assert errors[1] < (0.05, 0.002)[order - 1]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.2)


def test_eulers_method_is_the_formula_on_a_path_that_bends():
    """xs = xt + (s - t) dx / dt, with dx / dt from the ways of the Gaussian itself."""
    schedule = NoiseSchedule.from_config(NoiseConfig(name="linear"))
    data, x, t, h = gaussian(schedule), normal(8, 3), 700.5, 1e-4
    rate = (data.flow(x, t, t + h) - data.flow(x, t, t - h)) / (2 * h)
    reached = last(flow_euler(data.denoise, schedule, x, torch.tensor([t, 600.0], dtype=torch.float64))).x
    torch.testing.assert_close(reached, x - 100.5 * rate, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shift", [1.0, 1.15, 3.0])
@pytest.mark.parametrize("predict", ["velocity", "x0"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_goes_the_straight_path_to_its_last_x0(sampler, predict, shift):
    """Out of alpha = 0, with a shift whose float is an ulp off, and at fractions of a level."""
    d = diffusion(predict=predict, T=50, shift=shift)
    denoise = d.denoiser(network, {})
    for spacing, count in (("trailing", 1), ("trailing", 7), ("trailing", 50), ("quadratic", 7), ("linspace", 7)):
        config = SamplingConfig(sampler=sampler, steps=count, spacing=spacing, eta=0.7, clamp=False)
        steps = list(sampler_steps(denoise, d.schedule, normal(*SHAPE), config))
        assert len(steps) == count and steps[-1].t == 0
        assert all(step.x.isfinite().all() and step.x0.isfinite().all() for step in steps)
        torch.testing.assert_close(steps[-1].x, steps[-1].x0, rtol=1e-9, atol=1e-9)


# --- few steps ------------------------------------------------------------------------------------------------


def ends(data):
    """The denoiser that says where the way through xt ends: what distillation is to learn. Its eps is not asked."""
    return lambda xt, t: Denoised(data.flow(xt, t, 0), torch.full_like(xt, torch.nan))


NOISE_ALONE = [("flow", {}), ("flow", {"shift": 3.0}), ("cosine", {"zero_terminal_snr": True})]


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("name, options", NOISE_ALONE)
def test_who_knows_the_ends_draws_the_data_exactly_in_any_number_of_steps(name, options, steps):
    """Everything is affine: a row without noise, one from a unit of x, and one for the noise of each step."""
    data = gaussian(NoiseSchedule.from_config(NoiseConfig(name=name, **options)))
    x = torch.zeros(steps + 1, 3, dtype=torch.float64)
    x[1] = 1
    units = iter(range(2, steps + 1))

    def noise(like):
        unit = torch.zeros_like(like)
        unit[next(units)] = 1
        return unit

    for step in consistency(ends(data), data.schedule, x, data.schedule.times(steps), noise=noise):
        mean, variance = data.marginal(step.t)
        torch.testing.assert_close(step.x[0], mean, rtol=0, atol=1e-9)
        torch.testing.assert_close(((step.x - step.x[0])[1:] ** 2).sum(0), variance, rtol=1e-9, atol=0)
    assert next(units, None) is None


def test_who_knows_only_the_mean_draws_too_little_in_one_step():
    """The plain denoiser, in one step out of noise alone, says the mean of the data whatever the noise."""
    data = gaussian(flow())
    reached = last(consistency(data.denoise, data.schedule, normal(32, 3), data.schedule.times(1))).x
    torch.testing.assert_close(reached, data.mean.expand(32, 3))


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_fresh_noise_comes_between_the_steps_and_only_there(steps):
    drawn = []

    def noise(like):
        drawn.append(normal(*like.shape, seed=len(drawn)))
        return drawn[-1]

    d = diffusion(predict="velocity")
    steps_taken = list(
        consistency(d.denoiser(network, {}), d.schedule, normal(*SHAPE), d.schedule.times(steps), noise=noise)
    )
    assert len(drawn) == steps - 1
    for step, fresh in zip(steps_taken, drawn, strict=False):
        alpha, sigma = d.schedule.level(step.t)
        torch.testing.assert_close(step.x, alpha * step.x0 + sigma * fresh)
    assert torch.equal(steps_taken[-1].x, steps_taken[-1].x0)
