"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

What is trained: a network with its loss, optimizer and averages. The loop takes one of these, or several.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from shared.errors import UserError
from shared.training.averages import Averages
from shared.training.config import AveragesConfig, OptimizerConfig, TrainConfig
from shared.training.data import Batch, derive
from shared.training.optim import build_optimizer, learning_rate
from shared.training.processes import agreed, average_gradients, largest, rank, share_weights, world
from shared.training.shards import is_sharded, own, sending, shard, whole

Loss = Callable[[nn.Module, Tensor, dict[str, Tensor]], Tensor]  # (model, x, cond) -> a scalar


class Memory(Protocol):
    """A module of what a loss keeps from step to step; its buffers are part of a checkpoint."""

    def pending(self) -> Tensor:
        """What the loss has noted in this step, (micro-batches of this process, 2, B)."""

    def take(self, t: Tensor, losses: Tensor) -> None:
        """Take in what all processes have noted, (N,) each, in the order of the micro-batches."""


@dataclass
class Part:
    """A network, its loss, and how it is optimized and averaged. An adversarial pair is two of them."""

    model: nn.Module
    loss: Loss
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    averages: AveragesConfig = field(default_factory=AveragesConfig)
    name: str = ""  # of every part but the first
    start: int = 0  # the optimizer step from which it is trained
    figures: dict[str, Tensor] = field(default_factory=dict)  # scalars that the loss wants logged, of its last call
    memory: Memory | None = None  # what the loss keeps from step to step


NEVER = -(2**62)


def mean(values: Tensor) -> Any:
    """Numbers as Python's: the mean of the processes'. Waits for the device."""
    return (agreed(values.detach().double().cpu()) / world()).tolist()


def of_all(own: Tensor) -> Tensor:
    """A row (...) for each micro-batch of this process to those of all processes, in the order of micro-batches."""
    if world() == 1:
        return own
    rows = torch.zeros(len(own) * world(), *own.shape[1:], dtype=own.dtype)
    rows[rank() :: world()] = own.cpu()
    return agreed(rows).to(own.device)


class Meter:
    """The loss since the last report, and the first step at which it was not finite; on the device, read when asked.

    What is read is of all processes: each must ask when the others do.
    """

    def __init__(self, device: torch.device):
        """Empty."""
        self.total = torch.zeros((), device=device)
        self.broken = torch.full((), -1, dtype=torch.long, device=device)
        self.steps, self.began, self.waited = 0, time.perf_counter(), 0.0

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

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time spent inside as waiting for data. The device is not asked: it may have work left meanwhile."""
        began = time.perf_counter()
        yield
        self.waited += time.perf_counter() - began

    def check(self) -> None:
        """Raise UserError if a loss or gradient was not finite. Waits for the device."""
        n = int(self.broken)
        if (backwards := largest(-n if n >= 0 else NEVER)) > NEVER:  # the largest of -n is the first of n
            raise UserError(
                f"the loss or its gradient was not finite at step {-backwards}: training stopped, earlier checkpoints "
                "are kept; try a lower optimizer.lr, train.clip 1, or train.precision fp32"
            )

    def read(self) -> tuple[float, float, float]:
        """Since the last reading: mean loss a step, steps a second, and the share of the time that waited for data."""
        self.check()
        now = time.perf_counter()
        seconds = now - self.began
        figures = mean(self.total / self.steps), self.steps / seconds, self.waited / seconds
        self.total.zero_()
        self.steps, self.began, self.waited = 0, now, 0.0
        return figures


class Trained:
    """A part at work: on its device, with its optimizer and averages."""

    def __init__(self, part: Part, accelerator: Accelerator, sharded: bool = False):
        """Model, averages, then shares of both, then the optimizer of what is left here."""
        self.part, self.name, self.accelerator = part, part.name, accelerator
        self.memory = part.memory and part.memory.to(accelerator.device)
        self.model = part.model.to(accelerator.device)
        share_weights(self.model)
        self.averages = Averages(self.model, part.averages).to(accelerator.device)
        if sharded:
            shard(self.model, accelerator.device)
            self.averages.shard(accelerator.device)
        self.optimizer = build_optimizer(self.model, part.optimizer)
        self.seen: Counter[str] = Counter()  # sums of the part's figures over the micro-batches of a step

    def wrap(self, compiled: bool) -> None:
        """Compile the model and make it compute in the number format; in place, so that its names stay."""
        if compiled:  # block by block, where there are: alike, they are compiled once; and shares are gathered between
            for network in getattr(self.model, "blocks", None) or [self.model]:
                network.compile()
        # "evaluation" is the format alone: gradients are averaged by `average_gradients`, or by the shards
        self.prepared = self.accelerator.prepare_model(self.model, evaluation_mode=True)
        self.meter = Meter(self.accelerator.device)

    def step(self, micro: list[Batch], n: int, config: TrainConfig) -> None:
        """Take optimizer step n, from 0, over this process's micro-batches."""
        self.rate = learning_rate(self.part.optimizer, n, config.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        self.optimizer.zero_grad()  # another part's loss may have come through this network
        loss = torch.zeros((), device=self.accelerator.device)
        self.seen.clear()
        for i, (x, cond) in enumerate(micro):
            j, name = rank() + i * world(), (self.name,) if self.name else ()
            torch.manual_seed(derive(config.seed, n, j, *name))  # t, eps, dropout of micro-batch j
            sending(self.model, now=i == len(micro) - 1)
            part_loss = self.part.loss(self.prepared, x, cond) / len(micro)
            self.accelerator.backward(part_loss)
            loss += part_loss.detach()
            self.seen.update({figure: value.detach() / len(micro) for figure, value in self.part.figures.items()})
        if not is_sharded(self.model):  # shards have sent theirs
            average_gradients(self.model)
        self.norm = whole(nn.utils.clip_grad_norm_(self.model.parameters(), config.clip or float("inf")))
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.averages.update(self.model, n + 1)
        self.meter.add(loss, self.norm, n + 1)
        if self.memory is not None:
            noted = of_all(self.memory.pending())  # (micro-batches, 2, B)
            self.memory.take(*noted.transpose(0, 1).flatten(1))

    def read(self, images: int) -> dict[str, float]:
        """The figures since the last report, for `images` a step; none before the part's first step."""
        if not self.meter.steps:
            return {}
        loss, speed, waiting = self.meter.read()
        figures = {"loss": loss, "gradient_norm": self.norm.item(), "lr": self.rate}
        if not self.name:
            figures |= {"images_per_second": speed * images, "waiting": waiting}
        if self.seen:
            figures |= dict(zip(self.seen, mean(torch.stack(list(self.seen.values()))), strict=True))
        return {f"{self.name}_{name}" if self.name else name: value for name, value in figures.items()}

    def check(self, n: int) -> None:
        """Raise UserError if a loss, a gradient or a weight is not finite: a broken model is never saved."""
        self.meter.check()
        check_weights(self.model, n)


def check_weights(model: nn.Module, n: int) -> None:
    """Raise UserError if step n left a weight that is not finite, as too long a step does. Waits for the device."""
    if largest(not torch.stack([own(p).isfinite().all() for p in model.parameters()]).all()):
        raise UserError(
            f"a weight was not finite after step {n}: training stopped, earlier checkpoints are kept; try a lower "
            "optimizer.lr"
        )
