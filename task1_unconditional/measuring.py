"""What `task1-evaluate` measures: each function gives one or several evaluations, of one protocol each.

An evaluation has the fields of `shared.experiments.history.Evaluation`, and `rows` for the table: a figure with its
spread, with what it was measured on and how, and with its floor, which is what a perfect model would show.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from shared.datasets.held_out import chosen, held_out, part_of
from shared.datasets.published import data_root
from shared.errors import UserError
from shared.experiments.figures import FIGURES, shown
from shared.experiments.trained import judge_figures, origin, protocol_of
from shared.metrics.image_figures import image_report
from shared.metrics.inception import Features, Inception, features_of
from shared.metrics.inception_cache import cached_features
from shared.metrics.judge import SIZE, provenance
from shared.metrics.likelihood import Likelihood, bound_bits, ode_bits
from shared.metrics.report import judge_samples
from shared.sampling_options import overrides
from shared.schedulers.bound import Bound
from shared.schedulers.samplers import clamped
from shared.training.weights import how_good
from task1_unconditional.editing import exact, reconstruction_error
from task1_unconditional.model import Model

if TYPE_CHECKING:
    from task1_unconditional.evaluate import EvaluateConfig

NAMES = {  # of parts of data, as papers say them
    ("mnist", "train"): "the 60,000 MNIST training images",
    ("mnist", "test"): "the 10,000 MNIST test images",
    ("cifar10", "train"): "the 50,000 CIFAR-10 training images",
    ("cifar10", "test"): "the 10,000 CIFAR-10 test images",
}


@dataclass
class Row:
    """A line of the table."""

    figure: str  # its name in `FIGURES`
    value: float
    spread: float | None  # standard error or deviation
    floor: str  # with the same number of real images, as text; empty where there is none


def lines(rows: list[Row]) -> list[dict[str, Any]]:
    """Rows for JSON."""
    return [asdict(row) for row in rows]


def evaluation(model: Model, config: "EvaluateConfig", main: str, protocol: dict[str, Any], **found: Any) -> dict:
    """The facts of one evaluation: where the model comes from, the protocol, and what was found."""
    facts = origin("task1", model.source, model.config.train)
    fit = how_good(model.source, config.weights)  # of an average that is made of others
    if fit:
        found["notes"] = [*found["notes"], fit]
    if not config.run:
        facts["source"] = "the committed model"
    return {**facts, "main": main, "protocol": protocol_of(model.config, config, protocol), **found}


def can_judge(model: Model) -> bool:
    """Whether the images have the shape of those that the digit judge takes."""
    channels, height, width = model.shape
    return channels == 1 and height == width and height in (SIZE, SIZE + 4)


def name_of(model: Model, split: str, count: int, of: int) -> str:
    """A part of the data, as a reference is named."""
    whole = NAMES.get((model.config.data.name, split), f"{of:,} {model.config.data.name} images ({split})")
    return whole if count == of else f"{count:,} of {whole}"


# --- samples ------------------------------------------------------------------------------------------------


def of_samples(model: Model, config: "EvaluateConfig", inception: Inception | None) -> Iterator[dict]:
    """Draw samples; what the judge says of them, where it can, and what Inception's features say, where they are."""
    if not can_judge(model) and inception is None:
        return
    options = overrides(config)
    begun = time.perf_counter()
    samples = model.sample(config.n, config.seed, **options).cpu()
    seconds = time.perf_counter() - begun
    sampling = asdict(replace(model.config.sampling, **options))
    if can_judge(model):
        yield judged(model, config, samples, sampling, seconds)
    if inception is not None:
        yield by_inception(model, config, samples, sampling, inception)


def judged(model: Model, config: "EvaluateConfig", samples: Tensor, sampling: dict, seconds: float) -> dict:
    """What the digit judge says."""
    report = judge_samples(samples).to_dict()
    protocol = {  # what `protocol_of` would add at the end stands here where it is to be shown
        "n": config.n,
        "reference": report["reference"],
        "extractor": report["extractor"],
        "guidance": "none",
        "weights": config.weights,
        **sampling,
    }
    figures = {**judge_figures(report), "sampling_seconds": seconds}
    floor = "" if report["floor"] is None else f"{report['floor']:.3f} ± {report['floor_deviation']:.3f}"
    rows = [
        Row("judge_confident", report["confident"], None, f"{provenance()['test_confident']:.1%}"),
        Row("judge_distance", report["distance"], None, floor),
    ]
    rows += [Row("judge_distance_over_floor", report["ratio"], None, "1")] if report["ratio"] is not None else []
    return evaluation(
        model, config, "judge_distance_over_floor", protocol, figures=figures, judge=report, rows=lines(rows), notes=[]
    )


def by_inception(model: Model, config: "EvaluateConfig", samples: Tensor, sampling: dict, network: Inception) -> dict:
    """FID and its like, against the part of the data that the options name; the floor is of the other part."""
    folder = data_root(None) / "features"
    real = part_of(model, config.reference)
    images = chosen(real, config.most)
    reference = cached_features(network, images, folder, device=config.device)
    report = image_report(features_of(network, samples, device=config.device), reference, other(model, config, network))
    protocol = {
        "n": config.n,
        "reference": name_of(model, config.reference, len(images), len(real)),
        "extractor": "inception-2015-12-05",
        "guidance": "none",
        "weights": config.weights,
        **sampling,
    }
    rows = [
        Row(name, value, report.figures.get(f"{name}_deviation"), floor_of(report.floor, name))
        for name, value in report.figures.items()
        if not name.endswith("_deviation")
    ]
    figures = report.figures | (report.floor or {})
    return evaluation(model, config, "fid", protocol, figures=figures, rows=lines(rows), notes=report.notes)


def other(model: Model, config: "EvaluateConfig", network: Inception) -> Features | None:
    """Features of the part of the data that is not the reference, for the floor; None where there is none."""
    try:
        data = part_of(model, "test" if config.reference == "train" else "train")
    except UserError:
        return None
    if len(data) < config.n:
        return None
    return cached_features(network, chosen(data, config.n), data_root(None) / "features", device=config.device)


def floor_of(floor: dict[str, float] | None, name: str) -> str:
    """A floor as text."""
    return "" if floor is None else shown(name, floor[f"{name}_floor"])


# --- real images --------------------------------------------------------------------------------------------


def real_images(model: Model, config: "EvaluateConfig") -> tuple[Tensor, str, list[str]]:
    """The real images to measure on, on the model's device; what they are; and a note where they are not held out."""
    data, split = held_out(model)
    images = chosen(data, config.real)
    notes = [] if split == "test" else ["the data has no held-out part: these are training images"]
    return images.to(config.device), name_of(model, split, len(images), len(data)), notes


def of_bits(model: Model, config: "EvaluateConfig") -> Iterator[dict]:
    """Bits per dimension by the bound, and by the ODE if that is asked for.

    Raises:
        UserError: there are no images; or the schedule has one level, and its smallest variance is 0.
    """
    images, name, notes = real_images(model, config)
    variance = config.variance or model.config.bound.variance
    if model.diffusion.schedule.T == 1 and variance != "large":
        raise UserError(f"the {variance} variance of a schedule of one level is 0: add --variance large")
    bound = Bound(model.diffusion.schedule, variance)
    plain = exact(model)
    denoise = clamped(plain, model.diffusion.schedule) if model.config.sampling.clamp else plain
    generator = torch.Generator().manual_seed(config.seed)
    found = bound_bits(denoise, bound, images, config.terms, generator)
    how, clamp = f"bound, {variance} variance", model.config.sampling.clamp
    drawn = [f"the bound: {found.calls} of its {model.diffusion.schedule.T} terms computed for each image, at random"]
    drawn += ["the bound: predictions kept within [-1, 1]"] if clamp else []
    yield bits_of(model, config, found, (how, clamp), name, [*notes, *drawn])
    if config.ode:
        some = images[: config.ode_images]
        found = ode_bits(plain, bound, some, generator)
        name = name if len(some) == len(images) else f"{len(some):,} of {name.rpartition(' of ')[2]}"
        free = ["the ODE: predictions as they are, not clamped; steps are calls of the network"]
        yield bits_of(model, config, found, ("probability-flow ODE", False), name, [*notes, *free])


def bits_of(
    model: Model, config: "EvaluateConfig", found: Likelihood, way: tuple[str, bool], name: str, notes: list[str]
) -> dict:
    """A likelihood as an evaluation; `way` says by what, and whether predictions were clamped."""
    how, clamped_too = way
    steps = model.diffusion.schedule.T if how.startswith("bound") else found.calls
    error = None if math.isnan(found.error) else found.error  # of one image: JSON has no word for it
    figures = {"bits_per_dim": found.bits_per_dim, "bits_per_dim_error": error}
    figures |= {f"bits_{part}": value for part, value in found.parts.items()}
    protocol = {
        "n": found.n,
        "reference": name,
        "extractor": "none",
        "guidance": "none",
        "weights": config.weights,
        "sampler": how,
        "steps": steps,
        "calls": found.calls,  # of the network, for each image
        "clamp": clamped_too,
    }
    rows = [Row("bits_per_dim", found.bits_per_dim, error, "")]
    rows += [Row(f"bits_{part}", value, None, "") for part, value in found.parts.items()]
    return evaluation(model, config, "bits_per_dim", protocol, figures=figures, rows=lines(rows), notes=notes)


def of_reconstruction(model: Model, config: "EvaluateConfig") -> Iterator[dict]:
    """Real images into noise and back by DDIM, for each number of steps. DDIM, table 2."""
    images, name, notes = real_images(model, config)
    for steps in config.reconstruct:
        errors = reconstruction_error(model, images.cpu(), steps)
        spread = (errors.std() / math.sqrt(len(errors))).item() if len(errors) > 1 else None
        protocol = {
            "n": len(images),
            "reference": name,
            "extractor": "none",
            "guidance": "none",
            "weights": config.weights,
            "sampler": "ddim",
            "steps": steps,
            "eta": 0,
            "spacing": model.config.sampling.spacing,
        }
        rows = [Row("reconstruction_mse", errors.mean().item(), spread, "0")]
        figures = {"reconstruction_mse": errors.mean().item(), "reconstruction_mse_error": spread}
        yield evaluation(model, config, "reconstruction_mse", protocol, figures=figures, rows=lines(rows), notes=notes)


# --- shown --------------------------------------------------------------------------------------------------

HEADERS = ("figure", "value", "floor", "n", "reference", "weights", "sampler", "steps")


def sampler_told(protocol: dict[str, Any]) -> str:
    """The sampler, with its share of fresh noise where it has one."""
    eta = f", eta {protocol['eta']:g}" if protocol["sampler"] == "ddim" else ""
    return f"{protocol['sampler']}{eta}"


def table(found: list[dict]) -> str:
    """Evaluations as one Markdown table, each figure with its protocol, and below it what limits them."""
    text = [f"| {' | '.join(HEADERS)} |", "|" + "---|" * len(HEADERS)]
    for facts in found:
        protocol = facts["protocol"]
        for row in (Row(**fields) for fields in facts["rows"]):
            spread = "" if row.spread is None else f" ± {shown(row.figure, row.spread)}"
            label = FIGURES[row.figure].label if row.figure in FIGURES else row.figure
            cells = [label, shown(row.figure, row.value) + spread, row.floor]
            cells += [sampler_told(protocol) if name == "sampler" else str(protocol[name]) for name in HEADERS[3:]]
            text.append(f"| {' | '.join(cells)} |")
    shares, notes = [], []
    for facts in found:
        notes += facts["notes"]
        if "judge" in facts:
            each = " ".join(f"{share:.1%}" for share in facts["judge"]["histogram"])
            shares.append(f"share of each digit, 0 to 9, {facts['protocol']['weights']}: {each}")
            notes += [*facts["judge"]["notes"], facts["judge"]["caveat"]]
    notes = shares + notes
    return "\n".join([*text, "", *(f"- {note}" for note in dict.fromkeys(notes))]) + "\n"
