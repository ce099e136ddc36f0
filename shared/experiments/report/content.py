"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

What a report shows, as `stages.py` and `runs.py` fill it. What cannot be read is named among the
problems, and hides nothing else. Free of torch and of matplotlib.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from shared.errors import UserError
from shared.experiments.history import Run
from shared.experiments.papers import PaperRow
from shared.experiments.report.figures import Measured
from shared.experiments.report.pictures import Picture, read_picture
from shared.experiments.report.text import Readme

ROOM = 12 << 20  # bytes of the page that pictures may take; those of runs come last
T = TypeVar("T")


@dataclass(frozen=True)
class Curve:
    """A loss over the optimizer steps."""

    title: str
    points: list[tuple[float, float]]


@dataclass(frozen=True)
class Script:
    """A file of commands."""

    name: str
    text: str


@dataclass(frozen=True)
class Stage:
    """What one stage's package holds."""

    name: str
    readme: Readme
    pictures: list[Picture]
    curves: list[Curve]
    measured: list[Measured]
    made: str | None
    """the commands that made the committed models"""
    scripts: list[Script]
    results: str
    """README of the results, Markdown"""
    others: dict[str, Picture]
    """the pictures of that README by its names of them, of which some are among `pictures`"""


@dataclass(frozen=True)
class Own:
    """What the folder of one's own run holds."""

    run: Run
    main: tuple[str, float] | None
    curve: Curve | None
    pictures: list[Picture]
    measured: list[Measured]


@dataclass(frozen=True)
class Searched:
    """The table of a sweep's trials."""

    name: str
    headers: list[str]
    rows: list[list[str]]
    picture: Picture | None


@dataclass
class Report:
    """All of a page."""

    stages: list[Stage] = field(default_factory=list)
    runs: list[Own] = field(default_factory=list)
    sweeps: list[Searched] = field(default_factory=list)
    folder: str = "runs"
    papers: dict[str, list[PaperRow]] = field(default_factory=dict)
    """published figures by data set"""
    problems: list[str] = field(default_factory=list)
    room: int = ROOM
    left_out: int = 0
    """pictures that there was no room for"""

    def tried(self, read: Callable[..., T], *arguments: Any) -> T | None:
        """What `read` gives, or None: what it cannot read is a problem more, and no end."""
        try:
            return read(*arguments)
        except UserError as error:
            self.problems.append(str(error))
        except (OSError, RecursionError) as error:
            self.problems.append(f"cannot read {arguments[0]}: {getattr(error, 'strerror', None) or error}")
        return None

    def close(self) -> None:
        """Say what there was no room for, and each problem once."""
        if self.left_out:
            line = f"pictures left out, as those on the page take {ROOM >> 20} MiB already: {self.left_out}"
            self.problems.append(f"{line}; --stage or another --folder makes room")
        self.problems = list(dict.fromkeys(self.problems))

    def picture(self, path: Path, alt: str, caption: str | None = None) -> Picture | None:
        """A picture, if there is room for it on the page."""
        found = self.tried(read_picture, path, alt, caption)
        if found and found.bytes > self.room:
            self.left_out += 1
            return None
        self.room -= found.bytes if found else 0
        return found


def losses(lines: Sequence[dict[str, float]]) -> list[tuple[float, float]]:
    """Step and loss, where both are there and can be drawn."""
    pairs = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    return [pair for pair in pairs if all(abs(number) < 1e30 for number in pair)]
