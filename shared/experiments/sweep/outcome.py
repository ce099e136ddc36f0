"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

What came of a sweep: a table of its trials, and a picture in which each trial is a line across an axis for each field.

The picture is drawn here, as pandas' parallel coordinates have one scale for all axes, and Optuna's cannot tell a trial
that was stopped early from one that finished: figures of different steps do not stand side by side.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from shared.experiments.history import LOCK
from shared.experiments.sweep.state import Sweep, Trial
from shared.experiments.tables import Format, render
from shared.experiments.tables import value as written
from shared.files import read_json, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Row:
    """A trial's outcome."""

    trial: Trial
    name: str
    rank: int
    """0 finished, 1 stopped, 2 unfinished, 3 failed, 4 not begun"""
    state: str
    step: int | None
    figure: float | None


def outcome(sweep: Sweep) -> list[Row]:
    """The trials: those that finished by their figure, then those that were stopped (the furthest first), the rest."""
    rows = [row_of(sweep, trial) for trial in sweep.trials]
    sign = 1 if sweep.config.mode == "min" else -1

    def order(row: Row) -> tuple:
        steps = -(row.step or 0) if row.rank else 0
        return row.rank, steps, row.figure is None, sign * (row.figure or 0), row.trial.number

    return sorted(rows, key=order)


def row_of(sweep: Sweep, trial: Trial) -> Row:
    """A trial's outcome, from its record."""
    run, found, name = sweep.run(trial), sweep.figure(trial), sweep.name(trial)
    step, figure = found or (None, None)
    if trial.failed is not None:
        return Row(trial, name, 3, f"failed: {trial.failed}", step, None)
    if trial.stopped is not None and (run is None or run.state != "finished"):
        return Row(trial, name, 1, f"stopped by ASHA at step {trial.stopped}", step or trial.stopped, figure)
    if run is None:
        return Row(trial, name, 4, "not begun", None, None)
    if run.state == "finished" and found:
        return Row(trial, name, 0, "finished", step, figure)
    reached = run.amount("step")
    state = "not measured" if run.state == "finished" else run.state
    return Row(trial, name, 2, f"unfinished ({state})", None if reached is None else int(reached), figure)


def table(sweep: Sweep, rows: list[Row], format: Format) -> str:
    """The rows as a table."""
    headers = ["trial", *sweep.config.space, "state", "steps", sweep.config.figure]
    exact = format == "csv"

    def number(value: object) -> str:
        if value is None:
            return ""
        return f"{value:.4g}" if isinstance(value, float) and not exact else written(value)

    cells = [
        [row.name, *map(number, row.trial.values.values()), row.state, number(row.step), number(row.figure)]
        for row in rows
    ]
    return render(headers, cells, format)


def write_outcome(sweep: Sweep) -> list[Row]:
    """Write trials.md, trials.csv and parallel.png into the sweep's folder."""
    rows = outcome(sweep)
    write_text(sweep.folder / "trials.md", table(sweep, rows, "markdown"))
    write_text(sweep.folder / "trials.csv", table(sweep, rows, "csv"))
    if any(row.figure is not None for row in rows):
        draw(sweep, rows, sweep.folder / "parallel.png")
    return rows


def note_stopped(sweep: Sweep) -> None:
    """Have the records of trials that ASHA stopped say so, in place of a signal or a kill."""
    for trial in sweep.trials:
        run = sweep.run(trial)
        if trial.stopped is None or run is None or run.state not in ("interrupted", "killed"):
            continue
        path = run.folder / "record.json"
        reason = f"stopped by ASHA at step {trial.stopped}, in the sweep {sweep.folder.name}"
        try:
            with FileLock(run.folder / LOCK, timeout=0):
                facts = read_json(path) | {"state": "interrupted", "reason": reason}
                write_text(path, json.dumps(facts, indent=2) + "\n")
        except Timeout:  # somebody goes on with it
            continue


# --- the picture ----------------------------------------------------------------------------------------------


class Scale:
    """Where the values of one axis lie, from 0 to 1."""

    def __init__(self, values: list, log: bool, listed: list | None = None):
        """Numbers, or one of the `listed` values each at its place."""
        self.log, self.texts = log, [written(value) for value in listed] if listed else None
        numbers = [self.plain(value) for value in values]
        self.low, self.high = min(numbers), max(numbers)

    def plain(self, value: object) -> float:
        """Of a value, what is linear along the axis."""
        if self.texts is not None:
            return float(self.texts.index(written(value)))
        return math.log10(value) if self.log else float(value)

    def __call__(self, value: object) -> float:
        span = self.high - self.low
        return (self.plain(value) - self.low) / span if span else 0.5

    def ticks(self) -> list[tuple[float, str]]:
        """Places and texts."""
        if self.texts is not None:
            span = self.high - self.low
            return [((i - self.low) / span if span else 0.5, text) for i, text in enumerate(self.texts)]
        if self.low == self.high:
            value = 10**self.low if self.log else self.low
            return [(0.5, f"{value:.3g}")]
        decades = range(math.ceil(self.low - 1e-9), math.floor(self.high + 1e-9) + 1)
        if self.log and len(decades) > 1:
            return [((k - self.low) / (self.high - self.low), f"{10.0**k:g}") for k in decades]
        ends = [self.low + (self.high - self.low) * i / 4 for i in range(5)]
        return [(i / 4, f"{10**end if self.log else end:.3g}") for i, end in enumerate(ends)]


def draw(sweep: Sweep, rows: list[Row], path: Path) -> None:
    """The trials with a figure as lines; the best finished one is the boldest, those that were stopped are dotted."""
    from matplotlib.figure import Figure

    from shared.experiments.plots import COLOURS, GREY, label, save

    shown = [row for row in rows if row.figure is not None]
    scales = []
    for name, dimension in sweep.config.space.items():
        listed = dimension.values if dimension.kind in ("grid", "choice") else None
        values = listed or dimension.values
        scales.append((name, Scale(values, dimension.log, listed)))
    figures = [row.figure for row in shown]
    log = min(figures) > 0 and max(figures) > 4 * min(figures)
    scales.append((sweep.config.figure, Scale(figures, log)))

    figure = Figure(figsize=(2.2 + 2.2 * (len(scales) - 1), 4.4), layout="constrained")
    axes = figure.subplots()
    best = next((row for row in shown if row.rank == 0), None)
    kinds = {0: ("finished", "-", COLOURS[0]), 1: ("stopped by ASHA", ":", GREY), 2: ("unfinished", "--", COLOURS[3])}
    for row in reversed(shown):
        kind, line, colour = kinds[row.rank]
        look = {"color": colour, "linestyle": line, "linewidth": 1.3, "label": kind}
        if row is best:
            look |= {"color": COLOURS[1], "linewidth": 2.6, "label": f"best: {label(row.name)}"}
        heights = [
            scale(value) for (_, scale), value in zip(scales, [*row.trial.values.values(), row.figure], strict=True)
        ]
        axes.plot(range(len(scales)), heights, marker="o", markersize=4, **look)
    draw_axes(axes, scales)
    entries = {text: handle for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(
        entries.values(), entries.keys(), loc="outside upper center", ncols=4, fontsize="small", frameon=False
    )
    save(figure, path)


def draw_axes(axes: "Axes", scales: list[tuple[str, Scale]]) -> None:
    """An upright line with its values for each field; the last is the figure."""
    from shared.experiments.plots import label

    for i, (_, scale) in enumerate(scales):
        axes.axvline(i, color="black", linewidth=0.8, zorder=0)
        for height, text in scale.ticks():
            box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6}
            axes.text(i + 0.03, height, label(text, 16), fontsize="small", va="center", bbox=box)
    names = [f"{label(name)}{' (log)' if scale.log else ''}" for name, scale in scales]
    axes.set_xticks(range(len(scales)), names)
    axes.set_xlim(-0.2, len(scales) - 0.6)
    axes.set_yticks([])
    axes.set_frame_on(False)
    axes.tick_params(axis="x", length=0)
