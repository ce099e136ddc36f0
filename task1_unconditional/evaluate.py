"""Measure a trained model: `task1-evaluate --help`. What is measured how: `measuring.py`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse.typing import PositiveInt

from shared.cli import Parser, command
from shared.errors import UserError
from shared.sampling_options import EvaluateOptions, TrustOptions
from task1_unconditional.sample import load_for

if TYPE_CHECKING:
    from shared.metrics.inception import Inception
    from task1_unconditional.model import Model


@dataclass
class EvaluateConfig(TrustOptions, EvaluateOptions):
    """What to measure, and on how many images.

    Inherited are from `EvaluateOptions` the model (run, weights, device), the samples (n, seed, sampler, steps, eta,
    spacing) and the folder for the figures (out); from `TrustOptions` trust.
    """

    also: tuple[str, ...] = ()
    """further weights, measured alike and put into the same table: such as [model,post-hoc-0.1]; all is what is kept"""
    samples: bool = True
    """draw samples, for the digit judge and for FID"""
    fid: bool | None = None
    """FID, KID, Inception Score, precision and recall (default: where the digit judge cannot take the images)"""
    inception: str | None = None
    """file of the published Inception weights (default: torch's cache, else they are downloaded)"""
    reference: Literal["train", "test"] = "train"
    """part of the data that FID is against; the floor is what images of the other part reach"""
    most: PositiveInt = 50_000
    """real images of the reference, at most"""
    bits_per_dim: bool = False
    """bits per dimension of held-out images, by the variational bound"""
    terms: PositiveInt = 50
    """terms of the bound computed for each image, drawn among all; T - 1 of them is every one"""
    variance: Literal["small", "large"] | None = None
    """of a step, in the bound (default: the run's)"""
    ode: bool = False
    """and by the probability-flow ODE"""
    ode_images: PositiveInt = 50
    """images for the ODE, at most"""
    reconstruct: tuple[PositiveInt, ...] = ()
    """error of held-out images turned into noise and back by DDIM, in each of these numbers of steps"""
    real: PositiveInt = 500
    """held-out images for bits per dimension and reconstruction, at most"""


def inception_for(config: EvaluateConfig, model: "Model") -> "Inception | None":
    """The network of FID, if it is wanted and its weights can be had; says so where they cannot.

    Raises:
        UserError: a file is named, and it does not hold them; they cannot be had, and nothing else is asked for; there
            are too few images, or none to measure against.
    """
    from shared.datasets.held_out import part_of
    from shared.metrics.image_figures import SMALLEST
    from shared.metrics.inception import WeightsMissing, load_inception
    from task1_unconditional.measuring import can_judge

    judged = can_judge(model)
    usual = not judged and not model.config.own_data  # of which no part is known that could be the reference
    wanted = config.fid if config.fid is not None else bool(config.inception) or usual
    if not wanted or not config.samples:
        return None
    part_of(model, config.reference)  # says so before the work if there is none
    if min(config.n, config.most) < SMALLEST:
        raise UserError(f"FID and its like need at least {SMALLEST} images: raise --n and --most, or add --fid false")
    try:
        return load_inception(config.inception)
    except WeightsMissing as error:
        if not judged and not on_real(config):
            raise
        print(f"{error}; the other figures follow", file=sys.stderr)
        return None


def on_real(config: EvaluateConfig) -> bool:
    """Whether something is to be measured on real images."""
    return config.bits_per_dim or config.ode or bool(config.reconstruct)


def check(model: "Model", config: EvaluateConfig, inception: "Inception | None", weights: list[str]) -> None:
    """Raise UserError, before the work, where something that is asked for cannot be measured."""
    import torch

    from shared.datasets.held_out import held_out
    from shared.metrics.judge import centre
    from shared.training.weights import read_weights
    from task1_unconditional.editing import times_of

    if on_real(config):
        held_out(model)
    elif not config.samples:
        raise UserError("nothing is asked for: leave out --samples false, or add --bits-per-dim or --reconstruct [50]")
    elif inception is None:
        centre(torch.empty(1, *model.shape))  # if the judge cannot take such images either
    for steps in config.reconstruct:
        times_of(model, steps)
    for name in weights[1:]:
        read_weights(model.source, name)


def weights_of(config: EvaluateConfig, source: Path) -> list[str]:
    """The names of all weights to measure, those of --weights first."""
    from shared.training.weights import available

    names = [name for also in config.also for name in (available(source) if also == "all" else [also])]
    return list(dict.fromkeys([config.weights, *names]))


def measure(model: "Model", config: EvaluateConfig, inception: "Inception | None") -> list[dict[str, Any]]:
    """All evaluations of one model that the options ask for."""
    from task1_unconditional import measuring

    found = []
    if config.samples:
        found += measuring.of_samples(model, config, inception)
    if config.bits_per_dim or config.ode:
        found += measuring.of_bits(model, config)
    if config.reconstruct:
        found += measuring.of_reconstruction(model, config)
    return found


def write_all(model: "Model", found: list[dict[str, Any]], config: EvaluateConfig) -> None:
    """Write each evaluation down in a folder of its own; the first has the table of all.

    It is written last: of a run, the newest evaluation is the one that `runs` names and that others are held against.
    """
    from shared.experiments.trained import write_down
    from task1_unconditional.measuring import table

    for i, facts in reversed(list(enumerate(found))):
        out = config.out
        if out and i:
            protocol = facts["protocol"]
            words = facts["main"], protocol["weights"], protocol["sampler"], protocol["steps"]
            out = str(Path(out) / "-".join(str(word).replace(", ", "-").replace(" ", "-") for word in words))
        write_down(model.source, facts, table([facts] if i else found), out)


def run() -> int:
    """Measure, print, and write the figures down."""
    parser = Parser(prog="task1-evaluate", description="Measure a trained model of stage 1.")
    parser.add_class_arguments(EvaluateConfig)
    config = parser.parse_args()

    from shared.sampling_options import device_of
    from task1_unconditional.measuring import table

    config.device = device_of(config)
    model = load_for(config, config.trust)
    config.run = config.run and str(model.source)  # a training that goes on may write a newer checkpoint meanwhile
    inception, names = inception_for(config, model), weights_of(config, model.source)
    check(model, config, inception, names)
    found = []
    for weights in names:
        if weights != config.weights:
            config.weights = weights
            model = load_for(config, config.trust)
        found += measure(model, config, inception)
    print(table(found), end="")
    write_all(model, found, config)
    return 0


def main() -> None:
    """The command `task1-evaluate`."""
    sys.exit(command(run))


if __name__ == "__main__":
    main()
