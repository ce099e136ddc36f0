"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

Search over the fields of a training's config: `sweep --help`. Ray Tune runs the trials, each an ordinary run.
"""

import importlib.util
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from shared.cli import Parser, command, flat
from shared.errors import UserError
from shared.experiments.sweep.cluster import say, work
from shared.experiments.sweep.config import SweepConfig, read_sweep
from shared.experiments.sweep.outcome import note_stopped, table, write_outcome
from shared.experiments.sweep.space import (
    base_of,
    check_space,
    known_points,
    names_own_code,
)
from shared.experiments.sweep.state import Sweep
from shared.experiments.tables import clean

FIELDS = """Fields of the YAML file: command (a training, such as task1-train) and space (field of its config: {kind:
values}; the kinds are grid: [a, b], choice: [a, b], uniform, loguniform, int and logint: [first, last]) are needed.
Besides: config, overrides, search (grid, random or tpe), trials, seed, figure, mode (min or max), evaluate,
early_stopping (grace, metric, mode, factor, most), resources (cpu, gpu), folder. Each is described, under `sweep`, in
shared/experiments/README.md; an example to begin with is task1_unconditional/configs/sweeps/widths.yaml."""


def build_parser() -> Parser:
    """The options."""
    about = "Search over the fields of a training's config, by Ray Tune."
    parser = Parser(prog="sweep", description=about, epilog=FIELDS)
    parser.add_argument("space", nargs="?", type=Path | None, help="YAML file: what is tried; its fields are below")
    parser.add_argument("--name", type=str | None, help="name of the sweep's folder and runs (default: the file's)")
    parser.add_argument("--resume", type=Path | None, help="folder of a sweep to go on with")
    parser.add_argument("--again", type=bool, default=False, help="with --resume: trials that failed, too")
    parser.add_argument(
        "--address", type=str | None, help="an existing Ray cluster, host:port or auto (default: this machine alone)"
    )
    parser.add_argument("--trust", type=bool, default=False, help="with --resume: run the code that a config names")
    return parser


def need_ray() -> None:
    """Raise UserError where Ray or Optuna is not installed."""
    if missing := [name for name in ("ray", "optuna") if importlib.util.find_spec(name) is None]:
        raise UserError(f"sweep needs {' and '.join(missing)}, of the extra sweep: pip install -e '.[sweep]'")


def open_sweep(asked: Any) -> Sweep:
    """The sweep that the command line asks for: a new one, or one to go on with.

    Raises:
        UserError: something about it is wrong.
    """
    if asked.resume is None:
        if asked.space is None:
            raise UserError("name a YAML file with the space, or a sweep to go on with by --resume")
        if asked.again or asked.trust:
            raise UserError("--again and --trust are for --resume: leave them out")
        config = read_sweep(asked.space)
        base = base_of(config)
        check_space(config, base)
        return Sweep.create(asked.name or asked.space.stem, config, base, known_points(config))
    if asked.name:
        raise UserError("--resume goes on with a sweep under its name: leave out --name")
    sweep = Sweep.reopen(asked.resume)
    try:
        if asked.space:
            check_same(sweep, read_sweep(asked.space))
        if names_own_code(sweep.base, sweep.config.space) and not asked.trust:
            raise UserError(
                f"{asked.resume} names code of its own, which would be run: if you know it, add --trust true"
            )
        check_space(sweep.config, sweep.base)
        for trial in sweep.trials:
            if asked.again:
                trial.failed = None
    except BaseException:
        sweep.release()
        raise
    return sweep


def check_same(sweep: Sweep, given: SweepConfig) -> None:
    """Raise UserError where a YAML file is not the one that the sweep began with."""
    before, now = flat(sweep.config.to_dict()), flat(given.to_dict())
    other = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if not other and base_of(given) != sweep.base:
        other = ["the base config"]
    if other:
        raise UserError(
            f"{sweep.folder} began with another {', '.join(other[:3])}: "
            "go on without the file, or begin a new sweep under another --name"
        )


def run() -> int:
    """Do what the command line says."""
    asked = build_parser().parse_args()
    need_ray()
    sweep = open_sweep(asked)
    new = asked.resume is None
    try:
        if not sweep.trials or not all(map(sweep.ended, sweep.trials)) or len(sweep.trials) < sweep.config.count:
            say(clean(f"sweep {sweep.folder}: {sweep.config.count} trials"))
            work(sweep, asked.address)
        note_stopped(sweep)
        rows = write_outcome(sweep)
    except UserError:
        if new and not any(map(sweep.run, sweep.trials)):  # nothing has begun
            shutil.rmtree(sweep.folder)
        raise
    finally:
        sweep.release()
    print(table(sweep, rows, "terminal"), end="")
    picture = ", parallel.png" if (sweep.folder / "parallel.png").exists() else ""  # nothing to draw without a figure
    print(clean(f"written: {sweep.folder / 'trials.md'}, trials.csv{picture}"))
    if len(sweep.trials) < sweep.config.count or not all(map(sweep.ended, sweep.trials)):
        say(f"not all trials have ended; go on with: sweep --resume {shlex.quote(str(sweep.folder))}")
        return 130
    return 0 if any(row.rank == 0 for row in rows) else 1


def main() -> None:
    """The command `sweep`."""
    sys.exit(command(run))


if __name__ == "__main__":
    main()
