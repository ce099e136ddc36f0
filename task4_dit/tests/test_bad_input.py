"""Each mistake ends in one line that names it, with no traceback and nothing half-written."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import task1_unconditional
import task2_latent
import task3_conditional
from shared.errors import UserError
from shared.experiments.provenance import peak_memory_gib
from shared.tests.limited import limited
from shared.tests.test_checkpoint import NO_CHECKPOINTS
from shared.training.checkpoint import Checkpoints, read_facts, read_tensors, write_checkpoint
from task4_dit.model import load
from task4_dit.tests.commands import (
    BY_CAPTION,
    BY_CLASS,
    DISTILL,
    OWN,
    do_distill,
    do_evaluate,
    do_sample,
    do_train,
    of_another_stage,
    own_data,
)
from task4_dit.tests.conftest import AUTOENCODER, on_latents

USAGE, MISTAKE = 2, 1
STAGES = {
    "stage 1": Path(task1_unconditional.__file__).parent / "results" / "digits.safetensors",
    "stage 2": Path(task2_latent.__file__).parent / "results" / "diffusion.safetensors",
    "stage 3": Path(task3_conditional.__file__).parent / "results" / "digits.safetensors",
}


def names(folder: Path) -> set[str]:
    """Everything in a folder and below."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def contents(folder: Path) -> dict[Path, bytes]:
    """Every file in a folder and below, but for the lock, with what is in it."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def newest(run: Path) -> Path:
    """A run's newest checkpoint."""
    return Checkpoints(run / "checkpoints").latest()


# --- options of training ------------------------------------------------------------------------------------

OPTIONS = [
    # usage
    (BY_CLASS, ["--network.conditioning", "adaln-zero"], USAGE, "network.conditioning", "adaln_zero"),
    (BY_CLASS, ["--network.positions", "learned"], USAGE, "network.positions", "rotary"),
    (BY_CLASS, ["--network.size", "M"], USAGE, "network.size"),
    (BY_CLASS, ["--network.depth", "1000000"], USAGE, "network.depth", "1000000"),
    (BY_CLASS, ["--patch-size", "0"], USAGE, "patch", "0"),
    (BY_CLASS, ["--patch-size", "four"], USAGE, "patch", "four"),
    (BY_CLASS, ["--epochs", "0"], USAGE, "epochs", "0"),
    (BY_CLASS, ["--batch-size", "-4"], USAGE, "batch", "-4"),
    (BY_CLASS, ["--lr", "0"], USAGE, "lr", "0"),
    (BY_CLASS, ["--lr-decay-steps", "10"], USAGE, "lr_decay_steps"),
    (BY_CLASS, ["--lr-decay", "0.1"], USAGE, "lr_decay"),
    (BY_CLASS, ["--lr-decay-step", "0"], USAGE, "step_epochs"),
    (BY_CLASS, ["--lr-decay-step", "1.5"], USAGE, "step_epochs", "1.5"),
    (BY_CLASS, ["--lr-decay-rate", "-0.5"], USAGE, "gamma", "-0.5"),
    (BY_CLASS, ["--lr-decay-rate", "often"], USAGE, "gamma", "often"),
    (BY_CLASS, ["--save-freq", "-1"], USAGE, "save_epochs"),
    (BY_CLASS, ["--seed", "-1"], USAGE, "seed"),
    (BY_CLASS, ["--schedule.T", "1000001"], USAGE, "schedule.T", "1000001"),
    (BY_CLASS, ["--schedule.T", str(2**70)], USAGE, "schedule.T"),
    (BY_CLASS, ["--schedule.shift", "101"], USAGE, "schedule.shift", "101"),
    (BY_CLASS, ["--schedule.shift", "0.001"], USAGE, "schedule.shift", "0.001"),
    (BY_CLASS, ["--schedule.shift", ".nan"], USAGE, "schedule.shift"),
    (BY_CLASS, ["--img-size", "large"], USAGE, "size", "large"),
    (BY_CLASS, ["--condition.label", "vanilla"], USAGE, "condition.label", "vanilla"),
    (BY_CLASS, ["--condition.attributes", "true"], USAGE, "condition.attributes"),
    (BY_CLASS, ["--condition.dropout", "1.5"], USAGE, "condition.dropout"),
    (BY_CLASS, ["--distill.levels", "4"], USAGE, "distill.levels"),
    # what does not fit together, or is not there
    (BY_CLASS, ["--patch-size", "5"], MISTAKE, "patches of 5×5 do not divide 28×28", "network.patch"),
    (BY_CLASS, ["--img-size", "30"], MISTAKE, "patches of 7×7 do not divide 30×30"),
    (BY_CLASS, ["--img-size", "0"], MISTAKE, "--data.size is 0"),
    (BY_CLASS, ["--channels", "2"], MISTAKE, "--data.channels is 2"),
    (BY_CLASS, ["--network.heads", "3"], MISTAKE, "16", "3 attention heads"),
    (BY_CLASS, ["--network.width", "18"], MISTAKE, "a width that 4 divides, not 18"),
    (BY_CLASS, ["--network.positions=rotary", "--network.heads=8"], MISTAKE, "heads of a size that 4 divides, not 2"),
    (BY_CLASS, ["--network.size", "S", "--patch-size", "3"], MISTAKE, "patches of 3×3 do not divide"),
    (BY_CLASS, ["--diffusion.predict", "v"], MISTAKE, "predict", "v"),
    (BY_CLASS, ["--diffusion.predict", "eps"], MISTAKE, "predict", "eps"),
    (
        BY_CLASS,
        ["--schedule.name", "cosine", "--schedule.shift", "3"],
        MISTAKE,
        "schedule.shift is 3, but it is for the schedule flow",
    ),
    (BY_CLASS, ["--sampling.steps", "1001"], MISTAKE, "1001 sampling steps"),
    (BY_CLASS, ["--guidance.scale", ".nan"], MISTAKE, "the guidance scale is nan"),
    (BY_CLASS, ["--guidance.interval", "[0.8,0.2]"], MISTAKE, "the guidance interval is from 0.8 to 0.2"),
    (BY_CLASS, ["--condition.dropout", "0"], MISTAKE, "condition.dropout is 0", "or make it 1", "or train with"),
    (BY_CLASS, ["--condition.text", "true"], MISTAKE, "condition.text is true", "no caption, only: label"),
    (BY_CAPTION, ["--condition.label", "true"], MISTAKE, "condition.label is true", "no label, only: caption"),
    (BY_CAPTION, ["--network.heads", "3"], MISTAKE, "attention heads"),
    (BY_CAPTION, ["--text.length", "3"], MISTAKE, "text.length is 3"),
    (BY_CAPTION, ["--text.encoder", "./gone"], MISTAKE, "there is no folder ./gone"),
    (BY_CLASS, ["--latents.autoencoder", "gone"], MISTAKE, "there is no autoencoder gone"),
    (BY_CLASS, ["--latents.autoencoder", STAGES["stage 2"]], MISTAKE, "this is not a config of stage 2's autoencoder"),
    (BY_CLASS, ["--latents.cache", "gone"], MISTAKE, "latents.cache holds latents of an autoencoder", "name it as"),
    (BY_CLASS, ["--init-from", "gone"], MISTAKE, "gone"),
    *[(BY_CLASS, ["--init-from", path], MISTAKE, "this is not a config of stage 4") for path in STAGES.values()],
]


@pytest.mark.parametrize("case", OPTIONS, ids=lambda case: " ".join(map(str, case[1]))[:60])
def test_an_option_of_training(case, here):
    plain, options, status, *parts = case
    assert do_train(*plain, "--train.steps", 2, *options).says(status, "task4-train: error: ", *parts)
    assert names(here) == set()


ON_LATENTS = [
    (["--sampling.clamp", "true"], ["sampling.clamp is true: latents know no bounds", "make it false"]),
    (["--data.size", 32], ["is an autoencoder of images 1×28×28, not 1×32×32"]),
    (["--data.channels", 3], ["is an autoencoder of images 1×28×28, not 3×28×28"]),
    (["--patch-size", 2], ["patches of 2×2 do not divide 7×7"]),
    (["--latents.cache", "gone"], ["gone holds no latents", "task2-encode"]),
]


@pytest.mark.parametrize("case", ON_LATENTS, ids=lambda case: " ".join(map(str, case[0])))
def test_an_option_of_a_training_on_latents(case, folder_data, here):
    options, parts = case
    ended = do_train(*on_latents(folder_data), "--train.steps", 2, *options)
    assert ended.says(MISTAKE, "task4-train: error: ", *parts) and names(here) == set()


def test_a_cache_of_something_else(cache, folder_data, here):
    """Of other data; or one that gives no captions, or was damaged."""
    options = [*on_latents(folder_data), "--train.steps", 2, "--latents.cache"]
    assert do_train(*options, cache, "--data.size", 28).says(1, "holds latents of other data")
    assert do_train(*options, cache, "--condition.text", "true").says(1, "condition.text is true", "no caption")
    shutil.copytree(cache, "cut")
    for shard in Path("cut").glob("shard-*"):
        shard.write_bytes(shard.read_bytes()[:-100])
    assert do_train(*options, "cut").says(1, "is not a shard of latents, or is damaged")
    facts = json.loads(Path("cut/latents.json").read_text())
    for changed in ({"classes": []}, {"autoencoder": "0" * 64}):
        shutil.rmtree("cut")
        shutil.copytree(cache, "cut")
        Path("cut/latents.json").write_text(json.dumps(facts | changed))
        assert do_train(*options, "cut").says(1, "task4-train: error: ")
    assert not Path("runs").exists()


def test_a_cache_of_data_with_captions(here):
    """It keeps their numbers, but not what they say."""
    Path("p").mkdir()
    for i in range(2):
        Image.new("L", (28, 28), 90 * i).save(f"p/{i}.png")
        Path(f"p/{i}.txt").write_text("a square")
    data = ["--data.name", "captions", "--data.root", "p", "--data.channels", 1]
    of_another_stage("task2-encode", "--device", "cpu", *data, "--autoencoder", AUTOENCODER, "--out", "c").well()
    told = ["--condition.label", "false", "--condition.text", "true", "--text.encoder", "learned"]
    ended = do_train(*on_latents(data), *told, "--latents.cache", "c")
    assert ended.says(1, "task4-train: error: a cache of latents holds no captions: leave latents.cache out\n")
    assert not Path("runs").exists()


def test_data_of_ones_own(own_module, here):
    for arguments, options, message in (
        ({"channels": 0}, [], "task4-train: error: "),
        ({"names": False}, [], "the data set has labels, but does not name its `classes`"),
        ({"nothing": 1}, [], "nothing"),
        ({}, ["--patch-size", 3], "patches of 3×3 do not divide 4×4"),
    ):
        ended = do_train(*own_data(own_module, "label", **arguments), *options, "--train.steps", 2)
        assert ended.says(1, message) and names(here) == set()


# --- options of distilling ----------------------------------------------------------------------------------

EULER = ["--sampling.sampler", "flow_euler"]

DISTILLED: list[tuple[str, list[object], int, list[str]]] = [
    ("by_class", ["--distill.method", "progressive"], USAGE, ["distill.method", "reflow"]),
    ("by_class", ["--distill.levels", 0], USAGE, ["distill.levels"]),
    ("by_class", ["--distill.pairs", "many"], USAGE, ["distill.pairs"]),
    ("by_class", ["--distill.scale", "much"], USAGE, ["distill.scale"]),
    ("by_class", ["--patch-size", 4], USAGE, ["patch_size"]),
    ("by_class", ["--network.width", 32], USAGE, ["network.width"]),
    ("by_class", ["--data.name", "mnist"], USAGE, ["data.name"]),
    ("by_class", ["--epochs", 0], USAGE, ["epochs"]),
    ("by_class", ["--distill.levels", 1001], MISTAKE, ["distill.levels", "1001 sampling steps"]),
    ("by_class", ["--distill.scale", ".nan"], MISTAKE, ["distill.scale", "the guidance scale is nan"]),
    ("by_class", ["--distill.scale", ".inf"], MISTAKE, ["distill.scale", "the guidance scale is inf"]),
    ("by_class", ["--sampling.steps", 1001], MISTAKE, ["1001 sampling steps"]),
    (
        "by_class",
        ["--distill.method=reflow", "--sampling.sampler=ddim", "--distill.steps=1001"],
        MISTAKE,
        ["distill.steps", "1001 sampling"],
    ),
    ("student", ["--distill.method=reflow", *EULER], MISTAKE, ["distill.scale", "condition.dropout is 0"]),
    ("by_class", ["--distill.method=reflow"], MISTAKE, ["sampling.sampler is consistency", "choose flow_euler"]),
    ("by_class", ["--init-from", "gone"], MISTAKE, ["--init-from is gone", "--distill.teacher"]),
    ("by_class", ["--distill.teacher", "gone"], MISTAKE, ["gone"]),
    ("by_class", ["--distill.teacher", "latest"], MISTAKE, ["there is no run in runs/task4"]),
    *[
        ("by_class", ["--distill.teacher", path], MISTAKE, ["this is not a config of stage 4"])
        for path in (*STAGES.values(), AUTOENCODER)
    ],
]


@pytest.mark.parametrize("case", DISTILLED, ids=lambda case: " ".join(map(str, case[1]))[:60])
def test_an_option_of_distilling(case, request, here):
    teacher, options, status, parts = case
    ended = do_distill(*DISTILL, "--train.steps", 2, "--distill.teacher", request.getfixturevalue(teacher), *options)
    assert ended.says(status, "task4-distill: error: ", *parts) and names(here) == set()


def test_reflow_straightens_flows_alone(by_class, here):
    options = ["--schedule.name", "cosine", "--diffusion.predict", "v", "--sampling.sampler", "ddim"]
    do_train(*BY_CLASS, *options, "--train.steps", 1, "--run.name", "curved").well()
    teacher = ["--distill.teacher", "runs/task4/curved", "--train.steps", 1]
    ended = do_distill(*DISTILL, *teacher, *EULER, "--distill.method", "reflow")
    assert ended.says(1, "distill.method is reflow, which straightens flows", "is cosine", "choose consistency")
    assert not Path("runs/task4-distill").exists()
    do_distill(*DISTILL, *teacher, "--distill.levels", 2).well()  # which this one can


def tensors_of_pairs(content: bytes, run: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file of pairs, by their names in it."""
    path = run / "pairs.safetensors"
    path.write_bytes(content)
    return {f"pairs.{name}": value for name, value in read_tensors(path, "pairs").items()}


def test_a_students_run_that_was_changed(by_class, here):
    """Another teacher, other pairs; none of it is noticed by the run before it is refused."""
    options = ["--distill.teacher", by_class, "--train.steps", 1, "--distill.method", "reflow", "--distill.pairs", 8]
    do_distill(*DISTILL, *options, *EULER, "--distill.steps", 2, "--run.name", "s").well()
    run = Path("runs/task4-distill/s")
    before = contents(run)
    again = ["--resume", run, "--train.steps", 2]
    for changed, parts in (
        (["--distill.scale", 3], ["distill.scale 2.0, not 3.0"]),
        (["--distill.teacher", "another"], ["distill.teacher"]),
        (["--distill.pairs", 9], ["distill.pairs 8, not 9"]),
        (["--optimizer.lr", 0.5], ["optimizer.lr"]),
    ):
        assert do_distill(*again, *changed).says(1, "the checkpoint was made with", *parts)
    assert contents(run) == before
    assert do_train(*again).says(1, "task4-train: error: ") and contents(run) == before  # it is no training of these
    (run / "pairs.safetensors").write_bytes(before[run / "pairs.safetensors"][:-8])
    ended = do_distill(*again)
    assert ended.status == 1 and ended.err.count("\n") == 2  # the first line says which run
    assert f"error: {run / 'pairs.safetensors'} is damaged: remove it" in ended.err
    tensors = tensors_of_pairs(before[run / "pairs.safetensors"], run)
    for wrong in ({"pairs.ends": tensors["pairs.ends"][:5]}, {"pairs.eps": tensors["pairs.eps"][..., :14, :14]}):
        write_checkpoint(run / "pairs.safetensors", {name: t.contiguous() for name, t in (tensors | wrong).items()}, {})
        assert "holds other pairs than this run's" in do_distill(*again).err
    (run / "pairs.safetensors").unlink()
    do_distill(*again).well()
    assert contents(run)[run / "pairs.safetensors"] == before[run / "pairs.safetensors"]
    (run / "teacher.safetensors").write_bytes(b"no teacher")
    assert do_distill("--resume", run, "--train.steps", 3).says(1, "teacher.safetensors is not a checkpoint")
    (run / "teacher.safetensors").unlink()
    assert do_distill("--resume", run, "--train.steps", 3).says(1, "teacher.safetensors")


# --- what is asked for --------------------------------------------------------------------------------------

ASKED: list[tuple[str, list[object], int, list[str]]] = [
    ("by_class", ["--label", 10], 1, ["there is no class 10: this model knows 0, 1,", "their numbers 0 to 9"]),
    ("by_class", ["--label", "-1"], 1, ["there is no class -1"]),
    ("by_class", ["--label", "four"], 1, ["there is no class four"]),
    ("by_class", ["--label", "3,ten"], 1, ["there is no class ten"]),
    ("by_class", ["--text", "a four"], 1, ["is a model that is told no text"]),
    ("unconditional", ["--label", 4], 1, ["is a model that is told no label"]),
    ("unconditional", ["--label", "gone"], 1, ["is a model that is told no label"]),
    ("by_caption", ["--label", 4], 1, ["is a model that is told no label"]),
    ("by_caption", ["--text", ""], 1, ["the caption is empty"]),
    ("by_caption", ["--text", "a pink three"], 1, ['holds the word "pink", which the model has not learned']),
    ("by_class", ["--output", "out"], 1, ["--output is out", "the ending of a picture, such as out.png"]),
    ("by_class", ["--output", "out.safetensors"], 1, ["--output is out.safetensors"]),
    ("by_class", ["--output", "out.psd"], 1, ["--output is out.psd"]),  # can only be read
    ("by_class", ["--output", "out.blp"], 1, ["--output is out.blp"]),  # cannot be written as it is
    ("by_class", ["--output", "."], 1, ["--output is ."]),
    ("by_class", ["--output", "folder.png"], 1, ["--output is folder.png"]),
    ("by_class", ["--output", "p.png/out.png"], 1, ["cannot read or write", "p.png"]),
    ("by_class", ["--out", "p.png"], 1, ["cannot read or write", "p.png"]),
    ("by_class", ["--steps", 0], 1, ["0 sampling steps"]),
    ("by_class", ["--steps", "-5"], 1, ["-5 sampling steps"]),
    ("by_class", ["--steps", 1001], 1, ["1001 sampling steps"]),
    ("by_class", ["--eta", "1.5", "--sampler", "ddim"], 1, ["eta is 1.5"]),
    ("by_class", ["--sampler", "euler"], 2, ["sampler", "flow_euler"]),
    ("by_class", ["--scale", ".nan"], 1, ["the guidance scale is nan"]),
    ("by_class", ["--interval", "[0.8,0.2]"], 1, ["the guidance interval is from 0.8 to 0.2"]),
    ("by_class", ["--rescale", "1.1"], 2, ["rescale"]),
    ("by_class", ["--n", 0], 2, ["n", "0"]),
    ("by_class", ["--classifier", "x"], 2, ["classifier"]),
    ("unconditional", ["--weights", "swa"], 1, ["swa"]),
    ("student", ["--scale", 2], 1, ["condition.dropout is 0", "the unconditional model"]),
]


@pytest.mark.parametrize("case", ASKED, ids=lambda case: f"{case[0]} {' '.join(map(str, case[1]))}"[:60])
def test_what_is_asked_for(case, request, here):
    run, options, status, parts = case
    Image.new("RGB", (8, 8)).save("p.png")
    Path("folder.png").mkdir()
    ended = do_sample("--ckpt", request.getfixturevalue(run), "--n", 2, *options)
    assert ended.says(status, "task4-sample: error: ", *parts) and names(here) == {"p.png", "folder.png"}


def test_measuring_needs_what_it_measures(by_class, here):
    assert do_evaluate("--run", by_class, "--n", 1).says(1, "at least 2 images")
    assert do_evaluate("--run", by_class, "--n", 0).says(2, "n", "0")
    assert do_evaluate("--run", by_class, "--n", 10, "--steps", 1001).says(1, "1001 sampling steps")
    assert do_evaluate("--run", by_class, "--label", 3).says(2, "label")
    path = copied(by_class, here / "x.safetensors", lambda config: {**config, "data": {"name": "cifar10"}})
    assert do_evaluate("--run", path).says(1, "was trained on cifar10, of which this command knows no figure yet")
    assert names(here) == {"x.safetensors"}


# --- runs that are gone on with -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--network.width", 32], ["network.width 16, not 32"]),
        (["--patch-size", 4], ["network.patch 7, not 4"]),
        (["--network.conditioning", "adaln"], ["network.conditioning adaln_zero, not adaln"]),
        (["--condition.dropout", 0.2], ["condition.dropout 0.1, not 0.2"]),
        (["--lr-decay-step", 5], ["optimizer.schedule constant, not step"]),
        (["--schedule.shift", 2], ["schedule.shift 1.0, not 2.0"]),
        (["--data.split", "test"], ["data.split train, not test"]),
    ],
    ids=str,
)
def test_a_resumed_run_with_another_config(options, parts, by_class, here):
    before = contents(by_class)
    ended = do_train("--resume", by_class, "--train.steps", 9, *options)
    assert ended.says(1, "the checkpoint was made with", *parts, "--init-from")
    assert contents(by_class) == before and names(here) == set()


def test_a_resumed_run_on_another_autoencoder(latents, here):
    """What lies with it is another's, or none."""
    run = Path(shutil.copytree(latents, "run"))
    kept = {name: value + 1 for name, value in tensors_of(AUTOENCODER).items()}
    write_checkpoint(run / "autoencoder.safetensors", kept, bare(read_facts(AUTOENCODER)))
    for command in (do_train, do_sample):
        flag = "--resume" if command is do_train else "--run"
        assert command(flag, run).says(1, "error: ", "autoencoder")
    (run / "autoencoder.safetensors").unlink()
    assert do_train("--resume", run).says(1, "autoencoder")
    assert not Path("runs").exists() and not Path("samples").exists()


def test_weights_of_another_network(by_class, here):
    ended = do_train(*BY_CLASS, "--network.width", 32, "--init-from", by_class)
    assert ended.says(1, "is of another network") and names(here) == set()
    ended = do_train(*BY_CAPTION, "--init-from", by_class)
    assert ended.says(1, "does not say which text encoder it was trained with") and names(here) == set()


def test_resume_and_a_config_or_a_source(by_class, here):
    for more in (["--init-from", by_class], ["--config", "x.yaml"]):
        Path("x.yaml").write_text("{}")
        assert do_train("--resume", by_class, *more).says(2, "task4-train: error: ")
    Path("x.yaml").write_text("network: {patches: 4}")
    assert do_train("--config", "x.yaml").says(2, "patches")
    assert do_train("--resume", "gone").says(1, "gone") and names(here) == {"x.yaml"}


# --- checkpoints of other stages, and of strangers ----------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_a_model_of_another_stage(stage, here):
    for command in (do_sample, do_evaluate):
        assert command("--run", STAGES[stage]).says(1, "this is not a config of stage 4")
    assert names(here) == set()


def test_a_model_of_this_stage_in_another(by_class, latents, here):
    for source in (by_class, latents):
        for stage in (1, 2, 3):
            for command, option in (("sample", "--run"), ("train", "--init-from")):
                ended = of_another_stage(f"task{stage}-{command}", option, source)
                assert ended.says(1, f"this is not a config of stage {stage}")
    assert names(here) == set()


FILES = [make for make in NO_CHECKPOINTS if make.__name__ != "folder"]


@pytest.mark.parametrize("make", FILES)
def test_a_file_that_is_no_checkpoint(make, here):
    make(here / "given.safetensors")
    for ended in (
        do_sample("--ckpt", "given.safetensors"),
        do_evaluate("--ckpt", "given.safetensors"),
        do_train(*BY_CLASS, "--init-from", "given.safetensors"),
        do_distill("--distill.teacher", "given.safetensors"),
        do_train(*BY_CLASS, "--latents.autoencoder", "given.safetensors"),
    ):
        assert ended.says(1, "given.safetensors is not a checkpoint of this project")
    assert "executed" not in names(here) and not {"runs", "samples"} & names(here)


def test_a_checkpoint_that_was_damaged(by_class, here):
    """A byte of a weight."""
    content = bytearray(newest(by_class).read_bytes())
    content[-1000] ^= 0xFF
    Path("x.safetensors").write_bytes(content)
    found = [do_sample("--ckpt", "x.safetensors", "--weights", kind) for kind in ("ema", "model", "swa")]
    assert any(ended.status == 1 and ended.says(1, "x.safetensors is damaged") for ended in found)


def bare(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts that `write_checkpoint` does not add."""
    return {name: value for name, value in facts.items() if name not in ("format", "digests")}


def tensors_of(path: Path) -> dict[str, Any]:
    """Every tensor of a checkpoint."""
    kinds = {name.partition(".")[0] for name in read_facts(path)["digests"]}
    return {f"{kind}.{name}": value for kind in kinds for name, value in read_tensors(path, kind).items()}


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


def text(**changes: object) -> Callable[[dict], dict]:
    """A config with other facts of the text encoder."""
    return lambda config: other("known", text=config["known"]["text"] | changes)(config)


HOSTILE: dict[str, tuple[str, Callable[[dict], Any]]] = {
    "nothing": ("by_class", lambda config: {}),
    "a list": ("by_class", lambda config: []),
    "more": ("by_class", changed(more=1)),
    "no shape": ("by_class", without("shape")),
    "a shape of words": ("by_class", changed(shape=["one", 28, 28])),
    "an endless shape": ("by_class", changed(shape=[1, 28, math.inf])),
    "a flat shape": ("by_class", changed(shape=[1, 0, 28])),
    "a shape below zero": ("by_class", changed(shape=[-1, 28, 28])),
    "channels": ("by_class", changed(shape=[2**40, 28, 28])),
    "height": ("by_class", changed(shape=[1, 2**62, 28])),
    "no patch": ("by_class", changed(shape=[1, 29, 28])),
    "no known": ("by_class", without("known")),
    "known as a list": ("by_class", changed(known=[])),
    "no classes": ("by_class", without("known", "classes")),
    "classes as a number": ("by_class", other("known", classes=10)),
    "classes as a word": ("by_class", other("known", classes="0123456789")),
    "classes as lists": ("by_class", other("known", classes=[[]] * 10)),
    "too few classes": ("by_class", other("known", classes=["0"])),
    "no class": ("by_class", other("known", classes=[])),
    "a million classes": ("by_class", other("known", classes=["x"] * 1_000_000)),
    "an own class": ("by_class", changed(network={"class_path": "trap.Squares"})),
    "wide": ("by_class", other("network", width=2**20)),
    "wider than numbers": ("by_class", other("network", width=2**70)),
    "deep": ("by_class", other("network", depth=100)),
    "deeper": ("by_class", other("network", depth=10**9)),
    "size XL": ("by_class", other("network", size="XL")),
    "patch": ("by_class", other("network", patch=14)),
    "a patch of 2^40": ("by_class", other("network", patch=2**40)),
    "heads": ("by_class", other("network", heads=3)),
    "hidden": ("by_class", other("network", mlp_ratio=2**50)),
    "way": ("by_class", other("network", conditioning="shouted")),
    "another way": ("by_class", other("network", conditioning="cross_attention")),
    "normalised": ("by_class", other("network", qk_norm=True)),
    "told nothing": ("by_class", other("condition", label=False)),
    "told text": ("by_class", other("condition", text=True)),
    "told in numbers": ("by_class", other("condition", label=7)),
    "T": ("by_class", other("schedule", T=-1)),
    "T above all integers": ("by_class", other("schedule", T=2**70)),
    "T above what tables hold": ("by_class", other("schedule", T=10**6 + 1)),
    "a shift onto T": ("by_class", other("schedule", shift=100.1)),
    "a shift onto 0": ("by_class", other("schedule", shift=1e-30)),
    "v on a flow": ("by_class", other("diffusion", predict="v")),
    "steps": ("by_class", other("sampling", steps=10**9)),
    "a scale of no number": ("by_class", other("guidance", scale=math.nan)),
    "space of pixels": ("by_class", changed(space={})),
    "space of a list": ("by_class", changed(space=[1])),
    "no text": ("by_caption", without("known", "text")),
    "text as a list": ("by_caption", other("known", text=[1])),
    "a width of a word": ("by_caption", text(width="wide")),
    "a width of 10^30": ("by_caption", text(width=10**30)),
    "10^18 tokens": ("by_caption", text(tokens=10**18)),
    "tokens below zero": ("by_caption", text(tokens=-1)),
    "an endless length": ("by_caption", text(length=math.inf)),
    "no reader": ("by_caption", text(reader=None)),
    "a reader of a word": ("by_caption", text(reader="minilm")),
    "layers": ("by_caption", other("text", layers=7)),
    "no space": ("latents", without("space")),
    "space as nothing": ("latents", changed(space=None)),
    "another autoencoder": ("latents", other("space", autoencoder="0" * 64)),
    "an autoencoder of no word": ("latents", other("space", autoencoder=[1])),
    "no deviation": ("latents", without("space", "deviation")),
    "deviation of words": ("latents", other("space", deviation=["one", "two"])),
    "deviation of zero": ("latents", other("space", deviation=[0.0, 0.0])),
    "deviation of no number": ("latents", other("space", deviation=[math.nan, 1.0])),
    "too many deviations": ("latents", other("space", deviation=[1.0] * 9)),
    "shift of a number": ("latents", other("space", shift=3)),
    "clamped": ("latents", other("sampling", clamp=True)),
    "an odd side": ("latents", changed(shape=[1, 30, 30])),
}
SAYING = {"by_class": ["--label", "3"], "by_caption": ["--text", "a red three on the left"]}
LARGE = "very large, by_class"  # the last in the order of names


def sampled_each(folder: str) -> dict[str, list]:
    """In a process of its own: of sampling from each file, its status, what was printed, and whether anything is left.

    And the GiB that all up to there took.
    """
    found, before = {}, peak_memory_gib()["peak_memory_gib"]
    for path in sorted(Path(folder).glob("*,*.safetensors")):
        said, out = SAYING.get(path.stem.partition(",")[0], []), path.with_suffix(".out")
        ended = do_sample("--run", path, "--n", 1, "--out", out, "--gif", "false", *said)
        found[path.stem] = [ended.status, ended.err, out.exists(), peak_memory_gib()["peak_memory_gib"] - before]
    return found


def test_what_a_stranger_says_can_be_said(by_class, by_caption, latents, here, monkeypatch):
    """Little memory is enough to see that it is none of these weights'."""
    runs = {"by_class": by_class, "by_caption": by_caption, "latents": latents}
    shutil.copy(AUTOENCODER, "autoencoder.safetensors")
    Path("trap.py").write_text(f"open('executed', 'w')\n{OWN}")
    monkeypatch.setenv("PYTHONPATH", str(here))
    for name, (run, change) in HOSTILE.items():
        copied(runs[run], here / f"{run}, {name}.safetensors", change)
    for run in runs:
        copied(runs[run], here / f"{run}, unchanged.safetensors", lambda config: config)
    copied(by_class, here / f"{LARGE}.safetensors", changed(shape=[1, 65534, 65534]))
    found = limited(f"{__name__}:sampled_each", str(here), gib=1, seconds=180)
    assert len(found) == len(HOSTILE) + 4 and list(found)[-1] == LARGE
    status, err, left, _ = found.pop(LARGE)  # no weight knows how large the pictures are
    assert (status, err.count("\n"), left) == (1, 1, False) and "more than 65,536 tokens" in err
    for name, (status, err, left, gib) in found.items():
        if name.endswith(", unchanged"):
            assert (status, err, left) == (0, "", True)
        else:
            assert (status, err.count("\n"), left) == (1, 1, False) and "memory" not in err, (name, err)
            assert err.startswith("task4-sample: error: ") and len(err) < 600 and gib < 0.3, (name, err)
    assert not (here / "executed").exists()


def test_a_million_names_are_not_shown(by_class):
    model = load(by_class)
    model.known["classes"] = [f"class {i}" for i in range(10**5)]
    with pytest.raises(UserError) as error:
        model.told(1, label="gone")
    assert len(str(error.value)) < 400
    assert torch.equal(model.told(2)["label"], torch.tensor([10, 10]))
