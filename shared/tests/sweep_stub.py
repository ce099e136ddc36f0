"""A training without torch, of which every line of figures is known: what a sweep does with its trials is then known.

`python -m shared.tests.sweep_stub sweep …` is the command `sweep` with this training under the name task1-train;
without the first word it is the training, and with --run its evaluation.
"""

import json
import signal
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from unittest import mock

import yaml
from jsonargparse.typing import PositiveInt

from shared.experiments.config import RunConfig
from shared.experiments.run import RunRecord, record_evaluation
from shared.experiments.sweep import command as sweep
from shared.experiments.sweep import space as sweep_space
from shared.files import read_json, write_text
from shared.options import TrainingOptions
from shared.training.config import Rate

DEFAULT = Path(__file__).with_suffix(".yaml")
COMMANDS = {
    "task1-train": "shared.tests.sweep_stub",
    "task1-evaluate": "shared.tests.sweep_stub",
    "task2-evaluate": "task2_latent.evaluate",
    "task1-sample": "shared.experiments.tables",
}


@dataclass
class Train:
    """How long."""

    steps: PositiveInt = 8
    log_every: int = 1
    seconds: float = 0.0
    """between two steps"""


@dataclass
class Optimizer:
    """The learning rate."""

    lr: Rate = 0.1


@dataclass
class Config:
    """A training whose loss is `lr + 1 / step`."""

    train: Train = field(default_factory=Train)
    optimizer: Optimizer = field(default_factory=Optimizer)
    fault: str = ""
    """"early" fails before there is a run, "late" at its second step"""
    levels: tuple[int, ...] = (1, 2)
    run: RunConfig = field(default_factory=RunConfig)


@dataclass
class EvaluateConfig:
    """What its evaluation takes."""

    run: str | None = None
    n: PositiveInt = 8


OPTIONS = TrainingOptions("task1-train", "A stub.", Config, DEFAULT, "stage 0", lambda source: {})


def checkpoint(record: RunRecord, n: int, trace: str) -> None:
    """A step's state: how it was come by."""
    (record.folder / "checkpoints").mkdir(exist_ok=True)
    write_text(record.folder / "checkpoints" / f"step-{n:08d}.safetensors", json.dumps({"step": n, "trace": trace}))


def train() -> int:
    """Log each step, save each other step; SIGTERM saves and stops."""
    asked = OPTIONS.parse()
    config, told = asked.config, []
    if config.fault == "early":
        print("task1-train: error: it cannot be built", file=sys.stderr)
        return 1
    first, trace = 0, ""
    if asked.resume:
        record = RunRecord.reopen(asked.resume)
        last = sorted(record.folder.glob("checkpoints/*"))[-1]
        state = read_json(last)
        first, trace = state["step"], state["trace"]
        record.go_on(first)
    else:
        with mock.patch("shared.experiments.run.write_source"), mock.patch("shared.experiments.run.write_whole"):
            record = RunRecord.create("task1", config.run, asdict(config))
    signal.signal(signal.SIGTERM, lambda *_: told.append(1))
    try:
        with record.closing():
            for n in range(first + 1, config.train.steps + 1):
                if config.fault == "late" and n == 2:
                    raise RuntimeError("the loss is not finite")
                time.sleep(config.train.seconds)
                trace += f"{n} "
                record.reached(n, n)
                with (record.folder / "metrics.jsonl").open("a") as file:
                    line = {"step": n, "time": time.time(), "loss": config.optimizer.lr + 1 / n}
                    file.write(json.dumps(line) + "\n")
                if n % 2 == 0 or told or n == config.train.steps:
                    checkpoint(record, n, trace)
                if told and n < config.train.steps:
                    raise KeyboardInterrupt("told to stop")
    except KeyboardInterrupt:
        return 128 + signal.SIGTERM
    except RuntimeError:
        return 1
    return 0


def evaluate() -> int:
    """Write down a score: the learning rate and what the options say."""
    run = Path(sys.argv[sys.argv.index("--run") + 1])
    lr = yaml.safe_load((run / "config.yaml").read_text())["optimizer"]["lr"]
    facts = {"task": "task1", "step": 8, "main": "score", "protocol": {}, "figures": {"score": 1 - lr}}
    record_evaluation(run, facts, " ".join(sys.argv[1:]))
    return 0


def main() -> int:
    """The training, its evaluation, or a sweep of it."""
    if "--run" in sys.argv:
        return evaluate()
    if sys.argv[1:2] != ["sweep"]:
        return train()
    del sys.argv[1]
    with mock.patch.object(sweep_space, "stage_commands", lambda: COMMANDS):
        sweep.main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
