"""Guidance against closed forms on Gaussian classes, against diffusers, and the models that it must be at its ends."""

import math
from dataclasses import replace
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from diffusers.guiders.guider_utils import rescale_noise_cfg
from torch import nn

from shared.blocks.config import UNetConfig
from shared.blocks.unet import UNet
from shared.errors import UserError
from shared.generation import generate_steps
from shared.schedulers.config import DiffusionConfig, NoiseConfig, Sampler, SamplingConfig
from shared.schedulers.diffusion import Denoised, Diffusion
from shared.schedulers.guidance import blend, classifier_guided, guided, rescaled, within
from shared.schedulers.noise import NoiseSchedule
from shared.schedulers.samplers import clamped, sampler_steps
from shared.tests.gaussian import Gaussian

SAMPLERS = [name for name in get_args(Sampler) if name != "ddpm_learned"]  # that one: test_bound.py
TIMES = [torch.tensor(t).double() for t in (1, 37.5, 500, 999)] + [torch.tensor([2, 300, 999, 641])]
SCALES = (-0.5, 0.3, 1.5, 4.0)
BAD = (float("nan"), float("inf"), float("-inf"))


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def column(t):
    """A time for the whole batch, or one for each row of (B, D)."""
    return t.double().reshape(-1, 1) if t.ndim else t.double()


class Classes:
    """A Gaussian for each of three classes, that are not equally frequent; all that is known of them by Bayes' rule."""

    prior = torch.tensor([0.5, 0.2, 0.3]).double()

    def __init__(self, **options):
        self.schedule = NoiseSchedule.from_config(NoiseConfig(**options))
        means, deviations = normal(3, 2, seed=1), 0.3 + normal(3, 2, seed=2).abs()
        self.each = [Gaussian(self.schedule, *pair) for pair in zip(means, deviations, strict=True)]

    def log_joint(self, xt, t):
        """log p(y, xt), (B, 3)."""
        parts = []
        for data in self.each:
            mean, variance = data.marginal(column(t))
            log_p = -0.5 * ((xt - mean) ** 2 / variance + variance.log() + math.log(2 * math.pi))
            parts.append(log_p.sum(1))
        return torch.stack(parts, dim=1) + self.prior.log()

    def log_probability(self, label):
        """log p(y | xt), (B,), for a label (B,)."""
        return lambda xt, t: self.log_joint(xt, t).log_softmax(1).gather(1, label[:, None])[:, 0]

    def conditional(self, label):
        """The exact denoiser of each sample's class."""

        def denoise(xt, t):
            parts = [data.denoise(xt, column(t))[:2] for data in self.each]
            return Denoised(*(torch.stack(part)[label, torch.arange(len(xt))] for part in zip(*parts, strict=True)))

        return denoise

    def marginal(self, xt, t):
        """The exact denoiser where the class is not known: the mean over classes, by their probability."""
        weight = self.log_joint(xt, t).softmax(1)  # (B, 3)
        parts = [data.denoise(xt, column(t))[:2] for data in self.each]
        return Denoised(*(torch.einsum("bk,kbd->bd", weight, torch.stack(p)) for p in zip(*parts, strict=True)))


LABEL = torch.tensor([0, 2, 1, 2])


class Asked:
    """A network that is told a number for each sample, or nothing (0), and counts how it is asked."""

    def __init__(self):
        self.calls, self.times = [], []

    def __call__(self, x, t, cond):
        assert t.shape == x.shape[:1]
        self.calls.append(len(x))
        self.times.append(t)
        told = cond["told"].to(x).reshape(-1, *[1] * (x.ndim - 1))
        return torch.sin(2 * x + told + t.to(x).reshape(told.shape) / 300) + 0.3 * told * x.roll(1, -1)


COND = {"told": torch.tensor([1.0, -2.0, 0.5, 3.0]).double()}
NULL = {"told": torch.zeros(4).double()}
SHAPE = (4, 1, 3, 5)


def diffusion(predict="v", **options):
    return Diffusion.from_config(NoiseConfig(**options), DiffusionConfig(predict=predict))


def identical(a, b):
    return torch.equal(a.x0, b.x0) and torch.equal(a.eps, b.eps) and a.x0.dtype == b.x0.dtype


def close(a, b, tolerance=1e-10):
    torch.testing.assert_close(a.x0, b.x0, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(a.eps, b.eps, rtol=tolerance, atol=tolerance)


def refuse(*_):
    raise AssertionError("asked for nothing")


# --- classifier-free ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", TIMES, ids=str)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("predict", ["eps", "x0", "v"])
def test_the_score_is_that_of_the_tilted_distribution(predict, scale, t):
    """(1 - s) · marginal + s · conditional, where a network that is right answers with what the diffusion predicts."""
    data = Classes()
    conditional = data.conditional(LABEL)

    def network(x, t, cond):
        half = len(x) // 2  # told first, then not
        assert cond["label"].tolist() == [*LABEL.tolist(), 3, 3, 3, 3]
        answers = [conditional(x[:half], t[:half]), data.marginal(x[half:], t[half:])]
        alpha, sigma = (rate[:, None] for rate in data.schedule.level(t))
        x0, eps = (torch.cat(parts) for parts in zip(*(answer[:2] for answer in answers), strict=True))
        return {"eps": eps, "x0": x0, "v": alpha * eps - sigma * x0}[predict]

    xt, null = normal(4, 2, seed=5), torch.full((4,), 3)
    found = guided(
        Diffusion(data.schedule, DiffusionConfig(predict=predict)), network, {"label": LABEL}, {"label": null}, scale
    )(xt, t)
    x = xt.clone().requires_grad_()
    log_p = data.log_joint(x, t)
    tilted = (1 - scale) * log_p.logsumexp(1) + scale * log_p.gather(1, LABEL[:, None])[:, 0]
    score = torch.autograd.grad(tilted.sum(), x)[0]
    alpha, sigma = (rate.reshape(-1, 1) for rate in data.schedule.level(t))
    torch.testing.assert_close(found.eps, -sigma * score, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(alpha * found.x0 + sigma * found.eps, xt, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("combine", [None, rescaled(0.7)], ids=["lerp", "rescaled"])
@pytest.mark.parametrize("t", TIMES, ids=str)
@pytest.mark.parametrize("scale, told", [(1, COND), (1.0, COND), (0, NULL), (0.0, NULL)])
def test_scale_1_is_the_conditional_model_and_0_the_unconditional_one_bit_for_bit(scale, told, t, combine, dtype):
    network, plain, xt = Asked(), Asked(), normal(*SHAPE).to(dtype)
    options = {"combine": combine} if combine else {}
    found = guided(diffusion(), network, COND, NULL, scale, **options)(xt, t)
    assert identical(found, diffusion().denoiser(plain, told)(xt, t))
    assert network.calls == [4]  # and no second half of the batch


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("t", TIMES, ids=str)
def test_both_questions_are_one_call_of_twice_the_batch_and_keep_to_their_samples(t, dtype):
    network, xt = Asked(), normal(*SHAPE).to(dtype)
    found = guided(diffusion(), network, COND, NULL, 2.5)(xt, t)
    assert network.calls == [8] and found.x0.dtype == found.eps.dtype == dtype
    assert network.times[0].double().tolist() == [*t.double().expand(4).tolist()] * 2
    told, untold = (diffusion().denoiser(Asked(), cond)(xt, t) for cond in (COND, NULL))
    expected = Denoised(*(u + 2.5 * (c - u) for c, u in zip(told[:2], untold[:2], strict=True)))
    close(found, expected, 1e-11 if dtype == torch.float64 else 1e-4)


class Told(nn.Module):
    """A U-Net told a class, with attention and norms: whatever it does, it must do to each sample by itself."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner = UNet(1, UNetConfig(width=4, heads=1, attention=("full", "none"), multipliers=(1, 1)))
        self.embedding = nn.Embedding(4, 4)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3)

    def forward(self, x, t, cond):
        return self.inner(x + self.embedding(cond["label"])[:, :, None, None].mean(1, keepdim=True), t, cond)


def test_a_network_of_batches_is_guided_as_one_of_single_samples():
    network, xt = Told().double().eval(), normal(4, 1, 4, 4)
    cond, null = {"label": LABEL}, {"label": torch.full((4,), 3)}
    t = torch.tensor([300.0, 990.0, 500.0, 77.0])
    with torch.no_grad():
        together = guided(diffusion(), network, cond, null, 3.0)(xt, t)
        for i in range(4):
            one = slice(i, i + 1)
            pair = [{"label": told["label"][one]} for told in (cond, null)]
            alone = guided(diffusion(), network, *pair, 3.0)(xt[one], t[one])
            close(Denoised(together.x0[one], together.eps[one]), alone)
            told, untold = (diffusion().denoiser(network, c)(xt[one], t[one]) for c in pair)
            assert (told.x0 - untold.x0).abs().max() > 1e-3  # it listens
            torch.testing.assert_close(alone.x0, 3 * told.x0 - 2 * untold.x0, rtol=1e-9, atol=1e-9)


def test_what_a_network_answers_in_half_precision_is_combined_in_full():
    network, xt, t = Asked(), normal(*SHAPE).float(), torch.tensor(400.0)

    def halved(x, t, cond):
        return network(x, t, cond).bfloat16()

    found = guided(diffusion("x0"), halved, COND, NULL, 7.5)(xt, t)
    told, untold = (diffusion("x0").denoiser(halved, cond)(xt, t).x0 for cond in (COND, NULL))
    assert found.x0.dtype == torch.float32
    torch.testing.assert_close(found.x0, untold + 7.5 * (told - untold), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "null", [{}, {"told": torch.zeros(3)}, {"other": torch.zeros(4)}, {**NULL, "more": torch.zeros(4)}], ids=str
)
@pytest.mark.parametrize("scale", [0, 1, 2])
def test_a_null_of_another_shape_is_refused(scale, null):
    with pytest.raises(ValueError, match="^the null condition must be shaped as the condition"):
        guided(diffusion(), refuse, COND, null, scale)


@pytest.mark.parametrize("scale", BAD)
def test_a_scale_that_is_no_number_is_refused(scale):
    schedule = diffusion().schedule
    for make in (
        lambda: guided(diffusion(), refuse, COND, NULL, scale),
        lambda: blend(refuse, refuse, scale),
        lambda: classifier_guided(refuse, schedule, refuse, scale),
    ):
        with pytest.raises(ValueError, match=f"^the guidance scale is {scale}: it must be a finite number$"):
            make()


# --- rescaled -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("scale", [*SCALES, 12.0])
@pytest.mark.parametrize("shape", [(5, 3, 4, 6), (5, 2), (2, 3, 2, 4, 4)])
def test_rescaling_is_that_of_diffusers(shape, scale, share, dtype, tolerance):
    """Each sample has a deviation of its own, far from the others', and a mean that is not zero."""
    size = 10.0 ** torch.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1)) / 100
    conditional, unconditional = (normal(*shape, seed=seed).add(seed).mul(size).to(dtype) for seed in (1, 2))
    found = rescaled(share)(conditional, unconditional, scale)
    expected = rescale_noise_cfg(unconditional + scale * (conditional - unconditional), conditional, share)
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def test_wholly_rescaled_outputs_deviate_as_the_conditional_ones():
    conditional, unconditional = normal(6, 2, 4, 4, seed=1), normal(6, 2, 4, 4, seed=2)
    found = rescaled(1.0)(conditional, unconditional, 9.0)
    torch.testing.assert_close(found.flatten(1).std(1), conditional.flatten(1).std(1))
    whole, none = rescaled(1.0), rescaled(0.0)
    assert torch.equal(none(conditional, unconditional, 9.0), torch.lerp(unconditional, conditional, 9.0))
    assert not torch.allclose(whole(conditional, unconditional, 9.0), none(conditional, unconditional, 9.0))


@pytest.mark.parametrize("shape", [(3, 2, 4, 4), (3, 1)])
def test_an_output_without_deviation_is_not_divided_by_it(shape):
    """That of a network that has just been built is 0 everywhere; and of one number there is no deviation."""
    assert torch.equal(rescaled(0.7)(torch.zeros(shape), torch.zeros(shape), 3.0), torch.zeros(shape))
    flat = normal(3, *[1] * (len(shape) - 1)).expand(shape)
    torch.testing.assert_close(rescaled(0.7)(flat, torch.zeros(shape).double(), 3.0), 3 * flat)


def test_guided_hands_both_outputs_to_what_combines_them():
    """Once, as the network gave them, and takes what comes back for the network's output."""
    seen = []

    def combine(*given):
        seen.append(given)
        return given[0]

    xt, t = normal(*SHAPE), torch.tensor(600.0)
    found = guided(diffusion("x0"), Asked(), COND, NULL, 2.5, combine)(xt, t)
    assert identical(found, diffusion("x0").denoiser(Asked(), COND)(xt, t))
    ((conditional, unconditional, scale),) = seen
    assert torch.equal(conditional, found.x0) and scale == 2.5
    assert torch.equal(unconditional, diffusion("x0").denoiser(Asked(), NULL)(xt, t).x0)


@pytest.mark.parametrize("share", [-0.1, 1.1, *BAD])
def test_a_share_of_rescaling_outside_0_to_1_is_refused(share):
    with pytest.raises(ValueError, match="^the share of rescaling is"):
        rescaled(share)


# --- interval -----------------------------------------------------------------------------------------------


def constant(value, calls=None):
    def denoise(xt, t):
        if calls is not None:
            calls.append(value)
        return Denoised(torch.full_like(xt, value), torch.full_like(xt, 10 * value))

    return denoise


@pytest.mark.parametrize("interval", [(0, 1), (0.57, 1), (0.07, 0.29), (0.0, 0.58), (0.3, 0.3), (0.0, 0.0)])
def test_an_interval_holds_above_its_lower_end_and_up_to_its_upper_one(interval):
    """By whole percents, in which there is no rounding; among them 0.57 · 100 < 57 and 0.29 · 100 < 29 as floats."""
    schedule, calls = diffusion(name="linear", T=100).schedule, []
    denoise = within(schedule, interval, constant(1.0, calls), constant(2.0, calls))
    low, high = (round(100 * end) for end in interval)
    for n in range(1, 101):
        t = torch.tensor(n, dtype=(torch.long, torch.float32, torch.float64)[n % 3])
        found = denoise(normal(2, 3), t)
        expected = 1.0 if low < n <= high else 2.0
        assert (found.x0 == expected).all() and (found.eps == 10 * expected).all() and calls.pop() == expected
        assert calls == []  # the other one was not asked


def test_each_sample_has_its_own_place_in_the_interval():
    calls, xt = [], normal(5, 1, 2, 3)
    denoise = within(diffusion().schedule, (0.2, 0.6), constant(1.0, calls), constant(2.0, calls))
    found = denoise(xt, torch.tensor([200, 201, 600, 600.5, 1000.0]))
    expected = torch.tensor([2.0, 1.0, 1.0, 2.0, 2.0]).double()
    assert torch.equal(found.x0, expected.view(5, 1, 1, 1).expand_as(xt)) and torch.equal(found.eps, 10 * found.x0)
    assert sorted(calls) == [1.0, 2.0]
    for t, value in (([201, 300, 400, 500, 600], 1.0), ([1, 2, 3, 900, 1000], 2.0)):
        calls.clear()
        assert (denoise(xt, torch.tensor(t)).x0 == value).all() and calls == [value]


def test_guidance_over_all_times_is_guidance_and_over_none_the_conditional_model():
    d, xt = diffusion(), normal(*SHAPE)
    strong, plain = guided(d, Asked(), COND, NULL, 3.0), guided(d, Asked(), COND, NULL, 1.0)
    for t in TIMES:
        assert identical(within(d.schedule, (0, 1), strong, refuse)(xt, t), strong(xt, t))
        assert identical(within(d.schedule, (0.4, 0.4), refuse, plain)(xt, t), plain(xt, t))


@pytest.mark.parametrize("interval", [(-0.1, 1), (0, 1.1), (0.6, 0.4), (float("nan"), 1), (0, float("nan"))])
def test_an_interval_that_is_none_is_refused(interval):
    with pytest.raises(ValueError, match="^the guidance interval is from"):
        within(diffusion().schedule, interval, refuse, refuse)


# --- autoguidance -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", TIMES, ids=str)
@pytest.mark.parametrize("scale", SCALES)
def test_a_blend_is_the_guidance_of_two_networks(scale, t):
    """Where the strong one is the network told, and the weak one the network untold, it is classifier-free guidance."""
    d, xt = diffusion(), normal(*SHAPE)
    strong, weak = d.denoiser(Asked(), COND), d.denoiser(Asked(), NULL)
    found = blend(strong, weak, scale)(xt, t)
    close(found, guided(d, Asked(), COND, NULL, scale)(xt, t), 1e-9)
    alpha, sigma = (rate.reshape(-1, 1, 1, 1) for rate in d.schedule.level(t))
    torch.testing.assert_close(alpha * found.x0 + sigma * found.eps, xt, rtol=1e-9, atol=1e-9)


def test_a_blend_at_its_ends_is_one_of_the_two_and_asks_no_other():
    for scale in (1, 1.0):
        assert identical(blend(constant(0.1), refuse, scale)(normal(2, 3), TIMES[0]), constant(0.1)(normal(2, 3), 0))
    for scale in (0, 0.0):
        assert identical(blend(refuse, constant(0.1), scale)(normal(2, 3), TIMES[0]), constant(0.1)(normal(2, 3), 0))


# --- classifier guidance ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["linear", "cosine", "sigmoid_alpha_bar"])
@pytest.mark.parametrize("t", TIMES, ids=str)
def test_bayes_rule_makes_the_conditional_denoiser_of_the_marginal_one(t, name):
    """With the exact log p(y | xt), at scale 1; at the noisy end of cosine the division by alpha costs digits."""
    data, xt = Classes(name=name), normal(4, 2, seed=5)
    found = classifier_guided(data.marginal, data.schedule, data.log_probability(LABEL), 1.0)(xt, t)
    exact = data.conditional(LABEL)(xt, t)
    assert (exact.eps - data.marginal(xt, t).eps).abs().max() > 1e-6
    torch.testing.assert_close(found.eps, exact.eps, rtol=0, atol=1e-12)
    loss_of_digits = 1 / data.schedule.level(t).alpha.min().item()
    torch.testing.assert_close(found.x0, exact.x0, rtol=0, atol=1e-12 * loss_of_digits)


@pytest.mark.parametrize("t", TIMES, ids=str)
@pytest.mark.parametrize("scale", SCALES)
def test_classifier_and_classifier_free_guidance_are_one_where_both_are_exact(scale, t):
    data, xt = Classes(), normal(4, 2, seed=5)
    one = classifier_guided(data.marginal, data.schedule, data.log_probability(LABEL), scale)(xt, t)
    close(one, blend(data.conditional(LABEL), data.marginal, scale)(xt, t), 1e-8)


def test_a_classifier_scale_of_0_is_the_denoiser_and_asks_no_classifier():
    data, xt = Classes(), normal(4, 2)
    for scale in (0, 0.0):
        denoise = classifier_guided(data.marginal, data.schedule, refuse, scale)
        assert identical(denoise(xt, TIMES[2]), data.marginal(xt, TIMES[2]))


class Classifier(nn.Module):
    """Smooth, with parameters; it keeps the times that it was told."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.times = nn.Linear(15, 3), []

    def forward(self, xt, t):
        self.times.append(t)
        return F.log_softmax(self.layer(xt.flatten(1).sin()) + t.to(xt)[:, None] / 1000, dim=1)[:, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("t", TIMES, ids=str)
def test_the_gradient_is_taken_where_gradients_are_off_and_leaves_nothing_behind(t, dtype):
    """Equal to finite differences; the answer has no graph, the classifier's weights no gradient, xt is untouched."""
    classifier, xt, d = Classifier().to(dtype), normal(*SHAPE).to(dtype), diffusion()
    plain = d.denoiser(Asked(), COND)
    before = xt.clone()
    with torch.no_grad():
        found = classifier_guided(plain, d.schedule, classifier, 2.0)(xt, t)
        assert not torch.is_grad_enabled()
    assert not found.x0.requires_grad and not found.eps.requires_grad and not xt.requires_grad
    assert all(p.grad is None for p in classifier.parameters()) and torch.equal(xt, before)
    assert found.x0.dtype == found.eps.dtype == dtype
    assert classifier.times[0].shape == (4,) and (classifier.times[0].double() == t.double()).all()
    if dtype == torch.float32:
        return
    base, step, slope = plain(xt, t), 1e-5, torch.zeros_like(xt)
    for i in range(15):
        shift = torch.zeros(15, dtype=dtype)
        shift[i] = step
        up, down = (classifier(xt + sign * shift.view(1, 1, 3, 5), t.expand(4)) for sign in (1, -1))
        slope.flatten(1)[:, i] = (up - down).detach() / (2 * step)
    alpha, sigma = (rate.reshape(-1, 1, 1, 1) for rate in d.schedule.level(t))
    torch.testing.assert_close(found.eps, base.eps - 2 * sigma * slope, rtol=0, atol=1e-8)
    torch.testing.assert_close(alpha * found.x0 + sigma * found.eps, xt, rtol=1e-9, atol=1e-9)


def test_no_graph_also_where_gradients_are_on():
    classifier, xt, d = Classifier().double(), normal(*SHAPE).requires_grad_(), diffusion()
    found = classifier_guided(d.denoiser(Asked(), COND), d.schedule, classifier, 2.0)(xt, TIMES[2])
    assert not found.x0.requires_grad and not found.eps.requires_grad and xt.grad is None
    assert torch.is_grad_enabled() and xt.requires_grad


def test_where_nothing_of_the_signal_is_left_the_classifier_is_not_asked():
    """At T of a schedule with zero terminal SNR; in a batch with other times, what it says there does not count."""
    d = diffusion("v", zero_terminal_snr=True)
    plain, xt, end = d.denoiser(Asked(), COND), normal(*SHAPE), torch.tensor(1000.0)
    assert d.schedule.level(end).alpha == 0
    assert identical(classifier_guided(plain, d.schedule, refuse, 5.0)(xt, end), plain(xt, end))
    assert identical(classifier_guided(plain, d.schedule, refuse, 5.0)(xt, end.expand(4)), plain(xt, end.expand(4)))

    classifier, t = Classifier().double(), torch.tensor([1000, 400, 1000, 999])

    def chance(xt, t):  # anything may come of pure noise
        return classifier(xt, t) * torch.where(t == 1000, float("inf"), 1.0)

    found, base = classifier_guided(plain, d.schedule, chance, 5.0)(xt, t), plain(xt, t)
    assert found.x0.isfinite().all() and found.eps.isfinite().all()
    for i in range(4):
        same = torch.equal(found.x0[i], base.x0[i]), torch.equal(found.eps[i], base.eps[i])
        assert same == ((True, True) if t[i] == 1000 else (False, False))
    alone = classifier_guided(plain, d.schedule, classifier, 5.0)(xt, torch.tensor([1, 400, 1, 999]))
    assert torch.equal(found.x0[1::2], alone.x0[1::2]) and torch.equal(found.eps[1::2], alone.eps[1::2])


# --- under the samplers -------------------------------------------------------------------------------------


def each_kind(d, classifier):
    """One denoiser of each kind, and one of all of them together."""
    free = guided(d, Asked(), COND, NULL, 2.5, rescaled(0.7))
    plain = guided(d, Asked(), COND, NULL, 1)
    by_classifier = classifier_guided(plain, d.schedule, classifier, 2.0)
    return {
        "guided": free,
        "interval": within(d.schedule, (0.3, 0.9), free, plain),
        "blend": blend(plain, d.denoiser(Asked(), NULL), 1.7),
        "classifier": by_classifier,
        "all": within(d.schedule, (0.2, 1.0), blend(by_classifier, free, 0.4), plain),
    }


@pytest.mark.parametrize("dtype, clamp", [(torch.float32, True), (torch.float64, False)])
@pytest.mark.parametrize("predict, zero", [("eps", False), ("v", True)])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_runs_over_every_kind(sampler, clamp, predict, zero, dtype):
    """Finite, in the number format that is given, ending at its last x0; within bounds where it is clamped."""
    d = diffusion(predict, name="linear", T=60, zero_terminal_snr=zero)
    config = SamplingConfig(sampler=sampler, steps=6, eta=0.5, clamp=clamp)
    for name, denoise in each_kind(d, Classifier().to(dtype)).items():
        torch.manual_seed(0)
        steps = list(sampler_steps(denoise, d.schedule, normal(*SHAPE).to(dtype), config))
        assert all(s.x.dtype == dtype and s.x.isfinite().all() and not s.x.requires_grad for s in steps), name
        torch.testing.assert_close(steps[-1].x, steps[-1].x0)
        assert not clamp or max(step.x0.abs().max() for step in steps) <= 1


def test_guidance_itself_never_clamps():
    d, xt = diffusion(name="linear", T=60), 3 * normal(*SHAPE)
    for name, denoise in each_kind(d, Classifier().double()).items():
        free = denoise(xt, torch.tensor(40.0))
        assert free.x0.abs().max() > 1, name
        assert torch.equal(clamped(denoise, d.schedule)(xt, torch.tensor(40.0)).x0, free.x0.clamp(-1, 1))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_sampling_by_bayes_rule_is_sampling_from_the_class(sampler):
    """Marginal denoiser and exact classifier go, under the same noise, the way of the exact conditional denoiser."""
    data, config = Classes(), SamplingConfig(sampler=sampler, steps=12, eta=0.6, clamp=False)
    denoisers = [
        classifier_guided(data.marginal, data.schedule, data.log_probability(LABEL), 1.0),
        data.conditional(LABEL),
        data.marginal,
    ]
    ends = []
    for denoise in denoisers:
        source = iter(normal(12, 4, 2, seed=4))
        *_, last = sampler_steps(denoise, data.schedule, normal(4, 2), config, noise=lambda x, s=source: next(s))
        ends.append(last.x)
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=1e-7)
    assert (ends[0] - ends[2]).abs().max() > 0.1


# --- generate_steps -----------------------------------------------------------------------------------------


def ends(network, d, config=None, **options):
    config = config or SamplingConfig(steps=4, precision="fp32")
    with torch.no_grad():
        *_, last = generate_steps(network, d, (4, 1, 4, 4), config, 7, **options)
    return last.x


def test_a_guide_is_given_the_network_and_samples_come_of_what_it_makes():
    network, d = Told().eval(), diffusion()
    cond, null = {"label": LABEL}, {"label": torch.full((4,), 3)}
    found = {scale: ends(network, d, guide=lambda net, s=scale: guided(d, net, cond, null, s)) for scale in (0, 0.5, 1)}
    alone = {s: ends(network, d, guide=lambda net, c=c: d.denoiser(net, c)) for s, c in ((0, null), (1, cond))}
    assert torch.equal(found[0], alone[0]) and torch.equal(found[1], alone[1])
    assert not torch.allclose(found[0.5], found[0]) and not torch.allclose(found[0.5], found[1])


class Untold(Told):
    """The same, told nothing."""

    def forward(self, x, t, cond):
        return self.inner(x, t, cond)


def test_without_a_guide_the_network_is_told_nothing():
    network, d = Untold().eval(), diffusion()
    assert torch.equal(ends(network, d), ends(network, d, guide=lambda net: d.denoiser(net, {})))


def test_the_network_computes_in_the_configs_precision_and_the_guide_outside_it():
    inside, d = [], diffusion()

    class Watched(Untold):
        def forward(self, x, t, cond):
            inside.append(torch.is_autocast_enabled("cpu"))
            return super().forward(x, t, cond)

    def guide(net):
        def denoise(xt, t):
            found = d.denoiser(net, {})(xt, t)
            assert not torch.is_autocast_enabled("cpu") and found.x0.dtype == torch.float32
            return found

        return denoise

    for precision in ("bf16", "fp32"):
        inside.clear()
        ends(Watched().eval(), d, SamplingConfig(steps=2, precision=precision), guide=guide)
        assert inside == [precision == "bf16"] * 2


def test_what_a_guide_refuses_is_an_error_of_one_line_before_the_first_step():
    d = diffusion()
    for guide in (
        lambda net: guided(d, net, COND, NULL, float("nan")),
        lambda net: within(d.schedule, (0.5, 0.2), refuse, refuse),
    ):
        with pytest.raises(UserError, match="^the guidance (scale|interval) is"):
            generate_steps(Told(), d, (4, 1, 4, 4), SamplingConfig(), 0, guide)
    with pytest.raises(UserError, match="5000 sampling steps"):
        generate_steps(Told(), d, (4, 1, 4, 4), replace(SamplingConfig(), steps=5000), 0, lambda net: refuse)
