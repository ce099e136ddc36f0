"""Measure a trained conditional model: `task3-evaluate --help`.

Digits by class: does the judge read what was asked for? Scenes by caption: are digit, colour and place right, in
captions whose combinations were held out of the training? Other captioned pictures: is the right one of a hundred
found by what was drawn from its caption?
"""

import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from shared.cli import Parser, command
from shared.sampling_options import EvaluateOptions, guidance_told, overrides
from task3_conditional.sample import GuideOptions, guiding, load_for

if TYPE_CHECKING:
    from shared.schedulers.config import GuidanceConfig
    from task3_conditional.model import Model

CANDIDATES = 100  # pictures of which the right one is to be found


@dataclass
class EvaluateConfig(GuideOptions, EvaluateOptions):
    """What to measure, and with how many samples drawn how.

    Inherited are the model, the samples and the folder from `EvaluateOptions`, the guidance from `GuideOptions`.
    """

    committed: Literal["label", "text"] = "label"
    """without --run: which of the two models that come with the package, the one by class or the one by caption"""
    split: Literal["test", "train"] = "test"
    """captions that were held out, or those of the training"""


def told(guidance: "GuidanceConfig", config: GuideOptions) -> float | str:
    """The guidance as a protocol states it."""
    extra = []
    if config.classifier:
        extra.append(f"by the classifier {Path(config.classifier).name}")
    if config.weak:
        extra.append(f"autoguidance by {Path(config.weak).name.removesuffix('.safetensors')}")
    return guidance_told(guidance, extra)


def measure_classes(model: "Model", config: EvaluateConfig, options: dict[str, Any]) -> dict[str, Any]:
    """Digits by class."""
    from shared.experiments.trained import judge_figures
    from task3_conditional.measures import by_class

    found = by_class(model, config.n, config.seed, options)
    judged = found["judged"]
    figures = {"judge_agreement": found["agreement"], **judge_figures(judged)}
    return {
        "main": "judge_agreement",
        "figures": figures,
        "details": {"agreement of each digit, 0 to 9": found["agreement_by_class"]},
        "reference": judged["reference"],
        "extractor": judged["extractor"],
        "caveat": judged["caveat"],
    }


def measure_captions(model: "Model", config: EvaluateConfig, options: dict[str, Any]) -> dict[str, Any]:
    """Scenes of digits by caption, in each language of the training; beside them what real scenes reach."""
    from shared.datasets import load as load_data
    from task3_conditional.measures import KINDS, by_caption, real

    data = load_data(replace(model.config.data, split=config.split))
    kinds = [kind for kind, counts in KINDS.items() if sum(counts) <= data.objects]
    n = max(1, config.n // len(kinds))
    figures, details = {}, {}
    for kind in kinds:
        for language in data.languages:
            found = by_caption(model, data, language, kind, n, config.seed, options)
            suffix = "" if language == "en" else f"_{language}"
            figures[f"followed_{kind}{suffix}"] = found.all
            words = f"{kind.replace('_', ' ')} ({language}): place, colour, identity"
            details[words] = [found.place, found.colour, found.identity]
        figures[f"followed_{kind}_real"] = real(data, kind, n, config.seed).all
    config.n = n  # of each kind and language: what the shares are of
    return {
        "main": next(iter(figures)),
        "figures": figures,
        "details": details,
        "reference": f"captions, {'held-out' if config.split == 'test' else 'training'} triples",
        "extractor": "shared.metrics scenes and judge",
    }


def measure_retrieval(model: "Model", config: EvaluateConfig, options: dict[str, Any]) -> dict[str, Any]:
    """Captioned pictures: drawn from the caption, found among a hundred, or among as many as are drawn or there.

    Pictures whose caption the model cannot read, because a word of it was in no caption of the training, are left out.
    """
    import torch

    from shared.datasets import load as load_data
    from shared.metrics.perceptual import build_perceptual
    from task3_conditional.measures import drawn, readable, retrieved

    figures, read = {}, 0
    for language in model.config.data.languages:
        data = load_data(replace(model.config.data, split=config.split, languages=(language,)))
        known = readable(model, [data.captions[data.captions_of(i)[0]] for i in range(len(data))])
        read += len(known)
        chosen = drawn(known, min(CANDIDATES, config.n, len(known)), config.seed)
        pictures = torch.stack([data[i][0] for i in chosen])
        captions = [data.captions[data.captions_of(i)[0]] for i in chosen]
        samples = model.sample(model.told(len(chosen), text=captions), config.seed, **options)
        distance = build_perceptual("st_lpips").to(samples.device)
        first, five = retrieved(samples, pictures.to(samples.device), distance)
        suffix = "" if language == "en" else f"_{language}"
        figures |= {f"retrieval_top1{suffix}": first, f"retrieval_top5{suffix}": five}
        config.n = len(chosen)
    return {
        "main": next(iter(figures)),
        "figures": figures,
        "reference": f"{config.n} pictures of the {config.split} part whose captions can be read",
        "readable_captions": read,
        "extractor": "ST-LPIPS",
    }


MEASURES = {
    "digits": measure_classes,
    "mnist": measure_classes,
    "captioned_digits": measure_captions,
    "captions": measure_retrieval,
    "emoji": measure_retrieval,
}


def measure(model: "Model", config: EvaluateConfig) -> dict[str, Any]:
    """Sample and measure. The fields of `shared.experiments.history.Evaluation`, and more to show.

    Raises:
        UserError: nothing can be measured about a model of such data.
    """
    from shared.errors import UserError
    from shared.experiments.trained import origin, protocol_of

    name = "a data set of your own" if model.config.own_data else model.config.data.name
    if name not in MEASURES:
        raise UserError(
            f"{model.source} was trained on {name}, of which this command knows no figure yet: it measures digits by "
            "class and captioned pictures; look at the samples with task3-sample"
        )
    sampling, guide = overrides(config), guiding(config, model, config.weights)
    begun = time.perf_counter()
    found = MEASURES[name](model, config, sampling | guide)
    seconds = time.perf_counter() - begun
    measured = origin("task3", model.source, model.config.train)
    if not config.run:
        measured["source"] = "the committed model"
    protocol = {
        "n": config.n,
        "reference": found.pop("reference"),
        "extractor": found.pop("extractor"),
        "guidance": told(guide["guidance"], config),
        "weights": config.weights,
        **asdict(replace(model.config.sampling, **sampling)),
    }
    figures = {**found.pop("figures"), "evaluation_seconds": seconds}
    return {**measured, "figures": figures, **found, "protocol": protocol_of(model.config, config, protocol)}


def run() -> int:
    """Sample, measure, print, and write the figures down."""
    parser = Parser(prog="task3-evaluate", description="Measure a trained model of stage 3.")
    parser.add_class_arguments(EvaluateConfig)
    config = parser.parse_args()

    from shared.experiments.trained import protocol_table, write_down

    model = load_for(config, text=config.committed == "text")
    facts = measure(model, config)
    print(protocol_table(facts), end="")
    write_down(model.source, facts, protocol_table(facts), config.out)
    return 0


def main() -> None:
    """The command `task3-evaluate`."""
    sys.exit(command(run))


if __name__ == "__main__":
    main()
