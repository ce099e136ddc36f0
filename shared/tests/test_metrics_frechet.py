"""The Fréchet distance against closed forms and against other implementations."""

import pytest
import torch

from shared import _torchvision
from shared.metrics.frechet import frechet_distance, statistics


def spd(size: int, seed: int, rank: int | None = None) -> torch.Tensor:
    """A random positive semi-definite matrix of the given rank (full by default)."""
    rows = torch.randn(rank or 2 * size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return rows.T @ rows / len(rows)


def vector(size: int, seed: int) -> torch.Tensor:
    return torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_one_dimension_is_the_difference_of_means_and_of_deviations():
    mean_a, var_a, mean_b, var_b = (torch.tensor(v, dtype=torch.float64) for v in ([1.0], [[4.0]], [-2.0], [[9.0]]))
    assert frechet_distance(mean_a, var_a, mean_b, var_b) == pytest.approx(3**2 + (2 - 3) ** 2, rel=1e-12)


def test_diagonal_covariances_are_independent_dimensions():
    mean_a, mean_b = vector(7, 0), vector(7, 1)
    std_a, std_b = vector(7, 2).abs(), vector(7, 3).abs()
    expected = (mean_a - mean_b).square().sum() + (std_a - std_b).square().sum()
    found = frechet_distance(mean_a, std_a.square().diag(), mean_b, std_b.square().diag())
    assert found == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("size", [1, 2, 16, 128])
def test_agrees_with_scipy_sqrtm(size):
    linalg = pytest.importorskip("scipy.linalg")
    mean_a, mean_b, cov_a, cov_b = vector(size, 0), vector(size, 1), spd(size, 2), spd(size, 3)
    root = linalg.sqrtm((cov_a @ cov_b).numpy()).real
    expected = ((mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace()).item() - 2 * root.trace()
    assert frechet_distance(mean_a, cov_a, mean_b, cov_b) == pytest.approx(expected, rel=1e-9)


def test_agrees_with_torchmetrics():
    _torchvision.prepare()  # torchmetrics imports torchvision
    fid = pytest.importorskip("torchmetrics.image.fid")
    arguments = vector(32, 0), spd(32, 1), vector(32, 2), spd(32, 3)
    assert frechet_distance(*arguments) == pytest.approx(fid._compute_fid(*arguments).item(), rel=1e-9)


def test_does_not_depend_on_the_order_or_the_axes():
    mean_a, mean_b, cov_a, cov_b = vector(24, 0), vector(24, 1), spd(24, 2), spd(24, 3, rank=5)
    turn = torch.linalg.qr(spd(24, 4)).Q
    found = frechet_distance(mean_a, cov_a, mean_b, cov_b)
    assert frechet_distance(mean_b, cov_b, mean_a, cov_a) == pytest.approx(found, rel=1e-9)
    turned = frechet_distance(turn @ mean_a, turn @ cov_a @ turn.T, turn @ mean_b, turn @ cov_b @ turn.T)
    assert turned == pytest.approx(found, rel=1e-9)


@pytest.mark.parametrize("rank", [1, 20, 128, None])
def test_equal_inputs_are_at_zero_and_never_below(rank):
    mean, cov = vector(128, 0), spd(128, 1, rank)
    assert 0 <= frechet_distance(mean, cov, mean, cov) < 1e-9 * cov.trace().item()


def test_rank_deficient_covariances_keep_the_closed_form():
    """Commuting singular matrices: the distance is that of the eigenvalues' roots."""
    axes = torch.linalg.qr(spd(16, 0)).Q
    std_a, std_b = vector(16, 1).abs(), vector(16, 2).abs()
    std_a[3:9], std_b[6:12] = 0, 0
    zero, (cov_a, cov_b) = torch.zeros(16), ((axes * std.square()) @ axes.T for std in (std_a, std_b))
    expected = (std_a - std_b).square().sum().item()
    assert frechet_distance(zero, cov_a, zero, cov_b) == pytest.approx(expected, rel=1e-6)


def test_a_constant_sample_has_only_the_other_trace():
    mean, cov, zero = vector(8, 0), spd(8, 1), torch.zeros(8, 8)
    assert frechet_distance(mean, zero, mean, cov) == pytest.approx(cov.trace().item(), rel=1e-12)


def test_statistics_are_unbiased_and_in_float64():
    features = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)) + 1000
    mean, cov = statistics(features)
    assert mean.dtype == cov.dtype == torch.float64
    torch.testing.assert_close(mean, features.double().mean(dim=0))
    torch.testing.assert_close(cov, features.double().T.cov())


@pytest.mark.parametrize("shape", [(1, 4), (0, 4), (5,), (5, 4, 1)])
def test_statistics_refuse_what_has_no_covariance(shape):
    with pytest.raises(ValueError, match="two rows"):
        statistics(torch.zeros(shape))
