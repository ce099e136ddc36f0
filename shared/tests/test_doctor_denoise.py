"""The doctor's checks of how a network denoises, on networks that are known: the exact denoisers of Gaussian pictures.

Such a network is best by the schedule that it was made for, and by what it is truly told: nothing else can be.
"""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from shared.blocks.config import UNetConfig
from shared.blocks.unet import UNet
from shared.datasets import load
from shared.datasets.config import DataConfig
from shared.experiments.doctor.denoise import NOISE, condition, linear, schedule, time_at
from shared.experiments.doctor.examined import Asked, Examined, drawn
from shared.schedulers.config import DiffusionConfig, NoiseConfig
from shared.schedulers.diffusion import Diffusion, expand
from shared.schedulers.noise import NoiseSchedule

SCALES = torch.logspace(-1.5, 0, 64).view(1, 8, 8)  # deviations of the pixels about their class's mean
MEANS = 0.6 * torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(7))
OPEN = len(MEANS)  # the class that says nothing
PREDICTIONS = {"cosine": "v", "linear": "eps", "flow": "velocity"}


class Exact:
    """E[target | xt, class], of pictures that are normal within each class; of no class, the mixture's."""

    def __init__(self, noise, predict, strength=1.0):
        """Trained with this noise to predict this; a condition moves it `strength` times as far as it should."""
        self.diffusion, self.strength = Diffusion.from_config(noise, DiffusionConfig(predict=predict)), strength

    def clean(self, x, t):
        """E[x0 | xt] of each class, (B, 4, 1, 8, 8), and how probable the classes are."""
        alpha, sigma = (expand(rate, x)[:, None] for rate in self.diffusion.schedule.level(t))
        variance = (alpha * SCALES) ** 2 + sigma**2
        away = x[:, None] - alpha * MEANS
        likely = -(away**2 / variance).flatten(2).sum(2) / 2
        return MEANS + alpha * SCALES**2 / variance * away, likely.softmax(1)

    def __call__(self, x, t, cond):
        t = t.clamp(max=self.diffusion.schedule.T)  # asked beyond what it was trained for, it answers as there
        each, share = self.clean(x, t)
        nothing = (share[:, :, None, None, None] * each).sum(1)
        label = cond.get("label", torch.full((len(x),), OPEN))
        told = each[torch.arange(len(x)), label.clamp(max=OPEN - 1)]
        told = torch.where((label == OPEN)[:, None, None, None], nothing, nothing + self.strength * (told - nothing))
        alpha, sigma = (expand(rate, x) for rate in self.diffusion.schedule.level(t))
        return self.diffusion.target(told, (x - alpha * told) / sigma, t)


def examined(trained, stated=None, predict=None, seed=0, n=96, strength=1.0, told=True):
    """A network trained with one schedule, of which another may be stated."""
    right = PREDICTIONS.get(trained.name, "x0")
    network = Exact(trained, right, strength)
    label = torch.randint(len(MEANS), (n,), generator=torch.Generator().manual_seed(seed))
    x0 = MEANS[label] + SCALES * torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed + 10**6))
    stated = stated or trained
    diffusion = Diffusion.from_config(stated, DiffusionConfig(predict=predict or right))
    found = Examined(SimpleNamespace(schedule=stated), Path("it"), network, diffusion, x0, x0)
    found.cond = {"label": label} if told else {}
    found.null = lambda cond: {"label": torch.full_like(cond["label"], OPEN)}
    return found


COSINE, LINEAR, FLOW = NoiseConfig("cosine"), NoiseConfig("linear"), NoiseConfig("flow")


@pytest.mark.parametrize("noise", [COSINE, LINEAR, FLOW, NoiseConfig("sigmoid_alpha_bar", 100)])
def test_a_network_sampled_as_it_was_trained_is_no_finding(noise):
    for told in (True, False):
        assert not [s for s in range(2) if schedule(examined(noise, seed=s, told=told), s).state != "fine"]


@pytest.mark.parametrize("factor", [1.11, 0.8, 2.0])
@pytest.mark.parametrize("noise", [COSINE, FLOW])
def test_another_number_of_levels_is_found(noise, factor):
    stated = replace(noise, T=round(noise.T * factor))
    for seed in range(2):
        checked = schedule(examined(noise, stated, seed=seed), seed)
        assert checked.state == "finding" and checked.why and checked.change
    assert f"T {noise.T} rather than {stated.T}" in checked.change or factor == 1.11


@pytest.mark.parametrize(
    "trained, stated", [("cosine", "quadratic"), ("cosine", "linear"), ("linear", "cosine"), ("sigmoid", "cosine")]
)
def test_another_schedule_is_found_and_the_trained_one_is_named(trained, stated):
    right = PREDICTIONS.get(trained, "x0")
    checked = schedule(examined(NoiseConfig(trained), NoiseConfig(stated), right))
    assert checked.state == "finding"
    assert f"schedule {trained}" in checked.change or trained == "cosine"  # of which sigmoid_alpha_bar is a twin


@pytest.mark.parametrize(
    "noise, stated, trained",
    [(COSINE, "eps", "v"), (COSINE, "x0", "v"), (LINEAR, "v", "eps"), (FLOW, "x0", "velocity")],
)
def test_another_prediction_is_found_and_the_trained_one_is_named(noise, stated, trained):
    checked = schedule(examined(noise, None, stated), 0)
    assert checked.state == "finding" and f"predict {trained}" in checked.change


@pytest.mark.parametrize("strength", [0.75, 0.3, 0.0])
def test_a_condition_that_is_ignored_is_found(strength):
    """At 0.75 it counts for three quarters of what it should: the scale that fits best is 1.33."""
    for seed in range(4):
        checked = condition(examined(COSINE, seed=seed, strength=strength), seed)
        assert checked.state == "finding"
    if strength:
        best = float(checked.measured.split("best is ")[1].split(" ")[0])
        assert best == pytest.approx(1 / strength, rel=0.1)


def test_a_condition_that_counts_as_much_as_it_should_is_no_finding():
    for seed in range(6):
        assert condition(examined(COSINE, seed=seed), seed).state == "fine"
        assert condition(examined(COSINE, seed=seed, strength=1.3), seed).state == "fine"  # too much is another matter


def test_labels_of_other_samples_are_found():
    """A data set whose labels were shuffled teaches a network to say the same whatever it is told."""
    found = examined(COSINE)
    found.cond = {"label": found.cond["label"].roll(7)}
    assert condition(found).state == "finding"


def test_a_condition_that_is_never_left_out_is_asked_by_others_alone():
    for strength, state in ((1.0, "fine"), (0.5, "fine"), (0.0, "finding")):
        found = examined(COSINE, strength=strength)
        found.null = None
        assert condition(found).state == state


def test_what_cannot_be_told():
    found = examined(COSINE)
    found.cond = {"label": torch.zeros_like(found.cond["label"])}
    assert condition(found).state == "unknown"
    few = examined(COSINE, n=5)
    assert condition(few).state == schedule(few).state == "unknown"


@pytest.mark.parametrize("name", ["linear", "cosine", "flow"])
def test_times_of_a_level(name):
    table = NoiseSchedule.from_config(NoiseConfig(name))
    for ratio in (0.1, 1.0, 3.0):
        alpha, sigma = table.level(time_at(table, ratio))
        assert sigma / alpha == pytest.approx(ratio, rel=1e-6)
    short = NoiseSchedule.from_config(NoiseConfig("linear", 10))
    assert time_at(short, 4.0) is None


# --- one that has learnt little ------------------------------------------------------------------------------------


def test_nothing_is_said_of_the_schedule_of_a_network_that_has_just_begun():
    """After 30 steps at too high a rate it errs 6 % less by another number of levels, which it was not trained with."""
    images, _ = drawn(load(DataConfig(name="digits")), Asked(512, 0))
    torch.manual_seed(0)
    network = UNet(1, UNetConfig(width=16, patch=2, multipliers=[1, 2], middle_attention="none"))
    noise = NoiseConfig("sigmoid_alpha_bar")
    diffusion = Diffusion.from_config(noise, DiffusionConfig(predict="x0"))
    optimizer = torch.optim.AdamW(network.parameters(), lr=2.5e-2)
    for step in range(30):
        optimizer.param_groups[0]["lr"] = 2.5e-2 * (step + 1) / 50
        x0 = images[torch.randint(len(images), (24,))]
        eps, t = torch.randn_like(x0), diffusion.draw_times(24, torch.device("cpu"))
        out = network(diffusion.add_noise(x0, eps, t), t, {})
        optimizer.zero_grad()
        (out - diffusion.target(x0, eps, t)).square().mean().backward()
        optimizer.step()
    x0 = images[:128]
    for seed in range(2):
        checked = schedule(Examined(SimpleNamespace(schedule=noise), Path("it"), network, diffusion, x0, x0), seed)
        assert checked.state == "unknown" and "has not learnt" in checked.measured


def test_the_linear_filter_is_the_best_of_normal_pictures():
    """Of independent pixels of one deviation s it errs by s² ratio² / (s² + ratio²), of alike ones by less."""
    x0 = 0.5 * torch.randn(256, 1, 2, 2, generator=torch.Generator().manual_seed(0)) + 3
    for ratio in NOISE:
        best = 0.25 * ratio**2 / (0.25 + ratio**2)
        assert sum(linear(x0, ratio, s) for s in range(20)) / 20 == pytest.approx(best, rel=0.2)
    rank = x0[:, :, :1, :1].expand(-1, -1, 8, 8)  # all pixels alike: their noise averages out
    assert linear(rank, 1.0, 0) == pytest.approx(0.25 / 64 / (0.25 + 1 / 64), rel=0.4)
