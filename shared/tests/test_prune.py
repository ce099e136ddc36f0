"""`runs prune`: it removes what it was told to, nothing else, and a kill at any moment leaves nothing half."""

import contextlib
import io
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
from filelock import FileLock
from torch import nn

from shared.experiments import history
from shared.experiments import prune as prune_module
from shared.experiments.history import Run, find_runs
from shared.files import is_run
from shared.tests import faults
from shared.tests.made_runs import call, change, make
from shared.training.averages import Averages
from shared.training.checkpoint import Checkpoints
from shared.training.config import AveragesConfig

DO = ("--yes", "true")


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """The folder `runs` of the current folder, with a run that is of use."""
    monkeypatch.chdir(tmp_path)
    make(Path("runs"), "good")
    return Path("runs")


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything in a folder, with the content of its files; links are not followed."""
    found = {}
    for above, folders, files in os.walk(folder):
        for name in folders + files:
            path = Path(above) / name
            found[str(path.relative_to(folder))] = path.read_bytes() if path.is_file() else None
    return found


def kept(ended, name: str, reason: str) -> bool:
    """Whether a run was kept for this reason, and that is all that happened."""
    lines = [line for line in ended.out.splitlines() if line.startswith("kept ")]
    assert ended.status == 0 and ended.err == "" and len(lines) == 1, ended
    assert f"{name}: " in lines[0] and reason in lines[0], lines
    assert ended.out.splitlines()[1:] == ["nothing is removed"]
    return True


# What is chosen


def test_it_only_says_what_it_would_do_until_it_is_told_to(root):
    make(root, "bad", state="failed", checkpoints=0)
    before = tree(root)
    ended = call("prune")
    first, last = ended.out.splitlines()
    assert first == "would remove runs/task1/bad: failed, 0.0 MiB"
    assert last.endswith(" MiB in all; to remove it: runs prune --yes true")
    assert tree(root) == before
    assert call("prune", *DO).out.startswith("removed runs/task1/bad: failed")
    assert tree(root) == {name: content for name, content in before.items() if "bad" not in name}


def test_without_a_word_only_what_cannot_be_resumed_is_removed(root):
    for state in ("failed", "running", "interrupted", "finished"):  # nobody trains: "running" means killed
        make(root, f"{state}-with", state=state)
        make(root, f"{state}-without", state=state, checkpoints=0)
    assert call("prune", *DO).status == 0
    left = {run.name for run in find_runs(root)}
    assert left == {"good", "failed-with", "running-with", "interrupted-with", "interrupted-without"} | {
        "finished-with",
        "finished-without",
    }


def test_by_state_by_name_and_by_age(root):
    now = 1.7e9 + 10 * prune_module.DAY
    for name, state, days in (("old", "finished", 9), ("new", "finished", 1), ("other", "failed", 9)):
        make(root, name, state=state, started=now - days * prune_module.DAY, ended=None)
        shutil.rmtree(root / "task1" / name / "tensorboard")
        (root / "task1" / name / "metrics.jsonl").write_text("")
    with mock.patch.object(prune_module.time, "time", lambda: now):
        ended = call("prune", "--state", "finished", "--older-than", 5)
        assert "runs/task1/old" in ended.out and "runs/task1/good" in ended.out and ended.out.count("\n") == 3
        assert call("prune", "old", "new", "--older-than", 5, *DO).out.count("removed runs") == 1
    assert {run.name for run in find_runs(root)} == {"good", "new", "other"}
    assert call("prune", "new", "--state", "failed", *DO).out == "there is no such run in runs: nothing to remove\n"


def test_a_run_in_which_something_happened_lately_is_not_old(root):
    """Its last figures count: a run may train for weeks before it is killed."""
    now = 1.7e9 + 10 * prune_module.DAY
    line = f'{{"step": 1, "time": {now - prune_module.DAY}}}\n'
    (root / "task1" / "good" / "metrics.jsonl").write_text(line)
    with mock.patch.object(prune_module.time, "time", lambda: now):
        assert "no such run" in call("prune", "good", "--older-than", 2).out
        assert "would remove" in call("prune", "good", "--older-than", 0.5).out


def test_a_run_whose_time_is_not_known_is_not_old(root):
    run = make(root, "timeless", started=None, ended=None)
    (run / "metrics.jsonl").unlink()
    assert "no such run" in call("prune", "timeless", "--older-than", 0).out


def test_nothing_to_do(root):
    assert call("prune").out == "there is no such run in runs: nothing to remove\n"
    assert "there is no run nine" in call("prune", "nine").err


def test_a_run_named_twice_is_removed_once(root):
    ended = call("prune", "good", root / "task1" / "good", f"{root}/task1/good/", *DO)
    assert ended.status == 0 and ended.out.count("removed runs") == 1 and not list(find_runs(root))


@pytest.mark.parametrize("name", [".", "../good", "checkpoints/.."])
def test_a_run_named_from_within(name, root, monkeypatch):
    monkeypatch.chdir(root / "task1" / "good")
    assert call("prune", name, *DO).out.startswith(f"removed {Path(name)}: finished")
    assert not (root.parent / "task1" / "good").exists()


def test_the_checkpoints_alone(root):
    run = make(root, "big", checkpoints=3)
    (run / "checkpoints" / ".partial-step-00000009.safetensors").write_text("")
    before = tree(run)
    ended = call("prune", "big", "--checkpoints", "true")
    assert ended.out.startswith("would remove the checkpoints of runs/task1/big: finished, 3.0 MiB\n")
    assert tree(run) == before
    assert call("prune", "big", "--checkpoints", "true", *DO).out.endswith("removed 3.0 MiB\n")
    assert tree(run) == {name: content for name, content in before.items() if "checkpoints" not in name}
    assert Run(run).state == "finished" and call("show", "big").status == 0
    assert kept(call("prune", "big", "--checkpoints", "true", *DO), "big", "it has no checkpoints")
    ended = call("prune", "--checkpoints", "true", *DO)
    assert ended.status == 1 and "--checkpoints needs to know of which runs" in ended.err


def test_a_run_with_snapshots_of_averages(tmp_path, monkeypatch):
    """As the loop writes them, and with what a killed save left; a person's file among them keeps the run."""
    monkeypatch.chdir(tmp_path)
    run = make(Path("runs"), "wide")
    averages = run / "averages"
    network = SimpleNamespace(averages=Averages(nn.Linear(1, 1), AveragesConfig(profiles=(0.05, 0.1))))
    Checkpoints(averages, keep=None).save_profiles(200, network, {})
    (averages / ".partial-step-00000400.safetensors").write_text("")
    (averages / "best.safetensors").write_text("of a person's own")
    assert kept(call("prune", "wide", *DO), "wide", "no run writes averages/best.safetensors")
    (averages / "best.safetensors").unlink()
    assert call("prune", "wide", "--checkpoints", "true", *DO).out.startswith("removed the checkpoints of runs/")
    assert (averages / "step-00000200.safetensors").exists()
    assert call("prune", "wide", *DO).out.startswith("removed runs/task1/wide") and not run.exists()


@pytest.mark.parametrize(
    "name",
    [*(f"{part}.safetensors" for part in ("base", "teacher", "pairs", "image")), "samples/step-00000500.gif"],
)
def test_what_other_stages_keep_beside(name, root):
    """What a student or a video model was made from, and clips."""
    path = root / "task1" / "good" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    assert call("prune", "good", *DO).out.startswith("removed runs/task1/good") and not path.exists()


# What is never touched


def assert_kept(root: Path, reason: str, *words: object) -> None:
    """With `--yes true`, and yet everything is as it was."""
    before = tree(root.parent)
    assert kept(call("prune", *words, *DO), "", reason)
    assert tree(root.parent) == before


@pytest.mark.parametrize("state", ["running", "finished"])
def test_a_run_that_a_process_holds(state, root):
    """ "finished" is written a moment before the process lets go."""
    make(root, "held", state=state)
    with FileLock(root / "task1" / "held" / history.LOCK):
        assert_kept(root, "it is being trained", "held")
        assert_kept(root, "it is being trained", "held", "--checkpoints", "true")


def test_a_run_that_goes_on_between_the_look_and_the_act(root):
    make(root, "held", state="failed")
    plain = prune_module.remove

    def late(target, what):
        change(target.path / "record.json", state="finished")
        return plain(target, what)

    with mock.patch.object(prune_module, "remove", late):
        ended = call("prune", "held", *DO)
    assert "kept runs/task1/held: it has changed just now" in ended.out and is_run(root / "task1" / "held")

    def locked(target, what):
        with FileLock(target.path / history.LOCK):
            return plain(target, what)

    with mock.patch.object(prune_module, "remove", locked):
        ended = call("prune", "held", *DO)
    assert "kept runs/task1/held: it is being trained" in ended.out and is_run(root / "task1" / "held")


def test_a_folder_that_is_no_run(root):
    (root / "task1" / "notes").mkdir()
    (root / "task1" / "notes" / "a.txt").write_text("")
    assert call("prune", root / "task1" / "notes", *DO).status == 1
    make(root, "theirs")
    (root / "task1" / "theirs" / "record.json").write_text('{"artist": "somebody"}')
    assert_kept(root, "its record.json is not that of a run", "theirs")


@pytest.mark.parametrize("name", ["samples/thesis.tex", "samples/mine/a.png", "evaluations/notes.txt", "tensorboard/x"])
def test_a_run_with_a_persons_own_file_in_one_of_its_folders(name, root):
    path = root / "task1" / "good" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("of a person's own")
    call("prune", "good", *DO)
    assert path.read_text() == "of a person's own" and (root / "task1" / "good" / "record.json").exists()


@pytest.mark.parametrize("name", ["notes.txt", "best.safetensors", "my/notes.txt", ".hidden", "samples.txt"])
def test_a_run_with_a_file_that_no_run_writes(name, root):
    path = root / "task1" / "good" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("of a person's own")
    assert_kept(root, f"no run writes {name.split('/')[0]}; put it elsewhere first", "good")
    assert "the checkpoints of" in call("prune", "good", "--checkpoints", "true").out


@pytest.mark.parametrize("name", ["best.safetensors", "step-1.safetensors/x"])
def test_checkpoints_with_a_file_that_no_run_writes(name, root):
    path = root / "task1" / "good" / "checkpoints" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("of a person's own")
    assert_kept(root, f"no run writes checkpoints/{name.split('/')[0]}", "good")
    assert_kept(root, f"no run writes checkpoints/{name.split('/')[0]}", "good", "--checkpoints", "true")


def test_a_damaged_run_unless_it_is_named(root):
    (make(root, "hurt", state="failed", checkpoints=0) / "record.json").write_text("{")
    assert call("prune").out.startswith("there is no such run")
    ended = call("prune", "--state", "damaged", *DO)
    assert "kept runs/task1/hurt: its record is damaged; name it" in ended.out and "damaged" in ended.err
    assert "removed runs/task1/hurt: damaged" in call("prune", "hurt", *DO).out
    assert not (root / "task1" / "hurt").exists()


def test_a_run_that_is_a_link(root):
    make(root.parent / "far", "away", state="failed", checkpoints=0)
    (root / "task1" / "link").symlink_to(root.parent.resolve() / "far" / "task1" / "away")
    assert_kept(root, "it is a link")
    assert_kept(root, "it is a link", "link")
    assert_kept(root, "it is a link", f"{root}/task1/link/")


def test_runs_outside_that_a_link_leads_to(root):
    make(root.parent / "far", "away", state="failed", checkpoints=0)
    (root / "task9").symlink_to(root.parent.resolve() / "far" / "task1")
    assert_kept(root, "where only a link leads to it")
    assert "removed" in call("prune", "away", *DO).out  # named, it is meant
    assert not (root.parent / "far" / "task1" / "away").exists()


def test_a_folder_of_runs_that_is_a_link(root):
    make(root, "bad", state="failed", checkpoints=0)
    Path("linked").symlink_to(root)
    assert "removed linked/task1/bad" in call("prune", "--folder", "linked", *DO).out
    assert not (root / "task1" / "bad").exists()


@pytest.mark.parametrize("place", ["checkpoints", "samples/far", "evaluations/deep/far", "metrics.jsonl", ".lock"])
@pytest.mark.parametrize("checkpoints", [False, True])
def test_links_inside_a_run(place, checkpoints, root):
    run, far = root / "task1" / "good", root.parent.resolve() / "far"
    far.mkdir()
    (far / "step-1.safetensors").write_text("precious")
    path = run / place
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(far if path.suffix == "" and place != ".lock" else far / "step-1.safetensors")
    if not checkpoints or place == "checkpoints":
        words = ("--checkpoints", "true") if checkpoints else ()
        assert_kept(root, f"no run writes {place}", "good", *words)
    else:
        assert call("prune", "good", "--checkpoints", "true", *DO).err == ""
    assert (far / "step-1.safetensors").read_text() == "precious"


def test_runs_elsewhere_must_be_named(root):
    away = make(root.parent / "elsewhere", "away", state="failed", checkpoints=0)
    call("prune", *DO)
    assert is_run(away)
    assert f"removed {away}" in call("prune", away, *DO).out and not away.exists()


def test_what_cannot_be_deleted_is_said_and_the_rest_goes_on(root):
    for name in ("a", "b"):
        make(root, name, state="failed", checkpoints=0)
    plain = os.rename

    def refused(source, target):
        if Path(source).name == "a":
            raise PermissionError(13, "Permission denied", str(source))
        return plain(source, target)

    with mock.patch.object(os, "rename", refused):
        ended = call("prune", *DO)
    assert ended.status == 1 and "kept runs/task1/a: it cannot be removed: Permission denied" in ended.out
    assert [run.name for run in find_runs(root)] == ["good", "a"] or is_run(root / "task1" / "a")
    assert not (root / "task1" / "b").exists()


# Kills


def kill_at(k: int, **options: object) -> bool:
    """Kill a prune before or after its k-th file operation; whether it lived so long."""
    reader, writer = os.pipe()

    def act() -> None:
        with faults.watched(faults.Killer(k, writer)), contextlib.redirect_stdout(io.StringIO()):
            prune_module.prune(["bad"], yes=True, **options)

    dead = faults.killed(act)
    os.close(reader)
    os.close(writer)
    return dead


@pytest.mark.parametrize("checkpoints", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_kill_at_any_file_operation_leaves_a_whole_run_or_none(checkpoints, tmp_path, monkeypatch):
    monkeypatch.setattr(faults, "CALLS", (*faults.CALLS, "rmdir"))
    monkeypatch.chdir(tmp_path)
    root = Path("runs")
    k, seen, dead = 0, set(), True
    while dead:
        k += 1
        run = make(root, "bad", state="failed", checkpoints=2)
        shutil.rmtree(run / "tensorboard")
        before = tree(run)
        dead = kill_at(k, checkpoints=checkpoints)
        listed = [found.name for found in find_runs(root)]
        if checkpoints:
            whole = {name: content for name, content in tree(run).items() if not name.startswith(".pruned-")}
            record = {name: content for name, content in before.items() if not name.startswith("checkpoints")}
            assert listed == ["bad"] and whole in (before, record)
            seen.add(len(whole))
        else:
            assert listed in (["bad"], []) and (not listed or tree(run) == before)
            halves = [path for path in root.glob("task1/.*") if is_run(path)]
            assert not halves or tree(halves[0]) == before  # renamed just now, and whole: the next prune removes it
            seen.add(len(listed))
        with contextlib.redirect_stdout(io.StringIO()):
            prune_module.prune(["bad"] if listed else [], checkpoints=checkpoints and bool(listed), yes=True)
        assert not list(root.glob("**/.pruned-*"))
        shutil.rmtree(root)
    assert len(seen) == 2 and k > 30, k


def test_what_a_killed_prune_left_is_named_and_counted_and_only_that(root):
    left = make(root, ".pruned-0123456789abcdef", checkpoints=2)
    inner = root / "task1" / "good" / ".pruned-fedcba9876543210"
    mine = [root / "task1" / ".pruned-mine", root / "task1" / ".pruned-0123456789abcdeg"]
    for folder in (inner, *mine):
        folder.mkdir()
        (folder / "a").write_text("a")
    (root / "task1" / ".pruned-00000000000000ff").symlink_to(mine[0].resolve())
    before = tree(root)
    ended = call("prune")
    assert ended.out.count("would remove") == 2 and "2.0 MiB in all" in ended.out and tree(root) == before
    assert call("prune", *DO).out.count("left over from a prune that was killed") == 2
    assert not left.exists() and not inner.exists() and all((folder / "a").exists() for folder in mine)
    assert (root / "task1" / ".pruned-00000000000000ff").is_symlink()


def test_what_is_left_in_a_run_that_is_being_trained_stays(root):
    inner = root / "task1" / "good" / ".pruned-fedcba9876543210"
    inner.mkdir()
    with FileLock(root / "task1" / "good" / history.LOCK):
        call("prune", *DO)
    assert inner.exists()
    call("prune", *DO)
    assert not inner.exists()
