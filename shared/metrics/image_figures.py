"""Introduced in task 1; used by task 1.

FID, KID, Inception Score, precision and recall of images, from their features, and what limits them.

FID: Heusel et al. 2017 (arXiv 1706.08500). KID: Bińkowski et al. 2018 (arXiv 1801.01401). Inception Score: Salimans et
al. 2016 (arXiv 1606.03498). Precision and recall: Kynkäänniemi et al. 2019 (arXiv 1904.06991). They are computed by
torchmetrics and torch-fidelity, in float64.
"""

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from shared import _torchvision
from shared.errors import UserError
from shared.metrics.inception import PUBLISHED, Features

SUBSETS, SUBSET = 100, 1000  # of KID, as published
SPLITS = 10  # of the Inception Score, as published
NEIGHBOURS = 3  # of precision and recall, as published
MANIFOLD = 10_000  # images a side for precision and recall: their time grows with the square
SMALLEST = 4  # images: a point and its three neighbours
PAPERS = 50_000  # samples that papers measure


@dataclass(frozen=True)
class ImageReport:
    """Figures of `n` samples against `reference_n` real images, by the names of `shared.experiments.figures`."""

    n: int
    reference_n: int
    figures: dict[str, float]  # as `image_figures` names them
    floor: dict[str, float] | None  # the same of n real images, their names ending with _floor; None without enough
    weights: str  # SHA-256 of Inception's
    notes: list[str]  # what limits these figures

    def to_dict(self) -> dict:
        """For JSON."""
        return asdict(self) | {"extractor": "Inception 2015-12-05, torch-fidelity"}

    def __str__(self) -> str:
        lines = [f"Inception, n = {self.n}, reference of {self.reference_n} images"]
        for name, value in self.figures.items():
            floor = f"  ({self.floor[f'{name}_floor']:.4f} for real images)" if self.floor else ""
            lines.append(f"  {name:27}{value:.4f}{floor}")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


def image_report(samples: Features, reference: Features, held_out: Features | None = None) -> ImageReport:
    """All figures of samples against real images, with the floor and the notes; as `image_figures`, `image_floor`."""
    n = len(samples.pooled)
    figures = image_figures(samples, reference)
    floor = image_floor(n, reference, held_out)
    notes = limits(samples, reference)
    if floor is None:
        of = f"{n} held-out images" if held_out else f"{2 * n} real images, to be told into two halves"
        notes.append(f"no floor: it takes {of}, and there are {len((held_out or reference).pooled)}")
    return ImageReport(n, len(reference.pooled), figures, floor, samples.weights, notes)


def image_figures(samples: Features, reference: Features, seed: int = 0) -> dict[str, float]:
    """fid, kid, kid_deviation, inception_score, inception_score_deviation, precision, recall.

    FID takes all of both sets. KID is the mean over 100 subsets of 1,000 of each (of half the smaller set, where that
    is less); the Inception Score the mean over 10 splits of the samples; deviations are over these. Precision and
    recall take equally many of both, 10,000 at most. What is drawn is drawn from `seed`; torch's generator stays.

    Raises:
        UserError: fewer than 4 images, or features of different weights.
    """
    for features, what in ((samples, "samples"), (reference, "real images")):
        if len(features.pooled) < SMALLEST:
            raise UserError(f"FID and its like need at least {SMALLEST} {what}, not {len(features.pooled)}")
    if samples.weights != reference.weights:
        raise UserError("samples and real images were given to Inception networks of different weights")
    kid, kid_deviation = kernel_distance(samples.pooled, reference.pooled, seed)
    score, score_deviation = inception_score(samples.logits, seed)
    precision, recall = precision_recall(samples.pooled, reference.pooled, seed)
    return {
        "fid": frechet_inception_distance(samples.pooled, reference.pooled),
        "kid": kid,
        "kid_deviation": kid_deviation,
        "inception_score": score,
        "inception_score_deviation": score_deviation,
        "precision": precision,
        "recall": recall,
    }


def image_floor(
    n: int, reference: Features, held_out: Features | None = None, seed: int = 0
) -> dict[str, float] | None:
    """`image_figures` of n real images, the names with _floor: what a perfect model would show at this n.

    With `held_out` (another split), n images of it against the whole reference. Without, n images of the reference
    against the others of it; of both there must be n. None where there are not enough.
    """
    pool = held_out or reference
    if len(pool.pooled) < (n if held_out else 2 * n):
        return None
    order = shuffled(len(pool.pooled), seed)
    drawn = taken(pool, order[:n])
    figures = image_figures(drawn, reference if held_out else taken(pool, order[n:]), seed)
    return {f"{name}_floor": value for name, value in figures.items()}


def limits(samples: Features, reference: Features) -> list[str]:
    """What limits the figures of these features, a sentence each."""
    (n, width), reference_n = samples.pooled.shape, len(reference.pooled)
    notes = []
    if not samples.weights.startswith(PUBLISHED):
        notes.append("Inception's weights are not the published ones: no figure stands beside a paper's")
    for size, what in ((n, "samples"), (reference_n, "real images")):
        if size <= width:
            notes.append(f"the covariance of {size} {what} is singular in {width} dimensions: FID says little")
    if n < PAPERS:
        notes.append(
            f"papers measure {PAPERS:,} samples: with {n} FID is higher, the Inception Score lower, for the same model"
        )
    if subset_size(n, reference_n) < SUBSET:
        size = subset_size(n, reference_n)
        notes.append(f"KID is of subsets of {size}, not {SUBSET:,}: its mean is the same, its deviation larger")
    notes.append(f"precision and recall are of {min(n, reference_n, MANIFOLD)} images a side, and depend on how many")
    return notes


def frechet_inception_distance(samples: Tensor, reference: Tensor) -> float:
    """FID ≥ 0 of features (N, D) and (M, D)."""
    _torchvision.prepare()
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=given(samples.shape[1]))
    for features, real in ((samples, False), (reference, True)):
        for part in features.split(SUBSET):
            metric.update(part.double(), real=real)
    return max(metric.compute().item(), 0.0)  # equal sets leave a rounding error of either sign


def kernel_distance(samples: Tensor, reference: Tensor, seed: int) -> tuple[float, float]:
    """KID of features (N, D) and (M, D): mean and deviation over subsets; unbiased, so that it may be below 0."""
    _torchvision.prepare()
    from torchmetrics.image.kid import KernelInceptionDistance

    with drawing(seed), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it keeps the features, which we do
        size = subset_size(len(samples), len(reference))
        metric = KernelInceptionDistance(feature=given(samples.shape[1]), subsets=SUBSETS, subset_size=size)
        metric.update(samples.double(), real=False)
        metric.update(reference.double(), real=True)
        mean, deviation = metric.compute()
    return mean.item(), deviation.item()


def inception_score(logits: Tensor, seed: int) -> tuple[float, float]:
    """Inception Score ≥ 1 of logits (N, K): mean and deviation over splits of their images."""
    _torchvision.prepare()
    from torchmetrics.image.inception import InceptionScore

    with drawing(seed), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        metric = InceptionScore(feature=given(logits.shape[1]), splits=SPLITS)
        metric.update(logits.double())
        mean, deviation = metric.compute()
    return mean.item(), deviation.item()


def precision_recall(samples: Tensor, reference: Tensor, seed: int) -> tuple[float, float]:
    """Shares in [0, 1], of features (N, D) and (M, D), of samples among the real images, and the other way round.

    "Among" is: no further from one of them than its third nearest neighbour of its own kind is.
    """
    _torchvision.prepare()
    from torch_fidelity.metric_prc import prc_features_to_metric

    size = min(len(samples), len(reference), MANIFOLD)
    both = [features[shuffled(len(features), seed)[:size]].double() for features in (samples, reference)]
    found = prc_features_to_metric(
        *both, prc_neighborhood=NEIGHBOURS, prc_batch_size=SUBSET, save_cpu_ram=True, verbose=False
    )
    return found["precision"], found["recall"]


def subset_size(n: int, reference_n: int) -> int:
    """Images in a subset of KID: of all of them each subset would be the same, and the deviation 0."""
    return min(SUBSET, n // 2, reference_n // 2)


def given(width: int) -> nn.Module:
    """In place of a network: torchmetrics is given features where it expects images."""
    identity = nn.Identity()
    identity.num_features = width
    return identity


@contextlib.contextmanager
def drawing(seed: int) -> Iterator[None]:
    """A `with` block in which torch's generator on the CPU begins at a seed, and after which it is as before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would move the GPU's, too
        yield


def shuffled(n: int, seed: int) -> Tensor:
    """0 to n - 1 in an order drawn from a seed."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def taken(features: Features, index: Tensor) -> Features:
    """Those of some images."""
    return features._replace(pooled=features.pooled[index], logits=features.logits[index])
