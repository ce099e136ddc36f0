"""The commands of stage 2: what they leave behind, and that the two ways to latents are one."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from shared.datasets import DataConfig
from shared.datasets import load as load_data
from shared.experiments.history import Run
from shared.latents.space import Gauge, encoded, read_statistics
from shared.latents.stored import COPY
from shared.metrics.report import judge_samples
from shared.training.checkpoint import Checkpoints, read_facts
from task2_latent.model import load, load_autoencoder
from task2_latent.tests.commands import (
    AUTOENCODER,
    DIFFUSION,
    do_autoencoder,
    do_encode,
    do_evaluate,
    do_sample,
    do_train,
    losses,
    same,
    whole,
)
from task2_latent.train_autoencoder import merged

ADVERSARIAL = (
    "--loss.adversarial 0.5 --loss.adversarial-start 3 --discriminator.width 4 --discriminator.layers 1".split()
)


def test_the_autoencoders_run_is_whole(autoencoder):
    run = Run(autoencoder)
    assert (run.state, run.task, run.amount("step"), run.amount("images")) == ("finished", "task2-autoencoder", 6, 24)
    assert {"kl", "reconstruction", "deviation"} <= set(run.metrics[-1])
    assert not run.problems


def test_the_loss_falls(here):
    options = ["--train.steps", 60, "--train.log-every", 20, "--optimizer.lr", "5e-3", "--run.name", "falls"]
    do_autoencoder(*AUTOENCODER, *options).well()
    (_, first), *_, (_, last) = losses(Path("runs/task2-autoencoder/falls"))
    assert last < 0.5 * first


def test_a_pair_is_trained_in_turn_and_resumed_bit_for_bit(here):
    """The discriminator from step 3 on, its own optimizer, its own figures; stopped at step 5 and gone on with."""
    options = [*AUTOENCODER, *ADVERSARIAL, "--train.log-every", 1, "--train.save-every", 1, "--train.keep", 9]
    do_autoencoder(*options, "--train.steps", 8, "--run.name", "whole").well()
    do_autoencoder(*options, "--train.steps", 5, "--run.name", "half").well()
    base = Path("runs/task2-autoencoder")
    do_autoencoder("--resume", base / "half", "--train.steps", 8).well()
    assert same(base / "whole", base / "half") and losses(base / "whole") == losses(base / "half")
    metrics = Run(base / "whole").metrics
    assert [("discriminator_loss" in line) for line in metrics] == [False] * 3 + [True] * 5
    assert [("adversarial" in line) for line in metrics] == [False] * 3 + [True] * 5
    three, eight = (read(base / "whole", step) for step in (3, 8))
    moved = {name for name in three if not torch.equal(three[name], eight[name])}
    assert {
        name for name, value in three.items() if value.ndim > 1
    } <= moved  # (hinge's two pulls at a bias may cancel)


def read(run: Path, step: int) -> dict[str, torch.Tensor]:
    """The discriminator's weights after a step."""
    from shared.training.checkpoint import read_tensors

    return read_tensors(run / "checkpoints" / f"step-{step:08d}.safetensors", "discriminator.model")


def test_stages_follow_each_other_each_from_the_weights_of_the_one_before(here):
    larger = {"optimizer": {"lr": 0.0001}, "data": {"size": 32}}
    stages = [{"loss": {"reconstruction": "l2"}, "train": {"steps": 3}}, larger]
    options = ["--train.steps", 2, "--loss.reconstruction", "l1", "--run.name", "long", "--stages", json.dumps(stages)]
    do_autoencoder(*AUTOENCODER, *options).well()
    base = Path("runs/task2-autoencoder")
    runs = [Run(base / name) for name in ("long", "long-2", "long-3")]
    assert [run.amount("step") for run in runs] == [2, 3, 3]
    assert [run.config["loss"]["reconstruction"] for run in runs] == ["l1", "l2", "l2"]
    assert [run.config["optimizer"]["lr"] for run in runs][1:] == [runs[0].config["optimizer"]["lr"], 0.0001]
    do_autoencoder(
        *AUTOENCODER,
        "--loss.reconstruction",
        "l2",
        "--train.steps",
        3,
        "--run.name",
        "again",
        "--init-from",
        base / "long",
    ).well()
    assert same(base / "long-2", base / "again")


def test_a_later_stage_whose_name_is_taken_is_found_before_the_first_is_trained(here):
    Path("runs/task2-autoencoder/long-2").mkdir(parents=True)
    ended = do_autoencoder(*AUTOENCODER, "--run.name", "long", "--train.steps", 1, "--stages", "[{}]")
    assert ended.says(1, "stages, number 2: the run", "long-2 exists")
    assert [p.name for p in Path("runs/task2-autoencoder").iterdir()] == ["long-2"]


def test_a_later_stage_that_is_no_config_is_found_before_the_first_is_trained(here):
    ended = do_autoencoder(*AUTOENCODER, "--train.steps", 1, "--stages", json.dumps([{}, {"loss": {"kll": 3}}]))
    assert ended.says(1, "stages, number 3", "kll") and list(here.iterdir()) == []


def test_merging_keeps_what_is_not_changed():
    assert merged({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"c": 3}, "d": [2]}) == {"a": {"b": 1, "c": 3}, "d": [2]}
    assert merged({"own_data": {"class_path": "x"}}, {"own_data": {"init_args": {}}}) == {"own_data": {"init_args": {}}}


# --- latents ------------------------------------------------------------------------------------------------


def test_cached_latents_are_those_made_on_the_fly(autoencoder, trained, here):
    """Moments are cached, and latents drawn from them by the same seeds: the trainings are one and the same."""
    do_encode("--autoencoder", autoencoder, "--out", "cache").well()
    options = ["--latents.autoencoder", autoencoder, "--latents.cache", "cache", "--train.steps", 4]
    do_train(*DIFFUSION, *options, "--train.log-every", 1, "--run.name", "cached").well()
    cached = Path("runs/task2/cached")
    assert np.allclose(losses(cached), losses(trained), rtol=1e-5)
    one, other = whole(cached), whole(trained)
    assert all(torch.allclose(one[name].float(), other[name].float(), atol=1e-5) for name in one)


def test_a_cache_in_shards_is_read_by_spawned_workers_as_by_none(autoencoder, here, monkeypatch):
    from shared.latents import cache

    monkeypatch.setattr(cache, "SHARD", 256 * 1000)  # several files
    do_encode("--autoencoder", autoencoder, "--out", "cache").well()
    assert len(list(Path("cache").glob("shard-*.safetensors"))) > 3
    monkeypatch.setattr(cache, "IN_MEMORY", 0)
    options = [*DIFFUSION, "--latents.autoencoder", autoencoder, "--latents.cache", "cache", "--train.steps", 3]
    for workers in (0, 2):
        do_train(*options, "--train.workers", workers, "--run.name", f"w{workers}").well()
    assert same(Path("runs/task2/w0"), Path("runs/task2/w2"))
    monkeypatch.setattr(cache, "IN_MEMORY", 2**40)
    do_train(*options, "--run.name", "resident").well()
    assert same(Path("runs/task2/w0"), Path("runs/task2/resident"))


def test_the_scale_is_measured_and_lies_with_the_autoencoder(autoencoder, trained):
    """Against numpy over all training images."""
    loaded = load_autoencoder(autoencoder)
    known = read_statistics(autoencoder / "latents.json")
    data = load_data(DataConfig(name="digits"))
    moments = torch.cat([m for m, _ in encoded(loaded.network, data)]).double()
    mean, deviation = moments[:, :2], (0.5 * moments[:, 2:].clamp(-30, 20)).exp()
    centre = mean.mean(dim=(0, 2, 3))
    spread = (deviation.square().mean(dim=(0, 2, 3)) + mean.var(dim=(0, 2, 3), unbiased=False)).sqrt()
    assert known.n == len(data) == 4500
    assert np.allclose(known.mean, centre, atol=0.02 * spread.max())
    assert np.allclose(known.deviation, spread, rtol=0.02)
    space = load(trained).space
    assert torch.allclose(space.deviation.flatten(), torch.full((2,), known.overall))
    latents = space.draw(moments.float())
    assert latents.std().item() == pytest.approx(1, abs=0.02)


def test_each_channel_may_have_its_own_scale_and_a_number_is_taken_as_it_is(autoencoder, here):
    for scale in ("channels", "0.18215"):
        options = ["--latents.autoencoder", autoencoder, "--latents.scale", scale, "--train.steps", 1]
        do_train(*DIFFUSION, *options, "--run.name", scale).well()
    channels, fixed = (load(Path("runs/task2") / name).space for name in ("channels", "0.18215"))
    data = load_data(DataConfig(name="digits"))
    moments = torch.cat([m for m, _ in encoded(channels.autoencoder, data)])
    latents = channels.draw(moments)
    assert latents.mean(dim=(0, 2, 3)).abs().max() < 0.02
    assert latents.std(dim=(0, 2, 3)).sub(1).abs().max() < 0.02
    assert torch.allclose(fixed.deviation, torch.tensor(1 / 0.18215)) and fixed.shift.abs().max() == 0


def test_the_gauge_does_not_disturb_the_training(autoencoder):
    network = load_autoencoder(autoencoder).network
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    Gauge(network).add(torch.randn(3, 4, 7, 7))
    torch.manual_seed(1)
    assert torch.equal(before, torch.random.get_rng_state())


# --- diffusion ----------------------------------------------------------------------------------------------


def test_a_diffusion_depends_on_no_other_run(trained, autoencoder, here):
    """Its folder is copied to where nothing else is; the autoencoder's is not there."""
    shutil.copytree(trained, "alone")
    do_sample("--run", "alone", "--n", 2, "--out", "a").well()
    do_sample("--run", trained, "--n", 2, "--out", "b").well()
    assert Path("a/grid.png").read_bytes() == Path("b/grid.png").read_bytes()
    do_train("--resume", "alone", "--train.steps", 6, "--train.log-every", 1).well()
    options = ["--latents.autoencoder", autoencoder, "--train.steps", 6, "--train.log-every", 1]
    do_train(*DIFFUSION, *options, "--run.name", "six").well()
    assert same(Path("alone"), Path("runs/task2/six"))


def test_the_copied_autoencoder_is_the_one_it_was_trained_with(trained, autoencoder):
    one, other = load_autoencoder(trained / COPY).network, load_autoencoder(autoencoder).network
    assert all(torch.equal(v, other.state_dict()[name]) for name, v in one.state_dict().items())


def test_pictures(trained, here):
    do_sample("--run", trained, "--n", 4, "--singles", "true", "--upscale", 2).well()
    files = {str(p.relative_to("samples")) for p in Path("samples").rglob("*.*")}
    assert files == {"grid.png", "trajectory.gif", "interpolation.png", *(f"images/000{i}.png" for i in range(4))}
    model = load(trained)
    single = np.array(Image.open("samples/images/0002.png").resize((28, 28), Image.Resampling.NEAREST))
    expected = ((model.sample(4)[2, 0] + 1) * 127.5).round().numpy()
    assert np.abs(single - expected).max() <= 1


def test_samples_are_within_bounds_and_in_any_batches_of_the_right_number(trained):
    model = load(trained)
    images = model.sample(7, batch=3)
    assert images.shape == (7, 1, 28, 28) and images.min() >= -1 and images.max() <= 1
    assert not torch.equal(images[:3], images[3:6])


def test_interpolation_begins_and_ends_at_images(trained):
    from task2_latent.views import COLUMNS, between, slerp

    a, b = torch.randn(3, 2, 7, 7), torch.randn(3, 2, 7, 7)
    for curved in (False, True):
        ways = between(a, b, curved=curved).unflatten(0, (3, COLUMNS))
        assert torch.allclose(ways[:, 0], a, atol=1e-5) and torch.allclose(ways[:, -1], b, atol=1e-5)
    assert torch.allclose(slerp(a, a, 0.3), a)
    unit = [x / x.flatten(1).norm(dim=1).view(-1, 1, 1, 1) for x in (a, b)]
    assert torch.allclose(slerp(*unit, 0.4).flatten(1).norm(dim=1), torch.ones(3), atol=1e-5)


# --- evaluate -----------------------------------------------------------------------------------------------


def test_figures_of_samples_are_those_of_the_judge(trained, here):
    do_evaluate("--run", trained, "--n", 12, "--seed", 3, "--out", "o").well()
    written = json.loads(Path("o/evaluation.json").read_text())
    assert written["judge"] == judge_samples(load(trained).sample(12, seed=3)).to_dict()
    assert written["images"] == 16 and "clamp" not in written["protocol"]


def test_figures_of_an_autoencoder(autoencoder, here):
    shutil.copytree(autoencoder, "copy")
    do_evaluate("--run", "copy", "--n", 40).well()
    (evaluation,) = Run(Path("copy")).evaluations
    loaded, test = load_autoencoder(autoencoder), load_data(DataConfig(name="digits", split="test"))
    originals = torch.stack([test[i][0] for i in range(40)])
    with torch.no_grad():
        made = loaded.network.decode(loaded.network.bottleneck.mean(loaded.network.encode(originals))).clamp(-1, 1)
    error = ((made - originals) / 2).square().flatten(1).mean(dim=1)
    assert evaluation.figures["psnr"] == pytest.approx((-10 * error.log10()).mean().item(), abs=1e-3)
    assert set(evaluation.figures) >= {"ssim", "st_lpips", "sharpness", "pca_psnr", "judge_reconstruction_distance"}
    assert evaluation.main == "psnr" and evaluation.protocol["sampler"] == "none"
    with Image.open(evaluation.path.with_name("reconstructions.png")) as picture:
        pixels = np.asarray(picture.convert("L"))[2:58:2, 2:58:2]  # the first original, twice as large
    assert np.abs(pixels - ((originals[0, 0] + 1) * 127.5).numpy()).max() <= 1


def test_a_codebooks_use_is_measured(here):
    options = ["--autoencoder.bottleneck", "vq", "--autoencoder.vq.codes", 16, "--train.steps", 5]
    do_autoencoder(*AUTOENCODER, *options, "--run.name", "vq").well()
    run = Path("runs/task2-autoencoder/vq")
    assert {"usage", "perplexity"} <= set(Run(run).metrics[-1])
    do_evaluate("--run", run, "--n", 30).well()
    (evaluation,) = Run(run).evaluations
    assert 1 <= evaluation.figures["codebook_perplexity"] <= 16 * evaluation.figures["codebook_usage"] <= 16
    do_train(*DIFFUSION, "--latents.autoencoder", run, "--train.steps", 1, "--run.name", "d").well()
    model = load(Path("runs/task2/d"))
    codes = model.space.autoencoder.bottleneck.finish(torch.randn(2, 2, 7, 7))
    assert (codes.movedim(1, -1).reshape(-1, 1, 2) == model.space.autoencoder.bottleneck.codebook).all(-1).any(-1).all()
    do_sample("--run", "runs/task2/d", "--n", 2).well()


# --- bad input ----------------------------------------------------------------------------------------------


def test_an_autoencoder_that_is_not_there(here):
    ended = do_train(*DIFFUSION, "--latents.autoencoder", "nowhere")
    assert ended.says(1, "there is no autoencoder nowhere", "task2-train-autoencoder") and list(here.iterdir()) == []


def test_a_diffusion_is_no_autoencoder_and_the_other_way_round(trained, autoencoder, here):
    assert do_train(*DIFFUSION, "--latents.autoencoder", trained).says(
        1, "this is not a config of stage 2's autoencoder"
    )
    assert do_sample("--run", autoencoder).says(1, "this is not a config of stage 2's diffusion")


@pytest.mark.parametrize(
    ("option", "message"),
    [(["--data.size", 32], "1×28×28, not 1×32×32"), (["--data.name", "folder", "--data.root", "p"], "not 3×28×28")],
)
def test_an_autoencoder_of_other_images(option, message, autoencoder, here):
    Path("p").mkdir()
    Image.new("RGB", (28, 28), (9, 99, 200)).save("p/a.png")
    for command in (do_train, do_encode):
        name = "--latents.autoencoder" if command is do_train else "--autoencoder"
        rest = DIFFUSION if command is do_train else ["--out", "cache"]
        assert command(*rest, *option, name, autoencoder).says(1, "is an autoencoder of images", message)
    assert {p.name for p in here.iterdir()} == {"p"}


def test_latents_of_another_autoencoder_or_other_data(autoencoder, here):
    do_encode("--autoencoder", autoencoder, "--out", "cache").well()
    do_autoencoder(*AUTOENCODER, "--train.steps", 1, "--run.name", "other").well()
    options = [*DIFFUSION, "--latents.cache", "cache", "--latents.autoencoder"]
    ended = do_train(*options, Path("runs/task2-autoencoder/other"))
    assert ended.says(1, "cache holds latents of another autoencoder: write them again by task2-encode")
    ended = do_train(*options, autoencoder, "--data.split", "test")
    assert ended.says(1, "cache holds latents of other data")
    assert read_statistics(autoencoder / "latents.json").n == 4500  # measured by task2-encode, too
    next(Path("cache").glob("shard-*")).unlink()
    assert do_train(*options, autoencoder).says(1, "cache holds 0 of 4500 latents")
    assert do_train(*options[:-1], "--latents.cache", "none", "--latents.autoencoder", autoencoder).says(
        1, "none holds no latents"
    )
    assert do_encode("--autoencoder", autoencoder, "--out", "cache").says(1, "cache holds a cache: remove it")


def test_another_autoencoder_cannot_decode(trained, here):
    do_autoencoder(*AUTOENCODER, "--train.steps", 1, "--run.name", "other").well()
    ended = do_sample("--run", trained, "--autoencoder", "runs/task2-autoencoder/other")
    assert ended.says(1, "was trained in the latent space of another autoencoder")


def test_a_codebook_of_another_size(here):
    options = [*AUTOENCODER, "--autoencoder.bottleneck", "vq", "--train.steps", 1]
    do_autoencoder(*options, "--autoencoder.vq.codes", 16, "--run.name", "vq").well()
    ended = do_autoencoder(*options, "--autoencoder.vq.codes", 32, "--init-from", "runs/task2-autoencoder/vq")
    assert ended.says(1, "of another network: bottleneck.", "16", "32")


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--autoencoder.latent-channels", 0], ["latent_channels"]),
        (["--autoencoder.multipliers", "[1,1,1]", "--autoencoder.attention", "[none,none,none]"], ["28×28", "8-fold"]),
        (["--loss.adversarial", "-1"], ["adversarial"]),
        (["--loss.perceptual", "vgg"], ["perceptual"]),
    ],
)
def test_an_option_of_the_autoencoder(options, parts, here):
    ended = do_autoencoder(*AUTOENCODER, *options)
    assert ended.says(ended.status, *parts) and ended.status in (1, 2) and list(here.iterdir()) == []


def test_latents_are_never_clamped(autoencoder, here):
    ended = do_train(*DIFFUSION, "--latents.autoencoder", autoencoder, "--sampling.clamp", "true")
    assert ended.says(1, "sampling.clamp is true", "latents")


def test_a_diffusion_without_its_autoencoder(trained, here):
    shutil.copytree(trained, "alone")
    (Path("alone") / COPY).unlink()
    assert do_sample("--run", "alone").says(1, "no autoencoder.safetensors lies with it", "--autoencoder")


def test_help_needs_no_torch():
    import subprocess
    import sys

    for module in ("train_autoencoder", "train", "sample", "encode", "evaluate"):
        script = f"import sys; sys.argv = ['x', '--help']\nfrom task2_latent import {module} as m\ntry: m.main()\n"
        script += "except SystemExit: pass\nprint('torch' in sys.modules)"
        out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
        assert out.splitlines()[-1] == "False", module


def test_a_shape_of_a_checkpoint_is_kept(trained):
    facts = read_facts(Checkpoints(trained / "checkpoints").latest())
    assert facts["config"]["shape"] == [1, 28, 28] and load(trained).latent_shape == (2, 7, 7)
    assert replace(load(trained)).config.sampling.clamp is False


def test_a_folder_of_images_is_not_taken_for_another(here):
    for name, shade in (("p", 9), ("q", 90)):
        Path(name).mkdir()
        for i in range(3):
            Image.new("L", (28, 28), shade + i).save(f"{name}/{i}.png")
    data = ["--data.name", "folder", "--data.channels", 1, "--data.root"]
    do_autoencoder(*AUTOENCODER, *data, "p", "--train.steps", 1, "--train.batch", 2, "--run.name", "ae").well()
    run = Path("runs/task2-autoencoder/ae")
    do_encode("--autoencoder", run, *data, "p", "--out", "cache").well()
    options = [*DIFFUSION, "--latents.autoencoder", run, "--train.steps", 1, *data]
    assert do_train(*options, "q", "--latents.cache", "cache").says(1, "cache holds latents of other data")
    before = read_statistics(run / "latents.json")
    do_train(*options, "q").well()
    assert read_statistics(run / "latents.json").mean != before.mean  # measured anew


def test_an_autoencoder_is_measured_where_it_is_asked_for(trained, autoencoder, here):
    do_evaluate("--run", trained, "--reconstructions", "true", "--n", 20, "--out", "a").well()
    do_evaluate("--run", autoencoder, "--n", 20, "--out", "b").well()
    a, b = (json.loads(Path(f"{name}/evaluation.json").read_text())["figures"] for name in "ab")
    assert a == b
