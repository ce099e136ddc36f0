"""Evaluated runs and published figures made up for a test, file by file, and the command `compare` in this process."""

import contextlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import yaml

from shared.experiments import compare

PROTOCOL = {
    "data": "digits",
    "n": 1000,
    "reference": "the 10,000 test images",
    "extractor": "a judge",
    "guidance": "none",
    "weights": "ema",
    "sampler": "ddim",
    "steps": 50,
    "eta": 0.0,
    "spacing": "trailing",
    "clamp": True,
    "seed": 0,
}
SAME = {name: value for name, value in PROTOCOL.items() if name != "seed"}
PAPERS = [  # figure, protocol, value
    ("judge_distance", SAME, "4.5 ± 0.25"),
    ("judge_distance", SAME | {"steps": 7}, 4.625),
    ("fid", SAME, 4.75),
    ("fid", {"data": "cifar10"}, 4.875),
]


class Ended(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


def call(*arguments: object) -> Ended:
    """Run `compare` in this process; an exception other than the exit is a traceback, and fails the test."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch.object(sys, "argv", ["compare", *map(str, arguments)]),
        mock.patch.dict(os.environ, COLUMNS="2000"),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            compare.main()
        except SystemExit as end:
            status = end.code
    return Ended(status, out.getvalue(), err.getvalue())


def write(path: Path, text: str) -> Path:
    """A file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def make(name: str, width: int = 32, seed: int = 0, loss: tuple = (4.0, 2.0, 1.0), **record: Any) -> Path:
    """A run in the current folder's `runs`, without evaluations."""
    folder = Path("runs", "task1", name)
    facts = {"task": "task1", "state": "finished", "processor": "a CPU", "seconds": 999.0, "step": 300, "started": 1.0}
    config = {
        "data": {"name": "digits"},
        "network": {"width": width, "middle_attention": "none", "multipliers": [1, 2]},
        "diffusion": {"predict": "eps"},
        "optimizer": {"lr": 2e-4},
        "train": {"seed": seed, "batch": 32},
        "run": {"folder": "runs", "name": name},
    }
    lines = [{"step": 100 * i, "images": 3200 * i, "seconds": 777.0 * i, "loss": x} for i, x in enumerate(loss, 1)]
    write(folder / "record.json", json.dumps(facts | record))
    write(folder / "config.yaml", yaml.safe_dump(config))
    write(folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    return folder


def evaluation(folder: Path, distance: float, name: str = "2026-01-01-000000", **changes: Any) -> Path:
    """An evaluation; `changes` are for its protocol, or for step, images, seconds and figures."""
    facts = {
        "task": "task1",
        "step": changes.pop("step", 300),
        "images": changes.pop("images", 9600),
        "seconds": changes.pop("seconds", 12.5),
        "main": "judge_distance",
        "figures": {"judge_confident": 0.5, "judge_distance": distance} | changes.pop("figures", {}),
        "protocol": {k: v for k, v in (PROTOCOL | changes).items() if v is not None},
    }
    return write(folder / "evaluations" / name / "evaluation.json", json.dumps(facts))


def published(path: Path) -> Path:
    """A papers.yaml with the figures of PAPERS."""
    tables = [
        {
            "paper": "Ours",
            "table": f"table {i}",
            "figure": figure,
            "read": "P",
            "protocol": {"P": fields},
            "values": value,
        }
        for i, (figure, fields, value) in enumerate(PAPERS, 1)
    ]
    listed = {"read": {"P": "in the paper"}, "papers": {"Ours": {"authors": "A"}}, "tables": tables}
    return write(path, yaml.safe_dump(listed))
