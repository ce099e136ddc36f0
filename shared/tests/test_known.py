"""Known parts of a sample against jointly Gaussian data, of which the rest given that part is known in closed form."""

from typing import get_args

import pytest
import torch

from shared.schedulers.config import NoiseConfig, Sampler, SamplingConfig
from shared.schedulers.diffusion import Denoised
from shared.schedulers.known import kept, put_in, reconstruction_guided, replaced
from shared.schedulers.noise import NoiseSchedule
from shared.schedulers.samplers import sampler_steps

SCHEDULES = [NoiseConfig(), NoiseConfig(name="flow"), NoiseConfig(name="linear", zero_terminal_snr=True)]
TIMES = [torch.tensor(t).double() for t in (1, 37.5, 500, 999, 1000)] + [torch.tensor([2, 300, 999])]
MEAN = torch.tensor([0.3, -0.2, 0.1]).double()
SPREAD = torch.tensor([[1.0, 0.9, 0.72], [0.9, 1.0, 0.8], [0.72, 0.8, 1.0]]).double()  # of three numbers, jointly
FIRST = torch.tensor([True, False, False])  # the first is known
GIVEN = 1.8
# Of the others, given the first: the rule for jointly Gaussian variables.
REST_MEAN = MEAN[1:] + SPREAD[1:, 0] * (GIVEN - MEAN[0]) / SPREAD[0, 0]
REST_SPREAD = SPREAD[1:, 1:] - SPREAD[1:, :1] @ SPREAD[:1, 1:] / SPREAD[0, 0]


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn(seed=0):
    """Noise that is the same for two that draw it equally often."""
    generator = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype)


def rates(schedule, t, xt):
    """alpha and sigma, shaped to multiply xt."""
    return (rate.reshape(-1, *[1] * (xt.ndim - 1)) for rate in schedule.level(t))


def gaussian(schedule, mean, spread):
    """The exact denoiser of N(mean, spread)."""

    def denoise(xt, t):
        alpha, sigma = rates(schedule, t, xt)
        marginal = alpha[..., None] ** 2 * spread + sigma[..., None] ** 2 * torch.eye(len(mean)).double()
        surprise = torch.linalg.solve(marginal.expand(len(xt), -1, -1), xt - alpha * mean)
        return Denoised(mean + alpha * surprise @ spread, sigma * surprise)

    return denoise


def curved(schedule):
    """A denoiser in which everything of a sample depends on everything, in no simple way."""

    def denoise(xt, t):
        alpha, sigma = rates(schedule, t, xt)
        flat = xt.flatten(1)
        x0 = torch.sin(2 * flat + flat.roll(1, 1) * flat.roll(2, 1)).view_as(xt) + 0.3 * flat.mean(1).view(alpha.shape)
        return Denoised(x0, (xt - alpha * x0) / sigma)

    def batched(xt, t):
        return denoise(xt, t.expand(len(xt)))

    return batched


def every_way(schedule, known, mask, seed=0, denoise=None):
    """Each wrapper by name."""
    inner = denoise or curved(schedule)
    return {
        "kept": kept(inner, schedule, known, mask),
        "replaced": replaced(inner, schedule, known, mask, drawn(seed)),
        "guided": reconstruction_guided(inner, schedule, known, mask, drawn(seed), 2.0),
    }


WAYS = ("kept", "replaced", "guided")


# --- whatever the way -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", [name for name in get_args(Sampler) if name != "ddpm_learned"])
@pytest.mark.parametrize("config", SCHEDULES, ids=lambda config: config.name)
@pytest.mark.parametrize("way", WAYS)
def test_a_sampler_ends_with_what_is_known_and_fills_in_the_rest(way, config, sampler):
    """Also out of pure noise, where alpha is 0."""
    schedule = NoiseSchedule.from_config(config)
    known, mask = normal(3, 1, 4, 2, 2, seed=1).clamp(-1, 1), torch.tensor([True, False, True, False])[:, None, None]
    denoise = every_way(schedule, known, mask)[way]
    options = SamplingConfig(sampler=sampler, steps=6, clamp=False)
    *_, last = sampler_steps(denoise, schedule, normal(3, 1, 4, 2, 2, seed=2), options, drawn(5))
    torch.testing.assert_close(last.x[:, :, [0, 2]], known[:, :, [0, 2]], rtol=0, atol=1e-12)
    assert last.x.isfinite().all() and (last.x - known)[:, :, [1, 3]].abs().min() > 1e-6


@pytest.mark.parametrize("t", TIMES, ids=str)
@pytest.mark.parametrize("config", SCHEDULES, ids=lambda config: config.name)
@pytest.mark.parametrize("way", WAYS)
def test_x0_and_noise_make_up_xt(way, config, t):
    schedule, xt, known = NoiseSchedule.from_config(config), normal(3, 2, 3), normal(3, 2, 3, seed=1)
    mask = normal(3, 2, 3, seed=2) > 0
    found = every_way(schedule, known, mask)[way](xt, t)
    alpha, sigma = rates(schedule, t, xt)
    torch.testing.assert_close(alpha * found.x0 + sigma * found.eps, xt, rtol=1e-9, atol=1e-9)
    assert torch.equal(found.x0[mask], known[mask]) and not found.x0.requires_grad and not found.eps.requires_grad


@pytest.mark.parametrize("t", TIMES, ids=str)
@pytest.mark.parametrize("way", WAYS)
def test_samples_do_not_mix(way, t):
    """A batch is answered as its samples one by one, given the same noise; each has its own mask."""
    schedule = NoiseSchedule.from_config(NoiseConfig())
    xt, known, mask, fresh = (
        normal(3, 2, 3),
        normal(3, 2, 3, seed=1),
        normal(3, 2, 3, seed=2) > 0,
        normal(3, 2, 3, seed=3),
    )

    def asked(rows):
        inner, part = curved(schedule), (known[rows], mask[rows])
        own = {
            "kept": kept(inner, schedule, *part),
            "replaced": replaced(inner, schedule, *part, lambda x: fresh[rows]),
            "guided": reconstruction_guided(inner, schedule, *part, lambda x: fresh[rows], 2.0),
        }[way]
        return own(xt[rows], t[rows] if t.ndim else t)

    whole = asked(slice(None))
    for i in range(3):
        one = asked(slice(i, i + 1))
        torch.testing.assert_close(one.x0[0], whole.x0[i], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(one.eps[0], whole.eps[i], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("way", ["replaced", "guided"])
def test_what_a_sampler_has_at_known_places_does_not_count(way):
    """The denoiser is asked about the known with fresh noise of its time, and about the rest as it is."""
    schedule, seen = NoiseSchedule.from_config(NoiseConfig()), []
    known, mask, t = torch.full((4000, 3), 0.7).double(), FIRST, torch.tensor(400.0)

    def spy(xt, t):
        seen.append(xt.detach().clone())
        return gaussian(schedule, MEAN, SPREAD)(xt, t)

    denoise = every_way(schedule, known, mask, denoise=spy)[way]
    xt = normal(4000, 3)
    first = denoise(xt, t)
    again = every_way(schedule, known, mask, denoise=spy)[way](xt + 9 * mask, t)
    assert torch.equal(first.x0, again.x0)
    denoise(xt, t)  # a second time
    assert all(torch.equal(asked[:, 1:], xt[:, 1:]) for asked in seen)
    alpha, sigma = schedule.level(t)
    noises = [(asked[:, 0] - alpha * 0.7) / sigma for asked in (seen[0], seen[2])]
    for noise in noises:
        assert abs(noise.mean()) < 0.06 and abs(noise.std() - 1) < 0.05
    assert abs(torch.corrcoef(torch.stack(noises))[0, 1]) < 0.06  # fresh each time
    whole = torch.ones(3, dtype=torch.bool)
    torch.testing.assert_close(put_in(xt, t, schedule, known, whole, torch.zeros_like), alpha * known)


def test_what_is_kept_leaves_the_rest_to_the_denoiser():
    schedule, xt, t = NoiseSchedule.from_config(NoiseConfig()), normal(4, 3), torch.tensor(300.0)
    plain = gaussian(schedule, MEAN, SPREAD)(xt, t)
    found = kept(gaussian(schedule, MEAN, SPREAD), schedule, torch.full((4, 3), 5.0).double(), FIRST)(xt, t)
    assert torch.equal(found.x0[:, 1:], plain.x0[:, 1:])
    torch.testing.assert_close(found.eps[:, 1:], plain.eps[:, 1:])


# --- reconstruction guidance -----------------------------------------------------------------------------------


@pytest.mark.parametrize("t", TIMES, ids=str)
def test_a_weight_of_0_is_replacement_bit_for_bit(t):
    schedule = NoiseSchedule.from_config(NoiseConfig())
    known, mask, xt = normal(3, 2, 3, seed=1), normal(3, 2, 3, seed=2) > 0, normal(3, 2, 3)
    for weight in (0, 0.0):
        one = reconstruction_guided(curved(schedule), schedule, known, mask, drawn(), weight)(xt, t)
        two = replaced(curved(schedule), schedule, known, mask, drawn())(xt, t)
        assert torch.equal(one.x0, two.x0) and torch.equal(one.eps, two.eps)


def test_a_weight_of_0_takes_a_denoiser_that_lets_no_gradient_through():
    schedule = NoiseSchedule.from_config(NoiseConfig())
    shut = torch.no_grad()(curved(schedule))
    known, mask, xt = normal(3, 2, 3, seed=1), normal(3, 2, 3, seed=2) > 0, normal(3, 2, 3)
    assert reconstruction_guided(shut, schedule, known, mask, drawn(), 0.0)(xt, TIMES[2]).x0.isfinite().all()


@pytest.mark.parametrize("t", TIMES[:4], ids=str)
@pytest.mark.parametrize("config", SCHEDULES[:2], ids=lambda config: config.name)
def test_the_rest_is_moved_as_equation_7_says_by_differences(config, t):
    """x0 - weight · alpha / 2 · d |known - x0 of the known|² / d xt, that derivative by small steps."""
    schedule = NoiseSchedule.from_config(config)
    known, fresh, weight = normal(1, 5, seed=1), normal(1, 5, seed=3), 3.0
    mask = torch.tensor([True, False, True, False, False])
    alpha, sigma = schedule.level(t)
    inner, xt = curved(schedule), normal(1, 5)
    put = torch.where(mask, alpha * known + sigma * fresh, xt)

    def error(x):
        return ((known - inner(x, t).x0)[:, mask] ** 2).sum()

    found = reconstruction_guided(inner, schedule, known, mask, lambda x: fresh, weight)(xt, t)
    for i in (1, 3, 4):
        step = 1e-5 * torch.eye(5).double()[i]
        slope = (error(put + step) - error(put - step)) / 2e-5
        expected = inner(put, t).x0[0, i] - weight * alpha / 2 * slope
        assert abs(found.x0[0, i] - expected) < 1e-7
        assert abs(slope) > 1e-3


@pytest.mark.parametrize("t", TIMES[1:4], ids=str)
@pytest.mark.parametrize("config", SCHEDULES[:2], ids=lambda config: config.name)
def test_with_the_right_weight_at_each_time_it_is_the_exact_conditional_denoiser(config, t):
    """The likelihood of what is known, given xt, is Gaussian about the denoiser's x0. Equation (7) takes its variance
    for sigma² / alpha² / weight; where that is the true one, it is Bayes' rule."""
    schedule = NoiseSchedule.from_config(config)
    alpha, sigma = schedule.level(t)
    marginal = alpha**2 * SPREAD + sigma**2 * torch.eye(3).double()
    left = (SPREAD - alpha**2 * SPREAD @ torch.linalg.inv(marginal) @ SPREAD)[0, 0]  # Var(first | xt)
    weight = (sigma**2 / alpha**2 / left).item()
    known, xt = torch.full((4, 3), GIVEN, dtype=torch.float64), normal(4, 3)
    found = reconstruction_guided(gaussian(schedule, MEAN, SPREAD), schedule, known, FIRST, drawn(), weight)(xt, t)
    exact = gaussian(schedule, REST_MEAN, REST_SPREAD)(xt[:, 1:], t)
    torch.testing.assert_close(found.x0[:, 1:], exact.x0, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found.eps[:, 1:], exact.eps, rtol=1e-8, atol=1e-8)


def sampled(way, sampler, n=3000):
    """Samples of the rest, (n, 2), given the first; from an exact denoiser of all three."""
    schedule = NoiseSchedule.from_config(NoiseConfig())
    known, inner, noise = torch.full((n, 3), GIVEN, dtype=torch.float64), gaussian(schedule, MEAN, SPREAD), drawn(1)
    if way == "replaced":
        denoise = replaced(inner, schedule, known, FIRST, noise)
    else:
        denoise = reconstruction_guided(inner, schedule, known, FIRST, noise, way)
    options = SamplingConfig(sampler=sampler, steps=40, clamp=False)
    *_, last = sampler_steps(denoise, schedule, normal(n, 3), options, drawn(2))
    return last.x[:, 1:]


@pytest.mark.parametrize(("sampler", "weight"), [("ddim", 4.0), ("ddpm", 2.0)])
def test_reconstruction_guidance_comes_closer_to_what_belongs_there_than_replacement(sampler, weight):
    """Ho 2022, section 3.1: replaced frames are heard of too little. The mean of the rest moves by little more than
    half of what it should by replacement, even though the denoiser is exact."""
    apart = {way: (sampled(way, sampler).mean(0) - REST_MEAN).norm() for way in ("replaced", weight / 2, weight)}
    assert apart[weight] < 0.4 * apart["replaced"] and apart["replaced"] > 0.5
    assert apart[weight] < apart[weight / 2] < apart["replaced"]


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_none_is_refused(weight):
    schedule = NoiseSchedule.from_config(NoiseConfig())
    with pytest.raises(ValueError, match="^the weight of reconstruction guidance is"):
        reconstruction_guided(curved(schedule), schedule, normal(2, 3), FIRST, drawn(), weight)
