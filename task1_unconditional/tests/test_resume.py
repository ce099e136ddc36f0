"""A training that was killed or stopped goes on as if nothing had been: every tensor, and every figure."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

import task1_unconditional
from shared.training.checkpoint import Checkpoints, read_facts, read_tensors, write_checkpoint
from task1_unconditional.tests.commands import TINY, do_sample, do_train, figures, record

EVERY = "--train.log-every 5 --train.save-every 5".split()


def newest(run: Path) -> int:
    """The step of the newest checkpoint; 0 where there is none."""
    paths = Checkpoints(run / "checkpoints").all()
    return read_facts(paths[-1])["step"] if paths else 0


def assert_same_end(a: Path, b: Path) -> None:
    """Every tensor and number of two runs' last checkpoints, and every logged figure that is no measurement of time."""
    paths = [Checkpoints(run / "checkpoints").latest() for run in (a, b)]
    for part in ("model", "ema", "swa", "optimizer"):
        one, other = (read_tensors(path, part) for path in paths)
        assert one.keys() == other.keys() and (one or part == "swa")
        assert [name for name in one if not torch.equal(one[name], other[name])] == []
    facts = [read_facts(path) for path in paths]
    for name in ("step", "averages", "optimizer"):
        assert facts[0][name] == facts[1][name]
    timeless = [[(f["step"], f["loss"], f["gradient_norm"], f["lr"]) for f in figures(run)] for run in (a, b)]
    assert timeless[0] == timeless[1]


def begin(*options: object) -> subprocess.Popen:
    """task1-train in a process and a session of its own."""
    root = Path(task1_unconditional.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "task1_unconditional.train", *map(str, options)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for_a_checkpoint(process: subprocess.Popen, run: Path) -> None:
    """Until there is one, and a moment more."""
    deadline = time.monotonic() + 300
    while not newest(run):
        assert process.poll() is None and time.monotonic() < deadline, process.stderr.read()
        time.sleep(0.02)
    time.sleep(random.uniform(0, 0.2))


def test_a_killed_run_goes_on_bit_for_bit(here):
    """SIGKILL at a random moment after the first checkpoint: amid a step, a save, or a line of figures."""
    process = begin(*TINY, *EVERY, "--train.steps", 1_000_000, "--run.name", "killed", "--network.dropout", 0.1)
    killed = Path("runs/task1/killed")
    wait_for_a_checkpoint(process, killed)
    process.kill()
    process.communicate()
    steps = newest(killed) + 7
    assert record(killed)["state"] == "running"
    ended = do_train("--resume", killed, "--train.steps", steps)
    assert ended.status == 0, ended.err
    assert record(killed)["state"] == "finished"
    whole = [*TINY, *EVERY, "--train.steps", steps, "--run.name", "whole", "--network.dropout", 0.1]
    assert do_train(*whole).status == 0
    assert_same_end(killed, Path("runs/task1/whole"))
    assert [f["step"] for f in figures(killed)] == [*range(5, steps + 1, 5), *([steps] if steps % 5 else [])]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_says_how_to_go_on_and_goes_on_bit_for_bit(number, here, monkeypatch):
    """The signal comes at the beginning of step 6, in which nothing would have been saved."""
    from shared.training import part

    plain = part.learning_rate

    def signalling(config, n, steps):
        if n == 5:
            os.kill(os.getpid(), number)
        return plain(config, n, steps)

    options = [*TINY, "--train.steps", 12, "--train.log-every", 3, "--train.save-every", 0, "--averages.swa-start", 2]
    options += ["--averages.swa-every", 3, "--optimizer.schedule", "cosine", "--train.accumulate", 2]
    with monkeypatch.context() as patch:
        patch.setattr(part, "learning_rate", signalling)
        stopped = do_train(*options, "--run.name", "stopped")
    run = Path("runs/task1/stopped")
    assert stopped.status == 128 + number and stopped.out == ""
    message = f"stopped at step 6 and saved; go on with: task1-train --resume {run}"
    assert stopped.err.splitlines()[-1] == message
    assert record(run)["state"] == "interrupted" and newest(run) == 6

    ended = do_train(*message.partition("task1-train ")[2].split())  # as it says
    assert ended.status == 0, ended.err
    assert do_train(*options, "--run.name", "whole").status == 0
    assert_same_end(run, Path("runs/task1/whole"))
    assert record(run)["state"] == "finished"


def test_ctrl_c_before_the_first_step(here, monkeypatch):
    from shared.training import part

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(part, "Averages", interrupted)
    ended = do_train(*TINY, "--run.name", "early")
    assert ended.status == 130 and ended.err.splitlines()[-1] == "task1-train: stopped"
    assert record(Path("runs/task1/early"))["state"] == "interrupted"


def test_going_on_with_a_finished_run_changes_nothing(here):
    run = Path("runs/task1/done")
    assert do_train(*TINY, "--train.steps", 3, "--run.name", "done").status == 0
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != "record.json"}
    assert do_train("--resume", run).status == 0
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != "record.json"} == before
    assert record(run)["state"] == "finished"


def test_what_may_change_may_change(here):
    run = Path("runs/task1/more")
    assert do_train(*TINY, "--train.steps", 2, "--run.name", "more").status == 0
    changes = "--train.steps 4 --train.log-every 1 --train.save-every 1 --train.keep 5 --train.workers 0".split()
    assert do_train("--resume", run, *changes, "--train.sample-every", 4).status == 0
    assert newest(run) == 4 and len(list((run / "checkpoints").iterdir())) == 3
    assert (run / "samples" / "step-00000004.png").exists()
    assert do_sample("--run", run, "--n", 1).status == 0


def test_a_resumed_run_keeps_its_start_and_its_config(here):
    run = Path("runs/task1/twice")
    assert do_train(*TINY, "--train.steps", 2, "--run.name", "twice").status == 0
    before, config = record(run), (run / "config.yaml").read_text()
    assert do_train("--resume", run, "--train.steps", 3).status == 0
    assert record(run)["started"] == before["started"] and record(run)["ended"] > before["ended"]
    assert (run / "config.yaml").read_text() == config


SINCE = {  # fields that configs have got since the first runs
    "data": ("flip", "crop", "bad_share"),
    "averages": ("more", "profiles", "snapshot_every"),
    "bound": ("variance", "objective", "share", "loss_aware"),
    "diffusion": ("times", "time_mean", "time_deviation"),
}


def age(run: Path) -> None:
    """Leave of a run's configs, the checkpoint's and the folder's, what an early version wrote."""
    checkpoint, text = Checkpoints(run / "checkpoints").latest(), run / "config.yaml"
    facts, tensors = read_facts(checkpoint), {}
    for part in ("model", "ema", "optimizer"):
        tensors |= {f"{part}.{name}": tensor for name, tensor in read_tensors(checkpoint, part).items()}
    for config in (facts["config"], written := yaml.safe_load(text.read_text())):
        for section, fields in SINCE.items():
            for field in fields:
                del config[section][field]
            if not config[section]:
                del config[section]
    assert tensors.keys() == facts.pop("digests").keys()
    write_checkpoint(checkpoint, tensors, facts)
    text.write_text(yaml.safe_dump(written))


def test_a_run_of_an_earlier_version_goes_on_bit_for_bit(here):
    old, options = Path("runs/task1/old"), [*TINY, *EVERY, "--diffusion.predict", "x0"]
    assert do_train(*options, "--train.steps", 5, "--run.name", "old").status == 0
    age(old)
    for change, message in (
        (("--averages.more", "[0.5]"), "averages.more [], not [0.5]"),
        (("--bound.objective", "vlb"), "bound.objective simple, not vlb"),
        (("--diffusion.predict", "v"), "diffusion.predict x0, not v"),
    ):
        refused = do_train("--resume", old, "--train.steps", 10, *change)
        assert refused.status == 1 and f"the checkpoint was made with {message}: resume with" in refused.err
    ended = do_train("--resume", old, "--train.steps", 10)
    assert ended.status == 0, ended.err
    assert do_train(*options, "--train.steps", 10, "--run.name", "whole").status == 0
    assert_same_end(old, Path("runs/task1/whole"))
    now, whole = (
        read_facts(Checkpoints(run / "checkpoints").latest())["config"] for run in (old, old.parent / "whole")
    )
    assert {**now, "run": None} == {**whole, "run": None}


def streaming(own: str, *options: object) -> list[object]:
    """Options of a training on data of one's own, random in itself and slow to load, through worker processes."""
    data = json.dumps({"class_path": f"{own}.Shades", "init_args": {"size": 6, "seconds": 0.02}})
    network = json.dumps({"class_path": f"{own}.Scale"})
    own_code = ["--own-data", data, "--own-network", network]
    return [*TINY, *EVERY, *own_code, "--train.workers", 2, *options]


@pytest.mark.slow
def test_ctrl_c_while_workers_load_data(own, here):
    """A terminal sends it to the workers too, most likely while the training waits for them: they must go on."""
    process = begin(*streaming(own, "--train.steps", 1_000_000, "--run.name", "stream"))
    run = Path("runs/task1/stream")
    wait_for_a_checkpoint(process, run)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130 and "Traceback" not in err, err
    step = newest(run)
    last = f"stopped at step {step} and saved; go on with: task1-train --resume {run} --trust true"
    assert err.splitlines()[-1] == last
    resumed = do_train("--resume", run, "--trust", "true", "--train.steps", step + 9, "--train.workers", 1)
    assert resumed.status == 0, resumed.err
    whole = streaming(own, "--train.steps", step + 9, "--run.name", "whole", "--train.workers", 0)
    assert do_train(*whole).status == 0
    paths = [Checkpoints(Path(f"runs/task1/{name}/checkpoints")).latest() for name in ("stream", "whole")]
    for part in ("model", "ema", "optimizer"):
        one, other = (read_tensors(path, part) for path in paths)
        assert all(torch.equal(one[name], other[name]) for name in one) and one.keys() == other.keys()


@pytest.mark.slow
def test_images_too_large_for_memory_are_streamed_and_resumed(here, monkeypatch):
    """The folder of images, read by workers: killed amid, and gone on with."""
    import numpy as np
    from PIL import Image

    from shared.datasets import folder

    monkeypatch.setattr(folder, "IN_MEMORY", 0)
    (here / "pictures").mkdir()
    for i in range(23):
        noise = np.random.default_rng(i).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(noise).save(here / "pictures" / f"{i}.png")
    options = [*TINY, *EVERY, *"--data.name folder --data.root pictures --data.channels 1 --train.workers 1".split()]
    assert do_train(*options, "--train.steps", 10, "--run.name", "halves").status == 0
    halves = Path("runs/task1/halves")
    (halves / "checkpoints" / "step-00000010.safetensors").unlink()  # as if killed before it was saved
    assert do_train("--resume", halves).status == 0
    assert do_train(*options, "--train.steps", 10, "--run.name", "whole").status == 0
    assert_same_end(halves, Path("runs/task1/whole"))
