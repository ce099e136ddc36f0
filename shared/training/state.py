"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

The state of networks and optimizers as plain names of tensors, for a checkpoint, and back.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from shared.errors import UserError
from shared.training.processes import is_first
from shared.training.shards import shared_like, whole

FLAT = StateDictOptions(flatten_optimizer_state_dict=True)  # plain keys to tensors and numbers


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state with a prefix before each name; copies, as safetensors refuses tensors that share memory."""
    return {f"{prefix}.{name}": value.detach().cpu().clone().contiguous() for name, value in state.items()}


def gathered(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same of a network or optimizer at training: put together of the processes' shares, for the first one alone.

    All processes must call it, and those after the first get nothing: together they would fill a machine's memory.
    """
    tensors = {}
    for name, value in state.items():
        value = whole(value.detach())
        if is_first():
            tensors |= prefixed(prefix, {name: value})
    return tensors


def check_alike(path: Path, what: str, there: dict[str, Tensor], here: dict[str, Tensor]) -> None:
    """Raise UserError if a checkpoint's tensors have other names or shapes than those that they are to replace."""
    for name in sorted(there.keys() | here.keys()):
        a, b = (str(tuple(state[name].shape)) if name in state else "missing" for state in (there, here))
        if a != b:
            raise UserError(f"{path} is of another {what}: {name} is {a} there and {b} here")


def load_into(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Put a checkpoint's tensors into a network.

    Raises:
        UserError: names or shapes differ: the checkpoint is of another network.
    """
    here = model.state_dict()
    check_alike(path, "network", state, here)
    model.load_state_dict({name: shared_like(value, here[name]) for name, value in state.items()})


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Its tensors and its numbers, by plain names; for an optimizer without any state, those of a step of length 0."""
    fresh = not optimizer.state
    flat = get_optimizer_state_dict(model, optimizer, options=FLAT)
    if fresh:
        optimizer.state.clear()  # torch has made that step, and it would count as the first
    state = {name: value for name, value in flat.items() if isinstance(value, Tensor)}
    return state, {name: value for name, value in flat.items() if name not in state}


def load_optimizer(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    there: dict[str, Tensor],
    numbers: dict[str, Any],
    path: Path,
) -> None:
    """Put a checkpoint's state into a new optimizer. A parameter that no gradient has reached yet has none.

    Raises:
        UserError: it is that of another optimizer.
    """
    here, own = optimizer_state(model, optimizer)
    reached = {name.rpartition(".")[0] for name in there}
    blank = {name: value for name, value in here.items() if name.rpartition(".")[0] not in reached}
    check_alike(path, "optimizer", there | blank, here)
    for name, value in json.loads(json.dumps(own)).items():
        if numbers.get(name, value) != value and not name.endswith(".lr"):  # the loop sets the rate at each step
            raise UserError(f"{path} is of another optimizer: {name} is {numbers[name]} there and {value} here")
    there = {name: shared_like(value, here[name]) for name, value in there.items()}
    set_optimizer_state_dict(model, optimizer, own | blank | there, options=FLAT)
    for name, parameter in model.named_parameters():
        if f"state.{name}" not in reached:
            optimizer.state.pop(parameter, None)
