"""Samplers against closed forms on Gaussian data, and the properties that tie each to the one before."""

import math
from collections import Counter
from typing import get_args

import pytest
import torch

from shared.schedulers.config import DiffusionConfig, NoiseConfig, Sampler, SamplingConfig, Schedule, Spacing
from shared.schedulers.diffusion import Denoised, Diffusion
from shared.schedulers.noise import NoiseSchedule
from shared.schedulers.samplers import (
    clamped,
    consistency,
    ddim,
    ddim_step,
    ddpm,
    dpm_solver_pp,
    euler_ancestral,
    flow_euler,
    flow_heun,
    heun,
    sampler_steps,
)
from shared.tests.gaussian import Gaussian

SAMPLERS = [name for name in get_args(Sampler) if name != "ddpm_learned"]  # that one: test_bound.py
SCHEDULES = get_args(Schedule)
SHAPE = (3, 1, 2, 5)


def gaussian(name="cosine", mean=(0.3, -0.5, 0.0), deviation=(0.5, 0.2, 1.4), **options):
    schedule = NoiseSchedule.from_config(NoiseConfig(name=name, **options))
    return Gaussian(schedule, torch.tensor(mean).double(), torch.tensor(deviation).double())


def last(steps):
    *_, step = steps
    return step


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fixed_noise(count, shape=SHAPE):
    """A source of noise that gives the same sequence to every sampler that starts it anew."""
    drawn = normal(count, *shape, seed=4)

    def start():
        source = iter(drawn)
        return lambda x: next(source)

    return start


def network(x, t, cond):
    """Smooth, nonlinear, mixing neighbours, and far from any data: |x0| often exceeds 1."""
    return 1.5 * torch.sin(x + 2 * x.roll(1, -1) + t.reshape(-1, 1, 1, 1) / 50)


def denoiser(predict="v", schedule=None, **options):
    diffusion = Diffusion.from_config(NoiseConfig(**options), DiffusionConfig(predict=predict))
    return diffusion.denoiser(network, {}), diffusion.schedule


# --- the probability-flow ODE in closed form ----------------------------------------------------------------


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("sampler, order", [(ddim, 1), (heun, 2), (dpm_solver_pp, 2), (flow_euler, 1)])
def test_order_of_convergence(sampler, order, name):
    """Half the step, 2^-order of the error; well inside [0, T], as each solver's last step is Euler's."""
    data, x = gaussian(name), normal(64, 3)
    exact, errors = data.flow(x, 800, 160), []
    for steps in (40, 80):
        times = torch.linspace(800, 160, steps + 1, dtype=torch.float64)
        reached = last(sampler(data.denoise, data.schedule, x, times))
        assert reached.t == 160
        errors.append((reached.x - exact).abs().max().item())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("name", SCHEDULES)
def test_heuns_method_in_t_is_second_order_where_the_path_is_smooth(name):
    """Flow and cosine. Elsewhere the slope jumps at every level, by about 1 / T²: near, but no nearer with the step."""
    data, x = gaussian(name), normal(64, 3)
    exact, errors = data.flow(x, 800, 160), []
    for sampler, steps in ((flow_euler, 40), (flow_heun, 40), (flow_heun, 80)):
        times = torch.linspace(800, 160, steps + 1, dtype=torch.float64)
        errors.append((last(sampler(data.denoise, data.schedule, x, times)).x - exact).abs().max().item())
    euler, heun_40, heun_80 = errors
    assert heun_40 < euler / 5
    if name in ("flow", "cosine"):
        assert math.log2(heun_40 / heun_80) == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("sampler, tolerance", [(ddim, 0.05), (heun, 0.015), (dpm_solver_pp, 0.015)])
def test_many_steps_reach_the_exact_solution(sampler, tolerance, name, zero):
    """From noise to data. Also from alpha = 0, where the data's mean and deviation leave no trace in xt."""
    data, x = gaussian(name, zero_terminal_snr=zero), normal(64, 3)
    result = last(sampler(data.denoise, data.schedule, x, data.schedule.times(200)))
    assert (result.x - data.flow(x, 1000, 0)).abs().max() < tolerance


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("name", SCHEDULES)
def test_second_order_is_better_than_first_also_with_few_steps(name, zero):
    """Cosine leaves T at sigma / alpha = 20,000: Heun's mean of slopes over such a leap left errors of 15."""
    data, x = gaussian(name, zero_terminal_snr=zero), normal(64, 3)
    exact = data.flow(x, 1000, 0)
    first, *second = (
        (last(sampler(data.denoise, data.schedule, x, data.schedule.times(10))).x - exact).abs().max()
        for sampler in (ddim, heun, dpm_solver_pp)
    )
    assert max(second) < first


def test_ddim_inverts():
    """Up from the data to the noise with the pure step, as editing does it, and down again."""
    data = gaussian()
    x0 = data.mean + data.deviation * normal(64, 3)
    times = data.schedule.times(1000)[:-1].flip(0)  # 1 … T
    x = x0
    for t, s in zip(times[:-1], times[1:], strict=True):
        x = ddim_step(data.schedule, x, data.denoise(x, t), t, s, 0.0, torch.randn_like)
    assert (x - data.flow(x0, 1, 1000)).abs().max() < 0.02


# --- the variance of the stochastic samplers in closed form -------------------------------------------------


def spread(sampler, data, steps, start=(0.0, 1.0), **options):
    """Exact mean and variance (D,) after every step, where x at the first time has those of `start`.

    On Gaussian data a step is affine in x and in its noise, so that one batch tells all: a row without noise,
    one from a unit of x, and one for each step's noise, whose effects add up in squares.
    """
    dimensions = len(data.mean)
    x = torch.zeros(steps + 2, dimensions, dtype=torch.float64)
    x[1] = 1
    units = iter(range(2, steps + 2))

    def noise(like):
        unit = torch.zeros_like(like)
        unit[next(units)] = 1
        return unit

    for step in sampler(data.denoise, data.schedule, x, data.schedule.times(steps), noise=noise, **options):
        effects = step.x - step.x[0]
        mean = step.x[0] + effects[1] * start[0]
        yield step, mean, effects[1] ** 2 * start[1] + (effects[2:] ** 2).sum(0)


@pytest.mark.parametrize("name", ["linear", "cosine", "flow"])
@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("steps", [7, 25])
def test_ddpm_follows_bayes_rule(steps, variance, name):
    """Mean and variance of every xs from Bayes' rule by precision weighting, E[x0 | xt] for x0."""
    data = gaussian(name)
    mean, var = torch.zeros(3).double(), torch.ones(3).double()
    times = iter(data.schedule.times(steps))
    t = next(times)
    for step, got_mean, got_var in spread(ddpm, data, steps, variance=variance):
        s = next(times)
        assert step.t == s
        if s > 0:
            mean, var = data.bayes_step(mean, var, t, s, large=variance == "large")
            torch.testing.assert_close(got_mean, mean, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(got_var, var, rtol=1e-9, atol=0)
        t = s


def test_small_variance_is_right_for_a_point_and_large_for_standard_normal_data():
    """DDPM, section 3.2: then every xs has its true mean and variance, however long the steps; else not."""
    for deviation, right, wrong, sign in ((0.0, "small", "large", 1), (1.0, "large", "small", -1)):
        data = gaussian(mean=(0.0,), deviation=(deviation,))
        start = data.marginal(1000)
        for (step, mean, var), (_, _, other) in zip(
            spread(ddpm, data, 8, start, variance=right),
            spread(ddpm, data, 8, start, variance=wrong),
            strict=True,
        ):
            if step.t > 0:
                true_mean, true_var = data.marginal(step.t)
                torch.testing.assert_close(mean, true_mean, rtol=0, atol=1e-12)
                torch.testing.assert_close(var, true_var, rtol=1e-9, atol=0)
                assert (sign * (other - true_var) > 0.01 * true_var).all()


STOCHASTIC = [
    (ddpm, {"variance": "small"}),
    (ddpm, {"variance": "large"}),
    (ddim, {"eta": 1.0}),
    (ddim, {"eta": 0.5}),
    (euler_ancestral, {}),
]


@pytest.mark.parametrize("name", ["quadratic", "flow"])
@pytest.mark.parametrize("sampler, options", STOCHASTIC)
def test_many_stochastic_steps_draw_from_the_data(sampler, options, name):
    """Mean and variance approach the data's with the first order: half the error at twice the steps."""
    data, errors = gaussian(name), []
    for steps in (100, 200):
        *_, (_, mean, var) = spread(sampler, data, steps, **options)
        errors.append((var / data.deviation**2 - 1).abs().max().item())
        assert (mean - data.mean).abs().max() < 0.01
    assert errors[1] < 0.1 and errors[0] / errors[1] == pytest.approx(2, abs=0.3)


@pytest.mark.parametrize("sampler, options", STOCHASTIC)
def test_samples_have_the_mean_and_variance_that_theory_says(sampler, options):
    """The same with noise really drawn, in float32: 20,000 samples, within 4.5 standard errors."""
    data, count = gaussian(), 20_000
    *_, (_, mean, var) = spread(sampler, data, 10, **options)
    data.mean, data.deviation = data.mean.float(), data.deviation.float()
    torch.manual_seed(0)
    x = torch.randn(count, 3)

    def denoise(xt, t):
        return Denoised(*(part.float() for part in data.denoise(xt, t)[:2]))

    x = last(sampler(denoise, data.schedule, x, data.schedule.times(10), **options)).x
    assert x.dtype == torch.float32
    assert ((x.mean(0) - mean).abs() < 4.5 * (var / count).sqrt()).all()
    assert ((x.var(0) - var).abs() < 4.5 * var * (2 / count) ** 0.5).all()


# --- each contains the one before ---------------------------------------------------------------------------


@pytest.mark.parametrize("clamp", [False, True])
@pytest.mark.parametrize("predict", ["eps", "x0", "v"])
@pytest.mark.parametrize("T, steps", [(60, 60), (60, 13)])
def test_ddim_at_eta_1_is_ddpm_with_small_variance(T, steps, predict, clamp):
    """Under the same noise, over all T steps and over fewer; also where clamping changes x0, and so eps."""
    denoise, schedule = denoiser(predict, name="linear", T=T)
    if clamp:
        denoise = clamped(denoise, schedule)
    x, times, noise = normal(*SHAPE), schedule.times(steps), fixed_noise(steps)
    trajectories = zip(
        ddim(denoise, schedule, x, times, eta=1.0, noise=noise()),
        ddpm(denoise, schedule, x, times, variance="small", noise=noise()),
        strict=True,
    )
    for a, b in trajectories:
        torch.testing.assert_close(a.x, b.x, rtol=1e-8, atol=1e-8)
        assert a.t == b.t and a.n == b.n


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_euler_ancestral_is_ddim(eta):
    denoise, schedule = denoiser()
    x, times, noise = normal(*SHAPE), schedule.times(9), fixed_noise(9)
    for a, b in zip(
        euler_ancestral(denoise, schedule, x, times, eta=eta, noise=noise()),
        ddim(denoise, schedule, x, times, eta=eta, noise=noise()),
        strict=True,
    ):
        assert torch.equal(a.x, b.x)


def test_deterministic_samplers_draw_no_noise():
    def refuse(x):
        raise AssertionError("noise was drawn")

    denoise, schedule = denoiser()
    for sampler in (ddim, heun, dpm_solver_pp, flow_euler, flow_heun):
        last(sampler(denoise, schedule, normal(*SHAPE), schedule.times(5), noise=refuse))


def test_the_first_step_of_every_solver_is_ddims_and_one_step_is_all_the_same():
    """With one step they all end at the first prediction of x0."""
    denoise, schedule = denoiser()
    x = normal(*SHAPE)
    expected = denoise(x, torch.tensor(1000.0)).x0
    for sampler in (ddpm, ddim, euler_ancestral, heun, dpm_solver_pp):
        (step,) = sampler(denoise, schedule, x, schedule.times(1))
        torch.testing.assert_close(step.x, expected, rtol=1e-12, atol=1e-12)
    times = schedule.times(10)
    first = next(ddim(denoise, schedule, x, times)).x
    torch.testing.assert_close(next(dpm_solver_pp(denoise, schedule, x, times)).x, first, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("spacing", get_args(Spacing))
@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if not name.startswith("flow")])
@pytest.mark.parametrize("predict, zero", [("eps", False), ("x0", False), ("v", False), ("x0", True), ("v", True)])
def test_every_sampler_ends_at_its_last_x0(predict, zero, sampler, spacing):
    """Finite on the way, for every prediction and spacing, from alpha = 0 too; no noise is left in it.

    Steps that are straight in t do so on the straight path alone: see test_flow.py.
    """
    denoise, schedule = denoiser(predict, T=50, zero_terminal_snr=zero)
    for count in (1, 7, 50) if spacing == "trailing" else (1, 7):
        config = SamplingConfig(sampler=sampler, steps=count, spacing=spacing, eta=0.7, clamp=False)
        steps = list(sampler_steps(denoise, schedule, normal(*SHAPE), config))
        assert [step.n for step in steps] == list(range(count)) and steps[-1].t == 0
        assert all(step.x.isfinite().all() and step.x0.isfinite().all() for step in steps)
        torch.testing.assert_close(steps[-1].x, steps[-1].x0, rtol=1e-12, atol=1e-12)


# --- clamping -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("predict", ["eps", "x0", "v"])
def test_clamping_keeps_x0_in_range_and_eps_in_agreement(predict):
    denoise, schedule = denoiser(predict)
    xt = normal(*SHAPE) * 2
    for t in (torch.tensor(1.0), torch.tensor(437.5), torch.tensor([1, 600, 1000])):
        free, x0_eps = denoise(xt, t), clamped(denoise, schedule)(xt, t)
        assert free.x0.abs().max() > 1 and x0_eps.x0.abs().max() <= 1
        alpha, sigma = (rate.reshape(-1, 1, 1, 1) for rate in schedule.level(t))
        torch.testing.assert_close(alpha * x0_eps.x0 + sigma * x0_eps.eps, xt, rtol=1e-12, atol=1e-12)
        inside = free.x0.abs() <= 1
        assert torch.equal(x0_eps.x0[inside], free.x0[inside])
        torch.testing.assert_close(x0_eps.eps[inside], free.eps[inside], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_clamp_is_an_option_of_every_sampler(sampler):
    denoise, schedule = denoiser("x0", T=40)
    ends = {}
    for clamp in (True, False):
        config = SamplingConfig(sampler=sampler, steps=8, clamp=clamp)
        steps = list(sampler_steps(denoise, schedule, normal(*SHAPE), config))
        ends[clamp] = max(step.x0.abs().max().item() for step in steps)
    assert ends[True] <= 1 < ends[False]


# --- generators ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_gradients_are_off_inside_and_untouched_outside(sampler):
    """A `with torch.no_grad()` around a `yield` would switch them off in the caller's loop."""
    denoise, schedule = denoiser(T=20)
    inside = []

    def watching(x, t):
        inside.append(torch.is_grad_enabled())
        return denoise(x, t)

    x = normal(*SHAPE).requires_grad_()
    for step in sampler_steps(watching, schedule, x, SamplingConfig(sampler=sampler, steps=5)):
        assert torch.is_grad_enabled()
        assert not step.x.requires_grad and not step.x0.requires_grad
    assert not any(inside)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sampler_does_no_more_than_it_is_asked_for(sampler):
    """Nothing before the first step, and an early stop leaves the rest undone."""
    denoise, schedule = denoiser(T=20)
    calls = []

    def counting(x, t):
        calls.append(t)
        return denoise(x, t)

    steps = sampler_steps(counting, schedule, normal(*SHAPE), SamplingConfig(sampler=sampler, steps=10))
    assert not calls
    next(steps), next(steps)
    steps.close()
    assert len(calls) <= 4


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("count", [1, 6, 20])
def test_the_network_is_asked_at_the_times_of_the_schedule(count, sampler):
    """Those that training draws, 1 … T, once each; by Heun's methods twice, but for the first and at t = 0."""
    schedule, asked = NoiseSchedule.from_config(NoiseConfig(name="linear", T=20)), []

    def model(x, t, cond):
        assert t.shape == (3,) and (t == t[0]).all()
        asked.append(t[0].item())
        return x

    denoise = Diffusion(schedule, DiffusionConfig()).denoiser(model, {})
    last(sampler_steps(denoise, schedule, normal(*SHAPE), SamplingConfig(sampler=sampler, steps=count)))
    expected = Counter(schedule.times(count)[:-1].tolist())
    if sampler in ("heun", "flow_heun"):
        expected += Counter(schedule.times(count)[1:-1].tolist())
    assert Counter(asked) == expected and asked == sorted(asked, reverse=True)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_batch_is_its_samples_one_by_one(sampler):
    denoise, schedule = denoiser(T=30)
    x, drawn = normal(*SHAPE), normal(30, *SHAPE, seed=4)

    def run(rows):
        source = iter(drawn[:, rows])
        config = SamplingConfig(sampler=sampler, steps=30, eta=0.8)
        return last(sampler_steps(denoise, schedule, x[rows], config, noise=lambda x: next(source))).x

    alone = torch.cat([run(slice(i, i + 1)) for i in range(len(x))])
    torch.testing.assert_close(run(slice(None)), alone, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_float32_images_stay_float32_and_close_to_float64(sampler):
    denoise, schedule = denoiser()
    x, drawn = normal(*SHAPE), normal(20, *SHAPE, seed=4)
    ends = []
    for dtype in (torch.float32, torch.float64):
        source = iter(drawn.to(dtype))
        config = SamplingConfig(sampler=sampler, steps=20, eta=0.5)
        steps = list(sampler_steps(denoise, schedule, x.to(dtype), config, noise=lambda x, s=source: next(s)))
        assert all(step.x.dtype == step.x0.dtype == dtype for step in steps)
        ends.append(steps[-1].x.double())
    torch.testing.assert_close(*ends, rtol=0, atol=1e-3)


# --- by config ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [6, 40])
def test_a_config_runs_the_sampler_it_names_whatever_the_number_of_steps(steps):
    """Fewer steps than T do not turn ddpm into ddim; of all names only two mean the same, at any eta."""
    denoise, schedule = denoiser(T=40, name="linear")
    x, noise = normal(*SHAPE), fixed_noise(steps)
    direct = {
        "ddpm": (ddpm, {"variance": "small"}),
        "ddpm_large": (ddpm, {"variance": "large"}),
        "ddim": (ddim, {"eta": 0.4}),
        "euler_ancestral": (euler_ancestral, {"eta": 1.0}),
        "heun": (heun, {}),
        "dpm_solver_pp": (dpm_solver_pp, {}),
        "flow_euler": (flow_euler, {}),
        "flow_heun": (flow_heun, {}),
        "consistency": (consistency, {}),
    }
    ends = {}
    for name in SAMPLERS:
        config = SamplingConfig(sampler=name, steps=steps, eta=0.4, spacing="linspace", clamp=False)
        sampler, options = direct[name]
        times = schedule.times(steps, "linspace")
        ends[name] = last(sampler_steps(denoise, schedule, x, config, noise=noise())).x
        assert torch.equal(ends[name], last(sampler(denoise, schedule, x, times, noise=noise(), **options)).x)
    torch.testing.assert_close(ends.pop("euler_ancestral"), ends["ddpm"], rtol=1e-8, atol=1e-8)
    values = list(ends.values())
    assert all((a - b).abs().max() > 1e-3 for i, a in enumerate(values) for b in values[:i])


@pytest.mark.parametrize("options, word", [({"eta": 1.5}, "eta"), ({"eta": -0.1}, "eta"), ({"steps": 41}, "T = 40")])
def test_bad_sampling_options_are_refused_before_the_first_step(options, word):
    denoise, schedule = denoiser(T=40)
    with pytest.raises(ValueError, match=word):
        sampler_steps(denoise, schedule, normal(*SHAPE), SamplingConfig(**options))
