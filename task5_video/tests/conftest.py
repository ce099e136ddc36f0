"""What the tests of the commands start from; each model is trained once, and never changed by a test."""

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from shared import films as writing
from shared.datasets import moving_digits
from shared.experiments import provenance, run
from task5_video.model import Model, load
from task5_video.tests.commands import (
    BY_CAPTION,
    BY_CLASS,
    LOOP,
    OWN,
    SAMPLING,
    TOLD_NOTHING,
    do_train,
    of_stage,
)


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
        for name in ("load_digits", "MovingDigits"):  # both are never changed
            patch.setattr(moving_digits, name, by_arguments(getattr(moving_digits, name)))
        yield


def by_arguments(make: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is called once for the same arguments."""
    found: dict[str, Any] = {}

    def made(*arguments: Any, **named: Any) -> Any:
        key = repr((arguments, named))
        if key not in found:
            found[key] = make(*arguments, **named)
        return found[key]

    return made


# --- data ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """20 pictures, 32×32 in grey, in ten folders that are called as the classes of the moving digits are."""
    folder, noise = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for i in range(20):
        path = folder / str(i % 10) / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (32, 32), dtype=np.uint8)).save(path)
    return folder


def film(shade: float, frames: int = 6, side: int = 12, channels: int = 1, seed: int = 0) -> Tensor:
    """One clip (1, C, F, side, side) in which a bright square moves over a ground of this shade, -1 to 1."""
    clip = torch.full((1, channels, frames, side, side), shade)
    for f in range(frames):
        left = (seed + f) % (side - 3)
        clip[0, :, f, 4:8, left : left + 4] = 0.8
    return clip


def save_frames(clip: Tensor, folder: Path) -> Path:
    """A clip (1, C, F, H, W) as a folder of pictures."""
    folder.mkdir(parents=True)
    for f, frame in enumerate(writing.frames(clip)):
        frame.save(folder / f"{f}.png")
    return folder


@pytest.fixture(scope="session")
def films(tmp_path_factory) -> Path:
    """Films of 12×12 pixels and 6 frames: videos, GIFs and a folder of frames, dark and light ones."""
    folder = tmp_path_factory.mktemp("films")
    for name, shade in (("dark", -0.8), ("light", 0.2)):
        for i in range(3):
            writing.save_mp4(film(shade, seed=i), folder / name / f"{i}.mp4")
            writing.save_gif(film(shade, seed=i + 3), folder / name / f"{i}.gif")
        save_frames(film(shade, seed=7), folder / f"{name}, in frames" / "0")
    return folder


@pytest.fixture(scope="session")
def own_module(tmp_path_factory):
    """The name of a module that holds `OWN`, outside the repository."""
    folder, name = tmp_path_factory.mktemp("own"), "own_shades_of_stage_5"
    (folder / f"{name}.py").write_text(OWN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(folder), *(p for p in sys.path if p not in ("", os.getcwd()))])
        yield name
        sys.modules.pop(name, None)


# --- models -------------------------------------------------------------------------------------------------

STEPS = "--train.steps 4 --train.log-every 1 --train.save-every 2 --train.keep 9 --optimizer.lr 0.01".split()


@pytest.fixture(scope="session")
def by_class(tmp_path_factory) -> Path:
    """A run of 4 steps on moving digits, to which frames are given; its weights and their average differ."""
    folder = tmp_path_factory.mktemp("by_class")
    options = ["--given.share", 0.5, "--train.sample-every", 2, "--run.folder", folder, "--run.name", "r"]
    do_train(*BY_CLASS, *STEPS, *options).well()
    return folder / "task5" / "r"


@pytest.fixture(scope="session")
def by_caption(tmp_path_factory) -> Path:
    """A run of a transformer of 4 steps on moving digits, told captions by words that it learns."""
    folder = tmp_path_factory.mktemp("by_caption")
    do_train(*BY_CAPTION, *STEPS, "--run.folder", folder, "--run.name", "r").well()
    return folder / "task5" / "r"


@pytest.fixture(scope="session")
def unconditional(tmp_path_factory) -> Path:
    """A run of 4 steps on moving digits that is told nothing."""
    folder = tmp_path_factory.mktemp("unconditional")
    do_train(*TOLD_NOTHING, *STEPS, "--run.folder", folder, "--run.name", "r").well()
    return folder / "task5" / "r"


SMALL = "--network.width 8 --network.patch 4 --network.multipliers [1] --network.attention [none]".split()
SMALL += "--network.middle-attention none".split()
TOKENS = "--network.width 16 --network.depth 1 --network.heads 2 --network.mlp-ratio 2 --network.patch 8".split()
IMAGE = [*LOOP, *SAMPLING, *"--train.steps 3 --train.batch 4 --optimizer.lr 0.01 --diffusion.predict x0".split()]
CODED = "--autoencoder.width 8 --autoencoder.patch 4 --autoencoder.multipliers [1] --autoencoder.attention [none]"
CODED += " --autoencoder.middle-attention none --autoencoder.latent-channels 2"  # 32×32 to 8×8×2


@pytest.fixture(scope="session")
def autoencoder(pictures, tmp_path_factory) -> Path:
    """An autoencoder of frames, by task2-train-autoencoder."""
    folder = tmp_path_factory.mktemp("autoencoder")
    data = ["--data.name", "folder", "--data.root", pictures, "--data.channels", 1]
    options = [*LOOP, *CODED.split(), *data, "--train.steps", 3, "--run.folder", folder, "--run.name", "ae"]
    of_stage("task2-train-autoencoder", *options).well()
    return folder / "task2-autoencoder" / "ae"


@pytest.fixture(scope="session")
def images(pictures, autoencoder, tmp_path_factory) -> dict[str, Path]:
    """Runs of image models of the stages 1 to 4, on pictures of the size and the classes of the moving digits."""
    folder = tmp_path_factory.mktemp("images")
    data = ["--data.name", "folder", "--data.root", pictures, "--data.channels", 1]
    place = ["--run.folder", folder, "--run.name", "r"]
    latents = ["--latents.autoencoder", autoencoder, "--sampling.clamp", "false", "--network.patch", 2]
    told = {
        "task1": [*SMALL],
        "task2": [*SMALL, *latents],
        "task3": [*SMALL, "--condition.label", "vanilla", "--condition.dim", 8, "--condition.dropout", 0.1],
        "task4": [*TOKENS, "--condition.label", "true", "--condition.text", "false"],
    }
    for stage, options in told.items():
        of_stage(f"{stage}-train", *IMAGE, *data, *options, "--schedule.name", "sigmoid_alpha_bar", *place).well()
    return {stage: folder / stage / "r" for stage in told}


@pytest.fixture(scope="session")
def latents(autoencoder, tmp_path_factory) -> Path:
    """A run of 4 steps on moving digits in the latents of that autoencoder, by class."""
    folder = tmp_path_factory.mktemp("latents")
    options = ["--latents.autoencoder", autoencoder, "--sampling.clamp", "false", "--unet.patch", 2]
    do_train(*BY_CLASS, *options, *STEPS, "--run.folder", folder, "--run.name", "r").well()
    return folder / "task5" / "r"


@pytest.fixture(scope="session")
def digits(by_class) -> Model:
    """The model by class, loaded."""
    return load(by_class)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty folder to be in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
