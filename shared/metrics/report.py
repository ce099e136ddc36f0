"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

What the judge says of generated digits: confidence, class histogram, Fréchet distance, and its floor.
"""

import functools
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from shared.datasets import DataConfig, load
from shared.datasets.ranges import to_unit
from shared.errors import UserError
from shared.metrics.frechet import frechet_distance, statistics
from shared.metrics.judge import FEATURES, centre, inspect, load_judge, provenance, reference

CONFIDENT = 0.9  # a sample counts as confident when its largest class probability reaches this
CAVEAT = (
    "Judge figures are comparable to figures of this same judge at the same n alone: "
    "its features are its own, so the distance is not an FID, and none of them stands beside a paper's."
)


class Floor(NamedTuple):
    """Distance of real digits to real digits at some n: mean and standard deviation over seeded draws."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class JudgeReport:
    """Figures of `n` samples; `str(report)` is the text for people, `to_dict` the one for JSON."""

    n: int
    confident: float  # share with a class probability ≥ 0.9; one digit repeated reaches 1: read on
    histogram: list[float]  # share of the samples given to each digit, 0 to 9
    distance: float  # Fréchet distance of the features to those of the 10,000 MNIST test images
    floor: float | None  # the same for n real digits, mean of 20 draws; None where n exceeds the real digits at hand
    floor_deviation: float | None  # standard deviation of those draws
    ratio: float | None  # distance / floor
    notes: list[str]  # what limits these figures, if anything does

    def to_dict(self) -> dict:
        """All figures, what they were measured by, and the sentence they must not be shown without."""
        made_by = {"extractor": "shared.metrics judge", "reference": provenance()["reference"]}
        return asdict(self) | made_by | {"caveat": CAVEAT}

    def __str__(self) -> str:
        real = provenance()["test_confident"]
        floor = "no floor"
        if self.floor is not None:
            spread = f"{self.floor:.3f} ± {self.floor_deviation:.3f} for real digits"
            floor = f"{self.ratio:.1f} x the floor, {spread}"
        shares = "  ".join(f"{digit}: {share:.1%}" for digit, share in enumerate(self.histogram))
        lines = [
            f"judge, n = {self.n}",
            f"  confident (≥ {CONFIDENT})  {self.confident:.1%}  (real test digits: {real:.1%})",
            f"  digits             {shares}",
            f"  Fréchet distance   {self.distance:.3f}  ({floor})",
            *(f"  note: {note}" for note in self.notes),
            f"  {CAVEAT}",
        ]
        return "\n".join(lines)


def judge_samples(images: Tensor) -> JudgeReport:
    """Judge generated digits (N, 1, 28, 28) or (N, 1, 32, 32), floating point in [-1, 1], N ≥ 2.

    Raises `UserError` for another shape, for fewer than two images, and for values that are not finite,
    outside [-1, 1], or all ≥ 0.
    """
    check(images)
    n = len(images)
    features, probabilities = inspect(load_judge(), images.detach().float())
    distance = frechet_distance(*statistics(features), *reference())
    counts = probabilities.argmax(dim=1).bincount(minlength=10)
    floor = real_floor(n) if n <= len(real_features()) else None
    return JudgeReport(
        n=n,
        confident=(probabilities.amax(dim=1) >= CONFIDENT).double().mean().item(),
        histogram=(counts.double() / n).tolist(),
        distance=distance,
        floor=floor.mean if floor else None,
        floor_deviation=floor.deviation if floor else None,
        ratio=distance / floor.mean if floor else None,
        notes=limits(n),
    )


def judge_labelled(images: Tensor, labels: Tensor) -> dict[str, Any]:
    """Judge digits (N, 1, H, W) of which each was to be one of `labels` (N,).

    Returns:
        "judged", the report of `judge_samples`; "agreement", the share in which the judge reads what was asked for;
        and "agreement_by_class", of each digit that was asked for.

    Raises:
        UserError: as for `judge_samples`.
    """
    judged = judge_samples(images).to_dict()
    right = inspect(load_judge(), images.detach().float())[1].argmax(dim=1) == labels
    by_digit = [right[labels == digit].double().mean().item() for digit in labels.unique()]
    return {"judged": judged, "agreement": right.double().mean().item(), "agreement_by_class": by_digit}


def limits(n: int) -> list[str]:
    """What limits the figures of n samples, a sentence each."""
    notes = []
    if n <= FEATURES:
        singular = f"the covariance of {n} samples is singular in the {FEATURES} dimensions of the features"
        notes.append(f"{singular}: below n = {FEATURES + 1} the distance says little")
    if n > len(real_features()):
        notes.append(f"no floor: it is drawn from {len(real_features())} embedded digits, fewer than n = {n}")
    return notes


def check(images: Tensor) -> None:
    """Raise `UserError`, one line, for images that the judge would take silently and judge wrongly."""
    centre(images)
    if len(images) < 2:
        raise UserError(f"the judge needs at least 2 images for a distance, not {len(images)}")
    if not images.is_floating_point():
        raise UserError(f"the judge takes floating-point images in [-1, 1], not {images.dtype}")
    if not images.isfinite().all():
        raise UserError("the judge was given images with values that are not finite (NaN or infinity)")
    low, high = images.min().item(), images.max().item()
    if low < -1.001 or high > 1.001:
        raise UserError(f"the judge takes images in [-1, 1], not in [{low:.4g}, {high:.4g}]")
    if low >= 0:
        raise UserError(f"images must be in [-1, 1]; these lie in [{low:.4g}, {high:.4g}]: map [0, 1] by 2 x - 1 first")


def real_digits() -> Tensor:
    """The embedded digits (5000, 1, 28, 28) in [-1, 1]: real, and left out when the judge was trained."""
    parts = [load(DataConfig(name="digits", split=split)) for split in ("train", "test")]
    return to_unit(torch.cat([part.images for part in parts]))


@functools.cache
def real_features() -> Tensor:
    """The judge's features (5000, 128) of the embedded digits; computed once a process."""
    return inspect(load_judge(), real_digits())[0]


@functools.cache
def real_floor(n: int, draws: int = 20, seed: int = 0) -> Floor:
    """The distance of n real digits, drawn without replacement from the 5,000 embedded ones; 2 ≤ n ≤ 5,000.

    A finite sample of a distribution lies at some distance from it: this is what a perfect model would show.
    Raises `UserError` for any other n.
    """
    if not 2 <= n <= len(real_features()):
        raise UserError(f"the real-against-real floor takes 2 to {len(real_features())} images, not {n}")
    distances = draw_distances(real_features(), n, draws, seed)
    return Floor(distances.mean().item(), distances.std().item())


def draw_distances(pool: Tensor, n: int, draws: int, seed: int) -> Tensor:
    """Distances (draws,) to the reference, each of n rows drawn from a pool of features (N, 128)."""
    generator = torch.Generator().manual_seed(seed)
    picks = [torch.randperm(len(pool), generator=generator)[:n] for _ in range(draws)]
    distances = [frechet_distance(*statistics(pool[pick]), *reference()) for pick in picks]
    return torch.tensor(distances, dtype=torch.float64)
