"""Stage 2 by several processes: an autoencoder against its discriminator, and a diffusion of its latents."""

import pytest

from shared.tests.launched import assert_near, launch
from task2_latent.tests.commands import AUTOENCODER, DIFFUSION, do_autoencoder, do_train

COMMON = "--train.steps 4 --train.accumulate 2 --train.log-every 1 --train.sample-every 2 --train.workers 0".split()
ADVERSARIAL = [
    *"--loss.adversarial 0.5 --loss.adversarial-start 2 --loss.perceptual none".split(),
    *"--discriminator.width 8 --discriminator.layers 2".split(),
]  # from the third step on, with the adaptive weight: a gradient through both networks, before the one for the step


@pytest.mark.slow
def test_two_processes_train_as_one_does(here):
    """Both measure the latents; they find what the other left."""
    runs = here / "runs"
    autoencoder = [*AUTOENCODER, *COMMON, *ADVERSARIAL, "--run.folder", runs]
    do_autoencoder(*autoencoder, "--run.name", "one").well()
    ours = runs / "task2-autoencoder" / "one"
    diffusion = [*DIFFUSION, *COMMON, "--run.folder", runs, "--latents.autoencoder", ours]
    do_train(*diffusion, "--run.name", "one").well()
    measured = (ours / "latents.json").read_text()
    (ours / "latents.json").unlink()
    first = ["task2_latent.train_autoencoder", *autoencoder, "--run.name", "two"]
    ended = launch("-m", "shared.tests.launched", *first, "---", "task2_latent.train", *diffusion, "--run.name", "two")
    assert ended.out.splitlines() == [f"trained: {runs / name / 'two'}" for name in ("task2-autoencoder", "task2")]
    for name in ("task2-autoencoder", "task2"):
        assert_near(runs / name / "one", runs / name / "two")
        assert (runs / name / "two" / "samples" / "step-00000004.png").is_file()
    assert (ours / "latents.json").read_text() == measured


def test_an_autoencoder_is_not_shared_out(here):
    ended = do_autoencoder(*AUTOENCODER, "--train.steps", 1, "--train.shard", "true")
    assert ended.says(1, "train.shard is for a network that is trained alone, and an autoencoder is small")
