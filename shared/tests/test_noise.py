"""The noise schedule against the papers' formulas and exact arithmetic; against diffusers elsewhere."""

import math
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import get_args

import numpy as np
import pytest
import torch

from shared.schedulers.config import NoiseConfig, Schedule, Spacing
from shared.schedulers.noise import BETAS, NoiseSchedule

NAMES = get_args(Schedule)
OF_BETAS = tuple(BETAS)  # with alpha² + sigma² = 1; the straight path is of another kind, see test_flow.py
SPACINGS = get_args(Spacing)


def schedule(name="cosine", **options):
    return NoiseSchedule.from_config(NoiseConfig(name=name, **options))


# --- tables -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OF_BETAS)
def test_sigma_keeps_its_digits_at_small_times(name):
    """1 - (1 - beta_1)(1 - beta_2)… in exact fractions, its root in 40 digits."""
    betas = BETAS[name](NoiseConfig())
    sigma = schedule(name).sigma
    left = Fraction(1)
    with localcontext() as context:
        context.prec = 40
        for t in range(1, 25):
            left *= 1 - Fraction(betas[t - 1].item())
            variance = 1 - left
            exact = (Decimal(variance.numerator) / Decimal(variance.denominator)).sqrt()
            assert abs(Decimal(sigma[t].item()) / exact - 1) < Decimal("5e-16")


def test_sigmoid_alpha_bar_is_chens_gamma():
    """The published numpy code, start = -3, end = 3, tau = 1. Only the last beta is capped, at 0.999."""

    def gamma(t, start=-3, end=3, tau=1.0, clip_min=1e-9):
        def sigmoid(x):
            return 1 / (1 + math.exp(-x))

        v_start, v_end = sigmoid(start / tau), sigmoid(end / tau)
        output = sigmoid((t * (end - start) + start) / tau)
        return max((v_end - output) / (v_end - v_start), clip_min)

    expected = torch.tensor([gamma(t / 1000) for t in range(1001)], dtype=torch.float64)
    squared = schedule("sigmoid_alpha_bar").alpha ** 2
    torch.testing.assert_close(squared[:-1], expected[:-1], rtol=1e-10, atol=0)
    assert expected[-1] < squared[-1] < 1e-6


def test_cosine_is_the_papers_formula():
    """Improved DDPM, eq. (17), alpha-bar itself: all but the last level, where beta is capped."""
    f = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(schedule("cosine").alpha[:-1].numpy() ** 2, (f / f[0])[:-1], rtol=1e-10)


@pytest.mark.parametrize("name", OF_BETAS)
def test_zero_terminal_snr_ends_in_pure_noise(name):
    plain, zero = schedule(name), schedule(name, zero_terminal_snr=True)
    assert zero.alpha[-1] == 0 and zero.sigma[-1] == 1
    assert plain.alpha[-1] > 0
    assert zero.alpha[0] == 1 and zero.sigma[0] == 0
    torch.testing.assert_close(zero.alpha[1], plain.alpha[1], rtol=1e-15, atol=0)


@pytest.mark.parametrize("T", [1, 2, 10, 4000])
@pytest.mark.parametrize("name", OF_BETAS)
def test_any_number_of_levels(name, T):
    table = schedule(name, T=T)
    assert table.T == T and table.alpha.shape == table.sigma.shape == (T + 1,)
    assert table.alpha.dtype == table.sigma.dtype == torch.float64
    assert (table.alpha[0], table.sigma[0]) == (1, 0)
    torch.testing.assert_close(table.alpha**2 + table.sigma**2, torch.ones(T + 1).double(), rtol=1e-14, atol=0)


def test_tables_move_with_the_module_and_stay_out_of_checkpoints():
    table = schedule()
    assert table.state_dict() == {}
    assert table.to("meta").level(torch.ones(3, device="meta")).alpha.device.type == "meta"


@pytest.mark.parametrize(
    "options",
    [
        {"T": 0},
        {"T": -5},
        {"T": 1, "zero_terminal_snr": True},
        {"name": "linear", "beta_start": 0.0},
        {"name": "linear", "beta_end": 1.0},
        {"name": "quadratic", "beta_end": 2.0},
    ],
)
def test_impossible_schedules_are_refused(options):
    with pytest.raises(ValueError, match="schedule"):
        schedule(**options)


def test_tables_that_are_no_schedule_are_refused():
    alpha = torch.tensor([0.9, 0.5], dtype=torch.float64)
    with pytest.raises(ValueError, match="alpha² \\+ sigma²"):
        NoiseSchedule(alpha, alpha)
    with pytest.raises(ValueError, match="falls"):
        NoiseSchedule(alpha.flip(0), (1 - alpha.flip(0) ** 2).sqrt())


# --- between the levels -------------------------------------------------------------------------------------


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_level_is_the_table_at_integers(name, zero):
    table = schedule(name, T=50, zero_terminal_snr=zero)
    for times in (torch.arange(51), torch.arange(51).float(), torch.arange(51).double()):
        alpha, sigma = table.level(times)
        assert torch.equal(alpha, table.alpha) and torch.equal(sigma, table.sigma)
    assert table.level(50).alpha == table.alpha[50] and table.level(7.0).sigma == table.sigma[7]


def test_level_keeps_the_shape_of_the_times():
    for shape in ((), (1,), (4,), (2, 3)):
        alpha, sigma = schedule().level(torch.full(shape, 3.5))
        assert alpha.shape == sigma.shape == shape and alpha.dtype == torch.float64


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("name", OF_BETAS)
def test_level_is_monotone_and_variance_preserving_between_integers(name, zero):
    alpha, sigma = schedule(name, T=40, zero_terminal_snr=zero).level(torch.arange(0, 40 * 8 + 1).double() / 8)
    assert (alpha.diff() < 0).all() and (sigma.diff() > 0).all()
    assert (alpha**2 + sigma**2 - 1).abs().max() < 1e-15


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_slope_is_the_derivative_of_level(name, zero):
    table = schedule(name, T=40, zero_terminal_snr=zero)
    t, h = torch.arange(40).double() + 0.3, 1e-4
    for slope, above, below in zip(table.slope(t), table.level(t + h), table.level(t - h), strict=True):
        torch.testing.assert_close(slope, (above - below) / (2 * h), rtol=1e-7, atol=1e-11)


# --- spacing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("T", [1, 2, 37, 100])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_times_fall_strictly_from_the_noise_to_zero(spacing, T):
    """For every number of steps: no level twice, the noisiest where the spacing puts it, the end at 0."""
    table = schedule(T=T)
    for steps in range(1, T + 1):
        times = table.times(steps, spacing)
        assert times.shape == (steps + 1,) and times.dtype == torch.float64
        assert (times.diff() < 0).all() and times[-1] == 0 and times[0] <= T
        if spacing in ("trailing", "linspace"):
            assert times[0] == T
        if spacing != "quadratic":
            assert (times == times.round()).all()
            assert steps < T or torch.equal(times, torch.arange(T, -1, -1).double())


def test_trailing_and_linspace_are_rounded_exactly():
    """Lin 2024, table 2, in fractions. Python, too, rounds halves to even."""
    T = 1000
    table = schedule(T=T)
    for steps in (2, 3, 7, 16, 48, 112, 400, 999):
        trailing = [round(Fraction(T * i, steps)) for i in range(steps, -1, -1)]
        assert table.times(steps, "trailing").tolist() == trailing
        linspace = [1 + round(Fraction((T - 1) * i, steps - 1)) for i in range(steps - 1, -1, -1)]
        assert table.times(steps, "linspace").tolist() == [*linspace, 0]


@pytest.mark.parametrize("steps", [2, 10, 50])
def test_quadratic_is_ddims(steps):
    """The official code truncates linspace(0, sqrt(0.8 T), n)², counting from 0; ours is within a level."""
    official = 1 + (np.linspace(0, np.sqrt(1000 * 0.8), steps) ** 2).astype(int)
    ours = schedule(T=1000).times(steps, "quadratic").numpy()[:-1][::-1]
    assert np.abs(ours - official).max() < 1
    assert ours[0] == 1 and ours[-1] == pytest.approx(800)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [0, -1, 101])
def test_a_number_of_steps_that_the_schedule_has_not_is_refused(steps, spacing):
    with pytest.raises(ValueError, match="1 to 100"):
        schedule(T=100).times(steps, spacing)
