"""A command, called as a person would, but in this process, so that torch is imported once; and what its run left."""

import contextlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch

from shared.training.checkpoint import Checkpoints, read_facts, read_tensors


class Ended(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str

    def says(self, status: int, *parts: str) -> bool:
        """Whether it ended in one line of error that has these parts; the assertion shows what it is instead."""
        assert (self.status, self.err.count("\n"), [p for p in parts if p not in self.err]) == (status, 1, []), self.err
        return True

    def well(self) -> "Ended":
        """This, which must have gone well."""
        assert self.status == 0, self.err
        return self


def call(main: Callable[[], object], name: str, *arguments: object) -> Ended:
    """Run a command's `main` to its end; an exception other than the exit is a traceback, and fails the test."""
    out, err = io.StringIO(), io.StringIO()
    status, argv = 0, [name, *map(str, arguments)]
    with mock.patch.object(sys, "argv", argv), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            status = end.code
    return Ended(status, out.getvalue(), err.getvalue())


def record(run: Path) -> dict[str, Any]:
    """What a run's record.json says."""
    return json.loads((run / "record.json").read_text())


def figures(run: Path) -> list[dict[str, float]]:
    """What a run's metrics.jsonl says."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run: Path) -> list[tuple[float, float]]:
    """Step and loss of each line of a run's metrics.jsonl."""
    return [(line["step"], line["loss"]) for line in figures(run)]


def whole(run: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a run's newest checkpoint."""
    path = Checkpoints(run / "checkpoints").latest()
    names = {name.partition(".")[0] for name in read_facts(path)["digests"]}
    return {f"{prefix}.{name}": t for prefix in names for name, t in read_tensors(path, prefix).items()}


def same(a: Path, b: Path) -> bool:
    """Whether two runs' newest checkpoints hold the same tensors, bit for bit."""
    one, other = whole(a), whole(b)
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])] == []
