"""Each mistake ends in one line that names it, with no traceback and nothing half-written."""

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import task1_unconditional
import task2_latent
import task3_conditional
import task4_dit
from shared import films as writing
from shared.datasets import moving_digits
from shared.errors import UserError
from shared.experiments.provenance import peak_memory_gib
from shared.tests.limited import limited
from shared.tests.test_checkpoint import NO_CHECKPOINTS
from shared.training.checkpoint import read_facts, read_tensors, write_checkpoint
from task5_video.continuation import between, known_at, predicted
from task5_video.model import load
from task5_video.tests.commands import (
    BY_CAPTION,
    BY_CLASS,
    CLIPS,
    DIT,
    OWN,
    PLAIN,
    TOLD_NOTHING,
    WITHOUT,
    do_evaluate,
    do_sample,
    do_train,
    newest,
    of_stage,
    own_data,
)
from task5_video.tests.conftest import by_arguments, film, save_frames
from task5_video.train import OPTIONS as OPTIONS_OF_TRAINING
from task5_video.train import prepare

USAGE, MISTAKE = 2, 1
STAGES = {
    "stage 1": Path(task1_unconditional.__file__).parent / "results" / "digits.safetensors",
    "stage 2": Path(task2_latent.__file__).parent / "results" / "diffusion.safetensors",
    "stage 3": Path(task3_conditional.__file__).parent / "results" / "digits.safetensors",
    "stage 4": Path(task4_dit.__file__).parent / "results" / "digits.safetensors",
}
AUTOENCODER = Path(task2_latent.__file__).parent / "results" / "autoencoder.safetensors"  # of 28×28


def names(folder: Path) -> set[str]:
    """Everything in a folder and below."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def contents(folder: Path) -> dict[Path, bytes]:
    """Every file in a folder and below, but for the lock, with what is in it."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


# --- options of training ------------------------------------------------------------------------------------

OPTIONS = [
    # usage
    (BY_CLASS, ["--network", "transformer"], USAGE, "network", "dit"),
    (BY_CLASS, ["--temporal.attention", "spatial"], USAGE, "temporal.attention", "full"),
    (BY_CLASS, ["--temporal.heads", "0"], USAGE, "temporal.heads", "0"),
    (BY_CLASS, ["--given.first", "0"], USAGE, "given.first"),
    (BY_CLASS, ["--data.name", "digits"], USAGE, "data.name", "moving_digits"),
    # what does not fit together, or is not there
    (BY_CLASS, ["--temporal.heads", "3"], MISTAKE, "8 channels do not divide into 3 heads", "temporal.heads"),
    (BY_CLASS, ["--temporal.heads", "8"], MISTAKE, "8 heads of a size that 2 divides"),
    (BY_CLASS, ["--unet.patch", "5"], MISTAKE, "5", "32"),
    (BY_CLASS, ["--data.size", "20"], MISTAKE, "--data.size must be at least 24, not 20"),
    (BY_CLASS, ["--data.channels", "3"], MISTAKE, "moving_digits has 1 channel, not 3"),
    (BY_CLASS, [*DIT, "--dit.patch", "5"], MISTAKE, "patches of 5×5 do not divide 32×32", "patch"),
    (BY_CLASS, [*DIT, "--dit.heads", "3"], MISTAKE, "16", "3 attention heads"),
    (
        BY_CLASS,
        [*DIT, "--temporal.attention", "full", "--dit.conditioning", "in_context"],
        MISTAKE,
        "temporal.attention full",
        "in_context",
    ),
    (
        BY_CLASS,
        [*DIT, "--temporal.attention", "full", "--temporal.positions", "relative"],
        MISTAKE,
        "temporal.positions relative",
    ),
    (BY_CLASS, ["--condition.attributes", "vanilla"], MISTAKE, "condition.attributes", "no attributes"),
    (BY_CLASS, ["--condition.image", "concatenation"], MISTAKE, "condition.image"),
    (BY_CLASS, ["--condition.text", "cross_attention", *"--text.encoder learned".split()], MISTAKE, "attention"),
    (BY_CLASS, ["--condition.dropout", "0"], MISTAKE, "condition.dropout is 0", "guidance.scale 1"),
    (BY_CLASS, ["--latents.autoencoder", "gone"], MISTAKE, "there is no autoencoder gone"),
    (BY_CLASS, ["--latents.cache", "gone"], MISTAKE, "latents.cache holds latents of images", "leave it out"),
    (BY_CLASS, ["--latents.autoencoder", AUTOENCODER], MISTAKE, "of images 1×28×28, not 1×32×32"),
    (BY_CLASS, ["--inflate.image", "gone"], MISTAKE, "gone"),
    (BY_CLASS, ["--inflate.image", AUTOENCODER], MISTAKE, "is no image model of stages 1 to 4"),
    *[
        (BY_CLASS, ["--inflate.image", STAGES[f"stage {n}"]], MISTAKE, "images 1×28×28, and the frames are 1×32×32")
        for n in (1, 4)
    ],
    (BY_CLASS, ["--init-from", "gone"], MISTAKE, "gone"),
    (BY_CLASS, ["--init-from", STAGES["stage 4"]], MISTAKE, "this is not a config of stage 5"),
    (BY_CLASS, ["--data.name", "videos"], MISTAKE, "the data set videos needs --data.root"),
    (BY_CLASS, ["--data.name", "ucf101", "--data.root", "gone"], MISTAKE, "ucfTrainTestlist"),
]


@pytest.mark.parametrize("case", OPTIONS, ids=lambda case: " ".join(map(str, case[1]))[:60])
def test_an_option_of_training(case, here):
    plain, options, status, *parts = case
    assert do_train(*plain, "--train.steps", 2, *options).says(status, "task5-train: error: ", *parts)
    assert names(here) == set()


def test_clips_of_ones_own(own_module, here):
    for shape, options, *parts in (
        ([1, 8, 8], [], "the data set gives (1, 8, 8): clips (C, F, H, W) are needed", "task3-train"),
        ([1, 4, 9, 8], [], "4", "9"),
        ([1, 4, 8, 8], ["--condition.attributes", "vanilla"], "no attributes"),
        ([1, 0, 8, 8], [], "0"),
        ([2, 4, 8, 8], [], "clips of 2 channels: 1 or 3 are needed"),
    ):
        ended = do_train(*own_data(own_module, shape=shape), *options, "--train.steps", 2)
        assert ended.says(1, "task5-train: error: ", *parts) and names(here) == set(), shape
    ended = do_train(*own_data(own_module, length=0), "--train.steps", 2)
    assert ended.says(1, "the data set is empty") and names(here) == set()
    ended = do_train(*own_data(own_module, nothing=0), "--train.steps", 2)
    assert ended.says(1, "nothing") and names(here) == set()


# --- films --------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(here) -> Path:
    """An empty folder."""
    (here / "f").mkdir()
    return here / "f"


def of_films(*options: object) -> Any:
    """A training on the films in the folder f."""
    told = [*PLAIN, *WITHOUT, "--data.name", "videos", "--data.channels", 1, "--data.frames", 4]
    return do_train(*told, "--data.root", "f", *options, "--train.steps", 1)


def test_a_folder_with_no_films(folder):
    assert of_films().says(1, "task5-train: error: ", "no videos in f", "folders of numbered images")
    assert of_films("--data.root", "gone").says(1, "gone is no folder")
    (folder / "list.txt").write_text("nothing")
    assert of_films("--data.root", "f/list.txt").says(1, "f/list.txt is no folder")
    assert not Path("runs").exists()


def test_films_that_are_too_short_or_of_several_sizes(folder):
    writing.save_gif(film(-0.5, frames=3), folder / "short.gif")
    assert of_films().says(1, "none of 1 videos has the 4 frames of a clip: f/short.gif (3 frames)", "--data.frames")
    writing.save_gif(film(-0.5, frames=6), folder / "long.gif")
    assert of_films("--data.stride", 2).says(1, "none of 2 videos has the 7 frames")
    save_frames(film(-0.5, side=8), folder / "small")
    ended = of_films()
    assert ended.says(1, "12×12", "8×8", "bring all videos to one size", "--data.size 64")
    assert not Path("runs").exists()
    ended = of_films("--data.size", 8, "--run.name", "r").well()
    assert [line for line in ended.err.splitlines() if "short.gif" in line] == ["left out: f/short.gif (3 frames)"]


def test_films_that_cannot_be_read(folder):
    """All of them; or so many that something is wrong."""
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(3000))
    (folder / "text.gif").write_text("no film")
    ended = of_films()
    assert ended.says(1, "2 of 2 videos cannot be read", "noise.mp4", "text.gif", "--data.skip 1")
    for i in range(2):
        writing.save_mp4(film(-0.5, seed=i), folder / f"{i}.mp4")
    assert of_films().says(1, "2 of 4 videos cannot be read", "--data.skip 0.5")
    assert not Path("runs").exists()
    ended = of_films("--data.skip", 0.5, "--run.name", "r").well()
    assert ended.err.count("left out: ") == 2


def test_many_films_are_not_all_named(folder):
    for i in range(14):
        writing.save_gif(film(-0.5, frames=2), folder / f"{i}.gif")
    writing.save_gif(film(-0.5), folder / "long.gif")
    ended = of_films("--run.name", "r").well()
    assert ended.err.count("left out: ") == 11 and "left out: 4 more\n" in ended.err


# --- image models -------------------------------------------------------------------------------------------

SIZE_OF_24 = ["--data.size", 24]


def test_image_models_that_do_not_fit(images, latents, by_class, pictures, here):
    options = [*BY_CLASS, "--train.steps", 1, "--inflate.image"]
    for stage in ("task1", "task3", "task4"):
        ended = do_train(*options, images[stage], *SIZE_OF_24)
        assert ended.says(1, "is a model of images 1×32×32, and the frames are 1×24×24"), stage
    for run in (by_class, newest(by_class), latents):
        assert do_train(*options, run).says(1, "is no image model of stages 1 to 4: give a run of task3-train, say")
    ended = do_train(*options, images["task1"], "--latents.autoencoder", AUTOENCODER)
    assert ended.says(1, "is a model of pixels: leave latents.autoencoder out")
    ended = do_train(*options, images["task2"])
    assert ended.says(1, "sampling.clamp is true: latents know no bounds")
    shutil.copy(newest(images["task2"]), "alone.safetensors")
    ended = do_train(*options, "alone.safetensors", "--sampling.clamp", "false")
    assert ended.says(1, "no autoencoder.safetensors lies with it: copy that from its run")
    ended = do_train(*options, images["task1"], "--temporal.heads", 3)
    assert ended.says(1, "temporal.heads")
    assert not Path("runs").exists()


def test_an_image_model_of_other_classes(images, here):
    for n, change in enumerate((known(classes=list("9876543210")), known(classes=["x"] * 10))):
        path = copied(images["task3"], here / f"{n}.safetensors", change)
        ended = do_train(*BY_CLASS, "--train.steps", 1, "--inflate.image", path)
        assert ended.says(1, "knows other classes than the clips have: train an image model on these")
    assert not Path("runs").exists()


def test_freezing_what_nothing_is_added_to(images, here):
    frozen = ["--inflate.freeze", "true", "--temporal.attention", "none", "--temporal.convolution", "false"]
    for stage in ("task3", "task4"):
        ended = do_train(*BY_CLASS, "--train.steps", 1, "--inflate.image", images[stage], *frozen)
        assert ended.says(1, "inflate.freeze leaves nothing to train")
    frozen = ["--inflate.freeze", "true", "--inflate.weights", "false"]
    ended = do_train(*BY_CLASS, "--train.steps", 1, "--inflate.image", images["task3"], *frozen)
    assert ended.says(1, "inflate.freeze", "inflate.weights")
    assert names(here) == set()


# --- what is asked for --------------------------------------------------------------------------------------

ASKED: list[tuple[str, list[object], int, list[str]]] = [
    ("by_class", ["--label", 10], 1, ["there is no class 10: this model knows 0, 1,", "their numbers 0 to 9"]),
    ("by_class", ["--text", "a four"], 1, ["is a model that is told no text"]),
    ("unconditional", ["--label", 4], 1, ["is a model that is told no label"]),
    ("by_caption", ["--label", 4], 1, ["is a model that is told no label"]),
    ("by_caption", ["--text", "a pink three"], 1, ['holds the word "pink", which the model has not learned']),
    ("by_class", ["--out", "p.png"], 1, ["cannot read or write", "p.png"]),
    ("by_class", ["--method", "magic"], 2, ["method", "replacement"]),
    ("by_class", ["--given-frames", 0], 2, ["given_frames"]),
    ("by_class", ["--between", "true"], 1, ["--between needs the two frames", "--given"]),
    ("by_class", ["--loop", "true", "--given", "data"], 1, ["--loop has neither beginning nor end"]),
    ("by_class", ["--loop", "true", "--length", 9], 1, ["--loop has neither beginning nor end"]),
    ("by_class", ["--between", "true", "--given", "f", "--length", 9], 1, ["--between ends at a given frame"]),
    ("by_class", ["--given", "gone"], 1, ["gone cannot be read as a film or picture"]),
    ("by_class", ["--given", "gone.gif"], 1, ["gone.gif cannot be read as a film or picture"]),
    ("by_class", ["--given", "empty"], 1, ["empty cannot be read as a film or picture (the folder holds no picture)"]),
    ("by_class", ["--given", "bad.gif"], 1, ["bad.gif cannot be read as a film or picture"]),
    ("by_class", ["--given", "bad.mp4"], 1, ["bad.mp4 cannot be read as a film or picture"]),
    ("by_class", ["--given", "bad.png", "--given-frames", 1], 1, ["bad.png cannot be read as a film or picture"]),
    ("by_class", ["--given", "p.png"], 1, ["p.png has 1 of the 4 frames that are to be given", "--given-frames"]),
    ("by_class", ["--given", "p.png", "--between", "true"], 1, ["p.png has 1 of the 2 frames"]),
    ("by_class", ["--given", "film", "--given-frames", 4], 1, ["4 frames are given, of clips of 4", "fewer"]),
    ("by_class", ["--given", "film", "--given-frames", 9], 1, ["film has 6 of the 9 frames"]),
    ("by_class", ["--given", "film", "--between", "true", "--frames", 2], 1, ["have none between", "at least 3"]),
    ("by_class", ["--given", "data", "--n", 10_001], 1, ["10001 clips are asked for, and 10000 were held out", "--n"]),
    ("by_class", ["--length", 9], 1, ["--overlap is 4, of clips of 4 frames", "give fewer"]),
    ("unconditional", ["--given", "film", "--given-frames", 1], 1, ["was not trained to be given frames"]),
    ("unconditional", ["--weights", "swa"], 1, ["swa"]),
    ("by_class", ["--run", "gone"], 1, ["gone"]),
]


@pytest.mark.parametrize("case", ASKED, ids=lambda case: f"{case[0]} {' '.join(map(str, case[1]))}"[:60])
def test_what_is_asked_for(case, request, here):
    run, options, status, parts = case
    Image.new("L", (32, 32)).save("p.png")
    Path("empty").mkdir()
    for bad in ("bad.gif", "bad.mp4", "bad.png"):
        Path(bad).write_bytes(b"GIF89a nothing")
    save_frames(film(-0.5, side=28), Path("film"))
    before = names(here)
    ended = do_sample("--run", request.getfixturevalue(run), "--n", 2, *options)
    assert ended.says(status, "task5-sample: error: ", *parts) and names(here) == before


GIVEN_MORE = [
    ({"first": 2}, ["--given-frames", 3], "more than 2 first frames"),
    ({"first": 2}, ["--length", 9, "--overlap", 3], "more than 2 first frames"),
    ({"between": 1.0}, ["--given-frames", 1], "first frames"),
    ({"between": 0.0}, ["--between", "true"], "the last frame"),
]


@pytest.mark.parametrize(("trained", "options", "part"), GIVEN_MORE, ids=str)
def test_frames_that_the_network_was_not_trained_to_be_given(trained, options, part, by_class, here):
    """The other methods can."""
    path = copied(by_class, here / "x.safetensors", other("given", **trained))
    given = [] if "--length" in options else ["--given", "data"]
    ended = do_sample("--run", path, "--n", 1, *given, *options)
    assert ended.says(1, f"was not trained to be given {part}", "replacement or reconstruction")
    assert names(here) == {"x.safetensors"}


def test_given_films_of_another_shape(own_module, here):
    """Squares are brought to size, other frames are not: nobody said what to cut off."""
    do_train(*own_data(own_module, shape=[1, 4, 8, 12]), "--train.steps", 1, "--run.name", "r").well()
    save_frames(film(-0.5, side=12), Path("film"))
    options = ["--run", "runs/task5/r", "--given", "film", "--given-frames", 1, "--method", "replacement"]
    ended = do_sample(*options, "--n", 1)
    assert ended.says(1, "film is 12×12 pixels, and the model's frames are 12×8: bring it to that size")
    Path("odd").mkdir()
    for i, side in enumerate((12, 13)):
        Image.new("L", (side, 8)).save(f"odd/{i}.png")
    ended = do_sample(*options, "--given", "odd", "--given-frames", 2, "--n", 1)
    assert ended.says(1, "odd cannot be read", "not of one size") and not Path("samples").exists()


def test_errors_of_the_model_are_for_people(digits):
    start = torch.zeros(2, 1, 4, 32, 32)
    for frames in (start, start[:, :, :0]):
        with pytest.raises(UserError, match="frames are given, of clips of 4"):
            predicted(digits, frames, digits.told(2), 0, method="replacement", weight=1.0)
    with pytest.raises(UserError, match="1×1×4×16×16, and clips of 2×1×4×32×32"):
        digits.sample(2, given=known_at(torch.zeros(1, 1, 1, 16, 16), [0], 4, "replacement", 1.0))
    with pytest.raises(UserError, match="at least 3"):
        between(digits, start[:, :, :2], digits.told(2), 0, frames=2, method="replacement", weight=1.0)
    for wrong in ({"label": 12}, {"text": "a red three"}, {"label": [1, 2]}):
        with pytest.raises(UserError):
            digits.told(3, **wrong)
    with pytest.raises(UserError, match="steps"):
        digits.sample(2, steps=1001)


def test_measuring_needs_what_it_measures(by_class, here):
    assert do_evaluate("--run", by_class, "--n", 1).says(1, "at least 2 clips of 3 frames are needed, not 1 of 4")
    assert do_evaluate("--run", by_class, "--n", 4, "--frames", 2).says(1, "not 4 of 2")
    assert do_evaluate("--run", by_class, "--given", "film").says(1, "--given is film", "make it data")
    assert do_evaluate("--run", by_class, "--between", "true").says(1, "--between needs the two frames")
    assert do_evaluate("--run", by_class, "--label", 3).says(2, "label")
    path = copied(by_class, here / "x.safetensors", lambda config: {**config, "data": {"name": "videos"}})
    assert do_evaluate("--run", path).says(1, "was trained on videos, of which this command knows no figure yet")
    assert names(here) == {"x.safetensors"}


# --- runs that are gone on with -----------------------------------------------------------------------------

CHANGED = [
    (["--unet.width", 32], ["unet.width 8, not 32"]),
    (["--temporal.heads", 2], ["temporal.heads 1, not 2"]),
    (["--joint-images", 2], ["joint_images 0, not 2"]),
    (["--given.share", 0.2], ["given.share 0.5, not 0.2"]),
    (["--data.frames", 5], ["frames"]),
    (["--inflate.freeze", "true"], ["inflate.freeze"]),
]


@pytest.mark.parametrize(("options", "parts"), CHANGED, ids=str)
def test_a_resumed_run_with_another_config(options, parts, by_class, here):
    before = contents(by_class)
    ended = do_train("--resume", by_class, "--train.steps", 9, *options)
    assert ended.says(1, "the checkpoint was made with", *parts, "--init-from")
    assert contents(by_class) == before and names(here) == set()


def test_a_resumed_run_without_its_parts(images, here):
    options = [*CLIPS, "--inflate.image", images["task3"], "--train.steps", 1, "--run.name", "r"]
    do_train(*options).well()
    run = Path("runs/task5/r")
    assert do_train(*options).says(1, "exists: choose another --run.name")
    (run / "image.safetensors").write_bytes(b"none")
    assert do_train("--resume", run, "--train.steps", 2).says(1, "image.safetensors is not a checkpoint")
    (run / "image.safetensors").unlink()
    assert do_train("--resume", run, "--train.steps", 2).says(1, "image.safetensors")
    assert do_train("--resume", run, "--inflate.image", "null").says(1, "inflate.image")
    assert do_sample("--run", run, "--n", 1).status == 0  # which needs no image model


def test_weights_of_another_network(by_class, here):
    assert do_train(*BY_CLASS, "--unet.width", 32, "--init-from", by_class).says(1, "is of another network")
    assert do_train(*BY_CAPTION, "--init-from", by_class).says(1, "does not say which text encoder it was trained with")
    assert names(here) == set()


# --- checkpoints of other stages, and of strangers ----------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_a_model_of_another_stage(stage, here):
    for command in (do_sample, do_evaluate):
        assert command("--run", STAGES[stage]).says(1, "this is not a config of stage 5")
    assert names(here) == set()


def test_a_model_of_this_stage_in_another(by_class, here):
    for stage in (1, 2, 3, 4):
        ended = of_stage(f"task{stage}-sample", "--run", by_class)
        assert ended.says(1, f"this is not a config of stage {stage}")
    assert names(here) == set()


FILES = [make for make in NO_CHECKPOINTS if make.__name__ != "folder"]


@pytest.mark.parametrize("make", FILES)
def test_a_file_that_is_no_checkpoint(make, here):
    make(here / "given.safetensors")
    for ended in (
        do_sample("--run", "given.safetensors"),
        do_train(*TOLD_NOTHING, "--inflate.image", "given.safetensors"),
    ):
        assert ended.says(1, "given.safetensors is not a checkpoint of this project")
    assert "executed" not in names(here) and not {"runs", "samples"} & names(here)


def copied(run: Path, path: Path, change: Callable[[dict], Any]) -> Path:
    """The averaged weights of a run as a file, whose config was changed."""
    source = newest(run)
    tensors = {f"ema.{name}": value for name, value in read_tensors(source, "ema").items()}
    write_checkpoint(path, tensors, {"config": change(read_facts(source)["config"])})
    return path


def without(*path: str) -> Callable[[dict], dict]:
    """A config in which one thing is missing."""
    if len(path) == 1:
        return lambda config: {name: value for name, value in config.items() if name != path[0]}
    return lambda config: {**config, path[0]: without(*path[1:])(config[path[0]])}


def other(section: str, **changes: object) -> Callable[[dict], dict]:
    """A config in which some of a section is another."""
    return lambda config: {**config, section: config[section] | changes}


def changed(**changes: object) -> Callable[[dict], dict]:
    """A config in which some of it is another."""
    return lambda config: {**config, **changes}


def known(**changes: object) -> Callable[[dict], dict]:
    """A config that says that other things can be said."""
    return other("known", **changes)


def text(**changes: object) -> Callable[[dict], dict]:
    """A config with other facts of the text encoder."""
    return lambda config: other("known", text=config["known"]["text"] | changes)(config)


HOSTILE: dict[str, tuple[str, Callable[[dict], Any]]] = {
    "nothing": ("by_class", lambda config: {}),
    "a list": ("by_class", lambda config: []),
    "more": ("by_class", changed(more=1)),
    "no shape": ("by_class", without("shape")),
    "a shape of an image": ("by_class", changed(shape=[1, 32, 32])),
    "a shape of words": ("by_class", changed(shape=["one", 4, 32, 32])),
    "an endless shape": ("by_class", changed(shape=[1, 4, 32, math.inf])),
    "no frames": ("by_class", changed(shape=[1, 0, 32, 32])),
    "frames below zero": ("by_class", changed(shape=[1, -4, 32, 32])),
    "frames without end": ("by_class", changed(shape=[1, 2**62, 32, 32])),
    "channels": ("by_class", changed(shape=[2**40, 4, 32, 32])),
    "height": ("by_class", changed(shape=[1, 4, 2**62, 32])),
    "no known": ("by_class", without("known")),
    "known as a list": ("by_class", changed(known=[])),
    "no classes": ("by_class", without("known", "classes")),
    "too few classes": ("by_class", known(classes=["0"])),
    "a million classes": ("by_class", known(classes=["x"] * 1_000_000)),
    "network": ("by_class", changed(network="lstm")),
    "a network of a stranger": ("by_class", changed(network={"class_path": "trap.Shades"})),
    "another network": ("by_class", changed(network="dit")),
    "wide": ("by_class", other("unet", width=2**20)),
    "wider than numbers": ("by_class", other("unet", width=2**70)),
    "deeper": ("by_class", other("unet", blocks=10**9)),
    "levels": ("by_class", other("unet", multipliers=[1] * 40)),
    "a patch of 2^40": ("by_class", other("unet", patch=2**40)),
    "heads": ("by_class", other("temporal", heads=3)),
    "10^18 heads": ("by_class", other("temporal", heads=10**18)),
    "no time": ("by_class", other("temporal", attention="none")),
    "positions": ("by_class", other("temporal", positions="relative")),
    "no convolution": ("by_class", other("temporal", convolution=False)),
    "given twice": ("by_class", other("given", share=2)),
    "told nothing": ("by_class", other("condition", label="none")),
    "told an image": ("by_class", other("condition", image="concatenation")),
    "dim": ("by_class", other("condition", dim=2**40)),
    "steps": ("by_class", other("sampling", steps=10**9)),
    "space of pixels": ("by_class", changed(space={})),
    "wide, in captions": ("by_caption", other("dit", width=2**20)),
    "no text": ("by_caption", without("known", "text")),
    "a width of 10^30": ("by_caption", text(width=10**30)),
    "10^18 tokens": ("by_caption", text(tokens=10**18)),
    "no reader": ("by_caption", text(reader=None)),
    "no space": ("latents", without("space")),
    "another autoencoder": ("latents", other("space", autoencoder="0" * 64)),
    "deviation of zero": ("latents", other("space", deviation=[0.0, 0.0])),
    "clamped": ("latents", other("sampling", clamp=True)),
}
IMAGES: dict[str, tuple[str, Callable[[dict], Any]]] = {
    "nothing": ("task3", lambda config: {}),
    "no network": ("task3", without("network")),
    "an own network": ("task3", changed(own_network={"class_path": "trap.Shades"})),
    "a shape of words": ("task3", changed(shape=["one", 32, 32])),
    "an endless shape": ("task3", changed(shape=[1, 32, math.inf])),
    "known as a list": ("task3", changed(known=[1])),
    "known as a word": ("task3", changed(known="known")),
    "no classes": ("task3", without("known", "classes")),
    "classes as a number": ("task3", known(classes=10)),
    "wide": ("task3", other("network", width=2**20)),
    "no schedule": ("task3", without("schedule")),
    "condition of a number": ("task3", other("condition", label=7)),
    "dim": ("task3", other("condition", dim=2**40)),
    "told an image": ("task3", other("condition", image="concatenation")),
    "wide, too": ("task4", other("network", width=2**20)),
    "way": ("task4", other("network", conditioning="in_context")),
    "space of a list": ("task2", changed(space=[1])),
    "space of nothing": ("task2", changed(space={})),
    "deviation of zero": ("task2", other("space", deviation=[0.0, 0.0])),
}
SAYING = {"by_class": {"label": 3}, "by_caption": {"text": "a three moving left"}, "latents": {}}


def tried_each(folder: str) -> dict[str, list]:
    """In a process of its own: of sampling from, or of inflating, each file, what it is refused for, whether anything
    is left, and the GiB that all up to there took."""
    found, before = {}, peak_memory_gib()["peak_memory_gib"]
    moving_digits.load_digits = by_arguments(moving_digits.load_digits)  # or each training reads them anew
    config = OPTIONS_OF_TRAINING.parse([*BY_CLASS, "--sampling.clamp", "false"]).config
    for path in sorted(Path(folder).glob("*,*.safetensors")):
        kind, out, refused = path.stem.partition(",")[0], path.with_suffix(".out"), ""
        try:
            if kind in SAYING:
                model = load(path)
                model.sample(1, model.told(1, **SAYING[kind]))
            else:
                inflate = replace(config.inflate, image=str(path))
                prepare(replace(config, inflate=inflate, run=replace(config.run, folder=str(out))), None, None)
        except UserError as error:
            refused = str(error)
        found[path.stem] = [refused, out.exists(), peak_memory_gib()["peak_memory_gib"] - before]
    return found


@pytest.mark.slow
def test_what_a_stranger_says_can_be_said(by_class, by_caption, latents, images, autoencoder, here, monkeypatch):
    """Little memory is enough to see that it is none of these weights'."""
    runs = {"by_class": by_class, "by_caption": by_caption, "latents": latents, **images}
    shutil.copy(latents / "autoencoder.safetensors", "autoencoder.safetensors")
    Path("trap.py").write_text(f"open('executed', 'w')\n{OWN}")
    monkeypatch.setenv("PYTHONPATH", str(here))
    for cases in (HOSTILE, IMAGES):
        for name, (run, change) in cases.items():
            copied(runs[run], here / f"{run}, {name}.safetensors", change)
    for run in ("by_class", "by_caption", "latents"):
        copied(runs[run], here / f"{run}, unchanged.safetensors", lambda config: config)
    found = limited(f"{__name__}:tried_each", str(here), gib=1, seconds=180)
    assert len(found) == len(HOSTILE) + len(IMAGES) + 3
    for name, (refused, left, gib) in found.items():
        assert (not refused) == name.endswith(", unchanged") and not left, (name, refused)
        assert "memory" not in refused and len(refused) < 600 and gib < 0.3, (name, refused, gib)
    assert not (here / "executed").exists()
