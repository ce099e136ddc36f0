"""The commands of stage 3: what they leave behind, how a run is gone on with, and what their figures say."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from shared.conditions.asked import examples
from shared.conditions.network import ConditionalUNet
from shared.datasets import DataConfig
from shared.datasets import load as load_data
from shared.datasets.captioned_digits import CHINESE_COLOURS, is_test
from shared.datasets.ranges import to_unit
from shared.errors import UserError
from shared.experiments.history import Run
from shared.metrics import report
from shared.metrics.judge import inspect, load_judge
from shared.schedulers.config import GuidanceConfig
from shared.tests.commands import losses, same
from shared.training.checkpoint import Checkpoints, read_facts, read_tensors
from task3_conditional.classifier import load_classifier
from task3_conditional.evaluate import EvaluateConfig, measure_captions
from task3_conditional.measures import KINDS, by_caption, by_class, drawn, of_kind, real, retrieved
from task3_conditional.model import Model, load, weaker
from task3_conditional.tests.commands import BY_CLASS, DIFFUSION, do_evaluate, do_sample, do_train, own_data, own_spec
from task3_conditional.train import COLUMNS, PICTURES

RUNS = Path("runs/task3")


def newest(run: Path) -> Path:
    """A run's newest checkpoint."""
    return Checkpoints(run / "checkpoints").latest()


def files(folder: str | Path) -> set[str]:
    """Every file in a folder and below."""
    return {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()}


def is_picture_of(path: str, image: Tensor) -> bool:
    """Whether a file shows an image (C, H, W) in [-1, 1], to the rounding of 256 shades."""
    with Image.open(path) as picture:
        shown = np.asarray(picture.convert("RGB"), dtype=float).transpose(2, 0, 1)
    expected = ((image + 1) * 127.5).expand(3, -1, -1).numpy()
    return shown.shape == expected.shape and np.abs(shown - expected).max() <= 1


# --- training -----------------------------------------------------------------------------------------------


def test_a_run_by_class_is_whole(by_class, digits):
    run = Run(by_class)
    assert (run.state, run.task, run.amount("step"), run.amount("images")) == ("finished", "task3", 8, 32)
    assert not run.problems and [line["step"] for line in run.metrics] == [2, 4, 6, 8]
    assert run.config["condition"]["label"] == "vanilla" and "known" not in run.config
    config = read_facts(newest(by_class))["config"]
    assert config["shape"] == [1, 28, 28] and config["known"]["classes"] == [str(digit) for digit in range(10)]
    assert files(by_class / "samples") == {"step-00000004.png", "step-00000008.png"}
    assert files(by_class / "checkpoints") == {"step-00000004.safetensors", "step-00000008.safetensors"}


def test_a_runs_pictures_have_a_class_in_each_column(by_class, digits):
    """Drawn by the averaged weights, at the run's guidance, for what the data says of samples that lie evenly."""
    data = load_data(DataConfig(name="digits"))
    asked = examples(data, ["label"], PICTURES, COLUMNS)["label"]
    assert asked.view(-1, 10).tolist() == [list(range(10))] * (PICTURES // 10)
    with Image.open(by_class / "samples" / "step-00000008.png") as picture:
        pixels = np.asarray(picture.convert("L"), dtype=float)
    third = digits.sample(digits.told(PICTURES, label=asked.tolist()))[3, 0]
    across = pixels.shape[1] // 10
    shown = pixels[:across, 3 * across : 4 * across]
    margin = (across - 28) // 2
    differences = [
        np.abs(shown[y : y + 28, x : x + 28] - ((third + 1) * 127.5).numpy()).max()
        for y in range(margin + 2)
        for x in range(margin + 3)
        if shown[y : y + 28, x : x + 28].shape == (28, 28)
    ]
    assert min(differences) <= 1


def test_what_a_data_set_draws_is_the_same_in_every_picture():
    """And nothing else that is drawn in a training notices that it was looked at."""
    data = load_data(DataConfig(name="captioned_digits", objects=1))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one = examples(data, ["caption"], PICTURES, COLUMNS)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(2)
    assert (
        torch.equal(one["caption"], examples(data, ["caption"], PICTURES, COLUMNS)["caption"])
        and len(one["caption"]) == PICTURES
    )


def test_the_loss_falls(told_one):
    for run in told_one.values():
        (_, first), *_, (_, last) = losses(run)
        assert last < 0.97 * first


def test_all_kinds_at_once(told_all):
    """What each sample is told reaches the network: every weight has moved but those that nobody was told."""
    model = load(told_all)
    assert [type(condition).__name__ for condition in model.network.conditions] == [
        "Vanilla",
        "Adaptive",
        "Sequence",
        "Concatenation",
    ]
    first, last = (read_tensors(told_all / "checkpoints" / f"step-0000000{n}.safetensors", "model") for n in (2, 3))
    still = {name for name in last if torch.equal(first[name], last[name])}
    assert still == set()
    assert model.sample(model.told(2, label=0, text="a dark square")).isfinite().all()


def test_classes_may_be_named_by_numbers(own_module, here):
    """They are words to the checkpoint."""
    options = [*own_data(own_module, wrong="numbers for names"), "--condition.label", "vanilla"]
    do_train(*options, "--train.steps", 1, "--run.name", "n").well()
    do_sample("--run", RUNS / "n", "--label", "20,2", "--n", 2).well()
    assert load(RUNS / "n").told(3, label=["20", 20, 2])["label"].tolist() == [1, 1, 2]


def embedded(name: str, step: int) -> Tensor:
    """What the classes of a run are to its network after a step, (classes and the null, …)."""
    tensors = read_tensors(RUNS / name / "checkpoints" / f"step-0000000{step}.safetensors", "model")
    return tensors["conditions.0.said.embed.weight"]


def test_a_share_of_the_samples_is_told_nothing(here):
    """With all of it only the null is learned, and with none of it everything else."""
    options = ["--train.steps", 5, "--train.save-every", 1, "--train.keep", 9, "--train.batch", 64]
    for share in (0.0, 0.5, 1.0):
        dropout = ["--condition.dropout", share, "--guidance.scale", 1]
        do_train(*BY_CLASS, *options, *dropout, "--run.name", share).well()
    moved = {share: (embedded(str(share), 1) != embedded(str(share), 5)).any(dim=1) for share in (0.0, 0.5, 1.0)}
    assert moved[0.0].tolist() == [True] * 10 + [False]
    assert moved[0.5].all()
    assert moved[1.0].tolist() == [False] * 10 + [True]


def test_the_config_says_how_conditions_are_dropped(own_module, here, monkeypatch):
    asked, plain = [], ConditionalUNet.drop
    monkeypatch.setattr(ConditionalUNet, "drop", lambda self, *a: (asked.append(a[1:]), plain(self, *a))[1])
    options = ["--condition.dropout", 0.25, "--condition.together", "false", "--condition.leave-open", 0.3]
    do_train(*own_data(own_module), "--condition.attributes", "vanilla", *options, "--train.steps", 1).well()
    assert asked == [(0.25, False, 0.3)]


# --- going on -----------------------------------------------------------------------------------------------


def goes_on(*options: object, name: str) -> bool:
    """Whether a run of 5 steps, of which only what was saved after 2 is left, goes on to where it was before."""
    every = ["--train.log-every", 1, "--train.save-every", 1, "--train.keep", 9]
    do_train(*options, *every, "--train.steps", 5, "--run.name", name).well()
    again = Path(shutil.copytree(RUNS / name, "again"))
    for step in (3, 4, 5):
        (again / "checkpoints" / f"step-{step:08d}.safetensors").unlink()
    do_train("--resume", again, "--trust", "true").well()
    assert read_facts(newest(again))["step"] == 5 and Run(again).amount("step") == 5
    assert losses(again) == losses(RUNS / name) and len(losses(again)) == 5
    return same(again, RUNS / name)


def test_a_run_by_class_goes_on_bit_for_bit(here):
    assert goes_on(*BY_CLASS, "--condition.dropout", "0.5", name="class")


def test_a_run_with_everything_goes_on_bit_for_bit(own_module, here):
    ways = ["--condition.label=token", "--condition.attributes=vanilla", "--condition.text=token"]
    ways += ["--condition.image=concatenation", "--condition.together=false", "--condition.dropout=0.5"]
    ways += ["--network.dropout=0.1"]
    assert goes_on(*own_data(own_module), *ways, name="all")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    """A tiny BERT with random weights that knows the words of `OWN`."""
    pytest.importorskip("transformers", reason="needs the extra text")
    from shared.tests.test_text_encoders import SIZES, save, seeded, transformers

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"a dark is light square that".split()]
    tokenizer = transformers.BertTokenizer(vocab={word: i for i, word in enumerate(words)}, model_max_length=24)
    config = transformers.BertConfig(**SIZES, vocab_size=len(words), max_position_embeddings=24)
    model = seeded(lambda: transformers.BertModel(config, add_pooling_layer=False))
    return save((model, tokenizer), tmp_path_factory.mktemp("encoder") / "bert")


def test_a_run_with_a_frozen_encoder_goes_on_bit_for_bit(encoder, own_module, here):
    """Its features are cached, and the encoder is no part of the checkpoint; another in its place is noticed."""
    options = [*own_data(own_module, by="text"), "--condition.text", "cross_attention", "--text.encoder", encoder]
    assert goes_on(*options, "--text.cache", "kept", name="frozen")
    assert len(list(Path("kept").glob("*.safetensors"))) == 1
    model = load(RUNS / "frozen")
    assert model.known["text"]["width"] == 32 and not any("bert" in name for name in model.network.state_dict())
    do_sample("--run", RUNS / "frozen", "--text", "a light square", "--n", 2).well()
    facts = model.known["text"]["reader"]
    facts["fingerprint"] = "0" * len(facts["fingerprint"])
    with pytest.raises(UserError, match="was trained with another text encoder"):
        replace(model).told(1, text="a light square")  # a copy, which has not read anything yet


def test_a_run_with_one_vector_for_a_caption(encoder, own_module, here):
    """It becomes as many tokens as the config says."""
    options = [*own_data(own_module, by="text"), "--condition.text", "cross_attention", "--condition.tokens", 3]
    frozen = ["--text.encoder", encoder, "--text.pooled", "true", "--text.cache", "null"]
    do_train(*options, *frozen, "--train.steps", 4, "--optimizer.lr", 0.01, "--run.name", "pooled").well()
    model = load(RUNS / "pooled", weights="model")
    cond = model.told(2, text=["a light square", "a dark square"])
    assert cond["text"].shape == (2, 1, 32) and not Path("cache").exists()
    tokens, mask = model.network.conditions[0].tokens(cond)
    assert tokens.shape == (2, 4, 8) and mask.all()  # and the one that is always there
    turned = {**cond, "text": cond["text"].roll(1, 0)}
    assert not torch.equal(model.sample(cond), model.sample(turned))


def test_a_new_run_starts_from_the_weights_of_another(by_class, here):
    """Its averaged ones; and with its config. A rate of nothing leaves them as they were."""
    options = ["--train.steps", 1, "--optimizer.lr", "1e-37", "--run.name", "new", "--run.folder", "runs"]
    do_train("--init-from", by_class, *options).well()
    there, here_now = read_tensors(newest(by_class), "ema"), read_tensors(newest(RUNS / "new"), "model")
    assert [name for name in there if not torch.equal(there[name], here_now[name])] == []
    assert Run(RUNS / "new").config["condition"] == Run(by_class).config["condition"]
    assert Run(RUNS / "new").amount("step") == 1


def test_a_new_run_keeps_the_numbers_of_the_words_that_its_weights_know(told_one, own_module, here):
    """By captions with fewer words, which sorted by themselves would get others; a new word has no weights."""
    options = ["--train.steps", 1, "--run.folder", "runs", "--trust", "true", "--run.name"]
    Path("fewer.yaml").write_text(json.dumps({"own_data": own_spec(own_module, first=1)}))
    words = [*own_data(own_module)[:-2], "--condition.text", "cross_attention"]
    do_train("--config", "fewer.yaml", "--init-from", told_one["text"], *words, *options, "fewer").well()
    there, now = (load(run).known["text"]["reader"] for run in (told_one["text"], RUNS / "fewer"))
    assert now == there and "dark" in now["vocabulary"]
    do_train("--config", "fewer.yaml", *words, *options, "alone").well()
    assert "dark" not in load(RUNS / "alone").known["text"]["reader"]["vocabulary"]
    Path("more.yaml").write_text(json.dumps({"own_data": own_spec(own_module)}))
    ended = do_train("--config", "more.yaml", "--init-from", RUNS / "alone", *words, *options, "more")
    assert ended.says(1, 'holds the word "dark", which the model has not learned')
    assert (RUNS / "alone").exists() and not (RUNS / "more").exists()


# --- sampling -----------------------------------------------------------------------------------------------


def test_help_needs_no_torch():
    script = """
import contextlib, importlib, io, sys
for name in ("train", "train_classifier", "sample", "evaluate"):
    sys.argv, out = [name, "--help"], io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        importlib.import_module(f"task3_conditional.{name}").main()
    print(name, "--run" in out.getvalue(), "torch" in sys.modules)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert [line.split()[1:] for line in ended.stdout.splitlines()] == [["True", "False"]] * 4


def test_pictures_of_one_class(by_class, digits, here):
    ended = do_sample("--run", by_class, "--label", 4, "--n", 3, "--singles", "true", "--seed", 5).well()
    assert "3 images from" in ended.out and "guidance scale 2\n" in ended.out
    assert files("samples") == {"grid.png", "trajectory.gif", *(f"images/000{i}.png" for i in range(3))}
    expected = digits.sample(digits.told(3, label=4), seed=5)
    assert all(is_picture_of(f"samples/images/000{i}.png", expected[i]) for i in range(3))


@pytest.mark.parametrize(
    ("option", "labels"),
    [
        ([], [0, 1, 2, 0, 1]),
        (["--label", "1"], [1] * 5),
        (["--label", "light"], [1] * 5),
        (["--label", "light, 0"], [1, 0, 1, 0, 1]),
        (["--label", "rather light, or so"], [2] * 5),
    ],
)
def test_classes_are_asked_for_by_number_name_or_several(option, labels, told_one, here):
    do_sample("--run", told_one["label"], *option, "--n", 5, "--singles", "true", "--gif", "false").well()
    assert files("samples") == {"grid.png", *(f"images/000{i}.png" for i in range(5))}
    model = load(told_one["label"])
    expected = model.sample(model.told(5, label=labels))
    assert all(is_picture_of(f"samples/images/000{i}.png", expected[i]) for i in range(5))


def test_pictures_of_everything_that_can_be_said(told_all, here):
    shades = torch.tensor([[0, 255], [64, 128]], dtype=torch.uint8).repeat(2, 2)
    Image.fromarray(torch.stack([shades] * 3, dim=-1).numpy()).save("given.png")
    options = ["--label", "dark", "--text", "a light square", "--attributes", "{striped: true, light: false}"]
    ended = do_sample("--run", told_all, *options, "--image", "given.png", "--n", 2)
    assert ended.says(1, "the image is 3×4×4, and the model is told images 2×4×4")  # which no picture is
    do_sample("--run", told_all, *options, "--n", 2, "--singles", "true").well()
    model = load(told_all)
    cond = model.told(2, label=0, text="a light square", attributes={"striped": True, "light": False})
    expected = model.sample(cond)
    assert all(is_picture_of(f"samples/images/000{i}.png", expected[i]) for i in range(2))


def test_a_picture_beside_which_samples_are_drawn(own_module, here):
    """In grey, as the model is told them; of 4×4 pixels, as its samples are."""
    options = [*own_data(own_module, wrong="grey image"), "--condition.image", "concatenation"]
    do_train(*options, "--train.steps", 3, "--optimizer.lr", 0.01, "--averages.ema", 0.1, "--run.name", "grey").well()
    shades = np.arange(16, dtype=np.uint8).reshape(4, 4) * 16
    Image.fromarray(shades).save("given.png")
    do_sample("--run", RUNS / "grey", "--image", "given.png", "--n", 2, "--singles", "true").well()
    model = load(RUNS / "grey")
    given = to_unit(torch.from_numpy(shades)[None])
    expected = model.sample(model.told(2, image=given))
    assert all(is_picture_of(f"samples/images/000{i}.png", expected[i]) for i in range(2))
    assert not torch.allclose(expected, model.sample(model.told(2, image=-given)))
    Image.fromarray(shades.repeat(2, axis=0)).save("tall.png")
    ended = do_sample("--run", RUNS / "grey", "--image", "tall.png")
    assert ended.says(1, "tall.png is 4×8 pixels, and the model's images are 4×4: resize it")


def test_a_checkpoint_alone_knows_its_words(by_caption, scenes, here, monkeypatch):
    """Copied to where nothing else is."""
    (here / "elsewhere").mkdir()
    shutil.copy(newest(by_caption), "elsewhere/x.safetensors")
    monkeypatch.chdir(here / "elsewhere")
    for caption in ("a red three on the left", "上边是绿色的七"):
        do_sample("--run", "x.safetensors", "--text", caption, "--n", 2, "--singles", "true").well()
        expected = scenes.sample(scenes.told(2, text=caption))
        assert all(is_picture_of(f"samples/images/000{i}.png", expected[i]) for i in range(2))
    assert files(".") == {"x.safetensors", *(f"samples/{n}" for n in ("grid.png", "trajectory.gif")), *IMAGES}


IMAGES = {f"samples/images/000{i}.png" for i in range(2)}

GUIDANCE = {
    "the run's": ([], GuidanceConfig(2.0)),
    "scale": (["--scale", 0.5], GuidanceConfig(0.5)),
    "scale of 0": (["--scale", 0], GuidanceConfig(0.0)),
    "rescale": (["--scale", 4, "--rescale", 0.7], GuidanceConfig(4.0, 0.7)),
    "interval": (["--scale", 4, "--interval", "[0.2,0.8]"], GuidanceConfig(4.0, 0.0, (0.2, 0.8))),
}


@pytest.mark.parametrize("name", GUIDANCE)
def test_guidance_is_what_the_options_say(name, told_one, here):
    options, guidance = GUIDANCE[name]
    rest = ["--label", 0, "--n", 2, "--steps", 5, "--singles", "true", "--gif", "false"]
    ended = do_sample("--run", told_one["label"], *options, *rest).well()
    model = load(told_one["label"])
    expected = model.sample(model.told(2, label=0), guidance=guidance, steps=5)
    assert all(is_picture_of(path, image) for path, image in zip(sorted(IMAGES), expected, strict=True))
    assert f"guidance scale {guidance.scale:g}\n" in ended.out


def test_other_networks_guide(by_class, classifier, digits, here):
    earlier = by_class / "checkpoints" / "step-00000004.safetensors"
    options = ["--run", by_class, "--label", 7, "--n", 2, "--singles", "true", "--scale", 9]
    cond, guidance = digits.told(2, label=7), GuidanceConfig(9.0)
    others = {
        "--weak": (earlier, {"weak": weaker(digits, earlier)}),
        "--classifier": (classifier, {"classifier": load_classifier(classifier).network}),
    }
    plain = digits.sample(cond, guidance=guidance)
    for option, (source, given) in others.items():
        do_sample(*options, option, source).well()
        expected = digits.sample(cond, guidance=guidance, **given)
        assert all(is_picture_of(path, image) for path, image in zip(sorted(IMAGES), expected, strict=True))
        assert not torch.allclose(expected, plain, atol=1e-4)


def test_the_weaker_model_is_taken_by_the_weights_that_are_asked_for(by_class, here):
    """`model` of both: a copy of a model that guides it changes nothing."""
    shutil.copy(newest(by_class), "copy.safetensors")
    options = ["--run", by_class, "--n", 2, "--weights", "model", "--singles", "true", "--out"]
    do_sample(*options, "a", "--weak", "copy.safetensors", "--scale", 3).well()
    do_sample(*options, "b", "--scale", 1).well()
    assert Path("a/images/0001.png").read_bytes() == Path("b/images/0001.png").read_bytes()


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

    def __init__(self, data, known: dict, turned: int = 0):
        self.data, self.known, self.turned, self.asked = data, known, turned, []

    def told(self, n: int, *, label: list | None = None, text: list | None = None) -> dict:
        """What is asked for, as it is."""
        assert n == len(label or text)
        self.asked += label or text
        return {"said": label or text}

    def sample(self, cond: dict, seed: int, **options: object) -> Tensor:
        """Real pictures."""
        said = cond["said"][self.turned :] + cond["said"][: self.turned]
        if isinstance(said[0], str):
            scenes = [self.data.scenes[self.data.number[caption]] for caption in said]
            return torch.stack([to_unit(self.data.compose(scene)) for scene in scenes])
        pools = [(self.data.labels == label).nonzero()[:, 0] for label in range(10)]
        return torch.stack([self.data[int(pools[label][i % len(pools[label])])][0] for i, label in enumerate(said)])


def test_agreement_is_of_what_was_asked_for_and_what_is_seen():
    data = load_data(DataConfig(name="digits", split="test"))
    known = {"classes": list("0123456789")}
    found = by_class(Perfect(data, known), 60, 0, {})
    assert found["agreement"] >= 0.95 and len(found["agreement_by_class"]) == 10
    assert found["judged"]["n"] == 60 and min(found["agreement_by_class"]) >= 0.8
    shuffled = by_class(Perfect(data, known, turned=1), 60, 0, {})
    assert shuffled["agreement"] <= 0.05
    assert shuffled["judged"]["histogram"] == pytest.approx(found["judged"]["histogram"], abs=0.05)
    asked = Perfect(data, known)
    by_class(asked, 25, 0, {})
    assert sorted(asked.asked.count(label) for label in range(10)) == [2] * 5 + [3] * 5


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_caption_is_followed_by_its_own_scene_alone(kind, language):
    data = load_data(DataConfig(name="captioned_digits", split="test", languages=("en", "zh")))
    torch.manual_seed(0)
    model = Perfect(data, {})
    found = by_caption(model, data, language, kind, 20, 0, {})
    assert found.all >= 0.9 and found.n == 20
    assert by_caption(Perfect(data, {}, turned=1), data, language, kind, 20, 0, {}).all <= 0.1
    chinese = [any(colour in caption for colour in CHINESE_COLOURS.values()) for caption in model.asked]
    assert chinese == [language == "zh"] * 20
    scenes = [data.scenes[data.number[caption]] for caption in model.asked]
    assert {tuple(group.count for group in scene) for scene in scenes} == {KINDS[kind]}
    assert all(is_test(scene) for scene in scenes)
    numbers = [len(of_kind(data, language, counts)) for counts in KINDS.values() for language in ("en", "zh")]
    assert sum(numbers) == len(data.captions)


def test_real_scenes_are_right_nearly_always_and_the_same_each_time():
    data = load_data(DataConfig(name="captioned_digits", split="test"))
    state = torch.get_rng_state()
    found = real(data, "two", 40, 0)
    assert found.all >= 0.9 and found == real(data, "two", 40, 0)
    assert torch.equal(state, torch.get_rng_state())


def test_nothing_is_drawn_again_before_all_else_was():
    numbers = drawn([5, 7, 9], 8, 0)
    assert len(numbers) == 8 and {5, 7, 9} == set(numbers[:3]) == set(numbers[3:6]) and len(set(numbers[6:])) == 2
    assert drawn([5, 7, 9], 8, 0) == numbers and drawn(list(range(50)), 50, 0) != drawn(list(range(50)), 50, 1)


class Squared(nn.Module):
    """A distance by pixels, (B,)."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().mean(dim=(1, 2, 3))


squared = Squared()


def test_a_picture_is_found_by_itself_and_by_nothing_else():
    pictures = torch.rand(40, 1, 6, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert retrieved(pictures, pictures, squared) == (1.0, 1.0)
    near = pictures + 0.1 * torch.randn(pictures.shape, generator=torch.Generator().manual_seed(1))
    assert retrieved(near, pictures, squared) == (1.0, 1.0)
    assert retrieved(pictures.roll(1, 0), pictures, squared)[0] == 0
    half = torch.cat([pictures[:20], pictures[20:].flip(0)])
    assert retrieved(half, pictures, squared)[0] == 0.5
    assert retrieved(pictures[3:4].expand_as(pictures), pictures, squared)[0] == 1 / 40  # all are the fourth
    shades = torch.arange(40.0)[:, None, None, None].expand(40, 1, 6, 6)
    assert retrieved(shades + 2.1, shades, squared) == (1 / 40, 1.0)  # the next four are nearer; the last has no next
    assert retrieved(shades + 2.6, shades, squared) == (1 / 40, 5 / 40)  # the next five


@pytest.mark.parametrize("value", [0.3, float("nan")])
def test_samples_that_are_all_the_same_find_nothing(value):
    """They are as near to one picture as to another, or not a number, which is nowhere."""
    pictures = torch.full((20, 1, 4, 4), 0.5)
    assert retrieved(torch.full_like(pictures, value), pictures, squared) == (0.0, 0.0)


def test_one_picture_cannot_be_looked_for():
    for samples, pictures in ((1, 1), (3, 2)):
        with pytest.raises(UserError, match=f"not {samples}"):
            retrieved(torch.zeros(samples, 1, 4, 4), torch.zeros(pictures, 1, 4, 4), squared)


def test_figures_by_class(by_class, digits, here):
    """Of a model that has learned nothing: a tenth is right by chance."""
    options = ["--n", 40, "--seed", 3, "--scale", 3]
    ended = do_evaluate("--run", by_class, *options, "--out", "o").well()
    written = evaluation()
    assert written["figures"]["judge_agreement"] <= 0.3
    samples = digits.sample(digits.told(40, label=[i % 10 for i in range(40)]), 3, guidance=GuidanceConfig(3.0))
    judged = report.judge_samples(samples).to_dict()
    assert written["figures"]["judge_distance"] == judged["distance"]
    assert (written["task"], written["main"], written["images"]) == ("task3", "judge_agreement", 32)
    assert written["step"] == 8 and written["figures"]["evaluation_seconds"] > 0
    assert len(written["details"]["agreement of each digit, 0 to 9"]) == 10
    protocol = written["protocol"]
    stated = {"data": "digits", "n": 40, "guidance": 3.0, "weights": "ema", "seed": 3, "sampler": "ddim", "steps": 2}
    assert {name: protocol[name] for name in stated} == stated
    assert {"reference", "extractor", "eta", "spacing", "clamp"} <= set(protocol)
    assert judged["caveat"] in ended.out and "| guidance scale | 3.0 |" in ended.out
    assert Path("o/evaluation.md").read_text() == ended.out.partition("\nwritten:")[0]
    shutil.copytree(by_class, "copy")
    do_evaluate("--run", "copy", *options).well()
    (again,) = Run(Path("copy")).evaluations  # without --out, in the run
    assert again.figures["judge_agreement"] == written["figures"]["judge_agreement"]


def test_the_protocol_says_by_what_was_guided(by_class, classifier, here):
    earlier = by_class / "checkpoints" / "step-00000004.safetensors"
    for options, said in [
        ([], 2.0),
        (["--rescale", 0.5, "--interval", "[0.2,0.8]"], "2, rescale 0.5, within 0.2 to 0.8"),
        (["--classifier", classifier, "--scale", 1.5], "1.5, by the classifier noisy"),
        (["--weak", earlier, "--interval", "[0,0.5]"], "2, autoguidance by step-00000004, within 0 to 0.5"),
    ]:
        do_evaluate("--run", by_class, *options, "--n", 10, "--out", "o").well()
        assert evaluation()["protocol"]["guidance"] == said


@pytest.mark.parametrize("split", ["test", "train"])
def test_figures_by_caption(split, by_caption, here, monkeypatch):
    asked, plain = [], Model.told
    monkeypatch.setattr(Model, "told", lambda self, n, **said: (asked.extend(said["text"]), plain(self, n, **said))[1])
    do_evaluate("--run", by_caption, "--n", 12, "--split", split, "--out", "o", "--weights", "model").well()
    data = load_data(DataConfig(name="captioned_digits", split=split, objects=1, languages=("en", "zh")))
    assert len(asked) == 24 and set(asked) <= set(data.captions)
    written = evaluation()
    figures = written["figures"]
    assert figures["followed_one"] <= 0.2 and figures["followed_one_zh"] <= 0.2 and figures["followed_one_real"] >= 0.8
    assert set(figures) == {"followed_one", "followed_one_zh", "followed_one_real", "evaluation_seconds"}
    part = {"test": "held-out", "train": "training"}[split]
    assert written["protocol"]["reference"] == f"captions, {part} triples" and written["main"] == "followed_one"
    assert (written["protocol"]["n"], written["protocol"]["weights"]) == (12, "model")


def test_figures_of_all_kinds_of_scenes():
    """The samples are shared out among them; those of a perfect model are right."""
    model = Perfect(load_data(DataConfig(name="captioned_digits", split="test")), {})
    model.config = SimpleNamespace(data=DataConfig(name="captioned_digits"))
    config = EvaluateConfig(n=32)
    torch.manual_seed(0)
    found = measure_captions(model, config, {})
    assert config.n == 10 and len(model.asked) == 30
    kinds = {f"followed_{kind}{suffix}" for kind in KINDS for suffix in ("", "_real")}
    assert set(found["figures"]) == kinds and min(found["figures"].values()) >= 0.8
    assert found["main"] == "followed_one" and len(found["details"]) == 3


@pytest.fixture
def captioned(here) -> Path:
    """Pictures with captions in two languages; the last to be measured by has words that are not learned."""
    noise = np.random.default_rng(0)
    names = ["red", "green", "blue", "dark", "light", "grey", "round", "long", "pink"]
    chinese = "红绿蓝暗亮灰圆长粉"
    for split, count in (("train", 8), ("test", 9)):
        (here / "pictures" / split).mkdir(parents=True)
        for i in range(count):
            path = here / "pictures" / split / f"{i}.png"
            Image.fromarray(noise.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
            path.with_suffix(".en.txt").write_text(f"a {names[i]} one")
            path.with_suffix(".zh.txt").write_text(f"{chinese[i]}的")
    return here / "pictures"


def test_figures_of_captioned_pictures(captioned, monkeypatch):
    """Each picture is looked for among those of the other captions, by what was drawn from its own."""
    data = ["--data.name", "captions", "--data.root", captioned, "--data.languages", "[en,zh]"]
    words = "--text.encoder learned --text.layers 1 --network.middle-attention full".split()
    told = ["--condition.label", "none", "--condition.text", "cross_attention"]
    do_train(*DIFFUSION, *told, *words, *data, "--train.steps", 2, "--run.name", "words").well()
    do_evaluate("--run", RUNS / "words", "--out", "o").well()
    written = evaluation()
    names = {f"retrieval_top{n}{suffix}" for n in (1, 5) for suffix in ("", "_zh")}
    assert set(written["figures"]) == {*names, "evaluation_seconds"} and written["main"] == "retrieval_top1"
    assert written["protocol"]["reference"] == "8 pictures of the test part whose captions can be read"
    assert written["protocol"]["n"] == 8 and written["figures"]["retrieval_top1"] <= 0.5

    test = load_data(DataConfig(name="captions", root=str(captioned), split="test", languages=("en", "zh")))
    numbers = {caption: i for i in range(9) for caption in (test.captions[j] for j in test.captions_of(i))}
    monkeypatch.setattr(Model, "told", lambda self, n, text: {"text": torch.tensor([numbers[c] for c in text])})
    monkeypatch.setattr(Model, "sample", lambda self, cond, *_, **__: torch.stack([test[i][0] for i in cond["text"]]))
    monkeypatch.setattr("shared.metrics.perceptual.build_perceptual", lambda name: Squared())  # faster
    do_evaluate("--run", RUNS / "words", "--out", "o").well()
    assert {evaluation()["figures"][name] for name in names} == {1.0}
    do_evaluate("--run", RUNS / "words", "--n", 3, "--out", "o").well()
    assert evaluation()["protocol"]["reference"].startswith("3 pictures of the test part")
    monkeypatch.setattr(
        Model, "sample", lambda self, cond, *_, **__: torch.stack([test[i][0] for i in cond["text"].roll(1)])
    )
    do_evaluate("--run", RUNS / "words", "--out", "o").well()
    assert {evaluation()["figures"][f"retrieval_top1{suffix}"] for suffix in ("", "_zh")} == {0.0}


def test_what_cannot_be_measured(told_one, here):
    ended = do_evaluate("--run", told_one["label"], "--out", "o")
    assert ended.says(1, "was trained on a data set of your own, of which this command knows no figure", "task3-sample")
    assert list(here.iterdir()) == []
