"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

What a report shows: of each stage what is committed, of each run what its folder holds, and the published figures.
Whatever cannot be read is named among the problems, and hides nothing else. Free of torch and of matplotlib.
"""

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

from shared.errors import UserError
from shared.experiments.history import Evaluation, Run, find_runs, in_stage, numbered, read_metrics
from shared.experiments.papers import PaperRow, papers
from shared.experiments.report_figures import Measured, measured
from shared.experiments.report_pictures import Picture, read_picture
from shared.experiments.report_text import Image, Readme, first_commands, read_readme
from shared.experiments.tables import amount

GROUP = "noise_to_video.stages"  # of entry points: the name of a stage -> its package
LARGEST_TEXT = 1 << 20  # bytes of a README or a script
ROOM = 12 << 20  # bytes of the page that pictures may take; those of runs come last
T = TypeVar("T")


@dataclass(frozen=True)
class Curve:
    """A loss over the optimizer steps."""

    title: str
    points: list[tuple[float, float]]


@dataclass(frozen=True)
class Script:
    """A file of commands."""

    name: str
    text: str


@dataclass(frozen=True)
class Stage:
    """What one stage's package holds."""

    name: str
    readme: Readme
    pictures: list[Picture]
    curves: list[Curve]
    measured: list[Measured]
    made: str | None
    """the commands that made the committed models"""
    scripts: list[Script]
    results: str
    """README of the results, Markdown"""
    others: dict[str, Picture]
    """the pictures of that README by its names of them, of which some are among `pictures`"""


@dataclass(frozen=True)
class Own:
    """What the folder of one's own run holds."""

    run: Run
    main: tuple[str, float] | None
    curve: Curve | None
    pictures: list[Picture]
    measured: list[Measured]


@dataclass
class Report:
    """All of a page."""

    stages: list[Stage] = field(default_factory=list)
    runs: list[Own] = field(default_factory=list)
    folder: str = "runs"
    papers: dict[str, list[PaperRow]] = field(default_factory=dict)
    """published figures by data set"""
    problems: list[str] = field(default_factory=list)
    room: int = ROOM
    left_out: int = 0
    """pictures that there was no room for"""

    def tried(self, read: Callable[..., T], *arguments: Any) -> T | None:
        """What `read` gives, or None: what it cannot read is a problem more, and no end."""
        try:
            return read(*arguments)
        except UserError as error:
            self.problems.append(str(error))
        except (OSError, RecursionError) as error:
            self.problems.append(f"cannot read {arguments[0]}: {getattr(error, 'strerror', None) or error}")
        return None

    def picture(self, path: Path, alt: str, caption: str | None = None) -> Picture | None:
        """A picture, if there is room for it on the page."""
        found = self.tried(read_picture, path, alt, caption)
        if found and found.bytes > self.room:
            self.left_out += 1
            return None
        self.room -= found.bytes if found else 0
        return found


@cache
def packages() -> dict[str, str]:
    """The stages' packages by the names that runs' records give the stages."""
    return {point.name: point.value for point in sorted(entry_points(group=GROUP), key=lambda point: point.name)}


def chosen(names: Sequence[str] | None) -> list[str]:
    """The stages asked for, in order; all where none is named.

    Raises:
        UserError: there is no such stage.
    """
    for name in names or ():
        if name not in packages():
            raise UserError(f"there is no stage {name}; there are {', '.join(packages())}")
    return [name for name in packages() if not names or name in names]


def gather(names: Sequence[str], folder: Path, all_runs: bool = True) -> Report:
    """Read all that a report shows.

    Args:
        names: of the stages.
        folder: of runs; may not be there.
        all_runs: whether those of other stages are shown as well.
    """
    report = Report(folder=str(folder))
    for name in names:
        package = importlib.util.find_spec(packages()[name])
        if package is None or not package.submodule_search_locations:
            report.problems.append(f"the package {packages()[name]} of {name} is not installed")
            continue
        report.stages += filter(None, [stage(report, name, Path(package.submodule_search_locations[0]))])
    for run in list(find_runs(folder)) if folder.is_dir() else []:
        if all_runs or any(in_stage(run.task, name) for name in names):
            report.runs.append(own(report, run))
    for row in report.tried(papers) or []:
        report.papers.setdefault(str(row.protocol.get("data", "not stated")), []).append(row)
    if report.left_out:
        line = f"{report.left_out} pictures are left out: those on the page take {ROOM >> 20} MiB already"
        report.problems.append(f"{line}; --stage or another --folder makes room")
    report.problems = list(dict.fromkeys(report.problems))
    return report


def read_text(path: Path) -> str:
    """A text file of sensible size; "" where there is none."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        content = file.read(LARGEST_TEXT + 1)
    if len(content) > LARGEST_TEXT:
        raise UserError(f"{path} is too long for a page")
    return content.decode("utf-8", errors="replace")


def stage(report: Report, name: str, folder: Path) -> Stage:
    """A stage, from its package's folder."""
    results = folder / "results"
    readme = read_readme(report.tried(read_text, folder / "README.md") or "")
    shown = {image.file: report.picture(folder / image.file, image.alt, image.caption) for image in readme.images}
    text = report.tried(read_text, results / "README.md") or ""
    others = {}
    for image in read_readme(text).images:
        known = shown.get(f"results/{image.file}")
        if known or within(results, image.file):
            others[image.file] = known or report.picture(results / image.file, image.alt)
    scripts = [Script(path.name, report.tried(read_text, path) or "") for path in sorted(results.glob("*.sh"))]
    found = [report.tried(stage_evaluation, path) for path in sorted(results.glob("evaluation*.json"), key=by_length)]
    curves = [report.tried(read_curve, path, report) for path in sorted(results.glob("metrics*.jsonl"), key=by_length)]
    return Stage(
        name=name,
        readme=readme,
        pictures=[picture for picture in shown.values() if picture],
        curves=[curve for curve in curves if curve],
        measured=[one for one in found if one],
        made=first_commands(text),
        scripts=[script for script in scripts if script.text],
        results=text,
        others={file: picture for file, picture in others.items() if picture},
    )


def by_length(path: Path) -> tuple[int, str]:
    """The main file before those of more words."""
    return len(path.stem.split("-")), path.name


def within(folder: Path, file: str) -> bool:
    """Whether a name in a text is that of a file below a folder."""
    return (folder / file).resolve().is_relative_to(folder.resolve())


def which(path: Path) -> str:
    """Which of a stage's models a file is of: evaluation-student.json is the student's."""
    _, _, rest = path.stem.partition("-")
    return f"The committed model, {rest.replace('-', ' ')}" if rest else "The committed model"


def stage_evaluation(path: Path) -> Measured:
    """What is committed of a model's evaluation."""
    return measured(which(path), Evaluation.read(path))


def losses(lines: Sequence[dict[str, float]]) -> list[tuple[float, float]]:
    """Step and loss, where both are there and can be drawn."""
    pairs = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    return [pair for pair in pairs if all(abs(number) < 1e30 for number in pair)]


def read_curve(path: Path, report: Report) -> Curve | None:
    """The loss in a metrics.jsonl, if it holds any."""
    lines, bad = read_metrics(path)
    if bad:
        report.problems.append(f"{path} is damaged: {bad} of its lines cannot be read")
    points = losses(lines)
    return Curve(f"Training loss: {which(path)[0].lower()}{which(path)[1:]}", points) if len(points) > 1 else None


def own(report: Report, run: Run) -> Own:
    """One's own run. Its files may be somebody else's: links out of its folder are not followed."""
    points = losses(run.metrics)
    found = [measured(f"Evaluation {e.path.parent.name}", e) for e in reversed(run.evaluations)]
    pictures = [report.picture(path, alt) for path, alt in newest(run)]
    main = run.main_figure()
    run.amount("step"), run.config, run.state  # read now, so that what is damaged is known
    report.problems += run.problems
    return Own(
        run=run,
        main=main,
        curve=Curve(f"Training loss of {run.task}/{run.name}", points) if len(points) > 1 else None,
        pictures=[picture for picture in pictures if picture],
        measured=found,
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
