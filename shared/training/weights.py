"""Introduced in task 1; used by tasks 1, 2.

The weights to sample from: of a run's newest checkpoint, or of a file.
"""

from pathlib import Path

from torch import Tensor

from shared.errors import UserError
from shared.training.checkpoint import Checkpoints, read_facts, read_tensors


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
