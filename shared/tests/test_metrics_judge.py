"""The committed judge: what its file holds, how well it reads digits, which mistakes it must expose."""

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from shared.datasets import DataConfig, load
from shared.datasets.ranges import to_unit
from shared.errors import UserError
from shared.metrics import report as report_module
from shared.metrics.frechet import statistics
from shared.metrics.judge import WEIGHTS, inspect, load_judge, provenance, reference
from shared.metrics.report import CAVEAT, Floor, judge_samples, real_digits, real_floor

needs_mnist = pytest.mark.skipif(
    not os.environ.get("DIFFUSION_DATA"), reason="DIFFUSION_DATA is not set: the full MNIST is needed"
)


@pytest.fixture(scope="module")
def digits() -> torch.Tensor:
    """1,000 of the embedded digits, (1000, 1, 28, 28) in [-1, 1]: real, and new to the judge."""
    images = real_digits()
    return images[torch.randperm(len(images), generator=torch.Generator().manual_seed(1))[:1000]]


@pytest.fixture(scope="module")
def test_set() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Labels, features and probabilities of the 10,000 MNIST test images."""
    data = load(DataConfig(name="mnist", split="test"))
    return data.labels, *inspect(load_judge(), to_unit(data.images))


def test_the_file_is_small_and_says_how_it_was_made():
    assert WEIGHTS.stat().st_size <= 1_000_000
    facts = provenance()
    assert facts["command"] == "python -m shared.metrics.train_judge"
    assert facts["test_accuracy"] >= 0.993 and 0.9 < facts["test_confident"] <= 1
    assert {"seed", "torch", "reference", "trained_on"} <= facts.keys()


@needs_mnist
def test_reads_the_test_set(test_set):
    labels, _, probabilities = test_set
    accuracy = (probabilities.argmax(dim=1) == labels).double().mean().item()
    assert accuracy >= 0.993
    assert accuracy == pytest.approx(provenance()["test_accuracy"], abs=2e-4)  # other processors round otherwise
    confident = (probabilities.amax(dim=1) >= 0.9).double().mean().item()
    assert confident == pytest.approx(provenance()["test_confident"], abs=5e-4)


@needs_mnist
def test_the_committed_reference_is_that_of_the_test_set(test_set):
    _, features, _ = test_set
    for found, committed in zip(statistics(features), reference(), strict=True):
        assert committed.dtype == torch.float64
        torch.testing.assert_close(found, committed, rtol=1e-4, atol=1e-6)


@needs_mnist
def test_confidence_means_what_it_says(test_set):
    """Confident answers are right, and the unsure ones hold most of the mistakes."""
    labels, _, probabilities = test_set
    right, confident = probabilities.argmax(dim=1) == labels, probabilities.amax(dim=1) >= 0.9
    assert right[confident].double().mean() > 0.997
    assert right[~confident].double().mean() < 0.9


def test_reads_embedded_digits_that_it_was_not_trained_on():
    data = load(DataConfig(name="digits", split="test"))  # 500
    guesses = load_judge()(to_unit(data.images)).argmax(dim=1)
    assert (guesses == data.labels).double().mean() >= 0.98


def test_the_padded_size_is_judged_as_the_digit_inside():
    images = real_digits()[:4]
    padded = F.pad(images, (2, 2, 2, 2), value=-1)
    assert torch.equal(load_judge()(padded), load_judge()(images))
    assert load_judge().features(padded).shape == (4, 128)


def test_the_committed_judge_is_frozen():
    judge = load_judge()
    assert not judge.training and not any(parameter.requires_grad for parameter in judge.parameters())
    assert all(parameter.dtype == torch.float32 for parameter in judge.parameters())


def test_real_digits_lie_at_the_floor(digits):
    report = judge_samples(digits)
    assert 0.5 < report.ratio < 2
    assert report.confident > 0.95 and all(0.05 < share < 0.15 for share in report.histogram)
    assert report.notes == [] and report.distance == pytest.approx(report.ratio * report.floor)


def test_the_floor_falls_with_n_and_can_be_repeated():
    floors = [real_floor(n) for n in (150, 500, 2000)]
    assert floors[0].mean > 2 * floors[1].mean > 4 * floors[2].mean
    assert all(0 < floor.deviation < floor.mean for floor in floors)
    assert real_floor.__wrapped__(500) == floors[1] != real_floor(500, seed=1)


def noise(x):
    return torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def box_blur(x):
    return F.avg_pool2d(x + 1, 5, stride=1, padding=2) - 1


def speckled(x):
    return (x + 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))).clamp(-1, 1)


def one_repeated(x):
    return x[:1].expand(len(x), -1, -1, -1)


FAULTS = {
    "noise": (noise, 15),
    "inverted": (torch.neg, 15),
    "blurred": (box_blur, 15),
    "mirrored": (lambda x: x.flip(-1), 15),
    "half contrast": (lambda x: x * 0.5 - 0.5, 5),
    "noise left over": (speckled, 15),
    "shifted by 4": (lambda x: x.roll(4, -1), 2),  # its training taught it to look past small shifts
    "one digit repeated": (one_repeated, 15),
    "ten digits repeated": (lambda x: x[:10].repeat(len(x) // 10, 1, 1, 1), 15),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_stands_far_above_the_floor(digits, name):
    spoil, least = FAULTS[name]
    report = judge_samples(spoil(digits[:500]))
    assert report.ratio > least, str(report)


def test_confidence_alone_is_fooled_by_one_digit(digits):
    report = judge_samples(one_repeated(digits[:500]))
    assert report.confident == 1 and max(report.histogram) == 1
    assert report.ratio > 100


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(4, 1, 28, 28), r"must be in \[-1, 1\]; these lie in"),
        (torch.full((4, 1, 28, 28), 2.0), r"in \[-1, 1\], not in \[2, 2\]"),
        (torch.zeros(4, 1, 28, 28, dtype=torch.uint8), "floating-point"),
        (torch.full((4, 1, 28, 28), float("nan")), "not finite"),
        (torch.zeros(4, 3, 28, 28) - 0.5, r"not \(4, 3, 28, 28\)"),
        (torch.zeros(4, 1, 28, 32) - 0.5, r"not \(4, 1, 28, 32\)"),
        (torch.zeros(4, 28, 28) - 0.5, r"not \(4, 28, 28\)"),
        (torch.zeros(1, 1, 28, 28) - 0.5, "at least 2"),
        (torch.zeros(0, 1, 28, 28), "at least 2"),
    ],
)
def test_bad_images_are_refused_in_one_line(images, message):
    with pytest.raises(UserError, match=message) as caught:
        judge_samples(images)
    assert "\n" not in str(caught.value)


def test_rounding_beyond_the_range_is_forgiven(digits):
    assert judge_samples(digits[:200] * 1.0005).n == 200


def test_few_samples_are_told_so(digits):
    few, enough = judge_samples(digits[:128]), judge_samples(digits[:129])
    assert "singular" in few.notes[0] and "note: " in str(few) and few.ratio is not None
    assert enough.notes == []


def test_beyond_the_embedded_digits_there_is_no_floor(digits, monkeypatch):
    with pytest.raises(UserError, match="2 to 5000"):
        real_floor(5001)
    assert isinstance(real_floor(5000), Floor)
    pool = report_module.real_features()[:199]
    monkeypatch.setattr(report_module, "real_features", lambda: pool)
    many = judge_samples(digits[:200])
    assert many.floor is many.floor_deviation is many.ratio is None
    assert "199" in many.notes[0] and "no floor" in str(many)


def test_every_showing_carries_the_caveat(digits):
    report = judge_samples(digits[:200])
    assert CAVEAT in str(report) and report.to_dict()["caveat"] == CAVEAT
    assert report.to_dict()["n"] == 200 and len(report.to_dict()["histogram"]) == 10


def test_importing_the_metrics_is_light():
    heavy = "('torchvision', 'torchmetrics', 'mlxtend', 'scipy')"
    code = f"import sys, shared.metrics.report; sys.exit(any(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_missing_mnist_ends_the_training_in_one_line(tmp_path):
    environment = os.environ | {"DIFFUSION_DATA": str(tmp_path)}
    command = [sys.executable, "-m", "shared.metrics.train_judge"]
    ran = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert ran.returncode == 1 and "DIFFUSION_DATA" in ran.stderr and ran.stderr.count("\n") == 1
