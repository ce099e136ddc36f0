"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

The Fréchet distance between two Gaussians, and the mean and covariance that it takes.
"""

import torch
from torch import Tensor


def statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and unbiased covariance (D, D), in float64, of features (N, D); N ≥ 2.

    With N ≤ D the covariance is singular; `frechet_distance` takes it all the same.
    Raises `ValueError` for fewer than two rows.
    """
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"statistics need at least two rows of features, not shape {tuple(features.shape)}")
    features = features.double()
    mean = features.mean(dim=0)  # (D,)
    centred = features - mean  # (N, D)
    return mean, centred.T @ centred / (len(features) - 1)  # (D,), (D, D)


def frechet_distance(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """Squared Fréchet (2-Wasserstein) distance of two Gaussians; means (D,), covariances (D, D); ≥ 0.

    |mean_a - mean_b|² + Tr(A + B - 2 (A B)^(1/2)): Heusel et al. 2017 (arXiv 1706.08500), eq. (6).

    A B is not symmetric, and its square root loses digits or turns complex when A is near singular. With
    R and S the symmetric roots of A and B, Tr (A B)^(1/2) is the sum of the singular values of R S: real,
    defined for singular matrices too, and computed without squaring any small number away.
    """
    mean_a, cov_a, mean_b, cov_b = (value.double() for value in (mean_a, cov_a, mean_b, cov_b))
    overlap = torch.linalg.svdvals(symmetric_root(cov_a) @ symmetric_root(cov_b)).sum()
    distance = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * overlap
    return max(distance.item(), 0.0)  # equal inputs leave ±1e-13 of the trace


def symmetric_root(matrix: Tensor) -> Tensor:
    """The symmetric root of a positive semi-definite matrix (D, D); rounding below zero counts as zero."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T
