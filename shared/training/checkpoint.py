"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

A checkpoint is one safetensors file: tensors under `model.`, `ema.` and other averages' names, and `optimizer.`, and in
its header, as JSON, the step, the config and whatever else is a number. One file means one rename, so a save can be
killed anywhere. Nothing in it is ever unpickled. A committed model is the same file with fewer tensors, and so is a
snapshot of averages.

safetensors does not see a bit that a disk or a copy has turned. The header therefore holds a digest of each tensor, and
one of the JSON, and what is read is compared with them.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from shared.errors import UserError
from shared.files import partial, write_whole
from shared.training.averages import Averages
from shared.training.processes import first
from shared.training.state import gathered, load_into, load_optimizer, optimizer_state

FORMAT = 2
NO_CHECKPOINT = (SafetensorError, KeyError, ValueError, TypeError, OSError, RecursionError, MemoryError)


class Savable(Protocol):
    """A network at training, with all that its next step depends on."""

    name: str  # of every part but the first, which has none
    model: nn.Module
    averages: Averages
    optimizer: torch.optim.Optimizer
    memory: nn.Module | None  # what the loss keeps from step to step


def digest(content: Tensor | str) -> str:
    """128 bits, as hexadecimal digits; of a tensor, over its type and shape as well."""
    if isinstance(content, str):
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()
    code = hashlib.blake2b(f"{content.dtype} {tuple(content.shape)} ".encode(), digest_size=16)
    content = content.detach().cpu().contiguous().reshape(-1)
    code.update(content.view(torch.uint8).numpy())  # as bytes: numpy has no bfloat16
    return code.hexdigest()


def write_checkpoint(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write tensors and JSON facts as one file, whole or not at all."""
    facts = {"format": FORMAT, **facts, "digests": {name: digest(tensor) for name, tensor in tensors.items()}}
    facts["digest"] = digest(json.dumps(facts))
    # Not save_file: it writes to a temporary file with a name of its own, which a kill would leave behind. And one
    # entry, as safetensors writes several in any order: the same run makes the same file.
    content = save(tensors, metadata={"checkpoint": json.dumps(facts)})
    write_whole(path, lambda temporary: temporary.write_bytes(content))


def unusable(path: Path, what: str = "is not a checkpoint of this project, or is damaged") -> UserError:
    """What is wrong with a checkpoint, and what to do."""
    here = Checkpoints(path.parent).all()
    advice = "give another, written by a train command"
    if path in here[1:]:
        advice = f"remove it, and --resume goes on from {here[here.index(path) - 1].name}"
    elif path in here:
        advice = "there is no earlier one beside it: give another, or train again"
    return UserError(f"{path} {what}; {advice}")


@contextlib.contextmanager
def reading(path: Path) -> Iterator[Any]:
    """The open file; whatever is wrong with it becomes a UserError."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except NO_CHECKPOINT:
        raise unusable(path) from None


def read_facts(path: Path) -> dict[str, Any]:
    """The JSON facts of a checkpoint.

    Raises:
        UserError: there is no such file, it is not a checkpoint of this project, or its facts are damaged.
    """
    with reading(path) as file:
        facts = json.loads((file.metadata() or {})["checkpoint"])
        if facts["format"] != FORMAT:
            version = f"has checkpoint format {str(facts['format'])[:9]}; this version reads {FORMAT}"
            raise UserError(f"{path} {version}: use the version of this project that wrote it")
        if facts.pop("digest") != digest(json.dumps(facts)):
            raise unusable(path)
        if not isinstance(facts["digests"], dict) or not isinstance(facts.get("averages", {}), dict):
            raise unusable(path)
    return facts


def is_count(n: Any) -> bool:
    """Whether a value from JSON counts steps."""
    return type(n) is int and 0 <= n < 2**63


def are_of_part(facts: Any) -> bool:
    """Whether facts hold what a part at training has besides tensors."""
    averages, optimizer = (facts.get(name) if isinstance(facts, dict) else None for name in ("averages", "optimizer"))
    return isinstance(averages, dict) and isinstance(optimizer, dict) and all(map(is_count, averages.values()))


def training_facts(path: Path) -> dict[str, Any]:
    """The facts of a checkpoint that training can go on from: step, config, averages, optimizer.

    Raises:
        UserError: as for `read_facts`; or it is a model for sampling only.
    """
    facts = read_facts(path)
    if "optimizer" not in facts:
        raise UserError(f"{path} holds a model for sampling only: training goes on with --init-from, not --resume")
    if not are_of_part(facts) or not is_count(facts.get("step")) or not isinstance(facts.get("config"), dict):
        raise unusable(path)
    return facts


def read_tensors(path: Path, prefix: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint whose names begin with `prefix.`, without that prefix; nothing else is read.

    Raises:
        UserError: as for `read_facts`; or a tensor is not the one that was saved.
    """
    digests, state = read_facts(path)["digests"], {}
    with reading(path) as file:
        there = set(file.keys())
        for name in sorted(there | digests.keys()):
            if name.startswith(f"{prefix}."):
                tensor = file.get_tensor(name) if name in there else None
                if tensor is None or digest(tensor) != digests.get(name):
                    raise unusable(path, f"is damaged: {name} is not what was saved")
                state[name.removeprefix(f"{prefix}.")] = tensor
    return state


class Checkpoints:
    """The checkpoints of one run: `step-00001000.safetensors` and so on in a folder."""

    def __init__(self, folder: Path, keep: int | None = 2):
        """In `folder`, which is made; all but the newest `keep` are deleted as new ones come; None keeps all."""
        self.folder, self.keep = folder, keep

    def all(self) -> list[Path]:
        """Every checkpoint, oldest first. Each of them is whole."""
        paths = [path for path in self.folder.glob("step-*.safetensors") if path.stem[5:].isdecimal()]
        return sorted(paths, key=lambda path: int(path.stem[5:]))

    def latest(self) -> Path:
        """The newest checkpoint.

        Raises:
            UserError: there is none.
        """
        if not self.all():
            raise UserError(f"there is no checkpoint in {self.folder}: nothing was saved before the run stopped")
        return self.all()[-1]

    def save(self, n: int, parts: Sequence[Savable], config: dict[str, Any]) -> Path:
        """Save everything that step n + 1 depends on; then delete what is older than the newest `keep`.

        All processes must call it; the first one writes, while the others wait.

        Raises:
            OSError: it could not be written; all earlier checkpoints are still there.
        """
        tensors, facts = {}, {"step": n, "config": config}
        for part in parts:
            prefix, own = f"{part.name}." if part.name else "", {}
            networks = {"model": part.model, **{name: part.averages.network(name) for name in part.averages.models}}
            if part.memory is not None:
                networks["memory"] = part.memory
            for name, network in networks.items():
                tensors |= gathered(f"{prefix}{name}", network.state_dict())
            state, numbers = optimizer_state(part.model, part.optimizer)
            if part.optimizer.state:  # a part that has not begun has none
                tensors |= gathered(f"{prefix}optimizer", state)
            own = {"averages": part.averages.counts(), "optimizer": numbers}
            facts |= {part.name: own} if part.name else own
        return self._write(n, tensors, facts)

    def save_profiles(self, n: int, part: Savable, config: dict[str, Any]) -> Path:
        """Save a snapshot of a part's power-function averages after step n: these alone, for `posthoc.py`.

        In float32, as narrow widths are differences of snapshots with factors of 10 and more: what float16 rounds off
        would then be larger than what distinguishes two averages.

        Raises:
            OSError: it could not be written; whatever was there still is.
        """
        tensors, counts = {}, part.averages.counts()
        for name in part.averages.profiles:
            tensors |= gathered(name, part.averages.network(name).state_dict())
        counts = {name: counts[name] for name in part.averages.profiles}
        return self._write(n, tensors, {"step": n, "config": config, "averages": counts})

    def _write(self, n: int, tensors: dict[str, Tensor], facts: dict[str, Any]) -> Path:
        path = self.folder / f"step-{n:08d}.safetensors"
        first(lambda: self._write_first(path, tensors, facts))
        return path

    def _write_first(self, path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        self.folder.mkdir(exist_ok=True)  # without parents: a run that was removed does not come back as a ghost
        for leftover in self.folder.glob(partial(Path("*")).name):  # of a save that was killed
            leftover.unlink()
        write_checkpoint(path, tensors, facts)
        for old in self.all()[: -max(self.keep, 1)] if self.keep is not None else []:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(old)


def restore(path: Path, parts: Sequence[Savable]) -> int:
    """Bring models, averages and optimizers to where a checkpoint was saved. Returns its step.

    Raises:
        UserError: it is damaged, holds no optimizer state (a model for sampling only), or is of another network.
    """
    facts = training_facts(path)
    for part in parts:
        prefix, own = (f"{part.name}.", facts.get(part.name)) if part.name else ("", facts)
        if not are_of_part(own) or part.averages.models.keys() - own["averages"].keys():
            raise unusable(path)
        load_into(part.model, read_tensors(path, f"{prefix}model"), path)
        for name in part.averages.models:
            load_into(part.averages.network(name), read_tensors(path, f"{prefix}{name}"), path)
        part.averages.restore_counts(own["averages"])
        if part.memory is not None:
            load_into(part.memory, read_tensors(path, f"{prefix}memory"), path)
        load_optimizer(part.model, part.optimizer, read_tensors(path, f"{prefix}optimizer"), own["optimizer"], path)
    return facts["step"]
