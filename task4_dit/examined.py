"""A model of stage 4 for the command `doctor`: see `shared.experiments.doctor.examined`."""

from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from shared.cli import build_own
from shared.conditions.known import with_text
from shared.datasets import load as load_data
from shared.experiments.doctor.examined import Asked, Examined, look, parses, said
from shared.experiments.doctor.examined_latents import codes_of, scale_of, seen
from shared.latents.spaces import Pixels
from shared.training.checkpoint import read_facts
from task4_dit.config import stored
from task4_dit.model import load


def reads(saved: Any) -> bool:
    """Whether a checkpoint's config is of this stage."""
    return parses(stored, saved)


def examine(source: Path, asked: Asked) -> Examined:
    """A model and some of its data. Raises UserError as `load`."""
    model = load(source)
    config, latents = model.config, not isinstance(model.space, Pixels)

    def build() -> Dataset:
        data = build_own(config.own_data, Dataset) if config.own_data else load_data(config.data)
        return with_text(config.text, data, "cpu", model.source)[0] if config.condition.text else data

    found = Examined(config, model.source, model.network, model.diffusion)
    look(found, config.own_data, build, asked)
    found.cond, found.null = said(found, model.network.keys), model.null if config.condition.dropout else None
    if found.images is not None:
        found.x0 = seen(model.space, found.images, asked.seed)
    if latents:
        found.scaled, found.codes = scale_of(config.latents), codes_of(model.space.autoencoder, found.images)
    found.sample = model.sample
    if read_facts(model.source)["config"].get("distill"):
        found.diffusion = None
        found.unknown["denoising"] = "a distilled model answers with its teacher's sample, and denoises nothing"
    return found
