"""Introduced in task 1; used by tasks 1, 2, 3.

A comparison as text: tables for people, where a refused figure has no number and a published one that is not
comparable stands in a table of its own; and one list for machines.
"""

from typing import Any, Literal

from shared.experiments.comparison import Comparison, Row
from shared.experiments.figures import FIGURES, shown
from shared.experiments.papers import PaperRow, meanings
from shared.experiments.protocol import FINER, REQUIRED, text
from shared.experiments.tables import amount, clean, duration, escaped, render

NONE = "—"  # in a cell that has nothing to show
SETTINGS = ("n", "sampler", "steps", "guidance", "weights")  # fields with a column; the others are in the reasons
BUDGETS = {"seconds": duration, "images": amount, "step": amount}
SHOWN = 10  # published figures that are not comparable; a list of one data set, and CSV, have them all


def as_text(comparison: Comparison, format: Literal["terminal", "markdown"], every: bool, all_papers: bool) -> str:
    """The reference's protocol, the table, and the published figures that cannot stand in it.

    Args:
        comparison: what to show.
        format: "terminal" or "markdown".
        every: whether a run may have several rows, which then say which evaluation they are.
        all_papers: whether to show more than SHOWN published figures that are not comparable.
    """
    base = comparison.reference
    title = f"Protocol of the reference{f' {base.name}' if base else ''}"
    write = escaped if format == "markdown" else str
    parts = [write(clean(f"{title}: {comparison.protocol}.")) + "\n", main_table(comparison, format, every)]
    if refused := comparison.apart:
        few = refused if all_papers else refused[:SHOWN]
        more = f" ({len(few)} of {len(refused)}; --papers DATA or --format csv for more)" if few != refused else ""
        parts += [f"Published, and not to be set beside the above{more}:\n", refused_table(few, format)]
    shown_papers = [
        row for row in [*comparison.together, *comparison.apart[: None if all_papers else SHOWN]] if row.paper
    ]
    parts += [write(clean(line)) + "\n" for line in readings(shown_papers)]
    parts += [write(clean(f"Note: {note}.")) + "\n" for note in comparison.notes]
    return "\n".join(parts)


def readings(rows: list[Row]) -> list[str]:
    """How the published figures of these rows were read, and what is noted of them, a line each."""
    used, known = {row.paper.read for row in rows}, meanings()
    letters = [f"({letter}) {known[letter]}" for letter in sorted(used)]
    notes = dict.fromkeys(f"{row.name}: {row.paper.note}" for row in rows if row.paper.note)
    return [*([f"Read {'; '.join(letters)}."] if letters else []), *notes]


def main_table(comparison: Comparison, format: Literal["terminal", "markdown"], every: bool) -> str:
    """What stands side by side: a row per evaluation, then the comparable published figures."""
    axis, columns = comparison.axis, ["training", "images", *SETTINGS]
    extra = axis and axis.name not in ("seconds", "images", *SETTINGS)
    grouped = any(row.seeds > 1 for row in comparison.rows)
    headers = ["run", *(["seeds"] if grouped else []), *(["evaluation"] if every else []), "stage"]
    headers += [axis.label] if extra else []
    headers += [
        *(FIGURES[name].label if name in FIGURES else name for name in comparison.figures),
        *columns,
        "protocol",
    ]
    rows = []
    for row in comparison.together:
        cells = [row.name]
        cells += [NONE if row.paper else str(row.seeds)] if grouped else []
        cells += [row.evaluation.path.parent.name if row.evaluation else NONE] if every else []
        cells += [row.task or ("published" if row.paper else NONE)]
        cells += [NONE if row.x is None else text(row.x)] if extra else []
        cells += [figure_cell(row, name) for name in comparison.figures]
        cells += [
            NONE if getattr(row, name) is None else BUDGETS[name](getattr(row, name)) for name in ("seconds", "images")
        ]
        rows.append([*cells, *settings(row), verdict(row)])
    return render(headers, rows, format)


def figure_cell(row: Row, name: str) -> str:
    """A figure that may be set beside others, with its spread; "—" for any other."""
    value = row.value(name)
    if value is None:
        return NONE
    if row.paper:
        return paper_value(row.paper)
    if name in row.deviations:
        return f"{shown(name, value)} ± {shown(name, row.deviations[name])}"
    return shown(name, value)


def paper_value(paper: PaperRow) -> str:
    """A published figure as the paper has it: with its deviation, or as a bound."""
    spread = f" ± {shown(paper.figure, paper.deviation)}" if paper.deviation is not None else ""
    return f"{paper.bound or ''} {shown(paper.figure, paper.value)}{spread}".strip()


def settings(row: Row) -> list[str]:
    """The cells of the protocol's columns."""
    return [NONE if row.protocol.get(name) is None else text(row.protocol[name]) for name in SETTINGS]


def verdict(row: Row) -> str:
    """The last cell: whether the row is comparable, or why not."""
    if row.reasons:
        return f"not comparable: {'; '.join(row.reasons)}"
    return "reference" if row.is_reference else "comparable"


def refused_table(rows: list[Row], format: Literal["terminal", "markdown"]) -> str:
    """Published figures that are not comparable, in a column that says so."""
    headers = ["paper", "figure", "published", "data", *SETTINGS, "not comparable"]
    cells = [
        [row.name, row.paper.figure, paper_value(row.paper), text(row.protocol.get("data", NONE)), *settings(row)]
        + ["; ".join(row.reasons)]
        for row in rows
    ]
    return render(headers, cells, format)


def as_csv(comparison: Comparison) -> str:
    """Every row with numbers in full. A published figure that is not comparable is in columns of its own."""
    lines = [csv_line(row, comparison) for row in [*comparison.together, *comparison.apart]]
    headers = list(dict.fromkeys(name for line in lines for name in line))
    return render(headers, [[cell(line[name]) for name in headers] for line in lines], "csv")


def csv_line(row: Row, comparison: Comparison) -> dict[str, Any]:
    """A row's cells by column."""
    paper, axis = row.paper, comparison.axis
    line = {"kind": "published" if paper else "run", "name": row.name, "stage": row.task}
    line["evaluation"] = row.evaluation.path.parent.name if row.evaluation else None
    for name in comparison.figures:
        deviation = paper.deviation if paper and paper.figure == name else row.deviations.get(name)
        line |= {name: row.value(name), f"{name}_deviation": None if row.reasons else deviation}
    refused = paper if row.reasons else None
    line |= {f"published_{key}": getattr(refused, key, None) for key in ("figure", "value", "deviation")}
    line |= {name: getattr(paper, name, None) for name in ("paper", "table", "read", "note")}
    line |= {"bound": paper.bound if paper else None, "seeds": None if paper else row.seeds}
    line |= {"seconds": row.seconds, "images": row.images, "steps_of_training": row.step}
    line |= {name: row.protocol.get(name) for name in REQUIRED + FINER}
    line |= {axis.name: row.x} if axis and axis.name not in line else {}
    comparable = "no" if row.reasons else "reference" if row.is_reference else "yes"
    return line | {"comparable": comparable, "reasons": "; ".join(row.reasons)}


def cell(value: Any) -> str:
    """A value in full: nothing where there is none."""
    return "" if value is None else repr(value) if isinstance(value, float) else str(value)
