"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

A sweep's folder, `runs/sweeps/<name>/`, and what has become of its trials.

    sweep.yaml       the search, every field resolved
    base.yaml        the base config with the overrides, as it was when the sweep began
    trials.json      the points of all trials so far; which were stopped early, which failed before they had a record
    configs/         each trial's config
    logs/            what each training and evaluation printed
    trials.md, .csv  the outcome
    parallel.png     the same, to look at
    ray/             Ray's own notes while it runs, removed afterwards

The trials' runs lie where all runs lie, `runs/<task>/<sweep>-<number>`, and their records are what counts: what a
record says is not written down here a second time. Ray would pickle its state, and unpickle it to go on; a sweep's
folder may come from somebody else, so that Ray's notes are thrown away instead, and a killed sweep goes on from this
JSON file and the records: searcher and scheduler are told again what they had been told.
"""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from glob import escape
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from shared.cli import read_yaml
from shared.errors import UserError
from shared.experiments.history import LOCK, Run
from shared.experiments.run import new_folder, plain
from shared.experiments.sweep.config import SweepConfig, read_sweep
from shared.experiments.sweep.space import merged
from shared.files import is_number, is_run, read_json, write_text

SWEEPS = "sweeps"  # in the folder of all runs, where stages have theirs


@dataclass
class Trial:
    """One point of the space."""

    number: int
    """from 0"""
    values: dict[str, Any]
    """field -> value"""
    stopped: int | None = None
    """the optimizer step at which ASHA stopped it"""
    failed: str | None = None
    """why it ended before it was finished"""


class Sweep:
    """An open sweep; no other process can open it until it is released."""

    def __init__(self, folder: Path, config: SweepConfig, base: dict[str, Any], trials: Sequence[Trial] = ()):
        """Use `create` for a new one and `reopen` for an old one."""
        self.folder, self.config, self.base, self.trials = folder.resolve(), config, base, list(trials)
        self.root = Path(os.path.abspath(folder)).parents[1].resolve()  # also where it was moved
        self._lock = FileLock(self.folder / LOCK, timeout=0, thread_local=False)
        try:
            self._lock.acquire()
        except Timeout:
            raise UserError(f"{folder} is being run by another process: wait for it, or stop it first") from None

    def release(self) -> None:
        """Let others open it."""
        self._lock.release()

    def __getstate__(self) -> dict[str, Any]:
        """Without the lock: Ray keeps a copy of what it is given."""
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    @classmethod
    def create(cls, name: str, config: SweepConfig, base: dict[str, Any], points: Sequence[dict[str, Any]]) -> "Sweep":
        """Make the folder of a new sweep.

        Args:
            name: of the folder, with which the names of the runs begin.
            config, base: what is tried, and of what.
            points: of the trials that are known already.

        Raises:
            UserError: there is a sweep of this name, or a run with the name of a trial.
        """
        if not name.isprintable() or Path(name).name != name or name.startswith(".") or not name:
            raise UserError(f"--name {name} must be the name of a folder, without a path or a dot before it")
        root = Path(config.folder)
        trials = re.compile(rf"{re.escape(name)}-[0-9]+")
        if taken := next((path for path in root.glob("*/*") if trials.fullmatch(path.name) and is_run(path)), None):
            raise UserError(f"the run {taken} has the name of a trial: choose another --name")
        try:
            folder = new_folder(root / SWEEPS, name)
        except FileExistsError as error:
            there = error.filename
            raise UserError(
                f"the sweep {there} exists: choose another --name, or go on with it by --resume {there}"
            ) from None
        sweep = cls(folder, config, base, [Trial(n, point) for n, point in enumerate(points)])
        (folder / "configs").mkdir()
        (folder / "logs").mkdir()
        for file, content in (("base.yaml", base), ("sweep.yaml", plain(config.to_dict()))):
            write_text(folder / file, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
        sweep.save()  # last: with it, the folder is a sweep's
        return sweep

    @classmethod
    def reopen(cls, folder: Path) -> "Sweep":
        """An existing sweep, to go on with.

        Raises:
            UserError: the folder is no sweep's, its files were changed, or another process has it open.
        """
        if not (folder / "trials.json").is_file():
            raise UserError(f"{folder} is not the folder of a sweep: it has no trials.json")
        facts = read_json(folder / "trials.json")
        place = Path(os.path.abspath(folder))
        began = facts.get("name", place.name)
        if (place.parent.name, place.name) != (SWEEPS, began):
            raise UserError(
                f"{folder} is not where its runs know it: name it {SWEEPS}/{began} again, in the folder of all runs"
            )
        if facts.get("of") != digest(folder):
            raise UserError(
                f"{folder}: sweep.yaml or base.yaml is not as it was when the sweep began, "
                "and trials of two searches do not go into one table: put it back, or begin a new sweep"
            )
        config = read_sweep(folder / "sweep.yaml")
        try:
            trials = [Trial(**trial) for trial in facts["trials"]]
            sound = all(t.number == n and t.values.keys() == config.space.keys() for n, t in enumerate(trials))
            sound = sound and all(t.stopped is None or is_number(t.stopped) for t in trials)
        except (TypeError, KeyError, AttributeError):
            sound = False
        if not sound or len(trials) > config.count:
            raise UserError(f"{folder / 'trials.json'} is damaged: take it from a copy of the sweep")
        return cls(folder, config, read_yaml(folder / "base.yaml"), trials)

    def save(self) -> None:
        """Write down what is known of the trials."""
        facts = {
            "of": digest(self.folder),
            "name": self.folder.name,
            "trials": [asdict(trial) for trial in self.trials],
        }
        write_text(self.folder / "trials.json", json.dumps(facts, indent=1) + "\n")

    def prepare(self, trial: Trial) -> None:
        """Write a trial's config, and then that there is such a trial."""
        content = yaml.safe_dump(merged(self.base, trial.values), sort_keys=False, allow_unicode=True)
        write_text(self.folder / "configs" / f"{self.name(trial)}.yaml", content)
        self.save()

    def name(self, trial: Trial) -> str:
        """The name of a trial's run."""
        return f"{self.folder.name}-{trial.number:0{len(str(self.config.count - 1))}d}"

    def run(self, trial: Trial) -> Run | None:
        """A trial's run, as it is now; None where there is none yet."""
        return run_of(self.root, self.name(trial))

    def figure(self, trial: Trial) -> tuple[int, float] | None:
        """A trial's figure, and the optimizer step that it is of; None where there is none (yet)."""
        run = self.run(trial)
        if run is None:
            return None
        until = None if run.state == "finished" else trial.stopped  # it was at its end before it heard of it
        return figure_of(run, self.config.figure, bool(self.config.evaluate), until)

    def ended(self, trial: Trial) -> bool:
        """Whether there is nothing left to do for a trial."""
        if trial.failed is not None or trial.stopped is not None:
            return True
        run = self.run(trial)
        return run is not None and run.state == "finished" and self.figure(trial) is not None


def digest(folder: Path) -> str:
    """Of what a sweep was asked for: as trials.json has it."""
    try:
        return hashlib.sha256(b"\0".join((folder / f).read_bytes() for f in ("sweep.yaml", "base.yaml"))).hexdigest()
    except OSError as error:
        raise UserError(f"{folder} is not the whole folder of a sweep: {error.strerror} {error.filename}") from None


def run_of(root: Path, name: str) -> Run | None:
    """The run of a name, whatever its stage."""
    return next((Run(path) for path in sorted(root.glob(f"*/{escape(name)}")) if is_run(path)), None)


def figure_of(run: Run, figure: str, evaluated: bool, until: int | None = None) -> tuple[int, float] | None:
    """What is compared of a run.

    Args:
        run: the run.
        figure: its name.
        evaluated: whether it is one of an evaluation, and not of metrics.jsonl.
        until: the last step that counts.

    Returns:
        step and figure; None where there is none.
    """
    if evaluated:
        found = [e for e in run.evaluations if figure in e.figures]
        return (int(found[-1].step or run.amount("step") or 0), found[-1].figures[figure]) if found else None
    lines = [line for line in run.metrics if figure in line and (until is None or line["step"] <= until)]
    return (int(lines[-1]["step"]), lines[-1][figure]) if lines else None
