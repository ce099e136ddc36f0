"""What the tests of the commands start from."""

from pathlib import Path

import pytest

from shared.experiments import provenance, run
from task2_latent.tests.commands import AUTOENCODER, DIFFUSION, do_autoencoder, do_train


@pytest.fixture(scope="package", autouse=True)
def no_git():
    """Asking git takes longer than a tiny training; `test_run_record.py` asks it."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (provenance, run):
            patch.setattr(module, "git", lambda *_: None)
        yield


@pytest.fixture(scope="session")
def autoencoder(tmp_path_factory) -> Path:
    """An autoencoder of a few steps on digits, never changed by a test but for its latents.json."""
    folder = tmp_path_factory.mktemp("autoencoder")
    do_autoencoder(*AUTOENCODER, "--train.steps", 6, "--run.folder", folder, "--run.name", "ae").well()
    return folder / "task2-autoencoder" / "ae"


@pytest.fixture(scope="session")
def trained(autoencoder, tmp_path_factory) -> Path:
    """A diffusion of a few steps in its space, never changed by a test."""
    folder = tmp_path_factory.mktemp("diffusion")
    options = ["--latents.autoencoder", autoencoder, "--train.steps", 4, "--train.log-every", 1]
    do_train(*DIFFUSION, *options, "--run.folder", folder, "--run.name", "four").well()
    return folder / "task2" / "four"


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty folder to be in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
