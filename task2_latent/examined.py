"""The two models of stage 2 for the command `doctor`: see `shared.experiments.doctor.examined`."""

from pathlib import Path
from typing import Any

from shared.experiments.doctor.examined import Asked, Examined, look, parses
from shared.experiments.doctor.examined_latents import codes_of, scale_of, seen
from shared.training.checkpoint import read_facts
from shared.training.weights import newest
from task2_latent.config import autoencoder_config, latent_config
from task2_latent.model import COMMITTED, COMMITTED_AUTOENCODER, build_data, load, load_autoencoder


def reads(saved: Any) -> bool:
    """Whether a checkpoint's config is of this stage."""
    return parses(latent_config, saved) or parses(autoencoder_config, saved)


def examine(source: Path, asked: Asked) -> Examined:
    """A diffusion or an autoencoder, and some of its data. Raises UserError as `load` and `load_autoencoder`."""
    path = newest(source)
    saved = read_facts(path).get("config", {})
    if parses(autoencoder_config, saved):
        loaded, (config, _) = load_autoencoder(path), autoencoder_config(saved)
        found = Examined(config, path)
        look(found, config.own_data, lambda: build_data(config), asked)
        found.cond, found.codes = {}, codes_of(loaded.network, found.images)
        return found
    # the copy that is committed lies beside the diffusion under another name
    committed = COMMITTED_AUTOENCODER if path.resolve() == COMMITTED.resolve() else None
    model = load(path, trust=asked.trust, autoencoder=committed)
    found = Examined(model.config, path, model.network, model.diffusion, scaled=scale_of(model.config.latents))
    look(found, model.config.own_data, lambda: build_data(model.config), asked)
    found.cond = {}
    if found.images is not None:
        found.x0 = seen(model.space, found.images, asked.seed)
        found.codes = codes_of(model.space.autoencoder, found.images)
    found.sample = lambda n, cond, seed: model.sample(n, seed)
    return found
