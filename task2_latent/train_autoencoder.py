"""Train the first step of stage 2, an autoencoder: `task2-train-autoencoder --help`.

Where a discriminator takes part, it is a second part of the one loop.
"""

import copy
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.cli import command, stored_config
from shared.errors import UserError
from shared.options import TrainingOptions
from task2_latent.config import AUTOENCODER, AutoencoderTraining, autoencoder_config

if TYPE_CHECKING:  # imported where they are used: torch takes seconds, and --help should not
    from torch import nn
    from torch.utils.data import Dataset

    from shared.blocks.autoencoder import Autoencoder
    from shared.experiments.run import RunRecord

PROGRAM, FOLDER = "task2-train-autoencoder", "task2-autoencoder"
PICTURES = 32  # images in the side-by-side of originals and reconstructions
DEMO = Path(__file__).parent / "configs" / "autoencoder.yaml"


def fit(
    autoencoder: "Autoencoder",
    opponents: tuple["nn.Module | None", "nn.Module | None"],
    data: "Dataset",
    config: AutoencoderTraining,
    record: "RunRecord",
    resume: Path | None,
) -> None:
    """Train the autoencoder, and the discriminator if there is one; save reconstructions at intervals."""
    from shared.training.config import AveragesConfig
    from shared.training.loop import train
    from shared.training.part import Part
    from task2_latent.losses import AutoencoderLoss

    discriminator, perceptual = opponents
    loss = AutoencoderLoss(config.loss, autoencoder, discriminator, perceptual)
    parts = [Part(autoencoder, loss.autoencoder, config.optimizer, config.averages, figures=loss.figures)]
    if discriminator is not None:
        parts.append(
            Part(
                discriminator,
                loss.discriminator,
                config.discriminator_optimizer,
                AveragesConfig(ema=0.0),
                "discriminator",
                config.loss.adversarial_start,
                loss.discriminator_figures,
            )
        )
    loss.n = record.step
    for step in train(parts, data, config.train, record, resume=resume):
        loss.n = step.n  # the losses warm up and start by it
        if step.every(config.train.sample_every):
            save_pairs(record, step.ema, data, step.n)


def save_pairs(record: "RunRecord", autoencoder: "nn.Module", data: "Dataset", n: int) -> None:
    """Save the first images, each row of them above its reconstructions."""
    import torch

    from task2_latent.views import side_by_side

    originals = torch.stack([data[i][0] for i in range(min(PICTURES, len(data)))])
    device = next(autoencoder.parameters()).device
    with torch.no_grad():
        reconstructions = autoencoder.decode(autoencoder.bottleneck.mean(autoencoder.encode(originals.to(device))))
    record.picture(n, side_by_side(originals, reconstructions.cpu().clamp(-1, 1)))


def read_source(source: Path) -> dict[str, Any]:
    """The config that an autoencoder's run or checkpoint stores; its later stages are not asked for again."""
    from shared.training.checkpoint import read_facts
    from shared.training.weights import newest

    saved = read_facts(newest(source)).get("config", {})
    autoencoder_config(saved)  # says so in one line if this is none
    return {name: value for name, value in saved.items() if name not in ("shape", "stages")}


OPTIONS = TrainingOptions(
    PROGRAM, "Train an autoencoder of images.", AutoencoderTraining, DEMO, AUTOENCODER, read_source
)


def prepare(config: AutoencoderTraining, resume: Path | None, init_from: Path | None):
    """Build everything that can be wrong before a run is recorded: data, network, checkpoint, record."""
    import torch

    from shared.experiments.follower import create_record, reopen_record
    from shared.experiments.run import plain
    from shared.latents.stored import build_autoencoder
    from shared.training.checkpoint import Checkpoints, load_into, training_facts
    from shared.training.loop import check_same, settle
    from shared.training.processes import in_turn
    from shared.training.weights import read_weights
    from task2_latent.model import build_data

    if config.train.shard:
        raise UserError("train.shard is for a network that is trained alone, and an autoencoder is small: leave it out")
    with in_turn():
        data = build_data(config)
    settle(data, config.train, optimizers=[config.optimizer, config.discriminator_optimizer])
    shape = tuple(data[0][0].shape)
    torch.manual_seed(config.train.seed)  # the network's first weights
    autoencoder = build_autoencoder(config.autoencoder, shape)
    opponents = build_opponents(config, shape)
    resolved = plain({"shape": shape, **asdict(config)})  # what a checkpoint needs to be used
    if resume is None:
        if init_from is not None:
            load_into(autoencoder, *read_weights(init_from))
        record = create_record(FOLDER, config.run, asdict(config))
        record.config = resolved
        return autoencoder, opponents, data, record, None
    record = reopen_record(resume)
    checkpoint = Checkpoints(record.folder / "checkpoints").latest()
    facts = training_facts(checkpoint)
    check_same(facts["config"], resolved, asdict(AutoencoderTraining()))
    record.config = resolved
    record.go_on(facts["step"])
    return autoencoder, opponents, data, record, checkpoint


def build_opponents(config: AutoencoderTraining, shape: tuple[int, int, int]):
    """The discriminator and the perceptual distance that the losses need, each None where they do not.

    Raises:
        UserError: the images are too small for them, or trained weights are not at hand.
    """
    from shared.metrics.perceptual import build_perceptual
    from shared.training.loop import device_for
    from task2_latent.losses import build_discriminator

    loss = config.loss
    try:
        discriminator = build_discriminator(loss, config.discriminator, shape)
    except ValueError as error:
        raise UserError(str(error)) from None
    if loss.perceptual == "none":
        return discriminator, None
    perceptual = build_perceptual(loss.perceptual, loss.perceptual_trunk, loss.perceptual_size)
    return discriminator, perceptual.to(device_for(config.train))


def merged(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A nested config with changes; a section that is changed keeps its other fields."""
    result = copy.deepcopy(config)
    for name, value in changes.items():
        whole = not (isinstance(value, dict) and isinstance(result.get(name), dict)) or name.startswith("own_")
        result[name] = value if whole else merged(result[name], value)
    return result


def next_stage(config: AutoencoderTraining) -> AutoencoderTraining | None:
    """The config of the stage after this one, or None where this is the last.

    Raises:
        UserError: what the stage changes is no config.
    """
    if not config.stages:
        return None
    change, *rest = config.stages
    name, number = (config.run.name or "").rpartition("-")[::2]
    following = f"{name}-{int(number) + 1}" if number.isdecimal() and name else f"{config.run.name}-2"
    named = {"stages": rest, "run": {"name": following if config.run.name else None}}
    return stored_config(AutoencoderTraining, merged(merged(asdict(config), named), change), AUTOENCODER)


def check_stages(config: AutoencoderTraining) -> None:
    """Raise UserError for a later stage that is no config: hours before it is reached."""
    following, number = config, 2
    while following.stages:
        try:
            following = next_stage(following)
        except UserError as error:
            raise UserError(f"stages, number {number}: {error}") from None
        name = following.run.name
        if name and (folder := Path(following.run.folder) / FOLDER / name).exists():
            raise UserError(f"stages, number {number}: the run {folder} exists: choose another --run.name")
        number += 1


def run() -> int:
    """Train, one stage after the other; the exit status is 128 + the signal's number where one stopped it."""
    asked = OPTIONS.parse()
    config, resume, init_from = asked.config, asked.resume, asked.init_from
    check_stages(config)

    from shared.training.loop import Interrupted
    from shared.training.processes import say

    while config is not None:
        autoencoder, opponents, data, record, checkpoint = prepare(config, resume, init_from)
        say(f"run {record.folder}", sys.stderr)
        try:
            with record.closing():
                fit(autoencoder, opponents, data, config, record, checkpoint)
        except Interrupted as stopped:
            trust = " --trust true" if config.own_data else ""
            say(
                f"{stopped} and saved; go on with: {PROGRAM} --resume {shlex.quote(str(record.folder))}{trust}",
                sys.stderr,
            )
            return 128 + stopped.number
        say(f"trained: {record.folder}")
        config, resume, init_from = next_stage(config), None, record.folder
    return 0


def main() -> None:
    """The command `task2-train-autoencoder`."""
    sys.exit(command(run))


if __name__ == "__main__":
    main()
