"""The record of a run: one folder for each, and figures that are never counted twice."""

import importlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from shared.errors import UserError
from shared.experiments import provenance as provenance_module
from shared.experiments import run as run_module
from shared.experiments.config import RunConfig
from shared.experiments.history import Run, latest_run
from shared.experiments.provenance import ROOT, git
from shared.experiments.run import RunRecord, plain
from shared.tests.faults import failing

IDENTITY = {f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
CONFIG = {"shape": (1, 28, 28), "train": {"steps": 3, "seed": 0}, "own": None, "text": "a: b # ε", "rate": 1e-5}


def create(folder, name=None) -> RunRecord:
    """A new run of a task."""
    return RunRecord.create("task1", RunConfig(folder=str(folder), name=name), CONFIG)


def record(run: RunRecord) -> dict:
    """What record.json says."""
    return json.loads((run.folder / "record.json").read_text())


def record_of(folder: Path) -> dict:
    """What record.json in a folder says."""
    return json.loads((folder / "record.json").read_text())


def figures(run: RunRecord) -> list[dict]:
    """What metrics.jsonl says."""
    return [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(autouse=True)
def no_git(monkeypatch, request):
    """Asking git takes longer than all else here."""
    if "git" not in request.node.name:
        for module in (run_module, provenance_module):
            monkeypatch.setattr(module, "git", lambda *_: None)
    if "source" not in request.node.name:
        monkeypatch.setattr(provenance_module, "source_files", lambda _: {})


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


@pytest.mark.parametrize("name", ["../out", "a/b", "/x", "..", ".", "", ".hidden"])
def test_a_name_is_no_path(name, tmp_path):
    with pytest.raises(UserError, match="run.name is .*: it must be the name of a folder"):
        create(tmp_path / "runs", name)
    assert list(tmp_path.iterdir()) == []


def test_the_config_comes_back_as_it_was(tmp_path):
    run = create(tmp_path)
    run.close("finished")
    again = RunRecord.reopen(run.folder)
    assert again.config == plain(CONFIG) == yaml.safe_load((run.folder / "config.yaml").read_text())
    assert again.config["rate"] == 1e-5 and again.config["shape"] == [1, 28, 28]


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(UserError, match="is not the folder of a run: it has no record.json"):
        RunRecord.reopen(tmp_path)


@pytest.mark.parametrize(
    ("state", "reason"), [("finished", None), ("interrupted", None), ("failed", "the disk is full")]
)
def test_states(state, reason, tmp_path):
    run = create(tmp_path)
    first = record(run)
    assert first["state"] == Run(run.folder).state == "running" and "ended" not in first
    run.close(state, reason)
    last = record(run)
    assert last["state"] == Run(run.folder).state == state and last.get("reason") == reason
    assert last["ended"] >= first["started"]
    assert {k: v for k, v in last.items() if k in first and k != "state"} == {
        k: v for k, v in first.items() if k != "state"
    }


def test_a_run_whose_process_is_gone_was_killed(tmp_path):
    """It says "running" still; only the lock, which the system takes from a dead process, tells."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        held = create(tmp_path, "killed")
        assert held
        os.write(writer, b"ready")
        time.sleep(600)
    os.read(reader, 5)
    folder = tmp_path / "task1" / "killed"
    assert Run(folder).state == "running"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert record_of(folder)["state"] == "running" and Run(folder).state == "killed"
    RunRecord.reopen(folder).close("finished")
    assert Run(folder).state == "finished"


def test_two_processes_cannot_train_in_one_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "WAIT", 0.1)
    run = create(tmp_path, "one")
    with pytest.raises(UserError, match="one is being trained by another process: wait for it, or stop it first"):
        RunRecord.reopen(run.folder)
    assert record(run)["state"] == "running"
    run.close("finished")
    RunRecord.reopen(run.folder)


def test_a_lock_is_waited_for(tmp_path):
    """The loaders of a killed training hold its folder a moment longer."""
    run = create(tmp_path, "one")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: (time.sleep(0.3), run.close("interrupted")))
        RunRecord.reopen(run.folder)


def test_a_run_that_cannot_begin_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "provenance", lambda: {}["what goes wrong"])
    with pytest.raises(KeyError):
        create(tmp_path, "none")
    assert list((tmp_path / "task1").iterdir()) == []


@pytest.mark.parametrize("event", ["before create", "amid write", "before fsync", "before replace"])
def test_a_full_disk_leaves_no_folder(event, tmp_path):
    with failing(event), pytest.raises(OSError):
        create(tmp_path, "none")
    assert list((tmp_path / "task1").iterdir()) == []


def test_what_is_known_of_the_machine(tmp_path):
    known = record(create(tmp_path))
    assert set(known) >= {"command", "commit", "python", "packages", "platform", "cpus", "gpu", "started", "seed"}
    assert known["cpus"] == os.cpu_count() and known["task"] == "task1"
    total = int(re.search(r"MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text())[1]) / 2**20
    assert known["memory_gib"] == pytest.approx(total, rel=0.05)
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


@pytest.fixture
def clone(tmp_path, monkeypatch) -> Path:
    """A repository of its own with a task in it, in the place of this one."""
    root = tmp_path / "clone"
    for name, text in {
        "shared/a.py": "a = 1\n",
        "shared/experiments/provenance.py": "",
        "task1_x/b.py": "b = 1\n",
        "task1_x/tests/test_b.py": "",
        "task2_y/c.py": "c = 1\n",
        ".gitignore": "ignored.py\n",
        "pyproject.toml": "[project]\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    identity = ["-c", "user.name=n", "-c", "user.email=e"]
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(provenance_module, "ROOT", root)
    monkeypatch.setattr(provenance_module, "__file__", str(root / "shared/experiments/provenance.py"))
    return root


def test_the_source_is_kept_as_it_lies_on_the_disk_git_or_not(clone, tmp_path):
    (clone / "shared" / "a.py").write_text("a = 2\n")
    (clone / "untracked.py").write_text("u = 1\n")
    (clone / "ignored.py").write_text("i = 1\n")
    (clone / "large.py").write_text("#" * (provenance_module.LARGEST + 1))
    run = create(tmp_path / "runs")
    with zipfile.ZipFile(run.folder / "source.zip") as file:
        kept = {name: file.read(name).decode() for name in file.namelist()}
    assert kept.pop("shared/experiments/provenance.py") == "" and kept.pop("pyproject.toml")
    kept = {name: text for name, text in kept.items() if not name.startswith("own/")}  # this test's own modules
    assert kept == {"shared/a.py": "a = 2\n", "task1_x/b.py": "b = 1\n", "untracked.py": "u = 1\n"}
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=clone, capture_output=True, text=True).stdout.strip()
    assert record(run)["commit"] == head and record(run)["untracked"] == ["large.py", "untracked.py"]
    subprocess.run(["git", "stash", "-q"], cwd=clone, check=True, env={**os.environ, **IDENTITY})
    patch = run.folder / "changes.patch"
    subprocess.run(["git", "apply", str(patch)], cwd=clone, check=True)
    assert (clone / "shared" / "a.py").read_text() == "a = 2\n"


def test_source_of_ones_own_beside_it_is_kept(clone, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    monkeypatch.syspath_prepend(tmp_path / "mine")
    for name, text in {"own_one.py": "import own_two.part\n", "own_two/__init__.py": "", "own_two/part.py": ""}.items():
        (tmp_path / "mine" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "mine" / name).write_text(text)
    (tmp_path / "mine" / "not_imported.py").write_text("")
    importlib.import_module("own_one")
    kept = {name for name in provenance_module.source_files("task1") if name.startswith("own/")}
    assert kept >= {"own/own_one.py", "own/own_two/__init__.py", "own/own_two/part.py"}
    assert "own/not_imported.py" not in kept and not any(name.startswith(("own/torch", "own/numpy")) for name in kept)


def test_without_changes_there_is_no_patch_and_the_same_source_is_kept_once(clone, tmp_path):
    run = create(tmp_path / "runs", "a")
    assert not (run.folder / "changes.patch").exists()
    run.close("interrupted")
    for changed, kept in (
        (False, ["source.zip"]),
        (True, ["source-3.zip", "source.zip"]),
        (True, ["source-3.zip", "source.zip"]),
    ):
        if changed:
            (clone / "task1_x" / "b.py").write_text("b = 3\n")
        again = RunRecord.reopen(run.folder)
        again.go_on(0)
        again.close("interrupted")
        assert sorted(path.name for path in run.folder.glob("*.zip")) == kept
    sources = [session["source"] for session in record(run)["resumed"]]
    assert sources == ["source.zip", "source-3.zip", "source-3.zip"]


def test_an_environment_inside_somebodys_repository_is_not_of_its_commit(clone, tmp_path, monkeypatch):
    """Code that git does not track there."""
    monkeypatch.setattr(provenance_module, "__file__", str(clone / "ignored.py"))
    assert git("rev-parse", "HEAD") is None


def test_the_command_is_kept_as_it_was_given(tmp_path):
    script = "from shared.experiments.provenance import command_line; print(command_line())"
    (tmp_path / "my_module.py").write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for given in (["-m", "my_module", "--a", "b c"], ["my_module.py", "--a", "b c"]):
        command = [sys.executable, *given]
        out = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
        start = "python -m my_module" if given[0] == "-m" else "my_module.py"
        assert out.strip() == f"{start} --a 'b c'"


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


def test_time_images_and_memory_are_counted_over_all_sessions(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(run_module.time, "perf_counter", lambda: clock[0])
    run = create(tmp_path, "a")
    for n, seconds in ((1, 5.0), (2, 6.0), (3, 7.0)):
        clock[0] += seconds
        run.reached(n, 10 * n)
        run.log(n, {"loss": 1.0})
    del run  # killed: it is not closed
    again = RunRecord.reopen(tmp_path / "task1" / "a")
    again.go_on(2)
    clock[0] += 8.0
    again.reached(3, 30)
    again.close("finished")
    last = record(again)
    assert (last["seconds"], last["images"], last["step"]) == (5 + 6 + 8, 30, 3)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # or that of a larger parent
    assert 0.05 < last["peak_memory_gib"] < 1.05 * peak
    assert Run(again.folder).seconds_at(2) == 11 and Run(again.folder).seconds_at(3) == 19
    assert Run(again.folder).amount("images") == 30


def test_rewinding_forgets_what_a_resumed_run_writes_again(tmp_path):
    run = create(tmp_path)
    path = run.folder / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": n, "loss": n / 10}) + "\n" for n in (1, 2, 3, 4)) + '{"step": 5, "lo')
    run.go_on(2)
    assert [f["step"] for f in figures(run)] == [1, 2]
    run.go_on(2)
    assert path.read_text().endswith("\n") and len(figures(run)) == 2


def test_rewinding_without_figures(tmp_path):
    run = create(tmp_path)
    run.go_on(3)
    assert not (run.folder / "metrics.jsonl").exists()


def test_the_latest_run_is_the_one_started_last(tmp_path):
    runs = [create(tmp_path, name) for name in ("b", "c", "a")]
    assert latest_run(tmp_path, "task1") == runs[-1].folder
    runs[0].note({"started": 1e12})
    assert latest_run(tmp_path, "task1") == runs[0].folder


def test_no_run_at_all(tmp_path):
    with pytest.raises(UserError, match="there is no run in .*task1: train one first"):
        latest_run(tmp_path, "task1")


def test_a_run_may_be_renamed_while_it_is_trained(tmp_path):
    run = create(tmp_path, "old")
    run.reached(1, 10)
    run.log(1, {"loss": 1.0})
    run.folder.rename(tmp_path / "task1" / "new")
    run.reached(2, 20)
    run.log(2, {"loss": 0.5})
    assert run.folder == tmp_path / "task1" / "new"
    run.close("finished")
    assert run.folder == tmp_path / "task1" / "new"  # still known when nobody trains in it
    assert [path.name for path in (tmp_path / "task1").iterdir()] == ["new"]
    found = Run(tmp_path / "task1" / "new")
    assert found.state == "finished" and [line["step"] for line in found.metrics] == [1, 2]


def test_a_run_that_was_removed_while_it_was_trained_does_not_come_back(tmp_path):
    run = create(tmp_path, "gone")
    run.folder.rename(tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="gone was moved or removed while it was trained"):
        run.close("finished")
    assert list((tmp_path / "task1").iterdir()) == []


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[2J", "a\udcff"])
def test_a_name_can_be_printed(name, tmp_path):
    with pytest.raises(UserError, match="must be the name of a folder"):
        create(tmp_path, name)


def test_a_renamed_run_is_not_taken_for_the_one_that_has_its_old_name_now(tmp_path):
    run = create(tmp_path, "a")
    run.folder.rename(tmp_path / "task1" / "b")
    other = create(tmp_path, "a")
    run.log(1, {"loss": 1.0})
    run.close("failed", "a reason")
    assert Run(tmp_path / "task1" / "a").state == "running" and Run(tmp_path / "task1" / "b").state == "failed"
    assert not (other.folder / "metrics.jsonl").exists()


def test_a_name_is_free_again_if_its_run_was_killed_before_it_wrote_anything(tmp_path):
    folder = tmp_path / "task1" / "mine"
    folder.mkdir(parents=True)
    (folder / ".lock").touch()
    (folder / ".partial-record.json").write_text("{")
    run = create(tmp_path, "mine")
    assert run.folder == folder and Run(folder).state == "running"


@pytest.mark.parametrize("task", ["/etc", "../task1", "", 3, None, "task1_unconditional"])
def test_a_record_that_names_no_stage_is_refused(task, tmp_path):
    run = create(tmp_path, "a")
    run.close("interrupted")
    content = {**record(run), "task": task}
    (tmp_path / "task1" / "a").rename(tmp_path / "a")  # whose name is no stage's either
    (tmp_path / "a" / "record.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="record.json is damaged: it names no stage"):
        RunRecord.reopen(tmp_path / "a")


def test_lines_of_figures_that_cannot_be_read_are_kept(tmp_path):
    run = create(tmp_path, "a")
    run.log(1, {"loss": 1.0})
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write("{half a li\n")
    run.close("interrupted")
    again = RunRecord.reopen(run.folder)
    again.go_on(1)
    assert "{half a li" in (again.folder / "metrics-damaged.jsonl").read_text() and len(figures(again)) == 1


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system tells no high-water mark of memory")
def test_peak_memory_is_this_process_own(tmp_path):
    """On Linux the usual account begins at the parent's."""
    script = "from shared.experiments.provenance import peak_memory_gib; print(peak_memory_gib()['peak_memory_gib'])"
    ballast = bytearray(2**29)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    out = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert 0 < float(out.stdout) < 0.3 < len(ballast) / 2**30


def test_two_processes_that_want_one_name(tmp_path):
    """One has it, the other is told so."""
    script = (
        "import sys, time\nfrom shared.errors import UserError\nfrom shared.experiments.config import RunConfig\n"
        "from shared.experiments.run import RunRecord\n"
        f"try: run = RunRecord.create('task1', RunConfig({str(tmp_path)!r}, 'mine'), {{}})\n"
        "except UserError as error: print(error)\nelse: print('mine'); time.sleep(2)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script]
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted(process.communicate(timeout=120)[0].strip() for process in both)
    assert said[0] == "mine" and said[1].startswith("the run ") and "exists: choose another --run.name" in said[1]
