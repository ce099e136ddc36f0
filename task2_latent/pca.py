"""The baseline of an autoencoder: principal components, the best linear map to so many numbers and back.

Eckart & Young 1936: on the training images no other linear map leaves a smaller squared error.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from shared.errors import UserError


class PCA(NamedTuple):
    """Mean and principal components of images (C, H, W), in float64; D = C H W."""

    shape: tuple[int, int, int]
    mean: Tensor  # (D,)
    components: Tensor  # (K, D), orthonormal rows, the one of largest variance first
    variances: Tensor  # (all of them,), descending: what was seen along each direction, also along those left out

    def encode(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) to K numbers each, (N, K) in float64."""
        return (images.flatten(1).double() - self.mean) @ self.components.T

    def decode(self, numbers: Tensor) -> Tensor:
        """(N, K) to images (N, C, H, W), float64; they may leave [-1, 1]."""
        return (numbers @ self.components + self.mean).unflatten(1, self.shape)

    def reconstruct(self, images: Tensor) -> Tensor:
        """Images in [-1, 1] through the K numbers and back, clamped to [-1, 1], in the type that they came in."""
        return self.decode(self.encode(images)).clamp(-1, 1).to(images.dtype)


def fit(images: Tensor, numbers: int) -> PCA:
    """The first `numbers` principal components of training images (N, C, H, W) in [-1, 1].

    By singular values of the centred images, not by eigenvectors of their covariance, which would square the errors.

    Raises:
        UserError: there are fewer components than that.
    """
    flat = images.flatten(1).double()  # (N, D)
    most = min(len(flat) - 1, flat.shape[1])
    if not 1 <= numbers <= most:
        raise UserError(
            f"{len(flat)} images of {flat.shape[1]} pixels have {most} principal components: ask for 1 to {most}, "
            f"not {numbers}"
        )
    mean = flat.mean(dim=0)
    _, values, rows = torch.linalg.svd(flat - mean, full_matrices=False)  # (M,), (M, D)
    return PCA(tuple(images.shape[1:]), mean, rows[:numbers], values.square() / len(flat))
