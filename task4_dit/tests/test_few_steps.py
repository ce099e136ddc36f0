"""Consistency distillation and reflow against closed forms: data of a Gaussian, of one point, of two points."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from shared.blocks.dit_config import DiTConfig
from shared.latents.spaces import Pixels
from shared.schedulers.config import DiffusionConfig, GuidanceConfig, NoiseConfig, SamplingConfig
from shared.schedulers.diffusion import Denoised, Diffusion
from shared.schedulers.samplers import ddim, flow_euler
from shared.tests.gaussian import Gaussian
from task4_dit.config import ConditionConfig, Config
from task4_dit.few_steps import consistency_loss, draw_pairs, paired, pseudo_huber, taught_by
from task4_dit.model import Model, build_diffusion, build_network

PATHS = {
    "flow": (NoiseConfig(name="flow"), DiffusionConfig(predict="velocity")),
    "cosine": (NoiseConfig(zero_terminal_snr=True), DiffusionConfig(predict="v")),
}


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def last(steps):
    *_, step = steps
    return step


def falling(steps):
    """Evenly from T to 0."""
    return torch.linspace(1000, 0, steps + 1, dtype=torch.float64)


class Data:
    """A Gaussian (B, D), seen as a denoiser and as the exact function to the end of each way; times are (B,)."""

    def __init__(self, path="flow", mean=(0.3, -0.5), deviation=(0.5, 1.4)):
        self.diffusion = Diffusion.from_config(*PATHS[path])
        self.exact = Gaussian(self.diffusion.schedule, torch.tensor(mean).double(), torch.tensor(deviation).double())

    def draw(self, n):
        return self.exact.mean + self.exact.deviation * normal(n, len(self.exact.mean))

    def denoise(self, xt, t):
        return self.exact.denoise(xt, t.reshape(-1, 1))

    def end(self, xt, t):
        return Denoised(self.exact.flow(xt, t.reshape(-1, 1), 0), torch.full_like(xt, torch.nan))

    def losses(self, student, times, k, teacher=None):
        """For 64 samples at the k-th of the times."""
        x0, eps, k = self.draw(64), normal(64, len(self.exact.mean), seed=1), torch.full((64,), k)
        return consistency_loss(self.diffusion, student, teacher or self.denoise, x0, eps, times, k)


# --- the loss of consistency ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1,), (2, 3, 4), (50, 50)])
def test_pseudo_huber_is_the_formula(shape):
    """√(d² + c²) - c with c = 0.00054 √D: d itself where d is long, d² / 2c where it is short."""
    size = math.prod(shape)
    c = 0.00054 * math.sqrt(size)
    direction = normal(*shape) / normal(*shape).norm()
    lengths = torch.tensor([0.0, 1e-3 * c, c, 10.0], dtype=torch.float64)
    found = pseudo_huber(lengths.reshape(-1, *[1] * len(shape)) * direction)
    assert found.shape == (4,) and found[0] == 0
    assert found[1].item() == pytest.approx(1e-6 * c / 2, rel=1e-4)
    assert found[2].item() == pytest.approx((math.sqrt(2) - 1) * c)
    assert found[3].item() == pytest.approx(10 - c, abs=c**2)


@pytest.mark.parametrize("path", PATHS)
def test_of_one_point_every_student_that_says_it_has_no_loss(path):
    """The ways are straight, so that the teacher's step is exact, however long it is; one that says more has some."""
    data = Data(path, deviation=(0.0, 0.0))

    def off(xt, t):
        return Denoised(data.end(xt, t).x0 + 0.1 * xt, xt)

    for steps in (1, 2, 5):
        for k in range(steps):
            assert data.losses(data.end, falling(steps), k).max() < 1e-12
            assert data.losses(off, falling(steps), k).min() > 1e-6


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("share", [0.25, 0.6, 0.95])
def test_the_exact_ends_have_no_loss_but_for_the_teachers_error(share, path):
    """Euler's step of half the length is wrong by a quarter; also in the last, where its landing is the target."""
    data, apart, c = Data(path), [], 0.00054 * math.sqrt(2)
    for steps in (40, 80):
        rounded = data.losses(data.end, falling(steps), round(share * steps)).mean().item()
        apart.append(math.sqrt((rounded + c) ** 2 - c**2))  # about the distance itself
    assert apart[0] / apart[1] == pytest.approx(4, rel=0.2)
    assert data.losses(data.denoise, falling(80), round(share * 80)).mean() > 2 * apart[1]


def test_each_sample_has_its_own_step():
    data, times = Data(), falling(5)
    x0, eps, k = data.draw(64), normal(64, 2, seed=1), torch.arange(64) % 5
    together = consistency_loss(data.diffusion, data.denoise, data.denoise, x0, eps, times, k)
    for step in range(5):
        assert torch.equal(together[k == step], data.losses(data.denoise, times, step)[k == step])


class Table(nn.Module):
    """A student that is affine in xt, with two numbers of its own at each of the times."""

    def __init__(self, times):
        super().__init__()
        self.times = times
        self.scale, self.shift = (nn.Parameter(torch.zeros(len(times), dtype=torch.float64)) for _ in range(2))

    def forward(self, xt, t):
        where = (t.reshape(-1, 1) == self.times).double().argmax(dim=1)  # the first is where nobody asked
        assert torch.equal(self.times[where], t.expand(len(where)))
        return Denoised(self.scale[where, None] * xt + self.shift[where, None], xt)


def test_the_gradient_is_of_the_noisier_neighbour_alone():
    """Neither the target, though it is the same network's, nor the teacher learns from it."""
    data, times = Data(), falling(5)
    student, guide = Table(times), torch.ones((), dtype=torch.float64, requires_grad=True)
    nn.init.normal_(student.scale), nn.init.normal_(student.shift)

    def teacher(xt, t):
        return Denoised(*(guide * part for part in data.denoise(xt, t)[:2]))

    data.losses(student, times, 2, teacher).mean().backward()
    for parameter in student.parameters():
        assert (parameter.grad != 0).tolist() == [False, False, True, False, False, False]
    assert guide.grad is None
    data.losses(student, times, 2).mean().backward()
    # of |difference|, which is far above where it is rounded: its direction
    x0, eps, (t, s) = data.draw(64), normal(64, 2, seed=1), times[2:4]
    xt = data.diffusion.add_noise(x0, eps, t.expand(64))
    said = data.denoise(xt, t.expand(64))
    (alpha, sigma) = data.diffusion.schedule.level(s)
    with torch.no_grad():
        target = student(alpha * said.x0 + sigma * said.eps, s.expand(64)).x0
        difference = student(xt, t.expand(64)).x0 - target
        direction = difference / difference.norm(dim=1, keepdim=True)
    expected = (direction * xt).sum(dim=1).mean()
    torch.testing.assert_close(student.scale.grad[2], 2 * expected, rtol=1e-3, atol=1e-3)


def test_at_the_end_of_the_way_the_place_itself_is_the_target():
    """Whatever the student would say there: it is never asked at 0, where no schedule has noise."""
    data, times, asked = Data(), falling(4), []

    def student(xt, t):
        asked.append(t)
        return Denoised(torch.full_like(xt, 7.0 if torch.is_grad_enabled() else torch.nan), xt)  # no gradient: target

    losses = data.losses(student, times, 3)
    xt = data.diffusion.add_noise(data.draw(64), normal(64, 2, seed=1), times[3].expand(64))
    landing = data.denoise(xt, times[3].expand(64)).x0  # alpha = 1 and sigma = 0 at t = 0
    torch.testing.assert_close(losses, pseudo_huber(7 - landing))
    assert all((t > 0).all() for t in asked)


@pytest.mark.parametrize("path", PATHS)
def test_learning_it_leads_to_where_the_teachers_way_ends(path):
    """On a Gaussian every answer is affine in xt: a table of such can be exact, and is found from zero."""
    data, times = Data(path, mean=(0.3,), deviation=(0.5,)), falling(4)
    student = Table(times)
    optimizer = torch.optim.Adam(student.parameters(), 0.05)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=400)
    torch.manual_seed(0)
    for _ in range(400):
        x0 = 0.3 + 0.5 * torch.randn(96, 1, dtype=torch.float64)
        k = torch.arange(96) % 4
        optimizer.zero_grad()
        consistency_loss(data.diffusion, student, data.denoise, x0, torch.randn_like(x0), times, k).mean().backward()
        optimizer.step()
        rates.step()
    x = normal(32, 1)
    for k in range(4):
        exact = last(ddim(data.exact.denoise, data.diffusion.schedule, x, times[k:])).x
        torch.testing.assert_close(student(x, times[k].expand(32)).x0, exact, rtol=0, atol=0.02)


# --- models ---------------------------------------------------------------------------------------------------

NAMES = ["a", "b", "c"]
LABEL = {"label": torch.tensor([0, 1, 2, 0, 1])}


def model(told=True, **options) -> Model:
    """A small one with random weights, told a class or nothing; `options` are fields of its config."""
    torch.manual_seed(0)
    schedule, diffusion = PATHS["flow"]
    config = Config(
        condition=ConditionConfig(label=told),
        network=DiTConfig(width=16, depth=1, heads=2, patch=2),
        schedule=schedule,
        diffusion=diffusion,
        guidance=GuidanceConfig(scale=3.0),
        sampling=SamplingConfig(precision="fp32", clamp=False),
    )
    config = replace(config, **options)
    network = build_network(config, (1, 4, 4), {"classes": NAMES})
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    known = {"classes": NAMES}
    return Model(network.eval(), build_diffusion(config), Pixels(), config, (1, 4, 4), known, Path("made"))


def flowed(teacher, noise, cond, steps, scale):
    """Euler's method along the network's velocity, guided, written out; steps of equal length."""
    x, null = noise, {"label": torch.full((len(noise),), len(NAMES))}
    for i in range(steps):
        t = torch.full((len(noise),), 1000 * (1 - i / steps))
        with torch.no_grad():
            said = teacher.network(x, t, cond)
            if cond:
                nothing = teacher.network(x, t, null)
                said = nothing + scale * (said - nothing)
        x = x - said / steps
    return x


@pytest.mark.parametrize("scale", [None, 1.0, 0.0, 2.5])
def test_the_teacher_is_guided_by_the_scale_or_by_its_own(scale):
    teacher = model()
    xt, t = normal(5, 1, 4, 4, dtype=torch.float32), torch.tensor([10.0, 300, 500, 900, 1000])
    with torch.no_grad():
        said, nothing = (teacher.network(xt, t, cond) for cond in (LABEL, teacher.null(LABEL)))
        velocity = nothing + (3.0 if scale is None else scale) * (said - nothing)
        found = taught_by(teacher, scale)(LABEL)(xt, t)
    sigma = (t / 1000).reshape(-1, 1, 1, 1)
    torch.testing.assert_close(found.x0, xt - sigma * velocity, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.eps, xt + (1 - sigma) * velocity, rtol=1e-4, atol=1e-5)


def test_the_teacher_is_kept_in_range_where_its_samples_are():
    xt, t = 5 * normal(5, 1, 4, 4, dtype=torch.float32), torch.tensor([10.0, 300, 500, 900, 1000])
    for clamp in (False, True):
        teacher = model(sampling=SamplingConfig(precision="fp32", clamp=clamp))
        with torch.no_grad():
            found = taught_by(teacher, None)(LABEL)(xt, t)
        assert (found.x0.abs().max() <= 1) == clamp
        sigma = (t / 1000).reshape(-1, 1, 1, 1)
        torch.testing.assert_close((1 - sigma) * found.x0 + sigma * found.eps, xt, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["ddim", "ddpm"])
@pytest.mark.parametrize("scale", [None, 1.0])
def test_a_pair_is_noise_and_where_it_flows_with_its_own_condition(scale, method):
    """Whatever sampler the teacher's run names: a random one would tie each noise to anything."""
    teacher = model(sampling=SamplingConfig(precision="fp32", clamp=False, sampler=method, eta=1.0, steps=2))
    noise, ends = draw_pairs(teacher, 5, LABEL, 4, scale, seed=3, batch=2)
    assert noise.shape == ends.shape == (5, 1, 4, 4) and not ends.requires_grad
    expected = flowed(teacher, noise, LABEL, 4, 3.0 if scale is None else scale)
    torch.testing.assert_close(ends, expected, rtol=1e-4, atol=1e-4)
    others = flowed(teacher, noise, {"label": LABEL["label"].roll(1)}, 4, 3.0 if scale is None else scale)
    assert ((ends - others).abs().amax(dim=(1, 2, 3)) > 1e-3).all()


def test_pairs_of_a_teacher_that_is_told_nothing():
    teacher = model(told=False)
    noise, ends = draw_pairs(teacher, 5, {}, 4, None, seed=3, batch=2)
    torch.testing.assert_close(ends, flowed(teacher, noise, {}, 4, 1.0), rtol=1e-4, atol=1e-4)


def test_ends_are_in_range_where_the_teachers_samples_are():
    """Every prediction, not the last alone: what is then drawn is what the teacher itself would draw."""
    teacher = model(sampling=SamplingConfig(precision="fp32", clamp=True, steps=4))
    noise, ends = draw_pairs(teacher, 5, LABEL, 4, None, seed=3)
    assert ends.abs().max() <= 1 < flowed(teacher, noise, LABEL, 4, 3.0).abs().max()
    torch.testing.assert_close(ends, teacher.sample(5, LABEL, seed=3), rtol=1e-4, atol=1e-5)


def test_the_seed_decides_the_pairs_and_a_batch_is_the_same_however_many_follow():
    teacher = model()
    seven = {"label": torch.arange(7) % 3}
    noise, ends = draw_pairs(teacher, 7, seven, 2, None, seed=3, batch=3)
    for again, same in ((3, True), (4, False)):
        others = draw_pairs(teacher, 7, seven, 2, None, seed=again, batch=3)
        assert torch.equal(others[0], noise) == torch.equal(others[1], ends) == same
    first = draw_pairs(teacher, 6, {"label": torch.arange(6) % 3}, 2, None, seed=3, batch=3)
    assert torch.equal(first[0], noise[:6]) and torch.equal(first[1], ends[:6])
    assert len(noise.flatten(1).unique(dim=0)) == 7
    assert noise.mean().abs() < 0.5 and 0.7 < noise.std() < 1.3
    state = torch.get_rng_state()
    draw_pairs(teacher, 2, {"label": torch.zeros(2).long()}, 2, None, seed=3)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_reflow_is_taught_is_the_end_told_its_noise():
    noise, ends = normal(5, 1, 4, 4), normal(5, 1, 4, 4, seed=1)
    data = paired(noise, ends, LABEL)
    assert len(data) == 5 and data.shape == (1, 4, 4)
    x, cond = data[2]
    assert torch.equal(x, ends[2]) and torch.equal(cond["eps"], noise[2]) and cond["label"] == 2
    assert set(LABEL) == {"label"}  # what was given is not changed


# --- reflow ---------------------------------------------------------------------------------------------------


class TwoPoints(nn.Module):
    """The exact velocity of data that are -1 or 1, half of each: E[x0 | xt] = tanh(alpha xt / sigma²)."""

    shape, said = (1, 1, 1), ()

    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(()))

    def forward(self, xt, t, cond):
        sigma = (t / 1000).reshape(-1, 1, 1, 1).to(xt)
        x0 = torch.tanh((1 - sigma) * xt / sigma**2)
        return (xt - x0) / sigma  # eps - x0, as xt = (1 - sigma) x0 + sigma eps


class Small(nn.Module):
    """A number and a time to a number."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))

    def forward(self, xt, t, cond):
        return self.layers(torch.stack([xt.flatten(), t.float() / 500 - 1], dim=1)).view_as(xt)


def test_reflow_straightens_the_ways():
    """One step of the teacher ends between the points; one of its student ends at the point that belongs to it."""
    config = replace(model(told=False).config, sampling=SamplingConfig(precision="fp32", clamp=False))
    diffusion = build_diffusion(config)
    teacher = Model(TwoPoints(), diffusion, Pixels(), config, (1, 1, 1), {}, Path("made"))
    noise, ends = draw_pairs(teacher, 2000, {}, 50, None, seed=0, batch=1000)
    torch.testing.assert_close(ends, noise.sign(), rtol=0, atol=0.02)  # by symmetry, but for the error of 50 steps
    torch.manual_seed(0)
    student = Small()
    optimizer = torch.optim.Adam(student.parameters(), 0.005)
    data = paired(noise, ends, {})
    for _ in range(400):
        rows = torch.randint(2000, (256,))
        optimizer.zero_grad()
        diffusion.loss(student, data.x[rows], {}, eps=data.cond["eps"][rows]).mean().backward()
        optimizer.step()
    start = normal(500, 1, 1, 1, seed=5, dtype=torch.float32)
    errors = {}
    for name, network in (("teacher", TwoPoints()), ("student", student)):
        denoise = diffusion.denoiser(network, {})
        once = last(flow_euler(denoise, diffusion.schedule, start, falling(1))).x
        errors[name] = (once - start.sign()).abs().mean().item()
    assert errors["teacher"] == pytest.approx(1, abs=1e-3)
    assert errors["student"] < 0.3
