"""The commands of stage 5: what they leave behind, how a run is gone on with, and what their figures say."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

from shared import films as writing
from shared.datasets.video import load_video
from shared.datasets.video_config import VideoConfig
from shared.experiments.history import Run
from shared.metrics import video
from shared.schedulers.config import GuidanceConfig
from shared.tests.commands import call, figures, losses, same
from shared.training import part
from shared.training.checkpoint import read_facts, read_tensors
from task5_video import export
from task5_video.continuation import between, extended, known_at, predicted
from task5_video.films_given import held_out
from task5_video.model import Model, load
from task5_video.tests.commands import (
    CLIPS,
    DIT,
    PLAIN,
    RUNS,
    TOLD_NOTHING,
    WITHOUT,
    do_evaluate,
    do_sample,
    do_train,
    newest,
    own_data,
    trained,
)
from task5_video.tests.conftest import film, save_frames

REPLACED = ["--method", "replacement"]
EVERY = ["--train.log-every", 1, "--train.save-every", 1, "--train.keep", 9]
FAST = ["--optimizer.lr", 0.02]


def files(folder: str | Path) -> set[str]:
    """Every file in a folder and below."""
    return {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()}


def shades(clips: Tensor) -> list[np.ndarray]:
    """What each frame of a film of clips (N, 1, F, H, W) in one row shows, 0 to 255, by hand; alone, without lines."""
    gap = 2 if len(clips) > 1 else 0
    shown = ((clips[:, 0].clamp(-1, 1) + 1) * 127.5).numpy()
    height, width = shown.shape[2:]
    pages = []
    for f in range(shown.shape[1]):
        page = np.full((height + 2 * gap, len(shown) * (width + gap) + gap), 255.0)
        for i, clip in enumerate(shown):
            left = gap + i * (width + gap)
            page[gap : gap + height, left : left + width] = clip[f]
        pages.append(page)
    return pages


def pages_of(path: str | Path) -> list[np.ndarray]:
    """The frames of a GIF, (H, W) each; of equal ones in a row, which GIF keeps as one, the first."""
    with Image.open(path) as picture:
        found = []
        for number in range(getattr(picture, "n_frames", 1)):
            picture.seek(number)
            found.append(np.asarray(picture.convert("L"), dtype=float))
        return found


def shows(path: str | Path, clips: Tensor) -> bool:
    """Whether a GIF shows these clips (N, 1, F, H, W) side by side, to the rounding of 256 shades."""
    pages, expected = pages_of(path), shades(clips)
    assert len(pages) == len(expected) and pages[0].shape == expected[0].shape, (len(pages), pages[0].shape)
    return max(np.abs(page - one).max() for page, one in zip(pages, expected, strict=True)) <= 1


def drawn(*options: object, n: int = 2) -> None:
    """task5-sample of n clips, each pixel as it is."""
    do_sample("--n", n, "--upscale", 1, *options).well()


def test_help_names_every_option_and_needs_no_torch():
    script = """
import contextlib, importlib, io, sys
for name in ("train", "sample", "evaluate"):
    sys.argv, out = [name, "--help"], io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        importlib.import_module(f"task5_video.{name}").main()
    print(repr(("".join(out.getvalue().split()), "torch" in sys.modules)))  # a line may end at any hyphen
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    (train, _), (sample, _), (evaluate, torch_there) = map(eval, ended.stdout.splitlines())
    assert not torch_there
    of_training = "inflate.image inflate.freeze joint_images given.share temporal.attention unet.width dit.patch resume"
    assert [name for name in of_training.split() if f"--{name}" not in train] == []
    of_sampling = "given given_frames between method weight length overlap loop frames label text scale fps singles"
    assert [name for name in of_sampling.split() if f"--{name}" not in sample] == []
    assert [name for name in "given between length loop out".split() if f"--{name}" not in evaluate] == []


# --- training -----------------------------------------------------------------------------------------------


def test_a_run_by_class_is_whole(by_class, digits):
    run = Run(by_class)
    assert (run.state, run.task, run.amount("step"), run.amount("images")) == ("finished", "task5", 4, 8)
    assert not run.problems and [line["step"] for line in run.metrics] == [1, 2, 3, 4]
    assert run.config["condition"]["label"] == "vanilla" and not {"known", "shape", "space"} & run.config.keys()
    config = read_facts(newest(by_class))["config"]
    assert config["shape"] == [1, 4, 32, 32] and config["known"]["classes"] == [str(digit) for digit in range(10)]
    assert config["space"] is None and digits.shape == (1, 4, 32, 32)
    assert files(by_class / "samples") == {f"step-0000000{n}.{kind}" for n in (2, 4) for kind in ("png", "gif")}
    assert files(by_class / "checkpoints") == {f"step-0000000{n}.safetensors" for n in (2, 4)}


def test_a_runs_pictures_show_the_averaged_weights(by_class, digits):
    """Ten clips, told what ten of the data are, at the run's guidance; of the same noise at each step."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        numbers = torch.randint(45_000, (10,)).tolist()
    data = load_video(VideoConfig(frames=4))
    clips = digits.sample(10, digits.told(10, label=[int(data[i][1]["label"]) for i in numbers]), 0)
    pages = pages_of(by_class / "samples" / "step-00000004.gif")
    for f, page in enumerate(pages):
        for i in range(10):
            top, left = 2 + i // 4 * 34, 2 + i % 4 * 34
            assert np.abs(page[top : top + 32, left : left + 32] - shades(clips[i : i + 1])[f]).max() <= 1
    with Image.open(by_class / "samples" / "step-00000004.png") as sheet:
        assert sheet.size == (4 * 34 + 2, 8 * 34 + 2)
        rows = np.asarray(sheet.convert("L"), dtype=float)
    assert np.abs(rows[2 + 34 * 3 :, 2 + 34 * 2 :][:32, :32] - shades(clips[3:4])[2]).max() <= 1


def moved(run: Path) -> dict[str, bool]:
    """Of each weight, whether the training has changed it between the first and the last checkpoint."""
    first, *_, last = sorted((run / "checkpoints").iterdir())
    then, now = read_tensors(first, "model"), read_tensors(last, "model")
    return {name: not torch.equal(then[name], now[name]) for name in now}


ATTENDS = ["--unet.middle-attention", "full", "--unet.heads", 1]
WAYS = {
    "unet, full, relative": [*ATTENDS, "--temporal.attention", "full", "--temporal.positions", "relative"],
    "unet, no attention, joint images": ["--temporal.attention", "none", "--joint-images", 2, "--given.share", 0.5],
    "dit, relative, joint images": [*DIT, "--temporal.positions", "relative", "--joint-images", 2],
    "dit, full": [*DIT, "--temporal.attention", "full"],
}


@pytest.mark.parametrize("way", WAYS)
def test_every_kind_of_network_trains_and_goes_on_bit_for_bit(way, here):
    """Every weight is learned; the model samples, also clips of another length."""
    label = ["--condition.label", "token" if "dit" in way else "vanilla", "--condition.dropout", 0.5]
    run = trained(*CLIPS, *label, *WAYS[way], *EVERY, *FAST, "--train.steps", 4, name="r")
    assert all(moved(run).values()), [name for name, there in moved(run).items() if not there]
    again = cut(run, 3)
    do_train("--resume", again).well()
    assert same(again, run) and losses(again) == losses(run) and Run(again).amount("step") == 4
    model = load(run)
    clips = model.sample(1, model.told(1, label=3), frames=5)
    assert clips.shape == (1, 1, 5, *model.shape[2:]) and clips.isfinite().all() and clips.std() > 0
    assert not torch.equal(clips, model.sample(1, model.told(1, label=4), frames=5))


def cut(run: Path, at: int) -> Path:
    """A copy of a run as it was when it was stopped after so many steps."""
    again = Path(shutil.copytree(run, "again"))
    for path in (again / "checkpoints").iterdir():
        if path.stem > f"step-{at:08d}":
            path.unlink()
    return again


def test_single_frames_beside_clips_that_are_told_nothing(here):
    run = trained(*TOLD_NOTHING, "--joint-images", 2, "--train.steps", 2, name="r")
    assert load(run).told(3) == {} and load(run).sample(1).isfinite().all()


def test_a_run_is_interrupted_and_finished(here):
    """Stopped by a signal within a step: it saves, says how to go on, and ends as one that was not stopped."""
    options = [*TOLD_NOTHING, "--train.log-every", 1]
    whole = trained(*options, "--train.steps", 3, name="whole")
    rate = part.learning_rate

    def signalling(config, n, steps):
        if n == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return rate(config, n, steps)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(part, "learning_rate", signalling)
        ended = do_train(*options, "--train.steps", 3, "--run.name", "stopped")
    assert ended.status == 128 + signal.SIGTERM and f"task5-train --resume {RUNS / 'stopped'}" in ended.err
    assert Run(RUNS / "stopped").state == "interrupted" and Run(RUNS / "stopped").amount("step") == 2
    do_train("--resume", RUNS / "stopped").well()
    assert same(whole, RUNS / "stopped") and losses(whole) == losses(RUNS / "stopped")


def test_a_new_run_starts_from_the_weights_of_another(by_class, here):
    """Its averaged ones; and with its config. A rate of nothing leaves them as they were."""
    do_train("--init-from", by_class, "--train.steps", 1, "--optimizer.lr", "1e-37", "--run.name", "new").well()
    there, now = read_tensors(newest(by_class), "ema"), read_tensors(newest(RUNS / "new"), "model")
    assert [name for name in there if not torch.equal(there[name], now[name])] == []
    assert Run(RUNS / "new").config["unet"] == Run(by_class).config["unet"]


# --- training from an image model ---------------------------------------------------------------------------

ADDED = {  # to be told a class, where the image model was told nothing
    "task1": ["--condition.label", "vanilla"],
    "task2": ["--condition.label", "vanilla", "--sampling.clamp", "false"],
    "task3": [],
    "task4": [],
}


@pytest.mark.parametrize("stage", ADDED)
def test_a_video_model_begins_as_an_image_model(stage, images, here):
    """Frame by frame, bit for bit: also of latents, in whose space the new model then is. And it learns from there."""
    start = [*CLIPS, "--inflate.image", images[stage], *ADDED[stage], *EVERY]
    run = trained(*start, "--train.steps", 1, "--optimizer.lr", "1e-37", "--condition.dropout", 0.5, name="same")
    state = read_tensors(newest(run), "model")
    there = read_tensors(newest(images[stage]), "ema")
    prefix = "image.unet." if stage in ("task1", "task2") else "image."
    assert [name for name, value in there.items() if not torch.equal(value, state[prefix + name])] == []
    assert len(state) > len(there)
    config, image = Run(run).config, Run(images[stage]).config
    assert config["diffusion"]["predict"] == "x0" and config["schedule"]["name"] == "sigmoid_alpha_bar"
    assert config["dit" if stage == "task4" else "unet"] == image["network"]
    assert config["condition"]["label"] == ("token" if stage == "task4" else "vanilla")
    assert config["condition"]["dropout"] == 0.5  # which is the video's
    assert frames_as_by(stage, images[stage], run)
    before = {"image.safetensors"} | ({"autoencoder.safetensors"} if stage == "task2" else set())
    assert {name for name in files(run) if name.endswith(".safetensors") and "/" not in name} == before


def frames_as_by(stage: str, image: Path, run: Path) -> bool:
    """Whether the new network makes of each frame what the image network makes of it."""
    import importlib

    packages = dict(task1="task1_unconditional", task2="task2_latent", task3="task3_conditional", task4="task4_dit")
    of_images = importlib.import_module(f"{packages[stage]}.model").load(image)
    of_clips = load(run)
    channels, height, width = (2, 8, 8) if stage == "task2" else (1, 32, 32)
    x, t = torch.randn(2, channels, 3, height, width), torch.tensor([100.0, 700.0])
    told = {"label": torch.tensor([3, 10])} if stage in ("task3", "task4") else {}
    clips = of_clips.network(x, t, told or of_clips.told(2))
    for f in range(3):
        if not torch.allclose(clips[:, :, f], of_images.network(x[:, :, f], t, told), atol=1e-5):
            return bool(of_clips.config.condition.told) and not told  # another term is added to the time's
    return True


@pytest.mark.parametrize("stage", ["task2", "task4"])
def test_a_frozen_run_goes_on_when_its_image_model_is_gone(stage, images, here):
    """Only what was added learns; what came from the image model is, and stays, that model's average."""
    image = Path(shutil.copytree(images[stage], "image/task/r"))
    options = [*CLIPS, "--inflate.image", image, "--inflate.freeze", "true", *ADDED[stage], *EVERY, *FAST]
    run = trained(*options, "--train.steps", 4, name="r")
    shutil.rmtree("image")
    there, now = read_tensors(run / "image.safetensors", "ema"), moved(run)
    prefix = "image.unet." if stage == "task2" else "image."
    old = {prefix + name for name in there}
    assert old < now.keys() and not any(now[name] for name in old)
    assert all(now[name] for name in now.keys() - old), [name for name in now.keys() - old if not now[name]]
    again = cut(run, 2)
    do_train("--resume", again).well()
    assert same(again, run) and losses(again) == losses(run)
    averaged = read_tensors(newest(run), "ema")
    assert all(torch.equal(averaged[prefix + name], value) for name, value in there.items())
    drawn("--run", again, "--out", "o")
    shutil.rmtree(run)
    do_train("--init-from", again, "--run.name", "further", "--train.steps", 1).well()
    config = Run(RUNS / "further").config
    assert config["inflate"] == {"image": None, "weights": True, "freeze": False}
    assert load(RUNS / "further").sample(1).isfinite().all()


def test_only_built_as_an_image_model_is(images, here):
    options = [*CLIPS, "--inflate.image", images["task3"], "--train.steps", 1, "--optimizer.lr", "1e-37"]
    one, other = (trained(*options, "--inflate.weights", kind, name=kind) for kind in ("true", "false"))
    states = [read_tensors(newest(run), "model") for run in (one, other)]
    assert states[0].keys() == states[1].keys()
    name = next(name for name in states[0] if name.endswith("embed.weight"))
    assert not torch.equal(states[0][name], states[1][name])
    assert Run(other).config["unet"] == Run(images["task3"]).config["network"]


def test_captions_for_an_image_model_that_was_told_nothing(images, here):
    """The words are those of the clips."""
    told = ["--condition.text", "vanilla", "--condition.label", "none", "--text.encoder", "learned", "--text.layers", 1]
    run = trained(*CLIPS, "--inflate.image", images["task1"], *told, *EVERY, "--train.steps", 2, name="r")
    model = load(run)
    cond = [model.told(1, text=f"a three moving {where}") for where in ("left", "right")]
    assert not torch.equal(model.sample(1, cond[0]), model.sample(1, cond[1]))
    again = cut(run, 1)
    do_train("--resume", again).well()
    assert same(again, run)


# --- other data ---------------------------------------------------------------------------------------------


def test_clips_of_ones_own(own_module, here):
    """Of any shape, and told what they say; gone on with only where the code is trusted."""
    options = own_data(own_module, shape=[3, 3, 8, 12])
    run = trained(*options, "--condition.label", "vanilla", *EVERY, "--train.steps", 2, name="r")
    model = load(run)
    assert model.shape == (3, 3, 8, 12) and model.known["classes"] == ["dark", "light"]
    again = cut(run, 1)
    assert do_train("--resume", again).says(1, "names code of its own", "--trust true")
    do_train("--resume", again, "--trust", "true").well()
    assert same(again, run)
    drawn("--run", run, "--label", "light", "--out", "o")
    assert files("o") == {"clips.gif", "clips.mp4", "sheet.png"}


def test_a_share_of_what_is_told_decides_the_shade(own_module, here):
    """The network hears which class each clip is of, from the batch to the sample."""
    options = [*own_data(own_module, shape=[1, 2, 8, 8]), "--condition.label", "vanilla", "--given.share", 0.5]
    run = trained(*options, "--train.steps", 40, "--train.batch", 8, "--optimizer.lr", 0.02, name="r")
    model = load(run)
    each = ["light", "dark", "dark", "light"]
    found = model.sample(4, model.told(4, label=each), steps=4, guidance=GuidanceConfig(1.0)).mean(dim=(1, 2, 3, 4))
    assert (found > 0).tolist() == [shade == "light" for shade in each]
    start = torch.full((4, 1, 1, 8, 8), 0.9) * torch.tensor([1.0, -1, -1, 1])[:, None, None, None, None]
    goes = predicted(model, start, model.told(4), 0, method="conditional", weight=0.0, guidance=GuidanceConfig(1.0))
    assert (goes[:, :, 1].mean(dim=(1, 2, 3)) > 0).tolist() == [True, False, False, True]  # as its first frame is


@pytest.fixture
def filmed(films) -> list[object]:
    """The options that name the folder of films."""
    return [*PLAIN, *WITHOUT, "--data.name", "videos", "--data.root", films, "--data.channels", 1, "--data.frames", 4]


def test_a_folder_of_films(filmed, films, here):
    """The sub-folders are classes and captions; decoded at once or each time, it is the same training."""
    told = ["--condition.label", "vanilla", "--train.steps", 2, "--train.log-every", 1]
    kept = trained(*filmed, *told, name="kept")
    streamed = trained(*filmed, *told, "--data.cache", "false", name="streamed")
    assert same(kept, streamed)
    model = load(kept)
    assert model.shape == (1, 4, 12, 12)
    assert model.known["classes"] == ["dark", "dark, in frames", "light", "light, in frames"]
    drawn("--run", kept, "--label", "light", "--given", films / "light" / "0.gif", "--given-frames", 2, *REPLACED)


def test_a_film_that_cannot_be_read_is_left_out_and_named(filmed, films, here):
    shutil.copytree(films, "films")
    content = Path("films/light/0.mp4").read_bytes()
    Path("films/light/9.mp4").write_bytes(content[: len(content) // 3])
    options = [*filmed, "--data.root", "films", "--train.steps", 1]
    ended = do_train(*options, "--run.name", "r").well()
    named = [line for line in ended.err.splitlines() if "9.mp4" in line]
    assert len(named) == 1 and "left out" in named[0], ended.err
    assert "0.mp4" not in ended.err


# --- latents ------------------------------------------------------------------------------------------------


def test_a_run_on_latents(latents, autoencoder, here):
    """The network sees 8×8, and what comes out are clips of the size of the data; it depends on no other run."""
    model = load(latents)
    assert model.shape == (1, 4, 32, 32) and model.known["classes"][3] == "3"
    clips = model.sample(2, model.told(2, label=3))
    assert clips.shape == (2, 1, 4, 32, 32) and clips.abs().max() <= 1 and clips.std() > 0
    last = list(model.steps(1))[-1].x
    assert last.shape == (1, 2, 4, 8, 8)
    config = yaml.safe_load((latents / "config.yaml").read_text())
    config["latents"]["autoencoder"] = "gone"
    again = cut(latents, 2)
    (again / "config.yaml").write_text(yaml.safe_dump(config))
    first = load(again).sample(1)
    assert torch.equal(first, load(latents / "checkpoints" / "step-00000002.safetensors").sample(1))
    config["latents"]["autoencoder"] = str(autoencoder)
    (again / "config.yaml").write_text(yaml.safe_dump(config))
    do_train("--resume", again).well()
    assert same(again, latents)
    (again / "autoencoder.safetensors").unlink()
    assert do_sample("--run", again).says(1, "no autoencoder.safetensors lies with it")


def test_latents_of_frames_have_unit_deviation(latents):
    """Over frames from all places of the clips."""
    model, data = load(latents), load_video(VideoConfig(frames=4))
    frames = torch.cat([data[i][0].transpose(0, 1) for i in range(0, 45_000, 900)])
    z = model.space.draw(model.space.encode(frames))
    assert z.std().item() == pytest.approx(1, abs=0.1)


# --- sampling -----------------------------------------------------------------------------------------------


def test_films_of_a_class(by_class, digits, here):
    """As they are in Python: a GIF, an MP4 and a sheet."""
    ended = do_sample("--run", by_class, "--label", 4, "--n", 2, "--upscale", 1).well()
    assert files(".") == {f"samples/{name}" for name in ("clips.gif", "clips.mp4", "sheet.png")}
    assert "2 clips of 4 frames" in ended.out and "guidance scale 2\n" in ended.out
    clips = digits.sample(2, digits.told(2, label=4))
    assert shows("samples/clips.gif", clips)
    with av.open("samples/clips.mp4") as container:
        frames = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
        assert float(container.streams.video[0].average_rate) == 8
    expected = shades(clips)
    assert len(frames) == 4 and frames[0].shape == expected[0].shape
    inside = [np.abs(a.astype(float) - b)[4:-4, 4:30].mean() for a, b in zip(frames, expected, strict=True)]
    assert max(inside) < 8  # it is compressed
    with Image.open("samples/sheet.png") as sheet:
        rows = np.asarray(sheet.convert("L"), dtype=float)
    assert rows.shape == (2 * 34 + 2, 4 * 34 + 2)
    assert np.abs(rows[36:68, 70:102] - shades(clips[1:])[2]).max() <= 1


def test_all_classes_in_turn_single_clips_and_size(by_class, digits, here):
    options = ["--n", 12, "--singles", "true", "--seed", 5, "--out", "o"]
    do_sample("--run", by_class, *options, "--upscale", 3, "--fps", 4).well()
    assert files("o") >= {f"clips/{i:04d}.gif" for i in range(12)}
    clips = digits.sample(12, digits.told(12, label=[i % 10 for i in range(12)]), 5)
    for i in (0, 11):
        assert shows(f"o/clips/{i:04d}.gif", clips[i : i + 1])
    with Image.open("o/clips/0000.gif") as picture:
        assert picture.info["duration"] == 250
    do_sample("--run", by_class, "--label", "3,7", "--n", 2, "--out", "two", "--upscale", 1).well()
    assert shows("two/clips.gif", digits.sample(2, digits.told(2, label=[3, 7])))


def test_the_same_seed_gives_the_same_clips(by_class, here):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        drawn("--run", by_class, "--seed", seed, "--out", name)
    for kind in ("clips.gif", "clips.mp4", "sheet.png"):
        a, b, c = (Path(name, kind).read_bytes() for name in "abc")
        assert a == b != c, kind


DRAWN = {
    "frames": (["--frames", 7], {"frames": 7}),
    "sampler": (["--sampler", "dpm_solver_pp", "--steps", 3], {"sampler": "dpm_solver_pp", "steps": 3}),
    "eta": (["--eta", 1], {"eta": 1.0}),
    "scale": (["--scale", 4], {"guidance": GuidanceConfig(4.0)}),
    "loop": (["--loop", "true"], {"loop": True}),
}


@pytest.mark.parametrize("name", DRAWN)
def test_clips_are_drawn_as_the_options_say(name, by_class, digits, here):
    options, said = DRAWN[name]
    drawn("--run", by_class, *options, "--label", 0)
    cond = digits.told(2, label=0)
    expected = digits.sample(2, cond, **said)
    assert shows("samples/clips.gif", expected)
    if name != "frames":
        assert not torch.equal(expected, digits.sample(2, cond))


def test_scale_1_is_the_conditional_model_and_0_the_unconditional_one(digits):
    """Bit for bit: one is the model of what is told, the other does not hear it."""
    cond, nothing = digits.told(2, label=3), digits.told(2)
    at = {scale: digits.sample(2, cond, 1, guidance=GuidanceConfig(scale)) for scale in (0.0, 1.0, 2.0)}
    assert torch.equal(at[0.0], digits.sample(2, nothing, 1, guidance=GuidanceConfig(1.0)))
    assert torch.equal(at[0.0], digits.sample(2, digits.told(2, label=8), 1, guidance=GuidanceConfig(0.0)))
    assert not torch.equal(at[0.0], at[1.0]) and not torch.equal(at[1.0], at[2.0])
    assert torch.equal(at[2.0], digits.sample(2, cond, 1))  # the run's scale


def test_weights_are_averaged_unless_told_otherwise(by_class, digits, here):
    drawn("--run", by_class, "--label", 1, "--out", "ema")
    drawn("--run", by_class, "--label", 1, "--out", "raw", "--weights", "model")
    raw = load(by_class, weights="model")
    assert shows("ema/clips.gif", digits.sample(2, digits.told(2, label=1)))
    assert shows("raw/clips.gif", raw.sample(2, raw.told(2, label=1))) and not shows("raw/clips.gif", digits.sample(2))


def test_clips_of_a_caption(by_caption, here):
    """By a checkpoint that lies alone: it knows its words."""
    shutil.copy(newest(by_caption), "x.safetensors")
    model = load(by_caption)
    found = []
    for caption in ("a three moving left", "a nine moving up and right"):
        drawn("--run", "x.safetensors", "--text", caption)
        found.append(model.sample(2, model.told(2, text=caption)))
        assert shows("samples/clips.gif", found[-1])
    assert not torch.equal(*found)


def test_a_run_by_caption_goes_on_bit_for_bit(by_caption, here):
    again = cut(by_caption, 2)
    do_train("--resume", again).well()
    assert same(again, by_caption) and losses(again) == losses(by_caption)


def test_the_latest_run(here):
    assert do_sample("--run", "latest").says(1, "there is no run in runs/task5")
    for name in ("first", "second"):
        trained(*TOLD_NOTHING, *FAST, "--train.steps", 2, "--train.seed", len(name), name=name)
    assert f"2 clips of 4 frames from {RUNS / 'second'}" in do_sample("--run", "latest", "--n", 2).well().out


def test_a_small_file_of_a_run_is_sampled_alone(by_class, digits, here):
    """In bfloat16: near what the run itself draws."""
    ended = call(lambda: sys.exit(export.run()), "export", by_class, "small.safetensors").well()
    assert "small.safetensors: 0.0" in ended.out and "step 4" in ended.out
    assert Path("small.safetensors").stat().st_size < 0.5 * newest(by_class).stat().st_size
    model, cond = load("small.safetensors"), digits.told(2, label=4)
    assert torch.allclose(model.sample(2, cond), digits.sample(2, cond), atol=0.1)


# --- going on from what is given ----------------------------------------------------------------------------

HOW = {"method": "replacement", "weight": 10.0}


def test_films_that_are_gone_on_from(by_class, digits, here):
    """The first frames of a GIF, an MP4 and a folder are those of the clips, as they were given."""
    clip = film(-1.0, frames=6, side=32)  # as large as the model's frames
    writing.save_gif(clip, Path("film.gif"))
    writing.save_mp4(clip, Path("film.mp4"))
    save_frames(clip, Path("film"))
    with Image.open("film/0.png") as picture:
        assert picture.size == (32, 32)
    frames = torch.stack([torch.from_numpy(np.array(Image.open(f"film/{f}.png"))) for f in range(6)])
    frames = (frames.float() / 127.5 - 1)[None, None]  # (1, 1, 6, 32, 32)
    for name in ("film.gif", "film", "film.mp4"):
        drawn("--run", by_class, "--given", name, "--given-frames", 2, "--label", 3)
        start = frames[:, :, :2].repeat(2, 1, 1, 1, 1)
        expected = predicted(digits, start, digits.told(2, label=3), 0, method="conditional", weight=10.0)
        pages, given = pages_of("samples/clips.gif"), shades(start)
        slack = 24 if name == "film.mp4" else 1  # which is compressed
        assert all(np.abs(page - one).max() <= slack for page, one in zip(pages, given, strict=False)), name
        if slack == 1:
            assert shows("samples/clips.gif", expected)


@pytest.mark.parametrize("method", ["conditional", "replacement", "reconstruction"])
def test_each_method_goes_on_from_a_picture(method, by_class, digits, here):
    """Of one frame; the others hear of it by this method."""
    Image.fromarray(np.full((32, 32), 200, dtype=np.uint8)).save("one.png")
    drawn("--run", by_class, "--given", "one.png", "--given-frames", 1, "--method", method, "--weight", 3)
    start = torch.full((2, 1, 1, 32, 32), 200 / 127.5 - 1)
    expected = predicted(digits, start, digits.told(2), 0, method=method, weight=3.0)
    assert shows("samples/clips.gif", expected) and torch.equal(expected[:, :, :1], start)
    other = "replacement" if method != "replacement" else "reconstruction"
    assert not torch.equal(expected, predicted(digits, start, digits.told(2), 0, method=other, weight=3.0))


def test_a_weight_is_that_of_reconstruction(by_class, here):
    Image.fromarray(np.full((32, 32), 200, dtype=np.uint8)).save("one.png")
    for name, weight in (("a", 0), ("b", 9)):
        options = ["--given", "one.png", "--given-frames", 1, "--method", "reconstruction", "--weight", weight]
        drawn("--run", by_class, *options, "--out", name)
    assert Path("a/clips.gif").read_bytes() != Path("b/clips.gif").read_bytes()


def test_clips_that_the_model_was_not_trained_on(by_class, digits, here):
    """Some of the held-out ones, each told its own class."""
    drawn("--run", by_class, "--given", "data", "--given-frames", 3, n=3)
    data = load_video(VideoConfig(split="test", frames=4))
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    items = [data[i] for i in order[:3].tolist()]
    real, labels = torch.stack([x for x, _ in items]), [int(cond["label"]) for _, cond in items]
    how = {"method": "conditional", "weight": 10.0}
    expected = predicted(digits, real[:, :, :3], digits.told(3, label=labels), 0, **how)
    pages = pages_of("samples/clips.gif")
    assert len(pages) == 4 and np.abs(pages[2][2:34, 2:34] - shades(real[:1])[2]).max() <= 1
    top, left = 36, 2  # the third, in the second row of two
    assert np.abs(pages[3][top : top + 32, left : left + 32] - shades(expected[2:])[3]).max() <= 1


def test_what_lies_between_two_pictures(by_class, digits, here):
    Path("ends").mkdir()
    for i, shade in enumerate((30, 220)):
        Image.fromarray(np.full((32, 32), shade, dtype=np.uint8)).save(f"ends/{i}.png")
    drawn("--run", by_class, "--given", "ends", "--between", "true", "--frames", 5, "--label", 2)
    ends = torch.tensor([30, 220])[None, None, :, None, None].expand(2, 1, 2, 32, 32) / 127.5 - 1
    expected = between(digits, ends, digits.told(2, label=2), 0, frames=5, method="conditional", weight=10.0)
    assert shows("samples/clips.gif", expected) and torch.equal(expected[:, :, [0, -1]], ends)


def test_on_and_on(by_class, unconditional, digits, here):
    """The first clip stays as it was; each further one begins with the last frames of the one before."""
    drawn("--run", by_class, "--length", 9, "--overlap", 2, "--label", 5)
    cond = digits.told(2, label=5)
    first = digits.sample(2, cond)
    expected = extended(digits, first, 9, cond, 0, overlap=2, method="conditional", weight=10.0)
    assert shows("samples/clips.gif", expected) and expected.shape[2] == 9
    assert torch.equal(expected[:, :, :4], first)
    short = extended(digits, first, 5, cond, 0, overlap=2, method="conditional", weight=10.0)
    assert torch.equal(short, expected[:, :, :5])
    drawn("--run", unconditional, "--length", 6, "--overlap", 3, "--method", "replacement", "--out", "other")
    assert len(pages_of("other/clips.gif")) == 6
    ended = do_sample("--run", unconditional, "--length", 6, "--overlap", 2, "--out", "none")
    assert ended.says(1, "was not trained to be given frames", "replacement or reconstruction", "given.share")
    assert not Path("none").exists()


def test_given_frames_of_latents(latents, here):
    """They are encoded, and shown as they were given, not as the autoencoder makes them."""
    model = load(latents)
    start = film(-1.0, frames=2, side=32).clamp(-1, 1)
    clips = predicted(model, start, model.told(1), 0, **HOW)
    assert clips.shape == (1, 1, 4, 32, 32) and torch.equal(clips[:, :, :2], start)
    given = known_at(start, (0, 1), 4, "replacement", 0.0)
    assert torch.equal(clips, model.sample(1, model.told(1), 0, given=given))


# --- measuring ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def few_real_clips():
    """The reference of real clips and the floor are of 150: 2,000 take long to draw."""
    caches = (video.reference_statistics, video.real_floor, video.real_features)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(video, "POOL", 150)
        patch.setattr(video, "DRAWS", 2)
        for cache in caches:
            cache.cache_clear()
        yield
    for cache in caches:
        cache.cache_clear()


def evaluation(folder: str = "o") -> dict:
    """What was written down, as any reader of JSON takes it."""

    def refused(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    return json.loads(Path(folder, "evaluation.json").read_text(), parse_constant=refused)


def test_figures_of_clips(by_class, digits, here):
    """Of a model that has learned nothing; what is written are the figures of the clips that it draws."""
    options = ["--n", 12, "--seed", 3, "--scale", 3, "--frames", 8]
    ended = do_evaluate("--run", by_class, *options, "--out", "o").well()
    written, labels = evaluation(), [i % 10 for i in range(12)]
    clips = digits.sample(12, digits.told(12, label=labels), 3, frames=8, guidance=GuidanceConfig(3.0))
    report = video.judge_clips(clips, torch.tensor(labels), VideoConfig(frames=8))
    assert written["figures"]["video_distance"] == pytest.approx(report.distance, rel=1e-6)
    assert written["figures"]["video_identity"] == pytest.approx(report.of_real["identity"])
    assert (written["task"], written["main"], written["step"], written["images"]) == ("task5", "video_identity", 4, 8)
    protocol = written["protocol"]
    stated = {"data": "moving_digits", "n": 12, "guidance": 3.0, "weights": "ema", "seed": 3, "sampler": "ddim"}
    assert {name: protocol[name] for name in stated} == stated and protocol["steps"] == 2
    assert Path("o/evaluation.md").read_text() == ended.out.partition("\nwritten:")[0]
    assert report.to_dict()["caveat"] in ended.out
    shutil.copytree(by_class, "copy")
    do_evaluate("--run", "copy", *options).well()
    (again,) = Run(Path("copy")).evaluations  # without --out, in the run
    assert again.figures["video_distance"] == written["figures"]["video_distance"]


class Asked:
    """`Model.sample`, which draws real clips: those that begin as what is given, or any."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.calls: list[dict] = []
        monkeypatch.setattr(Model, "sample", lambda model, *a, **b: self.sample(model, *a, **b))

    def sample(self, model: Model, n: int, cond: dict, seed: int = 0, **options: object) -> Tensor:
        """The held-out clips that the command takes."""
        self.calls.append({"cond": cond, **options})
        return held_out(model, n, options["frames"])[0]


@pytest.mark.parametrize("method", ["conditional", "replacement", "reconstruction"])
def test_figures_of_clips_that_were_given_frames(method, by_class, here, monkeypatch):
    """A model that goes on exactly as the real clips did is no pixel off; the protocol says what was given."""
    asked = Asked(monkeypatch)
    options = ["--given", "data", "--given-frames", 2, "--method", method, "--n", 10, "--frames", 6]
    do_evaluate("--run", by_class, *options, "--out", "o").well()
    written = evaluation()
    assert written["figures"]["video_place_error"] == 0 and written["figures"]["video_agreement"] > 0.7
    told = f"the first 2 frames given by {method}" + (" (weight 10)" if method == "reconstruction" else "")
    assert written["protocol"]["reference"].endswith(told)
    given = asked.calls[0]["given"]
    assert (given.method, given.mask.tolist()) == (method, [True] * 2 + [False] * 4)


def test_a_place_error_counts_frames_that_were_not_given(by_class, here, monkeypatch):
    """Clips that go elsewhere are off by what they are off; by their first and last frame nothing is said."""
    asked = Asked(monkeypatch)
    right = asked.sample

    def late(model: Model, n: int, cond: dict, seed: int = 0, **options: object) -> Tensor:
        clips = right(model, n, cond, seed, **options)
        return torch.cat([clips[:, :, :1], clips[:, :, 1:-1].roll(3, dims=-1), clips[:, :, -1:]], dim=2)

    monkeypatch.setattr(asked, "sample", late)
    do_evaluate("--run", by_class, *"--given data --between true --n 10 --frames 6 --out o".split()).well()
    written = evaluation()
    assert 2.5 < written["figures"]["video_place_error"] < 8  # 3 pixels, or a little more where a digit is cut
    assert "the first and last frame given by conditional" in written["protocol"]["reference"]
    assert asked.calls[0]["given"].mask.tolist() == [True, False, False, False, False, True]


def test_figures_of_long_clips(by_class, here):
    options = ["--length", 24, "--overlap", 2, "--n", 4, "--frames", 8, "--method", "replacement"]
    ended = do_evaluate("--run", by_class, *options, "--out", "o").well()
    written = evaluation()
    assert "gone on to 24 frames, 2 given by replacement" in written["protocol"]["reference"]
    parts = written["details"]
    assert len(parts) == 2 and all(len(part) == 3 for part in parts.values()), parts  # of 10, 10 and 4 frames
    assert "nan" not in ended.out


def test_figures_of_loops(by_class, here):
    do_evaluate("--run", by_class, *"--loop true --n 4 --frames 8 --out o".split()).well()
    written = evaluation()
    assert written["figures"]["video_seam"] > 0 and written["protocol"]["reference"].endswith("; loops")


def test_figures_of_what_is_told_nothing(unconditional, here):
    """No agreement: nothing was asked for."""
    do_evaluate("--run", unconditional, "--n", 4, "--out", "o").well()
    written = evaluation()
    assert "video_agreement" not in written["figures"] and written["protocol"]["guidance"] == "none"


def test_data_of_ones_own_has_no_figures(own_module, here):
    run = trained(*own_data(own_module), "--train.steps", 1, name="own")
    ended = do_evaluate("--run", run, "--out", "o")
    assert ended.says(
        1, "was trained on a data set of your own", "of which this command knows no figure", "task5-sample"
    )
    assert do_sample("--run", run, "--given", "data", *REPLACED).says(1, "data of your own", "name a film")
    assert not Path("o").exists() and not Path("samples").exists()


def test_the_log_is_whole(by_class):
    (line, *_) = figures(by_class)
    assert {"step", "loss", "lr", "gradient_norm", "images", "seconds"} <= line.keys()
    assert [lines["lr"] for lines in figures(by_class)] == [0.01] * 4
