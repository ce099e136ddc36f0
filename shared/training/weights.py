"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

The weights to sample from: of a run's newest checkpoint, or of a file.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shared.errors import UserError
from shared.training.checkpoint import Checkpoints, read_facts, read_tensors, write_checkpoint
from shared.training.state import prefixed


def newest(source: Path) -> Path:
    """The newest checkpoint of a run's folder; a file is itself. Raises UserError where there is none."""
    return Checkpoints(source / "checkpoints").latest() if source.is_dir() else source


def read_weights(source: Path, weights: str = "ema") -> tuple[dict[str, Tensor], Path]:
    """One set of weights of a run's newest checkpoint, or of a file; and that file's path.

    Raises:
        UserError: there is no checkpoint, or it lacks these weights.
    """
    path = newest(source)
    state = read_tensors(path, weights)
    if read_facts(path).get("averages", {}).get(weights) == 0:
        raise UserError(
            f"{path}: averages.swa_start was not reached yet, so that its {weights} weights are none: choose others"
        )
    if not state:
        raise UserError(f"{path} holds no {weights} weights: choose others with --weights")
    return {name: tensor.float() for name, tensor in state.items()}, path


def write_small(source: Path, file: Path) -> dict[str, Any]:
    """Write a run's averaged weights in bfloat16, with its config and no optimizer: for sampling only.

    Args:
        source: a run's folder, or a checkpoint.
        file: the safetensors file to write, whole or not at all.

    Returns:
        What the file says of itself: step and config.

    Raises:
        UserError: there is no checkpoint.
    """
    state, path = read_weights(source, "ema")
    facts = {name: value for name, value in read_facts(path).items() if name in ("step", "config")}
    write_checkpoint(file, prefixed("ema", {name: tensor.to(torch.bfloat16) for name, tensor in state.items()}), facts)
    return facts
