"""Introduced in task 1; used by tasks 1, 2, 3.

What is trained: a network with its loss, optimizer and averages. The loop takes one of these, or several.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from shared.errors import UserError
from shared.training.averages import Averages
from shared.training.config import AveragesConfig, OptimizerConfig, TrainConfig
from shared.training.data import Batch, derive
from shared.training.optim import build_optimizer, learning_rate

Loss = Callable[[nn.Module, Tensor, dict[str, Tensor]], Tensor]  # (model, x, cond) -> a scalar


@dataclass
class Part:
    """A network, its loss, and how it is optimized and averaged. An adversarial pair is two of them."""

    model: nn.Module
    loss: Loss
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    averages: AveragesConfig = field(default_factory=AveragesConfig)
    name: str = ""  # of every part but the first
    start: int = 0  # the optimizer step from which it is trained
    figures: dict[str, Tensor] = field(default_factory=dict)  # what the loss wants logged, as of its last call


class Meter:
    """The loss since the last report, and the first step at which it was not finite; on the device, read when asked."""

    def __init__(self, device: torch.device):
        """Empty."""
        self.total = torch.zeros((), device=device)
        self.broken = torch.full((), -1, dtype=torch.long, device=device)
        self.steps, self.began = 0, time.perf_counter()

    def add(self, loss: Tensor, norm: Tensor, n: int) -> None:
        """Take in step n's loss and gradient norm, without waiting for them."""
        self.total += loss
        self.steps += 1
        finite = torch.isfinite(loss) & torch.isfinite(norm)
        self.broken = torch.where(finite | (self.broken >= 0), self.broken, n)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out the time spent inside: what the caller does between two steps is not training."""
        left = time.perf_counter()
        yield
        self.began += time.perf_counter() - left

    def check(self) -> None:
        """Raise UserError if a loss or gradient was not finite. Waits for the device."""
        if (n := int(self.broken)) >= 0:
            raise UserError(
                f"the loss or its gradient was not finite at step {n}: training stopped, earlier checkpoints are "
                "kept; try a lower optimizer.lr, train.clip 1, or train.precision fp32"
            )

    def read(self) -> tuple[float, float]:
        """Mean loss a step and steps a second since the last reading."""
        self.check()
        now = time.perf_counter()
        figures = self.total.item() / self.steps, self.steps / (now - self.began)
        self.total.zero_()
        self.steps, self.began = 0, now
        return figures


class Trained:
    """A part at work: on its device, with its optimizer and averages."""

    def __init__(self, part: Part, accelerator: Accelerator):
        """Averages are made before the model is wrapped; see `wrap`."""
        self.part, self.name, self.accelerator = part, part.name, accelerator
        self.model = part.model.to(accelerator.device)
        self.averages = Averages(self.model, part.averages).to(accelerator.device)
        self.optimizer = build_optimizer(self.model, part.optimizer)

    def wrap(self, compiled: bool) -> None:
        """Make the model ready for several processes and for the number format; after a checkpoint was restored."""
        if compiled:
            self.model.compile()
        self.prepared = self.accelerator.prepare_model(self.model)
        self.meter = Meter(self.accelerator.device)

    def step(self, micro: list[Batch], n: int, config: TrainConfig) -> None:
        """Take optimizer step n, from 0, over this process's micro-batches."""
        self.rate = learning_rate(self.part.optimizer, n, config.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        self.optimizer.zero_grad()  # another part's loss may have come through this network
        loss = torch.zeros((), device=self.accelerator.device)
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        for i, (x, cond) in enumerate(micro):
            own = (self.name,) if self.name else ()
            torch.manual_seed(derive(config.seed, n, rank + i * world, *own))  # t, eps, dropout of this micro-batch
            last = i == len(micro) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.prepared):
                part_loss = self.part.loss(self.prepared, x, cond) / len(micro)
                self.accelerator.backward(part_loss)
            loss += part_loss.detach()
        self.norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.clip or float("inf"))
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.averages.update(self.model, n + 1)
        self.meter.add(loss, self.norm, n + 1)

    def read(self, images: int) -> dict[str, float]:
        """The figures since the last report, for `images` a step; none before the part's first step."""
        if not self.meter.steps:
            return {}
        mean, speed = self.meter.read()
        figures = {"loss": mean, "gradient_norm": self.norm.item(), "lr": self.rate}
        if not self.name:
            figures["images_per_second"] = speed * images
        figures |= {name: float(value) for name, value in self.part.figures.items()}
        return {f"{self.name}_{name}" if self.name else name: value for name, value in figures.items()}

    def check(self, n: int) -> None:
        """Raise UserError if a loss, a gradient or a weight is not finite: a broken model is never saved."""
        self.meter.check()
        check_weights(self.model, n)


def check_weights(model: nn.Module, n: int) -> None:
    """Raise UserError if step n left a weight that is not finite, as too long a step does. Waits for the device."""
    if not torch.stack([p.isfinite().all() for p in model.parameters()]).all():
        raise UserError(
            f"a weight was not finite after step {n}: training stopped, earlier checkpoints are kept; try a lower "
            "optimizer.lr"
        )
