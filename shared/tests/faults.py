"""What may happen to a program at any of its file operations: it is killed, or the operation fails.

`python -m shared.tests.faults FOLDER` saves a checkpoint in forked children, and kills one before and one after every
operation. It prints what was left each time, as JSON.
"""

import contextlib
import errno
import io
import json
import os
import random
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import torch

from shared.tests import tiny
from shared.training.averages import Averages
from shared.training.checkpoint import Checkpoints, restore
from shared.training.optim import build_optimizer

CALLS = (
    "open",
    "close",
    "fsync",
    "replace",
    "rename",
    "unlink",
    "remove",
    "mkdir",
    "scandir",
    "listdir",
    "chmod",
)


class Written:
    """A file opened for writing, each write of it in two halves."""

    def __init__(self, file, event: Callable[[str], None]):
        self.file, self.event = file, event

    def write(self, content):
        """Half of it reaches the file before the event between the two."""
        half = len(content) // 2
        self.event("before write")
        self.file.write(content[:half])
        self.file.flush()
        self.event("amid write")
        self.file.write(content[half:])
        self.file.flush()
        self.event("after write")
        return len(content)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.event("before close")
        self.file.close()
        self.event("after close")

    def __getattr__(self, name):
        return getattr(self.file, name)


@contextlib.contextmanager
def watched(event: Callable[[str], None]) -> Iterator[None]:
    """Call `event(name)` before and after every file operation that Python code starts."""

    def around(name: str, function):
        def call(*arguments, **options):
            event(f"before {name}")
            result = function(*arguments, **options)
            event(f"after {name}")
            return result

        return call

    def opened(file, mode="r", *arguments, **options):
        if "r" in mode:
            return plain(file, mode, *arguments, **options)
        event("before create")
        result = Written(plain(file, mode, *arguments, **options), event)
        event("after create")
        return result

    plain = io.open
    with contextlib.ExitStack() as stack:
        for name in CALLS:
            stack.enter_context(mock.patch.object(os, name, around(name, getattr(os, name))))
        stack.enter_context(mock.patch.object(io, "open", opened))
        stack.enter_context(mock.patch("builtins.open", opened))
        yield


def failing(name: str, number: int = errno.ENOSPC) -> contextlib.AbstractContextManager:
    """A `with` block in which the operation after the event `name` fails."""

    def event(now: str) -> None:
        if now == name:
            raise OSError(number, os.strerror(number), "the disk")

    return watched(event)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """A file's content after a fault at random: cut short, bits turned, bytes overwritten, lost, added or exchanged."""
    if not content:
        return content
    found, at = bytearray(content), rng.randrange(len(content))
    length = min(rng.choice((1, 2, 16, 512, 4096)), len(content) - at)
    kind = rng.choice(("cut", "bit", "bits", "noise", "zeros", "lost", "added", "moved"))
    if kind == "cut":
        del found[at:]
    elif kind in ("bit", "bits"):
        for _ in range(1 if kind == "bit" else 20):
            found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    elif kind == "noise":
        found[at : at + length] = rng.randbytes(length)
    elif kind == "zeros":
        found[at : at + length] = bytes(length)
    elif kind == "lost":
        del found[at : at + length]
    elif kind == "added":
        found[at:at] = rng.randbytes(length)
    else:
        there = rng.randrange(len(content) - length + 1)
        found[there : there + length] = content[at : at + length]
    return bytes(found)


class State:
    """A model, its averages and its optimizer after n steps, to be saved."""

    name = ""  # it is the only part
    memory = None

    def __init__(self, n: int):
        self.n, self.part = n, tiny.part(swa_start=0, swa_every=1)
        self.model = self.part.model
        self.averages = Averages(self.model, self.part.averages)
        self.optimizer = build_optimizer(self.model, self.part.optimizer)
        for i in range(n):
            torch.manual_seed(i)
            tiny.loss(self.model, torch.randn(4, 1, 4, 4), {}).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.averages.update(self.model, i + 1)

    def save(self, checkpoints: Checkpoints) -> Path:
        """As the loop does."""
        return checkpoints.save(self.n, [self], {"a": 1})

    def values(self) -> list[torch.Tensor | int]:
        """Everything that a checkpoint must hold."""
        moments = [v for state in self.optimizer.state_dict()["state"].values() for v in state.values()]
        networks = [self.model, *(self.averages.network(name) for name in ("ema", "swa"))]
        weights = [value for network in networks for value in network.state_dict().values()]
        return [*weights, *moments, *self.averages.counts().values()]

    def equals(self, other: "State") -> bool:
        """Bit for bit."""
        pairs = list(zip(self.values(), other.values(), strict=True))
        return all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in pairs)


def restored(path: Path) -> State:
    """What a checkpoint holds."""
    state = State(0)
    state.n = restore(path, [state])
    return state


def prepared(folder: Path, states: list[State]) -> Checkpoints:
    """A folder in which a save finds all it can: two checkpoints, one of which must go, and what a kill left."""
    checkpoints = Checkpoints(folder, keep=2)
    for state in states:
        state.save(checkpoints)
    (folder / ".partial-step-00000009.safetensors").write_bytes(b"half")
    return checkpoints


def killed(act: Callable[[], None]) -> bool:
    """Do something in a forked child; whether it died of a signal."""
    child = os.fork()
    if child == 0:
        try:
            act()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


class Killer:
    """An event that kills this process at its k-th call. The names go through a pipe: memory dies with the process."""

    def __init__(self, k: int, pipe: int):
        self.left, self.pipe, self.write = k, pipe, os.write

    def __call__(self, name: str) -> None:
        self.write(self.pipe, f"{name}\n".encode())
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def left_behind(folder: Path, old: State, new: State, later: State) -> dict[str, object]:
    """What a killed save left in a folder, and whether the next save puts it in order."""
    checkpoints = Checkpoints(folder, keep=2)
    newest = checkpoints.latest()
    state = restored(newest)
    whole = all(restored(path).n == int(path.stem[5:]) for path in checkpoints.all())
    which = next((name for name, s in (("old", old), ("new", new)) if state.n == s.n and state.equals(s)), "neither")
    later.save(checkpoints)
    kept = sorted(path.name for path in folder.iterdir())
    clean = (
        kept[-1] == f"step-{later.n:08d}.safetensors"
        and len(kept) == 2
        and restored(checkpoints.latest()).equals(later)
    )
    return {"newest": which, "all whole": whole, "next save": clean}


def kill_at(base: Path, k: int) -> dict[str, object]:
    """Kill a save at its k-th event; what happened until then, and what was left."""
    older, old, new, later = (State(n) for n in (1, 2, 3, 4))
    checkpoints = prepared(base / f"kill-{k}", [older, old])
    reader, writer = os.pipe()

    def save() -> None:
        with watched(Killer(k, writer)):
            new.save(checkpoints)

    dead = killed(save)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        events = pipe.read().splitlines()
    return {"events": events, "killed": dead} | left_behind(checkpoints.folder, old, new, later)


def kill_at_byte(base: Path, limit: int) -> dict[str, object]:
    """Have the kernel kill a save that has written more than `limit` bytes: no Python code is asked."""
    older, old, new, later = (State(n) for n in (1, 2, 3, 4))
    checkpoints = prepared(base / f"limit-{limit}", [older, old])

    def save() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        new.save(checkpoints)

    return {"killed": killed(save)} | left_behind(checkpoints.folder, old, new, later)


def audited(base: Path) -> list[str]:
    """The file operations of a save as the interpreter itself reports them, whatever module starts them."""
    checkpoints = prepared(base / "audit", [State(1), State(2)])
    state, folder, seen = State(3), str(checkpoints.folder), []

    def hook(event: str, arguments: tuple) -> None:
        if event in ("open", "os.rename", "os.remove") and str(arguments[0]).startswith(folder):
            seen.append(event)

    sys.addaudithook(hook)  # for good: this comes last
    state.save(checkpoints)
    return list(seen)


if __name__ == "__main__":
    torch.set_num_threads(1)
    at = Path(sys.argv[1])
    limits = [kill_at_byte(at, limit) for limit in (0, 1, 100, 5000)]
    points = [kill_at(at, k=1)]
    while points[-1]["killed"]:
        points.append(kill_at(at, k=len(points) + 1))
    print(json.dumps({"points": points, "limits": limits, "audit": audited(at)}))
