"""Measure a trained video model on moving digits: `task5-evaluate --help`.

Is one digit seen all along, and the one asked for? Does it move as fast as real ones, and straight on between bounces?
Given frames: does it go where the real one went? Going on and on: when does it fall apart?
"""

import math
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse.typing import PositiveInt

from shared.cli import Parser, command
from shared.sampling_options import EvaluateOptions, GuideOptions, guidance_told, guidance_with, overrides
from task5_video.sample import GivenOptions, SampleConfig, check, draw, load_for

if TYPE_CHECKING:
    from torch import Tensor

    from shared.metrics.video import VideoReport
    from task5_video.model import Model

WINDOW = 10  # frames, of long clips


@dataclass
class EvaluateConfig(GivenOptions, GuideOptions, EvaluateOptions):
    """What to measure, and with how many clips drawn how.

    Inherited are the model, the samples and the folder from `EvaluateOptions`, the guidance from `GuideOptions`, and
    what is given: only `--given data` can be measured.
    """

    n: PositiveInt = 200
    """number of clips"""
    frames: PositiveInt | None = None
    """of a clip (default: as in training)"""
    length: PositiveInt | None = None
    """go on to so many frames, and measure how long that lasts"""
    overlap: PositiveInt = 4
    """how many frames each further clip is given"""
    loop: bool = False
    """have the last frame be followed by the first"""
    i3d: str | None = None
    """weights of I3D, a safetensors file: the published Fréchet video distance as well; see shared/metrics/i3d.py"""


def as_sampled(config: EvaluateConfig) -> SampleConfig:
    """The options as `task5-sample` takes them."""
    names = SampleConfig.__dataclass_fields__.keys() & EvaluateConfig.__dataclass_fields__.keys() - {"out"}
    return SampleConfig(**{name: getattr(config, name) for name in names})


def figures_of(report: "VideoReport") -> dict[str, float]:
    """A report by the names that its figures have in `figures.py`."""
    shares = {f"video_{name}": share for name, share in report.of_real.items()}
    distance = {"video_distance": report.distance, "video_floor": report.floor}
    return {**shares, "video_speed": report.generated.speed, **distance, "video_distance_over_floor": report.ratio}


def finite(figures: dict[str, float | None]) -> dict[str, float]:
    """Those of the figures that there are: where no digit is found there is no speed, say."""
    return {name: value for name, value in figures.items() if value is not None and math.isfinite(value)}


def place_error(clips: "Tensor", real: "Tensor", known: list[int]) -> float | None:
    """Pixels between where a digit is and where it really went, (n, 1, F, H, W) each: mean over the frames not given.

    None where no digit is found in any of them.
    """
    from shared.metrics.tracking import track

    apart = (track(clips).place - track(real).place).norm(dim=-1)[:, 0]  # (n, F)
    apart = apart[:, [f for f in range(apart.shape[1]) if f not in known]]
    found = apart[apart.isfinite()]
    return found.mean().item() if len(found) else None


def how_given(config: EvaluateConfig) -> str:
    """What is given, and how, as a protocol states it."""
    weight = f" (weight {config.weight:g})" if config.method == "reconstruction" else ""
    parts = []
    if config.given:
        which = "the first and last frame" if config.between else f"the first {config.given_frames} frames"
        parts.append(f"{which} given by {config.method}{weight}")
    if config.length:
        parts.append(f"gone on to {config.length} frames, {config.overlap} given by {config.method}{weight}")
    return "; ".join([*parts, *(["loops"] if config.loop else [])])


def check_measured(config: EvaluateConfig, model: "Model") -> None:
    """Raise UserError where there is nothing to measure."""
    from shared.errors import UserError

    name = "a data set of your own" if model.config.own_data else model.config.data.name
    if name != "moving_digits":
        raise UserError(
            f"{model.source} was trained on {name}, of which this command knows no figure yet: it measures moving "
            "digits; look at the clips with task5-sample"
        )
    if config.given not in (None, "data"):
        raise UserError(f"--given is {config.given}: what is measured are clips of the data; make it data")


def labels_asked(model: "Model", real: list[int] | None, n: int) -> "Tensor | None":
    """The digit that each clip was to show, (n,); None where the model is told none."""
    import torch

    if "label" not in model.config.condition.told:
        return None
    return torch.tensor(real or [i % len(model.known["classes"]) for i in range(n)])


def measure_clips(model: "Model", config: EvaluateConfig, clips: "Tensor") -> tuple["VideoReport", dict, dict]:
    """The report on clips that were drawn as the config says, all figures of them, and rows of more to show."""
    from shared.metrics.i3d import fvd
    from shared.metrics.loops import seam
    from shared.metrics.video import drift, judge_clips, real_clips
    from task5_video.films_given import held_out

    data, frames = model.config.data, config.frames or model.shape[1]
    real, labels = held_out(model, config.n, frames) if config.given else (None, None)
    report = judge_clips(clips, labels_asked(model, labels, config.n), replace(data, frames=clips.shape[2]))
    figures, details = figures_of(report), {}
    if real is not None and data.digits == 1:
        known = [0, frames - 1] if config.between else list(range(config.given_frames))
        figures["video_place_error"] = place_error(clips[:, :, :frames], real, known)
    if config.loop:
        figures["video_seam"] = seam(clips).ratio
    if config.length:
        parts = drift(clips, data, WINDOW)
        details["the digit it began with, by ten frames"] = [part["same"] for part in parts]
        details["confident, by ten frames"] = [part["confident"] for part in parts]
    if config.i3d:
        form = (data.digits, data.stride, clips.shape[2], clips.shape[3])
        figures["fvd"] = fvd(clips, real_clips(form, "test", config.n)[0], Path(config.i3d))
    return report, figures, details


def measure(model: "Model", config: EvaluateConfig) -> dict[str, Any]:
    """Sample and measure. The fields of `shared.experiments.history.Evaluation`, and more to show.

    Raises:
        UserError: the model is of other clips than moving digits.
    """
    from shared.experiments.trained import origin, protocol_of

    check_measured(config, model)
    begun = time.perf_counter()
    clips = draw(as_sampled(config), model).cpu()
    seconds = time.perf_counter() - begun
    report, figures, details = measure_clips(model, config, clips)
    measured = origin("task5", model.source, model.config.train)
    if not config.run:
        measured["source"] = "the committed model"
    facts, guidance = report.to_dict(), guidance_with(config, model.config.guidance)
    given = how_given(config)
    protocol = {
        "n": config.n,
        "reference": facts["reference"] + (f"; {given}" if given else ""),
        "extractor": facts["extractor"] + (" and I3D" if config.i3d else ""),
        "guidance": guidance_told(guidance) if model.config.condition.told else "none",
        "weights": config.weights,
        **asdict(replace(model.config.sampling, **overrides(config))),
    }
    return {
        **measured,
        "main": "video_identity",
        "figures": finite(figures) | {"sampling_seconds": seconds},
        "details": details,
        "shown": {"generated": finite(asdict(report.generated)), "real": finite(asdict(report.real))},
        "caveat": facts["caveat"],
        "protocol": protocol_of(model.config, config, protocol),
    }


def run() -> int:
    """Sample, measure, print, and write the figures down."""
    parser = Parser(prog="task5-evaluate", description="Measure a trained model of stage 5.")
    parser.add_class_arguments(EvaluateConfig)
    config = parser.parse_args()
    check(as_sampled(config))

    from shared.experiments.trained import protocol_table, write_down

    model = load_for(config)
    facts = measure(model, config)
    print(protocol_table(facts), end="")
    write_down(model.source, facts, protocol_table(facts), config.out)
    return 0


def main() -> None:
    """The command `task5-evaluate`."""
    sys.exit(command(run))


if __name__ == "__main__":
    main()
