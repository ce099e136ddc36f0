"""Measure a trained model: `task1-evaluate --help`."""

import sys
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from shared.cli import Parser, command
from shared.sampling_options import EvaluateOptions, TrustOptions, overrides
from task1_unconditional.sample import load_for

if TYPE_CHECKING:
    from task1_unconditional.model import Model


@dataclass
class EvaluateConfig(TrustOptions, EvaluateOptions):
    """What to measure, and with how many samples drawn how.

    All of it is inherited. From `EvaluateOptions`: the model (run, weights, device), the samples (n, seed, sampler,
    steps, eta, spacing), and the folder for the figures (out). From `TrustOptions`: trust.
    """


def table(facts: dict[str, Any]) -> str:
    """The figures as a Markdown table, with the protocol they hold for."""
    from shared.experiments.figures import shown
    from shared.experiments.trained import figure_table

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
    return figure_table(rows, judged["caveat"])


def run() -> int:
    """Sample, judge, print, and write the figures down."""
    parser = Parser(prog="task1-evaluate", description="Measure a trained model of stage 1 with the digit judge.")
    parser.add_class_arguments(EvaluateConfig)
    config = parser.parse_args()

    import torch

    from shared.experiments.trained import write_down
    from shared.metrics.judge import centre

    model = load_for(config, config.trust)
    centre(torch.empty(1, *model.shape))  # says so before the work if the judge cannot take such images
    facts = measure(model, config)
    print(table(facts), end="")
    write_down(model.source, facts, table(facts), config.out)
    return 0


def measure(model: "Model", config: EvaluateConfig) -> dict[str, Any]:
    """Sample and judge. The fields of `shared.experiments.history.Evaluation`, and what the judge says in full."""
    from shared.experiments.trained import judge_figures, origin, protocol_of
    from shared.metrics.report import judge_samples

    options = overrides(config)
    begun = time.perf_counter()
    samples = model.sample(config.n, config.seed, **options)
    seconds = time.perf_counter() - begun
    judged = judge_samples(samples.cpu()).to_dict()
    measured = origin("task1", model.source, model.config.train)
    if not config.run:
        measured["source"] = "the committed model"
    protocol = {  # what `protocol_of` would add at the end stands here where it is to be shown
        "n": config.n,
        "reference": judged["reference"],
        "extractor": judged["extractor"],
        "guidance": "none",
        "weights": config.weights,
        **asdict(replace(model.config.sampling, **options)),
    }
    return {
        **measured,
        "main": "judge_distance_over_floor",
        "protocol": protocol_of(model.config, config, protocol),
        "figures": {**judge_figures(judged), "sampling_seconds": seconds},
        "judge": judged,
    }


def main() -> None:
    """The command `task1-evaluate`."""
    sys.exit(command(run))


if __name__ == "__main__":
    main()
