"""The models of stage 3 for the command `doctor`, a ControlNet with its base among them: see
`shared.experiments.doctor.examined`."""

from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from shared.conditions.known import with_text
from shared.experiments.doctor.examined import Asked, Examined, look, parses, said
from shared.training.checkpoint import read_facts
from shared.training.weights import newest
from task3_conditional.config import model_config
from task3_conditional.control_config import control_config
from task3_conditional.control_model import controlled, load_control
from task3_conditional.given import shown
from task3_conditional.hints import Hinted
from task3_conditional.model import build_data, load


def reads(saved: Any) -> bool:
    """Whether a checkpoint's config is of this stage."""
    return parses(model_config, saved) or parses(control_config, saved)


def examine(source: Path, asked: Asked) -> Examined:
    """A model and some of its data. Raises UserError as `load` and `load_control`."""
    path = newest(source)
    if parses(control_config, read_facts(path).get("config", {})):
        return examine_control(path, asked)
    model = load(path)
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


def examine_control(path: Path, asked: Asked) -> Examined:
    """A ControlNet on its base, told the hints that it was trained on. Raises UserError as `load_control`."""
    control = load_control(path)
    model = controlled([control])
    config, keys = control.config, [*control.base.network.keys, *model.network.hints]

    def build() -> Dataset:
        data = build_data(config)
        if "text" in model.config.condition.told:
            data, _ = with_text(model.config.text, data, "cpu", control.base.source)
        return Hinted(data, config.hint)

    # what it believes of schedule and target is its base's
    found = Examined(model.config, path, model.network, model.diffusion)
    look(found, config.own_data, build, asked)
    found.cond, found.x0 = said(found, keys), found.images
    found.null = model.network.null if config.dropout else None
    found.sample = lambda n, cond, seed: model.sample(cond, seed)
    return found
