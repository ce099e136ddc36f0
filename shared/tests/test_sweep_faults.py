"""Sweeps of real Ray that are killed, stopped, or on a cluster: each trial ends as one record, nothing stays behind.

With a stub for a training, whose checkpoint says by which steps it was come by; once with stage 1 itself.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from shared.experiments.history import find_runs
from shared.tests.commands import losses, record, same

pytest.importorskip("ray", reason="needs the extra sweep")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
STUB = [sys.executable, "-m", "shared.tests.sweep_stub", "sweep"]
REAL = [sys.executable, "-m", "shared.experiments.sweep.command"]


def written(folder: Path, **content: object) -> Path:
    """A sweep's YAML file."""
    path = folder / "s.yaml"
    path.write_text(
        yaml.safe_dump({"command": "task1-train", "folder": str(folder / "runs"), **content}, sort_keys=False)
    )
    return path


def start(command: list[str], *arguments: object) -> subprocess.Popen:
    """A sweep in a session of its own."""
    return subprocess.Popen(
        [*command, *map(str, arguments)],
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen, status: int = 0) -> tuple[str, str]:
    """What it printed to its end."""
    out, err = process.communicate(timeout=400)
    assert process.returncode == status, err
    return out, err


def wait_for(ready: Callable[[], object], seconds: float = 120) -> None:
    """Until something is so."""
    until = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < until, "it took too long"
        time.sleep(0.02)


def alive(folder: Path) -> list[str]:
    """The living processes that know of a folder: by their arguments, or by what they were started in."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            state = (path / "stat").read_text().rpartition(")")[2].split()[0]
            words = (path / "cmdline").read_bytes() + (path / "environ").read_bytes()
        except OSError:
            continue
        if state != "Z" and path.name != str(os.getpid()) and str(folder).encode() in words:
            found.append(f"{path.name} {words[:150]!r}")
    return found


def descendants(pid: int) -> list[int]:
    """A process and all that it began, and that they began."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = [pid]
    for above in found:
        found += [child for child, parent in parents.items() if parent == above]
    return found


def kill(process: subprocess.Popen) -> None:
    """SIGKILL for the sweep, Ray and all trainings."""
    for pid in descendants(process.pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.communicate()


def steps(folder: Path, name: str) -> int:
    """Lines of figures that a trial has."""
    path = folder / "runs" / "task1" / name / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def trace(folder: Path, name: str) -> str:
    """By which steps a trial's last state was come by."""
    return json.loads(sorted((folder / "runs" / "task1" / name / "checkpoints").iterdir())[-1].read_text())["trace"]


@pytest.mark.parametrize("everything", [True, False], ids=["all of it", "the sweep alone"])
def test_a_killed_sweep_goes_on_and_each_trial_is_one_record(tmp_path, everything):
    space = {"optimizer.lr": {"grid": [0.1, 0.2]}, "train.steps": {"grid": [6, 61, 62]}}
    path = written(tmp_path, space=space, search="grid", overrides={"train.seconds": 0.1})
    sweep = tmp_path / "runs" / "sweeps" / "s"
    first = start(STUB, path)
    wait_for(lambda: steps(tmp_path, "s-1") >= 5)  # s-0 has finished, s-2 begins, the others wait
    if everything:
        kill(first)
    else:
        os.kill(first.pid, signal.SIGKILL)
        first.communicate()
        wait_for(lambda: not [p for p in alive(tmp_path) if "sweep_stub" in p], 20)
    second = start(STUB, "--resume", sweep)
    wait_for(lambda: steps(tmp_path, "s-2") >= 1)  # killed before its first checkpoint, perhaps
    kill(second)
    wait_for(lambda: "running" not in [run.state for run in find_runs(tmp_path / "runs")], 20)
    out, _ = ended(start(STUB, "--resume", sweep))
    runs = list(find_runs(tmp_path / "runs"))
    assert [(run.name, run.state) for run in sorted(runs, key=lambda run: run.name)] == [
        (f"s-{n}", "finished") for n in range(6)
    ]
    for run in runs:
        count = run.config["train"]["steps"]
        assert trace(tmp_path, run.name) == "".join(f"{n} " for n in range(1, count + 1))  # each step once
        assert [line["step"] for line in run.metrics] == list(range(1, count + 1))
    assert record(tmp_path / "runs" / "task1" / "s-1")["resumed"]
    assert "resumed" not in record(tmp_path / "runs" / "task1" / "s-0")  # what had finished was not touched
    assert out.count("finished") == 6
    wait_for(lambda: not alive(tmp_path), 60)


def test_a_killed_sweep_of_stage_1_ends_with_the_same_bits(tmp_path):
    pytest.importorskip("torch")
    overrides = {
        "network": {"width": 8},
        "train": {"steps": 150, "batch": 4, "log_every": 10, "sample_every": 0, "save_every": 20, "precision": "fp32"},
    }
    space = {"optimizer.lr": {"grid": [1e-3, 1e-4]}, "train.seed": {"grid": [0]}}
    path = written(tmp_path, space=space, search="grid", overrides=overrides)
    sweep, runs = tmp_path / "runs" / "sweeps" / "s", tmp_path / "runs" / "task1"
    first = start(REAL, path)
    wait_for(lambda: any((runs / "s-0" / "checkpoints").glob("step-*4*")))
    kill(first)
    assert not all(
        (runs / name / "record.json").exists() and record(runs / name)["state"] == "finished" for name in ("s-0", "s-1")
    )
    ended(start(REAL, "--resume", sweep))
    assert sorted(run.name for run in find_runs(tmp_path / "runs")) == ["s-0", "s-1"]
    for name in ("s-0", "s-1"):
        command = [sys.executable, "-m", "task1_unconditional.train", "--config", sweep / "configs" / f"{name}.yaml"]
        subprocess.run(
            [*command, "--run.folder", tmp_path / "other", "--run.name", name], check=True, capture_output=True
        )
        assert same(runs / name, tmp_path / "other" / "task1" / name)
        assert losses(runs / name) == losses(tmp_path / "other" / "task1" / name)
        assert record(runs / name)["state"] == "finished"
    wait_for(lambda: not alive(tmp_path), 60)


def test_asha_stops_the_worse_and_what_finished_is_measured(tmp_path):
    space = {"optimizer.lr": {"grid": [0.2, 0.9, 0.1]}, "fault": {"grid": ["", "late"]}}
    path = written(
        tmp_path,
        space=space,
        search="grid",
        overrides={"train": {"steps": 60, "seconds": 0.1}},
        early_stopping={"grace": 4, "factor": 2},
        evaluate="task1-evaluate --n 7",
        figure="score",
        mode="max",
        resources={"cpu": 2},  # one after the other
    )
    ended(start(STUB, path))
    lines = (tmp_path / "runs" / "sweeps" / "s" / "trials.csv").read_text().splitlines()[1:]
    assert lines[0] == "s-4,0.1,'',finished,8,0.9" and lines[1] == "s-0,0.2,'',finished,8,0.8"
    assert lines[2] == "s-2,0.9,'',stopped by ASHA at step 4,4,"
    assert [line.split(",")[3] for line in lines[3:]] == ["failed: the loss is not finite"] * 3
    stopped = record(tmp_path / "runs" / "task1" / "s-2")
    assert (stopped["state"], stopped["reason"]) == ("interrupted", "stopped by ASHA at step 4, in the sweep s")
    assert 4 <= stopped["step"] < 60 and steps(tmp_path, "s-2") < 60
    (measured,) = (tmp_path / "runs" / "task1" / "s-4" / "evaluations").iterdir()
    assert "--n 7" in (measured / "evaluation.md").read_text()


@pytest.fixture
def brief(monkeypatch):
    """An empty folder for temporary files, whose name is short enough for Ray's sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


def one(process: subprocess.Popen) -> list[int]:
    """The sweep's own process."""
    return [process.pid]


def group(process: subprocess.Popen) -> list[int]:
    """A process group, as `timeout` signals it."""
    return [-process.pid]


def job(process: subprocess.Popen) -> list[int]:
    """All processes, as Slurm and systemd signal them."""
    return descendants(process.pid)


@pytest.mark.parametrize(
    "number, whom",
    [(signal.SIGINT, one), (signal.SIGTERM, group), (signal.SIGTERM, job)],
)
def test_a_stopped_sweep_saves_its_trainings_and_goes_on(tmp_path, number, whom, brief):
    space = {"optimizer.lr": {"loguniform": [1e-3, 1.0]}}
    path = written(tmp_path, space=space, search="tpe", trials=4, overrides={"train": {"steps": 41, "seconds": 0.1}})
    first = start(STUB, path)
    wait_for(lambda: steps(tmp_path, "s-0") >= 3 and steps(tmp_path, "s-1") >= 3)
    own, begun = [pid for pid in descendants(first.pid) if pid != first.pid], time.monotonic()
    assert list(brief.glob("sweep-*"))
    for pid in whom(first):
        os.kill(pid, number)
    _, err = ended(first, 130)
    assert time.monotonic() - begun < 40 and not list(brief.glob("sweep-*"))
    wait_for(lambda: not alive(tmp_path) and not any(Path(f"/proc/{pid}").exists() for pid in own), 20)
    assert "go on with: sweep --resume" in err and "Traceback" not in err
    kept = {run.name: run for run in find_runs(tmp_path / "runs")}
    assert {run.state for run in kept.values()} == {"interrupted"}
    if whom is group:  # what comes after is tested by the others
        return
    values = json.loads((tmp_path / "runs" / "sweeps" / "s" / "trials.json").read_text())["trials"]
    ended(start(STUB, "--resume", tmp_path / "runs" / "sweeps" / "s"))
    runs = list(find_runs(tmp_path / "runs"))
    assert sorted((run.name, run.state) for run in runs) == [(f"s-{n}", "finished") for n in range(4)]
    for run in runs:
        assert trace(tmp_path, run.name).split() == [str(n) for n in range(1, 42)]
    again = json.loads((tmp_path / "runs" / "sweeps" / "s" / "trials.json").read_text())["trials"]
    assert again[: len(values)] == values and len({trial["values"]["optimizer.lr"] for trial in again}) == 4


def test_a_cluster_that_is_there_is_used_and_left_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", 64 * "5")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    scratch = Path("/tmp") / f"ray-of-a-test-{os.getpid()}"  # short: it holds sockets
    options = f"--head --block --port {port} --num-cpus 2 --include-dashboard false --disable-usage-stats".split()
    command = [str(Path(sys.executable).with_name("ray")), "start", *options, "--temp-dir", str(scratch)]
    cluster = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: not socket.socket().connect_ex(("127.0.0.1", port)), 60)
        time.sleep(5)
        path = written(tmp_path, space={"optimizer.lr": {"grid": [0.1, 0.2]}}, search="grid")
        out, _ = ended(start(STUB, path, "--address", f"127.0.0.1:{port}"))
        assert out.count("finished") == 2 and cluster.poll() is None
        asks = written(tmp_path, space={"optimizer.lr": {"grid": [0.1]}}, search="grid", resources={"cpu": 3})
        _, err = ended(start(STUB, asks, "--address", f"127.0.0.1:{port}", "--name", "t"), 1)
        assert "needs 3 CPU, and no machine has that (the most is 2 CPU" in err
        assert not (tmp_path / "runs" / "sweeps" / "t").exists()
    finally:
        kill(cluster)
        subprocess.run(["rm", "-rf", str(scratch)])
