"""Trainings by the variational bound, with times drawn by their losses: stopped and gone on with, and shared out."""

from pathlib import Path

import pytest
import torch

from shared.tests.commands import losses, same, whole
from shared.tests.launched import assert_near, launch
from task1_unconditional.tests.commands import TINY, do_train

LEVELS = 2  # each is soon seen as often as it takes until the losses decide
VLB = f"--bound.variance learned --bound.objective vlb --bound.loss-aware true --schedule.T {LEVELS}".split()


def train(name: str, *options: object) -> Path:
    """A run, bit for bit the same each time."""
    do_train(*TINY, *VLB, "--train.log-every", 1, "--run.name", name, *options).well()
    return Path("runs", "task1", name)


def known(run: Path) -> bool:
    """Whether the losses of every level decide how often it is drawn."""
    return bool((whole(run)["memory.seen"] >= 10).all())


def test_what_the_losses_were_is_gone_on_with(here):
    """Stopped where the memory decides already, the rest draws the same times: a run without it would not."""
    straight = train("straight", "--train.steps", 14)
    stopped = train("stopped", "--train.steps", 9)
    assert known(stopped) and not torch.equal(*whole(stopped)["memory.losses"])
    do_train("--resume", stopped, "--train.steps", 14).well()
    assert same(straight, stopped) and losses(straight) == losses(stopped)


def test_the_memory_is_what_was_seen(here):
    run = train("a", "--train.steps", 3, "--train.accumulate", 2)
    memory = whole(run)
    assert memory["memory.seen"].sum() == 3 * 2 * 4 and memory["memory.losses"].shape == (LEVELS, 10)
    filled = (memory["memory.losses"] != 0).sum(1)
    assert torch.equal(filled, memory["memory.seen"].clamp(max=10))
    assert not any(name.startswith("memory") for name in whole(train("b", "--bound.loss-aware", "false")))


def test_a_run_is_not_resumed_with_another_loss(here):
    run = train("a", "--train.steps", 1)
    before = whole(run)
    for options in (["--bound.objective", "hybrid"], ["--bound.loss-aware", "false"], ["--bound.variance", "small"]):
        ended = do_train("--resume", run, "--train.steps", 2, *options)
        assert ended.says(1, "the checkpoint was made with", options[0].removeprefix("--").replace("-", "_"))
    assert all(torch.equal(before[name], tensor) for name, tensor in whole(run).items())


@pytest.mark.slow
def test_two_processes_share_the_memory_as_one_has_it(here):
    options = [*TINY, *VLB, *"--train.accumulate 2 --train.log-every 1 --train.steps 8".split()]
    do_train(*options, "--run.name", "alone").well()
    run = here / "runs" / "task1" / "alone"
    module = ["-m", "task1_unconditional.train"]
    ended = launch(*module, *options, "--run.name", "two", "--run.folder", here / "runs")
    assert ended.status == 0, ended.err
    assert_near(run, run.with_name("two"))
    one, two = whole(run), whole(run.with_name("two"))
    assert known(run) and torch.equal(one["memory.seen"], two["memory.seen"])
    torch.testing.assert_close(one["memory.losses"], two["memory.losses"], rtol=1e-4, atol=1e-4)  # in the same places
