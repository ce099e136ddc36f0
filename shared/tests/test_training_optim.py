"""Optimizers are what the config says; learning rates are those of torch's schedulers, step by step."""

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from shared.tests.tiny import CONFIG, Run, data, part
from shared.training.config import OptimizerConfig
from shared.training.loop import train
from shared.training.optim import SCHEDULES, build_optimizer, learning_rate

LR = 0.3


def torch_rates(make, steps: int) -> list[float]:
    """The rate that a torch scheduler would give each of some steps."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    scheduler, rates = make(optimizer), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def rates(steps: int, **options) -> list[float]:
    """Ours."""
    config = OptimizerConfig(lr=LR, **options)
    return [learning_rate(config, n, steps) for n in range(steps)]


def warmed(optimizer, warmup: int, after):
    """torch's linear warm-up, then another schedule that counts from its end."""
    start = lr_scheduler.LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
    return lr_scheduler.SequentialLR(optimizer, [start, after], milestones=[warmup])


@pytest.mark.parametrize("steps", [2, 7, 10, 100, 1001])
def test_onecycle(steps):
    expected = torch_rates(lambda o: lr_scheduler.OneCycleLR(o, max_lr=LR, total_steps=steps), steps)
    assert rates(steps, schedule="onecycle") == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("milestones", [(), (4,), (3, 7, 8), (8, 3)])
def test_multistep(milestones):
    expected = torch_rates(lambda o: lr_scheduler.MultiStepLR(o, list(sorted(milestones)), gamma=0.2), 12)
    assert rates(12, schedule="multistep", milestones=milestones, gamma=0.2) == pytest.approx(expected)


@pytest.mark.parametrize("size", [1, 4, 20])
def test_step(size):
    expected = torch_rates(lambda o: lr_scheduler.StepLR(o, size, gamma=0.5), 12)
    assert rates(12, schedule="step", step_size=size, gamma=0.5) == pytest.approx(expected)


@pytest.mark.parametrize("final", [0.0, 0.1])
def test_cosine(final):
    expected = torch_rates(lambda o: lr_scheduler.CosineAnnealingLR(o, 20, eta_min=final * LR), 20)
    assert rates(20, schedule="cosine", final=final) == pytest.approx(expected, rel=1e-6)


def test_constant():
    assert rates(5) == [LR] * 5


@pytest.mark.parametrize("warmup", [1, 5])
def test_warm_up_to_a_constant(warmup):
    after = [LR] * (12 - warmup)
    start = torch_rates(lambda o: lr_scheduler.LinearLR(o, start_factor=1 / (warmup + 1), total_iters=warmup), warmup)
    assert rates(12, warmup=warmup) == pytest.approx(start + after)


def test_warm_up_to_a_cosine():
    def make(optimizer):
        return warmed(optimizer, 5, lr_scheduler.CosineAnnealingLR(optimizer, 15))

    assert rates(20, schedule="cosine", warmup=5) == pytest.approx(torch_rates(make, 20), rel=1e-6)


def test_milestones_count_from_the_start():
    """A milestone is an optimizer step, warm-up or not."""
    assert rates(12, schedule="multistep", milestones=(8,), warmup=3)[7:9] == pytest.approx([LR, LR / 10])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_loop_uses_the_schedule(schedule, tmp_path):
    """On a loss with gradient 1, plain SGD has gone by the sum of the rates."""

    def slope(model, x, cond):
        return next(model.parameters()).sum()

    options = {"milestones": (2,), "step_size": 2, "warmup": 1}
    trained = part(loss=slope, name="sgd", momentum=0.0, lr=0.1, schedule=schedule, **options)
    weight = next(trained.model.parameters())
    before = weight.detach().clone()
    *_, _ = train(trained, data(), CONFIG, Run(tmp_path))
    way = sum(learning_rate(trained.optimizer, n, CONFIG.steps) for n in range(CONFIG.steps))
    clipped = way / weight.numel() ** 0.5  # train.clip is 1
    assert torch.allclose(before - weight, torch.full_like(weight, clipped), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "kind"), [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)]
)
def test_the_optimizer_is_the_one_asked_for(name, kind):
    config = OptimizerConfig(name=name, lr=0.02, betas=(0.7, 0.8), momentum=0.6, weight_decay=0.05)
    optimizer = build_optimizer(nn.Linear(2, 2), config)
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.02, 0.05)
    assert group["momentum"] == 0.6 if name == "sgd" else group["betas"] == (0.7, 0.8)


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_steps_equal_those_of_plain_torch(name):
    """The fused kernels against torch's plain loop over the parameters."""
    config = OptimizerConfig(name=name, lr=0.1, betas=(0.7, 0.8), momentum=0.6, weight_decay=0.05)
    ours, plain = nn.Linear(3, 2).double(), nn.Linear(3, 2).double()
    plain.load_state_dict(ours.state_dict())
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}[name]
    options = {"momentum": 0.6} if name == "sgd" else {"betas": (0.7, 0.8)}
    reference = kind(plain.parameters(), lr=0.1, weight_decay=0.05, foreach=False, **options)
    optimizer = build_optimizer(ours, config)
    for _ in range(3):
        for model, stepper in ((ours, optimizer), (plain, reference)):
            model(torch.ones(1, 3).double()).square().sum().backward()
            stepper.step()
            stepper.zero_grad()
    assert torch.allclose(ours.weight, plain.weight, rtol=1e-12)


def test_frozen_parameters_are_left_out():
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    (group,) = build_optimizer(model, OptimizerConfig()).param_groups
    assert [p is model.weight for p in group["params"]] == [True]
