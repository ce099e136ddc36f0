"""Train stage 1: `task1-train --help`.

What there is to read: in `fit`, the loss is one line and the loop is one `for`. All else is what a training has to do
besides.
"""

import contextlib
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.cli import Parser, command, flat, read_yaml
from shared.errors import UserError
from task1_unconditional.config import Config, config_from, model_config

if TYPE_CHECKING:  # imported where they are used: torch takes seconds, and --help should not
    from jsonargparse import Namespace
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
    from shared.training.loop import Part, device_for, train
    from task1_unconditional.model import Model

    diffusion.schedule.to(device_for(config.train))  # beside the data, or each step would wait for a copy

    def loss(model, x, cond):
        return diffusion.loss(model, x, {}).mean()  # stage 1 tells the network nothing but the time

    part = Part(network, loss, config.optimizer, config.averages)
    for step in train(part, data, config.train, record, resume=resume):
        if step.every(config.train.sample_every):
            model = Model(step.ema, diffusion, config, tuple(record.config["shape"]), record.folder)
            save_grid(record, model, step.n)


def save_grid(record: "RunRecord", model, n: int) -> None:
    """Save what the model makes of the same noise as at every other step."""
    from shared import pictures

    samples = model.sample(PICTURES, seed=model.config.train.seed)
    pictures.save(pictures.grid(samples), record.folder / "samples" / f"step-{n:08d}.png")


def save_film(record: "RunRecord") -> Path | None:
    """The grids one after the other, as a GIF; nothing where there are none."""
    from PIL import Image

    from shared import pictures

    paths = sorted((record.folder / "samples").glob("step-*.png"), reverse=True)
    chosen = reversed(paths[:: len(paths) // FRAMES + 1])  # with the last
    frames = [Image.open(path).copy() for path in chosen]  # a copy has no open file behind it
    return pictures.save_film(frames, record.folder / "samples" / "training.gif") if frames else None


def parse(arguments: list[str] | None = None) -> tuple[Config, Path | None, Path | None]:
    """The config, the run to resume, and the run or file whose weights to start from."""
    parser = Parser(prog="task1-train", description="Train an unconditional diffusion model on images.")
    parser.add_argument(
        "--config", action="config", help="YAML file; options after it override it (default: the demo's)"
    )
    parser.add_argument("--resume", type=Path | None, help="folder of a run to go on with")
    parser.add_argument("--init_from", type=Path | None, help="run or checkpoint whose weights a new run starts from")
    parser.add_argument("--trust", type=bool, default=False, help="run the code of one's own that a resumed run names")
    parser.add_class_arguments(Config)
    asked = parser.parse_args(arguments)
    if asked.resume and (asked.init_from or asked.config):
        parser.error("--resume goes on with a run as it was configured: leave out --config and --init-from")
    if not asked.config:
        parser.set_defaults(former(asked))
        asked = parser.parse_args(arguments)
    built = parser.instantiate(asked)
    config = Config(**{name: getattr(built, name) for name in asdict(Config())})
    return config, asked.resume, asked.init_from


def former(asked: "Namespace") -> dict[str, Any]:
    """What holds for the options that are not given, where there is no --config: that of the run which is gone on
    with or started from, else the demo's. As dotted names.

    Raises:
        UserError: that run is none of stage 1, or its config names code of one's own and is not trusted.
    """
    if asked.resume:
        saved = read_yaml(asked.resume / "config.yaml")
        config = config_from(saved)  # says so in one line if this is no run of stage 1
    elif asked.init_from:
        from task1_unconditional.model import newest, read_facts

        saved = read_facts(newest(asked.init_from)).get("config", {})
        config, _ = model_config(saved)
    else:
        return flat(read_yaml(DEMO))
    if (config.own_data or config.own_network) and not asked.trust:
        source = asked.resume or asked.init_from
        raise UserError(f"{source} names code of its own, which would be run: if you know it, add --trust true")
    left_out = ("shape",) if asked.resume else ("shape", "run")  # a new run has a name of its own
    return {name: value for name, value in saved.items() if name not in left_out}


def prepare(config: Config, resume: Path | None, init_from: Path | None):
    """Build everything that can be wrong before a run is recorded: data, network, diffusion, checkpoint, record."""
    from shared.experiments.run import RunRecord, plain
    from shared.precision import resolve
    from shared.training.checkpoint import Checkpoints, load_into, read_facts
    from shared.training.loop import check, check_same, device_for
    from task1_unconditional.model import build_data, build_diffusion, build_network, read_weights

    data = build_data(config)
    check(data, config.train)
    config.train.precision = resolve(config.train.precision, device_for(config.train))  # recorded as what it is here
    shape = tuple(data[0][0].shape)
    network, diffusion = build_network(config, shape), build_diffusion(config)
    resolved = plain({"shape": shape, **asdict(config)})  # what a checkpoint needs to be sampled from
    if resume is None:
        if init_from is not None:
            load_into(network, *read_weights(init_from))
        record = RunRecord.create("task1", config.run, asdict(config))
        record.config = resolved
        return network, diffusion, data, record, None
    record = RunRecord.reopen(resume)
    checkpoint = Checkpoints(record.folder / "checkpoints").latest()
    facts = read_facts(checkpoint)
    check_same(facts["config"], resolved)
    record.config = resolved
    record.go_on(facts["step"])
    return network, diffusion, data, record, checkpoint


def run() -> int:
    """Train; the exit status is 128 + the signal's number where one stopped it."""
    config, resume, init_from = parse()

    import torch

    from shared.training.loop import Interrupted

    torch.manual_seed(config.train.seed)  # the network's first weights
    network, diffusion, data, record, checkpoint = prepare(config, resume, init_from)
    print(f"run {record.folder}", file=sys.stderr)
    try:
        fit(network, diffusion, data, config, record, checkpoint)
        film = save_film(record)
    except Interrupted as stopped:
        record.close("interrupted")
        trust = " --trust true" if config.own_data or config.own_network else ""
        print(f"{stopped} and saved; go on with: task1-train --resume {record.folder}{trust}", file=sys.stderr)
        return 128 + stopped.number
    except BaseException as error:
        with contextlib.suppress(OSError, UserError):  # a full disk, perhaps: the first error is the one to report
            state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            record.close(state, str(error) or repr(error))
        raise
    record.close("finished")
    print(f"trained: {record.folder}")
    if film:
        print(f"pictures: {film.parent}")
    return 0


def main() -> None:
    """The command `task1-train`."""
    sys.exit(command(run))


if __name__ == "__main__":
    main()
