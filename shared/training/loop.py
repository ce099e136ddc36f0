"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

The one training loop. It is a generator: it yields after every optimizer step, and what happens then (pictures, an
evaluation, an early stop) is the caller's `for` loop.
"""

import contextlib
import json
import math
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn
from torch.utils.data import Dataset

from shared.cli import flat
from shared.errors import UserError
from shared.precision import resolve
from shared.training.averages import Averages
from shared.training.checkpoint import Checkpoints, restore
from shared.training.config import MAY_CHANGE, OptimizerConfig, TrainConfig
from shared.training.data import batches, check_data
from shared.training.interrupt import Interrupt
from shared.training.part import Part, Trained
from shared.training.processes import is_first, largest, local_rank, rank, start, together, world
from shared.training.progress import Progress
from shared.training.skipped import report_skipped


class Run(Protocol):
    """What the loop needs of a run's record."""

    folder: Path
    config: dict[str, Any]

    def reached(self, n: int, images: int) -> None:
        """Know that n optimizer steps are done, which took so many images."""

    def log(self, n: int, figures: dict[str, float]) -> None:
        """Keep the figures of step n."""

    def skipped(self, names: list[str]) -> None:
        """Keep what the data set could not read: all that is known of so far."""


class Interrupted(KeyboardInterrupt):
    """A signal asked the training to stop; everything is saved."""

    def __init__(self, number: int, n: int):
        """Signal `number` came, and step n is the last one done."""
        super().__init__(f"stopped at step {n}")
        self.number = number


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


def device_for(config: TrainConfig) -> torch.device:
    """Where a config wants to train. Raises UserError if it asks for a GPU and there is none."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("train.device is cuda, but torch sees no GPU: use --train.device cpu, or auto")
    return torch.device("cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu")


def accelerator_for(config: TrainConfig) -> Accelerator:
    """The accelerator of a config: device and number format; and all processes have met.

    Raises:
        UserError: a GPU is asked for and there is none, there are fewer than processes, or the processes do not divide
            the micro-batches.
    """
    if config.accumulate % world():
        raise UserError(
            f"{world()} processes cannot share {config.accumulate} micro-batches evenly: make train.accumulate a "
            "multiple"
        )
    start()
    device = device_for(config)
    if device.type == "cuda" and local_rank() >= (here := torch.cuda.device_count()):
        raise UserError(f"there is no GPU for process {local_rank()} of this machine, which has {here}: start fewer")
    precision = {"fp32": "no", "bf16": "bf16"}[resolve(config.precision, device)]
    AcceleratorState._reset_state()  # it holds one number format a process: a second training may have another
    return Accelerator(cpu=device.type == "cpu", mixed_precision=precision)


def settle(
    data: Dataset, config: TrainConfig, epoch: int | None = None, optimizers: Sequence[OptimizerConfig] = ()
) -> None:
    """Check, and put into the config what only this place knows, so that it is recorded as it will be.

    The number format becomes the one that the device has; epochs become steps, which a resume may raise as ever.

    Args:
        data: the data set.
        config: of the training; changed.
        epoch: samples in an epoch, where they are not the data's: they are yet to be drawn.
        optimizers: of the training; changed.

    Raises:
        UserError: as for `check`.
    """
    check(data, config)
    config.precision = resolve(config.precision, device_for(config))
    steps = steps_of(epoch or len(data), config)
    if config.epochs is not None:
        config.steps, config.epochs = config.epochs * steps, None
    if config.save_epochs is not None:
        config.save_every, config.save_epochs = config.save_epochs * steps, None
    for optimizer in optimizers:
        in_steps(optimizer, steps)


def steps_of(samples: int, config: TrainConfig) -> int:
    """The optimizer steps of a pass over so many samples; the last of them may reach into the next pass."""
    return math.ceil(samples / (config.batch * config.accumulate))


def in_steps(config: OptimizerConfig, epoch: int) -> None:
    """Put optimizer steps for the passes between two falls of the rate, each of `epoch` steps."""
    if config.step_epochs is not None or (config.schedule == "step" and config.step_size is None):
        config.step_size, config.step_epochs = (config.step_epochs or 1) * epoch, None


def check(data: Dataset, config: TrainConfig) -> None:
    """Raise UserError for what is known to be wrong before the first step, so that no run is begun for nothing."""
    accelerator_for(config)
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if config.compile and shutil.which(compiler) is None:
        raise UserError(
            f"train.compile needs a C++ compiler, and there is no {compiler}: install it, or set CXX to another"
        )
    check_data(data)


def completed(saved: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """A saved config with the defaults of the fields that it lacks, section by section."""
    full = {**defaults, **saved}
    for name in defaults.keys() & saved.keys():
        if isinstance(defaults[name], dict) and isinstance(saved[name], dict):
            full[name] = completed(saved[name], defaults[name])
    return full


def check_same(saved: dict[str, Any], now: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Raise UserError if a run is to be resumed with a config that would train something else.

    A field that the saved config lacks was not there yet: what the run did is what is now the field's default.

    Args:
        saved: the checkpoint's.
        now: asked for.
        defaults: of all fields of such a config.
    """
    saved, now = flat(completed(saved, json.loads(json.dumps(defaults)))), flat(now)  # tuples as JSON has them
    for name in sorted(saved.keys() | now.keys()):
        if saved.get(name) != now.get(name) and name not in MAY_CHANGE and not name.startswith("run."):
            raise UserError(
                f"the checkpoint was made with {name} {saved.get(name)}, not {now.get(name)}: resume with the same, "
                "or start a new run from its weights with --init-from"
            )


def train(
    parts: Part | Sequence[Part], data: Dataset, config: TrainConfig, run: Run, *, resume: Path | None = None
) -> Iterator[TrainStep]:
    """Train, and yield after each optimizer step, when weights and averages are up to date.

    Of several processes each goes through this with micro-batches of its own, and yields after the same steps.

    Args:
        parts: what is trained: one network, or several in turn in each step, on the same batch.
        data: `(x, cond)` pairs; see `data.py`.
        config: how much and how often.
        run: where figures and checkpoints go.
        resume: the checkpoint to go on from; its config must be the run's.

    Raises:
        UserError: a loss that is not finite, data out of range, a checkpoint of another config.
        Interrupted: SIGINT or SIGTERM came, to any process; the step at hand was finished and saved.
        OSError: a checkpoint could not be written; the ones before it are whole.
    """
    accelerator, parts = accelerator_for(config), [parts] if isinstance(parts, Part) else parts
    device = accelerator.device
    if config.shard and len(parts) > 1:
        raise UserError("train.shard is for a network that is trained alone: leave it out")
    if config.deterministic and device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    for part in parts:  # those that `settle` has not been given
        in_steps(part.optimizer, steps_of(len(data), config))
    trained = [Trained(part, accelerator, config.shard) for part in parts]
    images = config.batch * config.accumulate
    first = 0
    if resume is not None:
        first = restore(resume, trained)
        run.reached(first, first * images)
    for part in trained:
        part.wrap(config.compile)
    stream = batches(data, config, first, device, rank(), world())
    progress = Progress(first, config.steps, shown=is_first())

    with Interrupt() as interrupt, contextlib.closing(progress), together():
        if first:  # once more: what the caller does after a step may have been cut short by what ended the run
            yield TrainStep(first, first == config.steps, trained[0].averages)
        for n in range(first, config.steps):
            with trained[0].meter.waiting():
                micro = [next(stream) for _ in range(config.accumulate // world())]
            for part in trained:
                if n >= part.part.start:
                    part.step(micro, n, config)

            step = TrainStep(n + 1, n + 1 == config.steps, trained[0].averages)
            run.reached(step.n, step.n * images)
            progress.step()
            if step.every(config.log_every):
                figures = {name: value for part in trained for name, value in part.read(images).items()}
                progress.report(step.n, figures["loss"], figures["images_per_second"])
                run.log(step.n, figures)
            # read once, and the same for all: a signal after this line waits for the next step's save
            stopping = largest(interrupt.received or 0)
            if step.every(config.log_every) or step.last or stopping:
                report_skipped(data, run)
            if trained[0].averages.snapshot_due(step.n):  # before the checkpoint: none is there without those before it
                trained[0].check(step.n)
                Checkpoints(run.folder / "averages", keep=None).save_profiles(step.n, trained[0], run.config)
            if step.every(config.save_every) or step.last or stopping:
                for part in trained:
                    part.check(step.n)
                Checkpoints(run.folder / "checkpoints", config.keep).save(step.n, trained, run.config)
            with contextlib.ExitStack() as pauses:
                for part in trained:
                    pauses.enter_context(part.meter.paused())
                yield step
            if stopping and not step.last:
                raise Interrupted(stopping, step.n)
