"""The variational bound against closed forms: Gaussian data, the SNR form of its terms, torch's distributions."""

import math
import warnings

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import nn

from shared.errors import UserError
from shared.metrics.likelihood import bound_bits, flow_log_density, ode_bits
from shared.schedulers.bound import Bound, BoundLoss, LearnedVariance, bits, level_log_probability
from shared.schedulers.config import BoundConfig, DiffusionConfig, NoiseConfig, SamplingConfig
from shared.schedulers.diffusion import Denoised, Diffusion
from shared.schedulers.noise import NoiseSchedule
from shared.schedulers.samplers import ddpm, sampler_steps
from shared.tests.gaussian import Gaussian

VARIANCES = ["small", "large", "learned"]
MEAN, DEVIATION = torch.linspace(-0.3, 0.3, 16).double(), torch.linspace(0.1, 0.3, 16).double()


def schedule(name="cosine", T=100, **options):
    return NoiseSchedule.from_config(NoiseConfig(name=name, T=T, **options))


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn(n, seed=0):
    """Of N(MEAN, DEVIATION²), brought to the 256 levels."""
    x = MEAN + DEVIATION * normal(n, 16, seed=seed)
    return ((x.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def denoiser(data):
    return lambda xt, t: data.denoise(xt, t[..., None] if t.ndim else t)


def entropy():
    """Of the data, in bits a dimension, cut into levels of 1 / 127.5."""
    return (torch.log2(2 * math.pi * math.e * DEVIATION**2) / 2).mean().item() + math.log2(127.5)


# --- terms, one by one --------------------------------------------------------------------------------------


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("name", ["linear", "cosine", "flow"])
def test_a_term_is_the_divergence_of_two_normals(name, variance):
    """By torch.distributions, with mean and variance of q by precision weighting (as in `gaussian.py`)."""
    s, x0, xt, guess, place = schedule(name), *(normal(7, 3, seed=i).clamp(-1, 1) for i in range(4))
    t = torch.tensor([2, 3, 10, 50, 90, 99, 100])
    (alpha_t, sigma_t), (alpha_s, sigma_s) = ((r[:, None] for r in s.level(when)) for when in (t, t - 1))
    added = sigma_t**2 - (alpha_t / alpha_s * sigma_s) ** 2
    small = 1 / (1 / sigma_s**2 + (alpha_t / alpha_s) ** 2 / added)

    def mean(x):
        return small * (alpha_s * x / sigma_s**2 + alpha_t / alpha_s * xt / added)

    chosen = {"small": small, "large": added, "learned": small ** (1 - place) * added**place}[variance]
    q = torch.distributions.Normal(mean(x0), small.sqrt().expand(7, 3))
    p = torch.distributions.Normal(mean(guess), chosen.sqrt().expand(7, 3))
    expected = torch.distributions.kl_divergence(q, p).mean(1) / math.log(2)
    found = Bound(s, variance).term(Denoised(guess, guess, place), x0, xt, t)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("predict", ["eps", "x0", "v"])
def test_with_the_small_variance_a_term_is_a_difference_of_signal_to_noise_ratios(predict):
    """Kingma 2021 ("Variational diffusion models"), eq. (14): (SNR(s) - SNR(t)) / 2 · |x0 - x0'|²."""
    s = schedule("linear")
    diffusion = Diffusion(s, DiffusionConfig(predict=predict))
    x0, eps, out = (normal(5, 2, 3, seed=i) for i in range(3))
    t = torch.tensor([2, 17, 50, 80, 100])
    xt = diffusion.add_noise(x0, eps, t)
    denoised = diffusion.interpret(out, xt, t)
    snr = [(level.alpha / level.sigma) ** 2 for level in map(s.level, (t - 1, t))]
    expected = (snr[0] - snr[1]) / 2 * (x0 - denoised.x0).square().flatten(1).mean(1) / math.log(2)
    torch.testing.assert_close(Bound(s, "small").term(denoised, x0, xt, t), expected, rtol=1e-6, atol=1e-9)


def test_the_prior_is_what_is_left_of_the_image_at_T():
    x0 = normal(3, 4)
    for name in ("linear", "cosine", "flow"):
        s = schedule(name, T=50)
        alpha, sigma = s.level(50)
        q = torch.distributions.Normal(alpha * x0, sigma.expand(3, 4))
        expected = torch.distributions.kl_divergence(q, torch.distributions.Normal(0, 1)).mean(1) / math.log(2)
        torch.testing.assert_close(Bound(s, "small").prior(x0), expected, rtol=1e-9, atol=1e-12)


def test_levels_share_all_probability_out():
    levels = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    for mean in (-1.3, -1.0, -0.2, 0.999, 4.0):
        for deviation in (1e-3, 0.02, 0.5, 10.0):
            log_p = level_log_probability(levels, torch.tensor(mean), torch.tensor(deviation))
            assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("mean", [-0.7, 0.013, 0.9, 30.0, -30.0])
def test_the_probability_of_a_level_is_that_of_scipy(mean):
    """Also far in a tail, where 1 minus a probability is 0; and of the outermost levels."""
    for level in (-1.0, -0.5, 1 / 255, 1.0):
        low, high = level - 1 / 255, level + 1 / 255
        low, high = (-np.inf if level == -1 else low), (np.inf if level == 1 else high)
        a, b = (low - mean) / 0.5, (high - mean) / 0.5
        if a > 0:  # the mirror image, where scipy's logarithm has its digits
            a, b = -b, -a
        upper, lower = stats.norm.logcdf(b), stats.norm.logcdf(a)
        expected = upper + np.log1p(-np.exp(lower - upper))
        at = torch.tensor(level, dtype=torch.float64)
        found = level_log_probability(at, torch.tensor(mean), torch.tensor(0.5)).item()
        assert math.isfinite(found) and found == pytest.approx(expected, rel=1e-6)


def test_the_first_term_is_of_levels_and_knows_the_second_steps_variance():
    s, x0 = schedule("linear"), torch.tensor([[-1.0, 0.0, 1.0]], dtype=torch.float64).round(decimals=3)
    guess = torch.tensor([[-0.98, 0.01, 1.0]], dtype=torch.float64)
    one, two = s.level(1), s.level(2)
    beta_2 = two.sigma**2 - (two.alpha / one.alpha * one.sigma) ** 2
    small = beta_2 * one.sigma**2 / two.sigma**2
    for variance, expected in (("small", small.sqrt()), ("large", one.sigma)):
        found = Bound(s, variance).term(Denoised(guess, guess), x0, x0, torch.tensor([1]))
        log_p = level_log_probability(x0, guess, expected)
        assert found.item() == pytest.approx(-log_p.mean().item() / math.log(2), rel=1e-9)


# --- the whole, where it is known ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_the_bound_of_a_perfect_model_comes_down_to_the_entropy(name):
    """Of the exact denoiser of a diagonal Gaussian: never below the entropy, and nearer to it with more levels."""
    found = []
    for T in (50, 400):
        s = schedule(name, T=T, beta_end=min(0.02 * 1000 / T, 0.5), beta_start=1e-4 * 1000 / T)
        data = Gaussian(s, MEAN, DEVIATION)
        generator = torch.Generator().manual_seed(0)
        found.append(bound_bits(denoiser(data), Bound(s, "large"), drawn(3000), 100, generator, 3000))
    far, near = (result.bits_per_dim - entropy() for result in found)
    assert 0.01 < far < 0.3 and abs(near) < 0.05 and near < far / 2
    assert near > -4 * found[1].error


def test_no_model_says_it_in_fewer_bits_than_the_entropy():
    s = schedule("linear", T=100, beta_end=0.2, beta_start=1e-3)
    data = Gaussian(s, MEAN, DEVIATION)
    wrong = Gaussian(s, MEAN + 0.2, DEVIATION)
    costs = [
        bound_bits(denoiser(model), Bound(s, variance), drawn(2000), 20, torch.Generator().manual_seed(0), 2000)
        for model, variance in ((data, "large"), (data, "small"), (wrong, "large"))
    ]
    assert costs[0].bits_per_dim < min(costs[1].bits_per_dim, costs[2].bits_per_dim)
    assert all(cost.bits_per_dim > entropy() - 3 * cost.error for cost in costs)


def test_few_terms_estimate_the_sum_of_all():
    """Sections of one length, one draw in each: the mean over images is that of all terms."""
    s = schedule("linear", T=60, beta_end=0.3, beta_start=1e-3)
    model = denoiser(Gaussian(s, MEAN, DEVIATION))
    every = bound_bits(model, Bound(s, "large"), drawn(2000), 10**6, torch.Generator().manual_seed(1), 2000)
    few = bound_bits(model, Bound(s, "large"), drawn(2000), 4, torch.Generator().manual_seed(2), 500)
    assert every.calls == 60 and few.calls == 5
    assert few.bits_per_dim == pytest.approx(every.bits_per_dim, abs=4 * math.hypot(few.error, every.error))
    assert few.parts["first"] == pytest.approx(every.parts["first"], abs=0.05)
    assert sum(few.parts.values()) == pytest.approx(few.bits_per_dim)


@pytest.mark.parametrize("name", ["linear", "cosine", "flow"])
def test_the_ode_gives_the_density_of_gaussian_data(name):
    s = schedule(name, T=1000)
    data, x = Gaussian(s, MEAN, DEVIATION), drawn(50)
    for start in (1.0, 250.0):
        found, _ = flow_log_density(denoiser(data), s, x, torch.Generator().manual_seed(0), start)
        mean, variance = data.marginal(start)
        expected = torch.distributions.Normal(mean, variance.sqrt()).log_prob(x).sum(1)
        assert (found - expected).abs().max() < 0.05  # nats, of all 16 dimensions


def test_the_trace_is_estimated_without_bias():
    """Of a denoiser whose derivative is no diagonal: the mean over signs is its trace."""
    s, matrix = schedule("linear", T=1000), 0.1 * normal(3, 3, seed=5)

    def denoise(xt, t):
        return Denoised(xt @ matrix, xt @ matrix.T @ matrix)

    from shared.metrics.likelihood import velocity_and_divergence

    t = 300.0
    alpha_rate, sigma_rate = s.slope(t)
    expected = (alpha_rate * matrix + sigma_rate * matrix.T @ matrix).trace().item()
    signs = torch.tensor([[a, b, c] for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)], dtype=torch.float64)
    _, found = velocity_and_divergence(denoise, s, normal(8, 3), t, signs)
    assert found.std() > 1e-6 and found.mean().item() == pytest.approx(expected, rel=1e-9)


def test_the_ode_too_comes_down_to_the_entropy():
    s = schedule("cosine", T=1000)
    found = ode_bits(
        denoiser(Gaussian(s, MEAN, DEVIATION)), Bound(s, "large"), drawn(800), torch.Generator().manual_seed(0), 800
    )
    assert found.bits_per_dim == pytest.approx(entropy(), abs=4 * found.error)
    assert found.n == 800 and found.calls > 20


@pytest.mark.parametrize(
    "x0, message",
    [(lambda xt: xt / 0 * 0, "is not finite"), (lambda xt: -1e3 * xt.abs() ** 3, "could not be followed|not finite")],
)
def test_an_ode_that_cannot_be_solved_is_no_figure(x0, message):
    def denoise(xt, t):
        return Denoised(x0(xt), xt)

    with pytest.raises(UserError, match=message), np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        flow_log_density(denoise, schedule(T=10), normal(2, 3), torch.Generator().manual_seed(0))


# --- a variance that is learned -----------------------------------------------------------------------------


class Two(nn.Module):
    """Twice the channels, as a U-Net for a learned variance."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.mean, self.place = nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 3, padding=1)
        self.double()

    def forward(self, x, t, cond):
        return torch.cat([self.mean(x), self.place(x)], dim=1)


def learned(predict="eps", name="linear", **options):
    return LearnedVariance(schedule(name), DiffusionConfig(predict=predict, **options))


def test_the_second_half_of_the_outputs_is_the_place_of_the_variance():
    diffusion, xt, out = learned("v"), normal(2, 1, 4, 4), normal(2, 2, 4, 4, seed=1)
    found = diffusion.interpret(out, xt, torch.tensor([3, 70]))
    plain = Diffusion(diffusion.schedule, diffusion.config).interpret(out[:, :1], xt, torch.tensor([3, 70]))
    assert torch.equal(found.x0, plain.x0) and torch.equal(found.eps, plain.eps) and plain.log_variance is None
    torch.testing.assert_close(found.log_variance, (out[:, 1:] + 1) / 2)
    with pytest.raises(ValueError, match="even number of output channels"):
        diffusion.interpret(out[:, :1], xt, torch.tensor([3, 70]))


@pytest.mark.parametrize("steps", [10, 100])
def test_a_learned_variance_at_either_end_is_the_fixed_one(steps):
    """Through the sampler, for steps of any length, with the predictions clamped on the way."""
    data = Gaussian(schedule(), MEAN[:3], DEVIATION[:3])

    def told(place):
        return lambda xt, t: data.denoise(xt, t)._replace(log_variance=torch.full_like(xt, place))

    def end(denoise, sampler):
        noise = iter(normal(steps, 4, 3, seed=2))
        config = SamplingConfig(sampler=sampler, steps=steps, clamp=True)
        *_, last = sampler_steps(denoise, data.schedule, normal(4, 3), config, noise=lambda x: next(noise))
        return last.x

    small, large = end(data.denoise, "ddpm"), end(data.denoise, "ddpm_large")
    torch.testing.assert_close(end(told(0.0), "ddpm_learned"), small)
    torch.testing.assert_close(end(told(1.0), "ddpm_learned"), large)
    assert (small - large).abs().max() > 0.01
    with pytest.raises(UserError, match="learned no variance"):
        end(data.denoise, "ddpm_learned")


def test_the_best_place_gives_samples_the_spread_of_the_data():
    """The true variance of a long step lies between the two fixed ones: with it, every step ends where it should."""
    s, deviation = schedule("cosine", T=1000), torch.tensor([0.05, 0.2, 0.5], dtype=torch.float64)
    data = Gaussian(s, torch.zeros(3, dtype=torch.float64), deviation)
    times = s.times(8)

    def denoise(xt, t):
        after = times[(times == t).nonzero().item() + 1]
        (alpha_t, sigma_t), (alpha_s, sigma_s) = s.level(t), s.level(after)
        added = sigma_t**2 - (alpha_t / alpha_s * sigma_s) ** 2
        small = added * sigma_s**2 / sigma_t**2
        left = deviation**2 * sigma_t**2 / (alpha_t**2 * deviation**2 + sigma_t**2)  # variance of x0 given xt
        true = small + (alpha_s * added / sigma_t**2) ** 2 * left
        place = torch.zeros_like(deviation) if after == 0 else (true / small).log() / (added / small).log()
        return data.denoise(xt, t)._replace(log_variance=place.expand_as(xt))

    def spread(variance):
        torch.manual_seed(0)
        *_, before, _ = ddpm(denoise, s, torch.randn(40_000, 3, dtype=torch.float64), times, variance=variance)
        return ((before.x.var(0) / data.marginal(before.t)[1]).log()).abs()  # the last step draws nothing

    small, large, found = spread("small"), spread("large"), spread("learned")
    assert (found < 0.03).all() and (found < small / 3).all() and (found < large / 3).all()


# --- training by it -----------------------------------------------------------------------------------------


def loss_of(objective="vlb", variance="learned", diffusion=None, **options):
    diffusion = diffusion or (learned() if variance == "learned" else Diffusion(schedule("linear"), DiffusionConfig()))
    return BoundLoss(diffusion, BoundConfig(objective=objective, variance=variance, **options))


def test_the_mean_over_all_levels_is_the_bound():
    """One image, every level once, with the noise that was drawn: the mean of T · L_{t-1} is their sum."""
    loss, network = loss_of(), Two()
    T = loss.diffusion.schedule.T
    x0 = drawn(1)[:, :9].reshape(1, 1, 3, 3).expand(T, 1, 3, 3)
    t, eps = torch.arange(1, T + 1), normal(T, 1, 3, 3, seed=4)
    found = loss.at(network, x0, {}, t, eps).mean()
    xt = loss.diffusion.add_noise(x0, eps, t)
    denoised = loss.diffusion.interpret(network(xt, t, {}), xt, t)
    torch.testing.assert_close(found, Bound(loss.diffusion.schedule, "learned").term(denoised, x0, xt, t).sum())


def test_in_hybrid_the_bound_teaches_the_variance_alone():
    x0, t, eps = drawn(4)[:, :9].reshape(4, 1, 3, 3), torch.tensor([1, 5, 50, 100]), normal(4, 1, 3, 3, seed=4)
    gradients = {}
    for objective in ("hybrid", "vlb"):
        network = Two()
        loss_of(objective).at(network, x0, {}, t, eps).sum().backward()
        gradients[objective] = network.mean.weight.grad, network.place.weight.grad
    network = Two()
    learned().error(network(learned().add_noise(x0, eps, t), t, {}), x0, eps, t).sum().backward()
    simple = network.mean.weight.grad
    torch.testing.assert_close(gradients["hybrid"][0], simple)
    assert not torch.allclose(gradients["vlb"][0], simple)
    torch.testing.assert_close(gradients["hybrid"][1], 0.001 * gradients["vlb"][1])
    assert gradients["vlb"][1].abs().max() > 0


def test_training_by_the_bound_finds_the_variance():
    """One number to learn, of Gaussian data seen by its exact denoiser: the place where the bound is least."""
    s = schedule("cosine", T=20)
    deviation = torch.tensor([0.3], dtype=torch.float64)
    data, t = Gaussian(s, torch.zeros(1, dtype=torch.float64), deviation), torch.full((4000,), 10)
    x0, bound = deviation * normal(4000, 1), Bound(s, "learned")
    xt = s.level(10).alpha * x0 + s.level(10).sigma * normal(4000, 1, seed=1)
    denoised = data.denoise(xt, torch.tensor(10.0))

    def cost(place):
        return bound.term(denoised._replace(log_variance=place.expand_as(x0)), x0, xt, t).mean()

    place = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([place], max_iter=50)

    def closure():
        optimizer.zero_grad()
        value = cost(place)
        value.backward()
        return value

    optimizer.step(closure)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = s.level(10), s.level(9)
    added = sigma_t**2 - (alpha_t / alpha_s * sigma_s) ** 2
    small = added * sigma_s**2 / sigma_t**2
    left = deviation**2 * sigma_t**2 / (alpha_t**2 * deviation**2 + sigma_t**2)
    true = ((small + (alpha_s * added / sigma_t**2) ** 2 * left) / small).log() / (added / small).log()
    assert 0.05 < true.item() < 0.95 and place.item() == pytest.approx(true.item(), abs=0.03)


def test_gradients_are_finite_at_every_level_and_however_wrong_the_network_is():
    for scale in (1.0, 1e3):
        network = Two()
        with torch.no_grad():
            network.mean.weight.mul_(scale)
        x0 = torch.tensor([-1.0, 1.0, 0.0]).double()[:, None, None, None].expand(3, 1, 3, 3)
        for t in (1, 2, 100):
            loss_of().at(network, x0, {}, torch.full((3,), t), normal(3, 1, 3, 3)).sum().backward()
        assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize(
    "options, message",
    [
        ({"objective": "hybrid", "variance": "small"}, "set bound.variance learned"),
        ({"diffusion": Diffusion(schedule(), DiffusionConfig(times="uniform"))}, "diffusion.times must be levels"),
        ({"diffusion": Diffusion(schedule(T=1), DiffusionConfig())}, "schedule.T of 2 or more"),
    ],
)
def test_what_does_not_go_together_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        loss_of(**options)


def test_the_integral_of_a_level_is_its_probability():
    """A third way to L_0's numbers: by quadrature over the level."""
    density = stats.norm(0.11, 0.03).pdf
    level = round((0.1 + 1) * 127.5) / 127.5 - 1
    expected, _ = integrate.quad(density, level - 1 / 255, level + 1 / 255)
    found = level_log_probability(torch.tensor(level).double(), torch.tensor(0.11), torch.tensor(0.03))
    assert found.exp().item() == pytest.approx(expected, rel=1e-6)
    assert bits(-found.reshape(1, 1)).item() == pytest.approx(-math.log2(expected), rel=1e-6)
