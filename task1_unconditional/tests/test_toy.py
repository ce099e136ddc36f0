"""The toy's exact denoiser, against numerical integration; and every sampler, driven by it."""

import pytest
import torch

from shared.schedulers.config import NoiseConfig, SamplingConfig
from shared.schedulers.diffusion import Denoised
from shared.schedulers.noise import NoiseSchedule
from shared.schedulers.samplers import SAMPLERS, sampler_steps
from task1_unconditional import toy


def test_the_exact_denoiser_is_the_posterior_mean():
    """Integrate x0 p(x0) p(xt | x0) over a fine grid of the plane, for a mixture of two unlike centres."""
    data = toy.Mixture(torch.tensor([[1.0, 0.0], [-0.5, 0.8]], dtype=torch.float64), 0.3)
    axis = torch.linspace(-4, 4, 801, dtype=torch.float64)
    x0 = torch.cartesian_prod(axis, axis)  # (G, 2)
    prior = sum((-(x0 - centre).square().sum(1) / (2 * 0.3**2)).exp() for centre in data.centres)
    for xt in torch.tensor([[0.3, -0.2], [-1.0, 1.0]], dtype=torch.float64):
        for alpha in (0.95, 0.5, 0.1):
            alpha = torch.tensor(alpha, dtype=torch.float64)
            sigma = (1 - alpha**2).sqrt()
            weight = prior * (-(xt - alpha * x0).square().sum(1) / (2 * sigma**2)).exp()
            mean = (x0 * weight[:, None]).sum(0) / weight.sum()
            assert torch.allclose(data.denoise(xt[None], alpha, sigma)[0], mean, atol=1e-8)


# consistency is for networks that know where a way ends: this denoiser knows the mean of all ends
@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name not in ("consistency", "ddpm_learned")])
def test_every_sampler_finds_the_ring(sampler):
    """With the exact denoiser, samples lie on the eight centres, as often and as closely as the data."""
    data = toy.Mixture.ring()
    schedule = NoiseSchedule.from_config(NoiseConfig(zero_terminal_snr=True))

    def denoise(xt, t):
        alpha, sigma = schedule.level(t)
        x0 = data.denoise(xt, alpha, sigma)
        return Denoised(x0, (xt - alpha * x0) / sigma)

    generator = torch.Generator().manual_seed(0)
    start = torch.randn(4000, 2, dtype=torch.float64, generator=generator)
    config = SamplingConfig(sampler=sampler, steps=200, eta=1.0, clamp=False)
    *_, last = sampler_steps(
        denoise, schedule, start, config, lambda x: torch.randn(x.shape, dtype=x.dtype, generator=generator)
    )
    away, centre = torch.cdist(last.x, data.centres).min(dim=1)
    shares = centre.bincount(minlength=8) / len(start)
    assert (shares - 1 / 8).abs().max() < 5 * (1 / 8 * 7 / 8 / len(start)) ** 0.5
    offset = last.x - data.centres[centre]
    assert offset.std() == pytest.approx(data.deviation, rel=0.05)


def test_the_toy_learns_what_the_exact_denoiser_knows():
    """A short training is nearer to the exact denoiser than guessing nothing, by far."""
    torch.manual_seed(0)
    data = toy.Mixture.ring()
    network = toy.train(data, steps=800, batch=256)
    x0, eps, t = data.sample(2000).float(), torch.randn(2000, 2), torch.rand(2000, 1) * 0.9 + 0.05
    alpha, sigma = toy.level(t)
    xt = alpha * x0 + sigma * eps
    exact = torch.stack(
        [(x - a * data.denoise(x[None], a, s)[0]) / s for x, a, s in zip(xt, alpha, sigma, strict=True)]
    )
    with torch.no_grad():
        error = (network(xt, t) - exact).square().mean()
    assert error < 0.15 * exact.square().mean()


def test_the_command_draws_a_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["toy", "--out", str(tmp_path / "toy.png"), "--steps", "5"])
    assert toy.run() == 0
    assert (tmp_path / "toy.png").stat().st_size > 10_000
    assert "learned" in capsys.readouterr().out
