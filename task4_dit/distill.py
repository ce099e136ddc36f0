"""Make a trained transformer need few steps: `task4-distill --help`.

A teacher, a loss that asks it, and the loop of every other training. What comes out is a model of this stage like its
teacher: task4-sample and task4-evaluate take it. Guidance is built in, so that a step is one call of the network.
"""

import copy
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from shared.cli import command
from shared.errors import UserError
from shared.options import TrainingOptions
from task4_dit.config import SHORT, STAGE, Config, Distillation, DistillConfig
from task4_dit.train import COLUMNS, PICTURES, build_data, conduct, show

if TYPE_CHECKING:  # imported where they are used: torch takes seconds, and --help should not
    from torch import Tensor, nn
    from torch.utils.data import Dataset

    from shared.conditions.said import Cond
    from shared.experiments.run import RunRecord
    from shared.training.part import Loss
    from task4_dit.model import Model

PROGRAM = "task4-distill"
DEMO = Path(__file__).parent / "configs" / "distill.yaml"
TEACHER = "teacher.safetensors"  # in the run's folder: it depends on no other
OWN_SHORT = {name: of for name, of in SHORT.items() if not of[0].startswith(("--data.", "--network."))}


def no_source(source: Path) -> NoReturn:
    """A student starts from its teacher."""
    raise UserError(f"--init-from is {source}, but a student starts from its teacher: name that by --distill.teacher")


OPTIONS = TrainingOptions(
    PROGRAM,
    "Make a trained diffusion transformer need few steps.",
    Distillation,
    DEMO,
    STAGE,
    no_source,
    OWN_SHORT,
)


def consistency(student: "Model", teacher: "Model", config: Distillation) -> "Loss":
    """The loss of consistency distillation, over the images and conditions of the teacher's data."""
    import torch

    from task4_dit.few_steps import consistency_loss, taught_by

    diffusion, space, wanted = student.diffusion, student.space, config.distill
    denoiser = taught_by(teacher, wanted.scale)
    encode = space.encode if student.config.latents.cache is None else lambda moments: moments
    keys = student.network.keys
    times = diffusion.schedule.times(wanted.levels).to(diffusion.schedule.alpha.device)

    def loss(network: "nn.Module", x: "Tensor", cond: "Cond") -> "Tensor":
        """Of a batch x (B, C, H, W) of images, or of moments from a cache."""
        told = {name: cond[name] for name in keys}
        x0 = space.draw(encode(x))
        eps, k = torch.randn_like(x0), torch.randint(wanted.levels, (len(x0),), device=x0.device)
        asked = diffusion.denoiser(network, told)
        return consistency_loss(diffusion, asked, denoiser(told), x0, eps, times, k).mean()

    return loss


def reflow(student: "Model", teacher: "Model", config: Distillation) -> "Loss":
    """The loss of the diffusion itself, with each sample's own noise: no new equation at all."""

    def loss(network: "nn.Module", x: "Tensor", cond: "Cond") -> "Tensor":
        """Of a batch of pairs: x (B, C, H, W) is what became of cond["eps"], of the same shape."""
        told = {name: values for name, values in cond.items() if name != "eps"}
        return student.diffusion.loss(network, x, told, eps=cond["eps"]).mean()

    return loss


LOSSES = {"consistency": consistency, "reflow": reflow}


def fit(
    student: "Model", teacher: "Model", data: "Dataset", config: Distillation, record: "RunRecord", resume: Path | None
) -> None:
    """Train the student, and save samples of the same noise and the same conditions at intervals."""
    from shared.conditions.asked import examples
    from shared.training.loop import device_for, train
    from shared.training.part import Part
    from task4_dit.pairs import pairs

    device = device_for(config.train)
    for module in (student.diffusion.schedule, student.space, teacher.diffusion.schedule, teacher.network):
        module.to(device)
    asked = examples(data, student.network.keys, PICTURES, COLUMNS)
    if config.distill.method == "reflow":
        data = pairs(teacher, data, config, record)  # of its own data, what is told is all that is needed
    part = Part(student.network, LOSSES[config.distill.method](student, teacher, config), config.optimizer)
    part.averages = config.averages
    for step in train(part, data, config.train, record, resume=resume):
        show(step, student, asked, record)


def student_config(teacher: Config, config: Distillation) -> Config:
    """The config of a student, as its checkpoint stores it: the teacher's, trained and sampled otherwise.

    Raises:
        UserError: the teacher is not one that the method can learn from, or the sampler not one for what it teaches.
    """
    if config.distill.method == "reflow" and config.sampling.sampler == "consistency":
        raise UserError(
            "sampling.sampler is consistency, which is for students that know the end of the way: for reflow choose "
            "flow_euler, as task4_dit/configs/reflow.yaml does"
        )
    if config.distill.method == "reflow" and teacher.schedule.name != "flow":
        raise UserError(
            "distill.method is reflow, which straightens flows, and the teacher's schedule is "
            f"{teacher.schedule.name}: choose consistency, or a teacher with schedule.name flow"
        )
    return replace(
        teacher,
        condition=replace(teacher.condition, dropout=0.0),
        guidance=replace(teacher.guidance, scale=1.0, rescale=0.0, interval=(0.0, 1.0)),
        optimizer=config.optimizer,
        averages=config.averages,
        train=config.train,
        sampling=config.sampling,
        run=config.run,
    )


def check_asked(teacher: "Model", wanted: DistillConfig) -> None:
    """Raise UserError where the teacher cannot be asked what a method would ask it."""
    from task4_dit.few_steps import taught_by

    name, steps = ("steps", wanted.steps) if wanted.method == "reflow" else ("levels", wanted.levels)
    for field, ask in {
        "scale": lambda: taught_by(teacher, wanted.scale)(teacher.told(1)),
        name: lambda: teacher.diffusion.schedule.times(steps),
    }.items():
        try:
            ask()
        except ValueError as error:
            raise UserError(f"distill.{field} does not fit the teacher, {teacher.source}: {error}") from None


def prepare(
    config: Distillation, resume: Path | None, trust: bool
) -> "tuple[Model, Model, Dataset, RunRecord, Path | None]":
    """Build everything that can be wrong before a run is recorded: student, teacher, data, record, checkpoint."""
    from shared.conditions.known import with_text
    from shared.experiments.follower import create_record, reopen_record
    from shared.experiments.run import plain
    from shared.experiments.trained import source_of
    from shared.latents.stored import autoencoder_of
    from shared.training.checkpoint import Checkpoints, read_facts, training_facts
    from shared.training.loop import check_same, device_for, settle
    from shared.training.processes import in_turn
    from task4_dit.model import Model, build_diffusion, load

    record = reopen_record(resume) if resume else None  # first: nobody else trains in it from here on
    checkpoint = Checkpoints(resume / "checkpoints").latest() if resume else None
    facts = training_facts(checkpoint) if checkpoint else {"config": {}}
    teacher = load(resume / TEACHER if resume else source_of(config.distill.teacher, "task4"))
    if teacher.config.own_data and not trust:
        raise UserError(f"{teacher.source} names code of its own, which would be run: if you know it, add --trust true")
    config.sampling.clamp = teacher.config.sampling.clamp  # pixels or latents: that is the teacher's
    own, space_facts = student_config(teacher.config, config), teacher.space.facts()
    with in_turn():
        place = autoencoder_of(teacher.source) if space_facts else None
        data, _, autoencoder = build_data(own, place, space_facts)
        if own.condition.text:
            data, _ = with_text(own.text, data, device_for(config.train), teacher.source)
    epoch = config.distill.pairs if config.distill.method == "reflow" else None
    settle(data, config.train, epoch, optimizers=[config.optimizer])
    check_asked(teacher, config.distill)
    network = copy.deepcopy(teacher.network).train()
    student = Model(network, build_diffusion(own), teacher.space, own, teacher.shape, teacher.known, Path("the run"))
    besides = {"shape": teacher.shape, "known": teacher.known, "space": space_facts, "distill": asdict(config.distill)}
    resolved = plain({**besides, **asdict(own)})
    if record is not None:
        check_same(facts["config"], resolved, {"distill": asdict(DistillConfig()), **asdict(Config())})
        record.config = resolved
        record.go_on(facts["step"])
        return student, teacher, data, record, checkpoint
    copies = [lambda folder: copy_of(teacher, folder / TEACHER, read_facts(teacher.source))]
    copies += [autoencoder.copy_to] if autoencoder else []
    record = create_record("task4-distill", config.run, asdict(config), *copies)
    record.config = resolved
    return student, teacher, data, record, None


def copy_of(teacher: "Model", path: Path, facts: dict[str, Any]) -> None:
    """Write a teacher's weights to a file of its own."""
    from shared.training.checkpoint import write_checkpoint
    from shared.training.state import prefixed

    about = {name: value for name, value in facts.items() if name in ("step", "config")}
    write_checkpoint(path, prefixed("ema", teacher.network.state_dict()), about)


def run() -> int:
    """Distil as the command line says."""
    asked = OPTIONS.parse()
    student, teacher, data, record, checkpoint = prepare(asked.config, asked.resume, asked.trust)
    trust = bool(teacher.config.own_data)
    return conduct(PROGRAM, record, trust, lambda: fit(student, teacher, data, asked.config, record, checkpoint))


def main() -> None:
    """The command `task4-distill`."""
    sys.exit(command(run))


if __name__ == "__main__":
    main()
