"""Stage 3 by several processes: a diffusion that is told classes, and a classifier."""

import pytest

from shared.tests.commands import call
from shared.tests.launched import assert_near, launch
from task3_conditional import train, train_classifier
from task3_conditional.tests.commands import BY_CLASS, CLASSIFIER

COMMON = "--train.steps 3 --train.accumulate 2 --train.log-every 1 --train.sample-every 3 --train.workers 0".split()
TRAININGS = {
    "task3": (train, [*BY_CLASS, *COMMON]),
    "task3-classifier": (train_classifier, [*CLASSIFIER, *COMMON]),
}


@pytest.mark.slow
def test_two_processes_train_as_one_does(here):
    together = []
    for module, options in TRAININGS.values():
        options = [*options, "--run.folder", here / "runs"]
        call(module.main, "train", *options, "--run.name", "one").well()
        together += [module.__name__, *options, "--run.name", "two", "---"]
    ended = launch("-m", "shared.tests.launched", *together[:-1])
    for name in TRAININGS:
        run = here / "runs" / name / "two"
        assert f"trained: {run}" in ended.out, ended.err
        assert_near(run.with_name("one"), run)
    assert ended.out.count("trained: ") == 2
    assert (here / "runs" / "task3" / "two" / "samples" / "step-00000003.png").is_file()
    tables = [(here / "runs" / "task3-classifier" / name / "accuracy.md").read_text() for name in ("one", "two")]
    assert tables[0] == tables[1]
