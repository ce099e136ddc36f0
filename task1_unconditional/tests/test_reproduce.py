"""A run is its folder: moved elsewhere, it is gone on with, sampled, shown, and trained again bit for bit."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from shared.experiments.provenance import ROOT
from shared.tests.made_runs import call
from task1_unconditional.tests.commands import OWN, TINY, do_sample, do_train, figures, record

LOSS = "each(model, x, {}).mean()"
WHERE = "\nimport shared.cli, sys\nprint('from', shared.cli.__file__, __file__, sep='|', file=sys.stderr)\n"


def last_tensors(run: Path) -> dict[str, torch.Tensor]:
    """Everything in a run's last checkpoint."""
    return load_file(sorted((run / "checkpoints").glob("step-*.safetensors"))[-1])


def assert_same(a: Path, b: Path) -> None:
    """Every tensor of the last checkpoints, and every figure that is no measurement of time or memory."""
    one, other = last_tensors(a), last_tensors(b)
    assert one.keys() == other.keys() and [name for name in one if not torch.equal(one[name], other[name])] == []
    timeless = [[(f["step"], f["loss"], f["lr"]) for f in figures(run)] for run in (a, b)]
    assert timeless[0] == timeless[1] != []


def start(command: str | list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess:
    """A command to its end, in a folder and with nothing but this environment's programs."""
    path = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", **environment}
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PATH")}
    ended = subprocess.run(
        command, cwd=folder, env=kept | path, shell=isinstance(command, str), capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    return ended


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A repository with this code, in which somebody has changed a file and written a new one since the commit."""
    root = tmp_path_factory.mktemp("clone")
    for name in ("shared", "task1_unconditional"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("tests", "results", "__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "one"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    train = root / "task1_unconditional" / "train.py"
    assert train.read_text().count(LOSS) == 1
    train.write_text(train.read_text().replace(LOSS, f"{LOSS} * __import__('shared.untracked', fromlist=['x']).FACTOR"))
    (root / "shared" / "untracked.py").write_text("FACTOR = 1.25\n")
    return root


@pytest.fixture(scope="module")
def moved(clone, tmp_path_factory) -> Path:
    """A run of that code and of a network and data of one's own, moved away from all that it was made with."""
    work = tmp_path_factory.mktemp("work")
    (work / "mine.py").write_text(OWN + WHERE)
    data = json.dumps({"class_path": "mine.Shades", "init_args": {"size": 6}})
    own = ["--own-data", data, "--own-network", json.dumps({"class_path": "mine.Scale"})]
    every = "--train.steps 6 --train.log-every 1 --train.save-every 2 --run.name first".split()
    command = [sys.executable, "-m", "task1_unconditional.train", *TINY, *every, *own]
    ended = start(list(map(str, command)), work, PYTHONPATH=str(clone), OMP_NUM_THREADS="1")
    assert str(clone) in ended.stderr
    place = tmp_path_factory.mktemp("elsewhere") / "renamed"
    shutil.move(work / "runs" / "task1" / "first", place)
    shutil.rmtree(work)
    shutil.rmtree(clone)
    return place


def reproduced(run: Path, out: Path) -> str:
    """The command that `runs reproduce` names."""
    ended = call("reproduce", run, "--out", out)
    assert ended.status == 0 and ended.err == "", ended
    return ended.out.splitlines()[-1]


def test_what_was_changed_and_what_git_does_not_know_is_kept(moved):
    with zipfile.ZipFile(moved / "source.zip") as archive:
        assert archive.read("shared/untracked.py") == b"FACTOR = 1.25\n"
        assert b".FACTOR" in archive.read("task1_unconditional/train.py")
        assert archive.read("own/mine.py").decode() == OWN + WHERE
    assert record(moved)["untracked"] == ["shared/untracked.py"] and len(record(moved)["commit"]) == 40
    assert ".FACTOR" in (moved / "changes.patch").read_text()
    told = call("show", moved).out
    assert "with changes, see changes.patch; 1 untracked file" in told


def test_a_run_is_trained_again_from_its_folder_alone_bit_for_bit(moved, tmp_path):
    out = tmp_path / "again"
    ended = start(reproduced(moved, out), tmp_path)
    places = {tuple(line.split("|")[1:]) for line in ended.stderr.splitlines() if line.startswith("from|")}
    code = out / "code"
    assert [[Path(p).resolve() for p in place] for place in places] == [
        [(code / "shared" / "cli.py").resolve(), (code / "own" / "mine.py").resolve()]
    ]
    assert_same(moved, out / "runs" / "task1" / "first")
    difference = call("diff", moved, out / "runs" / "task1" / "first").out
    assert [f"{what}: the same" in difference for what in ("config", "machine")] == [True, True]


@pytest.mark.slow
def test_a_constant_of_the_code_changed_is_another_result(moved, tmp_path):
    """What the test before this one compares is not equal whatever was run."""
    out = tmp_path / "again"
    command = reproduced(moved, out)
    (out / "code" / "shared" / "untracked.py").write_text("FACTOR = 1.5\n")
    start(command, tmp_path)
    with pytest.raises(AssertionError):
        assert_same(moved, out / "runs" / "task1" / "first")
    one, other = figures(moved)[0]["loss"], figures(out / "runs" / "task1" / "first")[0]["loss"]
    assert other == pytest.approx(one * 1.5 / 1.25, rel=1e-5)


def test_a_run_copied_and_renamed_with_its_neighbours_gone_goes_on(here):
    every = "--train.log-every 1 --train.save-every 2".split()
    assert do_train(*TINY, *every, "--train.steps", 8, "--run.name", "whole").status == 0
    for name in ("part", "neighbour"):
        assert do_train(*TINY, *every, "--train.steps", 4, "--run.name", name).status == 0
    shutil.copytree(here / "runs" / "task1" / "part", here / "copies" / "task1" / "of another name")
    shutil.move(here / "runs" / "task1" / "whole", here / "whole")
    shutil.rmtree(here / "runs")
    copy = here / "copies" / "task1" / "of another name"
    ended = do_train("--resume", copy, "--train.steps", 8)
    assert ended.status == 0, ended.err
    assert_same(here / "whole", copy)
    assert record(copy)["state"] == "finished" and not (here / "runs").exists()
    assert do_sample("--run", copy, "--n", 1).status == 0
    told = call("--folder", here / "copies", "--format", "csv").out
    assert told.splitlines()[1].startswith("task1,of another name,finished,")
    assert "finished" in call("show", "of another name", "--folder", here / "copies").out
