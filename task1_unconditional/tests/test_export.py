"""`python -m task1_unconditional.export`: a run as one small file that can be sampled from."""

import sys
from pathlib import Path

import pytest

from shared.training.checkpoint import read_facts
from task1_unconditional import export
from task1_unconditional.tests.commands import TINY, Ended, call, do_sample, do_train

KEPT = ["--averages.profiles", "[0.05,0.1]", "--averages.snapshot-every", 1, "--averages.more", "[0.5]"]


def do_export(*arguments: object) -> Ended:
    """The module run as a program."""

    def main() -> None:
        sys.exit(export.command(export.run))

    main.__module__ = export.__name__
    return call(main, *arguments)


@pytest.fixture
def run(here) -> Path:
    """One whose averages differ."""
    assert do_train(*TINY, *KEPT, "--train.steps", 5, "--run.name", "wide").status == 0
    return Path("runs/task1/wide")


def test_any_weights_of_a_run_become_a_file_that_samples_as_they_do(run):
    """Pixel by pixel, but for what bfloat16 rounds off: and of two averages the pictures are two."""
    from PIL import Image, ImageChops

    pictures = {}
    for weights in ("ema", "model", "post-hoc-0.1"):
        ended = do_export(run, "small.safetensors", *(["--weights", weights] if weights != "ema" else []))
        assert ended.status == 0 and ended.out.endswith(f" MiB, step 5, weights {weights}\n"), ended
        assert ("relative error of the profile" in ended.err) == weights.startswith("post-hoc")
        assert read_facts(Path("small.safetensors"))["weights"] == weights
        for source, options in (("small.safetensors", []), (run, ["--weights", weights])):
            ended = do_sample("--run", source, "--n", 4, "--out", "out", *options)
            assert ended.status == 0, ended
            pictures[weights, str(source)] = Image.open(next(Path("out").glob("*.png"))).convert("L").copy()
        both = ImageChops.difference(*(pictures[weights, source] for source in ("small.safetensors", str(run))))
        assert both.getextrema()[1] <= 4, weights
    assert pictures["ema", str(run)].tobytes() != pictures["model", str(run)].tobytes()


@pytest.mark.parametrize(
    ("weights", "status", "message"),
    [
        ("swa", 1, "holds no swa weights, only model, ema, ema-0.5, profile-0.05, profile-0.1: choose"),
        ("best", 2, "best are no weights"),
    ],
)
def test_weights_that_a_run_does_not_have(weights, status, message, run):
    ended = do_export(run, "small.safetensors", "--weights", weights)
    assert ended.status == status and message in ended.err and ended.err.count("\n") == 1
    assert not Path("small.safetensors").exists()
