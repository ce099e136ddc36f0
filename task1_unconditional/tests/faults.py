"""task1-train, killed at random instants or on a disk that fills up: what `test_faults.py` looks at.

The functions run in a process of their own (`shared.tests.limited`): pytest's is none to be forked.
"""

import os
import random
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import torch

from shared.experiments import provenance, run
from shared.tests.limited import small_disk
from shared.training.checkpoint import Checkpoints
from task1_unconditional.tests.commands import TINY, Ended, do_sample, do_train, figures, record
from task1_unconditional.tests.test_resume import assert_same_end

STEPS = 12
OPTIONS = [
    *TINY,
    *f"--train.steps {STEPS} --train.log-every 1 --train.save-every 3 --train.sample-every 3".split(),
    *"--averages.swa-start 2 --averages.swa-every 2 --network.dropout 0.1 --optimizer.schedule cosine".split(),
]
RUNS = Path("runs/task1")
STAGES = ["nothing", "record", "set-up", *(f"step-{n:08d}" for n in range(3, STEPS + 1, 3))]  # what a run gets to


def ready(at: str) -> None:
    """Go to a folder, and train a run there that nothing happens to; afterwards all is imported."""
    os.chdir(at)
    torch.set_num_threads(1)
    for module in (provenance, run):
        mock.patch.object(module, "git", lambda *_: None).start()  # asking it takes longer than such a training
    assert do_train(*OPTIONS, "--run.name", "whole").status == 0


def killed_after(seconds: float, *options: object, got: Callable[[], bool] = lambda: True) -> bool:
    """Kill task1-train from outside, so long after it `got` somewhere; False where it had ended before."""
    child = os.fork()
    if child == 0:
        try:
            do_train(*options)
        finally:
            os._exit(0)
    while not got() and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        time.sleep(0.001)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)  # not waited for yet, so that the number is still its own
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def reached(folder: Path) -> str:
    """How far a run got, by what it left."""
    if saved := Checkpoints(folder / "checkpoints").all():
        return saved[-1].stem
    return "set-up" if (folder / "metrics.jsonl").exists() else "record" if folder.exists() else "nothing"


def pictures(folder: Path) -> dict[str, bytes]:
    """The pictures of a run, and whatever lies beside them."""
    return {path.name: path.read_bytes() for path in (folder / "samples").iterdir()}


def faults_of(folder: Path) -> list[str]:
    """What is otherwise in a run that has ended than in the one to which nothing happened."""
    whole, found = RUNS / "whole", []
    try:
        assert_same_end(folder, whole)
    except AssertionError as error:
        found.append(f"another end: {error}")
    if [line["step"] for line in figures(folder)] != list(range(1, STEPS + 1)):
        found.append("steps in metrics.jsonl")
    if pictures(folder) != pictures(whole):
        found.append(f"pictures: {sorted(pictures(folder))}")
    if record(folder)["state"] != "finished":
        found.append(f"state {record(folder)['state']}")
    if left := [path.name for path in folder.rglob(".partial-*")]:
        found.append(f"left: {left}")
    return found


def one_line(ended: Ended) -> str:
    """The error that a command ended in, if it is one line; else all it said."""
    last = ended.err.splitlines()[-1] if ended.err else ""
    right = ended.status == 1 and last.startswith("task1-train: error: ") and "Traceback" not in ended.err
    return last.removeprefix("task1-train: error: ") if right else f"status {ended.status}: {ended.err}"


def kills(at: str, count: str) -> list[dict]:
    """Runs killed at random, resumed, killed again and resumed; or where nothing was saved, begun anew.

    The first kill comes a random while after the run got to each stage in turn: how much of a training is set-up
    differs between machines, and instants drawn from the clock alone may miss all that comes late.
    """
    ready(at)
    began = time.perf_counter()
    assert do_train(*OPTIONS, "--run.name", "timed").status == 0
    seconds, rng, found = time.perf_counter() - began, random.Random(0), []
    for i in range(int(count)):
        folder = RUNS / f"run-{i}"
        got = partial(lambda folder, stage: STAGES.index(reached(folder)) >= stage, folder, i % (len(STAGES) - 1))
        dead = [killed_after(rng.uniform(0, seconds / 8), *OPTIONS, "--run.name", folder.name, got=got)]
        stages = [reached(folder)]
        if stages[0].startswith("step"):
            dead.append(killed_after(rng.uniform(seconds / 4, seconds), "--resume", folder))
            stages.append(reached(folder))
        ended, message = do_train("--resume", folder), ""
        if not stages[0].startswith("step"):
            message, folder = one_line(ended), folder.with_name(f"anew-{i}")
            ended = do_train(*OPTIONS, "--run.name", folder.name)
        faults = faults_of(folder) if ended.status == 0 else [ended.err]
        found.append({"killed": dead, "stages": stages, "message": message, "faults": faults})
    return found


def pages(*paths: Path) -> int:
    """What files take on a disk, in its smallest units."""
    return sum(-(-path.stat().st_size // 4096) for path in paths)


def sizes() -> list[int]:
    """Of disks, in pages: some that end amid the set-up, and some that end amid checkpoints and pictures."""
    files = [path for path in (RUNS / "whole").rglob("*") if path.is_file()]
    begun = pages(*(path for path in files if path.parent.name not in ("checkpoints", "samples")))
    return [1, 2, *range(begun - 6, begun + 2), *(begun + i * (pages(*files) - begun) // 7 for i in range(1, 9))]


def full_disks(at: str) -> list[dict]:
    """Runs on disks that fill up; and how each ended when there was room."""
    ready(at)
    found = []
    for size in sizes():
        disk = Path(f"disk-{size}")
        disk.mkdir()
        small_disk(disk, f"size={4 * size}k")
        ended, folder = do_train(*OPTIONS, "--run.folder", disk, "--run.name", "full"), disk / "task1" / "full"
        end = {
            "size": size,
            "full": ended.status == 1,
            "stage": reached(folder),
            "message": one_line(ended),
            "state": record(folder).get("state") if (folder / "record.json").is_file() else None,
            "left": [path.name for path in disk.rglob(".partial-*")],
        }
        small_disk(disk, "size=64m")
        if end["stage"].startswith("step"):
            ended = do_train("--resume", folder)
        else:
            folder = folder.with_name("anew")
            ended = do_train(*OPTIONS, "--run.folder", disk, "--run.name", "anew")
        found.append(end | {"faults": faults_of(folder) if ended.status == 0 else [ended.err]})
    return found


def sampled(at: str, *names: str) -> dict[str, dict[str, object]]:
    """How task1-sample ends for files from a stranger."""
    os.chdir(at)
    ended = {name: do_sample("--run", f"{name}.safetensors", "--n", 1, "--out", "out") for name in names}
    return {name: {"status": end.status, "err": end.err} for name, end in ended.items()}
