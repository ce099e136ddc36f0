"""Introduced in task 1; used by task 1.

The one training loop. It is a generator: it yields after every optimizer step, and what happens then (pictures, an
evaluation, an early stop) is the caller's `for` loop.
"""

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.utils.data import Dataset

from shared.cli import flat
from shared.errors import UserError
from shared.precision import resolve
from shared.training.averages import Averages
from shared.training.checkpoint import Checkpoints, restore
from shared.training.config import MAY_CHANGE, AveragesConfig, OptimizerConfig, TrainConfig
from shared.training.data import batches, check_data, derive
from shared.training.interrupt import Interrupt
from shared.training.optim import build_optimizer, learning_rate
from shared.training.progress import Progress

Loss = Callable[[nn.Module, Tensor, dict[str, Tensor]], Tensor]  # (model, x, cond) -> a scalar


class Run(Protocol):
    """What the loop needs of a run's record."""

    folder: Path
    config: dict[str, Any]

    def reached(self, n: int, images: int) -> None:
        """Know that n optimizer steps are done, which took so many images."""

    def log(self, n: int, figures: dict[str, float]) -> None:
        """Keep the figures of step n."""


class Interrupted(KeyboardInterrupt):
    """A signal asked the training to stop; everything is saved."""

    def __init__(self, number: int, n: int):
        """Signal `number` came, and step n is the last one done."""
        super().__init__(f"stopped at step {n}")
        self.number = number


@dataclass
class Part:
    """A network, its loss, and how it is optimized and averaged."""

    model: nn.Module
    loss: Loss
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    averages: AveragesConfig = field(default_factory=AveragesConfig)


@dataclass
class TrainStep:
    """What the caller sees after n optimizer steps."""

    n: int
    last: bool
    averages: Averages

    @property
    def ema(self) -> nn.Module:
        """The averaged network, as of now."""
        return self.averages.network("ema")

    def every(self, interval: int) -> bool:
        """True at multiples of the interval and at the last step; never where the interval is 0."""
        return interval > 0 and (self.n % interval == 0 or self.last)


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


def device_for(config: TrainConfig) -> torch.device:
    """Where a config wants to train. Raises UserError if it asks for a GPU and there is none."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("train.device is cuda, but torch sees no GPU: use --train.device cpu, or auto")
    return torch.device("cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu")


def accelerator_for(config: TrainConfig) -> Accelerator:
    """The accelerator of a config: device, number format, processes.

    Raises:
        UserError: a GPU is asked for and there is none, or the processes do not divide the micro-batches.
    """
    device = device_for(config)
    precision = {"fp32": "no", "bf16": "bf16"}[resolve(config.precision, device)]
    AcceleratorState._reset_state()  # it holds one number format a process: a second training may have another
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision=precision)
    if config.accumulate % accelerator.num_processes:
        raise UserError(
            f"{accelerator.num_processes} processes cannot share {config.accumulate} micro-batches evenly: "
            "make train.accumulate a multiple"
        )
    return accelerator


def check(data: Dataset, config: TrainConfig) -> None:
    """Raise UserError for what is known to be wrong before the first step, so that no run is begun for nothing."""
    accelerator_for(config)
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if config.compile and shutil.which(compiler) is None:
        raise UserError(
            f"train.compile needs a C++ compiler, and there is no {compiler}: install it, or set CXX to another"
        )
    check_data(data)


def check_weights(model: nn.Module, n: int) -> None:
    """Raise UserError if step n left a weight that is not finite, as too long a step does. Waits for the device."""
    if not torch.stack([p.isfinite().all() for p in model.parameters()]).all():
        raise UserError(
            f"a weight was not finite after step {n}: training stopped, earlier checkpoints are kept; try a lower "
            "optimizer.lr"
        )


def check_same(saved: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise UserError if a run is to be resumed with a config that would train something else."""
    saved, now = flat(saved), flat(now)
    for name in sorted(saved.keys() | now.keys()):
        if saved.get(name) != now.get(name) and name not in MAY_CHANGE and not name.startswith("run."):
            raise UserError(
                f"the checkpoint was made with {name} {saved.get(name)}, not {now.get(name)}: resume with the same, "
                "or start a new run from its weights with --init-from"
            )


def train(
    part: Part, data: Dataset, config: TrainConfig, run: Run, *, resume: Path | None = None
) -> Iterator[TrainStep]:
    """Train, and yield after each optimizer step, when weights and averages are up to date.

    Args:
        part: what is trained.
        data: `(x, cond)` pairs; see `data.py`.
        config: how much and how often.
        run: where figures and checkpoints go.
        resume: the checkpoint to go on from; its config must be the run's.

    Raises:
        UserError: a loss that is not finite, data out of range, a checkpoint of another config.
        Interrupted: SIGINT or SIGTERM came; the step at hand was finished and saved.
        OSError: a checkpoint could not be written; the ones before it are whole.
    """
    accelerator = accelerator_for(config)
    device, rank, world = accelerator.device, accelerator.process_index, accelerator.num_processes
    if config.deterministic and device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    model = part.model.to(device)
    averages = Averages(model, part.averages).to(device)  # before the model is wrapped
    optimizer = build_optimizer(model, part.optimizer)
    checkpoints = Checkpoints(run.folder / "checkpoints", config.keep)
    first = 0
    if resume is not None:
        first = restore(resume, model, averages, optimizer)
        run.reached(first, first * config.batch * config.accumulate)
    if config.compile:
        model.compile()
    prepared = accelerator.prepare_model(model)
    share = config.accumulate // world
    stream = batches(data, config, first, device, rank, world)
    meter, progress = Meter(device), Progress(first, config.steps)

    with Interrupt() as interrupt, contextlib.closing(progress):
        for n in range(first, config.steps):
            rate = learning_rate(part.optimizer, n, config.steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = torch.zeros((), device=device)
            for i in range(share):
                x, cond = next(stream)
                torch.manual_seed(derive(config.seed, n, rank + i * world))  # t, eps, dropout of this micro-batch
                with contextlib.nullcontext() if i == share - 1 else accelerator.no_sync(prepared):
                    part_loss = part.loss(prepared, x, cond) / share
                    accelerator.backward(part_loss)
                loss += part_loss.detach()
            limit = config.clip or float("inf")
            norm = nn.utils.clip_grad_norm_(model.parameters(), limit)
            optimizer.step()
            optimizer.zero_grad()
            averages.update(model, n + 1)

            step = TrainStep(n + 1, n + 1 == config.steps, averages)
            run.reached(step.n, step.n * config.batch * config.accumulate)
            meter.add(loss, norm, n + 1)
            progress.step()
            if step.every(config.log_every):
                mean, speed = meter.read()
                images = speed * config.batch * config.accumulate
                progress.report(step.n, mean, images)
                run.log(
                    step.n,
                    {"loss": mean, "gradient_norm": norm.item(), "lr": rate, "images_per_second": images},
                )
            stopping = interrupt.received  # read once: a signal after this line waits for the next step's save
            if step.every(config.save_every) or step.last or stopping:
                meter.check()  # a broken model is never saved
                check_weights(model, step.n)
                checkpoints.save(step.n, model, averages, optimizer, run.config)
            with meter.paused():
                yield step
            if stopping and not step.last:
                raise Interrupted(stopping, step.n)
