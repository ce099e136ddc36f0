"""A model of stage 3 for the command `doctor`: see `shared.experiments.doctor.examined`."""

from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from shared.conditions.known import with_text
from shared.experiments.doctor.examined import Asked, Examined, look, parses, said
from task3_conditional.config import model_config
from task3_conditional.given import shown
from task3_conditional.model import build_data, load


def reads(saved: Any) -> bool:
    """Whether a checkpoint's config is of this stage."""
    return parses(model_config, saved)


def examine(source: Path, asked: Asked) -> Examined:
    """A model and some of its data. Raises UserError as `load`."""
    model = load(source)
    config = model.config

    def build() -> Dataset:
        data = build_data(config)
        if "text" in config.condition.told:
            data, _ = with_text(config.text, data, "cpu", model.source)
        return shown(data, config.given)

    found = Examined(config, model.source, model.network, model.diffusion)
    look(found, config.own_data, build, asked)
    found.cond, found.x0 = said(found, model.network.keys), found.images
    found.null = model.network.null if config.condition.dropout else None
    found.sample = lambda n, cond, seed: model.sample(cond, seed)
    return found
