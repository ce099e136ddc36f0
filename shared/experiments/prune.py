"""Introduced in task 1; used by tasks 1, 2, 3.

`runs prune`: remove runs, or their checkpoints, and nothing else. It says what it would do, until it is told to do it.

What is removed is first renamed to a hidden name, in one step, and deleted there: a kill leaves the whole run, or
something that is no run and that the next prune removes.
"""

import contextlib
import math
import os
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from jsonargparse.typing import NonNegativeFloat

from shared.errors import UserError
from shared.experiments.history import LOCK, STATES, Run, find_runs, is_locked, open_run
from shared.experiments.show import measure
from shared.experiments.tables import clean, size, warn
from shared.files import force, is_number

LEFTOVER = ".pruned-" + "[0-9a-f]" * 16
FILES = (
    *("config.yaml", "record.json", "source*.zip", "changes.patch", "metrics*.jsonl", LOCK, ".partial-*"),
    *("autoencoder.safetensors", "latents.json"),  # stage 2: what a diffusion decodes with, what was measured
    *("teacher.safetensors", "pairs.safetensors", "image.safetensors"),  # stages 4 and 5: what the run began from
    "base.safetensors",  # stage 3: what a ControlNet controls
)
FOLDERS = ("tensorboard", "checkpoints", "averages", "samples", "evaluations", LEFTOVER)
INSIDE = {  # of its folders: those in them, and the files
    "": (FOLDERS, FILES),
    "checkpoints": ((), ("step-*.safetensors", ".partial-*")),
    "averages": ((), ("step-*.safetensors", ".partial-*")),
    "samples": ((), ("step-*.png", "step-*.gif", "training.gif", ".partial-*")),
    "tensorboard": ((), ("events.out.tfevents.*",)),
    "evaluations": (("*",), ()),
    "evaluations/*": ((), ("evaluation.json", "evaluation.md", "reconstructions.png", ".partial-*")),
}
DAY = 24 * 60 * 60.0


@dataclass(frozen=True)
class Target:
    """A run that was chosen."""

    run: Run
    """as it was found"""
    named: bool
    """by the person"""
    path: Path
    """where it lies, whatever the current folder is; only its last part may be a link"""
    version: tuple[int, int]
    """of its record, so that a run which goes on meanwhile is seen"""


def prune(
    runs: Sequence[str] = (),
    folder: str = "runs",
    state: Literal[STATES] | None = None,
    older_than: NonNegativeFloat | None = None,
    checkpoints: bool = False,
    yes: bool = False,
) -> int:
    """Remove runs (by default, those that failed or were killed before their first checkpoint), or say which.

    Args:
        runs: folders or names
        folder: folder of all runs
        state: those in this state
        older_than: of them, those in which nothing has happened for so many days
        checkpoints: remove the checkpoints alone, and keep the record
        yes: do it; without this, nothing is touched
    """
    if checkpoints and not runs and state is None:
        raise UserError("--checkpoints needs to know of which runs: name them, or add --state finished")
    root = Path(folder)
    targets = [target for target in choose(root, runs, state) if is_older(target.run, older_than)]
    found = list(leftovers(root, targets))
    total, count, failed = 0, 0, False
    for target in targets:
        what = target.path / "checkpoints" if checkpoints else target.path
        reason = obstacle(target, root, what)
        amount = 0 if reason else measure(what)[1]
        if yes and not reason:
            reason = remove(target, what)
            failed = failed or reason is not None
        count, total = count + (reason is None), total + (0 if reason else amount)
        print(clean(line(target, what, reason, amount, yes)))
    for path in found:
        count, total = count + 1, total + measure(path)[1]
        print(clean(f"{'removed' if yes else 'would remove'} {path}: left over from a prune that was killed"))
        if yes:
            erase(path)
    print(
        clean(summary(count, total, yes) if targets or found else f"there is no such run in {root}: nothing to remove")
    )
    warn(problem for target in targets for problem in target.run.problems)
    return int(failed)


def line(target: Target, what: Path, reason: str | None, amount: int, yes: bool) -> str:
    """What becomes of a run."""
    if reason:
        return f"kept {target.run.folder}: {reason}"
    part = "the checkpoints of " if what != target.path else ""
    return f"{'removed' if yes else 'would remove'} {part}{target.run.folder}: {target.run.state}, {size(amount)}"


def summary(count: int, total: int, yes: bool) -> str:
    """The last line."""
    if not count:
        return "nothing is removed"
    if yes:
        return f"removed {size(total)}"
    return f"{size(total)} in all; to remove it: {shlex.join(['runs', *sys.argv[1:], '--yes', 'true'])}"


def choose(root: Path, names: Sequence[str], state: str | None) -> Iterator[Target]:
    """The runs that are asked for, each once."""
    seen = set()
    for run in [open_run(name, root) for name in names] or find_runs(root):
        wanted = run.state == state if state or names else run.state in ("failed", "killed")
        if names and state is None or wanted and (names or state or not has_checkpoint(run.folder)):
            path = place(run.folder)
            if path not in seen:
                yield Target(run, bool(names), path, version(path))
            seen.add(path)


def place(folder: Path) -> Path:
    """A folder's path in full. That it is itself a link can still be seen, which `resolve` would hide."""
    return folder.resolve() if folder.name in ("", "..") else folder.parent.resolve() / folder.name


def version(folder: Path) -> tuple[int, int]:
    """Another one each time the record is written."""
    found = (folder / "record.json").stat()
    return found.st_ino, found.st_mtime_ns


def has_checkpoint(folder: Path) -> bool:
    """Whether there is something to resume from."""
    return any(folder.glob("checkpoints/step-*.safetensors"))


def is_older(run: Run, days: float | None) -> bool:
    """Whether nothing has happened in a run for so many days. One whose time is not known is not old."""
    times = [run.record.get("started"), run.record.get("ended"), *(f.get("time") for f in run.metrics[-1:])]
    return days is None or max(filter(is_number, times), default=math.inf) < time.time() - days * DAY


def obstacle(target: Target, root: Path, what: Path) -> str | None:
    """Why a run, or its checkpoints, must stay."""
    path, run = target.path, target.run
    if path.is_symlink():
        return "it is a link; remove it by hand, or name the folder that it leads to"
    if not target.named and not path.is_relative_to(root.resolve()):
        return f"it does not lie in {root}, where only a link leads to it; name it to remove it"
    if run.record and not {"task", "state"} <= run.record.keys():
        return "its record.json is not that of a run"
    if run.state == "running" or is_locked(path):
        return "it is being trained"
    if run.state == "damaged" and not target.named:
        return "its record is damaged; name it to remove it"
    if not what.is_dir():
        return "it has no checkpoints"
    strange = next((p for p in strangers(path) if (path / p).is_relative_to(what)), None)
    return strange and f"no run writes {strange}; put it elsewhere first"


def strangers(folder: Path) -> Iterator[Path]:
    """What is in a run's folder and was not put there by a training: other files, and every link."""
    for above, folders, files in os.walk(folder):
        inside = Path(above).relative_to(folder)
        place = "/".join(inside.parts)
        patterns = next((INSIDE[key] for key in INSIDE if same_place(place, key)), ("*", "*"))
        for names, allowed in zip((folders, files), patterns, strict=True):
            for name in sorted(names):
                known = any(fnmatchcase(name, pattern) for pattern in allowed)
                if not known or (Path(above) / name).is_symlink():
                    yield inside / name


def same_place(place: str, pattern: str) -> bool:
    """Whether a folder inside a run is meant by a pattern, part by part."""
    parts, patterns = place.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def remove(target: Target, what: Path) -> str | None:
    """Remove a run, or its checkpoints, while no other process can open it. Returns why it could not be done."""
    try:
        with FileLock(target.path / LOCK, timeout=0):
            if version(target.path) != target.version:
                return "it has changed just now"
            hidden = what.with_name(f".pruned-{secrets.token_hex(8)}")
            os.rename(what, hidden)
            force(what.parent)
            erase(hidden)
    except Timeout:
        return "it is being trained"
    except OSError as error:
        return f"it cannot be removed: {error.strerror or error}"
    return None


def erase(hidden: Path) -> None:
    """Delete what has a hidden name already. The record first: without it, nothing takes the rest for a run."""
    (hidden / "record.json").unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):  # another prune does the same
        shutil.rmtree(hidden)


def leftovers(root: Path, targets: Sequence[Target]) -> Iterator[Path]:
    """What a killed prune has renamed, and not deleted any more."""
    places = {*root.glob("*"), *root.glob("*/*")} | {p for t in targets for p in (t.path, t.path.parent)}
    seen = set()
    for above in sorted(places):
        linked = above.is_symlink() or above.parent != root and above.parent.is_symlink()
        for path in [] if linked or is_locked(above) else sorted(above.glob(".pruned-*")):
            if fnmatchcase(path.name, LEFTOVER) and path.is_dir() and not path.is_symlink() and place(path) not in seen:
                seen.add(place(path))
                yield path
