"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

What can be configured about a run's record; free of torch, so that `--help` answers at once.
"""

from dataclasses import dataclass


@dataclass
class RunConfig:
    """Where a run is recorded."""

    folder: str = "runs"
    """folder of all runs; this one gets a folder of its own in it, under the task's name"""
    name: str | None = None
    """name of that folder (default: date and time)"""
