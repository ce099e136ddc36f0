"""Train and sample: what each command leaves, and that it is what it says."""

import json
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import task1_unconditional
from shared import pictures
from shared.cli import read_yaml, stored_config
from shared.schedulers.config import Sampler, Spacing
from shared.training.checkpoint import read_facts, read_tensors
from task1_unconditional.config import STAGE, Config, model_config
from task1_unconditional.model import COMMITTED, load
from task1_unconditional.tests.commands import NETWORK, TINY, do_evaluate, do_sample, do_train, figures, record
from task1_unconditional.train import OPTIONS


def pixels(path: Path) -> np.ndarray:
    """Of a picture."""
    return np.array(Image.open(path))


def grid_of(samples: torch.Tensor, upscale: int = 1) -> np.ndarray:
    """What a grid of these samples must look like; `test_pictures.py` holds it against the samples."""
    return np.array(pictures.grid(samples, upscale=upscale))


# --- train --------------------------------------------------------------------------------------------------


def test_training_leaves_a_whole_run(trained):
    files = {
        str(path.relative_to(trained)) for path in trained.rglob("*") if path.is_file() and "events" not in path.name
    }
    assert files == {
        "config.yaml",
        "record.json",
        "source.zip",
        ".lock",
        "metrics.jsonl",
        "checkpoints/step-00000004.safetensors",
        "checkpoints/step-00000008.safetensors",
        "samples/step-00000004.png",
        "samples/step-00000008.png",
        "samples/training.gif",
    }
    assert record(trained)["state"] == "finished"
    assert [f["step"] for f in figures(trained)] == [2, 4, 6, 8]
    of_the_loop = {"step", "time", "loss", "gradient_norm", "lr", "images_per_second", "waiting"}
    assert set(figures(trained)[0]) == of_the_loop | {"images", "seconds", "peak_memory_gib"}
    assert [f["images"] for f in figures(trained)] == [8, 16, 24, 32] and record(trained)["images"] == 32
    assert list((trained / "tensorboard").iterdir())


def test_training_says_where_things_are(here):
    ended = do_train(*TINY, "--train.steps", 1, "--run.name", "one", "--train.sample-every", 1)
    assert ended.status == 0
    assert ended.err.splitlines()[0] == "run runs/task1/one"
    assert ended.out == "trained: runs/task1/one\npictures: runs/task1/one/samples\n"


@pytest.mark.parametrize("step", [4, 8])
def test_each_grid_is_drawn_from_the_same_noise_with_the_averaged_weights(trained, step):
    model = load(trained / "checkpoints" / f"step-{step:08d}.safetensors")
    assert np.array_equal(pixels(trained / "samples" / f"step-{step:08d}.png"), grid_of(model.sample(64, seed=0)))


def test_the_film_of_the_training_has_every_grid(trained):
    assert Image.open(trained / "samples" / "training.gif").n_frames == 2


def test_a_long_training_makes_a_film_that_can_be_watched(here, monkeypatch):
    """Thousands of grids would take minutes to watch, and more files than a process may open."""
    from task1_unconditional.train import FRAMES, save_film

    (here / "samples").mkdir()
    for n in range(2 * FRAMES + 7):
        Image.new("L", (9, 1), 0 if n < 2 * FRAMES + 6 else 255).save(here / "samples" / f"step-{n:08d}.png")
        image = Image.new("L", (9, 1), 0)
        image.putdata([255 * (n >> bit & 1) for bit in range(9)])
        image.save(here / "samples" / f"step-{n:08d}.png")
    film = Image.open(save_film(here))
    assert FRAMES / 2 <= film.n_frames <= FRAMES
    film.seek(film.n_frames - 1)
    last = pixels(here / "samples" / f"step-{2 * FRAMES + 6:08d}.png")
    assert np.array_equal(np.array(film.convert("L")), last)


def test_the_stored_config_is_the_one_that_was_asked_for(trained, here):
    asked = OPTIONS.parse(
        [*TINY, *"--train.steps 8 --train.log-every 2 --train.sample-every 4 --train.save-every 4".split()]
    ).config
    stored = stored_config(Config, read_yaml(trained / "config.yaml"), STAGE)
    assert stored.network == asked.network and stored.sampling == asked.sampling and stored.data == asked.data
    assert stored.averages.swa_start == 3 and stored.optimizer.lr == 0.01 and stored.train.keep == 9
    asked.optimizer, asked.averages, asked.run, asked.train.keep = stored.optimizer, stored.averages, stored.run, 9
    assert stored == asked


def test_every_field_comes_back_from_a_config_file(here):
    """Each is set to another value than its default, written, and read again."""
    options = {
        "data": {"name": "mnist", "split": "test", "root": "r", "size": 32, "channels": 1, "download": True},
        "optimizer": {"betas": [0.5, 0.6], "milestones": [3, 4], "schedule": "multistep"},
        "averages": {"swa_start": 4},
        "network": {"multipliers": [1, 2, 3], "attention": ["none", "linear", "full"]},
        "own_network": {"class_path": "a.B", "init_args": {"c": [1, {"d": None}]}},
        "sampling": {"eta": 0.5},
    }
    Path("c.yaml").write_text(yaml.safe_dump(options))
    config = OPTIONS.parse(["--config", "c.yaml"]).config
    assert config.network.attention == ("none", "linear", "full") and config.optimizer.betas == (0.5, 0.6)
    from dataclasses import asdict

    from shared.experiments.run import plain

    again, shape = model_config(yaml.safe_load(yaml.safe_dump(plain({"shape": (1, 2, 3), **asdict(config)}))))
    assert again == config and shape == (1, 2, 3)


def test_the_committed_configs_are_valid():
    for path in (Path(task1_unconditional.__file__).parent / "configs").glob("*.yaml"):
        OPTIONS.parse(["--config", str(path)])


def test_averages_differ_from_the_weights(trained):
    states = [load(trained, weights=name).network.state_dict()["stem.weight"] for name in ("ema", "model", "swa")]
    assert not torch.equal(states[0], states[1])
    assert not torch.equal(states[1], states[2]) and not torch.equal(states[0], states[2])


def test_init_from_starts_from_the_averaged_weights_with_all_else_changed(trained, here):
    """At a learning rate of next to nothing, the new run ends where it began."""
    other = "--train.steps 1 --optimizer.name sgd --optimizer.lr 1e-30 --diffusion.predict eps --train.seed 7".split()
    ended = do_train(
        *NETWORK, "--network.middle-attention", "none", *other, "--init-from", trained, "--run.name", "new"
    )
    assert ended.status == 0, ended.err
    new = Path("runs/task1/new")
    begun = read_tensors(new / "checkpoints" / "step-00000001.safetensors", "model")
    ema = load(trained).network.state_dict()
    assert all(torch.equal(begun[name], ema[name]) for name in ema)
    assert read_facts(new / "checkpoints" / "step-00000001.safetensors")["averages"] == {"ema": 1, "swa": 0}


def test_init_from_takes_a_file(trained, here):
    file = trained / "checkpoints" / "step-00000004.safetensors"
    assert do_train(*TINY, "--train.steps", 1, "--init-from", file).status == 0


def test_yaml_and_command_line_together(here):
    Path("c.yaml").write_text("train: {steps: 3, batch: 5}\nnetwork: {width: 16}\n")
    config, resume, init_from, _ = vars(OPTIONS.parse(["--config", "c.yaml", "--train.batch", "6"])).values()
    assert (config.train.steps, config.train.batch, config.network.width) == (3, 6, 16)
    assert resume is None and init_from is None


# --- a data set and a network of one's own ------------------------------------------------------------------


def test_own_data_and_network_in_a_yaml_file(own, here):
    spec = {
        "own_data": {"class_path": f"{own}.Shades", "init_args": {"size": 6}},
        "own_network": {"class_path": f"{own}.Scale", "init_args": {"start": 0.5}},
        "train": {"steps": 6, "batch": 4, "workers": 0, "device": "cpu", "sample_every": 3},
        "sampling": {"steps": 2},
        "run": {"name": "own"},
    }
    Path("c.yaml").write_text(yaml.safe_dump(spec))
    ended = do_train("--config", "c.yaml")
    assert ended.status == 0, ended.err
    run = Path("runs/task1/own")
    state = read_tensors(run / "checkpoints" / "step-00000006.safetensors", "model")
    assert set(state) == {"scale", "shift"} and 0.4 < state["scale"].item() < 0.6 and state["scale"] != 0.5
    refused = do_sample("--run", run, "--n", 3)
    assert refused.says(1, f"names a network of its own, {own}.Scale", "--trust true")
    assert not Path("samples").exists()
    assert do_sample("--run", run, "--n", 3, "--trust", "true", "--singles", "true").status == 0
    assert pixels(Path("samples/images/0002.png")).shape == (6, 6)


def test_own_network_by_command_line(own, here):
    spec = json.dumps({"class_path": f"{own}.Scale", "init_args": {"start": 0.5}})
    assert do_train("--own-network", spec, *TINY, "--train.steps", 2, "--run.name", "own").status == 0
    assert load("runs/task1/own", trust=True).shape == (1, 28, 28)


def test_a_run_with_own_code_is_resumed_only_if_trusted(own, here):
    """A downloaded run may name any code; the person who resumes it must have been asked."""
    spec = json.dumps({"class_path": f"{own}.Scale"})
    assert do_train("--own-network", spec, *TINY, "--train.steps", 1, "--run.name", "own").status == 0
    refused = do_train("--resume", "runs/task1/own", "--train.steps", 2)
    assert refused.says(1, "names code of its own", "--trust true")
    assert do_train("--resume", "runs/task1/own", "--train.steps", 2, "--trust", "true").status == 0


# --- sample -------------------------------------------------------------------------------------------------


def test_a_grid_holds_the_samples(trained, here):
    ended = do_sample("--run", trained, "--n", 5, "--upscale", 3, "--seed", 4)
    assert ended.status == 0, ended.err
    assert np.array_equal(pixels(Path("samples/grid.png")), grid_of(load(trained).sample(5, seed=4), 3))
    assert f"5 images from {trained}/checkpoints/step-00000008.safetensors" in ended.out
    assert "grid: samples/grid.png" in ended.out
    assert sorted(p.name for p in Path("samples").iterdir()) == ["grid.png", "trajectory.gif"]


def test_single_images(trained, here):
    ended = do_sample("--run", trained, "--n", 3, "--upscale", 2, "--singles", "true", "--gif", "false", "--out", "o")
    assert ended.status == 0
    x = load(trained).sample(3)
    for i in range(3):
        single = pixels(Path(f"o/images/{i:04d}.png"))
        assert np.array_equal(single, grid_of(x[i : i + 1], 2)[2:-2, 2:-2]) and single.shape == (56, 56)
    assert sorted(p.name for p in Path("o").iterdir()) == ["grid.png", "images"]


@pytest.mark.parametrize(("steps", "frames"), [(1, 1), (7, 7), (100, 21)])
def test_the_film_shows_the_way(trained, steps, frames, here):
    """Every step of a short way, and about 20 of a long one, the last always."""
    assert do_sample("--run", trained, "--n", 1, "--steps", steps, "--upscale", 2).status == 0
    film = Image.open("samples/trajectory.gif")
    assert film.n_frames == frames
    film.seek(frames - 1)
    last = np.array(film.convert("L")).astype(int)
    assert abs(last - pixels(Path("samples/grid.png"))).max() <= 8
    film.seek(0)
    if frames > 1:
        assert abs(np.array(film.convert("L")).astype(int) - last).max() > 8


def test_a_run_a_file_and_the_latest_are_the_same(trained, here, monkeypatch):
    monkeypatch.chdir(trained.parents[2])
    grids = []
    for source in (trained, trained / "checkpoints" / "step-00000008.safetensors", "latest"):
        assert do_sample("--run", source, "--n", 2, "--out", here / "o").status == 0
        grids.append(pixels(here / "o" / "grid.png"))
    assert np.array_equal(grids[0], grids[1]) and np.array_equal(grids[0], grids[2])


def sampled(*options: object) -> np.ndarray:
    """The grid of two samples with some options."""
    ended = do_sample("--n", 2, "--gif", "false", *options)
    assert ended.status == 0, ended.err
    return pixels(Path("samples/grid.png"))


def test_the_seed_decides(trained, here):
    assert np.array_equal(sampled("--run", trained, "--seed", 3), sampled("--run", trained, "--seed", 3))
    assert not np.array_equal(sampled("--run", trained, "--seed", 3), sampled("--run", trained, "--seed", 4))


@pytest.mark.parametrize(
    "option",
    [
        ("--weights", "model"),
        ("--weights", "swa"),
        ("--sampler", "ddpm"),
        ("--steps", "5"),
        ("--eta", "1"),
        ("--spacing", "leading"),
    ],
)
def test_every_option_changes_the_samples(trained, option, here):
    assert not np.array_equal(sampled("--run", trained), sampled("--run", trained, *option))


@pytest.mark.parametrize("weights", ["model", "swa"])
def test_other_weights_are_those_of_the_checkpoint(trained, weights, here):
    assert do_sample("--run", trained, "--n", 2, "--weights", weights).status == 0
    model = load(trained)
    state = read_tensors(trained / "checkpoints" / "step-00000008.safetensors", weights)
    model.network.load_state_dict(state)
    assert np.array_equal(pixels(Path("samples/grid.png")), grid_of(model.sample(2)))


@pytest.mark.parametrize("sampler", [name for name in get_args(Sampler) if name != "ddpm_learned"])
@pytest.mark.parametrize("steps", [1, 3])
def test_every_sampler(trained, sampler, steps, here):
    assert sampled("--run", trained, "--sampler", sampler, "--steps", steps).shape == (32, 62)


@pytest.mark.parametrize("spacing", get_args(Spacing))
def test_every_spacing(trained, spacing, here):
    assert sampled("--run", trained, "--spacing", spacing, "--steps", 4).shape == (32, 62)


def test_batches_of_samples_are_all_different(trained):
    x = load(trained).sample(7, batch=3)
    assert x.shape == (7, 1, 28, 28) and -1 <= x.min() and x.max() <= 1
    assert len({tuple(image.flatten().tolist()) for image in x}) == 7
    assert torch.equal(x[:3], load(trained).sample(3))


def test_the_same_from_python(trained):
    """The lines that the README shows, on a tiny run."""
    model = task1_unconditional.load(trained)
    x = model.sample(4, sampler="dpm_solver_pp", steps=3)
    *_, last = model.steps(4, sampler="dpm_solver_pp", steps=3)
    assert torch.equal(x, last.x.clamp(-1, 1)) and x.shape == (4, 1, 28, 28)


@pytest.mark.skipif(not COMMITTED.exists(), reason="the model that comes with the package is not committed yet")
def test_the_model_that_comes_with_the_package_is_the_default(here):
    ended = do_sample("--n", 2, "--steps", 3)
    assert ended.status == 0, ended.err
    assert f"2 images from {COMMITTED}" in ended.out
    assert pixels(Path("samples/grid.png")).shape == (32, 62)
    assert do_sample("--n", 2, "--weights", "model").says(1, "holds no model weights")


# --- help ---------------------------------------------------------------------------------------------------


def documented(config: type, prefix: str = "") -> list[str]:
    """The option names of a dataclass's fields."""
    names = []
    for field in fields(config):
        inner = field.default_factory
        names += documented(inner, f"{prefix}{field.name}.") if is_dataclass(inner) else [prefix + field.name]
    return names


def test_help_is_quick_and_explains_every_option():
    """In a process of its own: torch must not be imported, and the answer come within 4 s of processor time."""
    script = """
import resource, sys
from task1_unconditional import train
try:
    train.main()
finally:
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(used.ru_utime + used.ru_stime, "torch" in sys.modules, file=sys.stderr)
"""
    root = Path(task1_unconditional.__file__).parents[1]
    command = [sys.executable, "-c", script, "--help"]
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    seconds, torch_imported = ended.stderr.split()
    assert ended.returncode == 0 and torch_imported == "False" and float(seconds) < 4
    # "  --train.lr LR  text (type: …)" or the text on the next lines, if the option is long
    entries = dict.fromkeys(documented(Config))
    for entry in ended.stdout.split("\n  --")[1:]:
        name, _, text = entry.partition(" ")
        if name in entries:
            entries[name] = " ".join(text.split()).partition("(type:")[0].split(" ", 1)[1:]
    assert [name for name, text in entries.items() if not text or not text[0].strip()] == []


@pytest.mark.parametrize("command", [do_sample, do_evaluate])
def test_help_of_the_others(command):
    ended = command("--help")
    assert (
        ended.status == 0 and "--weights" in ended.out and "the same seed" in ended.out or "of the noise" in ended.out
    )
