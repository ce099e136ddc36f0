"""Introduced in task 3; used by tasks 3, 4, 5.

What a person asks n samples to be, in the form that a network reads: `known` is what `known.known_of` gave.
"""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from shared.conditions.known import class_number
from shared.conditions.said import Cond
from shared.errors import UserError
from shared.text.reader import Reader


def blank(told: Collection[str], known: dict[str, Any], n: int) -> Cond:
    """A condition of n samples, all zeros: of these shapes a network then makes its null. An image is not among them.

    Args:
        told: which of "label", "attributes", "text" the network is told.
        known: what can be said.
        n: number of samples.
    """
    cond: Cond = {}
    if "label" in told:
        cond["label"] = torch.zeros(n, dtype=torch.long)
    if "attributes" in told:
        cond["attributes"] = torch.zeros(n, len(known["attributes"]), dtype=torch.long)
    if "text" in told:
        width = known["text"]["width"]
        shape, kind = ((n, 1), torch.long) if width is None else ((n, 1, width), torch.float32)
        cond |= {"text": torch.zeros(shape, dtype=kind), "text_mask": torch.zeros(n, 1, dtype=torch.bool)}
    return cond


def label_cond(label: int | str | Sequence[int | str], known: dict[str, Any], n: int) -> Cond:
    """{"label": (n,) long} of a class by number or name, or of one for each sample.

    Raises:
        UserError: there is no such class.
    """
    labels = label if isinstance(label, Sequence) and not isinstance(label, str) else [label] * n
    return {"label": torch.tensor([class_number(known, name) for name in labels])}


def text_cond(text: str | Sequence[str], reader: Reader, n: int) -> Cond:
    """{"text": (n, N, …), "text_mask": (n, N)} of a caption, or of one for each sample, on the CPU.

    Raises:
        UserError: the reader cannot read one of them.
    """
    read = reader.read([text] if isinstance(text, str) else list(text))
    times = n if isinstance(text, str) else 1
    return {name: value.repeat_interleave(times, 0) for name, value in read.items()}


def check_count(cond: Cond, n: int) -> None:
    """Raise UserError unless a condition is of n samples."""
    if wrong := [name for name, value in cond.items() if len(value) != n]:
        raise UserError(f"{n} samples need as many of each condition, and {wrong[0]} has {len(cond[wrong[0]])}")


def labels_of(option: str | int | None, known: dict[str, Any], n: int) -> list[str | int]:
    """The classes of n samples that a command line names: one, or several with commas between them, or all, in turn."""
    classes: list[str] = known["classes"]
    if option is None:
        return [i % len(classes) for i in range(n)]
    whole = str(option)
    names = [whole] if whole in classes else [name.strip() for name in whole.split(",")]
    return [names[i % len(names)] for i in range(n)]


def examples(data: Dataset, keys: Collection[str], n: int, columns: int) -> Cond:
    """The conditions of n samples of a data set, evenly spaced, to be drawn as a grid.

    Each column of the grid has one class where samples lie in the order of their classes.
    """
    rows = -(-n // columns)
    chosen = [
        int((column + (row + 0.5) / rows) * len(data) / columns) for row in range(rows) for column in range(columns)
    ]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # what a data set draws at random, such as a scene, is the same in every picture
        told = [data[min(i, len(data) - 1)][1] for i in chosen[:n]]
    return {name: torch.stack([cond[name] for cond in told]) for name in keys}
