"""Measure: every figure is what the functions say of the same images, whatever else is asked for; each is written."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from shared.datasets.config import DataConfig
from shared.datasets.digits import load_digits
from shared.datasets.held_out import chosen, held_out, part_of
from shared.experiments.history import Evaluation, Run
from shared.metrics.image_figures import image_figures
from shared.metrics.inception import Features, Inception, WeightsMissing
from shared.metrics.likelihood import bound_bits, ode_bits
from shared.metrics.report import judge_samples
from shared.schedulers.bound import Bound
from shared.schedulers.samplers import clamped
from shared.tests import made_evaluations
from shared.tests.test_metrics_inception import made_up
from task1_unconditional import measuring
from task1_unconditional.model import Model, load
from task1_unconditional.tests.commands import TINY, Ended, do_evaluate, do_sample, do_train, record

LEVELS = 12  # few enough for every term of the bound
PLAIN = ["--samples", "false"]


def short_run(folder: Path, name: str, *options: object) -> Path:
    """A run with few levels."""
    do_train(
        *TINY, "--schedule.T", LEVELS, "--optimizer.lr", 0.01, "--run.folder", folder, "--run.name", name, *options
    ).well()
    return folder / "task1" / name


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> Path:
    """With three sets of weights, never changed by a test."""
    averages = "--averages.ema 0.9 --averages.swa-start 2 --averages.swa-every 2".split()
    return short_run(tmp_path_factory.mktemp("short"), "short", "--train.steps", 6, *averages)


@pytest.fixture(scope="module")
def learned(tmp_path_factory) -> Path:
    """With a learned variance."""
    bound = "--bound.variance learned --bound.objective hybrid --train.steps 4".split()
    return short_run(tmp_path_factory.mktemp("learned"), "learned", *bound)


@pytest.fixture(scope="module")
def colour(tmp_path_factory) -> Path:
    """Of ten colour images, which no judge takes; there is no other part of them."""
    folder = tmp_path_factory.mktemp("colour")
    (folder / "pictures").mkdir()
    for i, image in enumerate(np.random.default_rng(0).integers(0, 256, (10, 20, 28, 3), dtype=np.uint8)):
        Image.fromarray(image).save(folder / "pictures" / f"{i}.png")
    data = ["--data.name", "folder", "--data.root", folder / "pictures", "--data.channels", 3]
    return short_run(folder / "runs", "colour", *data)


def written(ended: Ended) -> list[dict]:
    """What a command has written, in the order of its table: the first comes last."""
    lines = [line for line in ended.well().out.splitlines() if line.startswith("written: ")]
    paths = [Path(line.removeprefix("written: ").partition(", ")[0]) for line in reversed(lines)]
    return [json.loads(path.read_text()) for path in paths]


def rows_of(text: str) -> list[list[str]]:
    """The cells of a Markdown table, without its head."""
    table = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in table[2:]]


# --- the judge ----------------------------------------------------------------------------------------------


def test_figures_are_those_of_the_judge(trained, here):
    ended = do_evaluate("--run", trained, "--n", 12, "--seed", 3, "--steps", 3, "--out", "o")
    (found,) = written(ended)
    assert found["judge"] == judge_samples(load(trained).sample(12, seed=3, steps=3)).to_dict()
    protocol = found["protocol"]
    assert (protocol["n"], protocol["seed"], protocol["weights"], protocol["steps"]) == (12, 3, "ema", 3)
    assert protocol["sampler"] == "ddim" and protocol["data"] == "digits" and protocol["guidance"] == "none"
    assert found["figures"]["sampling_seconds"] > 0
    assert found["figures"]["judge_distance_over_floor"] == found["judge"]["ratio"]
    assert (found["task"], found["step"], found["images"]) == ("task1", 8, 8 * 4)
    assert found["seconds"] == record(trained)["seconds"] > 0
    assert found["source"] == "step-00000008.safetensors"
    table = Path("o/evaluation.md").read_text()
    assert table in ended.out and found["judge"]["caveat"] in table
    assert table.startswith("| figure | value | floor | n | reference | weights | sampler | steps |\n")
    reference, floor = found["judge"]["reference"], f"{found['judge']['floor']:.3f} ± "
    (distance,) = [row for row in rows_of(table) if row[0] == "judge distance"]
    assert distance[1] == f"{found['judge']['distance']:.3f}" and distance[2].startswith(floor)
    assert distance[3:] == ["12", reference, "ema", "ddim, eta 0", "3"]
    confident = next(row for row in rows_of(table) if row[0].startswith("confident"))
    assert confident[1] == f"{found['judge']['confident']:.1%}" and float(confident[2].rstrip("%")) > 90


def test_each_evaluation_of_a_run_is_kept_in_it(trained, here):
    shutil.copytree(trained, "copy")
    for n in (2, 3, 3):
        ended = do_evaluate("--run", "copy", "--n", n, "--weights", "model").well()
    evaluations = Run(Path("copy")).evaluations
    assert [e.protocol["n"] for e in evaluations] == [2, 3, 3]
    assert {e.step for e in evaluations} == {8} and {e.main for e in evaluations} == {"judge_distance_over_floor"}
    assert str(evaluations[-1].path) in ended.out
    assert Run(Path("copy")).main_figure() == (evaluations[-1].main, evaluations[-1].figures[evaluations[-1].main])


def test_figures_of_a_file_are_only_printed(trained, here):
    Path("file.safetensors").write_bytes((trained / "checkpoints" / "step-00000008.safetensors").read_bytes())
    ended = do_evaluate("--run", "file.safetensors", "--n", 2).well()
    assert {row[3] for row in rows_of(ended.out)} == {"2"} and "written" not in ended.out
    assert [p.name for p in here.iterdir()] == ["file.safetensors"]


def test_samples_of_data_of_ones_own_are_judged(own, here, monkeypatch):
    """Nothing real is needed for that; what needs it says so before the work."""
    spec = json.dumps({"class_path": f"{own}.Shades", "init_args": {"size": 28}})
    do_train(*TINY, "--own-data", spec, "--train.workers", 0, "--run.name", "own").well()
    (found,) = written(do_evaluate("--run", "runs/task1/own", "--n", 3))
    assert found["protocol"]["data"] == f"{own}.Shades" and found["judge"]["n"] == 3
    monkeypatch.setattr(Model, "sample", lambda *_, **__: pytest.fail("sampled for nothing"))
    for more in (["--bits-per-dim"], ["--reconstruct", "[2]"], ["--fid"]):
        assert do_evaluate("--run", "runs/task1/own", *more).says(1, "trained on data of your own")
    assert len(Run(Path("runs/task1/own")).evaluations) == 1


# --- bits per dimension -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("clamp", "variance"), [("true", "small"), ("false", "large")])
def test_bits_are_those_of_the_bound_of_the_same_held_out_images(clamp, variance, here):
    run = short_run(here, "run", "--sampling.clamp", clamp)
    asked = ["--run", run, *PLAIN, "--bits-per-dim", "--terms", 999, "--real", 7, "--seed", 5]
    (found,) = written(do_evaluate(*asked, "--variance", variance))
    model = load(run)
    denoise = model.diffusion.denoiser(model.network, {})
    if clamp == "true":
        denoise = clamped(denoise, model.diffusion.schedule)
    images, generator = chosen(held_out(model)[0], 7), torch.Generator().manual_seed(5)
    expected = bound_bits(denoise, Bound(model.diffusion.schedule, variance), images, LEVELS - 1, generator)
    assert found["figures"] == {
        "bits_per_dim": expected.bits_per_dim,
        "bits_per_dim_error": expected.error,
        **{f"bits_{name}": value for name, value in expected.parts.items()},
    }
    protocol = found["protocol"]
    assert (protocol["n"], protocol["steps"]) == (7, LEVELS)
    assert protocol["reference"] == "7 of 500 digits images (test)"
    assert protocol["sampler"] == f"bound, {variance} variance"


def test_images_are_held_out_and_always_the_same(trained):
    """The digits' own test part, whatever of it was asked for before."""
    model = load(trained)
    test, train = (load_digits(DataConfig(split=split)).images for split in ("test", "train"))
    known = {image.numpy().tobytes() for image in test} - {image.numpy().tobytes() for image in train}
    data, split = held_out(model)
    images = chosen(data, 20)
    pixels = ((images + 1) * 127.5).round().to(torch.uint8)
    assert split == "test" and all(image.numpy().tobytes() in known for image in pixels)
    assert len({image.numpy().tobytes() for image in pixels}) == 20
    assert torch.equal(chosen(data, 9), images[:9]) and len(chosen(data, 10_000)) == len(test) == 500


def test_the_ode_and_its_images(short, here):
    asked = ["--run", short, *PLAIN, "--ode", "--terms", 2, "--real", 3, "--ode-images", 2, "--out", "o"]
    bound, ode = written(do_evaluate(*asked))
    model = load(short)
    images, generator = chosen(held_out(model)[0], 3), torch.Generator().manual_seed(0)
    plain, either = model.diffusion.denoiser(model.network, {}), Bound(model.diffusion.schedule, "small")
    bound_bits(clamped(plain, model.diffusion.schedule), either, images, 2, generator)  # draws first
    expected = ode_bits(plain, either, images[:2], generator)
    assert ode["figures"]["bits_per_dim"] == pytest.approx(expected.bits_per_dim, rel=1e-6)
    assert ode["figures"]["bits_flow"] == pytest.approx(expected.parts["flow"], rel=1e-6)
    assert ode["protocol"]["n"] == 2 and ode["protocol"]["steps"] == expected.calls
    assert ode["protocol"]["reference"] == "2 of 500 digits images (test)"
    assert bound["protocol"]["n"] == 3 and bound["protocol"]["sampler"] != ode["protocol"]["sampler"]


def test_one_image_has_no_spread(short, here):
    """NaN is no JSON."""
    asked = ["--run", short, *PLAIN, "--bits-per-dim", "--terms", 1, "--real", 1, "--reconstruct", "[2]", "--out", "o"]
    ended = do_evaluate(*asked)
    bits, errors = written(ended)
    assert bits["figures"]["bits_per_dim_error"] is None and math.isfinite(bits["figures"]["bits_per_dim"])
    assert errors["figures"]["reconstruction_mse_error"] is None
    assert "NaN" not in Path("o/evaluation.json").read_text() and "nan" not in ended.out


def test_one_level_has_no_small_variance(here):
    run = short_run(here, "one", "--schedule.T", 1, "--sampling.steps", 1)
    asked = ["--run", run, *PLAIN, "--bits-per-dim", "--real", 2]
    assert do_evaluate(*asked).says(1, "--variance large")
    (found,) = written(do_evaluate(*asked, "--variance", "large"))
    assert math.isfinite(found["figures"]["bits_per_dim"]) and found["figures"]["bits_between"] == 0


# --- a learned variance -------------------------------------------------------------------------------------


def test_a_learned_variance_is_sampled_with_and_measured(learned, here):
    do_sample("--run", learned, "--n", 2, "--sampler", "ddpm_learned", "--steps", 5, "--seed", 1).well()
    asked = ["--n", 4, "--sampler", "ddpm_learned", "--bits-per-dim", "--terms", 99, "--real", 3]
    judged, bits = written(do_evaluate("--run", learned, *asked, "--out", "o"))
    assert judged["protocol"]["sampler"] == "ddpm_learned"
    assert bits["protocol"]["sampler"] == "bound, learned variance"
    model = load(learned)
    assert judged["judge"] == judge_samples(model.sample(4, sampler="ddpm_learned")).to_dict()
    assert not torch.equal(model.sample(4, sampler="ddpm_learned"), model.sample(4, sampler="ddpm"))
    (fixed,) = written(do_evaluate("--run", learned, *PLAIN, *asked[4:], "--variance", "small"))
    assert fixed["protocol"]["sampler"] == "bound, small variance"
    assert fixed["figures"]["bits_prior"] == bits["figures"]["bits_prior"]
    assert fixed["figures"]["bits_between"] != bits["figures"]["bits_between"]


def test_a_model_without_a_learned_variance_is_not_sampled_by_one(short, here):
    for command in (do_sample, do_evaluate):
        ended = command("--run", short, "--n", 2, "--sampler", "ddpm_learned", "--out", "o")
        assert ended.says(1, "has learned no variance", "ddpm_large")
    assert not Path("o").exists()


# --- there and back -----------------------------------------------------------------------------------------


def there_and_back(model: Model, x: Tensor, times: list[float]) -> Tensor:
    """DDIM, eqs. (12) and (14), written with the raw network, whose output is v = alpha eps - sigma x0."""

    def moved(x: Tensor, s: float, t: float) -> Tensor:
        asked = max(s, 1.0)  # at 0 the network was never asked; and there x is x0
        alpha, sigma = (rate.float() for rate in model.diffusion.schedule.level(asked))
        with torch.no_grad():
            v = model.network(x, torch.full((len(x),), float(asked), dtype=torch.float64), {})
        x0, eps = x if s == 0 else alpha * x - sigma * v, sigma * x + alpha * v
        alpha, sigma = (rate.float() for rate in model.diffusion.schedule.level(t))
        return alpha * x0 + sigma * eps

    for s, t in zip(times[:-1], times[1:], strict=True):
        x = moved(x, s, t)
    for s, t in zip(times[::-1][:-1], times[::-1][1:], strict=True):
        x = moved(x, s, t)
    return x


def test_reconstruction_is_ddim_there_and_back(short, here):
    asked = ["--run", short, *PLAIN, "--reconstruct", "[4,12,1]", "--real", 6, "--weights", "model", "--out", "o"]
    found = written(do_evaluate(*asked))
    model = load(short, weights="model")
    images = chosen(held_out(model)[0], 6)
    times = {4: [0, 3, 6, 9, 12], 12: list(range(13)), 1: [0, 12]}
    assert [facts["protocol"]["steps"] for facts in found] == [4, 12, 1]
    for facts in found:
        back = there_and_back(model, images, times[facts["protocol"]["steps"]])
        errors = ((back - images) / 2).square().mean((1, 2, 3))
        assert facts["figures"]["reconstruction_mse"] == pytest.approx(errors.mean().item(), rel=1e-4)
        spread = errors.std().item() / 6**0.5
        assert facts["figures"]["reconstruction_mse_error"] == pytest.approx(spread, rel=1e-2)
        assert facts["protocol"]["n"] == 6 and facts["protocol"]["eta"] == 0


# --- several weights in one table ---------------------------------------------------------------------------


def test_weights_side_by_side_are_those_of_separate_calls(short, here):
    asked = ["--run", short, "--n", 3, "--bits-per-dim", "--terms", 2, "--real", 3, "--reconstruct", "[2,3]"]
    together = do_evaluate(*asked, "--also", "[model,all]", "--out", "all")
    apart = [do_evaluate(*asked, "--weights", name, "--out", name) for name in ("ema", "model", "swa")]
    assert rows_of(together.out) == [row for ended in apart for row in rows_of(ended.out)]
    assert [row[5] for row in rows_of(together.out)] == [w for w in ("ema", "model", "swa") for _ in range(9)]
    assert len({row[1] for row in rows_of(together.out) if row[0] == "bits/dim"}) == 3
    assert together.out.startswith(Path("all/evaluation.md").read_text())
    files = [facts | {"figures": untimed(facts)} for facts in written(together)]
    assert files == [facts | {"figures": untimed(facts)} for ended in apart for facts in written(ended)]
    assert len(list(Path("all").rglob("evaluation.json"))) == 12


def untimed(facts: dict) -> dict:
    """Its figures but for what the clock said."""
    return {name: value for name, value in facts["figures"].items() if name != "sampling_seconds"}


def test_a_run_with_several_evaluations_is_read_and_compared(short, here):
    run = shutil.copytree(short, here / "runs" / "task1" / "short")
    asked = [
        "--n",
        3,
        "--bits-per-dim",
        "--ode",
        "--terms",
        2,
        "--real",
        2,
        "--ode-images",
        1,
        "--reconstruct",
        "[2]",
        "--also",
        "[swa]",
    ]
    found = written(do_evaluate("--run", run, *asked))
    assert len(found) == 8
    evaluations = [Evaluation.read(path) for path in sorted(run.glob("evaluations/*/evaluation.json"))]
    assert sorted(map(key, evaluations)) == sorted((f["main"], f["protocol"]["weights"]) for f in found)
    for evaluation in evaluations:
        assert evaluation.main in evaluation.figures and evaluation.task == "task1" and evaluation.step == 6
        assert {"data", "n", "reference", "extractor", "guidance", "weights", "sampler", "steps", "seed"} <= set(
            evaluation.protocol
        )
    assert Run(run).evaluations and not Run(run).problems
    # what `runs` names, and `compare` starts from, is the first of the table
    assert Run(run).main_figure() == (found[0]["main"], found[0]["figures"][found[0]["main"]])
    assert found[0]["main"].startswith("judge") and found[0]["protocol"]["weights"] == "ema"
    (bits,) = [e for e in evaluations if key(e) == ("bits_per_dim", "swa") and e.protocol["steps"] == LEVELS]
    ended = made_evaluations.call("short", "--reference", bits.path, "--figure", "bits_per_dim", "--papers", "false")
    assert ended.status == 0 and f"{bits.figures['bits_per_dim']:.3f}" in ended.out, ended.err
    ended = made_evaluations.call("short", "--all", "--papers", "false")
    assert ended.status == 0 and f"{found[0]['figures']['judge_distance']:.3f}" in ended.out, ended.err
    assert sum(line.startswith("short ") for line in ended.out.splitlines()) == len(found)


def key(evaluation: Evaluation | dict) -> tuple[str, str]:
    """Its main figure and its weights."""
    facts = evaluation if isinstance(evaluation, dict) else vars(evaluation)
    return facts["main"], facts["protocol"]["weights"]


def test_all_weights_are_of_one_checkpoint(short, here, monkeypatch):
    """A training that goes on writes newer ones meanwhile."""
    run, plain = shutil.copytree(short, here / "run"), measuring.of_reconstruction

    def newer(*arguments):
        for path in (run / "checkpoints").glob("step-*6.safetensors"):
            shutil.copy(path, path.with_name("step-00000009.safetensors"))
        return plain(*arguments)

    monkeypatch.setattr(measuring, "of_reconstruction", newer)
    asked = ["--run", run, *PLAIN, "--reconstruct", "[2]", "--also", "[model]", "--real", 2]
    assert [facts["source"] for facts in written(do_evaluate(*asked))] == ["step-00000006.safetensors"] * 2


# --- FID and its like ---------------------------------------------------------------------------------------


def made_features(network: object, images: Tensor, *_: object, **__: object) -> Features:
    """In place of Inception's: shades of a few places, by a fixed mixture."""
    mixture = torch.randn(images[0].numel(), 16, generator=torch.Generator().manual_seed(0))
    pooled = images.float().flatten(1) @ mixture / 10
    return Features(pooled, pooled[:, :10], network.weights)


@pytest.fixture
def made(monkeypatch) -> None:
    """Made-up features instead of a network that sees four images a second."""
    network = type("Made", (), {"weights": "0" * 64})()
    monkeypatch.setattr("shared.metrics.inception.load_inception", lambda path: network)
    monkeypatch.setattr(measuring, "features_of", made_features)
    monkeypatch.setattr(measuring, "cached_features", made_features)


def test_fid_is_of_the_samples_against_the_part_that_is_named(short, here, made):
    asked = ["--run", short, "--fid", "--n", 8, "--seed", 2, "--reference", "test", "--most", 30, "--out", "o"]
    ended = do_evaluate(*asked)
    judged, found = written(ended)
    model, network = load(short), type("Made", (), {"weights": ""})()
    samples, test = model.sample(8, seed=2), chosen(part_of(model, "test"), 30)
    train = chosen(part_of(model, "train"), 8)
    expected = image_figures(made_features(network, samples), made_features(network, test))
    floor = image_figures(made_features(network, train), made_features(network, test))
    for name, value in expected.items():
        assert found["figures"][name] == pytest.approx(value, rel=1e-6, abs=1e-9)
    assert found["figures"]["fid_floor"] == pytest.approx(floor["fid"], rel=1e-4)
    assert found["protocol"]["reference"] == "30 of 500 digits images (test)" and found["main"] == "fid"
    assert found["protocol"]["extractor"].startswith("inception") and found["protocol"]["seed"] == 2
    assert judged["judge"] == judge_samples(samples).to_dict()
    fid = next(row for row in rows_of(ended.out) if row[0] == "FID")
    assert fid[1:4] == [f"{expected['fid']:.2f}", f"{floor['fid']:.2f}", "8"]
    assert {row[0] for row in rows_of(ended.out)} >= {"FID", "KID", "Inception Score", "precision", "recall"}


def test_colour_images_are_measured_by_fid_unasked(colour, here, made):
    """Its data has no other part, and not enough for two halves: no floor."""
    (found,) = written(do_evaluate("--run", colour, "--n", 6, "--out", "o"))
    assert found["main"] == "fid" and found["protocol"]["reference"] == "10 folder images (train)"
    assert "fid_floor" not in found["figures"] and any("no floor" in note for note in found["notes"])


def test_too_few_images_for_fid_are_said_before_the_work(short, here, made, monkeypatch):
    monkeypatch.setattr(Model, "sample", lambda *_, **__: pytest.fail("sampled for nothing"))
    for less in (["--n", 3], ["--most", 2]):
        assert do_evaluate("--run", short, "--fid", *less).says(1, "at least 4 images")


@pytest.fixture
def offline(monkeypatch) -> None:
    """Weights neither in the cache nor to be had."""

    def missing(path: str | None) -> Inception:
        raise WeightsMissing("Inception's weights could not be had: put them there")

    monkeypatch.setattr("shared.metrics.inception.load_inception", missing)


def test_without_inception_the_other_figures_follow(short, here, offline):
    ended = do_evaluate("--run", short, "--fid", "--n", 4, "--out", "o")
    (found,) = written(ended)
    assert found["judge"] == judge_samples(load(short).sample(4)).to_dict()
    assert ended.err.count("\n") == 1 and ended.err.startswith("Inception's weights could not be had")


def test_without_judge_and_inception_there_is_nothing_to_say(colour, here, offline, monkeypatch):
    monkeypatch.setattr(Model, "sample", lambda *_, **__: pytest.fail("sampled for nothing"))
    assert do_evaluate("--run", colour, "--n", 4).says(1, "error: Inception's weights could not be had")
    assert do_evaluate("--run", colour, "--fid", "false").says(1, "the judge takes digits")
    ended = do_evaluate("--run", colour, "--n", 4, "--bits-per-dim", "--terms", 2, "--real", 3, "--out", "o")
    (found,) = written(ended)
    assert found["main"] == "bits_per_dim" and ended.err.count("\n") == 1
    assert found["notes"][0] == "the data has no held-out part: these are training images"
    assert found["notes"][1].startswith("the bound: 3 of its 12 terms")
    assert found["protocol"]["reference"] == "3 of 10 folder images (train)"


@pytest.mark.slow
def test_fid_by_the_network_itself(colour, here, monkeypatch):
    """With weights by the published names that mean nothing, out of a file; the features of real images are kept."""
    monkeypatch.setenv("DIFFUSION_DATA", str(here / "data"))
    save_file({name: value.contiguous() for name, value in made_up().items()}, "weights.safetensors")
    asked = ["--run", colour, "--n", 4, "--most", 5, "--inception", "weights.safetensors"]
    (found,) = written(do_evaluate(*asked, "--out", "o"))
    figures = found["figures"]
    names = {"fid", "kid", "kid_deviation", "inception_score", "inception_score_deviation", "precision", "recall"}
    assert set(figures) == names and all(math.isfinite(value) for value in figures.values())
    assert figures["fid"] > 0 and figures["inception_score"] >= 1 and any("published" in n for n in found["notes"])
    (kept,) = (here / "data" / "features").iterdir()
    kept.touch()
    (again,) = written(do_evaluate(*asked, "--out", "o"))
    assert again["figures"] == figures and list((here / "data" / "features").iterdir()) == [kept]


# --- what cannot be measured --------------------------------------------------------------------------------

MISTAKES = [
    (["--samples", "false"], 1, ["nothing is asked for", "--bits-per-dim"]),
    (["--reconstruct", "[0]"], 2, ["reconstruct", "0"]),
    (["--reconstruct", "[2,13]"], 1, ["13 sampling steps", "T = 12"]),
    (["--bits-per-dim", "--terms", "0"], 2, ["terms", "0"]),
    (["--bits-per-dim", "--real", "0"], 2, ["real", "0"]),
    (["--bits-per-dim", "--variance", "learned"], 2, ["variance", "learned"]),
    (["--also", "[gone]"], 1, ["holds no gone weights", "ema, swa"]),
    (["--also", "[post-hoc-0.1]"], 1, ["no profiles"]),
    (["--weights", "ema-0.5"], 1, ["holds no ema-0.5 weights"]),
    (["--reference", "validation"], 2, ["reference", "validation"]),
    (["--inception", "gone"], 1, ["gone is no file of Inception's weights"]),
    (["--inception", __file__], 1, ["test_evaluate.py holds no weights"]),
]


@pytest.mark.parametrize("case", MISTAKES, ids=lambda case: " ".join(case[0]).replace(__file__, "this"))
def test_a_mistake_is_said_before_the_work(case, short, here, monkeypatch):
    options, status, parts = case
    monkeypatch.setattr(Model, "sample", lambda *_, **__: pytest.fail("sampled for nothing"))
    monkeypatch.setattr(measuring, "bound_bits", lambda *_, **__: pytest.fail("measured for nothing"))
    before = {path for path in short.rglob("*")}
    assert do_evaluate("--run", short, "--out", "o", *options).says(status, *parts)
    assert not list(here.iterdir()) and {path for path in short.rglob("*")} == before
