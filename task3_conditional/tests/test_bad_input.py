"""Each mistake ends in one line that names it, with no traceback and nothing half-written."""

import importlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import task1_unconditional
import task2_latent
from shared.errors import UserError
from shared.experiments.provenance import peak_memory_gib
from shared.tests.commands import Ended, call
from shared.tests.limited import limited
from shared.tests.test_checkpoint import NO_CHECKPOINTS
from shared.training.checkpoint import Checkpoints, read_facts, read_tensors, write_checkpoint
from task3_conditional.model import load
from task3_conditional.tests.commands import (
    BY_CAPTION,
    BY_CLASS,
    CLASSIFIER,
    OWN,
    do_classifier,
    do_evaluate,
    do_sample,
    do_train,
    own_data,
)

USAGE, MISTAKE = 2, 1
STAGE_1 = Path(task1_unconditional.__file__).parent / "results" / "digits.safetensors"
STAGE_2 = Path(task2_latent.__file__).parent / "results" / "diffusion.safetensors"


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
    (BY_CLASS, ["--condition.label", "vanila"], USAGE, "condition.label", "vanila", "vanilla"),
    (BY_CLASS, ["--condition.image", "vanilla"], USAGE, "condition.image", "concatenation"),
    (BY_CLASS, ["--condition.dropout", "1.5"], USAGE, "condition.dropout", "1.5"),
    (BY_CLASS, ["--condition.tokens", "0"], USAGE, "condition.tokens"),
    (BY_CLASS, ["--guidance.scale", "much"], USAGE, "guidance.scale", "much"),
    (BY_CLASS, ["--guidance.interval", "[0.2,1.2]"], USAGE, "guidance.interval"),
    (BY_CAPTION, ["--text.length", "0"], USAGE, "text.length"),
    # what does not fit together, or is not there
    (BY_CLASS, ["--guidance.scale", ".nan"], MISTAKE, "the guidance scale is nan"),
    (BY_CLASS, ["--guidance.scale", ".inf"], MISTAKE, "the guidance scale is inf"),
    (BY_CLASS, ["--guidance.interval", "[0.8,0.2]"], MISTAKE, "the guidance interval is from 0.8 to 0.2"),
    (BY_CLASS, ["--condition.dropout", "0"], MISTAKE, "condition.dropout is 0", "make guidance.scale 1, or train with"),
    (BY_CLASS, ["--condition.label", "none"], MISTAKE, "the network is told nothing", "condition.label"),
    (BY_CLASS, ["--condition.text", "vanilla"], MISTAKE, "condition.text is vanilla", "no caption, only: label"),
    (BY_CLASS, ["--condition.attributes", "token"], MISTAKE, "condition.attributes is token", "no attributes, only:"),
    (BY_CLASS, ["--condition.image", "concatenation"], MISTAKE, "condition.image is concatenation", "no image, only:"),
    (BY_CAPTION, ["--condition.label", "vanilla"], MISTAKE, "condition.label is vanilla", "no label, only: caption"),
    (BY_CLASS, ["--condition.label", "cross_attention"], MISTAKE, "cross_attention", "the network has attention"),
    (BY_CLASS, ["--condition.label", "token"], MISTAKE, "token", "set network.attention or network.middle_attention"),
    (BY_CAPTION, ["--condition.dim", "10"], MISTAKE, "10 features of a word do not divide into 4 attention heads"),
    (BY_CAPTION, ["--network.heads", "3"], MISTAKE, "8 channels", "3 attention heads"),
    (BY_CAPTION, ["--text.length", "3"], MISTAKE, "text.length is 3"),
    (BY_CAPTION, ["--text.pooled", "true"], MISTAKE, "text.pooled is for a frozen text encoder"),
    (BY_CAPTION, ["--text.encoder", "./gone"], MISTAKE, "there is no folder ./gone", "text.encoder is minilm, learned"),
    (BY_CAPTION, ["--data.languages", "[fr]"], MISTAKE, "no captions in fr"),
    (BY_CAPTION, ["--data.size", "28"], MISTAKE, "captioned_digits is 32×32"),
    (BY_CAPTION, ["--data.name", "captions"], MISTAKE, "--data.root"),
    (BY_CAPTION, ["--data.name", "captions", "--data.root", "gone"], MISTAKE, "gone does not exist"),
    (BY_CAPTION, ["--data.name", "emoji", "--data.root", "gone"], MISTAKE, "gone does not exist", "prepare-emoji"),
    (BY_CLASS, ["--init-from", STAGE_1], MISTAKE, "this is not a config of stage 3"),
    (BY_CLASS, ["--init-from", STAGE_2], MISTAKE, "this is not a config of stage 3"),
]


@pytest.mark.parametrize("case", OPTIONS, ids=lambda case: " ".join(map(str, case[1])))
def test_an_option_of_training(case, here):
    plain, options, status, *parts = case
    assert do_train(*plain, "--train.steps", 2, *options).says(status, "task3-train: error: ", *parts)
    assert names(here) == set()


BOTH = ["--condition.attributes", "token", "--condition.text", "cross_attention"]


@pytest.mark.parametrize(
    ("wrong", "ways", "parts"),
    [
        ("", BOTH, ["token and cross_attention look at one sequence of tokens: choose one of them"]),
        ("no classes", ["--condition.label", "vanilla"], ["the data set has labels, but does not name its `classes`"]),
        ("no attributes", ["--condition.attributes", "token"], ["does not name its `attributes`"]),
        ("no captions", ["--condition.text", "token"], ["the data set has no captions"]),
        ("caption beyond", ["--condition.text", "token"], ["has caption 9; it has captions 0 … 2"]),
        ("label of four", ["--condition.label", "vanilla"], ["a label (torch.int64 3)", "a long from 0 to 2"]),
        ("negative label", ["--condition.label", "vanilla"], ["a label (torch.int64 -1)"]),
        ("label as a float", ["--condition.label", "vanilla"], ["a label (torch.float32 1.0)"]),
        ("label as a number", ["--condition.label", "vanilla"], ["a label"]),
        ("label in a list", ["--condition.label", "vanilla"], ["a label (torch.int64 [1])"]),
        ("attributes as bools", ["--condition.attributes", "vanilla"], ["attributes", "2 longs from 0 to 1"]),
        ("three attributes", ["--condition.attributes", "vanilla"], ["attributes", "2 longs from 0 to 1"]),
        ("attribute of two", ["--condition.attributes", "vanilla"], ["attributes", "2 longs from 0 to 1"]),
        ("large image", ["--condition.image", "concatenation"], ["(2, 8, 8)", "beside samples of (1, 4, 4)"]),
        ("images that differ", ["--condition.image", "concatenation"], ["all alike"]),
        ("image that is none", ["--condition.image", "concatenation"], ["finite"]),
        ("image in words", ["--condition.image", "concatenation"], ["an image (str)"]),
    ],
)
def test_data_of_ones_own(wrong, ways, parts, own_module, here):
    """Found before the first step: a label beyond the classes would mean that nothing is said."""
    ended = do_train(*own_data(own_module, wrong=wrong), *ways, "--train.steps", 2)
    assert ended.says(MISTAKE, "task3-train: error: ", *parts) and names(here) == set()


def test_captions_of_ones_own(here):
    """An empty one, and a picture without any."""
    (here / "p").mkdir()
    for i in range(2):
        Image.effect_noise((8, 8), 50).save(f"p/{i}.png")
    Path("p/0.txt").write_text("a square")
    options = [*BY_CAPTION, "--data.name", "captions", "--data.root", "p", "--data.channels", 1]
    assert do_train(*options).says(MISTAKE, "p/1.png has no caption: write 1.txt")
    Path("p/1.txt").write_text(" \n")
    assert do_train(*options).says(MISTAKE, "p/1.")
    Path("p/1.txt").write_text("?!\n")
    assert do_train(*options).says(MISTAKE, 'the caption "?!" holds no word')
    assert names(here) == {"p", *(f"p/{i}.{kind}" for i in range(2) for kind in ("png", "txt"))}


# --- what is asked for --------------------------------------------------------------------------------------

ASKED: list[tuple[str, list[object], int, list[str]]] = [
    ("by_class", ["--label", 10], 1, ["there is no class 10: this model knows 0, 1,", "their numbers 0 to 9"]),
    ("by_class", ["--label", "-1"], 1, ["there is no class -1"]),
    ("by_class", ["--label", "four"], 1, ["there is no class four"]),
    ("by_class", ["--label", "3,ten"], 1, ["there is no class ten"]),
    ("by_class", ["--label", "3,,4"], 1, ["there is no class"]),
    ("by_class", ["--label", "²"], 1, ["there is no class ²"]),
    ("by_class", ["--label", "9" * 5000], 1, ["there is no class 99"]),
    ("by_class", ["--text", "a four"], 1, ["is a model that is told no text"]),
    ("by_class", ["--attributes", "{Smiling: true}"], 1, ["is a model that is told no attributes"]),
    ("by_class", ["--image", "p.png"], 1, ["is a model that is told no image"]),
    ("by_caption", ["--label", 4], 1, ["is a model that is told no label"]),
    ("by_caption", ["--text", ""], 1, ["the caption is empty"]),
    ("by_caption", ["--text", " \n"], 1, ["the caption is empty"]),
    ("by_caption", ["--text", "!"], 1, ['the caption "!" holds no word']),
    ("by_caption", ["--text", "a red three " * 20], 1, ["has 60 tokens, and text.length is 32"]),
    ("by_caption", ["--text", "a pink three"], 1, ['holds the word "pink", which the model has not learned']),
    ("by_caption", ["--text", "a \udcff three"], 1, ["is not valid text"]),
    ("told_all", ["--attributes", "{dark: true}"], 1, ["there is no attribute dark", "light, striped"]),
    ("told_all", ["--attributes", "{light: perhaps}"], 2, ["attributes", "perhaps"]),
    ("told_all", ["--attributes", "light"], 2, ["attributes", "light"]),
    ("told_all", ["--image", "gone.png"], 1, ["cannot read gone.png: No such file"]),
    ("told_all", ["--image", "p.png"], 1, ["p.png is 8×8 pixels, and the model's images are 4×4"]),
    ("told_all", ["--image", "none.png"], 1, ["none.png cannot be read as an image"]),
    ("told_all", ["--image", "."], 1, ["cannot read .: it is no regular file"]),
]


@pytest.mark.parametrize("case", ASKED, ids=lambda case: f"{case[0]} {' '.join(map(str, case[1]))}"[:60])
def test_what_is_asked_for(case, request, here):
    run, options, status, parts = case
    Image.new("RGB", (8, 8)).save("p.png")
    Path("none.png").write_text("no picture")
    ended = do_sample("--run", request.getfixturevalue(run), *options)
    assert ended.says(status, "task3-sample: error: ", *parts) and names(here) == {"p.png", "none.png"}


@pytest.mark.parametrize(
    ("options", "status", "parts"),
    [
        (["--scale", "nan"], 2, ["scale", "nan"]),  # as YAML has it, a word
        (["--scale", ".nan"], 1, ["the guidance scale is nan"]),
        (["--scale=-.inf"], 1, ["the guidance scale is -inf"]),
        (["--interval", "[0.8,0.2]"], 1, ["the guidance interval is from 0.8 to 0.2"]),
        (["--interval", "[0.2,1.2]"], 2, ["interval"]),
        (["--interval", "[-0.1,1]"], 2, ["interval"]),
        (["--interval", "0.2"], 2, ["interval"]),
        (["--rescale", "1.1"], 2, ["rescale", "1.1"]),
        (["--rescale=-0.1"], 2, ["rescale"]),
        (["--steps", "1001"], 1, ["1001 sampling steps"]),
        (["--classifier", "a", "--weak", "b"], 1, ["--classifier and --weak are two kinds of guidance"]),
        (["--classifier", "gone"], 1, ["there is no file gone"]),
        (["--weak", "gone"], 1, ["there is no file gone"]),
        (["--classifier", STAGE_1], 1, ["this is not a config of stage 3's classifier"]),
        (["--weak", STAGE_1], 1, ["this is not a config of stage 3"]),
        (["--trust", "true"], 2, ["trust"]),  # there is no network of one's own here
    ],
    ids=str,
)
def test_an_option_of_guidance(options, status, parts, by_class, here):
    command = do_evaluate if "--interval" in options else do_sample  # which take the same
    assert command("--run", by_class, "--out", "o", *options).says(status, *parts)
    assert names(here) == set()


def test_a_classifier_of_something_else(by_class, by_caption, classifier, own_module, here):
    own = {"class_path": f"{own_module}.Squares", "init_args": {}}
    others = {
        "noise": (["--schedule.name", "sigmoid"], "is a classifier trained on other noise"),
        "size": (["--data.size", 32], "is a classifier of images 1×32×32, not 1×28×28"),
        "own": (["--own-data", json.dumps(own)], "is a classifier of images 1×4×4, not 1×28×28"),
    }
    for name, (options, message) in others.items():
        do_classifier(*CLASSIFIER, *options, "--train.steps", 1, "--train.workers", 0, "--run.name", name).well()
        ended = do_sample("--run", by_class, "--classifier", f"runs/task3-classifier/{name}")
        assert ended.says(1, message, "train one that fits, by task3-train-classifier")
    path = copied(classifier, here / "x.safetensors", lambda config: {**config, "classes": list("abcdefghij")})
    assert do_sample("--run", by_class, "--classifier", path).says(1, "is a classifier of other classes: 10 (a, b, c,")
    ended = do_sample("--run", by_caption, "--classifier", classifier, "--text", "a red three on the left")
    assert ended.says(1, "--classifier guides to a class", "is told no label")
    ended = do_sample("--run", by_class, "--classifier", classifier, "--rescale", 0.5)
    assert ended.says(1, "guidance.rescale is 0.5, but it is for classifier-free guidance")
    assert do_sample("--run", classifier).says(1, "this is not a config of stage 3")
    assert do_sample("--run", by_class, "--classifier", by_class).says(
        1, "this is not a config of stage 3's classifier"
    )
    assert not Path("samples").exists()


def test_a_weaker_model_of_something_else(by_class, by_caption, here):
    changes: dict[str, tuple[Callable[[dict], dict], str]] = {
        "condition": (lambda config: {**config, "condition": config["condition"] | {"dropout": 0.3}}, "in condition"),
        "schedule": (lambda config: {**config, "schedule": config["schedule"] | {"name": "linear"}}, "in schedule"),
        "diffusion": (lambda config: {**config, "diffusion": config["diffusion"] | {"predict": "x0"}}, "in diffusion"),
        "shape": (lambda config: {**config, "shape": [1, 32, 32]}, "was trained on other data than"),
        "classes": (
            lambda config: {**config, "known": config["known"] | {"classes": list("abcdefghij")}},
            "was trained on other data than",
        ),
    }
    for name, (change, message) in changes.items():
        path = copied(by_class, here / f"{name}.safetensors", change)
        assert do_sample("--run", by_class, "--weak", path).says(1, name, message, "it cannot guide it")
    ended = do_sample("--run", by_class, "--weak", newest(by_class))
    assert ended.says(1, "is the model itself, which cannot guide it")
    ended = do_sample("--run", by_class, "--weak", by_caption)
    assert ended.says(1, "differs from", "in condition: it cannot guide it")
    assert not Path("samples").exists()


def test_measuring_needs_what_it_measures(by_class, here):
    assert do_evaluate("--run", by_class, "--n", 1).says(1, "at least 2 images")
    assert do_evaluate("--run", by_class, "--n", 0).says(2, "n", "0")
    assert do_evaluate("--run", by_class, "--split", "both").says(2, "split", "both")
    path = copied(by_class, here / "x.safetensors", lambda config: {**config, "data": {"name": "cifar10"}})
    assert do_evaluate("--run", path).says(1, "was trained on cifar10, of which this command knows no figure yet")
    assert names(here) == {"x.safetensors"}


# --- runs that are gone on with -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--condition.dim", 16], ["condition.dim 8, not 16"]),
        (["--condition.dropout", 0.2], ["condition.dropout 0.1, not 0.2"]),
        (["--condition.label", "adaptive"], ["condition.label vanilla, not adaptive"]),
        (["--guidance.scale", 5], ["guidance.scale 2.0, not 5.0"]),
        (["--data.split", "test"], ["data.split train, not test"]),
    ],
    ids=str,
)
def test_a_resumed_run_with_another_config(options, parts, by_class, here):
    before = contents(by_class)
    ended = do_train("--resume", by_class, "--train.steps", 9, *options)
    assert ended.says(1, "the checkpoint was made with", *parts, "--init-from")
    assert contents(by_class) == before and names(here) == set()


def test_a_resumed_run_with_another_condition_or_other_words(by_class, by_caption, here):
    before = contents(by_class), contents(by_caption)
    none = ["--condition.label", "none"]
    assert do_train("--resume", by_class, *none).says(1, "the network is told nothing")
    assert do_train("--resume", by_caption, "--text.length", 9).says(1, "another text.pooled or text.length")
    assert do_train("--resume", by_caption, "--text.encoder", "minilm").says(1, "does not say which text encoder")
    assert do_train("--resume", by_caption, "--data.objects", 2).says(1, "which the model has not learned")
    assert (contents(by_class), contents(by_caption)) == before and names(here) == set()


def test_the_words_of_a_run_that_was_changed(by_caption, here):
    """Its checkpoint is another's, which says nothing of words."""
    run = Path(shutil.copytree(by_caption, here / "run"))
    facts, tensors = read_facts(newest(run)), tensors_of(newest(run))
    for said in ({"text": 3}, {"text": {"reader": {}}}, None):
        config = {**facts["config"], "known": said}
        write_checkpoint(newest(run), tensors, {**bare(facts), "config": config})
        assert do_train("--resume", run).says(1, "task3-train: error: ")


def test_weights_of_another_network(by_class, here):
    ended = do_train(*BY_CLASS, "--condition.dim", 16, "--init-from", by_class)
    assert ended.says(1, "is of another network: conditions.0.") and names(here) == set()
    ended = do_train(*BY_CAPTION, "--init-from", by_class)
    assert ended.says(1, "does not say which text encoder it was trained with") and names(here) == set()


# --- checkpoints of other stages, and of strangers ----------------------------------------------------------


@pytest.mark.parametrize("source", [STAGE_1, STAGE_2], ids=["stage 1", "stage 2"])
def test_a_model_of_another_stage(source, here):
    for command in (do_sample, do_evaluate):
        assert command("--run", source).says(1, "this is not a config of stage 3")
    assert names(here) == set()


def of_another_stage(command: str, *arguments: object) -> Ended:
    """A command of another stage, which no module of this one imports."""
    stage, _, name = command.partition("-")
    package = {"task1": "task1_unconditional", "task2": "task2_latent"}[stage]
    return call(importlib.import_module(f"{package}.{name}").main, command, *arguments)


def test_a_model_of_this_stage_in_another(by_class, by_caption, classifier, here):
    for source in (by_class, by_caption, classifier):
        for stage in (1, 2):
            ended = of_another_stage(f"task{stage}-sample", "--run", source)
            assert ended.says(1, f"this is not a config of stage {stage}")
            ended = of_another_stage(f"task{stage}-train", "--init-from", source)
            assert ended.says(1, f"this is not a config of stage {stage}")
    assert names(here) == set()


FILES = [make for make in NO_CHECKPOINTS if make.__name__ != "folder"]


@pytest.mark.parametrize("make", FILES)
def test_a_file_that_is_no_checkpoint(make, tmp_path, here):
    make(tmp_path / "given.safetensors")
    ended = do_sample("--run", tmp_path / "given.safetensors")
    assert ended.says(1, "given.safetensors is not a checkpoint of this project")
    assert not {"samples", "executed"} & names(here)


def test_a_file_that_is_no_checkpoint_in_any_place(by_class, here):
    FILES[0](here / "given.safetensors")
    for ended in (
        do_sample("--run", by_class, "--weak", "given.safetensors"),
        do_sample("--run", by_class, "--classifier", "given.safetensors"),
        do_evaluate("--run", "given.safetensors"),
        do_train(*BY_CLASS, "--init-from", "given.safetensors"),
    ):
        assert ended.says(1, "given.safetensors is not a checkpoint of this project")
    assert names(here) == {"given.safetensors"}


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


CONFIGS: dict[str, Callable[[dict], Any]] = {
    "nothing": lambda config: {},
    "a list": lambda config: [],
    "no shape": lambda config: {k: v for k, v in config.items() if k != "shape"},
    "a shape of words": lambda config: {**config, "shape": ["one", 28, 28]},
    "an endless shape": lambda config: {**config, "shape": [1, 28, math.inf]},
    "a flat shape": lambda config: {**config, "shape": [1, 0, 28]},
    "a shape below zero": lambda config: {**config, "shape": [-1, 28, 28]},
    "no known": lambda config: {k: v for k, v in config.items() if k != "known"},
    "known as a list": lambda config: {**config, "known": []},
    "more": lambda config: {**config, "more": 1},
    "way": lambda config: {**config, "condition": config["condition"] | {"label": "shouted"}},
    "an own class": lambda config: {**config, "condition": {"class_path": "trap.Squares"}},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_strangers_config(name, by_class, here, monkeypatch):
    monkeypatch.syspath_prepend(here)
    (here / "trap.py").write_text(f"open('executed', 'w')\n{OWN}")
    path = copied(by_class, here / "x.safetensors", CONFIGS[name])
    assert do_sample("--run", path, "--n", 1).says(1, "task3-sample: error: ")
    assert names(here) == {"trap.py", "x.safetensors"}


def known(**changes: object) -> Callable[[dict], dict]:
    """A config in which something else can be said."""
    return lambda config: {**config, "known": config["known"] | changes}


def without(name: str) -> Callable[[dict], dict]:
    """A config in which one thing that can be said is missing."""
    return lambda config: {**config, "known": {k: v for k, v in config["known"].items() if k != name}}


def text(**changes: object) -> Callable[[dict], dict]:
    """A config with other facts of the text encoder."""
    return lambda config: {**config, "known": config["known"] | {"text": config["known"]["text"] | changes}}


def reader(**changes: object) -> Callable[[dict], dict]:
    """A config with other facts of what reads captions."""
    return lambda config: text(reader=config["known"]["text"]["reader"] | changes)(config)


HOSTILE: dict[str, tuple[str, Callable[[dict], Any]]] = {
    "no classes": ("by_class", without("classes")),
    "classes as a number": ("by_class", known(classes=10)),
    "classes as a word": ("by_class", known(classes="0123456789")),
    "classes as names of numbers": ("by_class", known(classes=dict.fromkeys("0123456789", 1))),
    "classes as numbers": ("by_class", known(classes=list(range(10)))),
    "classes as lists": ("by_class", known(classes=[[]] * 10)),
    "classes as nothing": ("by_class", known(classes=None)),
    "too few classes": ("by_class", known(classes=["0"])),
    "no class": ("by_class", known(classes=[])),
    "a million classes": ("by_class", known(classes=["x"] * 1_000_000)),
    "attributes as a number": ("by_class", known(attributes=3)),
    "no text": ("by_caption", without("text")),
    "text as nothing": ("by_caption", known(text=None)),
    "text as a list": ("by_caption", known(text=[1])),
    "no width": ("by_caption", known(text={"tokens": 3})),
    "a width of a word": ("by_caption", text(width="wide")),
    "a width": ("by_caption", text(width=32)),
    "a width below zero": ("by_caption", text(width=-1)),
    "a width of 10^9": ("by_caption", text(width=10**9)),
    "a width of 10^30": ("by_caption", text(width=10**30)),
    "2 · 10^7 tokens": ("by_caption", text(tokens=2 * 10**7)),  # which the memory holds
    "tokens below zero": ("by_caption", text(tokens=-1)),
    "no tokens": ("by_caption", text(tokens=0)),
    "10^9 tokens": ("by_caption", text(tokens=10**9)),
    "10^18 tokens": ("by_caption", text(tokens=10**18)),
    "tokens as a share": ("by_caption", text(tokens=0.5)),
    "an endless length": ("by_caption", text(length=math.inf)),
    "a length below zero": ("by_caption", text(length=-32)),
    "no reader": ("by_caption", text(reader=None)),
    "a reader of a word": ("by_caption", text(reader="minilm")),
    "pooled": ("by_caption", text(pooled=True)),
    "no words": ("by_caption", reader(vocabulary=[])),
    "words as numbers": ("by_caption", reader(vocabulary=[1, 2, 3])),
    "one word": ("by_caption", reader(vocabulary=["red"])),
    "words and more": ("by_caption", lambda config: reader(vocabulary=[f"w{i}" for i in range(99)])(config)),
    "a short reader": ("by_caption", reader(length=3)),
    "another encoder": ("by_caption", reader(encoder="minilm")),
    "layers": ("by_caption", lambda config: {**config, "text": config["text"] | {"layers": 7}}),
    "no image": ("told_all", known(image=None)),
    "an image of channels below zero": ("told_all", known(image=-2)),
    "an image of another number of channels": ("told_all", known(image=5)),
    "an image of a word": ("told_all", known(image="two")),
    "an image of 10^12 channels": ("told_all", known(image=10**12)),
    "attributes of a word": ("told_all", known(attributes="ab")),
    "one attribute": ("told_all", known(attributes=["light"])),
    "wide": ("by_class", lambda config: {**config, "network": config["network"] | {"width": 2**20}}),
    "dim": ("by_class", lambda config: {**config, "condition": config["condition"] | {"dim": 2**40}}),
    "each class in 2^30 tokens": (
        "by_class",
        lambda config: {**config, "condition": config["condition"] | {"tokens": 2**30}},
    ),
    "channels": ("by_class", lambda config: {**config, "shape": [2**40, 28, 28]}),
    "height": ("by_class", lambda config: {**config, "shape": [1, 2**62, 28]}),
}
SAYING = {"by_class": ["--label", "3"], "by_caption": ["--text", "a red three on the left"], "told_all": []}


def sampled_each(folder: str) -> dict[str, list]:
    """In a process of its own: status, what was printed, and whether anything is left, of sampling from each file.

    Besides, as "memory", the GiB that all of this took.
    """
    found, before = {}, peak_memory_gib()["peak_memory_gib"]
    for path in sorted(Path(folder).glob("*.safetensors")):
        run = path.stem.partition(",")[0]
        out = path.with_suffix(".out")
        ended = do_sample("--run", path, "--n", 1, "--out", out, "--gif", "false", *SAYING[run])
        found[path.stem] = [ended.status, ended.err, out.exists()]
    return found | {"memory": peak_memory_gib()["peak_memory_gib"] - before}


@pytest.mark.slow
def test_what_a_stranger_says_can_be_said(by_class, by_caption, told_all, here):
    """Little memory is enough to see that it is none of these weights'."""
    runs = {"by_class": by_class, "by_caption": by_caption, "told_all": told_all}
    for name, (run, change) in HOSTILE.items():
        copied(runs[run], here / f"{run}, {name}.safetensors", change)
    for run in runs:
        copied(runs[run], here / f"{run}, unchanged.safetensors", lambda config: config)
    found = limited(f"{__name__}:sampled_each", str(here), gib=1, seconds=180)
    assert found.pop("memory") < 0.3 and len(found) == len(HOSTILE) + 3
    for name, (status, err, left) in found.items():
        if name.endswith(", unchanged"):
            assert (status, err, left) == (0, "", True)
        else:
            assert (status, err.count("\n"), left) == (1, 1, False) and "memory" not in err, (name, err)
            assert err.startswith("task3-sample: error: ") and len(err) < 600, (name, err)


def test_a_million_names_are_not_shown(by_class, here):
    path = copied(by_class, here / "x.safetensors", lambda config: config)
    model = load(path)
    model.known["classes"] = [f"class {i}" for i in range(10**5)]
    with pytest.raises(UserError) as error:
        model.told(1, label="gone")
    assert len(str(error.value)) < 400
