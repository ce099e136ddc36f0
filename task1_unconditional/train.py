"""Train stage 1: `task1-train --help`.

What there is to read: in `fit`, the loss is one line and the loop is one `for`. All else is what a training has to do
besides.
"""

import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.cli import command
from shared.options import TrainingOptions
from task1_unconditional.config import STAGE, Config, model_config

if TYPE_CHECKING:  # imported where they are used: torch takes seconds, and --help should not
    from torch import nn
    from torch.utils.data import Dataset

    from shared.experiments.run import RunRecord
    from shared.schedulers.diffusion import Diffusion

PICTURES = 64  # samples in a grid
DEMO = Path(__file__).parent / "configs" / "demo.yaml"
FRAMES = 200  # grids in a film, at most


def fit(
    network: "nn.Module",
    diffusion: "Diffusion",
    data: "Dataset",
    config: Config,
    record: "RunRecord",
    resume: Path | None,
) -> None:
    """Train the network, and save samples of the same noise at intervals."""
    from shared.training.loop import device_for, train
    from shared.training.part import Part
    from task1_unconditional.model import Model, build_loss

    diffusion.schedule.to(device_for(config.train))  # beside the data, or each step would wait for a copy
    each = build_loss(config, diffusion)  # `diffusion.loss`, where the config asks for no bound

    def loss(model, x, cond):
        return each(model, x, {}).mean()  # stage 1 tells the network nothing but the time

    part = Part(network, loss, config.optimizer, config.averages, memory=getattr(each, "times", None))
    for step in train(part, data, config.train, record, resume=resume):
        if step.every(config.train.sample_every):
            model = Model(step.ema, diffusion, config, tuple(record.config["shape"]), record.folder)
            save_grid(record, model, step.n)


def save_grid(record: "RunRecord", model, n: int) -> None:
    """Save what the model makes of the same noise as at every other step."""
    from shared import pictures

    record.picture(n, pictures.grid(model.sample(PICTURES, seed=model.config.train.seed)))


def save_film(run: Path) -> Path | None:
    """The grids one after the other, as a GIF beside them; nothing where there are none."""
    from PIL import Image

    from shared import pictures

    paths = sorted((run / "samples").glob("step-*.png"), reverse=True)
    chosen = reversed(paths[:: len(paths) // FRAMES + 1])  # with the last
    frames = [Image.open(path).copy() for path in chosen]  # a copy has no open file behind it
    return pictures.save_film(frames, run / "samples" / "training.gif") if frames else None


def read_source(source: Path) -> dict[str, Any]:
    """The config that a run or checkpoint of this stage stores."""
    from shared.training.checkpoint import read_facts
    from shared.training.weights import newest

    saved = read_facts(newest(source)).get("config", {})
    model_config(saved)  # says so in one line if this is none of stage 1
    return {name: value for name, value in saved.items() if name != "shape"}


OPTIONS = TrainingOptions(
    "task1-train", "Train an unconditional diffusion model on images.", Config, DEMO, STAGE, read_source
)


def prepare(config: Config, resume: Path | None, init_from: Path | None):
    """Build everything that can be wrong before a run is recorded: data, network, diffusion, checkpoint, record."""
    from shared.experiments.follower import create_record, reopen_record
    from shared.experiments.run import plain
    from shared.training.checkpoint import Checkpoints, load_into, training_facts
    from shared.training.loop import check_same, settle
    from shared.training.processes import in_turn
    from shared.training.weights import read_weights
    from task1_unconditional.model import build_data, build_diffusion, build_loss, build_network

    with in_turn():
        data = build_data(config)
    settle(data, config.train, optimizers=[config.optimizer])
    shape = tuple(data[0][0].shape)
    network, diffusion = build_network(config, shape), build_diffusion(config)
    build_loss(config, diffusion)  # only checks that its parts go together
    resolved = plain({"shape": shape, **asdict(config)})  # what a checkpoint needs to be sampled from
    if resume is None:
        if init_from is not None:
            load_into(network, *read_weights(init_from))
        record = create_record("task1", config.run, asdict(config))
        record.config = resolved
        return network, diffusion, data, record, None
    record = reopen_record(resume)
    checkpoint = Checkpoints(record.folder / "checkpoints").latest()
    facts = training_facts(checkpoint)
    check_same(facts["config"], resolved, asdict(Config()))
    record.config = resolved
    record.go_on(facts["step"])
    return network, diffusion, data, record, checkpoint


def run() -> int:
    """Train; the exit status is 128 + the signal's number where one stopped it."""
    asked = OPTIONS.parse()
    config = asked.config

    import torch

    from shared.training.loop import Interrupted
    from shared.training.processes import say

    torch.manual_seed(config.train.seed)  # the network's first weights
    network, diffusion, data, record, checkpoint = prepare(config, asked.resume, asked.init_from)
    say(f"run {record.folder}", sys.stderr)
    try:
        with record.closing():
            fit(network, diffusion, data, config, record, checkpoint)
            film = record.keep(save_film)
    except Interrupted as stopped:
        trust = " --trust true" if config.own_data or config.own_network else ""
        say(
            f"{stopped} and saved; go on with: task1-train --resume {shlex.quote(str(record.folder))}{trust}",
            sys.stderr,
        )
        return 128 + stopped.number
    say(f"trained: {record.folder}")
    if film:
        say(f"pictures: {film.parent}")
    return 0


def main() -> None:
    """The command `task1-train`."""
    sys.exit(command(run))


if __name__ == "__main__":
    main()
