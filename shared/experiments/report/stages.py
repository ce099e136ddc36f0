"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

The stages of a report: what their packages hold. `shared` imports no stage: they are found by a group of entry points.
"""

import importlib.util
from collections.abc import Sequence
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from shared.errors import UserError
from shared.experiments.history import Evaluation, read_metrics
from shared.experiments.report.content import Curve, Report, Script, Stage, losses
from shared.experiments.report.figures import Measured, measured
from shared.experiments.report.text import first_commands, read_readme

GROUP = "noise_to_video.stages"  # of entry points: the name of a stage -> its package
LARGEST_TEXT = 1 << 20  # bytes of a README or a script


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


def add_stages(report: Report, names: Sequence[str]) -> None:
    """Put the stages of these names into a report."""
    for name in names:
        package = importlib.util.find_spec(packages()[name])
        if package is None or not package.submodule_search_locations:
            report.problems.append(f"the package {packages()[name]} of {name} is not installed")
            continue
        report.stages.append(read_stage(report, name, Path(package.submodule_search_locations[0])))


def read_text(path: Path) -> str:
    """A text file of sensible size; "" where there is none."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        content = file.read(LARGEST_TEXT + 1)
    if len(content) > LARGEST_TEXT:
        raise UserError(f"{path} is too long for a page")
    return content.decode("utf-8", errors="replace")


def read_stage(report: Report, name: str, folder: Path) -> Stage:
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


def read_curve(path: Path, report: Report) -> Curve | None:
    """The loss in a metrics.jsonl, if it holds any."""
    lines, bad = read_metrics(path)
    if bad:
        report.problems.append(f"{path} is damaged: {bad} of its lines cannot be read")
    points = losses(lines)
    return Curve(f"Training loss: {which(path)[0].lower()}{which(path)[1:]}", points) if len(points) > 1 else None
