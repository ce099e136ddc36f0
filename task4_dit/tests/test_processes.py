"""Stage 4 by several processes: as one does it, with whole weights and in shares; and a student."""

import pytest

from shared.tests.commands import call
from shared.tests.launched import assert_near, launch, lines_of
from task4_dit import distill, train
from task4_dit.tests.commands import BY_CLASS

COMMON = "--train.steps 3 --train.accumulate 2 --train.log-every 1 --train.sample-every 3 --train.workers 0".split()


@pytest.mark.slow
def test_two_processes_train_as_one_does(here):
    """In shares too: their checkpoint is the same plain file, from which one process goes on."""
    folder = ["--run.folder", here / "runs"]
    training = [*BY_CLASS, *COMMON, *folder]
    student = ["--distill.teacher", here / "runs" / "task4" / "one", "--distill.levels", 4, "--train.batch", 4]
    student = [*student, *COMMON, *folder]
    call(train.main, "train", *training, "--run.name", "one").well()
    call(distill.main, "distill", *student, "--run.name", "one").well()
    ended = launch(
        *["-m", "shared.tests.launched", train.__name__, *training, "--run.name", "two", "---"],
        *[train.__name__, *training, "--run.name", "shares", "--train.shard", "true", "---"],
        *[distill.__name__, *student, "--run.name", "two"],
    )
    runs = here / "runs"
    for task, name in (("task4", "two"), ("task4", "shares"), ("task4-distill", "two")):
        assert f"trained: {runs / task / name}" in ended.out, ended.err
        assert_near(runs / task / "one", runs / task / name)
        assert (runs / task / name / "samples" / "step-00000003.png").is_file()
    assert ended.out.count("trained: ") == 3
    for name in ("one", "shares"):
        call(train.main, "train", "--resume", runs / "task4" / name, "--train.steps", 5).well()
    assert_near(runs / "task4" / "one", runs / "task4" / "shares")


def test_processes_that_do_not_divide_the_micro_batches(here):
    ended = launch("-m", "task4_dit.train", *BY_CLASS, "--train.accumulate", 3, "--run.folder", here / "runs")
    lines = lines_of(ended, "train.py")
    assert len(lines) == 1 and "2 processes" in lines[0] and "train.accumulate" in lines[0], ended.err
    assert not (here / "runs").exists()
