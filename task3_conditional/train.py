"""Train stage 3: `task3-train --help`.

Against stage 1 one thing has changed in `fit`: the network is told something, and for a share of the samples nothing.
"""

import shlex
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.cli import command
from shared.options import TrainingOptions
from task3_conditional.config import STAGE, Config, model_config

if TYPE_CHECKING:  # imported where they are used: torch takes seconds, and --help should not
    from torch.utils.data import Dataset

    from shared.experiments.run import RunRecord
    from task3_conditional.model import Model

PROGRAM = "task3-train"
PICTURES = 60  # samples in a grid
COLUMNS = 10
DEMO = Path(__file__).parent / "configs" / "demo.yaml"


def fit(model: "Model", data: "Dataset", record: "RunRecord", resume: Path | None) -> None:
    """Train the network, and save samples of the same noise and the same conditions at intervals."""
    from shared import pictures
    from shared.conditions.asked import examples
    from shared.training.loop import device_for, train
    from shared.training.part import Part
    from task3_conditional.given import given, shown

    config, diffusion, keys = model.config, model.diffusion, model.network.keys
    dropping = (config.condition.dropout, config.condition.together, config.condition.leave_open)
    diffusion.schedule.to(device_for(config.train))  # beside the data, or each step would wait for a copy
    asked = examples(shown(data, config.given), keys, PICTURES, COLUMNS)

    def loss(network, x, cond):
        cond = cond | given(x, config.given)
        told = model.network.drop({name: cond[name] for name in keys}, *dropping)
        return diffusion.loss(network, x, told).mean()

    part = Part(model.network, loss, config.optimizer, config.averages)
    for step in train(part, data, config.train, record, resume=resume):
        if step.every(config.train.sample_every):
            samples = replace(model, network=step.ema).sample(asked, config.train.seed)
            record.picture(step.n, pictures.grid(samples, COLUMNS))


def read_source(source: Path) -> dict[str, Any]:
    """The config that a run or checkpoint of this stage stores."""
    from shared.training.checkpoint import read_facts
    from shared.training.weights import newest

    saved = read_facts(newest(source)).get("config", {})
    model_config(saved)  # says so in one line if this is none of stage 3
    return {name: value for name, value in saved.items() if name not in ("shape", "known")}


OPTIONS = TrainingOptions(
    PROGRAM, "Train a diffusion model that is told what to draw.", Config, DEMO, STAGE, read_source
)


def prepare(config: Config, resume: Path | None, init_from: Path | None):
    """Build everything that can be wrong before a run is recorded: data, text, network, checkpoint, record."""
    import torch

    from shared.conditions.known import known_of, needed, with_text
    from shared.experiments.follower import create_record, reopen_record
    from shared.experiments.run import plain
    from shared.training.checkpoint import Checkpoints, load_into, training_facts
    from shared.training.loop import check_same, device_for, settle
    from shared.training.processes import in_turn
    from shared.training.weights import newest, read_weights
    from task3_conditional.given import check_given, shown
    from task3_conditional.model import Model, build_data, build_diffusion, build_network

    record = reopen_record(resume) if resume else None  # first: nobody else trains in it from here on
    checkpoint = Checkpoints(resume / "checkpoints").latest() if resume else None
    facts = training_facts(checkpoint) if checkpoint else {"config": {}}
    saved = facts["config"]
    with in_turn():
        data = build_data(config)
    settle(data, config.train, optimizers=[config.optimizer])
    told, reader = config.condition.told, None
    shape = tuple(data[0][0].shape)
    check_given(config.given, told, shape)
    needed(told, shown(data, config.given))
    words_of = newest(init_from) if init_from and config.text.encoder == "learned" else None
    if "text" in told:
        with in_turn():
            data, reader = with_text(config.text, data, device_for(config.train), checkpoint or words_of)
    known = known_of(told, shown(data, config.given), reader, config.text)
    torch.manual_seed(config.train.seed)  # the network's first weights
    model = Model(build_network(config, shape, known), build_diffusion(config), config, shape, known, Path("the run"))
    resolved = plain({"shape": shape, "known": known, **asdict(config)})
    if record is None:
        if init_from is not None:
            load_into(model.network, *read_weights(init_from))
        record = create_record("task3", config.run, asdict(config))
        record.config = resolved
        return model, data, record, None
    check_same(saved, resolved, asdict(Config()))
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
        trust = " --trust true" if asked.config.own_data else ""
        say(
            f"{stopped} and saved; go on with: {PROGRAM} --resume {shlex.quote(str(record.folder))}{trust}",
            sys.stderr,
        )
        return 128 + stopped.number
    say(f"trained: {record.folder}")
    say(f"pictures: {record.folder / 'samples'}")
    return 0


def main() -> None:
    """The command `task3-train`."""
    sys.exit(command(run))


if __name__ == "__main__":
    main()
