"""Introduced in task 1; used by tasks 1, 2, 3.

`runs show`: all that a run's folder says, for a person.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared.cli import flat
from shared.experiments.figures import FIGURES, shown
from shared.experiments.history import Evaluation, Run, open_run
from shared.experiments.protocol import text
from shared.experiments.tables import amount, date, duration, render, size, value, warn
from shared.files import is_number

MAIN_PACKAGES = ("torch", "torchvision", "numpy", "accelerate", "safetensors", "diffusers")
NO_FIGURES = ("step", "time", "images", "seconds", "peak_memory_gib", "peak_gpu_memory_gib")  # shown by other names
Rows = list[tuple[str, str]]


def show(run: str, folder: str = "runs", packages: bool = False, config: bool = True) -> int:
    """Everything about a run: state, code, machine, figures, files, config.

    Args:
        run: its folder, or its name
        folder: folder of all runs, in which a name is looked for
        packages: name every installed package, not the main ones alone
        config: print the config as well
    """
    found = open_run(run, Path(folder))
    sections = [
        (("run", str(found.folder)), [*outcome(found), *code(found), *machine(found, packages)]),
        (("figure", "last value"), last_figures(found)),
        (("evaluation", "figures"), [(e.path.parent.name, figures_of(e)) for e in found.evaluations]),
        (("evaluation", "protocol"), [(e.path.parent.name, protocol_of(e)) for e in found.evaluations]),
        (("resumed from step", "what was new"), sessions(found)),
        (("files", "size"), files(found)),
        (("config", "value"), [(name, value(v)) for name, v in flat(found.config).items()] if config else []),
    ]
    print("\n".join(render(headers, rows) for headers, rows in sections if rows), end="")
    warn(found.problems)
    return 0


def known(rows: list[tuple[str, Any]]) -> Rows:
    """The rows that say something, as text."""
    return [(name, str(content)) for name, content in rows if content not in (None, "")]


def mapping(content: Any) -> dict[str, Any]:
    """What should be names and values in somebody's record; nothing where it is not."""
    return content if isinstance(content, dict) else {}


def told(content: Any, write: Callable[[float], str]) -> str | None:
    """A number from somebody's record as text, if it is one."""
    return write(content) if is_number(content) else None


def gib(memory: float) -> str:
    """An amount of memory."""
    return f"{memory:.2f} GiB"


def outcome(run: Run) -> Rows:
    """How far the run came."""
    record = run.record
    return known(
        [
            ("stage", run.task),
            ("state", ": ".join(str(part) for part in (run.state, record.get("reason")) if part)),
            ("started", told(record.get("started"), date)),
            ("ended", told(record.get("ended"), date)),
            ("wall-clock", told(run.amount("seconds"), duration)),
            ("steps", told(run.amount("step"), amount)),
            ("images", told(run.amount("images"), amount)),
            ("peak memory", told(run.amount("peak_memory_gib"), gib)),
            ("peak memory, GPU", told(run.amount("peak_gpu_memory_gib"), gib)),
            ("seed", record.get("seed")),
            ("files left out", left_out(mapping(record.get("skipped")))),
        ]
    )


def left_out(skipped: dict[str, Any]) -> str | None:
    """How many files of the data could not be read, and one of them; record.json names more."""
    names = skipped.get("names")
    example = f", such as {names[0]}" if isinstance(names, list) and names else ""
    return told(skipped.get("count"), lambda count: f"{amount(count)}{example}")


def code(run: Run) -> Rows:
    """The command, and the code that it ran."""
    changed = "with changes, see changes.patch" if (run.folder / "changes.patch").exists() else "without changes"
    untracked = run.record.get("untracked")
    if isinstance(untracked, list) and untracked:
        changed += f"; {len(untracked)} untracked files, in source.zip where they are source"
    commit = run.record.get("commit")
    return known(
        [("command", run.record.get("command")), ("commit", f"{commit}, {changed}" if commit else "not known")]
    )


def machine(run: Run, every: bool) -> Rows:
    """Packages and hardware."""
    record, packages = run.record, mapping(run.record.get("packages"))
    chosen = [f"{name} {packages[name]}" for name in (packages if every else MAIN_PACKAGES) if name in packages]
    cpus, threads = record.get("cpus"), record.get("threads")
    return known(
        [
            ("python", record.get("python")),
            ("packages", ", ".join(chosen)),
            ("platform", record.get("platform")),
            ("processor", record.get("processor")),
            ("cpus", cpus and f"{cpus}" + (f", of which torch used {threads}" if threads else "")),
            ("memory", told(record.get("memory_gib"), gib)),
            ("gpu", record.get("gpu")),
        ]
    )


def label(name: str) -> str:
    """What a figure is called."""
    return FIGURES[name].label if name in FIGURES else name


def last_figures(run: Run) -> Rows:
    """The last line of metrics.jsonl."""
    return [(label(n), shown(n, v)) for line in run.metrics[-1:] for n, v in line.items() if n not in NO_FIGURES]


def figures_of(evaluation: Evaluation) -> str:
    """An evaluation's figures on a line."""
    return ", ".join(f"{label(name)} {shown(name, value)}" for name, value in evaluation.figures.items())


def protocol_of(evaluation: Evaluation) -> str:
    """What the figures hold for, on a line."""
    step = [] if evaluation.step is None else [f"step {amount(evaluation.step)}"]
    return ", ".join(step + [f"{name} {text(v)}" for name, v in evaluation.protocol.items()])


def sessions(run: Run) -> Rows:
    """When the run was gone on with, and what was another than at its start."""
    resumed = run.record.get("resumed")
    rows = []
    for session in map(mapping, resumed if isinstance(resumed, list) else []):
        new = [name for name in session if name not in ("started", "from_step", "source", "command")]
        parts = [told(session.get("started"), date), session.get("command")]
        parts += [f"code in {session.get('source')}", f"new: {', '.join(new)}" if new else None]
        rows.append((str(session.get("from_step", "?")), "; ".join(str(part) for part in parts if part)))
    return rows


def files(run: Run) -> Rows:
    """Every checkpoint with its size; of all else, how many there are."""
    rows = []
    for path in sorted(run.folder.iterdir()):
        if path.is_dir() and path.name != "checkpoints":
            count, total = measure(path)
            rows.append((f"{path.name}/ ({count} file{'s' * (count != 1)})", size(total)))
    checkpoints = sorted((run.folder / "checkpoints").glob("step-*.safetensors"))
    return rows + [(f"checkpoints/{path.name}", size(path.stat().st_size)) for path in checkpoints]


def measure(folder: Path) -> tuple[int, int]:
    """How many files there are in a folder, and their bytes. Links are not followed."""
    sizes = []
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                sizes.append(os.lstat(os.path.join(place, name)).st_size)
            except FileNotFoundError:  # a training run replaces its checkpoints
                continue
    return len(sizes), sum(sizes)
