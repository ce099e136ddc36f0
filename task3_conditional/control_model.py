"""ControlNets with their base: loaded from runs or files, and put together as a model that is sampled like any."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from shared.conditions.network import ConditionalUNet
from shared.conditions.said import Cond
from shared.errors import UserError
from shared.training.checkpoint import digest, load_into, read_facts, write_checkpoint
from shared.training.state import prefixed
from shared.training.weights import read_weights
from task3_conditional.control_config import ControlTraining, control_config
from task3_conditional.controlnet import Controlled, ControlNet
from task3_conditional.hints import channels_of
from task3_conditional.model import COMMITTED, COMMITTED_TEXT, Model, load

COPY = "base.safetensors"  # in the run's folder: it depends on no other


@dataclass
class Control:
    """A trained ControlNet, and the model that it controls."""

    network: ControlNet
    config: ControlTraining
    base: Model
    source: Path


def digest_of(network: ConditionalUNet) -> str:
    """128 bits that tell one network's weights from another's."""
    state = network.state_dict()
    return digest(json.dumps({name: digest(state[name].float()) for name in sorted(state)}))


def copy_base(base: Model, folder: Path) -> None:
    """Write the copy of the base that a run keeps. Raises OSError if it cannot."""
    facts = {name: value for name, value in read_facts(base.source).items() if name in ("step", "config")}
    write_checkpoint(folder / COPY, prefixed("ema", base.network.state_dict()), facts)


def named_base(name: str | None) -> Path:
    """The base that a config names: a run's folder or a file."""
    return {None: COMMITTED, "text": COMMITTED_TEXT}.get(name) or Path(name)


def base_of(path: Path, name: str | None) -> Path:
    """Where the base of a ControlNet's checkpoint lies: beside it or in its run, else where its config says.

    Raises:
        UserError: it is at neither place.
    """
    for place in (path.parent / COPY, path.parent.parent / COPY, named_base(name)):
        if place.exists():
            return place
    raise UserError(f"{path} controls {name}, which is not here, nor is {COPY} with it: name its base by --run")


def load_control(
    source: str | Path, base: Model | None = None, *, weights: str = "ema", device: str = "cpu"
) -> Control:
    """Load a trained ControlNet.

    Args:
        source: a run's folder, or a checkpoint file.
        base: what it controls; where not given, it is looked for with it.
        weights: of the ControlNet: "ema", "swa", or "model" for the raw ones; of its base they are always averaged.
        device: where to put it.

    Raises:
        UserError: there is no such file, it is not the checkpoint of a ControlNet, or it is one of another base.
    """
    state, path = read_weights(Path(source), weights)
    config, shape, wanted = control_config(read_facts(path).get("config", {}))
    if base is None:
        base = load(base_of(path, config.base), device=device)
    if base.shape != shape:
        there, here = ("×".join(map(str, sides)) for sides in (shape, base.shape))
        raise UserError(f"{path} controls a model of images {there}, and {base.source} is of {here}: take its own base")
    if (found := digest_of(base.network)) != wanted:
        raise UserError(
            f"{path} controls another model than {base.source}: its base has weights of digest {wanted[:12]}, not "
            f"{found[:12]}; take that one, which lies in its run as {COPY}"
        )
    network = ControlNet(base.network, channels_of(config.hint, base.shape[0]))
    load_into(network, state, path)
    return Control(network.eval().requires_grad_(False).to(device), config, base, path)


def keys_for(kinds: Sequence[str]) -> list[str]:
    """Where in cond the hints of these kinds are: "hint" of one alone, such as "hint.edges" of several.

    Raises:
        UserError: a kind is there twice.
    """
    if len(set(kinds)) < len(kinds):
        raise UserError(f"there are two controls of one kind ({', '.join(kinds)}): give one of each")
    return ["hint"] if len(kinds) == 1 else [f"hint.{kind}" for kind in kinds]


def controlled(controls: Sequence[Control], weights: Sequence[float] | None = None) -> Model:
    """The base under its ControlNets, as a model: guided and sampled as the first of them was meant to be.

    Args:
        controls: of one base.
        weights: of what each adds; 1 where not given. One of 0 is not there, bit for bit.

    Raises:
        UserError: they are of several bases, two are of one kind, or the weights are not as many finite numbers.
    """
    first, base = controls[0], controls[0].base
    for other in controls[1:]:
        if digest_of(other.base.network) != digest_of(base.network):
            raise UserError(f"{other.source} and {first.source} control two models: give controls of one")
    keys = keys_for([control.config.hint for control in controls])
    try:
        network = Controlled(base.network, [c.network for c in controls], keys, weights or [1.0] * len(controls))
    except ValueError as error:
        raise UserError(str(error)) from None
    config = replace(base.config, guidance=first.config.guidance, sampling=first.config.sampling)
    return replace(base, network=network, config=config)


def hinted(controls: Sequence[Control], hints: Mapping[str, Tensor], cond: Cond) -> Cond:
    """The condition of n samples, and the hints.

    Args:
        controls: as `controlled` was given them.
        hints: by kind, (C', H, W) in [-1, 1] for all samples, or (n, C', H, W); see `hints.py`.
        cond: of n samples.

    Raises:
        UserError: a control was trained on another kind of hint, or a hint is of another size.
    """
    n = len(next(iter(cond.values())))
    kinds = [control.config.hint for control in controls]
    if strange := sorted(hints.keys() - set(kinds)):
        raise UserError(f"{controls[0].source} was trained on {', '.join(kinds)}, not on {', '.join(strange)}")
    told = dict(cond)
    for control, kind, key in zip(controls, kinds, keys_for(kinds), strict=True):
        if kind not in hints:
            raise UserError(f"{control.source} is told {kind}, and no such hint is given")
        shape = (control.network.channels, *control.base.shape[1:])
        hint = hints[kind]
        if tuple(hint.shape) not in (shape, (n, *shape)):
            there, here = ("×".join(map(str, sides)) for sides in (hint.shape, shape))
            raise UserError(f"the hint of {kind} is {there}, and {control.source} is told hints {here}")
        told[key] = hint.expand(n, *shape).clone()
    return told
