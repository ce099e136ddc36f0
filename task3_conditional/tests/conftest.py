"""What the tests of the commands start from."""

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.datasets import digits as digits_module
from shared.experiments import provenance, run
from task3_conditional.model import Model, load
from task3_conditional.tests.commands import BY_CAPTION, BY_CLASS, CLASSIFIER, OWN, do_classifier, do_train, own_data


@pytest.fixture(scope="package", autouse=True)
def no_git():
    """Asking git takes longer than a tiny training; `test_run_record.py` asks it."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (provenance, run):
            patch.setattr(module, "git", lambda *_: None)
        yield


@pytest.fixture(scope="package", autouse=True)
def done_once():
    """What takes longest in a tiny training: its provenance, its source as a zip, and 5,000 digits as text."""
    zips: dict[str, bytes] = {}

    def write_source(path: Path, task: str) -> None:
        if task not in zips:
            provenance.write_source(path, task)
            zips[task] = path.read_bytes()
        path.write_bytes(zips[task])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "provenance", functools.cache(provenance.provenance))
        patch.setattr(run, "write_source", write_source)
        patch.setattr(digits_module, "load_digits", by_config(digits_module.load_digits))
        yield


def by_config(load_data: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function of a config that is called once for each; data sets in memory are not changed."""
    found: dict[str, Any] = {}

    def loaded(config: Any) -> Any:
        if repr(config) not in found:
            found[repr(config)] = load_data(config)
        return found[repr(config)]

    return loaded


@pytest.fixture(scope="session")
def by_class(tmp_path_factory) -> Path:
    """A run of 8 steps on digits, never changed by a test; its weights, their EMA and their SWA differ."""
    folder = tmp_path_factory.mktemp("by_class")
    every = "--train.steps 8 --train.log-every 2 --train.sample-every 4 --train.save-every 4 --train.keep 9".split()
    averages = "--averages.ema 0.9 --averages.swa-start 3 --averages.swa-every 2 --optimizer.lr 0.01".split()
    do_train(*BY_CLASS, *every, *averages, "--run.folder", folder, "--run.name", "eight").well()
    return folder / "task3" / "eight"


@pytest.fixture(scope="session")
def by_caption(tmp_path_factory) -> Path:
    """A run of 4 steps on scenes of one digit with captions in both languages, never changed by a test."""
    folder = tmp_path_factory.mktemp("by_caption")
    options = ["--data.languages", "[en,zh]", "--train.steps", 4, "--optimizer.lr", "0.01", "--averages.ema", "0.5"]
    do_train(*BY_CAPTION, *options, "--run.folder", folder, "--run.name", "four").well()
    return folder / "task3" / "four"


@pytest.fixture(scope="session")
def classifier(tmp_path_factory) -> Path:
    """A classifier of noisy digits, for `by_class`; never changed by a test."""
    folder = tmp_path_factory.mktemp("classifier")
    options = ["--train.steps", 4, "--optimizer.lr", "0.01", "--run.folder", folder, "--run.name", "noisy"]
    do_classifier(*CLASSIFIER, *options).well()
    return folder / "task3-classifier" / "noisy"


@pytest.fixture(scope="session")
def own_module(tmp_path_factory):
    """The name of a module that holds `OWN`, outside the repository."""
    folder, name = tmp_path_factory.mktemp("own"), "own_squares"
    (folder / f"{name}.py").write_text(OWN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(folder), *(p for p in sys.path if p not in ("", os.getcwd()))])
        yield name
        sys.modules.pop(name, None)


WAYS = {"label": "vanilla", "attributes": "adaptive", "text": "cross_attention", "image": "concatenation"}


@pytest.fixture(scope="session")
def told_one(own_module, tmp_path_factory) -> dict[str, Path]:
    """A run for each kind of condition, long enough to have learned what decides the shade of a square."""
    folder = tmp_path_factory.mktemp("told_one")
    long = "--train.steps 40 --train.batch 8 --optimizer.lr 0.02 --averages.ema 0.9 --train.log-every 13".split()
    for kind, way in WAYS.items():
        options = [f"--condition.{kind}", way, "--run.folder", folder, "--run.name", kind]
        do_train(*own_data(own_module, by=kind), *long, *options).well()
    return {kind: folder / "task3" / kind for kind in WAYS}


@pytest.fixture(scope="session")
def told_all(own_module, tmp_path_factory) -> Path:
    """A run of 3 steps that is told everything at once, each thing in another way."""
    folder = tmp_path_factory.mktemp("told_all")
    ways = [part for kind, way in WAYS.items() for part in (f"--condition.{kind}", way)]
    options = ["--train.steps", 3, "--optimizer.lr", "0.01", "--averages.ema", "0.5", "--train.save-every", 1]
    do_train(*own_data(own_module), *ways, *options, "--run.folder", folder, "--run.name", "all").well()
    return folder / "task3" / "all"


@pytest.fixture(scope="session")
def digits(by_class) -> Model:
    """The model by class, loaded."""
    return load(by_class)


@pytest.fixture(scope="session")
def scenes(by_caption) -> Model:
    """The model by caption, loaded."""
    return load(by_caption)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty folder to be in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
