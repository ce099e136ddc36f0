"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

An evaluation as a report shows it: each figure beside what real data reach on it, the protocol, and the published
figures that may stand beside it or, with the reason, may not. Free of torch.
"""

from dataclasses import dataclass
from typing import Any

from shared.experiments.compare_tables import paper_value, readings
from shared.experiments.comparison import Row, compare
from shared.experiments.figures import FIGURES, shown
from shared.experiments.history import Evaluation
from shared.experiments.papers import PaperRow
from shared.experiments.protocol import FINER, REQUIRED, text
from shared.experiments.sources import Source
from shared.experiments.tables import amount, duration
from shared.files import read_json

LONGEST = 300  # characters of a field: nobody reads more in a cell
BESIDE = ("_floor", "_real", "_ceiling", "_bicubic", "_base")  # what a figure is held against is called so
ELSEWHERE = {"judge_distance": "judge_floor", "video_distance": "video_floor", "psnr": "pca_psnr"}


@dataclass(frozen=True)
class FigureLine:
    """A figure, and the same of real data where it was measured."""

    label: str
    value: str
    beside: str
    better: str
    is_main: bool


@dataclass(frozen=True)
class PaperLine:
    """A published figure."""

    name: str
    label: str
    value: str
    protocol: dict[str, Any]
    reasons: tuple[str, ...]
    """why it cannot stand beside the evaluation"""
    paper: PaperRow


@dataclass(frozen=True)
class Measured:
    """An evaluation."""

    title: str
    lines: list[FigureLine]
    protocol: list[tuple[str, str]]
    together: list[PaperLine]
    apart: list[PaperLine]
    readings: list[str]
    """how the published figures were read, and what is noted of them"""
    notes: list[str]
    """what a reader must know beside the figures"""
    evaluation: Evaluation


def short(value: Any) -> str:
    """A field of somebody's file as text that fits into a cell."""
    words = text(value)
    return words if len(words) <= LONGEST else f"{words[:LONGEST]}…"


def measured(title: str, evaluation: Evaluation) -> Measured:
    """An evaluation with what stands beside it.

    Raises:
        UserError: papers.yaml cannot be read.
    """
    facts = read_json(evaluation.path)
    comparison = compare([Source(title, evaluation.path, None, [evaluation])])
    together = [line(row) for row in comparison.together if row.paper]
    notes = [short(facts["caveat"])] if isinstance(facts.get("caveat"), str) else []
    return Measured(
        title=title,
        lines=figure_lines(evaluation, facts),
        protocol=protocol(evaluation),
        together=together,
        apart=[line(row) for row in comparison.apart],
        readings=readings(comparison.published),
        notes=notes + comparison.notes,
        evaluation=evaluation,
    )


def line(row: Row) -> PaperLine:
    """A published figure of a comparison."""
    paper = row.paper
    return PaperLine(row.name, label(paper.figure), paper_value(paper), row.protocol, row.reasons, paper)


def figure_lines(evaluation: Evaluation, facts: dict[str, Any]) -> list[FigureLine]:
    """The figures, the main one first; one that another is held against stands beside it."""
    figures = evaluation.figures
    beside = {name: next((other for other in others(name) if other in figures), None) for name in figures}
    stated = floors(facts)
    names = sorted((n for n in figures if n not in beside.values()), key=lambda name: name != evaluation.main)
    lines = []
    for name in names:
        known, other = FIGURES.get(name), beside[name]
        floor = stated.get(name, "the floor: 1" if name.endswith("_over_floor") else "")
        if other:
            floor = f"{label(other)}: {shown(other, figures[other])}"
        better = known.better if known and known.better else ""
        lines.append(FigureLine(label(name), shown(name, figures[name]), floor, better, name == evaluation.main))
    return lines


def others(name: str) -> list[str]:
    """What the figure that this one is held against may be called."""
    stem = name.removesuffix("_zh")  # real scenes are the same in either language
    return [*(f"{stem}{ending}" for ending in BESIDE), *([ELSEWHERE[name]] if name in ELSEWHERE else [])]


def label(name: str) -> str:
    """What a figure is called."""
    return FIGURES[name].label if name in FIGURES else short(name)


def floors(facts: dict[str, Any]) -> dict[str, str]:
    """The floors that an evaluation states as text, by figure."""
    rows = facts.get("rows")
    rows = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return {str(row.get("figure")): short(row["floor"]) for row in rows if row.get("floor")}


def protocol(evaluation: Evaluation) -> list[tuple[str, str]]:
    """How it was measured, and after how much training."""
    fields = [name for name in (*REQUIRED, *FINER) if evaluation.protocol.get(name) is not None]
    fields += [name for name in evaluation.protocol if name not in fields]
    amounts = [("steps of training", evaluation.step, amount), ("images seen", evaluation.images, amount)]
    amounts.append(("training time", evaluation.seconds, duration))
    return [(short(name), short(evaluation.protocol[name])) for name in fields] + [
        (name, write(value)) for name, value, write in amounts if value is not None
    ]
