"""The smallest things that the training loop can train: they make a step cost about a millisecond."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from shared.datasets.images import InMemory
from shared.training.averages import Averages
from shared.training.config import AveragesConfig, OptimizerConfig, TrainConfig
from shared.training.loop import train
from shared.training.part import Part

CONFIG = TrainConfig(steps=6, batch=4, device="cpu", log_every=1, sample_every=0, save_every=0)


class Net(nn.Module):
    """Images (B, 1, 4, 4) to the same; the time is one more input."""

    def __init__(self, width: int = 8, dropout: float = 0.0):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(17, width), nn.Tanh(), nn.Dropout(dropout), nn.Linear(width, 16))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor, t: Tensor, cond: dict[str, Tensor]) -> Tensor:
        """The design's `model(x, t, cond)`."""
        self.calls += 1
        features = torch.cat([x.flatten(1), t[:, None]], dim=1)
        return self.layers(features).view_as(x)


def loss(model: nn.Module, x: Tensor, cond: dict[str, Tensor]) -> Tensor:
    """Draws t and eps as a diffusion does, from the global generator."""
    t, eps = torch.rand(len(x)), torch.randn_like(x)
    return (model(x + t[:, None, None, None] * eps, t, cond) - eps).square().mean()


def data(size: int = 13) -> InMemory:
    """Random images; 13 of them, so that no batch size divides a pass."""
    generator = torch.Generator().manual_seed(5)
    images = torch.randint(0, 256, (size, 1, 4, 4), generator=generator, dtype=torch.uint8)
    return InMemory(images, torch.arange(size) % 3, ["a", "b", "c"])


class Whole(NamedTuple):
    """What a checkpoint holds of a part, outside a training."""

    model: nn.Module
    averages: Averages
    optimizer: torch.optim.Optimizer
    name: str = ""
    memory: nn.Module | None = None


class Run:
    """A run's record that keeps its figures in memory."""

    def __init__(self, folder: Path, config: dict[str, Any] | None = None):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.config = folder, config or {}
        self.figures: dict[int, dict[str, float]] = {}

    def reached(self, n: int, images: int) -> None:
        """Nobody asks."""

    def log(self, n: int, figures: dict[str, float]) -> None:
        """Keep them; each step is reported once."""
        assert n not in self.figures
        self.figures[n] = figures

    def skipped(self, names: list[str]) -> None:
        """Nobody asks."""


def part(dropout: float = 0.0, loss=loss, **options: Any) -> Part:
    """The same first weights at each call; `options` are fields of the optimizer's and the averages' configs."""
    torch.manual_seed(3)
    averages = {field.name: options.pop(field.name) for field in fields(AveragesConfig) if field.name in options}
    return Part(Net(dropout=dropout), loss, OptimizerConfig(**options), AveragesConfig(**averages))


def fit(run: Run, trained: Part, resume: Path | None = None, dataset=None, stop: int = 0, **options: Any) -> Averages:
    """Train to the end, or leave the loop without a word after step `stop`. `options` are fields of TrainConfig."""
    averages = None
    steps = train(trained, data() if dataset is None else dataset, replace(CONFIG, **options), run, resume=resume)
    for step in steps:
        averages = step.averages
        if step.n == stop:
            break
    return averages
