"""Train stage 5: `task5-train --help`.

Against stage 4 a batch has one dimension more, and the loss two lines: single frames may be trained beside the clips,
and frames of a clip may be given, which the loss then leaves out.
"""

import shlex
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.cli import command
from shared.options import TrainingOptions
from shared.training.processes import say
from task5_video.config import BESIDES, STAGE, Config, stored

if TYPE_CHECKING:  # imported where they are used: torch takes seconds, and --help should not
    from torch import Tensor, nn
    from torch.utils.data import Dataset

    from shared.conditions.said import Cond
    from shared.experiments.run import RunRecord
    from shared.training.loop import TrainStep
    from task5_video.inflate import ImageModel
    from task5_video.model import Model

PROGRAM = "task5-train"
PICTURES = 10  # clips in a picture of samples, one below the other
DEMO = Path(__file__).parent / "configs" / "demo.yaml"


def fit(model: "Model", data: "Dataset", record: "RunRecord", resume: Path | None) -> None:
    """Train the network, and save samples of the same noise and the same conditions at intervals."""
    from shared.training.loop import device_for, train
    from shared.training.part import Part
    from task5_video.clips import WithStills, examples, told_less, with_given
    from task5_video.model import by_frames

    config, diffusion, space = model.config, model.diffusion, model.space
    diffusion.schedule.to(device_for(config.train))  # beside the data, or each step would wait for a copy
    space.to(device_for(config.train))
    asked = examples(data, model.network.keys, PICTURES)
    if config.joint_images:
        data = WithStills(data, config.joint_images)

    def loss(network: "nn.Module", x: "Tensor", cond: "Cond") -> "Tensor":
        """Of clips x (B, C, F, H, W), with the stills behind their frames."""
        x0 = by_frames(lambda frames: space.draw(space.encode(frames)), x)
        told = told_less(model.network, cond, config.condition.dropout, config.condition.together)
        told, counted = with_given(config.given, x0, told, config.joint_images)
        return diffusion.loss(network, x0, told, mask=counted).mean()

    part = Part(model.network, loss, config.optimizer, config.averages)
    for step in train(part, data, config.train, record, resume=resume):
        show(step, model, asked, record)


def show(step: "TrainStep", model: "Model", asked: "Cond", record: "RunRecord") -> None:
    """Save what the averaged network makes of the same noise as at every other step, as a picture and moving."""
    from shared import films

    if step.every(model.config.train.sample_every):
        clips = replace(model, network=step.ema).sample(PICTURES, asked, model.config.train.seed)
        record.picture(step.n, films.contact_sheet(clips))
        record.keep(lambda folder: films.save_gif(clips, folder / "samples" / f"step-{step.n:08d}.gif"))


def read_source(source: Path) -> dict[str, Any]:
    """The config that a run or checkpoint of this stage stores."""
    from shared.training.checkpoint import read_facts
    from shared.training.weights import newest

    saved = read_facts(newest(source)).get("config", {})
    stored(saved)  # says so in one line if this is none of stage 5
    return {name: value for name, value in saved.items() if name not in BESIDES}


OPTIONS = TrainingOptions(
    PROGRAM, "Train a video diffusion model, begun from an image model or not.", Config, DEMO, STAGE, read_source
)


def beside(path: str) -> Path:
    """A path that the package's own configs name, wherever the command is called; any other as it is."""
    here = Path(__file__).parent
    inside = here.parent / path
    return inside if path.startswith(f"{here.name}/") and not Path(path).exists() else Path(path)


def begin(config: Config, resume: Path | None, init_from: Path | None) -> tuple[Config, "ImageModel | None"]:
    """The config as it will be, and the image model that the network is made from, if it is.

    A run that goes on has both already; one that starts from another run's weights has that run's config.
    """
    from shared.errors import UserError
    from task5_video.inflate import COPY, as_image, read_image

    if resume:
        return config, read_image(resume / COPY) if config.inflate.image else None
    if not config.inflate.image or init_from:
        return replace(config, inflate=replace(config.inflate, image=None, freeze=False)), None
    if config.inflate.freeze and not config.inflate.weights:
        raise UserError("inflate.freeze would keep weights that inflate.weights leaves random: make one of them other")
    image = read_image(beside(config.inflate.image))
    return as_image(config, image), image


def space_from(
    config: Config,
    image: "ImageModel | None",
    resume: Path | None,
    init_from: Path | None,
    saved: dict[str, Any] | None,
):
    """Where the autoencoder lies, if there is one, and the scale of its latents, if that is known already.

    Args:
        config: as it will be.
        image: that the network is made from.
        resume, init_from: the run that is gone on with, or started from.
        saved: the space of that run.
    """
    from shared.errors import UserError
    from shared.latents.stored import COPY, autoencoder_of
    from shared.training.weights import newest

    if resume:
        return (resume / COPY, saved) if saved else (None, None)
    source, scale = (image.path, image.space) if image else (None, None)
    if init_from and not config.latents.autoencoder:  # that of the image model which it was made from
        source, scale = newest(init_from), saved
    if scale is None:
        if image and config.latents.autoencoder:
            raise UserError(
                f"{image.path} is a model of pixels: leave latents.autoencoder out, or inflate one of latents"
            )
        return config.latents.autoencoder, None
    place = autoencoder_of(source)
    if place is None:
        raise UserError(f"{source} is a diffusion of latents, and no {COPY} lies with it: copy that from its run")
    return place, scale


def prepare(config: Config, resume: Path | None, init_from: Path | None):
    """Build everything that can be wrong before a run is recorded: data, space, text, network, checkpoint, record."""
    import torch

    from shared.conditions.known import known_of, needed, with_text
    from shared.experiments.follower import create_record, reopen_record
    from shared.experiments.run import plain
    from shared.latents.spaces import check_clamp
    from shared.training.checkpoint import Checkpoints, load_into, read_facts, training_facts
    from shared.training.loop import check_same, device_for, settle
    from shared.training.processes import in_turn
    from shared.training.weights import newest, read_weights
    from task5_video.data import build_data
    from task5_video.inflate import check_fits, check_weights, freeze, inflate
    from task5_video.model import Model, build_diffusion, build_network, planned_network, shape_of

    record = reopen_record(resume) if resume else None  # first: nobody else trains in it from here on
    checkpoint = Checkpoints(resume / "checkpoints").latest() if resume else None
    facts = training_facts(checkpoint) if checkpoint else {"config": {}}
    config, image = begin(config, resume, init_from)
    begun = read_facts(newest(init_from))["config"] if init_from else facts["config"]
    place, scale = space_from(config, image, resume, init_from, begun.get("space"))
    with in_turn():
        data, space, autoencoder = build_data(config, place, scale, device_for(config.train))
    check_clamp(config.sampling, space)
    settle(data, config.train, optimizers=[config.optimizer])
    shape, told, reader = tuple(data[0][0].shape), config.condition.told, None
    needed(told, data) if told else None
    if "text" in told:
        reads = image is not None and image.condition is not None and "text" in image.condition.told
        words_of = image.path if reads else newest(init_from) if init_from else None
        words_of = words_of if config.text.encoder == "learned" else None
        with in_turn():
            data, reader = with_text(config.text, data, device_for(config.train), checkpoint or words_of)
    known = known_of(told, data, reader, config.text)
    torch.manual_seed(config.train.seed)  # the network's first weights
    if image:
        check_fits(image, shape, known)
        check_weights(planned_network(config, shape_of(space, shape), known, image.path), image)
    network = build_network(config, shape_of(space, shape), known)
    if image:
        inflate(network, image) if config.inflate.weights and not resume else None
        freeze(network, image) if config.inflate.freeze else None
    model = Model(network, build_diffusion(config), space, config, shape, known, Path("the run"))
    resolved = plain({"shape": shape, "known": known, "space": space.facts(), **asdict(config)})
    if record is None:
        if init_from is not None:
            load_into(network, *read_weights(init_from))
        copies = [part.copy_to for part in (image, autoencoder) if part]
        record = create_record("task5", config.run, asdict(config), *copies)
        record.config = resolved
        return model, data, record, None
    check_same(facts["config"], resolved, asdict(Config()))
    record.config = resolved
    record.go_on(facts["step"])
    return model, data, record, checkpoint


def run() -> int:
    """Train; the exit status is 128 + the signal's number where one stopped it."""
    asked = OPTIONS.parse()
    model, data, record, checkpoint = prepare(asked.config, asked.resume, asked.init_from)

    from shared.training.loop import Interrupted

    say(f"run {record.folder}", sys.stderr)
    try:
        with record.closing():
            fit(model, data, record, checkpoint)
    except Interrupted as stopped:
        again = f"{PROGRAM} --resume {shlex.quote(str(record.folder))}" + (" --trust true" if asked.trust else "")
        say(f"{stopped} and saved; go on with: {again}", sys.stderr)
        return 128 + stopped.number
    say(f"trained: {record.folder}")
    say(f"pictures: {record.folder / 'samples'}")
    return 0


def main() -> None:
    """The command `task5-train`."""
    sys.exit(command(run))


if __name__ == "__main__":
    main()
