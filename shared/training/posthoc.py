"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

Averages that nobody kept: made after the training, of any width, from snapshots of a few power-function averages.

A run with `averages.profiles` leaves snapshots in its folder `averages`, which no `keep` deletes. An average is linear
in the weights over time; so is a sum of snapshots; and `profiles.py` says which sum weighs the times as the wanted
average would have. Karras 2024 (arXiv 2312.02696), section 3.2.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from shared.errors import UserError
from shared.training.checkpoint import Checkpoints, is_count, read_facts, read_tensors
from shared.training.config import POST_HOC, STORED
from shared.training.profiles import Profile, combine, exponent

LOW, HIGH = 0.001, 0.288  # of widths, as in AveragesConfig.profiles
TOLERANCE = 0.05  # distance of the fitted profile over the wanted one's norm
WIDTHS = np.arange(0.005, 0.2851, 0.005)  # that are tried to say which there are


@dataclass(frozen=True)
class Kept:
    """A power-function average in a file."""

    path: Path
    name: str
    """of its tensors, such as profile-0.05"""
    count: int
    """weights that it has taken in: its length t"""

    @property
    def width(self) -> float:
        """Of its profile."""
        return float(self.name.removeprefix("profile-"))


@dataclass(frozen=True)
class Fit:
    """A sum of kept averages in the place of one that was not kept."""

    width: float
    kept: tuple[Kept, ...]
    factors: tuple[float, ...]
    error: float
    """distance of the profiles over the norm of the wanted one; 0 is exact"""

    def told(self) -> str:
        """One line for a report."""
        t, files = max(kept.count for kept in self.kept), len({kept.path for kept in self.kept})
        return (
            f"post-hoc-{self.width:g} after {t} steps: of {len(self.kept)} averages in {files} files, relative error "
            f"of the profile {self.error:.2%}"
        )


def width_named(weights: str) -> float | None:
    """The width that the name of such weights says, such as post-hoc-0.1; None of all other names."""
    match = POST_HOC.fullmatch(weights)
    return float(match[1]) if match else None


def kept_in(path: Path) -> list[Kept]:
    """The power-function averages in a checkpoint or snapshot. Raises UserError if it is damaged."""
    counts = read_facts(path).get("averages", {})
    return [Kept(path, name, n) for name, n in counts.items() if is_profile(name) and is_count(n) and n]


def is_profile(name: str) -> bool:
    """Whether an average is called as a training calls profiles: a file may come from anywhere."""
    number = name.removeprefix("profile-")
    if number == name or not STORED.fullmatch(name):
        return False
    return repr(float(number)) == number and LOW <= float(number) <= HIGH


def kept_by(path: Path) -> list[Kept]:
    """Those that a checkpoint, or a snapshot, can be fitted with: its own and those of the run's snapshots before it.

    Raises:
        UserError: a file is damaged, or there are none.
    """
    own = kept_in(path)
    if not own:
        raise UserError(f"{path} holds no profiles to make others of: train with --averages.profiles [0.05,0.1]")
    end, seen = max(kept.count for kept in own), {(kept.name, kept.count) for kept in own}
    for snapshot in Checkpoints(path.parent.parent / "averages", keep=None).all() if is_in_run(path) else []:
        try:
            found = kept_in(snapshot)
        except UserError:
            raise damaged(snapshot) from None
        own += [kept for kept in found if kept.count <= end and (kept.name, kept.count) not in seen]
    return sorted(own, key=lambda kept: (kept.count, kept.name))


def is_in_run(path: Path) -> bool:
    """Whether a file lies where a training puts it: a copy elsewhere has no snapshots beside it."""
    return path.parent.name in ("checkpoints", "averages")


def damaged(snapshot: Path) -> UserError:
    """What to do about a snapshot that cannot be read."""
    return UserError(f"the snapshot {snapshot} is damaged: remove it, and what was asked is made of the others")


def fit(kept: list[Kept], width: float) -> Fit:
    """The best sum for a width at the end of the longest of them, however good that is. Raises UserError for no width.

    Args:
        kept: what `kept_by` found.
        width: the profile's standard deviation as a share of the training.
    """
    if not LOW <= width <= HIGH:
        raise UserError(
            f"post-hoc-{width:g} is no average: widths lie between {LOW} and {HIGH}, that of the plain mean"
        )
    given = Profile(np.array([exponent(k.width) for k in kept]), np.array([float(k.count) for k in kept]))
    factors, error = combine(given, Profile(exponent(width), float(given.t.max())))
    return Fit(width, tuple(kept), tuple(factors.tolist()), error)


def fitted(path: Path, width: float) -> Fit:
    """The sum in the place of the average of a width, as of a checkpoint or snapshot; reads no tensors.

    Raises:
        UserError: there are no snapshots, one is damaged, or none of their sums is such an average.
    """
    kept = kept_by(path)
    found = fit(kept, width)
    if found.error > TOLERANCE:
        low, high = (widths := fitting(kept))[0], widths[-1]
        raise UserError(
            f"post-hoc-{width:g} cannot be made of the {len(kept)} averages up to {path.name}: the profile would be "
            f"off by {found.error:.0%}; widths from {low:g} to {high:g} can"
        )
    return found


def fitting(kept: list[Kept]) -> list[float]:
    """The widths, in steps of 0.005, that can be made of some averages, ascending; those that were kept among them."""
    end = max(k.count for k in kept)
    widths = {k.width for k in kept if k.count == end} | {round(float(w), 3) for w in WIDTHS}
    return sorted(width for width in widths if fit(kept, width).error <= TOLERANCE)


def reconstruct(found: Fit) -> dict[str, Tensor]:
    """The weights of a fit: float64 sums, rounded to float32 at the end; one file's tensors in memory at a time.

    What is the same in all of them (a frozen weight, a table) stays as it is, bit for bit, as factors sum to 1. What no
    average is made of (counts) is that of the last.

    Raises:
        UserError: a file is damaged, or of another network.
    """
    total: dict[str, Tensor] = {}
    last: dict[str, Tensor] = {}
    for kept, factor in zip(found.kept, found.factors, strict=True):
        if factor == 0:
            continue
        try:
            state = read_tensors(kept.path, kept.name)
        except UserError:
            if kept.path.parent.name != "averages":
                raise
            raise damaged(kept.path) from None
        check_alike_all(kept.path, last or state, state)
        for name, value in state.items():
            total[name] = total.get(name, 0) + factor * value.double()
        last = state
    return {name: total[name].to(value.dtype) if value.is_floating_point() else value for name, value in last.items()}


def check_alike_all(path: Path, there: dict[str, Tensor], here: dict[str, Tensor]) -> None:
    """Raise UserError if a snapshot is of another network than those before it."""
    if {name: value.shape for name, value in there.items()} != {name: value.shape for name, value in here.items()}:
        raise UserError(f"the snapshot {path} is of another network than the others: remove it")
