"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

A trained model and its run: which run an option means, which one a checkpoint lies in, and what is written down where
such a model is measured. Free of torch.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from shared.experiments.figures import FIGURES, shown
from shared.experiments.history import Run, latest_run
from shared.experiments.run import record_evaluation
from shared.files import is_run
from shared.sampling_options import EvaluateOptions
from shared.training.config import TrainConfig


def source_of(run: str | None, task: str) -> Path | None:
    """What the option --run means: a run's folder, or a checkpoint file; None where nothing is named.

    Args:
        run: its value; "latest" is the run of this task in the folder `runs` that was started last.
        task: such as "task1".

    Raises:
        UserError: it is "latest", and there is no run.
    """
    if run == "latest":
        return latest_run(Path("runs"), task)
    return Path(run) if run else None


def run_folder(checkpoint: Path) -> Path | None:
    """The run that a checkpoint lies in, if it lies in one."""
    folder = checkpoint.parent.parent
    return folder if is_run(folder) else None


def origin(task: str, checkpoint: Path, train: TrainConfig) -> dict[str, Any]:
    """What was measured and what its training took: the first fields of `shared.experiments.history.Evaluation`.

    Args:
        task: such as "task1".
        checkpoint: the model's.
        train: by which it was trained.

    Returns:
        task, source (the file's name alone: a run may move), step, images that it had seen, and wall-clock seconds of
        its training; the last three are None where they are not known.
    """
    from shared.training.checkpoint import read_facts

    step, run = read_facts(checkpoint).get("step"), run_folder(checkpoint)
    return {
        "task": task,
        "source": checkpoint.name,
        "step": step,
        "images": step and step * train.batch * train.accumulate,
        "seconds": Run(run).seconds_at(step) if run and step else None,
    }


def protocol_of(trained: Any, config: EvaluateOptions, stated: Mapping[str, Any]) -> dict[str, Any]:
    """The protocol of a measurement (see `protocol.py`), in the order in which it will be shown.

    Args:
        trained: the model's config, with the sections `data` and `own_data`.
        config: n, weights and seed of the measurement.
        stated: the rest of it. Where it names what is filled in here (n, guidance "none", weights, seed), it wins.
    """
    data = trained.own_data.get("class_path") if trained.own_data else trained.data.name
    usual = {"n": config.n, "guidance": "none", "weights": config.weights, "seed": config.seed}
    return {"data": data, **stated, **(usual | dict(stated))}


def judge_figures(judged: Mapping[str, Any]) -> dict[str, float | None]:
    """The figures of a judge's report (`JudgeReport.to_dict`) by the names that they have in `figures.py`."""
    figures = {f"judge_{name}": judged[name] for name in ("confident", "distance", "floor")}
    return {**figures, "judge_distance_over_floor": judged["ratio"]}


def figure_table(rows: Iterable[tuple[str, object]], caveat: str | None = None) -> str:
    """Names and values as a Markdown table; below it, the sentence that they must not be shown without."""
    lines = ["| figure | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    return "\n".join([*lines, *(["", caveat] if caveat else [])]) + "\n"


def protocol_table(facts: dict[str, Any]) -> str:
    """The figures as a Markdown table, with the protocol that they hold for."""
    protocol = facts["protocol"]
    rows: list[tuple[str, object]] = [
        ("samples", protocol["n"]),
        ("guidance scale", protocol["guidance"]),
        ("weights, sampler, steps", f"{protocol['weights']}, {protocol['sampler']}, {protocol['steps']}"),
    ]
    rows += [
        (FIGURES[name].label if name in FIGURES else name, shown(name, value))
        for name, value in facts["figures"].items()
        if value is not None
    ]
    for name, row in facts.get("details", {}).items():
        rows.append((name, " ".join(f"{share:.1%}" for share in row)))
    return figure_table(rows, facts.get("caveat"))


def write_down(checkpoint: Path, facts: dict[str, Any], table: str, out: str | None) -> Path | None:
    """Write an evaluation down and say where: in the folder `out`, or in the run that the checkpoint lies in.

    Returns:
        the folder; None where there is neither, and nothing is written.
    """
    run = run_folder(checkpoint)
    if not out and not run:
        return None
    folder = record_evaluation(run, facts, table, Path(out) if out else None)
    print(f"\nwritten: {folder / 'evaluation.json'}, {folder / 'evaluation.md'}")
    return folder
