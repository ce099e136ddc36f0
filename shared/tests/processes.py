"""What several processes do together: tiny trainings, and faults planted in them. `test_processes.py` looks at it.

`torchrun … -m shared.tests.processes FOLDER` runs every scenario, each in a folder of its own, and leaves there, as
JSON, what each process has to say. Alone it runs those that one process is compared by.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from shared.errors import UserError
from shared.experiments import run as run_module
from shared.experiments.config import RunConfig
from shared.experiments.follower import create_record, reopen_record
from shared.tests import tiny
from shared.training import loop, part, processes
from shared.training.checkpoint import Checkpoints
from shared.training.loop import Interrupted
from shared.training.processes import first, in_turn, rank, world

OPTIONS = {"accumulate": 2, "steps": 6, "save_every": 2, "log_every": 1}
EVERYTHING = {"dropout": 0.1, "swa_start": 1, "swa_every": 2, "schedule": "cosine", "weight_decay": 0.1, "lr": 0.01}


def trained(folder: Path, resume: Path | None = None, loss=tiny.loss, **options: Any) -> None:
    """A training in which everything that processes share has an effect; its record is written by the first alone."""
    config = {"train": {"seed": 0}}
    if resume is None:
        record = create_record("task1", RunConfig(folder=str(folder), name="run"), config)
    else:
        record = reopen_record(folder / "task1" / "run")
        record.go_on(int(resume.stem[5:]))
    with record.closing():
        tiny.fit(record, tiny.part(loss=loss, **EVERYTHING), resume=resume, **{**OPTIONS, **options})


def newest(folder: Path) -> Path:
    """The last checkpoint of a training in this folder."""
    return Checkpoints(folder / "task1" / "run" / "checkpoints").latest()


def ended(action: Callable[[], object]) -> str:
    """How something ended, in words."""
    try:
        action()
    except (UserError, Interrupted, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return "well"


def at(step: int, act: Callable[[], float], only: int = 1):
    """A loss, multiplied by what `act` gives, at one optimizer step of one process."""
    calls = []

    def loss(model, x, cond):
        calls.append(1)
        factor = act() if rank() == only and len(calls) == step else 1.0
        return tiny.loss(model, x, cond) * factor

    return loss


def signalled() -> float:
    """This process is asked to end."""
    os.kill(os.getpid(), signal.SIGTERM)
    return 1.0


def alike(folder: Path) -> dict[str, Any]:
    """The trainings that one process and two must end alike, by name of what is not plain."""
    for name, options in {"plain": {}, "bf16": {"precision": "bf16"}, "shard": {"shard": True}}.items():
        trained(folder / name, **options)
    trained(folder / "bf16 shard", precision="bf16", shard=True)
    trained(folder / "four", accumulate=4, batch=3)
    return {}


def resumed(folder: Path) -> dict[str, Any]:
    """What the other number of processes began is gone on with, first whole and then in shares."""
    trained(folder / "other", newest(folder / "other"), stop=4)
    trained(folder / "other", newest(folder / "other"), shard=True)
    return {}


def faults(folder: Path) -> dict[str, Any]:
    """Trainings that must not end like one process's: what is compared would else see nothing."""
    planted = {
        "no averaging": mock.patch.object(part, "average_gradients", lambda model: None),
        "the same noise": mock.patch.object(part, "rank", lambda: 0),
        "the same data": mock.patch.object(loop, "rank", lambda: 0),
        "each its own loss": mock.patch.object(part, "agreed", lambda values: values * world()),
    }
    for name, patch in planted.items():
        with patch:
            trained(folder / name)
    return {}


def stopped(folder: Path) -> dict[str, Any]:
    """One process is told to stop, or meets a loss that is not finite, or the disk of the first is full."""
    words = {"signal": ended(lambda: trained(folder / "signal", loss=at(5, signalled)))}  # amid step 3
    words["infinite"] = ended(lambda: trained(folder / "infinite", loss=at(6, lambda: float("inf")), log_every=2))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "a file")

    with mock.patch("shared.training.checkpoint.write_checkpoint", full):
        words["full"] = ended(lambda: trained(folder / "full"))
    return words


def once(folder: Path) -> dict[str, Any]:
    """What the first process does for all, and what they do in turn."""

    def fail(error: Exception) -> Callable[[], None]:
        def action() -> None:
            raise error

        return action

    found = {"result": first(lambda: {"by": rank(), "text": "ε" * 5000}), "nothing": first(lambda: None)}
    found["error"] = ended(lambda: first(fail(UserError("wrong"))))
    found["system"] = ended(lambda: first(fail(OSError(13, "Permission denied", "a file"))))
    with in_turn():
        there = (folder / "made").exists()
        if rank() == 0:
            folder.mkdir(exist_ok=True)
            (folder / "made").touch()
    return found | {"there": there}


def writes_of(root: Path) -> list[str]:
    """Every attempt of this process, from here on, to write below a folder, but for the scenarios' own words."""
    found: list[str] = []

    def watch(event: str, arguments: tuple) -> None:
        writing = event == "open" and arguments[2] is not None and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writing or event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate"):
            if str(arguments[0]).startswith(str(root)):
                found.append(f"{event} {arguments[0]}")

    sys.addaudithook(watch)
    return found


def main(root: Path) -> None:
    """Every scenario."""
    torch.set_num_threads(1)
    run_module.git = lambda *_: None  # asking it takes longer than all else
    run_module.write_source = lambda path, task: path.touch()
    writes = writes_of(root)
    words = {}
    for scenario in [alike] if world() == 1 else [alike, resumed, faults, stopped, once]:
        words[scenario.__name__] = scenario(root / scenario.__name__)
    words["writes"] = list(writes)
    (root / f"said-{rank()}.json").write_text(json.dumps(words))
    processes.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
