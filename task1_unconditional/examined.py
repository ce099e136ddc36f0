"""A model of stage 1 for the command `doctor`: see `shared.experiments.doctor.examined`."""

from pathlib import Path
from typing import Any

from shared.experiments.doctor.examined import Asked, Examined, look, parses
from task1_unconditional.config import model_config
from task1_unconditional.model import build_data, load


def reads(saved: Any) -> bool:
    """Whether a checkpoint's config is of this stage."""
    return parses(model_config, saved)


def examine(source: Path, asked: Asked) -> Examined:
    """A model and some of its data. Raises UserError as `load`."""
    model = load(source, trust=asked.trust)
    found = Examined(model.config, model.source, model.network, model.diffusion)
    look(found, model.config.own_data, lambda: build_data(model.config), asked)
    found.cond, found.x0 = {}, found.images
    found.sample = lambda n, cond, seed: model.sample(n, seed)
    return found
