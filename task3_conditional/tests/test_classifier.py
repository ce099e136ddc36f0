"""The classifier of noisy images: against the best that is possible, as a command, and with files from strangers."""

import contextlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from shared.blocks.config import UNetConfig
from shared.blocks.resnet import Context
from shared.blocks.unet import UNet
from shared.datasets import DataConfig, load
from shared.datasets.images import InMemory
from shared.errors import UserError
from shared.experiments import provenance, run
from shared.schedulers.config import DiffusionConfig, NoiseConfig, SamplingConfig
from shared.schedulers.diffusion import Denoised, Diffusion
from shared.schedulers.guidance import classifier_guided, gradient
from shared.schedulers.samplers import sampler_steps
from shared.tests import tiny
from shared.tests.commands import Ended, call, figures, same
from shared.tests.limited import limited
from shared.tests.test_checkpoint import NO_CHECKPOINTS
from shared.training.checkpoint import Checkpoints, read_facts, read_tensors, write_checkpoint
from shared.training.config import AveragesConfig, OptimizerConfig
from shared.training.loop import train
from shared.training.part import Part
from task3_conditional import train_classifier
from task3_conditional.classifier import NoisyClassifier, NoisyCrossEntropy, accuracies, classes_of, load_classifier
from task3_conditional.classifier_config import ClassifierTraining, classifier_config

NETWORK = UNetConfig(width=4, multipliers=(1, 2), attention=("none", "full"), middle_attention="none", heads=2)
TINY = [
    *"--network.width 8 --network.patch 4 --network.multipliers [1] --network.attention [none]".split(),
    *"--network.middle-attention none --optimizer.schedule constant --optimizer.warmup 0".split(),
    *"--train.steps 2 --train.batch 4 --train.device cpu --train.precision fp32 --train.sample-every 0".split(),
]  # the smallest; every option in which the preset, which holds where nothing is said, is not plain
SCHEDULE = NoiseConfig(name="sigmoid_alpha_bar")  # the preset's
DIGITS = [str(digit) for digit in range(10)]


def perturbed(config=NETWORK, channels=1, classes=3):
    """A classifier in float64 with no parameter zero, as the ends of the branches are at first."""
    torch.manual_seed(0)
    model = NoisyClassifier(UNet(channels, config), classes).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def normal(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


XT, T = normal(3, 1, 4, 4), torch.tensor([1.0, 400.0, 1000.0]).double()


# --- the network --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"patch": 2}, {"multipliers": (2, 1, 3), "attention": ("none",) * 3}], ids=str)
def test_it_is_the_way_down_of_the_unet(options):
    """Its features are those of `encode` with the same weights, and there are no weights but those that it uses."""
    config = replace(NETWORK, **options)
    model, whole = perturbed(config), UNet(1, config).double().eval()
    missing, unexpected = whole.load_state_dict(model.trunk.state_dict(), strict=False)
    assert unexpected == [] and {name.partition(".")[0] for name in missing} == {"up", "enlarge", "norm", "head"} - (
        {"enlarge"} if len(config.multipliers) == 1 else set()
    )
    xt = normal(3, 1, 8, 8)
    h, _ = whole.encode(xt, Context(whole.time(T)))
    h = nn.functional.silu(model.norm(h)).flatten(2).mean(2)
    logits = model(xt, T)
    torch.testing.assert_close(logits, h @ model.head.weight.T + model.head.bias)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


def test_it_is_told_the_time_and_its_samples_do_not_see_each_other():
    model = perturbed()
    logits = model(XT, T)
    assert logits.shape == (3, 3)
    for i in range(3):
        torch.testing.assert_close(model(XT[i : i + 1], T[i : i + 1]), logits[i : i + 1])
    assert (model(XT, T + 200) - logits).abs().amax(1).min() > 1e-3


@pytest.mark.parametrize("label", [[0, 2, 1], [2, 2, 2]])
def test_the_gradient_of_log_probability_is_that_of_finite_differences(label):
    model = perturbed()
    log_p = model.log_probability(torch.tensor(label))
    assert torch.autograd.gradcheck(lambda x: log_p(x, T), XT.clone().requires_grad_())
    with torch.no_grad():
        found, step, shift = gradient(log_p, XT, T), 1e-5, torch.zeros_like(XT)
        shift[:, 0, 1, 2] = step
        slope = (log_p(XT + shift, T) - log_p(XT - shift, T)) / (2 * step)
    torch.testing.assert_close(found[:, 0, 1, 2], slope, rtol=1e-5, atol=1e-8)
    assert slope.abs().min() > 1e-4


def test_probabilities_are_those_of_softmax_and_add_up_to_one():
    model = perturbed()
    each = torch.stack([model.log_probability(torch.full((3,), k))(XT, T) for k in range(3)], dim=1).exp()
    torch.testing.assert_close(each.sum(1), torch.ones(3).double())
    odds = model(XT, T).exp()
    torch.testing.assert_close(each[:, 0] / each[:, 2], odds[:, 0] / odds[:, 2])


@pytest.mark.parametrize("label, wrong", [([0, 3, 1], 3), ([-1, 0, 0], -1)])
def test_a_class_that_it_does_not_know_is_refused(label, wrong):
    with pytest.raises(ValueError, match=f"^there is no class {wrong}: the classifier knows the classes 0 to 2$"):
        perturbed().log_probability(torch.tensor(label))


# --- loss and accuracy --------------------------------------------------------------------------------------


def test_the_loss_is_cross_entropy_at_times_of_the_schedule_each_sample_its_own():
    """And what the model is shown is the image, noisy as its time says, with noise that is standard normal."""
    diffusion, seen = Diffusion.from_config(NoiseConfig(T=10), DiffusionConfig()), []
    x, label = normal(20_000, 1, 1, 2).float(), torch.arange(20_000) % 3

    def model(xt, t):
        seen.append((xt, t))
        return torch.stack([xt[:, 0, 0, 0], t.float(), xt[:, 0, 0, 1]], dim=1)

    loss = NoisyCrossEntropy(diffusion)
    torch.manual_seed(0)
    found = loss(model, x, {"label": label})
    ((xt, t),) = seen
    assert t.unique().tolist() == list(range(1, 11)) and t.bincount()[1:].min() > 1800
    alpha, sigma = (rate[:, None, None, None] for rate in diffusion.schedule.level(t))
    eps = (xt - alpha * x) / sigma
    assert abs(eps.mean()) < 0.03 and abs(eps.var() - 1) < 0.03 and abs((eps * x).mean()) < 0.03
    logits = model(xt, t).double()
    chosen = logits.gather(1, label[:, None])[:, 0].exp() / logits.exp().sum(1)
    assert found.item() == pytest.approx(-chosen.log().mean().item(), rel=1e-5)
    right = (logits.argmax(1) == label).double().mean().item()
    assert loss.figures["accuracy"].item() == pytest.approx(right, abs=1e-6) and not loss.figures["accuracy"].is_cuda


class Best(nn.Module):
    """The best classifier of two images that are each other's negative: which of them xt looks more like."""

    def __init__(self, image):
        super().__init__()
        self.image = nn.Parameter(image)

    def forward(self, xt, t):
        like = (xt * self.image).flatten(1).sum(1)
        return torch.stack([like, -like], dim=1)


def best_accuracy(diffusion, image, share):
    """Its accuracy in closed form: the normal distribution function at alpha |image| / sigma."""
    alpha, sigma = diffusion.schedule.level(share * diffusion.schedule.T)
    distance = (alpha * image.norm() / sigma).item()
    return 0.5 * (1 + math.erf(distance / math.sqrt(2)))


def test_accuracy_by_noise_level_is_what_theory_says():
    """Two images and their noise: within 4.5 standard errors at each level, from sure to a coin's toss."""
    diffusion, count = Diffusion.from_config(NoiseConfig(zero_terminal_snr=True), DiffusionConfig()), 6000
    image, label, shares = 0.5 * torch.ones(1, 2, 2), torch.arange(count) % 2, (0.0, 0.3, 0.6, 0.8, 1.0)
    x = torch.where(label[:, None, None, None] == 0, image, -image)
    found = accuracies(Best(image), diffusion, x, label, shares)
    expected = [1.0, *(best_accuracy(diffusion, image, share) for share in shares[1:])]
    assert found[0] == 1 and expected[-1] == 0.5
    for a, b in zip(found, expected, strict=True):
        assert abs(a - b) <= 4.5 * math.sqrt(b * (1 - b) / count)


# --- it learns ----------------------------------------------------------------------------------------------

PATTERN = torch.tensor([[1, -1, 1, -1], [1, 1, -1, -1], [-1, 1, 1, -1], [-1, -1, 1, 1]]).float()[None]
TWO = InMemory(
    torch.stack([PATTERN if i % 2 == 0 else -PATTERN for i in range(16)]).add(1).mul(127.5).to(torch.uint8),
    torch.arange(16) % 2,
    ["pattern", "its negative"],
)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """Trained by the one loop on two images; its noise."""
    torch.manual_seed(0)
    diffusion = Diffusion.from_config(NoiseConfig(name="cosine", T=100), DiffusionConfig())
    loss = NoisyCrossEntropy(diffusion)
    config = UNetConfig(width=8, multipliers=(1,), attention=("none",), middle_attention="none")
    part = Part(
        NoisyClassifier(UNet(1, config), 2),
        loss,
        OptimizerConfig(lr=1e-2, schedule="cosine"),
        AveragesConfig(ema=0.9),
        figures=loss.figures,
    )
    record = tiny.Run(tmp_path_factory.mktemp("learnt"))
    options = replace(tiny.CONFIG, steps=150, batch=64, log_every=50)
    for step in train(part, TWO, options, record):
        network = step.ema
    assert set(record.figures[150]) >= {"loss", "accuracy"} and record.figures[150]["accuracy"] > 0.6
    return network.eval(), diffusion


def test_it_learns_to_be_nearly_as_good_as_can_be(learnt):
    """At every level within a few percent of the best possible, and no better but by chance."""
    network, diffusion = learnt
    count, shares = 2000, (0.0, 0.5, 0.8, 0.9)
    x = torch.stack([TWO[i % 16][0] for i in range(count)])
    found = accuracies(network, diffusion, x, torch.arange(count) % 2, shares)
    expected = [1.0, *(best_accuracy(diffusion, PATTERN, share) for share in shares[1:])]
    assert 0.6 < expected[-1] < expected[-2] < 0.95
    for a, b in zip(found, expected, strict=True):
        assert b - 0.06 < a < b + 4.5 * math.sqrt(b * (1 - b) / count) + 1e-9


def test_it_guides_samples_to_the_class_that_is_asked_for(learnt):
    """Of an unconditional denoiser that is exact, half the samples are of each; guided, nearly all are of one."""
    network, diffusion = learnt

    def denoise(xt, t):
        alpha, sigma = (rate.float() for rate in diffusion.schedule.level(t))
        like = (xt * PATTERN).flatten(1).sum(1)
        x0 = torch.tanh(alpha * like / sigma**2)[:, None, None, None] * PATTERN
        return Denoised(x0, (xt - alpha * x0) / sigma)

    start, config = normal(200, 1, 4, 4).float(), SamplingConfig(steps=20)
    shares = {}
    for name, label in (("free", None), ("first", 0), ("second", 1)):
        chosen = network.log_probability(torch.full((200,), label or 0))
        guided = classifier_guided(denoise, diffusion.schedule, chosen, 0.0 if label is None else 4.0)
        *_, last = sampler_steps(guided, diffusion.schedule, start, config)
        assert (last.x.abs() - 1).abs().max() < 0.05  # they are images of the data, of whatever class
        shares[name] = ((last.x * PATTERN).flatten(1).sum(1) > 0).float().mean().item()
    assert 0.4 < shares["free"] < 0.6 and shares["first"] > 0.9 and shares["second"] < 0.1


# --- the command --------------------------------------------------------------------------------------------


def do_train(*arguments: object) -> Ended:
    """task3-train-classifier."""
    return call(train_classifier.main, "task3-train-classifier", *arguments)


@pytest.fixture(scope="module", autouse=True)
def no_git():
    """Asking git takes longer than a tiny training; `test_run_record.py` asks it."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (provenance, run):
            patch.setattr(module, "git", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run of 8 steps on digits, never changed by a test; its weights and their average differ."""
    folder = tmp_path_factory.mktemp("trained")
    every = "--train.steps 8 --train.log-every 2 --train.sample-every 4 --train.save-every 4 --train.keep 9".split()
    options = [*every, *"--averages.ema 0.9 --optimizer.lr 0.01 --network.dropout 0.1".split()]
    do_train(*TINY, *options, "--run.folder", folder / "runs", "--run.name", "eight").well()
    return folder / "runs" / "task3-classifier" / "eight"


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty folder to be in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def timeless(run: Path) -> list[dict[str, float]]:
    """What a run's metrics.jsonl says, but for measurements of time and memory."""
    kept = ("step", "loss", "accuracy", "gradient_norm", "lr")
    return [{name: line[name] for name in kept} for line in figures(run)]


def names(folder: Path) -> set[str]:
    """Everything in a folder and below."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_a_run_says_what_it_is_and_can_be_loaded(trained):
    loaded = load_classifier(trained)
    assert loaded.shape == (1, 28, 28) and loaded.classes == DIGITS and loaded.config.schedule == SCHEDULE
    assert [line["step"] for line in timeless(trained)] == [2, 4, 6, 8]
    assert not loaded.network.training and not any(p.requires_grad for p in loaded.network.parameters())
    tensors = read_tensors(loaded.source, "ema")
    assert all(torch.equal(v, tensors[k]) for k, v in loaded.network.state_dict().items())
    assert not any(k.startswith(("trunk.up", "trunk.enlarge", "trunk.head", "trunk.norm.")) for k in tensors)
    raw = load_classifier(trained, weights="model")
    assert not torch.equal(raw.network.head.weight, loaded.network.head.weight)


def test_the_table_of_accuracy_is_of_held_out_digits(trained):
    """Against a count by hand at two levels; the noise is any, so within 4 standard errors."""
    about, _, header, _, *rows = (trained / "accuracy.md").read_text().splitlines()
    assert about == "After 8 steps, averaged weights, 500 images held out of the training; standard error at most 2.2%."
    assert [cell.strip() for cell in header.strip("|").split("|")] == ["t / T", "alpha", "accuracy"] and len(rows) == 9
    loaded, test = load_classifier(trained), load(DataConfig(name="digits", split="test"))
    x, label = torch.stack([test[i][0] for i in range(500)]), test.labels
    for row, share in ((rows[0], 0.0), (rows[4], 0.5)):
        at, alpha, accuracy = (float(cell.strip(" %")) for cell in row.strip("|").split("|"))
        level = loaded.diffusion.schedule.level(1000 * share)
        assert at == share and alpha == pytest.approx(level.alpha.item(), abs=1e-4)
        xt = (level.alpha * x + level.sigma * torch.randn(x.shape)).float()
        right = (loaded.network(xt, torch.full((500,), 1000 * share)).argmax(1) == label).double().mean().item()
        assert abs(right - accuracy / 100) < (0.0011 if share == 0 else 4 * math.sqrt(2 * 0.25 / 500))


def test_of_more_images_than_are_measured_each_class_has_its_share(monkeypatch):
    """The held-out digits lie by class, so that the first of them would all be noughts."""
    config, test = ClassifierTraining(), load(DataConfig(name="digits", split="test"))
    monkeypatch.setattr(train_classifier, "MEASURED", 30)
    examples = train_classifier.examples_for(config, load(config.data))
    assert examples.labels.bincount(minlength=10).tolist() == [3] * 10
    held_out = {test[i][0].numpy().tobytes() for i in range(500)}
    assert all(image.numpy().tobytes() in held_out for image in examples.images)


def test_nothing_is_called_held_out_that_might_be_in_the_training():
    """Data of one's own, though it be like digits; and a training on the held-out digits themselves."""
    own = ClassifierTraining(own_data={"class_path": "their.Digits"})
    test = ClassifierTraining(data=DataConfig(split="test"))
    for config in (own, test):
        assert "of the training itself" in train_classifier.examples_for(config, load(config.data)).kind


def test_the_seed_decides_a_run_and_what_is_measured_is_its_average(here, monkeypatch):
    """At the steps asked for, and at the last."""
    seen = []

    def measured(record, network, diffusion, examples, n):
        seen.append((n, {name: value.clone() for name, value in network.state_dict().items()}))

    monkeypatch.setattr(train_classifier, "save_accuracies", measured)
    one, again = (here / "runs" / "task3-classifier" / name for name in ("one", "again"))
    for folder in (one, again):
        do_train(*TINY, "--train.steps", 3, "--train.sample-every", 2, "--run.name", folder.name).well()
    assert [n for n, _ in seen] == [2, 3, 2, 3] and same(one, again)
    average = read_tensors(Checkpoints(one / "checkpoints").latest(), "ema")
    assert all(torch.equal(value, average[name]) for name, value in seen[1][1].items())


def test_a_killed_run_goes_on_bit_for_bit(trained, here):
    """From a checkpoint amid it; every tensor, every figure, and the table."""
    cut = Path(shutil.copytree(trained, here / "cut"))
    (cut / "checkpoints" / "step-00000008.safetensors").unlink()
    (cut / "accuracy.md").unlink()
    do_train("--resume", cut).well()
    assert same(cut, trained) and timeless(cut) == timeless(trained)
    assert (cut / "accuracy.md").read_text() == (trained / "accuracy.md").read_text()


def test_a_stopped_run_says_how_to_go_on(here, monkeypatch):
    from shared.training import part

    plain = part.learning_rate

    def signalling(config, n, steps):
        if n == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return plain(config, n, steps)

    with monkeypatch.context() as patch:
        patch.setattr(part, "learning_rate", signalling)
        stopped = do_train(*TINY, "--train.steps", 4, "--run.name", "stopped")
    message = "stopped at step 2 and saved; go on with: task3-train-classifier --resume runs/task3-classifier/stopped"
    assert (stopped.status, stopped.out, stopped.err.splitlines()[-1]) == (130, "", message)
    ended = do_train(*message.partition("task3-train-classifier ")[2].split()).well()
    assert ended.out == "trained: runs/task3-classifier/stopped\n"


def test_weights_to_start_from(trained, here):
    """Another run begins with the averaged weights of the first, and is told as much as that one, but for its name."""
    changes = ["--train.steps", 1, "--optimizer.lr", 1e-30, "--run.name", "second"]
    assert do_train("--init-from", trained, *changes).status == 0
    second, first = load_classifier(here / "runs/task3-classifier/second"), load_classifier(trained)
    assert second.config.network == first.config.network
    for a, b in zip(second.network.parameters(), first.network.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-20)


def test_help_needs_no_torch():
    script = "import sys; sys.argv = ['x', '--help']\nfrom task3_conditional import train_classifier as m\n"
    script += "try: m.main()\nexcept SystemExit: pass\nprint('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "False"


# --- what it fits -------------------------------------------------------------------------------------------

OTHERS = [
    ({"shape": (3, 28, 28)}, "is a classifier of images 1×28×28, not 3×28×28: train one that fits"),
    ({"shape": (1, 32, 32)}, "is a classifier of images 1×28×28, not 1×32×32"),
    ({"classes": ["cat", "dog"]}, "is a classifier of other classes: 10 (0, 1, 2, 3, 4, …), not 2 (cat, dog)"),
    ({"classes": DIGITS[::-1]}, "not 10 (9, 8, 7, 6, 5, …)"),
    ({"schedule": NoiseConfig()}, "trained on other noise: schedule.name sigmoid_alpha_bar, not cosine"),
    ({"schedule": replace(SCHEDULE, T=500)}, "trained on other noise: schedule.T 1000, not 500"),
    ({"schedule": replace(SCHEDULE, zero_terminal_snr=True)}, "schedule.zero_terminal_snr False, not True"),
]


@pytest.mark.parametrize("case", OTHERS, ids=str)
def test_a_diffusion_that_it_does_not_fit_is_refused(case, trained):
    different, message = case
    fits = {"schedule": SCHEDULE, "shape": (1, 28, 28), "classes": DIGITS}
    loaded = load_classifier(trained)
    loaded.check_fits(**fits)
    with pytest.raises(UserError) as error:
        loaded.check_fits(**{**fits, **different})
    assert message in str(error.value) and str(error.value).startswith(str(loaded.source))


def test_what_a_schedule_does_not_look_at_is_no_difference(trained):
    load_classifier(trained).check_fits(replace(SCHEDULE, beta_start=0.5), (1, 28, 28), DIGITS)


# --- bad input ----------------------------------------------------------------------------------------------

OWN = '''
import torch
from torch.utils.data import Dataset


class Spots(Dataset):
    """Random pictures, with or without labels."""

    def __init__(self, labels: int = 2, named: int = 2, kind: str = "long"):
        self.given, self.kind = labels, kind
        if named:
            self.classes = [f"class {i}" for i in range(named)]

    def __len__(self):
        return 40

    def __getitem__(self, i):
        x, label = torch.rand(1, 8, 8) * 2 - 1, torch.tensor(i % max(self.given, 1))
        kinds = {"long": label, "float": label + 0.5, "number": int(label), "several": torch.stack([label, label])}
        return x, {"label": kinds[self.kind]} if self.given else {"caption": torch.tensor(i)}
'''


@pytest.fixture
def own(here, monkeypatch):
    """Options for data of one's own, in a file outside the repository."""
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", os.getcwd())])
    name = f"own_{abs(hash(str(here)))}"
    (here / f"{name}.py").write_text(OWN)
    yield lambda **arguments: ["--own-data", json.dumps({"class_path": f"{name}.Spots", "init_args": arguments})]
    sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": 0}, "the data has no classes"),
        ({"named": 0}, "the data has no classes"),
        ({"labels": 1, "named": 1}, "the data has one class alone, class 0"),
        ({"labels": 3, "named": 2}, "the data has a label 2: with 2 classes"),
        ({"kind": "float"}, "the data has a label 0.5"),
        ({"kind": "number"}, "the data has a label 0:"),
        ({"kind": "several"}, "the data has a label tensor([0, 0])"),
    ],
)
def test_data_without_classes_to_tell_apart(arguments, message, own, here):
    before = names(here)
    assert do_train(*TINY, *own(**arguments)).says(1, message)
    assert names(here) - before <= {"__pycache__"} | {n for n in names(here) if n.startswith("__pycache__")}


def test_labels_of_data_in_memory_are_all_looked_at():
    """One of 40, which none of a few samples would show."""
    images, labels = torch.zeros(40, 1, 4, 4, dtype=torch.uint8), torch.zeros(40, dtype=torch.long)
    labels[:3] = torch.tensor([0, 5, 1])
    with pytest.raises(UserError, match="label 5: with 2 classes"):
        classes_of(InMemory(images, labels, ["a", "b"]))
    labels[1] = -1
    with pytest.raises(UserError, match="label -1: with 2 classes"):
        classes_of(InMemory(images, labels, ["a", "b"]))


def test_own_data_is_measured_by_itself_and_says_so(own, here):
    options = [*own(), "--train.workers", 0, "--train.sample-every", 2, "--run.name", "own"]
    ended = do_train(*TINY, "--network.patch", 1, *options).well()
    text = Path("runs/task3-classifier/own/accuracy.md").read_text()
    assert "40 images of the training itself (none are held out)" in text
    assert ended.out.splitlines()[-1] == "accuracy by noise level: runs/task3-classifier/own/accuracy.md"
    assert do_train("--resume", "runs/task3-classifier/own").says(1, "names code of its own", "--trust true")


def pictures(folder: Path, **places: int) -> list[object]:
    """Options for a folder with two square pictures in each of these places, and their side."""
    for number, (place, side) in enumerate(places.items()):
        (folder / place.replace("_", "/")).mkdir(parents=True)
        for i in range(2):
            Image.new("L", (side, side), 40 * number + i).save(folder / place.replace("_", "/") / f"{i}.png")
    return ["--data.name", "folder", "--data.root", folder, "--data.channels", 1, "--network.patch", 2]


def test_a_folder_of_images_of_one_class_or_of_two(here):
    assert do_train(*TINY, *pictures(here / "one", a=8)).says(1, "the data has one class alone, a")
    training, held_out = "4 images of the training itself", "4 images held out of the training"
    parts = {"train_a": 8, "train_b": 8, "test_a": 8, "test_b": 8}
    for name, places, kind in (
        ("two", {"a": 8, "b": 8}, training),
        ("parts", parts, held_out),
        ("sizes", parts | {"test_a": 16, "test_b": 16}, training),
    ):
        options = [*pictures(here / name, **places), "--train.steps", 1, "--train.sample-every", 1]
        do_train(*TINY, *options, "--run.name", name).well()
        run = Path("runs/task3-classifier") / name
        assert kind in (run / "accuracy.md").read_text() and load_classifier(run).classes == ["a", "b"]


@pytest.mark.parametrize(
    ("options", "status", "parts"),
    [
        (["--network.patch", "8"], 1, ["28×28", "multiples of 8"]),
        (["--network.width", "7"], 1, ["7 features are not even"]),
        (["--schedule.name", "linear", "--schedule.beta-end", "3"], 1, ["beta"]),
        (["--schedule.T", "0"], 2, ["schedule.T"]),
        (["--diffusion.predict", "v"], 2, ["diffusion.predict"]),
        (["--train.stps", "2"], 2, ["train.stps"]),
        (["--resume", "gone"], 1, ["gone/config.yaml"]),
        (["--init-from", "gone"], 1, ["gone"]),
    ],
)
def test_an_option(options, status, parts, here):
    assert do_train(*TINY, *options).says(status, "task3-train-classifier: error: ", *parts)
    assert names(here) == set()


def test_a_resumed_run_with_another_config(trained, here):
    run = Path(shutil.copytree(trained, here / "run"))
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    assert do_train("--resume", run, "--schedule.name", "linear").says(1, "schedule.name sigmoid_alpha_bar, not linear")
    assert do_train("--resume", run, "--data.split", "test").says(1, "data.split train, not test", "--init-from")
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


# --- files from strangers -----------------------------------------------------------------------------------


def given(trained: Path, path: Path, change) -> Path:
    """The trained classifier as one file, its config changed."""
    source = Checkpoints(trained / "checkpoints").latest()
    tensors = {f"ema.{name}": value.clone() for name, value in read_tensors(source, "ema").items()}
    write_checkpoint(path, tensors, {"step": 8, "config": change(read_facts(source)["config"])})
    return path


@pytest.mark.parametrize("make", [make for make in NO_CHECKPOINTS if make.__name__ != "folder"])
def test_a_file_that_is_no_checkpoint(make, here):
    path = here / "given.safetensors"
    make(path)
    assert do_train(*TINY, "--init-from", path).says(1, "given.safetensors is not a checkpoint of this project")
    with pytest.raises(UserError, match="is not a checkpoint of this project"):
        load_classifier(path)
    assert not {"runs", "executed"} & names(here)


CONFIGS = [
    lambda config: {},
    lambda config: [],
    lambda config: "words",
    lambda config: None,
    lambda config: {name: value for name, value in config.items() if name != "classes"},
    lambda config: {**config, "classes": 10},
    lambda config: {**config, "classes": ["0"]},
    lambda config: {**config, "classes": [["0"], {}]},
    lambda config: {**config, "shape": "abc"},
    lambda config: {**config, "shape": [1, 28]},
    lambda config: {**config, "shape": [0, 28, 28]},
    lambda config: {**config, "shape": [1, -28, 28]},
    lambda config: {**config, "shape": [2**62, 28, 28]},
    lambda config: {**config, "shape": [float("inf"), 28, 28]},
    lambda config: {**config, "shape": [1, 28, float("nan")]},
    lambda config: {**config, "train": 3},
    lambda config: {**config, "more": 1},
    lambda config: {**config, "diffusion": {"predict": "v"}},  # a diffusion's
]


@pytest.mark.parametrize("change", CONFIGS)
def test_a_strangers_config(change, trained, here):
    path = given(trained, here / "x.safetensors", change)
    with pytest.raises(UserError, match="^this is not a config of stage 3's classifier: "):
        load_classifier(path)
    assert do_train("--init-from", path).says(1, "this is not a config of stage 3's classifier")
    with pytest.raises(UserError):
        classifier_config(change(read_facts(Checkpoints(trained / "checkpoints").latest())["config"]))


def test_configs_that_name_other_weights_or_no_noise(trained, here):
    """Classes or a width that the tensors do not have; a schedule that is none."""
    for change, message in (
        (lambda config: {**config, "classes": DIGITS[:4]}, "is of another network: head.bias is (10,) there and (4,)"),
        (lambda config: {**config, "network": config["network"] | {"width": 16}}, "is of another network"),
        (lambda config: {**config, "network": config["network"] | {"multipliers": []}}, "network.multipliers is empty"),
        (lambda config: {**config, "schedule": {"name": "linear", "beta_end": 7.0}}, "every beta must lie between"),
        (lambda config: {**config, "shape": [1, 27, 28]}, "27×28"),
    ):
        with pytest.raises(UserError) as error:
            load_classifier(given(trained, here / "x.safetensors", change))
        assert message in str(error.value)


def test_code_that_a_stranger_names_is_not_run(trained, here, monkeypatch):
    monkeypatch.syspath_prepend(here)
    (here / "trap.py").write_text(f"open('executed', 'w')\n{OWN}")
    trap = {"class_path": "trap.Spots", "init_args": {}}
    sections = ["data", "network", "schedule", "optimizer", "averages", "train", "run"]
    for name in ["own_data", *sections]:
        path = given(trained, here / "x.safetensors", lambda config, n=name: {**config, n: trap})
        with contextlib.suppress(UserError):
            load_classifier(path)
        assert do_train("--init-from", path).says(1)
        assert not Path("executed").exists(), name
    (here / "y").mkdir()
    run = Path(shutil.copytree(trained, here / "run"))
    config = {**read_facts(Checkpoints(run / "checkpoints").latest())["config"], "own_data": trap}
    (run / "config.yaml").write_text(json.dumps({k: v for k, v in config.items() if k not in ("shape", "classes")}))
    assert do_train("--resume", run).says(1, "--trust true") and not Path("executed").exists()


def loaded_each(folder: str) -> dict[str, str]:
    """In a process of its own: what comes of loading each file."""
    found = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        try:
            load_classifier(path)
            found[path.stem] = "loaded"
        except (UserError, MemoryError, RuntimeError) as error:
            found[path.stem] = f"{type(error).__name__}: {error}"
    return found


@pytest.mark.slow
def test_sizes_that_no_machine_has(trained, here):
    """In the config of a stranger's classifier: refused, or the system refuses the memory (which commands report)."""
    huge = {
        "width": lambda config: {**config, "network": config["network"] | {"width": 2**20}},
        "blocks": lambda config: {**config, "network": config["network"] | {"blocks": 10**7}},
        "levels": lambda config: {**config, "schedule": config["schedule"] | {"T": 10**11}},
        "channels": lambda config: {**config, "shape": [2**20, 28, 28]},
        "classes": lambda config: {**config, "classes": ["x"] * 10**5},
    }
    for name, change in huge.items():
        given(trained, here / f"{name}.safetensors", change)
    found = limited(f"{__name__}:loaded_each", str(here), gib=2, seconds=30)
    assert found.keys() == huge.keys()
    for name, message in found.items():
        assert message.startswith(("UserError: ", "MemoryError: ")) or "allocate memory" in message, (name, message)
