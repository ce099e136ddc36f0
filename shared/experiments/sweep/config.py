"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

What a sweep's YAML file says: of which training command which fields are varied, how they are searched, with which
resources, and what counts as better. Free of torch and of Ray, so that a mistake is told before either is imported.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentParser
from jsonargparse.typing import NonNegativeFloat, PositiveFloat, PositiveInt, restricted_number_type

from shared.cli import flat, read_yaml
from shared.errors import UserError
from shared.files import is_number
from shared.training.config import Seed

Factor = restricted_number_type("Factor", float, [(">", 1)])
LISTS, RANGES = ("grid", "choice"), ("uniform", "loguniform", "int", "logint")
MOST = 10_000  # trials


@dataclass
class Dimension:
    """The values that one field may take: exactly one of these."""

    grid: list[Any] | None = None
    """each of these values, with each value of the other fields"""
    choice: list[Any] | None = None
    """one of these values"""
    uniform: tuple[float, float] | None = None
    """a number between these two"""
    loguniform: tuple[float, float] | None = None
    """a number between these two, whose logarithm is uniform"""
    int: tuple[int, int] | None = None
    """a whole number from the first to the last"""
    logint: tuple[int, int] | None = None
    """a whole number from the first to the last, whose logarithm is uniform"""

    @property
    def kind(self) -> str:
        """Which of them it is."""
        return next(name for name, value in vars(self).items() if value is not None)

    @property
    def values(self) -> list[Any]:
        """Every value of a list, or the two ends of a range."""
        return list(vars(self)[self.kind])

    @property
    def examples(self) -> list[Any]:
        """Every value of a list, or of a range its ends and, of real numbers, one that is not whole."""
        values = self.values
        between = [values[0] + (values[1] - values[0]) / math.e] if "uniform" in self.kind else []
        return values + between

    @property
    def log(self) -> bool:
        """Whether its logarithm is uniform."""
        return self.kind.startswith("log")

    def problem(self) -> str | None:
        """What is wrong with it."""
        given = [name for name, value in vars(self).items() if value is not None]
        if len(given) != 1:
            return f"says {' and '.join(given) or 'nothing'}: give it one of {', '.join(LISTS + RANGES)}"
        values = self.values
        if self.kind in LISTS:
            texts = [yaml.safe_dump(value) for value in values]
            return None if values and len(set(texts)) == len(texts) else f"needs values under {given[0]}, each once"
        low, high = values
        if not (is_number(low) and is_number(high) and low < high and (low > 0 or not self.log)):
            return f"goes from {low} to {high}: {self.kind} needs {'0 < ' * self.log}first < last"
        return None


@dataclass
class Resources:
    """What a trial is given. Trials run side by side as long as there is enough."""

    cpu: PositiveFloat = 1.0
    """processor cores; also its threads"""
    gpu: NonNegativeFloat = 0.0
    """GPUs, or a share of one: with 0.5, two trials share a GPU (Ray counts, and does not limit their memory)"""


@dataclass
class EarlyStopping:
    """ASHA (Li et al., A System for Massively Parallel Hyperparameter Tuning, arXiv 1810.05934, Algorithm 2).

    At the steps grace, grace·factor, grace·factor², … a trial goes on only if its figure is among the best 1/factor of
    those that came so far. A trial that is stopped keeps its run and its checkpoint.
    """

    grace: PositiveInt
    """optimizer steps that each trial gets"""
    metric: str = "loss"
    """name in metrics.jsonl"""
    mode: Literal["min", "max"] = "min"
    """whether less or more of it is better"""
    factor: Factor = 3.0
    """one in so many goes on"""
    most: PositiveInt | None = None
    """optimizer steps after which nothing is stopped any more (default: train.steps of the base config)"""


@dataclass
class SweepConfig:
    """A search over the fields of a training's config."""

    command: str = ""
    """the training command, such as task1-train"""
    space: dict[str, Dimension] = field(default_factory=dict)
    """what is varied: fields of that command's config, such as optimizer.lr"""
    config: str | None = None
    """the YAML file of the base config (default: the command's demo)"""
    overrides: dict[str, Any] = field(default_factory=dict)
    """fields that all trials have otherwise than the base config"""
    search: Literal["grid", "random", "tpe"] = "random"
    """every point of a grid; points drawn at random; or Optuna's TPE, which learns from the trials that ended"""
    trials: PositiveInt | None = None
    """how many (random, tpe); a grid has as many as it has points"""
    seed: Seed = 0
    """of the search; the trainings have theirs, train.seed"""
    figure: str = "loss"
    """what is to be best: a name in metrics.jsonl, of which the last line counts; or one of the evaluation's figures"""
    mode: Literal["min", "max"] = "min"
    """whether less or more of it is better"""
    evaluate: str | None = None
    """a command that measures a trial which has finished, such as "task1-evaluate --n 500"; --run is added"""
    resources: Resources = field(default_factory=Resources)
    early_stopping: EarlyStopping | None = None
    folder: str = "runs"
    """folder of all runs; on several machines one that all of them share"""

    def points(self) -> list[dict[str, Any]]:
        """All points of a grid, the last field changing fastest."""
        values = itertools.product(*(dimension.values for dimension in self.space.values()))
        return [dict(zip(self.space, point, strict=True)) for point in values]

    @property
    def count(self) -> int:
        """The number of trials."""
        return self.trials or len(self.points())

    def to_dict(self) -> dict[str, Any]:
        """As its YAML file may have it."""
        content = {name: value for name, value in asdict(self).items() if value is not None}
        for name, dimension in self.space.items():
            content["space"][name] = {dimension.kind: dimension.values}
        return content


def read_sweep(path: Path) -> SweepConfig:
    """A sweep's YAML file. The fields of the space are not yet held against those of the training's config.

    Raises:
        UserError: it is not one, or its parts contradict each other.
    """
    content = read_yaml(path)
    check_once(yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader), path)
    if problem := misread(content):
        raise UserError(f"{path}: {problem}")
    config = parsed(content, path)
    config.space = named(config.space, "space", path)
    config.overrides = named(flat(config.overrides), "overrides", path)
    if problem := contradiction(config):
        raise UserError(f"{path}: {problem}")
    return config


def parsed(content: dict[str, Any], path: Path) -> SweepConfig:
    """What `misread` lets pass, as the types have it.

    The parser would import and build a class that a value names, and a sweep that is resumed may be a stranger's: it
    does not see the values that may be of any kind.
    """
    spaces = content.get("space") or {}
    shown = {
        name: {kind: [0] if kind in LISTS else given for kind, given in values.items()}
        for name, values in spaces.items()
    }
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(SweepConfig)
    try:
        read = parser.instantiate(parser.parse_object(content | {"space": shown, "overrides": {}}))
    except Exception as error:  # jsonargparse lets through what the types' own parsing raises
        raise UserError(f"{path}: {' '.join(str(error).split())}") from None
    config = SweepConfig(**{name: getattr(read, name) for name in vars(SweepConfig())})
    for name, dimension in config.space.items():
        vars(dimension).update({kind: given for kind, given in spaces[name].items() if kind in LISTS})
    config.overrides = content.get("overrides") or {}
    return config


def misread(content: dict[str, Any]) -> str | None:
    """What is no field, or no kind of values: told in fewer words than the parser needs."""
    known = [entry.name for entry in fields(SweepConfig)]
    if other := [name for name in content if str(name).partition(".")[0] not in known]:
        return f"there is no field {other[0]}; there are {', '.join(known)}"
    if dotted := [name for name in content if str(name).startswith(("space.", "overrides."))]:
        return f"{dotted[0]} is one name with a dot: write it under {dotted[0].partition('.')[0]}"
    if not isinstance(content.get("overrides") or {}, dict):
        return "overrides must hold fields and their values, such as overrides: {train: {steps: 300}}"
    space = content.get("space")
    if space is not None and not isinstance(space, dict):
        return "space must hold fields and their values, such as space: {optimizer.lr: {choice: [1e-3, 1e-4]}}"
    kinds = ", ".join(LISTS + RANGES)
    for name, values in (space or {}).items():
        if not isinstance(values, dict):
            return f"space: {name} has no kind: write {{choice: [{values}]}}, or another of {kinds}"
        if other := [kind for kind in values if kind not in LISTS + RANGES]:
            return f"space: {name} has the kind {other[0]}; there are {kinds}"
        kind, given = next(iter(values.items()), ("", None))
        if kind in LISTS and not isinstance(given, list):
            return f"space: {name}: {kind} needs a list, such as {kind}: [{given}]"
        if kind in RANGES and (not isinstance(given, list) or len(given) != 2):
            return f"space: {name}: {kind} needs two numbers, such as {kind}: [1, 2]"
    return None


def check_once(node: yaml.Node | None, path: Path) -> None:
    """Raise UserError where a name is given twice: YAML takes the last, and says nothing."""
    if isinstance(node, yaml.MappingNode):
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise UserError(f"{path}: {twice} is given twice: leave one of them out")
    if isinstance(node, yaml.CollectionNode):
        for child in node.value:
            for part in child if isinstance(child, tuple) else [child]:
                check_once(part, path)


def named(fields: dict[str, Any], where: str, path: Path) -> dict[str, Any]:
    """With underscores for hyphens, as on the command line."""
    if other := [name for name in fields if not isinstance(name, str)]:
        raise UserError(f"{path}: {other[0]} in {where} is not the name of a field")
    names = [name.replace("-", "_") for name in fields]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{path}: {twice} is given twice in {where}: leave one of them out")
    return dict(zip(names, fields.values(), strict=True))


def contradiction(config: SweepConfig) -> str | None:
    """What does not go together in a sweep's config."""
    if not config.command:
        return "it names no command: say which training, such as command: task1-train"
    if not config.space:
        return "the space is empty: name a field and its values, such as space: {optimizer.lr: {choice: [1e-3, 1e-4]}}"
    for name, dimension in config.space.items():
        if name in config.overrides:
            return f"{name} is given twice, in space and in overrides: leave one of them out"
        if problem := dimension.problem():
            return f"space: {name} {problem}"
        if config.search == "grid" and dimension.kind in RANGES:
            return f"space: {name} is {dimension.kind}, which has no grid: list its values, or say search: random"
        if config.search != "grid" and dimension.kind == "grid":
            return f"space: {name} is a grid, and search is {config.search}: say choice, or search: grid"
    if config.search == "grid" and config.trials:
        return "trials are for search: random and tpe; a grid has as many as it has points: leave them out"
    if config.search != "grid" and not config.trials:
        return f"search: {config.search} needs to know how many trials"
    if config.trials and config.trials > MOST:
        return f"trials: {config.trials:,} is more than {MOST:,}: ask for fewer"
    if config.search == "grid" and size(config.space.values()) > MOST:
        return f"the grid has more than {MOST:,} points: say search: random"
    if config.resources.gpu > 1 and config.resources.gpu % 1:
        return f"a trial cannot have {config.resources.gpu} GPUs: give it a share of one, or whole ones"
    stopping = config.early_stopping
    if stopping and stopping.most and stopping.most < stopping.grace:
        return f"early_stopping: most {stopping.most} is less than grace {stopping.grace}"
    return None


def size(dimensions: Sequence[Dimension]) -> int:
    """The number of points of a grid."""
    total = 1
    for dimension in dimensions:
        total *= len(dimension.values)
    return total
