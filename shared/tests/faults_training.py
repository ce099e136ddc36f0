"""Trainings that are killed and gone on with: what `test_faults_training.py` looks at.

`python -m shared.tests.faults_training FOLDER` trains in forked children and prints, as JSON, how each ended.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch

from shared.errors import UserError
from shared.tests import tiny
from shared.tests.faults import Killer, killed, watched
from shared.training import checkpoint
from shared.training.averages import Averages
from shared.training.checkpoint import Checkpoints

SHORT = {"steps": 6, "save_every": 2}  # killed at every operation
LONG = {"steps": 40, "save_every": 1}  # killed at random: most of its time are saves


def in_place(path: Path, write: Callable[[Path], object]) -> None:
    """What `write_whole` would be without the rename."""
    write(path)


def forgetful(*_: object) -> None:
    """What a restore would be that leaves something out."""


PLANTED = {  # each must be found, or whoever looks for faults sees nothing
    "in place": mock.patch.object(checkpoint, "write_whole", in_place),
    "no optimizer": mock.patch.object(checkpoint, "load_optimizer", forgetful),
    "no counts": mock.patch.object(Averages, "restore_counts", forgetful),
}


def trained(folder: Path, **options: object) -> None:
    """A training in which everything that a resume must bring back has an effect."""
    part = tiny.part(dropout=0.1, swa_start=1, swa_every=2, schedule="cosine", lr=0.01)
    tiny.fit(tiny.Run(folder), part, **{"accumulate": 2, "keep": 2, "log_every": 0, **options})


def files(folder: Path) -> dict[str, bytes]:
    """Everything in a run's folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def left(folder: Path) -> list[str]:
    """The checkpoints of a run, oldest first."""
    return [path.name for path in Checkpoints(folder / "checkpoints").all()]


def gone_on(folder: Path, whole: Path, **options: int) -> str:
    """Resume a killed run, or start it again where nothing was saved; how its end compares with an unkilled run's.

    That one kept all checkpoints. A run killed after its last save may keep one more than it should, and no other file.
    """
    saved = Checkpoints(folder / "checkpoints").all()
    try:
        trained(folder, resume=saved[-1] if saved else None, **options)
    except UserError as error:
        return str(error)
    last = left(whole)[-1]
    same = files(folder).items() <= files(whole).items() and left(folder)[-1] == last and len(left(folder)) <= 3
    return "equal" if same else "different"


def kill_at(folder: Path, k: int, resumed: bool, whole: Path) -> dict[str, object]:
    """Kill a training at its k-th file event, a new one or a resumed one; how it ended when it was gone on with."""
    if resumed:
        trained(folder, stop=2, **SHORT)
    resume = folder / "checkpoints" / left(folder)[-1] if resumed else None
    reader, writer = os.pipe()

    def train() -> None:
        with watched(Killer(k, writer)):
            trained(folder, resume=resume, **SHORT)

    dead = killed(train)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        events = pipe.read().splitlines()
    return {"events": events, "killed": dead, "left": left(folder), "end": gone_on(folder, whole, **SHORT)}


def every_operation(base: Path, resumed: bool) -> list[dict[str, object]]:
    """A new training or a resumed one, killed at each event in turn, until one gets through or ends otherwise."""
    trained(base / "whole", keep=99, **SHORT)
    points = []
    while not points or (points[-1]["killed"] and points[-1]["end"] == "equal"):
        k = len(points) + 1
        points.append(kill_at(base / f"kill-{k}", k, resumed, base / "whole"))
    return points


def kill_after(folder: Path, seconds: float) -> bool:
    """Kill a training from outside; False where it had ended before."""
    child = os.fork()
    if child == 0:
        try:
            trained(folder, **LONG)
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)  # not waited for yet, so that the number is still its own
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def instants(base: Path, count: int = 20) -> list[dict[str, object]]:
    """A training killed at random instants of its course."""
    trained(base / "whole", keep=99, **LONG)
    began = time.perf_counter()
    trained(base / "timed", **LONG)
    seconds = time.perf_counter() - began
    rng, found = random.Random(0), []
    for i in range(count):
        folder, delay = base / f"instant-{i}", rng.uniform(0, seconds)
        dead = kill_after(folder, delay)
        point = {"delay": delay, "killed": dead, "left": left(folder)}
        found.append(point | {"end": gone_on(folder, base / "whole", **LONG)})
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    at = Path(sys.argv[1])
    result = {
        "new": every_operation(at / "new", resumed=False),
        "resumed": every_operation(at / "resumed", resumed=True),
        "instants": instants(at / "instants"),
        "planted": {},
    }
    for fault, patch in PLANTED.items():
        with patch:
            result["planted"][fault] = every_operation(at / fault, resumed=True)
    print(json.dumps(result))
