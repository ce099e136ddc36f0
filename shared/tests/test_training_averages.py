"""EMA and SWA against the formulas, written out in numpy over the weights of each step."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from shared.tests.tiny import CONFIG, Run, data, part
from shared.training.averages import Averages
from shared.training.config import AveragesConfig
from shared.training.loop import train


def weights(model: nn.Module) -> np.ndarray:
    """All parameters as one float64 vector."""
    return torch.cat([p.detach().flatten() for p in model.parameters()]).double().numpy().copy()


def walk(steps: int, config: AveragesConfig) -> tuple[list[np.ndarray], Averages]:
    """The weights after each of some steps of a random walk, and the averages that took them in."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    averages, course = Averages(model, config), []
    for n in range(1, steps + 1):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p))
        averages.update(model, n)
        course.append(weights(model))
    return course, averages


def ema_of(course: list[np.ndarray], decay: float) -> np.ndarray:
    """The recursion: the first weights, then d = min(decay, (1 + k) / (10 + k)) after k updates."""
    average = course[0]
    for k, w in enumerate(course[1:], start=1):
        d = min(decay, (1 + k) / (10 + k))
        average = d * average + (1 - d) * w
    return average


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("steps", [1, 2, 30])
def test_ema_follows_its_recursion(decay, steps):
    course, averages = walk(steps, AveragesConfig(ema=decay))
    assert np.allclose(weights(averages.network("ema")), ema_of(course, decay), rtol=1e-5, atol=1e-6)


def test_warm_up_forgets_the_first_weights():
    """With a fixed decay of 0.999 the first weights would still count for 0.95 after 50 steps."""
    course, averages = walk(50, AveragesConfig(ema=0.999))
    fixed = course[0]
    for w in course[1:]:
        fixed = 0.999 * fixed + 0.001 * w
    ema = weights(averages.network("ema"))
    assert np.linalg.norm(ema - course[-1]) < np.linalg.norm(fixed - course[-1]) / 2


def test_each_decay_is_an_average_of_its_own():
    """Beside the others it is what it is alone; its name says its decay as it was given."""
    decays = (0.0, 0.5, 0.99)
    course, averages = walk(30, AveragesConfig(ema=0.999, more=decays, swa_start=1))
    assert list(averages.models) == ["ema", "ema-0.0", "ema-0.5", "ema-0.99", "swa"]
    for name, decay in zip(averages.models, (0.999, *decays), strict=False):
        assert np.allclose(weights(averages.network(name)), ema_of(course, decay), rtol=1e-5, atol=1e-6)
    assert [averages.counts()[name] for name in averages.models if name != "swa"] == [30] * 4


@pytest.mark.parametrize("width", [0.05, 0.25])
def test_a_power_average_follows_its_recursion(width):
    """Karras 2024, eq. (2), with γ by bisection of its width."""
    low, high = 0.0, 1e6
    while high - low > 1e-12 * high:
        gamma = (low + high) / 2
        wide = (gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3)) > width**2
        low, high = (gamma, high) if wide else (low, gamma)
    course, averages = walk(30, AveragesConfig(profiles=(width,)))
    average = np.zeros_like(course[0])
    for t, w in enumerate(course, start=1):
        beta = (1 - 1 / t) ** (gamma + 1)
        average = beta * average + (1 - beta) * w
    assert np.allclose(weights(averages.network(f"profile-{width}")), average, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("start", "every"), [(1, 1), (3, 1), (2, 4), (0, 5)])
def test_swa_is_the_plain_mean(start, every):
    course, averages = walk(14, AveragesConfig(swa_start=start, swa_every=every))
    taken = [w for n, w in enumerate(course, start=1) if n >= start and (n - start) % every == 0]
    assert averages.counts()["swa"] == len(taken)
    assert np.allclose(weights(averages.network("swa")), np.mean(taken, axis=0), atol=1e-5)


def test_no_swa_unless_asked():
    assert set(walk(2, AveragesConfig())[1].models) == {"ema"}


def test_averages_take_in_the_weights_after_the_optimizer_step(tmp_path):
    """Several codebases average before the step, and so lag behind by one."""
    trained, course = part(ema=0.9), []
    for step in train(trained, data(), CONFIG, Run(tmp_path)):
        course.append(weights(trained.model))
        assert np.allclose(weights(step.ema), ema_of(course, 0.9), atol=1e-6)
    assert len(course) == CONFIG.steps
    assert not np.allclose(course[0], course[1])


def test_averages_are_networks_to_sample_from():
    _, averages = walk(1, AveragesConfig(swa_start=1))
    for name in ("ema", "swa"):
        network = averages.network(name)
        assert not network.training
        assert not any(p.requires_grad for p in network.parameters())


def test_buffers_are_those_of_the_model(tmp_path):
    trained = part()
    for step in train(trained, data(), CONFIG, Run(tmp_path)):
        assert step.ema.calls == trained.model.calls == step.n


def test_ema_never_reads_a_count_on_the_device():
    """torch hands the update a copy of the count on the weights' device: reading it there would stall a GPU."""

    class OnDevice(Tensor):
        def __int__(self):
            raise AssertionError("read from the device")

        __bool__ = __float__ = item = __int__

    _, averages = walk(2, AveragesConfig())
    ema = averages.models["ema"]
    averaged = [p.detach() for p in ema.module.parameters()]
    ema.multi_avg_fn(averaged, [p + 1 for p in averaged], torch.tensor(2).as_subclass(OnDevice))
