"""Measure a trained model: `task1-evaluate --help`."""

import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from jsonargparse.typing import PositiveInt

from shared.cli import Parser, command
from shared.schedulers.config import Sampler, Spacing
from shared.training.config import Seed
from task1_unconditional.sample import load_for, overrides


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
    """folder for evaluation.json and evaluation.md (default: the run's folder; only printed for a file)"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where to compute; auto takes a GPU if there is one"""
    trust: bool = False
    """run the code of a network of one's own that the checkpoint names"""


def table(figures: dict[str, Any]) -> str:
    """The figures as a Markdown table, with the protocol they hold for."""
    judged, protocol = figures["judge"], figures["protocol"]
    shares = " ".join(f"{share:.1%}" for share in judged["histogram"])
    floor = "not known" if judged["floor"] is None else f"{judged['floor']:.3f} ± {judged['floor_deviation']:.3f}"
    ratio = "not known" if judged["ratio"] is None else f"{judged['ratio']:.1f}"
    rows = [
        ("samples", protocol["n"]),
        ("weights, sampler, steps", f"{protocol['weights']}, {protocol['sampler']}, {protocol['steps']}"),
        ("confident (≥ 0.9)", f"{judged['confident']:.1%}"),
        ("share of each digit, 0 to 9", shares),
        ("judge distance", f"{judged['distance']:.3f}"),
        ("floor: real digits at the same n", floor),
        ("distance / floor", ratio),
        ("sampling, seconds", f"{protocol['seconds']:.1f}"),
    ]
    lines = ["| figure | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    return "\n".join([*lines, "", judged["caveat"]]) + "\n"


def run() -> int:
    """Sample, judge, print, and write the figures down."""
    parser = Parser(prog="task1-evaluate", description="Measure a trained model of stage 1 with the digit judge.")
    parser.add_class_arguments(EvaluateConfig)
    config = parser.parse_args()

    import torch

    from shared.files import write_text
    from shared.metrics.judge import centre
    from shared.metrics.report import judge_samples

    model = load_for(config)
    centre(torch.empty(1, *model.shape))  # says so before the work if the judge cannot take such images
    options = overrides(config)
    begun = time.perf_counter()
    samples = model.sample(config.n, config.seed, **options)
    seconds = time.perf_counter() - begun
    sampling = asdict(replace(model.config.sampling, **options))
    protocol = {"n": config.n, "seed": config.seed, "weights": config.weights, **sampling, "seconds": seconds}
    figures = {
        "source": str(model.source) if config.run else "the committed model",
        "protocol": protocol,
        "judge": judge_samples(samples.cpu()).to_dict(),
    }
    print(table(figures), end="")

    folder = Path(config.out) if config.out else run_folder(model.source)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "evaluation.json", json.dumps(figures, indent=2) + "\n")
        write_text(folder / "evaluation.md", table(figures))
        print(f"\nwritten: {folder / 'evaluation.json'}, {folder / 'evaluation.md'}")
    return 0


def run_folder(checkpoint: Path) -> Path | None:
    """The run that a checkpoint lies in, if it lies in one."""
    folder = checkpoint.parent.parent
    return folder if (folder / "record.json").exists() else None


def main() -> None:
    """The command `task1-evaluate`."""
    sys.exit(command(run))


if __name__ == "__main__":
    main()
