"""Introduced in task 1; used by tasks 1, 2, 3.

Runs that differ in nothing but the seed, as one row: a difference between two configs says something only where it is
larger than the spread over seeds.
"""

import json
import statistics
from dataclasses import replace
from typing import Any

from shared.experiments.comparison import Comparison, Row
from shared.experiments.protocol import FINER, REQUIRED

SEED = "train.seed"


def group(comparison: Comparison) -> Comparison:
    """The comparison with one row for runs that differ in the seed alone: mean and standard deviation of each figure.

    Refused rows and evaluations outside a run stay as they are. A second run of the same seed is left out, and named:
    it says nothing of the spread.
    """
    groups: dict[Any, dict[Any, Row]] = {}
    notes = list(comparison.notes)
    for i, row in enumerate(comparison.rows):
        config = row.source.config
        if row.reasons or SEED not in config:
            groups[i] = {None: row}
            continue
        members = groups.setdefault(all_but_seed(row), {})
        first = members.setdefault(config[SEED], row)
        if first.name != row.name:
            notes.append(f"{row.name} is left out of the mean: it has the seed of {first.name}")
    rows = [mean(list(members.values()), comparison) for members in groups.values()]
    if any(row.seeds > 1 for row in rows):
        notes.append("a figure after ± is the standard deviation over the seeds")
    return replace(comparison, rows=rows, notes=notes)


def all_but_seed(row: Row) -> str:
    """What the members of a group have in common, as text."""
    config = {key: value for key, value in row.source.config.items() if key != SEED and not key.startswith("run.")}
    protocol = [row.protocol.get(name) for name in REQUIRED + FINER]
    return json.dumps([row.task, row.step, config, protocol], sort_keys=True, default=str)


def mean(rows: list[Row], comparison: Comparison) -> Row:
    """One row for runs that differ in the seed."""
    if len(rows) == 1:
        return rows[0]
    names = [name for name in comparison.figures if all(name in row.figures for row in rows)]
    seconds = [row.seconds for row in rows]
    average = statistics.mean(seconds) if None not in seconds else None
    on_time = comparison.axis and comparison.axis.name == "seconds"
    return replace(
        rows[0],
        name=", ".join(row.name for row in rows),
        figures={name: statistics.mean(row.figures[name] for row in rows) for name in names},
        deviations={name: statistics.stdev(row.figures[name] for row in rows) for name in names},
        seconds=average,
        x=average if on_time else rows[0].x,
        is_reference=any(row.is_reference for row in rows),
        seeds=len(rows),
    )
