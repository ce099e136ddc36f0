"""From data up to noise and down again, on Gaussian data, where the ODE's way is known."""

import math

import pytest
import torch

from shared.schedulers.config import NoiseConfig, SamplingConfig
from shared.schedulers.inversion import invert, slerp, times_from
from shared.schedulers.noise import NoiseSchedule
from shared.schedulers.samplers import ddim, sampler_steps
from shared.tests.gaussian import Gaussian


def gaussian(name="linear", **options):
    schedule = NoiseSchedule.from_config(NoiseConfig(name=name, **options))
    mean, deviation = torch.tensor([0.3, -0.2, 0.0]).double(), torch.tensor([0.1, 0.4, 0.8]).double()
    return Gaussian(schedule, mean, deviation)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def noise_of(data, x, steps):
    *_, last = invert(data.denoise, data.schedule, x, data.schedule.times(steps))
    return last.x


@pytest.mark.parametrize("name", ["linear", "cosine", "flow"])
def test_the_way_up_ends_in_the_noise_that_the_ode_leads_to(name):
    """The error falls with the first order in the number of steps."""
    data = gaussian(name)
    x = data.mean + data.deviation * normal(20, 3)
    expected = data.flow(x, 0.0, float(data.schedule.T))
    errors = [(noise_of(data, x, steps) - expected).abs().max().item() for steps in (50, 100, 200)]
    assert errors[2] < 0.2
    assert errors[0] > 1.5 * errors[1] > 2.2 * errors[2]


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_there_and_back_is_where_one_began_the_better_the_more_steps(name):
    """DDIM, table 2."""
    data, errors = gaussian(name), []
    x = data.mean + data.deviation * normal(20, 3)
    for steps in (10, 40, 160):
        times = data.schedule.times(steps)
        *_, back = ddim(data.denoise, data.schedule, noise_of(data, x, steps), times)
        errors.append((back.x - x).square().mean().item())
    assert errors[0] > 4 * errors[1] > 16 * errors[2] and errors[2] < 1e-3


def test_it_visits_the_samplers_times_upwards_and_never_asks_at_0():
    data, asked = gaussian(), []

    def denoise(xt, t):
        asked.append(t.item())
        return data.denoise(xt, t)

    times = data.schedule.times(5)
    arrived = [step.t.item() for step in invert(denoise, data.schedule, normal(2, 3), times)]
    assert arrived == times.flip(0).tolist()[1:]
    assert asked == [1.0, *arrived[:-1]]


def test_the_arc_keeps_the_length_that_noise_has():
    a, b = normal(50, 1, 8, 8), normal(50, 1, 8, 8, seed=1)
    assert torch.allclose(slerp(a, b, 0.0), a) and torch.allclose(slerp(a, b, 1.0), b)
    unit = [x / x.flatten(1).norm(dim=1)[:, None, None, None] for x in (a, b)]
    for share in (0.25, 0.5, 0.9):
        assert slerp(*unit, share).flatten(1).norm(dim=1) == pytest.approx([1.0] * 50)
    middle = slerp(a, b, 0.5)
    assert middle.var().item() == pytest.approx(1, abs=0.05) and ((a + b) / 2).var() < 0.6
    middle = slerp(*unit, 0.5)
    angle = [torch.nn.functional.cosine_similarity(x.flatten(1), middle.flatten(1)).arccos() for x in unit]
    torch.testing.assert_close(*angle)


def test_the_arc_between_two_of_the_same_direction_is_a_line():
    a = normal(3, 4)
    assert torch.allclose(slerp(a, a, 0.3), a)
    assert slerp(a, 2 * a, 0.5) == pytest.approx(1.5 * a)
    assert slerp(a, -a, 0.5).isfinite().all()
    quarter = slerp(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), 1 / 3)
    assert quarter[0].tolist() == pytest.approx([math.cos(math.pi / 6), math.sin(math.pi / 6)])


def test_from_the_middle_a_sampler_goes_on_as_if_it_had_come_there():
    """The rest of the way from a time that the whole way passes through is the same rest."""
    data, config = gaussian(), SamplingConfig(sampler="ddim", steps=10, clamp=False)
    whole = list(sampler_steps(data.denoise, data.schedule, normal(4, 3), config))
    times = data.schedule.times(10)
    rest = times_from(data.schedule, 600.0, times)
    assert rest.tolist() == [600, 500, 400, 300, 200, 100, 0]
    middle = next(step for step in whole if step.t == 600)
    *_, last = sampler_steps(data.denoise, data.schedule, middle.x, config, times=rest)
    assert torch.equal(last.x, whole[-1].x)
    assert times_from(data.schedule, 650.0, times).tolist()[:2] == [650, 600]


@pytest.mark.parametrize("start", [0.0, -1.0, 1000.5, math.nan])
def test_a_time_outside_the_schedule_is_refused(start):
    data = gaussian()
    with pytest.raises(ValueError, match="must be above 0"):
        times_from(data.schedule, start, data.schedule.times(10))


def test_the_more_noise_a_picture_is_given_the_less_is_left_of_it():
    """SDEdit on Gaussian data: the mean over draws lies between the picture and the data's mean."""
    data, config, picture = (
        gaussian(),
        SamplingConfig(sampler="ddpm", steps=50, clamp=False),
        torch.tensor([0.9, -0.9, 0.9], dtype=torch.float64),
    )
    torch.manual_seed(0)
    left = []
    for start in (50.0, 300.0, 1000.0):
        times = times_from(data.schedule, start, data.schedule.times(50))
        alpha, sigma = data.schedule.level(start)
        xt = alpha * picture + sigma * torch.randn(4000, 3, dtype=torch.float64)
        *_, last = sampler_steps(data.denoise, data.schedule, xt, config, times=times)
        left.append(((last.x.mean(0) - data.mean) / (picture - data.mean)).tolist())
    assert all(a > b + 0.1 > c for a, b, c in zip(*left, strict=True))
    assert max(map(abs, left[2])) < 0.1
