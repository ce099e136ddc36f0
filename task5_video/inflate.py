"""From a trained image model to a video model: the same network with layers along time, which add nothing at first.

An image model is a run or a checkpoint of any of the stages 1 to 4; what it is, its file says. It comes as a path, and
never as an import.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from shared.blocks.config import UNetConfig
from shared.blocks.dit_config import DiTConfig
from shared.blocks.resnet import zeroed
from shared.cli import stored_config
from shared.conditions.config import ConditionConfig
from shared.conditions.ways import Vanilla
from shared.errors import UserError
from shared.schedulers.config import DiffusionConfig, NoiseConfig
from shared.text.config import TextConfig
from shared.training.checkpoint import read_facts, write_checkpoint
from shared.training.state import check_alike, prefixed
from shared.training.weights import read_weights
from task5_video.config import Config
from task5_video.network import VideoUNet
from task5_video.temporal import TemporalAttention, TemporalConvolution
from task5_video.video_dit import VideoDiT

COPY = "image.safetensors"  # in the run's folder: it depends on no other


@dataclass
class ImageModel:
    """What an image model's checkpoint says, and its averaged weights."""

    state: dict[str, Tensor]
    """by the names that they have within a video network's `image`"""
    path: Path
    network: UNetConfig | DiTConfig
    condition: ConditionConfig | None
    """None where it is told nothing, and what the video model is told is for its config to say"""
    text: TextConfig
    schedule: NoiseConfig
    predict: str
    shape: tuple[int, int, int]
    known: dict[str, Any]
    space: dict[str, Any] | None
    facts: dict[str, Any]

    def copy_to(self, folder: Path) -> None:
        """Write the copy that a run keeps of it. Raises OSError if it cannot."""
        state, _ = read_weights(self.path)
        write_checkpoint(folder / COPY, prefixed("ema", state), self.facts)


def of_which_stage(saved: Any) -> int:
    """1, 2, 3 or 4: the stage of an image model's config; 0 if it is none."""
    if not isinstance(saved, dict) or not isinstance(saved.get("network"), dict):
        return 0
    if "conditioning" in saved["network"]:
        return 4
    if isinstance(saved.get("condition"), dict):
        return 3
    return 2 if isinstance(saved.get("space"), dict) else 1


def told_by(saved: dict[str, Any], stage: int) -> ConditionConfig | None:
    """The condition of an image model's config; None where it is told nothing."""
    if stage < 3:
        return None
    about = dict(saved["condition"])
    if stage == 4:  # it says only what is told: how that enters is the transformer's
        about |= {name: "token" if about.get(name) else "none" for name in ("label", "text")}
    condition = stored_config(ConditionConfig, about, f"stage {stage}")
    return condition if condition.told else None


def read_image(source: str | Path) -> ImageModel:
    """An image model from its run, or from a file.

    Raises:
        UserError: there is no such file, or it is not of the stages 1 to 4; or it is of a kind that cannot be inflated.
    """
    state, path = read_weights(Path(source))
    facts = {name: value for name, value in read_facts(path).items() if name in ("step", "config")}
    saved, no_image = facts.get("config"), f"{path} is no image model of stages 1 to 4: give a run of task3-train, say"
    if not (stage := of_which_stage(saved)):
        raise UserError(no_image)
    if saved.get("own_network"):
        raise UserError(f"{path} has a network of its own, which is not known how to inflate: train a U-Net or a DiT")
    name = f"stage {stage}"
    condition = told_by(saved, stage)
    if condition is not None and condition.image != "none":
        raise UserError(f"{path} is told an image beside its own, which no clip has: give another image model")
    try:
        channels, height, width = map(int, saved["shape"])
        known = saved.get("known") or {"classes": [], "attributes": [], "text": None, "image": None}
        space = saved.get("space")
        if not isinstance(known, dict) or space is not None and not (space and isinstance(space, dict)):
            raise TypeError("what is known, or the space of its latents, is no table of it")
        return ImageModel(
            {("unet." if stage < 3 else "") + key: value for key, value in state.items()},
            path,
            stored_config(DiTConfig if stage == 4 else UNetConfig, saved["network"], name),
            condition,
            stored_config(TextConfig, saved.get("text") or {}, name),
            stored_config(NoiseConfig, saved["schedule"], name),
            stored_config(DiffusionConfig, saved["diffusion"], name).predict,
            (channels, height, width),
            known,
            space,
            facts,
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        raise UserError(no_image) from None


def as_image(config: Config, image: ImageModel) -> Config:
    """The config of a video model that is made from an image model: what that one is, it is. It may be told more.

    Raises:
        UserError: another network, schedule or prediction is asked for; or it is to be told more in a way that would
            change what the image model does.
    """
    dit = isinstance(image.network, DiTConfig)
    default = Config()
    for name, mine, theirs, usual in (
        ("diffusion.predict", config.diffusion.predict, image.predict, default.diffusion.predict),
        ("schedule", config.schedule, image.schedule, default.schedule),
        ("network", config.network, "dit" if dit else "unet", default.network),
    ):
        if mine not in (theirs, usual):
            there = getattr(theirs, "name", theirs)
            raise UserError(f"{image.path} has {name} {there}, and so has what is made from it: leave {name} out")
    there = image.condition.told if image.condition is not None else {}
    more = {name: way for name, way in config.condition.told.items() if name not in there}
    if more and not dit:
        check_more(more, there, image)
    condition = replace(  # how much is dropped in training is the video's
        image.condition or config.condition,
        **more,
        dropout=config.condition.dropout,
        together=config.condition.together,
        leave_open=config.condition.leave_open,
    )
    return replace(
        config,
        network="dit" if dit else "unet",
        **{"dit" if dit else "unet": image.network},
        condition=condition,
        text=image.text if "text" in there else config.text,
        schedule=image.schedule,
        diffusion=replace(config.diffusion, predict=image.predict),
    )


def check_more(more: dict[str, str], there: dict[str, str], image: ImageModel) -> None:
    """Raise UserError unless what a U-Net is to be told besides is added to the time, and comes after what it was told:
    of all ways that alone needs no new part within the network."""
    order = ("label", "attributes", "text", "image")
    last = max((order.index(name) for name in there), default=-1)
    for name, way in more.items():
        if way != "vanilla":
            raise UserError(f"{image.path} is told no {name}, and can learn to be only by the way vanilla: not {way}")
        if order.index(name) < last:
            raise UserError(f"{image.path} is told {' and '.join(there)}: it cannot be told a {name} besides")


def check_fits(image: ImageModel, shape: tuple[int, int, int, int], known: dict[str, Any]) -> None:
    """Raise UserError unless an image model is of frames like those of clips (C, F, H, W), told the same things."""
    frame = (shape[0], *shape[2:])
    if image.shape != frame:
        there, here = ("×".join(map(str, sides)) for sides in (image.shape, frame))
        raise UserError(
            f"{image.path} is a model of images {there}, and the frames are {here}: train one on such images"
        )
    told = image.condition.told if image.condition is not None else {}
    for what, name in (("label", "classes"), ("attributes", "attributes")):
        if what in told and image.known.get(name) != known[name]:
            raise UserError(f"{image.path} knows other {name} than the clips have: train an image model on these")


def added(network: VideoUNet | VideoDiT, image: ImageModel) -> set[str]:
    """The names within `network.image` that an image model does not have: layers along time, and what it was not
    told."""
    own = {
        f"{name}.{key}"
        for name, module in network.image.named_modules()
        if isinstance(module, TemporalConvolution | TemporalAttention)
        for key in module.state_dict()
    }
    return own | {f"{name}.{key}" for name, part in told_besides(network, image).items() for key in part.state_dict()}


def told_besides(network: VideoUNet | VideoDiT, image: ImageModel) -> dict[str, nn.Module]:
    """What reads that which the image model was not told, by its name within `network.image`."""
    there = image.condition.told if image.condition is not None else {}
    kind = "said" if isinstance(network, VideoDiT) else "conditions"
    return {f"{kind}.{i}": part for i, part in enumerate(network.said) if part.keys[0] not in there}


def check_weights(network: VideoUNet | VideoDiT, image: ImageModel) -> None:
    """Raise UserError unless an image model's weights are those of the image network within a video network."""
    here, new = network.image.state_dict(), added(network, image)
    check_alike(image.path, "network", image.state, {name: here[name] for name in here.keys() - new})


def inflate(network: VideoUNet | VideoDiT, image: ImageModel) -> None:
    """Put an image model's weights into a video network. What is added for time stays as it is; what it is told besides
    adds nothing at first.

    Raises:
        UserError: the weights are of another network.
    """
    check_weights(network, image)
    here = network.image.state_dict()
    network.image.load_state_dict({name: here[name] for name in added(network, image)} | image.state)
    for part in told_besides(network, image).values():
        if isinstance(part, Vanilla):
            zeroed(part.project[-1])


def freeze(network: VideoUNet | VideoDiT, image: ImageModel) -> None:
    """Leave what came from an image model as it is: only what is added takes a gradient.

    Raises:
        UserError: nothing is added.
    """
    new = added(network, image)
    for name, parameter in network.image.named_parameters():
        parameter.requires_grad_(name in new)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise UserError(
            "inflate.freeze leaves nothing to train: nothing is added to the image model; leave it out, or make "
            "temporal.attention temporal"
        )
