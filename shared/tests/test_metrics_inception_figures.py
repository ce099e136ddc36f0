"""FID, KID, Inception Score, precision and recall, of features whose figures are known."""

import math

import pytest
import torch
from torch import Tensor

from shared.errors import UserError
from shared.experiments.figures import FIGURES
from shared.metrics.frechet import frechet_distance, statistics
from shared.metrics.image_figures import (
    frechet_inception_distance,
    image_figures,
    image_floor,
    image_report,
    inception_score,
    kernel_distance,
    limits,
    precision_recall,
)
from shared.metrics.inception import PUBLISHED, Features


def drawn(n: int, width: int = 8, seed: int = 0, shift: float = 0.0) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed)) + shift


def features(pooled: Tensor, weights: str = PUBLISHED) -> Features:
    return Features(pooled, 3 * drawn(len(pooled), 10, seed=9), weights)


def with_moments(mean: float, deviation: float, n: int = 500, width: int = 4) -> Tensor:
    """Features whose sample mean and unbiased covariance are exactly these, times one and the identity."""
    x = drawn(n, width, seed=int(10 * deviation)).double()
    x = x - x.mean(dim=0)
    root = torch.linalg.cholesky(x.T @ x / (n - 1))
    return torch.linalg.solve_triangular(root, x.T, upper=False).T * deviation + mean


def test_fid_of_gaussians_is_the_closed_form():
    """Of N(a, s²) and N(b, r²), in each of 4 dimensions: (a - b)² + (s - r)²."""
    found = frechet_inception_distance(with_moments(1.0, 2.0), with_moments(-0.5, 0.5, n=300))
    assert found == pytest.approx(4 * (1.5**2 + 1.5**2), rel=1e-9)


def test_fid_is_our_frechet_distance_even_where_covariances_are_singular():
    for n in (1500, 6):  # more than a part that is given at once, and fewer than dimensions
        a, b = drawn(n) @ drawn(8, seed=2), drawn(n + 1, seed=3, shift=0.3)
        ours = frechet_distance(*statistics(a), *statistics(b))
        assert frechet_inception_distance(a, b) == pytest.approx(ours, rel=1e-5)
    assert 0 <= frechet_inception_distance(a, a) < 1e-5


def test_fid_is_computed_in_float64():
    """Far from zero a mean square in float32 leaves nothing of the covariance."""
    near = frechet_inception_distance(with_moments(0.0, 1.0).float(), with_moments(0.0, 3.0).float())
    far = frechet_inception_distance(with_moments(3000.0, 1.0).float(), with_moments(3000.0, 3.0).float())
    assert far == pytest.approx(near, rel=1e-2)


def test_kid_is_the_unbiased_estimate_written_out():
    """A kernel (x·y / D + 1)³; of 4 images a side the subsets are of 2, and their mean nears that over all pairs."""
    a, b = drawn(4, 2, seed=1).double(), drawn(4, 2, seed=2, shift=0.5).double()

    def kernel(x: Tensor, y: Tensor) -> float:
        return (x @ y / 2 + 1).item() ** 3

    same = [kernel(x[i], x[j]) for x in (a, b) for i in range(4) for j in range(4) if i != j]
    across = [kernel(x, y) for x in a for y in b]
    means = [kernel_distance(a, b, seed)[0] for seed in range(40)]
    expected = 2 * sum(same) / len(same) - 2 * sum(across) / len(across)
    error = torch.tensor(means).std().item() / 40**0.5
    assert sum(means) / 40 == pytest.approx(expected, abs=4 * error) and error < 0.1 * abs(expected)


def test_kid_of_one_distribution_is_zero_on_average_and_of_two_it_is_not():
    found = [kernel_distance(drawn(60, seed=2 * i), drawn(80, seed=2 * i + 1), seed=i)[0] for i in range(30)]
    mean, error = sum(found) / 30, torch.tensor(found).std().item() / 30**0.5
    assert abs(mean) < 4 * error and min(found) < 0
    far, deviation = kernel_distance(drawn(60), drawn(80, seed=1, shift=1.0), seed=0)
    assert far > 20 * error and 0 < deviation < far


@pytest.mark.parametrize("scale", [0.0, 1.0, 60.0])
def test_inception_score_is_the_closed_form(scale):
    """Of classes c equally often, with logit `scale` for theirs: each split exp(H(mean) - H(one)) = K exp(-H(one))."""
    classes = 5
    logits = scale * torch.eye(classes).repeat(2000, 1)
    p = math.exp(scale) / (math.exp(scale) + classes - 1)
    q = (1 - p) / (classes - 1)
    entropy = -sum(v * math.log(v) for v in [p] + [q] * (classes - 1) if v > 0)
    mean, deviation = inception_score(logits, seed=0)
    assert mean == pytest.approx(classes * math.exp(-entropy), rel=5e-3)  # splits have about as many of each class
    assert mean <= classes + 1e-9 and 0 <= deviation < 0.05


def test_inception_score_of_one_class_is_one_and_of_unequal_ones_the_entropy_of_the_shares():
    assert inception_score(50 * torch.eye(4)[torch.zeros(100, dtype=torch.long)], 0)[0] == pytest.approx(1)
    logits = 50 * torch.eye(2)[torch.tensor([0, 0, 0, 1] * 1000)]
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert inception_score(logits, 0)[0] == pytest.approx(math.exp(entropy), rel=5e-3)


def test_precision_and_recall_of_points_on_a_line():
    """Real: 0 to 9, whose third neighbours are 2 (inside) or 3 (ends) away; generated: five among them, five far off.

    All that is generated among them lies within reach of real points: precision 1/2. Generated 4.1 to 4.5 reach 0.2 to
    0.3 far: real 4 alone is 0.1 from 4.1. The far five reach nobody. Recall 1/10.
    """
    real = torch.arange(10.0)[:, None]
    made = torch.cat([torch.linspace(4.1, 4.5, 5), torch.linspace(100, 104, 5)])[:, None]
    assert precision_recall(made, real, seed=0) == pytest.approx((0.5, 0.1))
    assert precision_recall(real, made, seed=0) == pytest.approx((0.1, 0.5))


def test_precision_and_recall_of_one_mode_and_of_one_too_many():
    left, right = drawn(60, seed=1), drawn(60, seed=2, shift=50.0)
    both = torch.cat([drawn(30, seed=3), drawn(30, seed=4, shift=50.0)])
    precision, recall = precision_recall(left, both, seed=0)  # half of what is real, is never made
    assert precision > 0.7 and 0.3 < recall <= 0.5
    precision, recall = precision_recall(both, right, seed=0)
    assert 0.3 < precision <= 0.5 and recall > 0.7


def test_precision_and_recall_take_equally_many():
    """A large reference would hold more: all that lies anywhere near it."""
    made, real = drawn(50, seed=1), drawn(2000, seed=2)
    subset = real[torch.randperm(2000, generator=torch.Generator().manual_seed(3))[:50]]
    assert precision_recall(made, real, seed=3) == pytest.approx(precision_recall(made, subset, seed=0))


def test_all_figures_are_known_to_tables_and_the_same_at_each_call():
    made, real = features(drawn(40, shift=0.5)), features(drawn(60, seed=1))
    state = torch.get_rng_state()
    found = image_figures(made, real)
    assert (found["kid"], found["kid_deviation"]) == kernel_distance(made.pooled, real.pooled, 0)
    assert (found["inception_score"], found["inception_score_deviation"]) == inception_score(made.logits, 0)
    torch.rand(1)
    assert image_figures(made, real) == found and image_figures(made, real, seed=1)["kid"] != found["kid"]
    torch.set_rng_state(state)
    report = image_report(made, real, held_out=features(drawn(40, seed=2)))
    assert torch.equal(torch.get_rng_state(), state)
    assert report.figures == found and {*report.figures, *report.floor} <= set(FIGURES)
    assert found["fid"] > 2 * report.floor["fid_floor"] and found["kid"] > 10 * abs(report.floor["kid_floor"])
    assert report.to_dict()["n"] == 40 and report.to_dict()["reference_n"] == 60
    assert f"{found['fid']:.4f}  ({report.floor['fid_floor']:.4f} for real images)" in str(report)


def test_the_sides_are_not_swapped():
    """One mode of two: what is made is real (precision), what is real is not all made (recall)."""
    both = torch.cat([drawn(100, seed=3), drawn(100, seed=4, shift=50.0)])
    found = image_figures(features(drawn(200, seed=1)), features(both))
    assert found["precision"] > 0.7 and found["recall"] < 0.6
    made = Features(drawn(40), torch.zeros(40, 10), PUBLISHED)
    assert image_figures(made, features(drawn(40, seed=1)))["inception_score"] == pytest.approx(1)  # of the samples


def test_the_floor_is_of_images_that_are_not_in_the_reference():
    pool = features(drawn(100, 30))
    halves = image_floor(50, pool)
    assert halves["fid_floor"] > 1 and halves["precision_floor"] < 1, "an image is nearest to itself"
    assert image_floor(51, pool) is None
    assert image_floor(51, pool, held_out=features(drawn(50, 30, seed=1))) is None
    other = image_floor(50, pool, held_out=features(drawn(50, 30, seed=1, shift=5.0)))
    assert other["fid_floor"] == pytest.approx(
        frechet_inception_distance(drawn(50, 30, seed=1, shift=5.0), pool.pooled), rel=1e-5
    )


def test_what_limits_the_figures_is_said():
    notes = "\n".join(limits(features(drawn(8)), features(drawn(9, seed=1), "abc")))
    assert "covariance of 8 samples" in notes and "real images is singular" not in notes
    assert "subsets of 4" in notes and "papers measure" in notes and "of 8 images a side" in notes
    assert "not the published" in "\n".join(limits(features(drawn(9), "abc"), features(drawn(9))))
    many = Features(torch.zeros(50_000, 8), torch.zeros(50_000, 1), PUBLISHED + "00")
    (note,) = limits(many, many)
    assert "of 10000 images a side" in note
    report = image_report(features(drawn(20)), features(drawn(30)))
    assert "no floor: it takes 40 real images" in report.notes[-1] and "30" in report.notes[-1]


def test_too_few_images_and_other_weights_are_refused():
    enough = features(drawn(4))
    image_figures(enough, enough)
    for pair in ((features(drawn(3)), enough), (enough, features(drawn(3)))):
        with pytest.raises(UserError, match="at least 4"):
            image_figures(*pair)
    with pytest.raises(UserError, match="different weights"):
        image_figures(enough, features(drawn(4), "other"))
