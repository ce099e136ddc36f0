"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

One's own runs and sweeps in a report. Their folders may be somebody else's: links out of them are not followed, and
what is damaged is named.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from shared.errors import UserError
from shared.experiments.history import Run, find_runs, in_stage, numbered
from shared.experiments.report.content import Curve, Own, Report, Searched, losses
from shared.experiments.report.figures import measured
from shared.experiments.tables import amount

TRIALS, LARGEST = 500, 4 << 20  # lines of a sweep's table that are shown, and bytes of it that are read


def add_runs(report: Report, folder: Path, names: Sequence[str] | None = None) -> None:
    """Put the runs in a folder into a report, if it is there; and its sweeps, if no stage is named."""
    report.folder = str(folder)
    for run in list(find_runs(folder)) if folder.is_dir() else []:
        if not names or any(in_stage(run.task, name) for name in names):
            report.runs.append(own(report, run))
    for path in sorted(folder.glob("sweeps/*/trials.csv"), key=lambda path: numbered(path.parent.name)):
        if not names and is_own(path, folder):
            report.sweeps += filter(None, [report.tried(searched, path, report)])


def searched(path: Path, report: Report) -> Searched:
    """A sweep's table and picture.

    Raises:
        UserError: it is no table.
    """
    with path.open(encoding="utf-8", errors="replace") as file:
        content = file.read(LARGEST)
    try:
        headers, *rows = [row for row in csv.reader(io.StringIO(content)) if row]
    except (csv.Error, ValueError):
        raise UserError(f"{path} is no table of trials: `sweep --resume` writes it anew") from None
    picture, name = path.with_name("parallel.png"), path.parent.name
    alt = f"{len(rows)} trials of the sweep {name}: a line each, across an axis for each field and one for the figure"
    if rows:
        said = (f"{head} {cell(value)}" for head, value in zip(headers, rows[0], strict=False))
        alt += f". First in the table: {', '.join(said)}"
    there = is_own(picture, path.parent)
    return Searched(
        name=name,
        headers=headers,
        rows=[[*map(cell, row), *[""] * len(headers)][: len(headers)] for row in rows[:TRIALS]],
        picture=report.picture(picture, alt) if there else None,
    )


def cell(written: str) -> str:
    """A cell of a sweep's table, whose numbers are written in full: as `sweep` prints it."""
    try:
        return written if written.lstrip("-").isdecimal() else f"{float(written):.4g}"
    except ValueError:
        return written


def own(report: Report, run: Run) -> Own:
    """One's own run. Its files may be somebody else's: links out of its folder are not followed."""
    points = losses(run.metrics)
    named = [(f"Evaluation {e.path.parent.name}", e) for e in reversed(run.evaluations)]
    found = [report.tried(measured, *pair) for pair in named]
    pictures = [report.picture(path, alt) for path, alt in newest(run)]
    main = run.main_figure()
    run.amount("step"), run.config, run.state  # read now, so that what is damaged is known
    report.problems += run.problems
    return Own(
        run=run,
        main=main,
        curve=Curve(f"Training loss of {run.task}/{run.name}", points) if len(points) > 1 else None,
        pictures=[picture for picture in pictures if picture],
        measured=[one for one in found if one],
    )


def newest(run: Run) -> Iterator[tuple[Path, str]]:
    """The last grid of samples and the newest film of a run, with what they show."""
    inside = [path for path in (run.folder / "samples").glob("*") if is_own(path, run.folder)]
    grids = sorted((path for path in inside if path.suffix == ".png"), key=lambda path: numbered(path.name))
    films = sorted((path for path in inside if path.suffix == ".gif"), key=lambda path: path.stat().st_mtime_ns)
    for path in grids[-1:]:
        step = path.stem.removeprefix("step-")
        after = f" after {amount(int(step))} steps" if step.isdecimal() and len(step) < 16 else f", {path.name}"
        yield path, f"samples of the run {run.name}{after}"
    for path in films[-1:]:
        yield path, f"film of the run {run.name}, {path.name}"


def is_own(path: Path, folder: Path) -> bool:
    """Whether a file lies in a folder, and not behind a link out of it."""
    try:
        return path.is_file() and path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):
        return False
