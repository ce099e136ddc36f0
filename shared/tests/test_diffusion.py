"""What the network's output means, and the loss."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from shared.schedulers.config import DiffusionConfig, NoiseConfig
from shared.schedulers.diffusion import Diffusion

PREDICTIONS = ["eps", "x0", "v"]
SHAPE = (5, 2, 3, 4)


def diffusion(predict="v", zero=False, **options):
    return Diffusion.from_config(NoiseConfig(zero_terminal_snr=zero), DiffusionConfig(predict=predict, **options))


@pytest.fixture
def batch():
    """x0, eps and a time a sample, float64; the last is T."""
    random = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(SHAPE, generator=random, dtype=torch.float64) for _ in range(2))
    return SimpleNamespace(x0=x0, eps=eps, t=torch.tensor([1, 20, 333, 876, 1000]))


def answering(out):
    """A network that says the same whatever it is asked."""
    return lambda x, t, cond: out


# --- the meaning of the output ------------------------------------------------------------------------------


@pytest.mark.parametrize("predict, zero", [("eps", False), ("x0", False), ("v", False), ("x0", True), ("v", True)])
def test_the_true_target_is_read_as_the_true_x0_and_eps(predict, zero, batch):
    d = diffusion(predict, zero)
    xt = d.add_noise(batch.x0, batch.eps, batch.t)
    x0, eps = d.interpret(d.target(batch.x0, batch.eps, batch.t), xt, batch.t)[:2]
    # Each divides by alpha or sigma, at worst 5e-5.
    torch.testing.assert_close(x0, batch.x0, rtol=0, atol=1e-10)
    torch.testing.assert_close(eps, batch.eps, rtol=0, atol=1e-10)


@pytest.mark.parametrize("predict", PREDICTIONS)
def test_what_is_read_always_adds_up_to_xt(predict, batch):
    """xt = alpha x0 + sigma eps, also for an output that is wrong: the convention that samplers rely on."""
    d = diffusion(predict)
    x0, eps = d.interpret(torch.randn(SHAPE).double(), batch.x0, batch.t)[:2]
    torch.testing.assert_close(d.add_noise(x0, eps, batch.t), batch.x0, rtol=0, atol=1e-10)


def test_v_turns_with_the_angle():
    """v is d xt / d angle where alpha = cos(angle), sigma = sin(angle); here by finite differences in t."""
    d = diffusion("v")
    x0, eps = torch.randn(2, 1, 7, dtype=torch.float64)
    t, h = torch.tensor([400.4], dtype=torch.float64), 1e-3
    angle = torch.atan2(*reversed(d.schedule.level(torch.cat([t - h, t + h]))))
    moved = d.add_noise(x0, eps, t + h) - d.add_noise(x0, eps, t - h)
    torch.testing.assert_close(d.target(x0, eps, t), moved / (angle[1] - angle[0]), rtol=1e-6, atol=1e-8)


def test_eps_prediction_is_refused_where_no_signal_is_left():
    with pytest.raises(ValueError, match="eps.*choose v or x0"):
        diffusion("eps", zero=True)


def test_each_sample_has_its_own_time(batch):
    d = diffusion()
    together = d.add_noise(batch.x0, batch.eps, batch.t)
    for i in range(len(together)):
        alone = d.add_noise(batch.x0[i : i + 1], batch.eps[i : i + 1], batch.t[i : i + 1])
        assert torch.equal(together[i : i + 1], alone)
    variance = d.add_noise(torch.zeros(5, 20000), torch.randn(5, 20000), batch.t).var(1)
    torch.testing.assert_close(variance.double(), d.schedule.level(batch.t).sigma ** 2, rtol=0.05, atol=0)


@pytest.mark.parametrize("predict", PREDICTIONS)
def test_the_denoiser_tells_the_network_one_time_a_sample_and_its_condition(predict, batch):
    asked = []

    def model(x, t, cond):
        asked.append((t, cond))
        return x.bfloat16()

    cond = {"label": torch.arange(5)}
    x0, eps = diffusion(predict).denoiser(model, cond)(batch.x0, torch.tensor(7.0))[:2]
    assert torch.equal(asked[0][0], torch.full((5,), 7.0)) and asked[0][1] is cond
    assert x0.dtype == eps.dtype == torch.float64  # xt's, whatever the network computes in


# --- the loss -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss, reference", [("l2", F.mse_loss), ("l1", F.l1_loss), ("huber", F.smooth_l1_loss)])
@pytest.mark.parametrize("predict", PREDICTIONS)
def test_loss_is_torchs_on_the_target(predict, loss, reference, batch):
    """Sample by sample, on errors on both sides of Huber's 1."""
    d = diffusion(predict, loss=loss)
    out = torch.randn(SHAPE, dtype=torch.float64) * 2
    target = d.target(batch.x0, batch.eps, batch.t)
    assert (out - target).abs().min() < 1 < (out - target).abs().max()
    expected = torch.stack([reference(a, b) for a, b in zip(out, target, strict=True)])
    losses = d.loss(answering(out), batch.x0, {}, t=batch.t, eps=batch.eps)
    assert losses.shape == (5,)
    torch.testing.assert_close(losses, expected)


def test_the_network_sees_xt_its_time_and_its_condition(batch):
    d, asked = diffusion(), []

    def model(*arguments):
        asked.extend(arguments)
        return arguments[0]

    cond = {"label": torch.arange(5)}
    d.loss(model, batch.x0, cond, t=batch.t, eps=batch.eps)
    assert torch.equal(asked[0], d.add_noise(batch.x0, batch.eps, batch.t))
    assert torch.equal(asked[1], batch.t) and asked[2] is cond


def test_min_snr_counts_the_same_error_on_x0_whatever_is_predicted(batch):
    """The same wrong x0, told as x0, eps and v: min(SNR, 5) times its squared error, Hang 2023, eq. (5)."""
    wrong = batch.x0 + torch.randn(SHAPE, dtype=torch.float64)
    for predict in PREDICTIONS:
        d = diffusion(predict, weighting="min_snr")
        alpha, sigma = d.schedule.level(batch.t)
        column = (-1, 1, 1, 1)
        xt = alpha.view(column) * batch.x0 + sigma.view(column) * batch.eps
        implied_eps = (xt - alpha.view(column) * wrong) / sigma.view(column)
        v = alpha.view(column) * implied_eps - sigma.view(column) * wrong
        out = {"x0": wrong, "eps": implied_eps, "v": v}[predict]
        losses = d.loss(answering(out), batch.x0, {}, t=batch.t, eps=batch.eps)
        snr = torch.minimum(alpha**2 / sigma**2, torch.tensor(5.0))
        torch.testing.assert_close(losses, snr * (wrong - batch.x0).square().flatten(1).mean(1), rtol=1e-6, atol=0)


def test_min_snr_cap_and_uniform_weight():
    t = torch.tensor([1, 500, 1000])
    assert torch.equal(diffusion().weight(t), torch.ones(3))
    low, high = (diffusion("x0", weighting="min_snr", snr_cap=cap).weight(t) for cap in (1.0, 9.0))
    assert low[0] == 1 and high[0] == 9 and low[2] == high[2] < 1e-6


def test_min_snr_is_finite_without_signal():
    for predict in ("x0", "v"):
        assert diffusion(predict, zero=True, weighting="min_snr").weight(torch.tensor([1, 1000])).isfinite().all()


@pytest.mark.parametrize("shape", [(5, 1, 3, 4), (5, 2, 3, 4), (5, 1, 1, 4)])
def test_masked_elements_do_not_count(shape, batch):
    """The loss of the elements that are left is their plain mean, and the others may be anything."""
    d = diffusion("x0")
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(5)) > 0.4
    out = batch.x0 + 0.3
    out = torch.where(mask, out, torch.tensor(1e6).double())
    for kind in (mask, mask.float()):
        losses = d.loss(answering(out), batch.x0, {}, t=batch.t, eps=batch.eps, mask=kind)
        torch.testing.assert_close(losses, torch.full((5,), 0.09, dtype=torch.float64))


def test_a_sample_without_any_element_that_counts_has_no_loss(batch):
    mask = torch.ones(SHAPE)
    mask[2] = 0
    losses = diffusion("x0").loss(answering(batch.x0 + 1), batch.x0, {}, t=batch.t, eps=batch.eps, mask=mask)
    assert losses[2] == 0 and (losses[[0, 1, 3, 4]] > 0).all()


def test_times_are_drawn_evenly_from_1_to_T_and_noise_is_normal():
    """Chi-squared of 20,000 draws over 20 levels has 19 degrees of freedom: mean 19, deviation 6.2."""
    torch.manual_seed(0)
    d = Diffusion.from_config(NoiseConfig(T=20), DiffusionConfig())
    asked = []

    def model(x, t, cond):
        asked.append((x, t))
        return x

    d.loss(model, torch.zeros(20000, 3), {})
    x, t = asked[0]
    counts = t.bincount(minlength=21)
    assert len(counts) == 21 and counts[0] == 0 and (counts[1:] > 0).all()
    assert ((counts[1:] - 1000.0) ** 2 / 1000).sum() < 19 + 4 * 6.2
    noise = x / d.schedule.level(t).sigma[:, None]
    assert noise.mean().abs() < 0.02 and (noise.var() - 1).abs() < 0.03


def test_each_draw_is_new_but_seeded():
    d, x0 = diffusion(), torch.zeros(8, 3)

    def model(x, t, cond):
        return x

    torch.manual_seed(1)
    first, second = d.loss(model, x0, {}), d.loss(model, x0, {})
    torch.manual_seed(1)
    assert torch.equal(d.loss(model, x0, {}), first) and not torch.equal(first, second)


@pytest.mark.parametrize("loss", ["l2", "l1", "huber"])
@pytest.mark.parametrize("weighting", ["uniform", "min_snr"])
@pytest.mark.parametrize("predict", PREDICTIONS)
def test_float32_images_stay_float32(predict, weighting, loss):
    """Also where the network, under autocast, answers in bfloat16."""
    d = diffusion(predict, weighting=weighting, loss=loss)
    x0, t = torch.rand(4, 1, 2, 2), torch.tensor([1, 5, 900, 1000])
    assert d.add_noise(x0, x0, t).dtype == d.target(x0, x0, t).dtype == torch.float32
    assert all(part.dtype == torch.float32 for part in d.interpret(x0, x0, t)[:2])
    for mask in (None, torch.ones(4, 1, 2, 2)):
        for dtype in (torch.float32, torch.bfloat16):
            assert d.loss(answering(x0.to(dtype)), x0, {}, t=t, mask=mask).dtype == torch.float32


@pytest.mark.parametrize("weighting", ["uniform", "min_snr"])
@pytest.mark.parametrize("predict", PREDICTIONS)
def test_the_loss_never_waits_for_the_device(predict, weighting):
    """On the meta device, where no number can be read: anything that would wait for a GPU raises."""
    d = diffusion(predict, weighting=weighting)
    d.schedule.to("meta")
    x0 = torch.zeros(4, 1, 8, 8, device="meta")
    network = torch.nn.Conv2d(1, 1, 3, padding=1, device="meta")
    for mask in (None, torch.ones(4, 1, 8, 8, device="meta")):
        losses = d.loss(lambda x, t, cond: network(x), x0, {}, mask=mask)
        assert losses.device.type == "meta" and losses.shape == (4,)
        losses.mean().backward()
