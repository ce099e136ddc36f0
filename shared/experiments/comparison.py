"""Introduced in task 1; used by task 1.

Which figures stand side by side: the evaluations of runs, and published figures, each held against the protocol of one
reference. What does not match is kept with the reasons, and its figures are not given out. Free of torch.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from shared.errors import UserError
from shared.experiments.axis import BUDGETS, Axis, along, find_axis, meant
from shared.experiments.history import Evaluation
from shared.experiments.papers import FILE, PaperRow, papers
from shared.experiments.protocol import FINER, REQUIRED, differences, text
from shared.experiments.sources import Source


@dataclass(frozen=True)
class Row:
    """One evaluation, or one published figure."""

    name: str
    protocol: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    """as measured; what may be set beside others is for `value` to say"""
    reasons: tuple[str, ...] = ()
    """why it cannot stand beside the reference; empty if it can"""
    task: str | None = None
    step: float | None = None
    images: float | None = None
    seconds: float | None = None
    x: float | str | None = None
    """its place on the axis"""
    is_reference: bool = False
    source: Source | None = None
    evaluation: Evaluation | None = None
    paper: PaperRow | None = None
    deviations: dict[str, float] = field(default_factory=dict)
    """of each figure, over the seeds"""
    seeds: int = 1
    """how many runs this row is the mean of"""

    def value(self, figure: str) -> float | None:
        """The one way to a figure that is set beside others: None where the row was refused or does not have it."""
        return None if self.reasons else self.figures.get(figure)


@dataclass(frozen=True)
class Comparison:
    """Rows that were held against a reference."""

    reference: Row | None
    figures: list[str]
    """the columns, the main one first"""
    rows: list[Row]
    published: list[Row]
    """published figures, the comparable ones first"""
    axis: Axis | None
    notes: list[str]
    """what a reader must know beside the table, a line each"""

    @property
    def together(self) -> list[Row]:
        """The rows, and the published figures that can stand beside them; by place if there is an axis."""
        rows = [*self.rows, *(row for row in self.published if not row.reasons)]
        return sorted(rows, key=lambda row: along(row.x)) if self.axis else rows

    @property
    def apart(self) -> list[Row]:
        """The published figures that cannot."""
        return [row for row in self.published if row.reasons]

    @property
    def protocol(self) -> str:
        """The reference's protocol on one line, without what is on the axis."""
        if self.reference is None:
            return "none, as nothing here was evaluated"
        free = self.axis.free if self.axis else ()
        stated = [(name, self.reference.protocol.get(name)) for name in REQUIRED + FINER if name not in free]
        parts = [f"{name} {text(value)}" for name, value in stated if value is not None]
        return ", ".join(parts) + (f"; {free[0]} may differ" if free else "")


def compare(
    sources: Sequence[Source],
    reference: Source | None = None,
    figures: Collection[str] = (),
    against: str | None = None,
    every: bool = False,
    published: bool | str = True,
) -> Comparison:
    """Set evaluations beside one another.

    Args:
        sources: whose evaluations.
        reference: the protocol of its newest evaluation holds; by default the first of the sources that has one.
        figures: names of the columns; by default those that the reference has, its main one first.
        against: what they are plotted against, see `axis.py`. Rows are sorted by it.
        every: a row for every evaluation; by default for one of those that match best.
        published: whether to add published figures of the same names or data; or the data set to add all figures of.

    Raises:
        UserError: a figure, a field or a data set is not known.
    """
    measured = [e for source in sources for e in source.evaluations]
    axis = find_axis(against, [e.protocol for e in measured], [s.config for s in sources]) if against else None
    first = next((s for s in ([reference] if reference else sources) if s.evaluations), None)
    if first is None:
        rows = [make_row(source, None, None, axis) for source in sources]
        return Comparison(None, [], rows, [], axis, ["nothing here was evaluated: see taskN-evaluate"])
    of_interest = having(first.evaluations, figures)
    base = choose(of_interest, of_interest[-1], None, False)[0]
    known = {name for e in (base, *measured) for name in e.figures}
    for name in figures:
        if name not in known:
            raise UserError(f"no evaluation here has a figure {name}{meant(name, known)}")
    names = list(figures) or sorted(base.figures, key=lambda name: name != base.main)
    chosen = [(s, e) for s in sources for e in choose(having(s.evaluations, figures), base, axis, every) or [None]]
    rows = [lacking(make_row(source, e, base, axis), names) for source, e in chosen]
    others = find_published(base, names, published, axis)
    return Comparison(make_row(first, base, base, None), names, rows, others, axis, remarks(rows, base, axis))


def having(evaluations: list[Evaluation], figures: Sequence[str]) -> list[Evaluation]:
    """The evaluations that have one of these figures; all, where none has: a run may be measured in several ways."""
    return [e for e in evaluations if set(figures) & e.figures.keys()] or evaluations


def choose(evaluations: list[Evaluation], base: Evaluation, axis: Axis | None, every: bool) -> list[Evaluation]:
    """The evaluations of one source to show: all, or of those that match best the one after the most training.

    Those that lie along the axis are all shown: of one model under several protocols, or of several checkpoints.
    """
    if every or not evaluations:
        return evaluations
    counts = [len(differences(base.protocol, e.protocol, axis.free if axis else ())) for e in evaluations]
    best = [e for e, count in zip(evaluations, counts, strict=True) if count == min(counts)]
    last = max(reversed(best), key=lambda e: e.step or 0)  # of several, the newest
    if not axis or axis.kind == "config" or min(counts):
        return [last]
    if axis.kind == "protocol":
        best = [e for e in best if e.step == last.step]
    same = {(e.step, json.dumps(e.protocol, sort_keys=True)): e for e in best}  # measured twice: the newer one
    return list(same.values())


def make_row(source: Source, evaluation: Evaluation | None, base: Evaluation | None, axis: Axis | None) -> Row:
    """An evaluation, held against the reference's."""
    if evaluation is None:
        return Row(source.name, reasons=("it was not evaluated",), task=source.task, source=source)
    row = Row(
        name=source.name,
        protocol=evaluation.protocol,
        figures=evaluation.figures,
        task=source.task,
        step=evaluation.step,
        images=evaluation.images,
        seconds=evaluation.seconds,
        is_reference=evaluation.path.resolve() == base.path.resolve(),
        source=source,
        evaluation=evaluation,
    )
    return judged(row, base, axis)


def judged(row: Row, base: Evaluation, axis: Axis | None) -> Row:
    """The row with its place on the axis, and with the reasons against it."""
    reasons = [] if row.is_reference else differences(base.protocol, row.protocol, axis.free if axis else ())
    if axis is None:
        return replace(row, reasons=tuple(reasons))
    cost = {name: getattr(row, field) for name, field in BUDGETS.items()}
    x = axis.place(cost, row.protocol, row.source.config if row.source else {})
    level = row.paper and axis.kind != "protocol"  # what a paper does not have: its figure is a level line
    if x is None and not level:
        reasons.append(f"{axis.name} is not stated")
    return replace(row, reasons=tuple(reasons), x=x)


def lacking(row: Row, names: list[str]) -> Row:
    """The row, refused if it has none of the columns' figures."""
    if row.reasons or any(name in row.figures for name in names):
        return row
    return replace(row, reasons=(f"{' or '.join(names)} was not measured",))


def find_published(base: Evaluation, names: list[str], wanted: bool | str, axis: Axis | None) -> list[Row]:
    """Published figures of the same name or data set, or all of a data set; the comparable and the nearest first."""
    if wanted is False:
        return []
    known, data = papers(FILE), base.protocol.get("data", "") if wanted is True else wanted
    chosen = [row for row in known if row.protocol.get("data") == data or wanted is True and row.figure in names]
    if not chosen and wanted is not True:
        listed = {row.protocol["data"] for row in known if "data" in row.protocol}
        raise UserError(f"papers.yaml has no figures of {wanted}{meant(wanted, listed)}")
    rows = []
    for paper in chosen:
        row = judged(Row(paper.label, paper.protocol, {paper.figure: paper.value}, paper=paper), base, axis)
        if paper.figure not in names:
            row = replace(
                row, reasons=(*row.reasons, f"figure is {paper.figure}" + (f", not {names[0]}" if names else ""))
            )
        rows.append(row)
    return sorted(rows, key=lambda row: (len(row.reasons), along(row.x)))


def remarks(rows: list[Row], base: Evaluation, axis: Axis | None) -> list[str]:
    """What a reader must know beside the table."""
    missing = [name for name in REQUIRED if base.protocol.get(name) is None]
    notes = [f"the reference does not state {', '.join(missing)}: nothing can stand beside it"] if missing else []
    if axis and axis.name == "seconds":
        records = [row.source.run.record for row in rows if row.source.run and not row.reasons]
        machines = {str(record.get("gpu") or record.get("processor")) for record in records}
        if len(machines) > 1:
            notes.append(f"the training times are of unlike machines: {', '.join(sorted(machines))}")
    return notes
