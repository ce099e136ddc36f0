"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

Writing the record of a run: one folder that holds what was asked for, by which code on which machine, and what came of
it. `history.py` reads it.

    record.json      command, commit, packages, hardware, state, time, memory
    config.yaml      every field, resolved
    source.zip       the code as it was, with what git did not know
    changes.patch    what differs from the commit
    metrics.jsonl    a line of figures at each report
    tensorboard/     the same curves
    checkpoints/     see `shared/training/checkpoint`
    averages/        snapshots of profiles, for `shared/training/posthoc`
    samples/         pictures
    evaluations/     what was measured afterwards, a folder each
    .lock            held while it is trained
"""

import contextlib
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from filelock import FileLock, Timeout

from shared.errors import UserError
from shared.experiments.config import RunConfig
from shared.experiments.history import LOCK, Run, read_metrics
from shared.experiments.provenance import git, peak_memory_gib, provenance, write_source
from shared.files import is_number, is_run, read_json, write_text, write_whole

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")
WAIT = 10.0  # seconds for which a lock is waited: the loaders of a killed training outlive it a little
MAX_NAMED = 100  # files that a data set could not read
PEAKS = ("peak_memory_gib", "peak_gpu_memory_gib")
KEPT_OUT = ("images", "seconds", *PEAKS)  # of TensorBoard: no curves to look at


def plain(value: Any) -> Any:
    """A config with tuples as lists, as YAML and JSON give it back."""
    return json.loads(json.dumps(value))


def new_folder(parent: Path, name: str | None = None) -> Path:
    """Make a folder that nobody else has: two processes at once get two.

    Args:
        parent: where; made as well.
        name: its name; by default date and time, with a number where that is taken.

    Raises:
        FileExistsError: the name is given, and taken.
    """
    parent.mkdir(parents=True, exist_ok=True)
    stamp = name or datetime.now().strftime("%Y-%m-%d-%H%M%S")
    for suffix in ["", *(f"-{i}" for i in range(2, 1000))]:
        folder = parent / f"{stamp}{suffix}"
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            if name:
                raise
    raise FileExistsError(f"{parent / stamp}")


def clear_beginning(folder: Path) -> None:
    """Remove the folder of a run that was killed before it had written anything."""
    with contextlib.suppress(OSError, Timeout):
        if {path.name for path in folder.iterdir()} <= {LOCK, ".partial-record.json"}:
            with FileLock(folder / LOCK, timeout=0):
                shutil.rmtree(folder)


def lock(folder: Path) -> FileLock:
    """Hold a run's folder until `release`, or until this process ends.

    Raises:
        UserError: another process holds it.
    """
    held = FileLock(folder / LOCK, timeout=WAIT, thread_local=False)
    try:
        held.acquire()
    except Timeout:
        raise UserError(f"{folder} is being trained by another process: wait for it, or stop it first") from None
    return held


class RunRecord:
    """An open run folder; no other process can open it until it is closed."""

    def __init__(self, folder: Path, config: dict[str, Any], held: FileLock):
        """Use `create` for a new one and `reopen` for an old one."""
        self._folder, self.config = folder, config
        self._handle = os.open(folder, os.O_RDONLY)  # of the folder itself, whatever it is called later
        self.step, self.images, self.before, self.peaks = 0, 0, 0.0, {}
        self._opened, self._lock, self._writer, self._new = time.perf_counter(), held, None, False
        self._skipped: list[str] = []

    @property
    def folder(self) -> Path:
        """Where the run lies: it may be renamed while it is trained (seen on Linux; elsewhere that ends the run)."""
        if self._handle is None:
            return self._folder
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(self._handle), os.stat(self._folder)):
                return self._folder
        with contextlib.suppress(OSError):
            moved = Path(os.readlink(f"/proc/self/fd/{self._handle}"))
            if os.path.samestat(os.fstat(self._handle), os.stat(moved)):
                self._folder = moved
                return moved
        raise UserError(f"{self._folder} was moved or removed while it was trained: nothing more is written")

    @classmethod
    def create(cls, task: str, run: RunConfig, config: dict[str, Any]) -> "RunRecord":
        """Make the folder of a new run and write down what is known before it starts.

        Raises:
            UserError: a run of that name exists, or the name is none.
            OSError: the folder cannot be written; then there is none.
        """
        plain_name = run.name is None or (run.name.isprintable() and Path(run.name).name == run.name != "")
        if not plain_name or (run.name or "").startswith("."):
            raise UserError(
                f"run.name is {run.name}: it must be the name of a folder, without a path or a dot before it"
            )
        try:
            clear_beginning(Path(run.folder) / task / (run.name or " "))
            folder = new_folder(Path(run.folder) / task, run.name)
        except FileExistsError as error:
            there = error.filename
            raise UserError(
                f"the run {there} exists: choose another --run.name, or go on with it by --resume {there}"
            ) from None
        try:
            record = cls(folder, plain(config), lock(folder))
            record._new = True
            begun = {**provenance(), "started": time.time()}
            # first, as it is what makes this folder a run
            record.note({"task": task, "state": "running", "seed": seed_of(record.config), **begun})
            write_text(folder / "config.yaml", yaml.safe_dump(record.config, sort_keys=False, allow_unicode=True))
            write_whole(folder / "source.zip", lambda path: write_source(path, task))
            if changes := git("diff", "--binary", "--no-color", "--no-ext-diff", "HEAD"):
                write_text(folder / "changes.patch", changes)
        except BaseException:  # a full disk, Ctrl-C: nothing has begun
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return record

    @classmethod
    def reopen(cls, folder: Path) -> "RunRecord":
        """An existing run, to go on with.

        Raises:
            UserError: the folder is not that of a run, its record is damaged, or another process trains in it.
        """
        if not is_run(folder):
            raise UserError(f"{folder} is not the folder of a run: it has no record.json")
        held = lock(folder)
        run = Run(folder)
        record = cls(folder, run.config, held)
        if not run.record or not run.config or not re.fullmatch(r"task\d(-\w+)?", run.task, re.ASCII):
            held.release()
            problem = f"{folder / 'record.json'} is damaged: it names no stage; take it from a copy of the run"
            raise UserError("; ".join(run.problems) or problem)
        return record

    def go_on(self, n: int) -> None:
        """Go on from step n: forget the figures of later steps, which come again, and note by which code."""
        path = self.folder / "metrics.jsonl"
        lines, bad = read_metrics(path)
        if bad:  # they are not understood here, and not thrown away
            write_whole(self.folder / "metrics-damaged.jsonl", lambda copy: shutil.copyfile(path, copy))
        self.step, self.before = n, Run(self.folder).seconds_at(n) or 0.0
        if path.exists():
            write_text(path, "".join(json.dumps(line) + "\n" for line in lines if line["step"] <= n))
        record = read_json(self.folder / "record.json")
        self.peaks = {name: record[name] for name in PEAKS if is_number(record.get(name))}
        again = {**provenance(), "started": time.time(), "from_step": n}
        again = {name: value for name, value in again.items() if record.get(name) != value}  # what is new
        before = record.get("resumed")
        sessions = [*(before if isinstance(before, list) else []), again]
        source = self.folder / f"source-{len(sessions) + 1}.zip"
        write_whole(source, lambda temporary: write_source(temporary, Run(self.folder).task))
        kept = sorted(self.folder.glob("source*.zip"))
        same = [old for old in kept if old != source and old.read_bytes() == source.read_bytes()]
        again["source"] = (same or [source])[0].name
        if same:
            os.unlink(source)
        self.note({"state": "running", "reason": None, "resumed": sessions})

    def note(self, facts: dict[str, Any]) -> None:
        """Add facts to record.json, or replace those of the same name."""
        path = self.folder / "record.json"
        known = {} if self._new else read_json(path)  # where it is gone, the run was moved or removed: say so
        write_text(path, json.dumps(known | facts, indent=2) + "\n")
        self._new = False

    def reached(self, n: int, images: int) -> None:
        """The run has taken n optimizer steps and seen so many images."""
        self.step, self.images = n, images

    def amounts(self) -> dict[str, float]:
        """Images seen, wall-clock seconds and peak memory over all sessions, as of now."""
        seconds = self.before + time.perf_counter() - self._opened
        peaks = {name: max(value, self.peaks.get(name, 0.0)) for name, value in peak_memory_gib().items()}
        return {"images": self.images, "seconds": round(seconds, 3), **peaks}

    def log(self, n: int, figures: dict[str, float]) -> None:
        """Write the figures of step n to metrics.jsonl and TensorBoard."""
        figures = {**figures, **self.amounts()}
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": n, "time": time.time(), **figures}) + "\n")
        if self._writer is not None and not Path(self._writer.log_dir).exists():  # the run was renamed
            with contextlib.suppress(OSError):
                self._writer.close()
            self._writer = None
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            threading.excepthook = quiet
            self._writer = SummaryWriter(str(self.folder / "tensorboard"), purge_step=n)
        for name, value in figures.items():
            if name not in KEPT_OUT:
                self._writer.add_scalar(name, value, n)

    def skipped(self, names: list[str]) -> None:
        """Note what the data set could not read, with what was noted before: a run that is gone on with meets it anew.

        All are counted, at most MAX_NAMED are named.
        """
        if names == self._skipped:
            return
        before = read_json(self.folder / "record.json").get("skipped")
        before = before if isinstance(before, dict) else {}
        known = [name for name in before.get("names") or [] if isinstance(name, str)]
        together = list(dict.fromkeys([*known, *names]))
        count = before.get("count")
        count = max(len(together), count if is_number(count) else 0)
        self.note({"skipped": {"count": count, "names": together[:MAX_NAMED]}})
        self._skipped = names

    def keep(self, write: Callable[[Path], T]) -> T:
        """Have `write(folder)` add something to the folder; returns what it returns."""
        return write(self.folder)

    def picture(self, n: int, image: "Image") -> None:
        """Keep a picture of step n."""
        from shared import pictures  # brings torch, which those who only read runs do without

        pictures.save(image, self.folder / "samples" / f"step-{n:08d}.png")

    @contextlib.contextmanager
    def closing(self) -> Iterator[None]:
        """Note how what is done inside ends: finished, interrupted, or failed with the reason."""
        try:
            yield
        except BaseException as error:
            with contextlib.suppress(OSError, UserError):  # a full disk, perhaps: the first error is the one to report
                self.close(
                    "interrupted" if isinstance(error, KeyboardInterrupt) else "failed", str(error) or repr(error)
                )
            raise
        self.close("finished")

    def close(self, state: str, reason: str | None = None) -> None:
        """Say how the run ended: "finished", "interrupted", or "failed" with the reason; and let go of the folder."""
        try:
            if self._writer is not None and Path(self._writer.log_dir).exists():
                self._writer.close()
            self.note({"state": state, "reason": reason, "ended": time.time(), "step": self.step, **self.amounts()})
        finally:
            self._lock.release()
            os.close(self._handle)
            self._handle = None  # the folder stays where it was last seen


def quiet(arguments: threading.ExceptHookArgs) -> None:
    """Print no traceback of TensorBoard's thread: what is wrong with its file is raised again at the next curve."""
    if not type(arguments.thread).__module__.startswith("tensorboard."):
        threading.__excepthook__(arguments)


def seed_of(config: dict[str, Any]) -> int | None:
    """The seed that everything random in a training is drawn from."""
    return config.get("train", {}).get("seed")


def record_evaluation(run: Path, facts: dict[str, Any], table: str, out: Path | None = None) -> Path:
    """Write an evaluation down: evaluation.json for `Evaluation.read`, evaluation.md for people.

    Args:
        run: the run's folder; each of its evaluations gets a folder of its own there.
        facts: the fields of `Evaluation`, and whatever else was found.
        table: Markdown.
        out: another folder, where an older evaluation is replaced.

    Returns:
        the folder.
    """
    folder = out or new_folder(run / "evaluations")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        write_text(folder / "evaluation.md", table)
        write_text(folder / "evaluation.json", json.dumps(facts, indent=2) + "\n")
    except BaseException:
        if out is None:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder
