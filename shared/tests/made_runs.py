"""Run folders made up for a test, and the command `runs` called as a person would, but in this process."""

import contextlib
import io
import json
import os
import sys
import zipfile
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import yaml

from shared.experiments import runs

PROTOCOL = {
    "data": "digits",
    "n": 1000,
    "reference": "digits, held out",
    "extractor": "judge",
    "sampler": "ddim",
    "steps": 50,
    "guidance": "none",
    "weights": "ema",
    "eta": 0.0,
    "seed": 0,
}
SOURCE = {
    "pyproject.toml": "[project]\n",
    "shared/a.py": "a = 1\n",
    "task1_x/train.py": "b = 1\n",
    "own/mine.py": "",
}


class Ended(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


def call(*arguments: object, columns: int = 1000) -> Ended:
    """Run `runs`; an exception other than the exit is a traceback, and fails the test."""
    out, err = io.StringIO(), io.StringIO()
    status = 0
    with (
        mock.patch.object(sys, "argv", ["runs", *map(str, arguments)]),
        mock.patch.dict(os.environ, COLUMNS=str(columns)),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            runs.main()
        except SystemExit as end:
            status = end.code
    return Ended(status, out.getvalue(), err.getvalue())


def make(root: Path, name: str, task: str = "task1", checkpoints: int = 1, **changes: Any) -> Path:
    """A run's folder as a training leaves it. `changes` are for its record; None leaves a field out."""
    folder = root / task / name
    record = {
        "task": task,
        "state": "finished",
        "seed": 0,
        "command": "task1-train --train.steps 20",
        "commit": "0123abc",
        "untracked": [],
        "python": "3.11.7",
        "packages": {"numpy": "2.4.6", "torch": "2.13.0", "zlib-of-somebody": "1.0"},
        "platform": "Linux",
        "processor": "Some CPU",
        "cpus": 2,
        "threads": 1,
        "memory_gib": 16.0,
        "gpu": None,
        "started": 1.7e9,
        "ended": 1.7e9 + 275,
        "step": 20,
        "images": 192_000,
        "seconds": 275.0,
        "peak_memory_gib": 0.5,
        **changes,
    }
    write(folder / "record.json", json.dumps({key: value for key, value in record.items() if value is not None}))
    config = {
        "data": {"name": "digits", "root": None},
        "own_data": None,
        "network": {"width": 32, "multipliers": [1, 2], "middle_attention": "softmax"},
        "optimizer": {"lr": 1e-4},
        "train": {"steps": 20, "seed": 0, "batch": 4},
        "run": {"folder": str(root), "name": name},
    }
    write(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False))
    lines = [{"step": n, "time": 1.7e9 + n, "loss": 1 / n, "lr": 1e-4, "images": n * 9600} for n in (10, 20)]
    write(folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    for n in range(checkpoints):
        write(folder / "checkpoints" / f"step-{n:08d}.safetensors", "x" * 2**20)
    write(folder / "samples" / "step-00000020.png", "a picture")
    write(folder / "tensorboard" / "events.out.tfevents.1.host", "curves")
    write(folder / ".lock", "")
    pack(folder / "source.zip", SOURCE)
    return folder


def evaluate(run: Path, name: str, figure: float = 3.0, **protocol: Any) -> Path:
    """An evaluation as a stage's evaluate command leaves it."""
    path = run / "evaluations" / name / "evaluation.json"
    figures = {"judge_distance_over_floor": figure, "judge_confident": 0.9}
    facts = {
        "task": "task1",
        "step": 20,
        "images": 192_000,
        "seconds": 275.0,
        "main": "judge_distance_over_floor",
        "protocol": {**PROTOCOL, **protocol},
        "figures": figures,
    }
    write(path, json.dumps(facts))
    return path


def write(path: Path, text: str) -> None:
    """A file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def pack(path: Path, files: dict[str, str]) -> None:
    """A zip file."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def change(path: Path, **changes: Any) -> None:
    """Other values in a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
