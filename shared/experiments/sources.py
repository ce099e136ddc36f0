"""Introduced in task 1; used by task 1.

Opening what a person names on the command line: runs, and evaluations that may lie outside any run. Free of torch.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from shared.cli import flat
from shared.errors import UserError
from shared.experiments.history import Evaluation, Run, find_runs, open_run
from shared.files import is_run


@dataclass(frozen=True)
class Source:
    """A run with its evaluations, or one evaluation."""

    name: str
    path: Path
    run: Run | None
    evaluations: list[Evaluation]
    """the newest last"""

    @cached_property
    def config(self) -> dict[str, Any]:
        """The run's config by dotted names."""
        return flat(self.run.config) if self.run else {}

    @property
    def task(self) -> str | None:
        """The stage, such as "task1"."""
        return self.run.task if self.run else self.evaluations[-1].task


def evaluation_file(name: str) -> Path | None:
    """The file of an evaluation that a person names by it or by its folder; None if the name is that of a run."""
    path = Path(name)
    if path.is_file():
        return path
    inside = path / "evaluation.json"
    return inside if inside.is_file() and not is_run(path) else None


def open_source(name: str, root: Path) -> Source:
    """A run by its folder, or by its name in `root`; an evaluation by its file or the folder that holds it.

    Raises:
        UserError: there is none, or the evaluation cannot be read.
    """
    path = evaluation_file(name)
    if path is None:
        run = open_run(name, root)
        return Source(run.name, run.folder, run, run.evaluations)
    evaluation, folder = Evaluation.read(path), path.resolve().parent
    run = folder.parents[1] if len(folder.parents) > 1 else folder  # RUN/evaluations/NAME/evaluation.json
    if is_run(run):
        return Source(f"{run.name}/{folder.name}", path, Run(run), [evaluation])
    return Source("/".join(folder.parts[-2:]), path, None, [evaluation])


def named_sources(names: Sequence[str], root: Path) -> tuple[list[Source], list[str]]:
    """What a person named, and a line for each evaluation that is damaged.

    Raises:
        UserError: there is nothing of that name.
    """
    sources, problems = [], []
    for name in names:
        try:
            sources.append(open_source(name, root))
        except UserError as error:
            if evaluation_file(name) is None:  # a mistake in the command, not a damaged file
                raise
            problems.append(str(error))
    return distinct(sources), problems


def all_sources(root: Path) -> tuple[list[Source], list[str]]:
    """The evaluated runs of a folder, and a line for each damaged file that keeps a run from being one."""
    runs = list(find_runs(root))
    evaluated = [Source(run.name, run.folder, run, run.evaluations) for run in runs if run.evaluations]
    return distinct(evaluated), [problem for run in runs for problem in run.problems]


def distinct(sources: Sequence[Source]) -> list[Source]:
    """Each source once, and no two under one name."""
    once = list({source.path.resolve(): source for source in reversed(sources)}.values())[::-1]
    for longer in (lambda source: f"{source.task}/{source.name}", lambda source: str(source.path)):
        counts = Counter(source.name for source in once)
        once = [replace(s, name=longer(s)) if counts[s.name] > 1 else s for s in once]
    return once
