"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

The record of a run that several processes train: the first one's is written, and the others follow it.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared.experiments.config import RunConfig
from shared.experiments.run import RunRecord
from shared.training.processes import first


class Follower:
    """What a process after the first has of the record: the same to ask, and nothing is written.

    The folder is read, also on another machine: it must lie at the same path there.
    """

    def __init__(self, folder: Path, config: dict[str, Any]):
        """Of the run in a folder that the first process has opened."""
        self.folder, self.config, self.step = folder, config, 0

    def go_on(self, n: int) -> None:
        """From step n."""
        self.step = n

    def note(self, facts: dict[str, Any]) -> None:
        """The first process notes it."""

    def reached(self, n: int, images: int) -> None:
        """n optimizer steps are done."""
        self.step = n

    def log(self, n: int, figures: dict[str, float]) -> None:
        """The first process logs them."""

    def skipped(self, names: list[str]) -> None:
        """The first process knows those of all."""

    def keep(self, write: Callable[[Path], Any]) -> None:
        """The first process writes it."""

    def picture(self, n: int, image: Any) -> None:
        """The first process keeps it."""

    def closing(self) -> contextlib.AbstractContextManager[None]:
        """The first process notes how it ends."""
        return contextlib.nullcontext()

    def close(self, state: str, reason: str | None = None) -> None:
        """The first process does."""


def opened(open_record: Callable[[], RunRecord]) -> RunRecord | Follower:
    """The record that the first process opens; in the others, a follower of it.

    Raises:
        UserError, OSError: in all of them, what was wrong in the first.
    """
    mine: list[RunRecord] = []

    def open_once() -> dict[str, Any]:
        mine.append(open_record())
        return {"folder": str(mine[0].folder), "config": mine[0].config}

    facts = first(open_once)
    return mine[0] if mine else Follower(Path(facts["folder"]), facts["config"])


def create_record(
    task: str, run: RunConfig, config: dict[str, Any], *besides: Callable[[Path], Any]
) -> RunRecord | Follower:
    """`RunRecord.create`, by the first of the processes; each of `besides` then adds something to the folder."""

    def create() -> RunRecord:
        record = RunRecord.create(task, run, config)
        try:
            for write in besides:
                record.keep(write)
        except BaseException as error:
            record.close("failed", str(error) or repr(error))
            raise
        return record

    return opened(create)


def reopen_record(folder: Path) -> RunRecord | Follower:
    """`RunRecord.reopen`, by the first of the processes."""
    return opened(lambda: RunRecord.reopen(folder))
