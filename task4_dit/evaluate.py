"""Measure a trained transformer on digits: `task4-evaluate --help`. Does the judge read what was asked for?"""

import sys
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from shared.cli import Parser, command
from shared.sampling_options import EvaluateOptions, GuideOptions, guidance_told, guidance_with, overrides
from task4_dit.sample import SHORT, load_for

if TYPE_CHECKING:
    from task4_dit.model import Model

MEASURED = ("digits", "mnist")


@dataclass
class EvaluateConfig(GuideOptions, EvaluateOptions):
    """What to measure, and with how many samples drawn how.

    Inherited are the model, the samples and the folder from `EvaluateOptions`, the guidance from `GuideOptions`.
    """


def judged_by_class(model: "Model", config: EvaluateConfig, options: dict[str, Any]) -> dict[str, Any]:
    """Samples of all digits alike, or of whatever the model likes where it is told no class; judged."""
    import torch

    from shared.experiments.trained import judge_figures
    from shared.metrics.report import judge_labelled, judge_samples

    if not model.config.condition.label:
        judged = judge_samples(model.sample(config.n, None, config.seed, **options).cpu()).to_dict()
        return {"judged": judged, "main": "judge_distance_over_floor", "figures": judge_figures(judged)}
    labels = torch.arange(config.n) % len(model.known["classes"])
    cond = model.told(config.n, label=labels.tolist())
    found = judge_labelled(model.sample(config.n, cond, config.seed, **options).cpu(), labels)
    figures = {"judge_agreement": found["agreement"], **judge_figures(found["judged"])}
    details = {"agreement of each digit, 0 to 9": found["agreement_by_class"]}
    return {"judged": found["judged"], "main": "judge_agreement", "figures": figures, "details": details}


def measure(model: "Model", config: EvaluateConfig) -> dict[str, Any]:
    """Sample and measure. The fields of `shared.experiments.history.Evaluation`, and more to show.

    Raises:
        UserError: the model is of other images than digits.
    """
    from shared.errors import UserError
    from shared.experiments.trained import origin, protocol_of

    name = "a data set of your own" if model.config.own_data else model.config.data.name
    if name not in MEASURED:
        raise UserError(
            f"{model.source} was trained on {name}, of which this command knows no figure yet: it measures digits; "
            "look at the samples with task4-sample"
        )
    sampling, guidance = overrides(config), guidance_with(config, model.config.guidance)
    begun = time.perf_counter()
    found = judged_by_class(model, config, sampling | {"guidance": guidance})
    seconds = time.perf_counter() - begun
    measured, judged = origin("task4", model.source, model.config.train), found.pop("judged")
    if not config.run:
        measured["source"] = "the committed model"
    protocol = {
        "n": config.n,
        "reference": judged["reference"],
        "extractor": judged["extractor"],
        "guidance": guidance_told(guidance) if model.config.condition.told else "none",
        "weights": config.weights,
        **asdict(replace(model.config.sampling, **sampling)),
    }
    figures = {**found.pop("figures"), "evaluation_seconds": seconds}
    protocol = protocol_of(model.config, config, protocol)
    return {**measured, "figures": figures, **found, "caveat": judged["caveat"], "protocol": protocol}


def run() -> int:
    """Sample, measure, print, and write the figures down."""
    parser = Parser(prog="task4-evaluate", description="Measure a trained model of stage 4.", short=SHORT)
    parser.add_class_arguments(EvaluateConfig)
    config = parser.parse_args()

    from shared.experiments.trained import protocol_table, write_down

    model = load_for(config)
    facts = measure(model, config)
    print(protocol_table(facts), end="")
    write_down(model.source, facts, protocol_table(facts), config.out)
    return 0


def main() -> None:
    """The command `task4-evaluate`."""
    sys.exit(command(run))


if __name__ == "__main__":
    main()
