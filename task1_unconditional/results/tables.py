"""Tables and figures of the experiments: `python task1_unconditional/results/tables.py RUNS OUT`, after experiments.sh.

Each table is a Markdown file below OUT/experiments, each figure a PNG of the same name; figures.json has every number
with its protocol.
"""

import json
import statistics
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from matplotlib.figure import Figure

from shared.experiments.figures import FIGURES, shown
from shared.experiments.plots import save, scale, style
from shared.files import write_text

MEASURED = ("judge_confident", "judge_distance_over_floor")
STEPS, RECONSTRUCTED = (5, 10, 20, 50, 200), (10, 20, 50, 100, 200, 500)
WAYS = {
    "ddim, eta 0": "ddim-0",
    "ddim, eta 0.2": "ddim-0.2",
    "ddim, eta 0.5": "ddim-0.5",
    "ddim, eta 1": "ddim-1",
    "ddpm, large variance": "ddpm_large",
}
SOLVERS = {
    "ddim, eta 0": "ddim-0",
    "heun (two calls a step)": "heun",
    "dpm_solver_pp": "dpm_solver_pp",
    "ddim, eta 1": "ddim-1",
}


class Measured:
    """All evaluations that the experiments have left, by the name of the measurement."""

    def __init__(self, folder: Path):
        """In `folder`/NAME/evaluation.json, and in folders below it."""
        self.found: dict[str, list[dict]] = {}
        for path in sorted(folder.glob("*/**/evaluation.json")):
            facts = json.loads(path.read_text())
            name = path.relative_to(folder).parts[0]
            self.found.setdefault(name, []).append({key: facts[key] for key in ("main", "protocol", "figures")})

    def value(self, name: str, figure: str, chosen: Callable[[dict], bool] = lambda facts: True) -> float:
        """A figure of a measurement; of several evaluations, the one that is chosen."""
        (facts,) = [facts for facts in self.found[name] if figure in facts["figures"] and chosen(facts)]
        return facts["figures"][figure]


def spread(values: Iterable[float], figure: str) -> str:
    """Mean and standard deviation, as a person reads them."""
    values = list(values)
    return f"{shown(figure, statistics.mean(values))} ± {shown(figure, statistics.stdev(values))}"


def markdown(headers: list[str], rows: Iterable[list[str]]) -> str:
    """A table."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def judged(measured: Measured, name: str) -> list[str]:
    """The two figures of the judge."""
    return [shown(figure, measured.value(name, figure)) for figure in MEASURED]


def labels() -> list[str]:
    """Of those two."""
    return [FIGURES[figure].label for figure in MEASURED]


def chance(measured: Measured, predict: str) -> str:
    """By how much the distance differs between seeds alone: what an ordering of single trainings must exceed."""
    values = [measured.value(f"{predict}-{seed}", MEASURED[1]) for seed in range(3)]
    return f"\nThree seeds of one such training: {spread(values, MEASURED[1])}.\n"


def predictions(measured: Measured) -> tuple[str, Figure]:
    """eps, x0, v: three seeds each."""
    rows, (figure, axes) = [], one("what the network predicts", FIGURES[MEASURED[1]].label)
    for i, predict in enumerate(("eps", "x0", "v")):
        values = {name: [measured.value(f"{predict}-{seed}", name) for seed in range(3)] for name in MEASURED}
        each = ", ".join(shown(MEASURED[1], value) for value in values[MEASURED[1]])
        rows.append([predict, *(spread(values[name], name) for name in MEASURED), each])
        axes.plot([predict] * 3, values[MEASURED[1]], linestyle="", **style(i))
    return markdown(["predicts", *labels(), "the three seeds"], rows), figure


def schedules(measured: Measured) -> tuple[str, Figure]:
    """Linear, cosine, sigmoid."""
    rows, (figure, axes) = [], one("schedule", FIGURES[MEASURED[1]].label)
    for i, (label, name) in enumerate({"linear": "linear", "cosine": "v-0", "sigmoid": "sigmoid"}.items()):
        rows.append([label, *judged(measured, name)])
        axes.bar(label, measured.value(name, MEASURED[1]), color=style(i)["color"])
    return markdown(["schedule", *labels()], rows) + chance(measured, "v"), figure


def bounds(measured: Measured) -> tuple[str, Figure]:
    """L_simple, the bound, and both: samples and bits."""

    def bits(name: str, how: str) -> str:
        if name not in measured.found:
            return "—"
        value, error = (
            measured.value(name, figure, lambda facts: how in facts["protocol"]["sampler"])
            for figure in ("bits_per_dim", "bits_per_dim_error")
        )
        return f"{value:.2f} ± {error:.2f}"

    rows, (figure, axes) = [], one("bits/dim by the bound", FIGURES[MEASURED[1]].label)
    told = {
        "L_simple": "eps-0",
        "the bound": "vlb",
        "hybrid, learned variance": "hybrid",
        "the bound, learned variance, loss-aware": "learned-vlb",
    }
    for i, (label, name) in enumerate(told.items()):
        large = bits(f"bits-{name}-large", "bound")
        cells = [bits(f"bits-{name}", "bound"), large, bits(f"bits-{name}", "ODE")]
        sampler = measured.found[name][0]["protocol"]["sampler"]
        rows.append([label, sampler, *judged(measured, name), *cells])
        if f"{name}-ddpm" in measured.found:
            rows.append([label, "ddpm", *judged(measured, f"{name}-ddpm"), "", "", ""])
        x = measured.value(f"bits-{name}", "bits_per_dim", lambda facts: "bound" in facts["protocol"]["sampler"])
        axes.plot([x], [measured.value(name, MEASURED[1])], linestyle="", label=label, **style(i))
    axes.legend()
    headers = ["trained by", "sampler", *labels(), "bits/dim, bound", "with the large variance", "bits/dim, ODE"]
    return markdown(headers, rows) + chance(measured, "eps"), figure


def averages(measured: Measured) -> tuple[str, Figure]:
    """Raw weights against averages: those that were kept, and those made afterwards."""
    rows, (figure, axes) = [], one(FIGURES[MEASURED[1]].label, "")
    for i, facts in enumerate(measured.found["averages"]):
        weights = facts["protocol"]["weights"]
        rows.append([weights, *(shown(figure, facts["figures"][figure]) for figure in MEASURED)])
        axes.barh(weights, facts["figures"][MEASURED[1]], color=style(i)["color"])
    return markdown(["weights", *labels()], rows), figure


def against_steps(measured: Measured, ways: dict[str, str], steps: tuple[int, ...]) -> tuple[str, Figure]:
    """Distance over floor by number of steps, a row for each way."""
    rows, (figure, axes) = [], one("calls of the network", FIGURES[MEASURED[1]].label)
    for i, (label, name) in enumerate(ways.items()):
        values = {n: measured.value(f"{name}-{n}", MEASURED[1]) for n in steps if f"{name}-{n}" in measured.found}
        rows.append([label, *(shown(MEASURED[1], values[n]) if n in values else "—" for n in steps)])
        calls = [2 * n - 1 if name == "heun" else n for n in values]  # its last step is one of Euler's
        axes.plot(calls, list(values.values()), label=label, **style(i))
    scale(axes, "both")
    axes.legend()
    return markdown(["sampler", *(str(n) for n in steps)], rows), figure


def reconstruction(measured: Measured) -> tuple[str, Figure]:
    """There and back, by number of steps."""
    rows, (figure, axes) = [], one("steps", FIGURES["reconstruction_mse"].label)
    names = {"committed: x0, sigmoid": "reconstruct", "v, cosine": "reconstruct-v"}
    for i, (label, name) in enumerate(names.items()):
        values = [
            measured.value(name, "reconstruction_mse", lambda facts, n=n: facts["protocol"]["steps"] == n)
            for n in RECONSTRUCTED
        ]
        rows.append([label, *(f"{value:.2g}" for value in values)])
        axes.plot(RECONSTRUCTED, values, label=label, **style(i))
    scale(axes, "both")
    axes.legend()
    return markdown(["model", *(str(n) for n in RECONSTRUCTED)], rows), figure


def one(x: str, y: str):
    """A picture of one panel."""
    figure = Figure(figsize=(6.5, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return figure, axes


EXPERIMENTS = {
    "predictions": predictions,
    "schedules": schedules,
    "bounds": bounds,
    "averages": averages,
    "steps-eta": lambda measured: against_steps(measured, WAYS, STEPS),
    "steps-sampler": lambda measured: against_steps(measured, SOLVERS, STEPS[:-1]),
    "reconstruction": reconstruction,
}


def main(runs: Path, out: Path) -> None:
    """Write every table and figure."""
    measured = Measured(runs / "measured")
    folder = out / "experiments"
    folder.mkdir(parents=True, exist_ok=True)
    for name, experiment in EXPERIMENTS.items():
        table, figure = experiment(measured)
        write_text(folder / f"{name}.md", table)
        save(figure, folder / f"{name}.png")
        print(f"{name}\n\n{table}")
    write_text(folder / "figures.json", json.dumps(measured.found, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
