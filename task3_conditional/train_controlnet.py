"""Train a ControlNet on a frozen model of this stage: `task3-train-controlnet --help`.

The loss is that of the model's own training. Only what is trained has changed: the optimizer, the averages and the
checkpoints hold the ControlNet alone, and the run's folder keeps one copy of the base.
"""

import shlex
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.cli import command
from shared.errors import UserError
from shared.options import TrainingOptions
from task3_conditional.control_config import BESIDES, CONTROL, ControlTraining, control_config

if TYPE_CHECKING:  # imported where they are used: torch takes seconds, and --help should not
    from torch import Tensor, nn
    from torch.utils.data import Dataset

    from shared.conditions.said import Cond
    from shared.experiments.run import RunRecord
    from shared.training.part import Loss
    from task3_conditional.controlnet import ControlNet
    from task3_conditional.model import Model

PROGRAM, FOLDER = "task3-train-controlnet", "task3-controlnet"
PICTURES = 30  # samples in a grid, below as many hints
COLUMNS = 10
DEMO = Path(__file__).parent / "configs" / "controlnet.yaml"


def loss_for(base: "Model", config: ControlTraining) -> "Loss":
    """The loss of a ControlNet: the diffusion's own, of the base as it is controlled."""
    from shared.generation import computing
    from task3_conditional.controlnet import Controlled
    from task3_conditional.hints import HINTS

    condition = base.config.condition
    dropping = (config.dropout, condition.together, condition.leave_open)

    def loss(network: "nn.Module", x: "Tensor", cond: "Cond") -> "Tensor":
        """Of a batch x (B, C, H, W), each told its own hint."""
        told = base.network.drop({name: cond[name] for name in base.network.keys}, *dropping)
        told["hint"] = HINTS[config.hint](x)
        asked = computing(Controlled(base.network, [network]), config.train.precision, x.device)
        return base.diffusion.loss(asked, x, told).mean()

    return loss


def fit(
    network: "ControlNet",
    base: "Model",
    data: "Dataset",
    config: ControlTraining,
    record: "RunRecord",
    resume: Path | None,
) -> None:
    """Train the ControlNet, and save samples of the same noise and the same hints at intervals."""
    from shared.conditions.asked import examples
    from shared.training.loop import device_for, train
    from shared.training.part import Part
    from task3_conditional.controlnet import Controlled
    from task3_conditional.hints import Hinted

    device = device_for(config.train)
    for module in (base.diffusion.schedule, base.network):
        module.to(device)
    asked = examples(Hinted(data, config.hint), [*base.network.keys, "hint"], PICTURES, COLUMNS)
    part = Part(network, loss_for(base, config), config.optimizer, config.averages)
    for step in train(part, data, config.train, record, resume=resume):
        if step.every(config.train.sample_every):
            samples = replace(base, network=Controlled(base.network, [step.ema])).sample(asked, config.train.seed)
            record.picture(step.n, below(asked["hint"], samples))


def below(hints: "Tensor", samples: "Tensor"):
    """A picture: rows of hints (n, C', H, W), and below each the samples (n, C, H, W) that came of them."""
    import torch

    from shared import pictures

    hints = hints.cpu().expand(-1, samples.shape[1], -1, -1)
    pairs = zip(hints.split(COLUMNS), samples.cpu().split(COLUMNS), strict=True)
    return pictures.grid(torch.cat([row for pair in pairs for row in pair]), COLUMNS)


def read_source(source: Path) -> dict[str, Any]:
    """The config that a ControlNet's run or checkpoint stores."""
    from shared.training.checkpoint import read_facts
    from shared.training.weights import newest

    saved = read_facts(newest(source)).get("config", {})
    control_config(saved)  # says so in one line if this is none
    return {name: value for name, value in saved.items() if name not in BESIDES}


OPTIONS = TrainingOptions(PROGRAM, "Train a ControlNet.", ControlTraining, DEMO, CONTROL, read_source)


def load_base(config: ControlTraining, resume: Path | None, init_from: Path | None) -> "Model":
    """The model that is controlled, to be sampled as the config says. Weights that are gone on with have theirs.

    Raises:
        UserError: there is none, the config asks of it what it has never learned, or it is told a picture that is made
            of the sample.
    """
    from shared.experiments.trained import source_of
    from shared.training.weights import newest
    from task3_conditional.control_model import COPY, base_of, named_base
    from task3_conditional.model import build_diffusion, load

    if resume:
        source = resume / COPY
    elif init_from and read_source(init_from).get("base") == config.base:
        source = base_of(newest(init_from), config.base)
    else:
        source = source_of("latest", "task3") if config.base == "latest" else named_base(config.base)
    base = load(source)
    if (kind := base.config.given.kind) != "none":
        raise UserError(
            f"{base.source} is told a picture made of each sample (given.kind {kind}), which the training of a control "
            "does not make: take a base that is told none"
        )
    if config.dropout and base.config.condition.dropout == 0:
        raise UserError(f"dropout is {config.dropout:g}, and {base.source} has never been told nothing: make it 0")
    base.config = replace(base.config, guidance=config.guidance, sampling=config.sampling)
    base.diffusion = build_diffusion(base.config)
    return base


def begin_with(network: "ControlNet", source: Path, digest: str) -> None:
    """Load another run's weights into a ControlNet for a base of such a digest.

    They may be of another base: one that was trained on, say. That is said on stderr, as what they add was learned for
    the features of that one, and no longer for those of this.
    """
    from shared.training.checkpoint import load_into, read_facts
    from shared.training.processes import say
    from shared.training.weights import read_weights

    state, path = read_weights(source)
    *_, learned = control_config(read_facts(path).get("config", {}))
    load_into(network, state, path)
    if learned != digest:
        say(
            f"warning: {path} was trained on another base (digest {learned[:12]}, here {digest[:12]}): it has to learn "
            "the features of this one",
            sys.stderr,
        )


def check_fits(base: "Model", shape: tuple[int, ...], known: dict[str, Any]) -> None:
    """Raise UserError unless data, of such images of which this is `known`, is of the kind that the base draws."""
    if base.shape != shape:
        there, here = ("×".join(map(str, sides)) for sides in (base.shape, shape))
        raise UserError(f"{base.source} is a model of images {there}, and the data's are {here}: take other data")
    for what, name in (("label", "classes"), ("attributes", "attributes"), ("image", "image")):
        if what in base.config.condition.told and base.known.get(name) != known[name]:
            raise UserError(f"{base.source} is told {what}, and the data has other {name}: take other data")


def prepare(config: ControlTraining, resume: Path | None, init_from: Path | None):
    """Build everything that can be wrong before a run is recorded: base, data, text, network, checkpoint, record."""
    import torch

    from shared.conditions.known import known_of, needed, with_text
    from shared.experiments.follower import create_record, reopen_record
    from shared.experiments.run import plain
    from shared.training.checkpoint import Checkpoints, training_facts
    from shared.training.loop import check_same, device_for, settle
    from shared.training.processes import in_turn
    from task3_conditional.control_model import copy_base, digest_of
    from task3_conditional.controlnet import ControlNet
    from task3_conditional.hints import channels_of
    from task3_conditional.model import build_data

    record = reopen_record(resume) if resume else None  # first: nobody else trains in it from here on
    checkpoint = Checkpoints(resume / "checkpoints").latest() if resume else None
    facts = training_facts(checkpoint) if checkpoint else {"config": {}}
    base = load_base(config, resume, init_from)
    told, text, reader = base.config.condition.told, base.config.text, None
    with in_turn():
        data = build_data(config)
        needed(told, data)
        if "text" in told:
            data, reader = with_text(text, data, device_for(config.train), base.source)
    settle(data, config.train, optimizers=[config.optimizer])
    check_fits(base, tuple(data[0][0].shape), known_of(told, data, reader, text))
    torch.manual_seed(config.train.seed)  # the hint's encoder; the rest is a copy, or zero
    network = ControlNet(base.network, channels_of(config.hint, base.shape[0]))
    resolved = plain({"shape": base.shape, "digest": digest_of(base.network), **asdict(config)})
    if record is None:
        if init_from is not None:
            begin_with(network, init_from, resolved["digest"])
        record = create_record(FOLDER, config.run, asdict(config), lambda folder: copy_base(base, folder))
        record.config = resolved
        return network, base, data, record, None
    check_same(facts["config"], resolved, asdict(ControlTraining()))
    record.config = resolved
    record.go_on(facts["step"])
    return network, base, data, record, checkpoint


def run() -> int:
    """Train; the exit status is 128 + the signal's number where one stopped it."""
    asked = OPTIONS.parse()

    from shared.training.loop import Interrupted
    from shared.training.processes import say

    network, base, data, record, checkpoint = prepare(asked.config, asked.resume, asked.init_from)
    say(f"run {record.folder}", sys.stderr)
    try:
        with record.closing():
            fit(network, base, data, asked.config, record, checkpoint)
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
    """The command `task3-train-controlnet`."""
    sys.exit(command(run))


if __name__ == "__main__":
    main()
