"""The record of a run: one folder for each, and figures that are never counted twice."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import pytest
import yaml

from shared.errors import UserError
from shared.experiments import run as run_module
from shared.experiments.config import RunConfig
from shared.experiments.run import RunRecord, git, latest_run, plain

CONFIG = {"shape": (1, 28, 28), "train": {"steps": 3, "seed": 0}, "own": None, "text": "a: b # ε", "rate": 1e-5}


def create(folder, name=None) -> RunRecord:
    """A new run of a task."""
    return RunRecord.create("task1", RunConfig(folder=str(folder), name=name), CONFIG)


def record(run: RunRecord) -> dict:
    """What record.json says."""
    return json.loads((run.folder / "record.json").read_text())


def figures(run: RunRecord) -> list[dict]:
    """What metrics.jsonl says."""
    return [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(autouse=True)
def no_git(monkeypatch, request):
    """Asking git takes longer than all else here."""
    if "git" not in request.node.name:
        monkeypatch.setattr(run_module, "git", lambda *_: None)


class FixedTime(datetime):
    """Every run is started in the same second."""

    @classmethod
    def now(cls, tz=None):
        return cls(2026, 1, 2, 3, 4, 5)


def test_runs_of_the_same_second_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "datetime", FixedTime)
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda _: create(tmp_path), range(8)))
    names = {run.folder.name for run in runs}
    assert names == {"2026-01-02-030405", *(f"2026-01-02-030405-{i}" for i in range(2, 9))}
    assert all(record(run)["state"] == "running" for run in runs)


def test_a_name_that_is_taken(tmp_path):
    first = create(tmp_path, "mine")
    with pytest.raises(UserError, match="the run .*mine exists: choose another --run.name, or .*--resume"):
        create(tmp_path, "mine")
    assert [p.name for p in first.folder.parent.iterdir()] == ["mine"]


@pytest.mark.parametrize("name", ["../out", "a/b", "/x", "..", "."])
def test_a_name_is_no_path(name, tmp_path):
    with pytest.raises(UserError, match="run.name is .*: it must be the name of a folder"):
        create(tmp_path / "runs", name)
    assert list(tmp_path.iterdir()) == []


def test_the_config_comes_back_as_it_was(tmp_path):
    run = create(tmp_path)
    again = RunRecord.reopen(run.folder)
    assert again.config == plain(CONFIG) == yaml.safe_load((run.folder / "config.yaml").read_text())
    assert again.config["rate"] == 1e-5 and again.config["shape"] == [1, 28, 28]


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(UserError, match="is not the folder of a run: it has no config.yaml"):
        RunRecord.reopen(tmp_path)


@pytest.mark.parametrize("state", ["finished", "interrupted", "failed: the disk is full"])
def test_states(state, tmp_path):
    run = create(tmp_path)
    first = record(run)
    assert first["state"] == "running" and "ended" not in first
    run.close(state)
    last = record(run)
    assert last["state"] == state and last["ended"] >= first["started"]
    assert {k: v for k, v in last.items() if k not in ("state", "ended")} == {
        k: v for k, v in first.items() if k != "state"
    }


def test_what_is_known_of_the_machine(tmp_path):
    known = record(create(tmp_path))
    assert set(known) >= {"command", "commit", "python", "packages", "platform", "cpus", "gpu", "started"}
    assert known["python"] == ".".join(map(str, sys.version_info[:3]))
    assert known["packages"]["torch"].startswith("2.")


def test_git_is_asked_about_the_code(tmp_path, monkeypatch):
    """Not about the folder in which the command was given."""
    monkeypatch.chdir(tmp_path)
    here = subprocess.run(["git", "rev-parse", "HEAD"], cwd=run_module.__file__[:-6], capture_output=True, text=True)
    if here.returncode:
        pytest.skip("the code is not in a git repository here")
    assert record(create(tmp_path))["commit"] == here.stdout.strip()


def test_where_there_is_no_git(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert git("rev-parse", "HEAD") is None


def test_changes_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "git", lambda *arguments: "a diff\n" if arguments[0] == "diff" else "abc\n")
    run = create(tmp_path)
    assert (run.folder / "changes.patch").read_text() == "a diff\n"
    assert record(run)["commit"] == "abc"


def test_figures_and_tensorboard(tmp_path):
    run = create(tmp_path)
    for n in (2, 4):
        run.log(n, {"loss": n / 10})
    run.close("finished")
    assert [(f["step"], f["loss"]) for f in figures(run)] == [(2, 0.2), (4, 0.4)]
    assert figures(run)[0]["time"] <= figures(run)[1]["time"]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.folder / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(2, pytest.approx(0.2)), (4, pytest.approx(0.4))]


def test_rewinding_forgets_what_a_resumed_run_writes_again(tmp_path):
    run = create(tmp_path)
    path = run.folder / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": n, "loss": n / 10}) + "\n" for n in (1, 2, 3, 4)) + '{"step": 5, "lo')
    run.rewind(2)
    assert [f["step"] for f in figures(run)] == [1, 2]
    run.rewind(2)
    assert path.read_text().endswith("\n") and len(figures(run)) == 2


def test_rewinding_without_figures(tmp_path):
    run = create(tmp_path)
    run.rewind(3)
    assert not (run.folder / "metrics.jsonl").exists()


def test_the_latest_run_is_the_one_started_last(tmp_path):
    runs = [create(tmp_path, name) for name in ("b", "c", "a")]
    assert latest_run(tmp_path, "task1") == runs[-1].folder
    runs[0].note({"started": 1e12})
    assert latest_run(tmp_path, "task1") == runs[0].folder


def test_no_run_at_all(tmp_path):
    with pytest.raises(UserError, match="there is no run in .*task1: train one first"):
        latest_run(tmp_path, "task1")
