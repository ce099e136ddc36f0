"""A run that was made from an image model is made again from its folder alone, bit for bit: that model lies there."""

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
from task5_video.tests.commands import BY_CLASS, do_train

STEPS = "--train.steps 2 --train.log-every 1 --optimizer.lr 0.01 --inflate.freeze true --sampling.clamp false".split()


@pytest.fixture(autouse=True)
def its_own_command(monkeypatch):
    """Which command has made a run is asked for each of them."""
    monkeypatch.setattr(run_module, "provenance", provenance.provenance)


def test_a_run_from_an_image_model_is_made_again_from_its_folder_alone(images, here, tmp_path_factory):
    """One of latents: its autoencoder lies there too."""
    image = shutil.copytree(images["task2"], "image")
    do_train(*BY_CLASS, *STEPS, "--inflate.image", image, "--run.name", "r").well()
    run = shutil.move(Path("runs/task5/r"), tmp_path_factory.mktemp("elsewhere") / "renamed")
    shutil.rmtree("runs")
    shutil.rmtree("image")
    out = here / "again"
    ended = call("reproduce", run, "--out", out)
    assert ended.status == 0 and ended.err == "", ended
    kept = ["autoencoder.safetensors", "config.yaml", "image.safetensors"]
    assert sorted(p.name for p in out.iterdir() if p.is_file()) == kept
    command = ended.out.splitlines()[-1]
    assert shlex.split(command)[:3] == ["cd", str(out), "&&"] and "--inflate.image image.safetensors" in command
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    done = subprocess.run(command, shell=True, env=env, cwd=out.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    again = out / "runs" / "task5" / "r"
    assert same(again, run) and losses(again) == losses(run) and len(losses(again)) == 2
    assert Run(again).state == "finished"
