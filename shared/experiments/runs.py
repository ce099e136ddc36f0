"""Introduced in task 1; used by tasks 1, 2, 3.

What has been trained: `runs --help`. A run is a folder and nothing else, so all of this reads folders; a damaged one is
named in a line of its own and hides no other.
"""

import difflib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from shared.cli import Parser, command, flat, load_yaml
from shared.errors import UserError
from shared.experiments.diff import diff
from shared.experiments.figures import FIGURES, shown
from shared.experiments.history import STATES, Run, find_runs, in_stage
from shared.experiments.protocol import FINER, REQUIRED, equal
from shared.experiments.prune import prune
from shared.experiments.reproduce import reproduce
from shared.experiments.show import show
from shared.experiments.tables import Format, amount, clean, date, duration, render, warn
from shared.files import is_number

HEADERS = ("stage", "name", "state", "started", "steps", "images", "wall-clock", "main figure", "value")


def list_runs(
    folder: str = "runs",
    stage: str | None = None,
    state: Literal[STATES] | None = None,
    where: Sequence[str] = (),
    format: Format = "terminal",
) -> int:
    """Every run, the newest last (also what `runs` alone does).

    Args:
        folder: folder of all runs
        stage: only those of a stage, such as task1
        state: only those in this state
        where: only those with this value of a config field, such as network.width=32; may be given again
        format: a table for the terminal, for a document, or for a spreadsheet
    """
    runs = list(find_runs(Path(folder)))
    kept = [run for run in runs if in_stage(run.task, stage) and state in (None, run.state)]
    if where:
        wanted = [parsed(condition) for condition in where]
        check_fields([name for name, _ in wanted], runs)
        kept = [run for run in kept if all(holds(run, name, text) for name, text in wanted)]
    if kept:
        print(render(HEADERS, [cells(run, format == "csv") for run in kept], format), end="")
        if format == "terminal" and len({measured(run) for run in kept} - {""}) > 1:
            print("\nThe figures are of unlike protocols: compare says which may stand side by side.")
    elif runs:
        print(f"none of the {len(runs)} runs in {clean(folder)} is such a one: ask for less")
    else:
        print(f"there is no run in {clean(folder)}: train one, as with task1-train, or give another --folder")
    warn(problem for run in runs for problem in run.problems)
    return 0


def cells(run: Run, exact: bool) -> list[str]:
    """A run's row; with exact numbers, which a program can read, or as a person reads them."""
    started, figure = run.record.get("started"), run.main_figure()
    amounts = [
        (started if is_number(started) else None, date),
        (run.amount("step"), amount),
        (run.amount("images"), amount),
        (run.amount("seconds"), duration),
    ]
    known = ["" if n is None else str(n) if exact and write is not date else write(n) for n, write in amounts]
    name, value = figure or ("", "")
    if figure and not exact:
        name, value = FIGURES[name].label if name in FIGURES else name, shown(name, value)
    return [run.task, run.name, run.state, *known, name, str(value)]


def measured(run: Run) -> str:
    """How the main figure was measured, apart from the seed; nothing where it is the loss."""
    for evaluation in reversed(run.evaluations):
        if evaluation.main in evaluation.figures:
            protocol = {name: evaluation.protocol.get(name) for name in (*REQUIRED, *FINER)}
            return f"{evaluation.main} {protocol}"
    return ""


def parsed(condition: str) -> tuple[str, str]:
    """Name and value of `network.width=32`."""
    name, equals, text = condition.partition("=")
    if not equals or not name:
        raise UserError(f"--where {condition} is no condition: give a config field and its value, as network.width=32")
    return name.replace("-", "_"), text


def check_fields(names: Sequence[str], runs: Sequence[Run]) -> None:
    """Raise UserError where no run's config has a field of such a name: a typing mistake."""
    known = sorted({field for run in runs for field in flat(run.config)})
    for name in names:
        if runs and name not in known:
            close = difflib.get_close_matches(name, known) or [field for field in known if name in field][:5]
            advice = f"the closest are {', '.join(close)}" if close else "see runs show RUN for its fields"
            raise UserError(f"no run's config has a field {name}: {advice}")


def holds(run: Run, name: str, text: str) -> bool:
    """Whether a run's config has this value, written as in YAML."""
    fields = flat(run.config)
    if name not in fields:
        return False
    return fields[name] == text or equal(fields[name], reading(text))


def reading(text: str) -> Any:
    """What a text means in YAML; itself where it means nothing."""
    try:
        return load_yaml(text)
    except yaml.YAMLError:
        return text


COMMANDS = {"list": list_runs, "show": show, "diff": diff, "prune": prune, "reproduce": reproduce}


def build_parser() -> Parser:
    """A subcommand for each function of COMMANDS; its parameters are the options, and its docstring is their help."""
    parser = Parser(prog="runs", description="List, show, compare, remove and reproduce the runs of all stages.")
    subcommands = parser.add_subcommands(dest="command", required=True)
    for name, function in COMMANDS.items():
        line = function.__doc__.splitlines()[0]
        sub = Parser(description=line)
        if name == "prune":
            sub.add_argument("runs", nargs="*", type=str, help="folders or names (default: those without use)")
        if name == "list":
            text = "only those with this value of a config field, such as network.width=32; may be given again"
            sub.add_argument("--where", nargs="+", action="extend", type=str, default=[], help=text)
        if name == "reproduce":
            sub.add_argument("--out", required=True, type=str, help="a new folder for code and config")
        sub.add_function_arguments(function, as_positional=True, skip={"runs", "where", "out"})
        subcommands.add_subcommand(name, sub, help=line)
        sub.prog = f"runs {name}"
    return parser


def run() -> int:
    """Do what the command line says; without a subcommand, list."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0].startswith("--") and arguments[0] != "--help":
        arguments = ["list", *arguments]
    asked = build_parser().parse_args(arguments)
    return COMMANDS[asked.command](**asked[asked.command].as_dict())


def main() -> None:
    """The command `runs`."""
    sys.exit(command(run))


if __name__ == "__main__":
    main()
