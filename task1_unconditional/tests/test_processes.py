"""Stage 1 by several processes, started as a person does it: `torchrun` and `accelerate launch`."""

import json
import signal

import pytest
import yaml

from shared.experiments.history import Run
from shared.tests.launched import assert_near, launch, lines_of, start
from task1_unconditional.tests.commands import OWN, TINY, do_train, record

TRAIN = ["-m", "task1_unconditional.train", *TINY, *"--train.accumulate 2 --train.log-every 1".split()]
LAUNCHERS = ["torchrun", "accelerate"]


def test_two_processes_train_as_one_does(here):
    options = [*TRAIN[2:], *"--train.steps 3 --train.sample-every 3".split()]
    do_train(*options, "--run.name", "alone").well()
    alone = here / "runs" / "task1" / "alone"
    for launcher in LAUNCHERS:
        ended = launch(*TRAIN[:2], *options, "--run.name", launcher, "--run.folder", here / "runs", launcher=launcher)
        run = alone.with_name(launcher)
        assert ended.status == 0, ended.err
        assert ended.out.splitlines() == [f"trained: {run}", f"pictures: {run / 'samples'}"]  # once
        assert len(lines_of(ended, "run ")) == 1 and len(lines_of(ended, "step 3/3")) == 1
        assert_near(alone, run)
        assert record(run)["processes"] == 2
        names = ["samples/step-00000003.png", "samples/training.gif", "checkpoints/step-00000003.safetensors"]
        assert all((run / name).is_file() for name in names)


def test_a_stopped_training_is_gone_on_with_by_one(here):
    """SIGTERM to torchrun, which hands it on to all."""
    arguments = ["--train.steps", "400", "--train.save-every", "0", "--run.folder", here / "runs", "--run.name", "a"]
    process = start(*TRAIN, *arguments)
    for line in process.stderr:
        if line.startswith("step 3/400"):
            process.send_signal(signal.SIGTERM)
            break
    _, err = process.communicate(timeout=60)
    run = here / "runs" / "task1" / "a"
    n = record(run)["step"]
    assert record(run)["state"] == "interrupted" and 3 <= n < 400
    assert err.count(f"stopped at step {n} and saved; go on with: task1-train --resume {run}") == 1
    assert [path.stem for path in (run / "checkpoints").iterdir()] == [f"step-{n:08d}"]
    assert Run(run).state == "interrupted"  # nobody holds it
    do_train("--resume", run, "--train.steps", n + 2).well()
    do_train(*TRAIN[2:], "--train.steps", n + 2, "--run.name", "whole").well()
    assert_near(run.with_name("whole"), run)


def test_a_mistake_is_said_once(here):
    ended = launch(*TRAIN, "--train.accumulate", "3", "--run.folder", here / "runs")
    said = [line for line in ended.err.splitlines() if "error: " in line]
    assert said == [
        "train.py: error: 2 processes cannot share 3 micro-batches evenly: make train.accumulate a multiple"
    ]
    assert ended.status == 1 and not (here / "runs").exists()


def test_what_goes_wrong_in_another_process_is_said_and_recorded(here):
    """A sample that cannot be loaded, which the second process meets first."""
    (here / "own.py").write_text(OWN + FAILING)
    (here / "config.yaml").write_text(yaml.safe_dump({"own_data": {"class_path": "own.Failing"}}))
    own = ["--config", here / "config.yaml", "--train.workers", "0", "--run.folder", here / "runs", "--run.name", "a"]
    ended = launch(*TRAIN[:2], *own, *TRAIN[2:], "--train.steps", "9", PYTHONPATH=str(here))
    assert ended.status == 1
    assert "train.py [process 1]: error: sample 7 is broken" in ended.err
    found = record(here / "runs" / "task1" / "a")
    assert found["state"] == "failed" and found["reason"] == "process 1 ended: error: sample 7 is broken"


FAILING = '''
import os

from shared.errors import UserError


class Failing(Shades):
    """Its samples cannot be loaded once a second process has taken its first ones."""

    def __init__(self):
        super().__init__(28)
        self.taken = 0

    def __getitem__(self, i):
        self.taken += 1
        if os.environ.get("RANK") == "1" and self.taken > 40:
            raise UserError("sample 7 is broken")
        return super().__getitem__(i)
'''


@pytest.mark.slow
def test_a_wrong_option_is_said_once(here):
    ended = launch(*TRAIN, "--train.nonsense", "3")
    assert ended.status == 1 and sum("nonsense" in line for line in ended.err.splitlines()) == 1


def test_epochs_decide_the_steps_and_are_gone_on_with(here):
    """5,000 digits less those held out, by 2 · 1,000 at a time."""
    run = here / "runs" / "task1" / "a"
    options = ["--train.batch", 1000, "--train.accumulate", 2, "--train.epochs", 1, "--run.name", "a"]
    falls = ["--optimizer.schedule", "step", "--optimizer.step-epochs", 2]
    do_train(*TINY, *options, *falls, "--train.save-epochs", 1).well()
    config = yaml.safe_load((run / "config.yaml").read_text())
    train, optimizer = config["train"], config["optimizer"]
    assert (record(run)["step"], train["steps"], train["epochs"]) == (3, 3, None)
    assert (train["save_every"], train["save_epochs"]) == (3, None)
    assert (optimizer["step_size"], optimizer["step_epochs"]) == (6, None)
    do_train("--resume", run, "--train.epochs", 2, *falls).well()  # what was given at first may be given again
    assert record(run)["step"] == 6 and json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 6
