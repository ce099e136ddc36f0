"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

The weights to sample from: of a run's newest checkpoint, or of a file.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shared.errors import UserError
from shared.training.checkpoint import Checkpoints, read_facts, read_tensors, write_checkpoint
from shared.training.config import STORED
from shared.training.posthoc import fitted, fitting, kept_by, reconstruct, width_named
from shared.training.state import prefixed


def newest(source: Path) -> Path:
    """The newest checkpoint of a run's folder; a file is itself. Raises UserError where there is none."""
    return Checkpoints(source / "checkpoints").latest() if source.is_dir() else source


def read_weights(source: Path, weights: str = "ema") -> tuple[dict[str, Tensor], Path]:
    """One set of weights of a run's newest checkpoint, or of a file; and that file's path.

    Args:
        source: a run's folder, a checkpoint, or a snapshot of profiles.
        weights: one of `available`; or "post-hoc-0.12", an average of any width made of snapshots.

    Raises:
        UserError: there is no checkpoint, it lacks these weights, or they cannot be made of what there is.
    """
    path = newest(source)
    if (width := width_named(weights)) is not None:
        return reconstruct(fitted(path, width)), path
    if read_facts(path).get("averages", {}).get(weights) == 0:
        raise UserError(
            f"{path}: averages.swa_start was not reached yet, so that its {weights} weights are none: choose others"
        )
    if weights not in (there := available(path)):
        raise UserError(f"{path} holds no {weights} weights, only {', '.join(there)}: choose with --weights")
    return {name: tensor.float() for name, tensor in read_tensors(path, weights).items()}, path


def available(source: Path) -> list[str]:
    """The names of all weights that a run's newest checkpoint, or a file, holds: the raw ones, then averages.

    Of a run with profiles there are besides those of any width that `widths` names.

    Raises:
        UserError: there is no checkpoint.
    """
    facts = read_facts(newest(source))
    found = {match[0] for name in facts["digests"] if (match := STORED.match(name))}
    empty = {name for name, count in facts.get("averages", {}).items() if count == 0}
    kinds = ("model", "ema", "swa", "profile")
    return sorted(found - empty, key=lambda name: (kinds.index(name.partition("-")[0]), len(name) > 3, name))


def widths(source: Path) -> list[float]:
    """The widths, in steps of 0.005, of which a run or file can give post-hoc averages; none where it has no profiles.

    Raises:
        UserError: there is no checkpoint, or a snapshot is damaged.
    """
    path = newest(source)
    return fitting(kept_by(path)) if any(name.startswith("profile-") for name in available(path)) else []


def how_good(source: Path, weights: str) -> str | None:
    """One line on how near made-up weights such as "post-hoc-0.12" come to kept ones; None of weights that were kept.

    Raises:
        UserError: as for `read_weights`.
    """
    width = width_named(weights)
    return None if width is None else fitted(newest(source), width).told()


def write_small(source: Path, file: Path, weights: str = "ema") -> dict[str, Any]:
    """Write one set of a run's weights in bfloat16, with its config and no optimizer: for sampling only.

    The file's one set is called ema, as what is sampled from where nothing is said, whichever it was in the run.

    Args:
        source: a run's folder, or a checkpoint.
        file: the safetensors file to write, whole or not at all.
        weights: as for `read_weights`: averaged ones, raw ones, or an average made of snapshots.

    Returns:
        What the file says of itself: step, config, and which weights these were.

    Raises:
        UserError: as for `read_weights`.
    """
    state, path = read_weights(source, weights)
    kept = {name: value for name, value in read_facts(path).items() if name in ("step", "config", "weights")}
    facts = {"weights": weights, **kept}  # what such a file says of its own ones holds for a copy of it
    write_checkpoint(file, prefixed("ema", {name: tensor.to(torch.bfloat16) for name, tensor in state.items()}), facts)
    return facts
