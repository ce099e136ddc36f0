"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

A sweep's space held against the training that it is for: the training's own parser reads every value before anything
starts. The command is found by the package's console scripts, as `shared` imports no stage.
"""

import contextlib
import copy
import importlib
import io
import shlex
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from shared.cli import Parser, flat, read_yaml
from shared.errors import UserError
from shared.experiments.axis import meant
from shared.experiments.sweep.config import LISTS, SweepConfig
from shared.experiments.tables import value as written
from shared.files import write_text
from shared.options import TrainingOptions

OWN = "own_"  # sections that name code of a person's own, whose fields are that code's


def stage_commands() -> dict[str, str]:
    """The commands of all stages, and the modules that they are."""
    packages = {point.value for point in entry_points(group="noise_to_video.stages")}
    scripts = {point.name: point.module for point in entry_points(group="console_scripts")}
    return {name: module for name, module in scripts.items() if module.partition(".")[0] in packages}


def training_module(command: str) -> ModuleType:
    """The module of a training command; importing it does not import torch.

    Raises:
        UserError: there is no such training.
    """
    commands = stage_commands()
    trainings = [name for name in commands if "-train" in name or "-distill" in name]
    if command not in commands:
        raise UserError(f"there is no training {command}{meant(command, trainings)}")
    module = importlib.import_module(commands[command])
    if not isinstance(getattr(module, "OPTIONS", None), TrainingOptions):
        raise UserError(f"{command} trains nothing{meant(command, trainings)}")
    return module


def base_of(sweep: SweepConfig) -> dict[str, Any]:
    """The base config with the overrides, nested, as a YAML file has it."""
    path = Path(sweep.config) if sweep.config else training_module(sweep.command).OPTIONS.default
    return merged(read_yaml(path), sweep.overrides)


def merged(base: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """A nested config in which these fields, by their dotted names, have these values."""
    config = copy.deepcopy(base)
    for name, value in fields.items():
        *sections, last = name.split(".")
        inner = config
        for section in sections:
            if not isinstance(inner.get(section), dict):
                inner[section] = {}
            inner = inner[section]
        inner[last] = value
    return config


def read_by(options: TrainingOptions, config: dict[str, Any], what: str) -> Any:
    """What a training's own parser makes of a config.

    Args:
        options: the training's.
        config: nested.
        what: where it is from, for the message.

    Raises:
        UserError: the training would refuse it.
    """
    heard = io.StringIO()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        write_text(path, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        try:
            with contextlib.redirect_stderr(heard):
                return options.parse(["--config", str(path)]).config
        except SystemExit:
            said = heard.getvalue().strip().partition("error: ")[2].rpartition(" (see ")[0]
            raise UserError(f"{what}: {options.program} refuses it: {said.replace(str(path), 'the config')}") from None
        except UserError as error:
            raise UserError(f"{what}: {error}") from None


def check_space(sweep: SweepConfig, base: dict[str, Any]) -> Any:
    """Hold a sweep against its training's config, value for value.

    Args:
        sweep: what is to be tried.
        base: of `base_of`.

    Returns:
        the base config, as the training would have it.

    Raises:
        UserError: there is no such field, or the training does not take a value.
    """
    options = training_module(sweep.command).OPTIONS
    config = read_by(options, base, f"the base config {sweep.config or options.default}")
    check_own(sweep, base)
    known = set(flat(asdict(config))) - {"run.name", "run.folder"}
    for name, dimension in sweep.space.items():
        if name not in known and not name.startswith(OWN):
            raise UserError(f"space: {sweep.command} has no field {name}{meant(name, known)}")
        for value in dimension.examples:
            read_by(options, merged(base, {name: value}), f"space: {name} = {written(value)}")
    needs_lines = sweep.early_stopping or not sweep.evaluate
    if needs_lines and not config.train.log_every:
        raise UserError("train.log_every is 0, so that no figures are recorded to compare: give it a number of steps")
    if sweep.early_stopping and not sweep.early_stopping.most and sweep.early_stopping.grace > config.train.steps:
        raise UserError(f"early_stopping: grace {sweep.early_stopping.grace} is more than train.steps")
    if sweep.evaluate is not None:
        evaluation(sweep)
    return config


def check_own(sweep: SweepConfig, base: dict[str, Any]) -> None:
    """Raise UserError where a field is the sweep's to give, or is one of a class that is not named."""
    for where, names in (("space", sweep.space), ("overrides", sweep.overrides)):
        for name in names:
            if name in ("run", "run.name", "run.folder") or where == "space" and name.startswith("run."):
                raise UserError(
                    f"{where}: {name} is not for a sweep to vary: it names the runs itself, by --name, in its folder"
                )
            section = name.partition(".")[0]
            named = isinstance(base.get(section), dict) and "class_path" in base[section]
            if section.startswith(OWN) and "." in name and not named and f"{section}.class_path" not in sweep.space:
                raise UserError(f"{where}: {name} is of a class that is not named: give {section}.class_path, too")
            if section.startswith(OWN) and "." in name and name.split(".")[1] not in ("class_path", "init_args"):
                raise UserError(f"{where}: {name} is none: arguments of a class are in {section}.init_args")


def evaluation(sweep: SweepConfig) -> tuple[str, list[str]]:
    """The module and the options of the command that measures a finished trial.

    Raises:
        UserError: it is none.
    """
    try:
        command, *options = shlex.split(sweep.evaluate or "")
    except ValueError:
        command, options = "", []
    commands = {name: module for name, module in stage_commands().items() if name.endswith("-evaluate")}
    if command not in commands:
        raise UserError(f"evaluate: there is no command {command or sweep.evaluate}{meant(command, commands)}")
    if any(option.partition("=")[0] in ("--run", "--out") for option in options):
        raise UserError("evaluate: --run and --out are given by the sweep: leave them out")
    module = commands[command]
    if module.partition(".")[0] != training_module(sweep.command).__name__.partition(".")[0]:
        raise UserError(f"evaluate: {command} cannot measure what {sweep.command} trains: it is of another stage")
    check_options(command, importlib.import_module(module), options)
    return module, options


def check_options(command: str, module: ModuleType, options: list[str]) -> None:
    """Raise UserError where an evaluation does not take its options: they are read as it reads them."""
    parser = Parser(prog=command, short=getattr(module, "SHORT", None))
    parser.add_class_arguments(module.EvaluateConfig)
    heard = io.StringIO()
    try:
        with contextlib.redirect_stderr(heard), contextlib.redirect_stdout(heard):
            parser.parse_args(["--run", "a-trial", *options])
    except SystemExit:
        said = heard.getvalue().strip().partition("error: ")[2].rpartition(" (see ")[0]
        raise UserError(f"evaluate: {command} refuses it: {said or 'it measures nothing'}") from None


def names_own_code(base: dict[str, Any], space: Iterable[str] = ()) -> bool:
    """Whether a config, or a space around it, names code of a person's own, which would be run."""
    return any(name.startswith(OWN) and value for name, value in [*base.items(), *((name, True) for name in space)])


def distributions(sweep: SweepConfig) -> dict[str, Any]:
    """The space as Optuna has it. Of a list its places are drawn, as its values may be of any kind."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    space: dict[str, Any] = {}
    for name, dimension in sweep.space.items():
        if dimension.kind in LISTS:
            space[name] = CategoricalDistribution(list(range(len(dimension.values))))
        else:
            kind = IntDistribution if dimension.kind.endswith("int") else FloatDistribution
            space[name] = kind(*dimension.values, log=dimension.log)
    return space


def places(sweep: SweepConfig, values: dict[str, Any]) -> dict[str, Any]:
    """A point as Optuna has it."""
    return {
        name: dimension.values.index(values[name]) if dimension.kind in LISTS else values[name]
        for name, dimension in sweep.space.items()
    }


def values_at(sweep: SweepConfig, point: dict[str, Any]) -> dict[str, Any]:
    """A point of Optuna's as fields and values."""
    return {
        name: dimension.values[point[name]] if dimension.kind in LISTS else point[name]
        for name, dimension in sweep.space.items()
    }


def known_points(sweep: SweepConfig) -> list[dict[str, Any]]:
    """The points that are known before any trial has ended: all of a grid or a random search, none of TPE's."""
    if sweep.search == "grid":
        return sweep.points()
    if sweep.search == "tpe":
        return []
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=sweep.seed))
    space = distributions(sweep)
    return [values_at(sweep, study.ask(space).params) for _ in range(sweep.count)]
