"""Introduced in task 1; used by task 1.

A checkpoint is one safetensors file: tensors under `model.`, `ema.`, `swa.` and `optimizer.`, and in its header, as
JSON, the step, the config and whatever else is a number. One file means one rename, so a save can be killed anywhere.
Nothing in it is ever unpickled. A committed model is the same file with fewer tensors.
"""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from shared.errors import UserError
from shared.files import partial, write_whole
from shared.training.averages import Averages

FORMAT = 1
FLAT = StateDictOptions(flatten_optimizer_state_dict=True)  # plain keys to tensors and numbers


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state with a prefix before each name; copies, as safetensors refuses tensors that share memory."""
    return {f"{prefix}.{name}": value.detach().cpu().clone().contiguous() for name, value in state.items()}


def write_checkpoint(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write tensors and JSON facts as one file, whole or not at all."""
    header = {"checkpoint": json.dumps({"format": FORMAT, **facts})}
    # Not save_file: it writes to a temporary file with a name of its own, which a kill would leave behind.
    write_whole(path, lambda temporary: temporary.write_bytes(save(tensors, metadata=header)))


def read_facts(path: Path) -> dict[str, Any]:
    """The JSON facts of a checkpoint.

    Raises:
        UserError: there is no such file, or it is not a checkpoint of this project.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["checkpoint"])
            if facts["format"] != FORMAT:
                raise UserError(f"{path} has checkpoint format {facts['format']}; this version reads {FORMAT}")
            return facts
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except (SafetensorError, KeyError, ValueError, TypeError, OSError):
        raise UserError(
            f"{path} is not a checkpoint of this project, or is damaged; give one written by a train command"
        ) from None


def read_tensors(path: Path, prefix: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint whose names begin with `prefix.`, without that prefix; nothing else is read."""
    read_facts(path)
    with safe_open(path, framework="pt") as file:
        return {
            key.removeprefix(f"{prefix}."): file.get_tensor(key) for key in file.keys() if key.startswith(f"{prefix}.")
        }


def load_into(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Put a checkpoint's tensors into a network.

    Raises:
        UserError: names or shapes differ: the checkpoint is of another network.
    """
    own = model.state_dict()
    for name in sorted(own.keys() | state.keys()):
        there, here = state.get(name), own.get(name)
        if there is None or here is None or there.shape != here.shape:
            shapes = [str(tuple(x.shape)) if x is not None else "missing" for x in (there, here)]
            raise UserError(f"{path} is of another network: {name} is {shapes[0]} there and {shapes[1]} here")
    model.load_state_dict(state)


class Checkpoints:
    """The checkpoints of one run: `step-00001000.safetensors` and so on in a folder."""

    def __init__(self, folder: Path, keep: int = 2):
        """In `folder`, which is made; all but the newest `keep` are deleted as new ones come."""
        self.folder, self.keep = folder, max(keep, 1)

    def all(self) -> list[Path]:
        """Every checkpoint, oldest first. Each of them is whole."""
        return sorted(self.folder.glob("step-*.safetensors"))

    def latest(self) -> Path:
        """The newest checkpoint.

        Raises:
            UserError: there is none.
        """
        if not self.all():
            raise UserError(f"there is no checkpoint in {self.folder}: nothing was saved before the run stopped")
        return self.all()[-1]

    def save(
        self,
        n: int,
        model: nn.Module,
        averages: Averages,
        optimizer: torch.optim.Optimizer,
        config: dict[str, Any],
    ) -> Path:
        """Save everything that step n + 1 depends on; then delete what is older than the newest `keep`.

        Raises:
            OSError: it could not be written; all earlier checkpoints are still there.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for leftover in self.folder.glob(partial(Path("*")).name):  # of a save that was killed
            leftover.unlink()
        tensors = prefixed("model", model.state_dict())
        for name in averages.models:
            tensors |= prefixed(name, averages.network(name).state_dict())
        flat = get_optimizer_state_dict(model, optimizer, options=FLAT)
        tensors |= prefixed("optimizer", {k: v for k, v in flat.items() if isinstance(v, Tensor)})
        numbers = {k: v for k, v in flat.items() if not isinstance(v, Tensor)}
        facts = {"step": n, "config": config, "averages": averages.counts(), "optimizer": numbers}
        path = self.folder / f"step-{n:08d}.safetensors"
        write_checkpoint(path, tensors, facts)
        for old in self.all()[: -self.keep]:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(old)
        return path


def restore(path: Path, model: nn.Module, averages: Averages, optimizer: torch.optim.Optimizer) -> int:
    """Bring model, averages and optimizer to where a checkpoint was saved. Returns its step.

    Raises:
        UserError: it holds no optimizer state (a model for sampling only), or is of another network.
    """
    facts = read_facts(path)
    if "optimizer" not in facts:
        raise UserError(f"{path} holds a model for sampling only: training goes on with --init-from, not --resume")
    load_into(model, read_tensors(path, "model"), path)
    for name in averages.models:
        load_into(averages.network(name), read_tensors(path, name), path)
    averages.restore_counts(facts["averages"])
    flat = {**read_tensors(path, "optimizer"), **facts["optimizer"]}
    set_optimizer_state_dict(model, optimizer, flat, options=FLAT)
    return facts["step"]
