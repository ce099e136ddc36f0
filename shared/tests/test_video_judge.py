"""The committed judge of clips: what its file holds, how well it reads clips, which faults its distance must order."""

import pytest
import torch
import torch.nn.functional as F

from shared.datasets.moving_digits import MovingDigits
from shared.errors import UserError
from shared.metrics.frechet import frechet_distance, statistics
from shared.metrics.train_video_judge import Clips, accuracies, training_batches
from shared.metrics.video import real_clips
from shared.metrics.video_judge import FEATURES, MOTIONS, WEIGHTS, load_video_judge, provenance, video_features

N = 150
FORM = (1, 1, 16, 32)


@pytest.fixture(scope="module")
def real() -> torch.Tensor:
    """Clips (N, 1, 16, 32, 32) of the training digits, which the judge was not trained on."""
    return real_clips(FORM, "train", N)[0]


@pytest.fixture(scope="module")
def reference() -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and covariance of the features of clips of the held-out digits."""
    return statistics(video_features(real_clips(FORM, "test", 2 * N)[0]))


def distance(clips, reference) -> float:
    return frechet_distance(*statistics(video_features(clips)), *reference)


def test_the_file_is_small_and_says_how_it_was_made():
    assert WEIGHTS.stat().st_size <= 1_000_000
    facts = provenance()
    assert facts["command"] == "python -m shared.metrics.train_video_judge"
    assert {"seed", "steps", "torch", "trained_on", "measured_on"} <= facts.keys()
    assert min(facts["accuracy"].values()) > 0.9
    assert 200_000 < sum(parameter.numel() for parameter in load_video_judge().parameters()) < 400_000


def test_it_reads_clips_of_digits_that_it_was_not_trained_on():
    found = accuracies(load_video_judge(), clips=420)
    assert found["digit"] > 0.95 and found["direction"] > 0.9 and found["motion"] > 0.95
    assert all(found[name] == pytest.approx(stored, abs=0.03) for name, stored in provenance()["accuracy"].items())


@pytest.mark.parametrize(("frames", "size"), [(8, 32), (24, 32), (50, 32), (20, 64)])
def test_it_takes_other_lengths_and_sizes(frames, size):
    data = MovingDigits("test", 1, size, frames)
    clips = torch.stack([data[i][0] for i in range(0, 5000, 230)])
    assert video_features(clips).shape == (22, FEATURES)
    digit, direction, motion = load_video_judge()(clips)
    assert (digit.shape, direction.shape, motion.shape) == ((22, 10), (22, 8), (22, len(MOTIONS)))
    if size == 32 and frames < 50:  # as it was trained
        labels = torch.tensor([data.labels[i % 500] for i in range(0, 5000, 230)])
        assert (digit.argmax(dim=1) == labels).double().mean() >= 0.8


def test_the_batch_does_not_matter(real):
    torch.testing.assert_close(video_features(real[:7], batch=3), video_features(real[:7]), atol=1e-4, rtol=1e-4)


def test_the_committed_judge_is_frozen():
    judge = load_video_judge()
    assert not judge.training and not any(parameter.requires_grad for parameter in judge.parameters())
    assert all(parameter.dtype == torch.float32 for parameter in judge.parameters())


def at_speed(factor: float) -> torch.Tensor:
    data = MovingDigits("train")
    data.step *= factor
    return torch.stack([data[i][0] for i in torch.randperm(45000, generator=torch.Generator().manual_seed(0))[:N]])


def scrambled(x):
    return x[:, :, torch.randperm(16, generator=torch.Generator().manual_seed(0))]


FAULTS = {
    "stills": (lambda x: x[:, :, :1].expand_as(x), 10),
    "shuffled": (scrambled, 10),
    "changed": (lambda x: torch.cat([x[:, :, :8], x.roll(1, 0)[:, :, 8:]], dim=2), 5),
    "blurred": (lambda x: F.avg_pool3d(x + 1, (1, 5, 5), 1, (0, 2, 2)) - 1, 3),
    "one and a half times as fast": (lambda x: at_speed(1.5), 2),
    "one clip repeated": (lambda x: x[:1].expand_as(x), 10),
    "backwards in the middle": (lambda x: torch.cat([x[:, :, :6], x[:, :, 6:10].flip(2), x[:, :, 10:]], dim=2), 2),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_stands_above_real_clips(real, reference, name):
    spoil, least = FAULTS[name]
    floor = distance(real, reference)
    assert distance(spoil(real), reference) > least * floor


@pytest.mark.parametrize("fault", ["speed", "blur", "shuffled share", "noise"])
def test_a_larger_fault_is_further_away(real, reference, fault):
    def spoiled(size: float) -> torch.Tensor:
        if fault == "speed":
            return at_speed(1 + size)
        if fault == "blur":
            return real + size * (F.avg_pool3d(real + 1, (1, 5, 5), 1, (0, 2, 2)) - 1 - real)
        if fault == "noise":
            noise = torch.randn(real.shape, generator=torch.Generator().manual_seed(0))
            return (real + size * noise).clamp(-1, 1)
        return torch.cat([scrambled(real[: round(size * N)]), real[round(size * N) :]])

    found = [distance(spoiled(size), reference) for size in (0.0, 0.3, 1.0)]
    assert found == sorted(found) and found[-1] > 3 * found[0]


def test_the_faults_that_it_is_trained_on_are_what_they_are_called():
    data = MovingDigits("test")
    source = Clips(data)
    torch.manual_seed(0)
    made = {name: source.clip(77, number, 12)[0] for number, name in enumerate(MOTIONS)}
    true = MovingDigits("test", frames=12)
    normal = true.drawn(true.trajectory(77))
    assert torch.equal(made["normal"], normal)
    assert torch.equal(made["still"], made["still"][:1].expand(12, -1, -1))
    assert not torch.equal(made["shuffled"], normal)
    assert sorted(map(hash, map(bytes, made["shuffled"].numpy()))) == sorted(map(hash, map(bytes, normal.numpy())))
    change = made["digit changed half-way"]
    assert torch.equal(change[:6], normal[:6]) and all((change[f] != normal[f]).any() for f in range(6, 12))
    slow, fast = made["half speed"], made["double speed"]
    middle = [(clip[:5].float().sum(1) @ torch.arange(32.0)) / clip[:5].float().sum((1, 2)) for clip in (slow, fast)]
    assert middle[1].diff().abs().mean() > 2 * middle[0].diff().abs().mean()


@pytest.mark.parametrize("shape", [(2, 1, 7, 32, 32), (2, 1, 16, 28, 32), (2, 3, 16, 32, 32), (2, 16, 32, 32)])
def test_what_it_refuses(shape):
    with pytest.raises(UserError, match="the judge of clips takes") as caught:
        video_features(torch.zeros(shape))
    assert "\n" not in str(caught.value)


def test_a_missing_mnist_ends_the_training_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFUSION_DATA", str(tmp_path))
    with pytest.raises(UserError, match="DIFFUSION_DATA") as caught:
        next(training_batches())
    assert "\n" not in str(caught.value)
