"""Train the second step of stage 2, a diffusion in an autoencoder's latent space: `task2-train --help`.

Against stage 1 only the space has changed: schedule, loss, samplers and loop are the same.
"""

import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.cli import command
from shared.options import TrainingOptions
from task2_latent.config import LATENT, LatentTraining, latent_config

if TYPE_CHECKING:  # imported where they are used: torch takes seconds, and --help should not
    from torch.utils.data import Dataset

    from shared.experiments.run import RunRecord
    from task2_latent.model import Model

PROGRAM = "task2-train"
PICTURES = 64  # samples in a grid
DEMO = Path(__file__).parent / "configs" / "demo.yaml"


def fit(model: "Model", data: "Dataset", record: "RunRecord", resume: Path | None) -> None:
    """Train the network, and save samples of the same noise at intervals."""
    from dataclasses import replace

    from shared import pictures
    from shared.training.loop import device_for, train
    from shared.training.part import Part

    config, space, diffusion = model.config, model.space, model.diffusion
    space.to(device_for(config.train))
    diffusion.schedule.to(device_for(config.train))
    encode = space.encode if config.latents.cache is None else lambda moments: moments  # the cache holds moments

    def loss(network, x, cond):
        return diffusion.loss(network, space.draw(encode(x)), {}).mean()

    part = Part(model.network, loss, config.optimizer, config.averages)
    for step in train(part, data, config.train, record, resume=resume):
        if step.every(config.train.sample_every):
            samples = replace(model, network=step.ema).sample(PICTURES, seed=config.train.seed)
            record.picture(step.n, pictures.grid(samples.cpu()))


def read_source(source: Path) -> dict[str, Any]:
    """The config that a run or checkpoint of this step stores."""
    from shared.training.checkpoint import read_facts
    from shared.training.weights import newest

    saved = read_facts(newest(source)).get("config", {})
    latent_config(saved)  # says so in one line if this is none
    return {name: value for name, value in saved.items() if name not in ("shape", "space")}


OPTIONS = TrainingOptions(
    PROGRAM, "Train a diffusion in the latent space of an autoencoder.", LatentTraining, DEMO, LATENT, read_source
)


def prepare(config: LatentTraining, resume: Path | None, init_from: Path | None):
    """Build everything that can be wrong before a run is recorded: data, space, network, checkpoint, record."""
    import torch

    from shared.experiments.follower import create_record, reopen_record
    from shared.experiments.run import plain
    from shared.latents.data import build_latents
    from shared.latents.stored import COPY
    from shared.training.checkpoint import Checkpoints, load_into, training_facts
    from shared.training.loop import check_same, device_for, settle
    from shared.training.processes import in_turn
    from shared.training.weights import read_weights
    from task2_latent.model import Model, build_diffusion, build_network, load_autoencoder

    record = reopen_record(resume) if resume else None  # first: nobody else trains in it from here on
    checkpoint = Checkpoints(resume / "checkpoints").latest() if resume else None
    facts = training_facts(checkpoint) if checkpoint else {"config": {}}
    saved = facts["config"]
    autoencoder = load_autoencoder(resume / COPY if resume else config.latents.autoencoder)
    autoencoder.network.to(device_for(config.train))  # it encodes: measuring on a CPU what a GPU trains on takes long
    with in_turn():
        data, space = build_latents(
            config.latents, config.data, config.own_data, autoencoder, saved.get("space"), config.train.workers
        )
    settle(data, config.train, optimizers=[config.optimizer])
    torch.manual_seed(config.train.seed)  # the network's first weights; measuring took random numbers, or not
    network = build_network(config, autoencoder.network.latent_shape(autoencoder.shape))
    resolved = plain({"shape": autoencoder.shape, "space": space.facts(), **asdict(config)})
    model = Model(network, build_diffusion(config), space, config, autoencoder.shape, autoencoder.source)
    if record is None:
        if init_from is not None:
            load_into(network, *read_weights(init_from))
        record = create_record("task2", config.run, asdict(config), autoencoder.copy_to)
        record.config = resolved
        return model, data, record, None
    check_same(saved, resolved, asdict(LatentTraining()))
    record.config = resolved
    record.go_on(facts["step"])
    return model, data, record, checkpoint


def run() -> int:
    """Train; the exit status is 128 + the signal's number where one stopped it."""
    asked = OPTIONS.parse()

    from shared.training.loop import Interrupted
    from shared.training.processes import say

    model, data, record, checkpoint = prepare(asked.config, asked.resume, asked.init_from)
    say(f"run {record.folder}", sys.stderr)
    try:
        with record.closing():
            fit(model, data, record, checkpoint)
    except Interrupted as stopped:
        trust = " --trust true" if asked.config.own_data or asked.config.own_network else ""
        say(
            f"{stopped} and saved; go on with: {PROGRAM} --resume {shlex.quote(str(record.folder))}{trust}",
            sys.stderr,
        )
        return 128 + stopped.number
    say(f"trained: {record.folder}")
    return 0


def main() -> None:
    """The command `task2-train`."""
    sys.exit(command(run))


if __name__ == "__main__":
    main()
