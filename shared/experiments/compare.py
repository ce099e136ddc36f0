"""Introduced in task 1; used by tasks 1, 2, 3.

Set runs beside one another and beside published figures: `compare --help`.
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from shared.cli import Parser, command
from shared.errors import UserError
from shared.experiments.compare_tables import as_csv, as_text
from shared.experiments.comparison import Comparison, compare
from shared.experiments.history import Run, in_stage
from shared.experiments.provenance import command_line
from shared.experiments.seeds import group
from shared.experiments.sources import Source, all_sources, named_sources, open_source
from shared.experiments.tables import Format, clean, escaped, warn
from shared.files import write_text


@dataclass
class CompareConfig:
    """What to set beside what."""

    figure: str | None = None
    """names of figures, with commas between them (default: all that the reference has)"""
    reference: str | None = None
    """run or evaluation.json whose protocol the others must match (default: the first one named)"""
    against: str | None = None
    """what figures are plotted against and sorted by: seconds, images, steps-of-training, a field of the protocol such
    as steps, or one of the config such as network.width"""
    all: bool = False
    """every evaluation of each run, instead of the one that matches best"""
    group: bool = False
    """runs that differ in the seed alone as one row, with mean and standard deviation"""
    papers: bool | str = True
    """published figures of the same name or data; or the data set, such as cifar10, to show all figures of"""
    format: Format = "terminal"
    """how the table is printed"""
    log: Literal["none", "x", "y", "both"] | None = None
    """logarithmic axes of the pictures (default: y for the loss, none for figures)"""
    out: str | None = None
    """folder for comparison.md, comparison.csv and the pictures (default: nothing is written)"""
    folder: str = "runs"
    """folder of all runs"""
    stage: str | None = None
    """only runs of this stage, such as task1"""
    state: Literal["running", "finished", "failed", "interrupted", "killed", "damaged"] | None = None
    """only runs in this state"""

    @property
    def figures(self) -> list[str]:
        """The names of `figure`."""
        return [name.strip().replace("-", "_") for name in (self.figure or "").split(",") if name.strip()]

    def compared(self, sources: Sequence[Source], reference: Source | None, against: str | None) -> Comparison:
        """The sources beside one another, along an axis or none."""
        found = compare(sources, reference, self.figures, against, self.all, self.papers)
        return group(found) if self.group else found

    def text(self, comparison: Comparison, format: Format) -> str:
        """The tables."""
        if format == "csv":
            return as_csv(comparison)
        return as_text(comparison, format, self.all, isinstance(self.papers, str))

    def takes(self, source: Source) -> bool:
        """Whether a source is of the stage and in the state asked for."""
        return in_stage(source.task, self.stage) and self.state in (None, source.run and source.run.state)


def run() -> int:
    """Read, compare, print, and write what was asked for."""
    parser = Parser(prog="compare", description="Set runs beside one another, and beside published figures.")
    parser.add_argument("run", nargs="*", default=[], metavar="RUN", help="its folder or name, or an evaluation.json")
    parser.add_class_arguments(CompareConfig)
    given = parser.parse_args()
    config = CompareConfig(**{field.name: given[field.name] for field in fields(CompareConfig)})
    root = Path(config.folder)
    sources, problems = named_sources(given.run, root) if given.run else all_sources(root)
    sources = [source for source in sources if config.takes(source)]
    try:
        show(sources, config)
    finally:
        problems += [problem for source in sources if source.run for problem in source.run.problems]
        warn(dict.fromkeys(problems))
    return 0


def show(sources: Sequence[Source], config: CompareConfig) -> None:
    """Print the comparison, and write it if there is a folder for it."""
    if not sources:
        raise UserError("there is nothing to compare: no run here was evaluated; `runs` lists them")
    reference = open_source(config.reference, Path(config.folder)) if config.reference else None
    if reference and not reference.evaluations:
        raise UserError(f"{config.reference} was not evaluated, and cannot be the reference")
    comparison = config.compared(sources, reference, config.against)
    print(config.text(comparison, config.format), end="")
    if config.out:
        axes = dict.fromkeys([*([config.against] if config.against else []), "seconds", "images"])
        along = [config.compared(sources, reference, axis) for axis in axes]
        runs = {source.name: source.run for source in sources}
        for line in write(config, comparison, along, runs):
            print(clean(line), file=sys.stdout if config.format == "terminal" else sys.stderr)


def write(
    config: CompareConfig, comparison: Comparison, along: list[Comparison], runs: dict[str, Run | None]
) -> list[str]:
    """Write tables and pictures into the folder.

    Args:
        config: which folder, and how pictures are drawn.
        comparison: of the tables.
        along: one picture each.
        runs: whose loss is drawn.

    Returns:
        What was written, and what is in no picture, a line each.
    """
    from shared.experiments.plots import figures_against, loss_curves, save  # slow to import

    folder = Path(config.out)
    folder.mkdir(parents=True, exist_ok=True)
    figures = config.figures or comparison.figures[:1]
    pictures = {"loss.png": loss_curves(runs, config.log)}
    for found in along:
        pictures[f"figure-against-{file_name(found)}.png"] = figures_against(found, figures, config.log or "none")
    drawn = {name: picture for name, picture in pictures.items() if picture}
    for name, picture in drawn.items():
        save(picture, folder / name)
    lines = left_out(along) + [note for found in along for note in found.notes if note not in comparison.notes]
    lines += [f"not drawn, as nothing has what it takes: {name}" for name in pictures if name not in drawn]
    document = [f"# Comparison\n\nMade by `{clean(command_line())}`.\n", config.text(comparison, "markdown")]
    document += ["".join(f"- {escaped(clean(line))}\n" for line in lines)] if lines else []
    document += [f"![{name.removesuffix('.png')}]({name})\n" for name in drawn]
    write_text(folder / "comparison.md", "\n".join(document))
    write_text(folder / "comparison.csv", config.text(comparison, "csv"))
    return [*lines, f"written into {folder}: {', '.join(['comparison.md', 'comparison.csv', *drawn])}"]


def file_name(comparison: Comparison) -> str:
    """The axis as part of a file's name."""
    return re.sub(r"[^\w.]|_", "-", comparison.axis.name)


def left_out(along: list[Comparison]) -> list[str]:
    """The rows that pictures lack, and why: a line each."""
    missing: dict[str, dict[str, None]] = {}
    for found in along:
        for row in found.rows:
            if row.reasons:
                missing.setdefault(f"{row.name} ({'; '.join(row.reasons)})", {})[file_name(found)] = None
    return [f"not drawn against {', '.join(axes)}: {row}" for row, axes in missing.items()]


def main() -> None:
    """The command `compare`."""
    sys.exit(command(run))


if __name__ == "__main__":
    main()
