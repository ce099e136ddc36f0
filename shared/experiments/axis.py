"""Introduced in task 1; used by task 1.

What a figure can be plotted against: what a training cost, a field of the protocol, or a field of the config.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from shared.errors import UserError
from shared.experiments.protocol import FINER, REQUIRED, text
from shared.files import is_number

# What a training cost, by its name on the command line: a field of `Evaluation`, and what an axis says.
BUDGETS = {"seconds": "seconds", "images": "images", "steps_of_training": "step"}
LABELS = {
    "seconds": "wall-clock time of training, s",
    "images": "images seen in training",
    "steps_of_training": "optimizer steps",
    "steps": "steps of the sampler",
    "n": "samples",
}


@dataclass(frozen=True)
class Axis:
    """What figures are plotted against, and what may therefore differ between them."""

    name: str
    kind: str
    """budget, protocol or config"""

    @property
    def free(self) -> tuple[str, ...]:
        """The field of a protocol that need not match."""
        return (self.name,) if self.kind == "protocol" else ()

    @property
    def label(self) -> str:
        """Its name for a reader."""
        return LABELS.get(self.name, self.name)

    def place(
        self, cost: Mapping[str, float | None], protocol: Mapping[str, Any], config: Mapping[str, Any]
    ) -> float | str | None:
        """Where something lies: a number, or text; None where it does not say."""
        values = {"budget": cost, "protocol": protocol, "config": config}[self.kind]
        value = values.get(self.name)
        if value is None:  # a config that says null says something
            return "none" if self.kind == "config" and self.name in values else None
        return value if is_number(value) else text(value)


def find_axis(name: str, protocols: Iterable[Mapping[str, Any]], configs: Iterable[Mapping[str, Any]]) -> Axis:
    """The axis that a name stands for; hyphens and underscores alike.

    Raises:
        UserError: nothing is called so.
    """
    name = name.replace("-", "_")
    protocol = {*REQUIRED, *FINER, *(field for fields in protocols for field in fields)}
    config = {field for fields in configs for field in fields}
    for kind, names in (("budget", BUDGETS), ("protocol", protocol), ("config", config)):
        if name in names:
            return Axis(name, kind)
    raise UserError(f"there is no {name} to compare against{meant(name, {*BUDGETS, *protocol, *config})}")


def meant(name: str, known: Iterable[str]) -> str:
    """The end of a message about a name that is not known: what may have been meant, or what there is."""
    known = sorted(known)
    last = name.rpartition(".")[2]
    near = [other for other in known if other.rpartition(".")[2] == last] or difflib.get_close_matches(name, known)
    return f"; did you mean {' or '.join(near[:3])}?" if near else f"; there are {', '.join(known) or 'none'}"


def along(place: float | str | None) -> tuple[bool, bool, Any]:
    """A key that sorts places: numbers, then text, then what has none."""
    return place is None, isinstance(place, str), 0 if place is None else place
