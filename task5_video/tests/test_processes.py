"""Stage 5 by several processes: as one does it, with single frames beside the clips and frames that are given."""

import pytest

from shared.tests.commands import call
from shared.tests.launched import assert_near, launch
from task5_video import train
from task5_video.tests.commands import BY_CLASS, DIT

COMMON = "--train.steps 3 --train.accumulate 2 --train.log-every 1 --train.sample-every 3".split()
TRAINED = ["--joint-images", 2, "--given.share", 0.5]


@pytest.mark.slow
def test_two_processes_train_as_one_does(images, here):
    """From an image model; and a transformer in shares, whose checkpoint is the same plain file."""
    place = ["--run.folder", here / "runs"]
    inflated = [*BY_CLASS, *COMMON, *TRAINED, "--inflate.image", images["task3"], *place]
    of_tokens = [*BY_CLASS, *DIT, "--condition.label", "token", *COMMON, *TRAINED, *place]
    for options, name in ((inflated, "one"), (of_tokens, "tokens")):
        call(train.main, "train", *options, "--run.name", name).well()
    ended = launch(
        *["-m", "shared.tests.launched", train.__name__, *inflated, "--run.name", "two", "---"],
        *[train.__name__, *of_tokens, "--run.name", "shares", "--train.shard", "true"],
    )
    runs = here / "runs" / "task5"
    for one, two in (("one", "two"), ("tokens", "shares")):
        assert f"trained: {runs / two}" in ended.out, ended.err
        assert_near(runs / one, runs / two)
        assert (runs / two / "samples" / "step-00000003.gif").is_file()
    assert ended.out.count("trained: ") == 2
    call(train.main, "train", "--resume", runs / "shares", "--train.steps", 4).well()
