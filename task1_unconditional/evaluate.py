"""Measure a trained model: `task1-evaluate --help`."""

import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse.typing import PositiveInt

from shared.cli import Parser, command
from shared.schedulers.config import Sampler, Spacing
from shared.training.config import Seed
from task1_unconditional.sample import load_for, overrides

if TYPE_CHECKING:
    from task1_unconditional.model import Model


@dataclass
class EvaluateConfig:
    """What to measure, and with how many samples drawn how."""

    run: str | None = None
    """a run's folder, a checkpoint file, or "latest"; default: the model that comes with the package"""
    weights: Literal["ema", "model", "swa"] = "ema"
    """the averaged weights, the raw ones, or the equally weighted average"""
    n: PositiveInt = 1000
    """number of samples"""
    seed: Seed = 0
    """of the noise"""
    sampler: Sampler | None = None
    """which solver (default: the run's)"""
    steps: int | None = None
    """number of steps (default: the run's)"""
    eta: float | None = None
    """share of fresh noise in ddim, 0 to 1 (default: the run's)"""
    spacing: Spacing | None = None
    """which noise levels the steps visit (default: the run's)"""
    out: str | None = None
    """folder for evaluation.json and evaluation.md (default: a new one in the run's evaluations/; none for a file)"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where to compute; auto takes a GPU if there is one"""
    trust: bool = False
    """run the code of a network of one's own that the checkpoint names"""


def table(facts: dict[str, Any]) -> str:
    """The figures as a Markdown table, with the protocol they hold for."""
    from shared.experiments.figures import shown

    judged, protocol = facts["judge"], facts["protocol"]
    shares = " ".join(f"{share:.1%}" for share in judged["histogram"])
    floor = "not known" if judged["floor"] is None else f"{judged['floor']:.3f} ± {judged['floor_deviation']:.3f}"
    ratio = "not known" if judged["ratio"] is None else shown("judge_distance_over_floor", judged["ratio"])
    rows = [
        ("samples", protocol["n"]),
        ("weights, sampler, steps", f"{protocol['weights']}, {protocol['sampler']}, {protocol['steps']}"),
        ("confident (≥ 0.9)", f"{judged['confident']:.1%}"),
        ("share of each digit, 0 to 9", shares),
        ("judge distance", f"{judged['distance']:.3f}"),
        ("floor: real digits at the same n", floor),
        ("distance / floor", ratio),
        ("sampling, seconds", f"{facts['figures']['sampling_seconds']:.1f}"),
    ]
    lines = ["| figure | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    return "\n".join([*lines, "", judged["caveat"]]) + "\n"


def run() -> int:
    """Sample, judge, print, and write the figures down."""
    parser = Parser(prog="task1-evaluate", description="Measure a trained model of stage 1 with the digit judge.")
    parser.add_class_arguments(EvaluateConfig)
    config = parser.parse_args()

    import torch

    from shared.experiments.run import record_evaluation
    from shared.metrics.judge import centre

    model = load_for(config)
    centre(torch.empty(1, *model.shape))  # says so before the work if the judge cannot take such images
    facts = measure(model, config)
    print(table(facts), end="")
    run, out = run_folder(model.source), Path(config.out) if config.out else None
    if out or run:
        folder = record_evaluation(run, facts, table(facts), out)
        print(f"\nwritten: {folder / 'evaluation.json'}, {folder / 'evaluation.md'}")
    return 0


def measure(model: "Model", config: EvaluateConfig) -> dict[str, Any]:
    """Sample and judge. The fields of `shared.experiments.history.Evaluation`, and what the judge says in full."""
    from shared.experiments.history import Run
    from shared.metrics.report import judge_samples
    from shared.training.checkpoint import read_facts

    options = overrides(config)
    begun = time.perf_counter()
    samples = model.sample(config.n, config.seed, **options)
    seconds = time.perf_counter() - begun
    judged = judge_samples(samples.cpu()).to_dict()
    sampling = asdict(replace(model.config.sampling, **options))
    step, train = read_facts(model.source).get("step"), model.config.train
    run = run_folder(model.source)
    figures = {f"judge_{name}": judged[name] for name in ("confident", "distance", "floor")}
    return {
        "task": "task1",
        "source": model.source.name if config.run else "the committed model",  # no path: a run may move
        "step": step,
        "images": step and step * train.batch * train.accumulate,
        "seconds": Run(run).seconds_at(step) if run and step else None,
        "main": "judge_distance_over_floor",
        "protocol": {
            "data": model.config.data.name if not model.config.own_data else model.config.own_data.get("class_path"),
            "n": config.n,
            "reference": judged["reference"],
            "extractor": judged["extractor"],
            "guidance": "none",
            "weights": config.weights,
            **sampling,
            "seed": config.seed,
        },
        "figures": {**figures, "judge_distance_over_floor": judged["ratio"], "sampling_seconds": seconds},
        "judge": judged,
    }


def run_folder(checkpoint: Path) -> Path | None:
    """The run that a checkpoint lies in, if it lies in one."""
    from shared.experiments.history import is_run

    folder = checkpoint.parent.parent
    return folder if is_run(folder) else None


def main() -> None:
    """The command `task1-evaluate`."""
    sys.exit(command(run))


if __name__ == "__main__":
    main()
