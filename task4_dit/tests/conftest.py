"""What the tests of the commands start from; each model is trained once, and never changed by a test."""

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import task2_latent
from shared.datasets import digits as digits_module
from shared.experiments import provenance, run
from task4_dit.model import Model, load
from task4_dit.tests.commands import (
    BY_CAPTION,
    BY_CLASS,
    DIFFUSION,
    DISTILL,
    OWN,
    do_distill,
    do_train,
    of_another_stage,
    own_data,
)

AUTOENCODER = Path(task2_latent.__file__).parent / "results" / "autoencoder.safetensors"  # stage 2's: 28×28 to 7×7×2


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


# --- data ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """24 pictures, 28×28 in grey, of two classes: the folders dark and light."""
    folder, noise = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for shade, name in ((40, "dark"), (200, "light")):
        (folder / name).mkdir()
        for i in range(12):
            pixels = noise.integers(shade - 30, shade + 30, (28, 28), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="session")
def folder_data(pictures) -> list[object]:
    """The options that name these pictures."""
    return ["--data.name", "folder", "--data.root", pictures, "--data.channels", 1]


@pytest.fixture(scope="session")
def cache(pictures, tmp_path_factory) -> Path:
    """Their latents, by task2-encode."""
    out = tmp_path_factory.mktemp("cache") / "latents"
    data = ["--data.name", "folder", "--data.root", pictures, "--data.channels", 1, "--autoencoder", AUTOENCODER]
    of_another_stage("task2-encode", "--device", "cpu", *data, "--out", out).well()
    return out


@pytest.fixture(scope="session")
def own_module(tmp_path_factory):
    """The name of a module that holds `OWN`, outside the repository."""
    folder, name = tmp_path_factory.mktemp("own"), "own_squares_of_stage_4"
    (folder / f"{name}.py").write_text(OWN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(folder), *(p for p in sys.path if p not in ("", os.getcwd()))])
        yield name
        sys.modules.pop(name, None)


# --- models -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def by_class(tmp_path_factory) -> Path:
    """A run of 8 steps on digits; its weights, their EMA and their SWA differ."""
    folder = tmp_path_factory.mktemp("by_class")
    every = "--train.steps 8 --train.log-every 2 --train.sample-every 4 --train.save-every 4 --train.keep 9".split()
    averages = "--averages.ema 0.9 --averages.swa-start 3 --averages.swa-every 2 --optimizer.lr 0.01".split()
    do_train(*BY_CLASS, *every, *averages, "--run.folder", folder, "--run.name", "eight").well()
    return folder / "task4" / "eight"


@pytest.fixture(scope="session")
def by_caption(tmp_path_factory) -> Path:
    """A run of 4 steps on scenes of one digit with captions in both languages."""
    folder = tmp_path_factory.mktemp("by_caption")
    options = ["--data.languages", "[en,zh]", "--train.steps", 4, "--optimizer.lr", "0.01", "--averages.ema", "0.5"]
    do_train(*BY_CAPTION, *options, "--run.folder", folder, "--run.name", "four").well()
    return folder / "task4" / "four"


@pytest.fixture(scope="session")
def unconditional(tmp_path_factory) -> Path:
    """A run of 4 steps on digits that is told nothing."""
    folder = tmp_path_factory.mktemp("unconditional")
    options = ["--condition.label", "false", "--train.steps", 4, "--optimizer.lr", "0.01", "--averages.ema", "0.5"]
    do_train(*BY_CLASS, *options, "--run.folder", folder, "--run.name", "four").well()
    return folder / "task4" / "four"


@pytest.fixture(scope="session")
def latents(folder_data, tmp_path_factory) -> Path:
    """A run of 4 steps on stage 2's latents of the pictures, by class."""
    folder = tmp_path_factory.mktemp("latents")
    options = ["--train.steps", 4, "--train.save-every", 2, "--optimizer.lr", "0.01", "--averages.ema", "0.5"]
    do_train(*on_latents(folder_data), *options, "--run.folder", folder, "--run.name", "four").well()
    return folder / "task4" / "four"


def on_latents(folder_data: list[object]) -> list[object]:
    """The options of a training on these latents, by class."""
    told = "--condition.label true --condition.text false --network.patch 1 --sampling.clamp false".split()
    return [*DIFFUSION, *folder_data, *told, "--latents.autoencoder", AUTOENCODER]


@pytest.fixture(scope="session")
def told_one(own_module, tmp_path_factory) -> dict[str, Path]:
    """A run for each kind of condition, long enough to have learned what decides the shade of a square."""
    folder = tmp_path_factory.mktemp("told_one")
    long = "--train.steps 40 --train.batch 16 --optimizer.lr 0.02 --averages.ema 0.9 --train.log-every 13".split()
    for kind in ("label", "text"):
        options = [*own_data(own_module, kind, by=kind), *long, "--run.folder", folder, "--run.name", kind]
        do_train(*options, "--network.conditioning", "adaln_cross").well()
    return {kind: folder / "task4" / kind for kind in ("label", "text")}


@pytest.fixture(scope="session")
def student(by_class, tmp_path_factory) -> Path:
    """A student of 4 steps of `by_class`, by consistency."""
    folder = tmp_path_factory.mktemp("student")
    options = ["--train.steps", 4, "--optimizer.lr", "0.01", "--averages.ema", "0.5", "--distill.levels", 4]
    do_distill(*DISTILL, *options, "--distill.teacher", by_class, "--run.folder", folder, "--run.name", "s").well()
    return folder / "task4-distill" / "s"


@pytest.fixture(scope="session")
def digits(by_class) -> Model:
    """The model by class, loaded."""
    return load(by_class)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty folder to be in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
