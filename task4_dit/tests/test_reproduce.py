"""A student is made again from its run's folder alone, bit for bit: its teacher and its autoencoder lie there."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shared.experiments import provenance
from shared.experiments import run as run_module
from shared.experiments.history import Run
from shared.tests.commands import losses, same
from shared.tests.made_runs import call
from task4_dit.tests.commands import DISTILL, do_distill, do_train
from task4_dit.tests.conftest import on_latents

STEPS = "--train.steps 2 --train.log-every 1 --optimizer.lr 0.01 --averages.ema 0.5".split()
KEPT = ["autoencoder.safetensors", "config.yaml", "teacher.safetensors"]


@pytest.fixture(autouse=True)
def its_own_command(monkeypatch):
    """Which command has made a run is asked for each of them."""
    monkeypatch.setattr(run_module, "provenance", provenance.provenance)


def left_alone(teacher: list[object], folder: Path) -> Path:
    """The run of a student, in a folder of its own; its teacher's is gone."""
    do_train(*teacher, *STEPS, "--run.name", "t").well()
    do_distill(*DISTILL, *STEPS, "--distill.teacher", "runs/task4/t", "--distill.levels", 4, "--run.name", "s").well()
    run = shutil.move(Path("runs/task4-distill/s"), folder / "renamed")
    shutil.rmtree("runs")
    return run


def reproduced(run: Path, out: Path) -> Path:
    """What the command that `runs reproduce` names has trained, with the code of the run."""
    ended = call("reproduce", run, "--out", out)
    assert ended.status == 0 and ended.err == "", ended
    assert sorted(p.name for p in out.iterdir() if p.is_file()) == KEPT
    command = ended.out.splitlines()[-1]
    assert shlex.split(command)[:3] == ["cd", str(out), "&&"] and "--distill.teacher teacher.safetensors" in command
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    kept["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    done = subprocess.run(command, shell=True, env=kept, cwd=out.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out / "runs" / "task4-distill" / "s"


def test_a_student_on_latents_is_made_again_from_its_folder_alone(folder_data, here, tmp_path_factory):
    run = left_alone(on_latents(folder_data), tmp_path_factory.mktemp("elsewhere"))
    again = reproduced(run, here / "again")
    assert same(again, run) and losses(again) == losses(run) and len(losses(again)) == 2
    assert Run(again).state == "finished"
