"""Introduced in task 1; used by tasks 1, 2, 3.

`runs diff`: what two runs do not have in common, and their figures beside each other where they can stand so.
"""

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shared.cli import flat
from shared.errors import UserError
from shared.experiments.figures import shown
from shared.experiments.history import Evaluation, Run, open_run
from shared.experiments.protocol import differences
from shared.experiments.reproduce import MACHINE, read_source
from shared.experiments.show import gib, label, mapping, told
from shared.experiments.tables import amount, clean, duration, render, value, warn

PLACE = ("run.name", "run.folder")  # always different, and said in the header
Rows = list[tuple[str, str, str]]


def diff(a: str, b: str, folder: str = "runs", code: bool = False) -> int:
    """What differs between two runs: config, code, machine; and their figures side by side.

    Args:
        a: a run's folder or name
        b: the other's
        folder: folder of all runs, in which names are looked for
        code: print the lines of the source files that differ
    """
    runs = [open_run(name, Path(folder)) for name in (a, b)]
    names = [run.name for run in runs] if runs[0].name != runs[1].name else [str(run.folder) for run in runs]
    sources = [source_of(run) for run in runs]
    sections = [
        ("config", other(*(fields(run) for run in runs))),
        ("code", [*other(*({"commit": run.record.get("commit")} for run in runs)), *changed(*sources)]),
        ("machine", other(*(machine(run) for run in runs))),
    ]
    for title, rows in sections:
        print(render((title, *names), rows) if rows else f"{title}: the same\n")
    rows, reasons = figures(*runs)
    print(render(("figure", *names), rows), end="")
    for reason in reasons:
        print(clean(reason))
    if code:
        print("\n" + "\n".join(unified(*sources, *names)))
    warn(problem for run in runs for problem in run.problems)
    return 0


def other(a: dict[str, Any], b: dict[str, Any]) -> Rows:
    """The names whose values differ, with both; empty where one has none."""
    return [
        (name, *(value(side[name]) if name in side else "" for side in (a, b)))
        for name in {**a, **b}
        if name not in a or name not in b or a[name] != b[name]
    ]


def fields(run: Run) -> dict[str, Any]:
    """The config's fields by their full names, without those that say where the run lies."""
    return {name: content for name, content in flat(run.config).items() if name not in PLACE}


def machine(run: Run) -> dict[str, Any]:
    """Hardware and packages."""
    packages = mapping(run.record.get("packages"))
    known = {name: run.record[name] for name in (*MACHINE, "threads", "memory_gib") if name in run.record}
    return known | {f"{name} (package)": version for name, version in packages.items()}


def source_of(run: Run) -> dict[str, bytes]:
    """The run's source files, as it was begun; none where they cannot be read, which is one of its problems then."""
    try:
        return read_source(run.folder / "source.zip")
    except UserError as error:
        run.problems.append(str(error))
        return {}


def changed(a: dict[str, bytes], b: dict[str, bytes]) -> Rows:
    """The source files that differ."""
    if not a or not b:
        return []
    both = [(name, name in a, name in b) for name in sorted({*a, *b}) if a.get(name) != b.get(name)]
    return [
        (name, *("differs" if here and there else "only here" * side for side in (here, there)))
        for name, here, there in both
    ]


def unified(a: dict[str, bytes], b: dict[str, bytes], *names: str) -> Iterator[str]:
    """The lines of source that differ, as `diff -u` prints them."""
    for name in sorted({*a, *b}):
        sides = [side.get(name, b"").decode(errors="replace").splitlines() for side in (a, b)]
        if sides[0] != sides[1]:
            for line in difflib.unified_diff(*sides, *(f"{run}/{name}" for run in names), lineterm=""):
                yield clean(line.expandtabs())


def figures(a: Run, b: Run) -> tuple[Rows, list[str]]:
    """The figures of both, and why some of them cannot stand beside each other."""
    rows = []
    for title, name, write in (
        ("steps", "step", amount),
        ("images", "images", amount),
        ("wall-clock", "seconds", duration),
        ("peak memory", "peak_memory_gib", gib),
    ):
        rows.append((title, *(told(run.amount(name), write) or "" for run in (a, b))))
    rows = [row for row in rows if any(row[1:])]
    losses = [[line["loss"] for line in run.metrics if "loss" in line][-1:] for run in (a, b)]
    rows.append(("last loss", *(shown("loss", loss[0]) if loss else "" for loss in losses)))
    pairs = [
        (one, two, differences(one.protocol, two.protocol))
        for one in a.evaluations[::-1]
        for two in b.evaluations[::-1]
    ]
    like = next(((one, two) for one, two, reasons in pairs if not reasons), None)
    if like:
        return rows + measured(*like), []
    return rows, [f"{b.name}'s evaluation cannot stand beside {a.name}'s: {'; '.join(pairs[0][2])}"] if pairs else []


def measured(one: Evaluation, two: Evaluation) -> Rows:
    """The figures of two evaluations of the same protocol."""
    names = {**one.figures, **two.figures}
    return [
        (label(name), *(shown(name, e.figures[name]) if name in e.figures else "" for e in (one, two)))
        for name in names
    ]
