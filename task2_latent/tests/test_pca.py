"""Principal components against numpy, and the baseline that the autoencoder has to beat."""

import numpy as np
import pytest
import torch

from shared.datasets import DataConfig, load
from shared.datasets.ranges import to_unit
from shared.errors import UserError
from shared.metrics.reconstruction import psnr
from task2_latent import pca


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Correlated images (40, 2, 3, 4), well inside [-1, 1]."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(24, 24, dtype=torch.float64, generator=generator)
    return (torch.randn(40, 24, dtype=torch.float64, generator=generator) @ mixing / 50).view(40, 2, 3, 4)


@pytest.fixture(scope="module")
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(to_unit(load(DataConfig(name="digits", split=split)).images) for split in ("train", "test"))


def test_agrees_with_numpy(images):
    flat = images.flatten(1).numpy()
    centred = flat - flat.mean(axis=0)
    left, values, rows = np.linalg.svd(centred, full_matrices=False)
    expected = left[:, :5] * values[:5] @ rows[:5] + flat.mean(axis=0)
    found = pca.fit(images, 5).reconstruct(images)
    np.testing.assert_allclose(found.flatten(1).numpy(), expected, atol=1e-12)


def test_the_error_is_the_variance_of_what_is_left_out(images):
    for numbers in (1, 7, 20):
        fitted = pca.fit(images, numbers)
        error = (fitted.decode(fitted.encode(images)) - images).square().flatten(1).sum(dim=1).mean()
        torch.testing.assert_close(error, fitted.variances[numbers:].sum())
    covariance = np.cov(images.flatten(1).numpy().T, bias=True)
    np.testing.assert_allclose(fitted.variances.numpy(), np.linalg.eigvalsh(covariance)[::-1], atol=1e-12)


def test_numbers_are_uncorrelated_and_components_orthonormal(images):
    fitted = pca.fit(images, 6)
    numbers = fitted.encode(images)
    torch.testing.assert_close(numbers.T @ numbers / len(images), fitted.variances[:6].diag(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(fitted.components @ fitted.components.T, torch.eye(6, dtype=torch.float64))


def test_is_exact_with_as_many_numbers_as_pixels(images):
    torch.testing.assert_close(pca.fit(images, 24).reconstruct(images), images, rtol=0, atol=1e-12)


def test_asks_for_no_more_than_there_are(images):
    for numbers in (0, 25):
        with pytest.raises(UserError, match="24 principal components"):
            pca.fit(images, numbers)
    with pytest.raises(UserError, match="have 9 principal components"):
        pca.fit(images[:10], 10)


def test_reconstructions_are_images(digits):
    train, test = digits
    found = pca.fit(train[::10], 30).reconstruct(test)
    assert found.shape == test.shape and found.dtype == torch.float32 and found.abs().max() <= 1


def test_the_baseline_on_held_out_digits(digits):
    train, test = digits
    fitted = pca.fit(train, 196)
    found = []
    for numbers in (49, 98, 196):
        found.append(psnr(fitted._replace(components=fitted.components[:numbers]).reconstruct(test), test))
    assert found == pytest.approx([20.14, 23.47, 27.67], abs=0.02)
