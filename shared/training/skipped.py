"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

What a data set could not read, brought into the run's record while it is trained.
"""

from typing import Protocol

from torch.utils.data import Dataset

from shared.datasets.streamed import Streamed
from shared.training.processes import agreed


class Record(Protocol):
    """What is needed of a run's record."""

    def skipped(self, names: list[str]) -> None:
        """Keep what the data set could not read."""


def report_skipped(data: Dataset, record: Record) -> None:
    """Tell the record what has been left out so far, if anything has; all processes must call it together.

    A data set, also one of a person's own, names it in `skipped`, a list of texts.

    Raises:
        UserError: it has become too much of a set that finds it only while it is loaded.
    """
    if isinstance(data, Streamed):
        met = agreed(data.unreadable.clone(), "max")
        data.unreadable[met > 0] = 1  # loaders write to it as well: only ever ones
        data.check_skipped()
    names = getattr(data, "skipped", None)
    if isinstance(names, list) and names:
        record.skipped([str(name) for name in names])
