"""Train stage 4: `task4-train --help`.

Against stage 3 the network has changed, and nothing else in `fit`: the schedule may be a straight path, the space that
of an autoencoder, and the loop does not notice.
"""

import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.cli import command
from shared.options import TrainingOptions
from shared.training.processes import say
from task4_dit.config import BESIDES, SHORT, STAGE, Config, stored

if TYPE_CHECKING:  # imported where they are used: torch takes seconds, and --help should not
    from torch import Tensor, nn
    from torch.utils.data import Dataset

    from shared.conditions.said import Cond
    from shared.experiments.run import RunRecord
    from shared.training.loop import TrainStep
    from task4_dit.model import Model

PROGRAM = "task4-train"
PICTURES = 60  # samples in a grid
COLUMNS = 10
DEMO = Path(__file__).parent / "configs" / "demo.yaml"


def fit(model: "Model", data: "Dataset", record: "RunRecord", resume: Path | None) -> None:
    """Train the network, and save samples of the same noise and the same conditions at intervals."""
    from shared.conditions.asked import examples
    from shared.training.loop import device_for, train
    from shared.training.part import Part
    from task4_dit.model import drop

    config, diffusion, space = model.config, model.diffusion, model.space
    diffusion.schedule.to(device_for(config.train))  # beside the data, or each step would wait for a copy
    space.to(device_for(config.train))
    encode = space.encode if config.latents.cache is None else lambda moments: moments  # the cache holds moments
    asked = examples(data, model.network.keys, PICTURES, COLUMNS)

    def loss(network: "nn.Module", x: "Tensor", cond: "Cond") -> "Tensor":
        told = drop(model.network, cond, config.condition.dropout)
        return diffusion.loss(network, space.draw(encode(x)), told).mean()

    part = Part(model.network, loss, config.optimizer, config.averages)
    for step in train(part, data, config.train, record, resume=resume):
        show(step, model, asked, record)


def show(step: "TrainStep", model: "Model", asked: "Cond", record: "RunRecord") -> None:
    """Save what the averaged network makes of the same noise as at every other step."""
    from shared import pictures

    if step.every(model.config.train.sample_every):
        samples = replace(model, network=step.ema).sample(PICTURES, asked, model.config.train.seed)
        record.picture(step.n, pictures.grid(samples, COLUMNS))


def read_source(source: Path) -> dict[str, Any]:
    """The config that a run or checkpoint of this stage stores."""
    from shared.training.checkpoint import read_facts
    from shared.training.weights import newest

    saved = read_facts(newest(source)).get("config", {})
    stored(saved)  # says so in one line if this is none of stage 4
    return {name: value for name, value in saved.items() if name not in BESIDES}


OPTIONS = TrainingOptions(
    PROGRAM, "Train a diffusion transformer, on pixels or latents.", Config, DEMO, STAGE, read_source, SHORT
)


def build_data(config: Config, autoencoder: "str | Path | None", facts: dict[str, Any] | None):
    """The data set, the space that the network works in, the shape of the images, and the autoencoder if there is one.

    Args:
        config: of the training.
        autoencoder: where it lies; None where the network sees pixels.
        facts: the space of a run that is gone on with.

    Raises:
        UserError: the data is not to be had, or the autoencoder is for other images.
    """
    from torch.utils.data import Dataset

    from shared.cli import build_own
    from shared.datasets import load as load_data
    from shared.errors import UserError
    from shared.latents.data import build_latents
    from shared.latents.spaces import Pixels
    from shared.latents.stored import load_autoencoder
    from shared.training.loop import device_for

    if autoencoder is None:
        if config.latents.cache:
            raise UserError("latents.cache holds latents of an autoencoder: name it as latents.autoencoder")
        data = build_own(config.own_data, Dataset) if config.own_data else load_data(config.data)
        return data, Pixels(), None
    loaded = load_autoencoder(autoencoder)
    loaded.network.to(device_for(config.train))  # it encodes: measuring on a CPU what a GPU trains on takes long
    data, space = build_latents(config.latents, config.data, config.own_data, loaded, facts, config.train.workers)
    return data, space, loaded


def prepare(config: Config, resume: Path | None, init_from: Path | None):
    """Build everything that can be wrong before a run is recorded: data, space, text, network, checkpoint, record."""
    import torch

    from shared.conditions.known import known_of, needed, with_text
    from shared.experiments.follower import create_record, reopen_record
    from shared.experiments.run import plain
    from shared.latents.spaces import check_clamp, shape_in
    from shared.latents.stored import COPY
    from shared.training.checkpoint import Checkpoints, load_into, training_facts
    from shared.training.loop import check_same, device_for, settle
    from shared.training.processes import in_turn
    from shared.training.weights import newest, read_weights
    from task4_dit.model import Model, build_diffusion, build_network

    record = reopen_record(resume) if resume else None  # first: nobody else trains in it from here on
    checkpoint = Checkpoints(resume / "checkpoints").latest() if resume else None
    facts = training_facts(checkpoint) if checkpoint else {"config": {}}
    saved, told = facts["config"], config.condition.told
    place = resume / COPY if resume and saved.get("space") else config.latents.autoencoder
    with in_turn():
        data, space, autoencoder = build_data(config, place, saved.get("space"))
    check_clamp(config.sampling, space)
    settle(data, config.train, optimizers=[config.optimizer])
    shape = autoencoder.shape if autoencoder else tuple(data[0][0].shape)
    needed(told, data) if told else None
    reader = None
    if config.condition.text:
        words_of = newest(init_from) if init_from and config.text.encoder == "learned" else None
        with in_turn():
            data, reader = with_text(config.text, data, device_for(config.train), checkpoint or words_of)
    known = known_of(told, data, reader, config.text)
    torch.manual_seed(config.train.seed)  # the network's first weights
    network = build_network(config, shape_in(space, shape), known)
    model = Model(network, build_diffusion(config), space, config, shape, known, Path("the run"))
    resolved = plain({"shape": shape, "known": known, "space": space.facts(), **asdict(config)})
    if record is None:
        if init_from is not None:
            load_into(network, *read_weights(init_from))
        record = create_record("task4", config.run, asdict(config), *([autoencoder.copy_to] if autoencoder else []))
        record.config = resolved
        return model, data, record, None
    check_same(saved, resolved, asdict(Config()))
    record.config = resolved
    record.go_on(facts["step"])
    return model, data, record, checkpoint


def conduct(program: str, record: "RunRecord", trust: bool, training: Callable[[], None]) -> int:
    """Train, and say how it ended; the exit status is 128 + the signal's number where one stopped it."""
    from shared.training.loop import Interrupted

    say(f"run {record.folder}", sys.stderr)
    try:
        with record.closing():
            training()
    except Interrupted as stopped:
        again = f"{program} --resume {shlex.quote(str(record.folder))}" + (" --trust true" if trust else "")
        say(f"{stopped} and saved; go on with: {again}", sys.stderr)
        return 128 + stopped.number
    say(f"trained: {record.folder}")
    say(f"pictures: {record.folder / 'samples'}")
    return 0


def run() -> int:
    """Train as the command line says."""
    asked = OPTIONS.parse()
    model, data, record, checkpoint = prepare(asked.config, asked.resume, asked.init_from)
    return conduct(PROGRAM, record, bool(asked.config.own_data), lambda: fit(model, data, record, checkpoint))


def main() -> None:
    """The command `task4-train`."""
    sys.exit(command(run))


if __name__ == "__main__":
    main()
