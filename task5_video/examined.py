"""A model of stage 5 for the command `doctor`: see `shared.experiments.doctor.examined`."""

from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from shared.cli import stored_config
from shared.conditions.known import with_text
from shared.experiments.doctor.examined import Asked, Examined, look, parses, said
from shared.experiments.doctor.examined_latents import scale_of, seen
from shared.latents.spaces import Pixels
from task5_video.config import Config, stored
from task5_video.data import load_clips
from task5_video.model import by_frames, load

CLIP = 8  # images that a clip costs as much as


def reads(saved: Any) -> bool:
    """Whether a checkpoint's config is of this stage."""
    return parses(stored, saved)


def clips(path: Path, config: dict[str, Any]) -> bool:
    """Whether a config file is for this stage: one of this folder, or with a section that no other stage has."""
    here = path.resolve().is_relative_to(Path(__file__).resolve().parent)
    return (here or bool({"inflate", "temporal"} & config.keys())) and parses(training, config)


def training(config: dict[str, Any]) -> Config:
    """What a config file of this stage says. Raises UserError where it is of another."""
    return stored_config(Config, config, "stage 5")


def examine(source: Path, asked: Asked) -> Examined:
    """A model and some of its data, of clips an eighth: each costs so much. Raises UserError as `load`."""
    model = load(source)
    config = model.config

    def build() -> Dataset:
        data = load_clips(config)
        return with_text(config.text, data, "cpu", model.source)[0] if "text" in config.condition.told else data

    found = Examined(config, model.source, model.network, model.diffusion, cost=CLIP)
    look(found, config.own_data, build, Asked(max(2, asked.n // CLIP), asked.seed, asked.trust))
    found.cond = said(found, [key for known in model.network.said for key in known.keys])
    found.null = model.null if config.condition.dropout else None
    if found.images is not None:
        found.x0 = by_frames(lambda frames: seen(model.space, frames, asked.seed), found.images)
    if not isinstance(model.space, Pixels):
        found.scaled = scale_of(config.latents)
    found.sample = model.sample
    return found
