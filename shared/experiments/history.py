"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

Reading run folders, one's own and those of others: whatever a file in them holds, the worst that comes of it is a line
that says which file is damaged. Free of torch, so that a list of runs is there at once.

A run knows nothing of where it lies: no file in its folder names the folder, so that a run can be renamed, copied to
another machine, or deleted.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from shared.cli import read_yaml
from shared.errors import UserError
from shared.files import is_number, is_run, read_json

LOCK = ".lock"  # held by the process that trains; the system lets go of it when that process ends, however it ends
STATES = ("running", "finished", "failed", "interrupted", "killed", "damaged")


def read_metrics(path: Path) -> tuple[list[dict[str, float]], int]:
    """The lines of a metrics.jsonl, by step; and how many lines could not be read. The last is unfinished after a
    kill, and not counted."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    except OSError:
        return [], 0
    lines, bad = {}, 0
    for line in text.split("\n")[:-1]:
        try:
            figures = json.loads(line)
            figures = {str(name): value for name, value in figures.items() if is_number(value)}
            lines[int(figures["step"])] = figures
        except (ValueError, KeyError, AttributeError, RecursionError):
            bad += 1
    return [lines[step] for step in sorted(lines)], bad


def numbered(name: str) -> list[str | int]:
    """A name in parts that sort as a person counts: run-9 before run-10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def is_locked(folder: Path) -> bool:
    """Whether a process is training in this folder now."""
    if not (folder / LOCK).exists():
        return False
    try:
        with FileLock(folder / LOCK, timeout=0):
            return False
    except Timeout:
        return True
    except PermissionError:  # somebody else's: only they could know
        return True
    except OSError:  # nothing can be written there, by anybody
        return False


@dataclass(frozen=True)
class Evaluation:
    """What `taskN-evaluate` measured once, and how."""

    path: Path
    task: str
    step: int | None  # optimizer steps of the model
    images: int | None  # images that it had seen
    seconds: float | None  # wall-clock seconds that they took
    main: str  # the figure to name where there is room for one
    protocol: dict[str, Any]  # see `protocol.py`
    figures: dict[str, float]

    @classmethod
    def read(cls, path: Path) -> "Evaluation":
        """From an evaluation.json.

        Raises:
            UserError: it is not one.
        """
        facts = read_json(path)
        protocol, figures = facts.get("protocol"), facts.get("figures")
        if not isinstance(protocol, dict) or not isinstance(figures, dict):
            raise UserError(f"{path} is no evaluation: it lacks a protocol or figures; write it anew by evaluating")
        figures = {name: value for name, value in figures.items() if is_number(value)}
        amounts = [facts.get(name) if is_number(facts.get(name)) else None for name in ("step", "images", "seconds")]
        return cls(path, str(facts.get("task") or ""), *amounts, str(facts.get("main") or ""), protocol, figures)


class Run:
    """A run's folder, read when asked. What is damaged is named in `problems`, and reads as if it were not there."""

    def __init__(self, folder: Path):
        """`folder` holds a record.json, damaged or not."""
        self.folder = folder
        self.problems: list[str] = []

    def _read(self, read, path: Path) -> Any:
        try:
            return read(path)
        except UserError as error:
            self.problems.append(str(error))
            return {}

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name or self.folder.resolve().name

    @cached_property
    def record(self) -> dict[str, Any]:
        """record.json: command, commit, machine, state."""
        return self._read(read_json, self.folder / "record.json")

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.yaml, nested."""
        return self._read(read_yaml, self.folder / "config.yaml")

    @property
    def task(self) -> str:
        """The stage, such as "task1"."""
        return str(self.record.get("task") or self.folder.parent.name)

    @property
    def state(self) -> str:
        """One of STATES. A run that says "running" while no process holds its folder was killed."""
        state = self.record.get("state") if self.record else "damaged"
        if state == "running" and not is_locked(self.folder):
            return "killed"
        return state if state in STATES else "damaged"

    @cached_property
    def metrics(self) -> list[dict[str, float]]:
        """The lines of metrics.jsonl, by step."""
        lines, bad = read_metrics(self.folder / "metrics.jsonl")
        if bad:
            self.problems.append(f"{self.folder / 'metrics.jsonl'} is damaged: {bad} of its lines cannot be read")
        return lines

    @cached_property
    def evaluations(self) -> list[Evaluation]:
        """Every evaluation of this run, the newest last (their folders are named by date, then by number)."""
        paths = sorted(self.folder.glob("evaluations/*/evaluation.json"), key=lambda path: numbered(path.parent.name))
        found = [self._read(Evaluation.read, path) for path in paths]
        return [evaluation for evaluation in found if evaluation]

    def amount(self, name: str) -> float | None:
        """How many `step`s, `images` or wall-clock `seconds` the run took so far, or its `peak_memory_gib`."""
        values = [self.record.get(name), *(line.get(name) for line in self.metrics[-1:])]
        return max((value for value in values if is_number(value)), default=None)

    def seconds_at(self, step: int) -> float | None:
        """Wall-clock seconds of training up to a step, by the last line of figures that is not later."""
        if self.record.get("step") == step and is_number(self.record.get("seconds")):
            return self.record["seconds"]
        known = [line["seconds"] for line in self.metrics if line["step"] <= step and "seconds" in line]
        return known[-1] if known else None

    def main_figure(self) -> tuple[str, float] | None:
        """Name and value of the newest evaluation's main figure; else the last loss; else None."""
        for evaluation in reversed(self.evaluations):
            if evaluation.main in evaluation.figures:
                return evaluation.main, evaluation.figures[evaluation.main]
        losses = [line["loss"] for line in self.metrics if "loss" in line]
        return ("loss", losses[-1]) if losses else None


def in_stage(task: str, stage: str | None) -> bool:
    """Whether a run is of a stage: "task2" is "task2-autoencoder" too; None is any."""
    return stage is None or task == stage or task.startswith(f"{stage}-")


def find_runs(root: Path) -> Iterator[Run]:
    """The runs in a folder of runs, `root/<task>/<name>`, by task and start."""
    found = [Run(path) for path in sorted(root.glob("*/*")) if is_run(path) and not path.name.startswith(".")]

    def started(run: Run) -> float:
        return run.record["started"] if is_number(run.record.get("started")) else 0.0

    yield from sorted(found, key=lambda run: (run.task, started(run)))


def open_run(name: str, root: Path) -> Run:
    """A run by its folder, or by its name where one run in `root` alone has it.

    Raises:
        UserError: there is none, or several have this name.
    """
    if is_run(Path(name)):
        return Run(Path(name))
    named = [run for run in find_runs(root) if name in (run.name, f"{run.task}/{run.name}")]
    if len(named) > 1:
        raise UserError(
            f"several runs are called {name}: {', '.join(str(run.folder) for run in named)}; give the folder"
        )
    if not named:
        raise UserError(f"there is no run {name}, neither as a folder nor as a name in {root}: see runs")
    return named[0]


def latest_run(root: Path, task: str) -> Path:
    """The folder of the run of a task that was started last.

    Raises:
        UserError: there is none.
    """
    runs = [run for run in find_runs(root) if run.folder.parent.name == task and run.state != "damaged"]
    if not runs:
        raise UserError(f"there is no run in {root / task}: train one first")
    return runs[-1].folder
