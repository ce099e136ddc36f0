"""Introduced in task 1; used by task 1.

The record of a run: one folder that holds what was asked for, by which code on which machine, and what came of it.

    config.yaml      every field, resolved            record.json    command, commit, versions, hardware, state
    changes.patch    what differs from the commit     metrics.jsonl  a line of figures at each report
    checkpoints/     see `shared/training/checkpoint` samples/       pictures        tensorboard/  the same curves
"""

import json
import os
import platform
import shlex
import subprocess
import sys
import time
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml

from shared.cli import read_yaml
from shared.errors import UserError
from shared.experiments.config import RunConfig
from shared.files import write_text

PACKAGES = ("torch", "torchvision", "numpy", "accelerate", "safetensors", "jsonargparse")


def git(*arguments: str) -> str | None:
    """What git says about the code's own repository, or None where there is no git or no repository."""
    here = Path(__file__).parent
    try:
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None


def provenance() -> dict[str, Any]:
    """Command, code, packages and hardware of this process, as JSON can hold them."""
    commit = git("rev-parse", "HEAD")
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": commit.strip() if commit else None,
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def plain(value: Any) -> Any:
    """A config with tuples as lists, as YAML and JSON give it back."""
    return json.loads(json.dumps(value))


class RunRecord:
    """An open run folder."""

    def __init__(self, folder: Path, config: dict[str, Any]):
        """Use `create` for a new one and `reopen` for an old one."""
        self.folder, self.config = folder, config
        self._writer = None

    @classmethod
    def create(cls, task: str, run: RunConfig, config: dict[str, Any]) -> "RunRecord":
        """Make the folder of a new run and write down what is known before it starts.

        Raises:
            UserError: a run of that name exists.
            OSError: the folder cannot be written.
        """
        if run.name and (Path(run.name).name != run.name or run.name == ".."):
            raise UserError(f"run.name is {run.name}: it must be the name of a folder, without a path")
        parent = Path(run.folder) / task
        parent.mkdir(parents=True, exist_ok=True)
        name = run.name or datetime.now().strftime("%Y-%m-%d-%H%M%S")
        for suffix in ["", *(f"-{i}" for i in range(2, 1000))]:
            folder = parent / f"{name}{suffix}"
            try:
                folder.mkdir()  # fails where it exists: two runs started at once cannot share a folder
                break
            except FileExistsError:
                if run.name:
                    raise UserError(
                        f"the run {folder} exists: choose another --run.name, or go on with it by --resume {folder}"
                    ) from None
        record = cls(folder, plain(config))
        write_text(folder / "config.yaml", yaml.safe_dump(record.config, sort_keys=False))
        if changes := git("diff", "HEAD"):
            write_text(folder / "changes.patch", changes)
        record.note({**provenance(), "started": time.time(), "state": "running"})
        return record

    @classmethod
    def reopen(cls, folder: Path) -> "RunRecord":
        """An existing run.

        Raises:
            UserError: the folder is not that of a run.
        """
        if not (folder / "config.yaml").is_file():
            raise UserError(f"{folder} is not the folder of a run: it has no config.yaml")
        return cls(folder, read_yaml(folder / "config.yaml"))

    def note(self, facts: dict[str, Any]) -> None:
        """Add facts to record.json, or replace those of the same name."""
        path = self.folder / "record.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        write_text(path, json.dumps(known | facts, indent=2) + "\n")

    def rewind(self, n: int) -> None:
        """Forget figures later than step n: a resumed run will write them again."""
        path = self.folder / "metrics.jsonl"
        if path.exists():
            lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
            write_text(path, "".join(line for line in lines if json.loads(line)["step"] <= n))

    def log(self, n: int, figures: dict[str, float]) -> None:
        """Write the figures of step n to metrics.jsonl and TensorBoard."""
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": n, "time": time.time(), **figures}) + "\n")
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            self._writer = SummaryWriter(str(self.folder / "tensorboard"), purge_step=n)
        for name, value in figures.items():
            self._writer.add_scalar(name, value, n)

    def close(self, state: str) -> None:
        """Say how the run ended: "finished", "interrupted", or "failed: …"."""
        if self._writer is not None:
            self._writer.close()
        self.note({"state": state, "ended": time.time()})


def latest_run(folder: Path, task: str) -> Path:
    """The run of a task that was started last.

    Raises:
        UserError: there is none.
    """
    runs = [path.parent for path in (folder / task).glob("*/record.json")]
    if not runs:
        raise UserError(f"there is no run in {folder / task}: train one first")
    return max(runs, key=lambda run: json.loads((run / "record.json").read_text()).get("started", 0))
