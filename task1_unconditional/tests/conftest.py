"""What the tests of the commands start from."""

import os
import sys
from pathlib import Path

import pytest

from shared.experiments import provenance, run
from task1_unconditional.tests.commands import OWN, TINY, do_train


@pytest.fixture(scope="package", autouse=True)
def no_git():
    """Asking git takes longer than a tiny training; `test_run_record.py` asks it."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (provenance, run):
            patch.setattr(module, "git", lambda *_: None)
        yield


@pytest.fixture(scope="package")  # not the session's, which would be made before git is left out
def trained(tmp_path_factory) -> Path:
    """A run of 8 steps on digits, never changed by a test; its weights, their EMA and their SWA differ."""
    folder = tmp_path_factory.mktemp("trained")
    every = "--train.steps 8 --train.log-every 2 --train.sample-every 4 --train.save-every 4 --train.keep 9".split()
    averages = "--averages.ema 0.9 --averages.swa-start 3 --averages.swa-every 2 --optimizer.lr 0.01".split()
    ended = do_train(*TINY, *every, *averages, "--run.folder", folder / "runs", "--run.name", "eight")
    assert ended.status == 0, ended.err
    return folder / "runs" / "task1" / "eight"


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty folder to be in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def own(here, monkeypatch) -> str:
    """A file with a data set and a network in the current folder, outside the repository; its module's name."""
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", os.getcwd())])
    name = f"own_{abs(hash(str(here)))}"
    (here / f"{name}.py").write_text(OWN)
    yield name
    sys.modules.pop(name, None)
