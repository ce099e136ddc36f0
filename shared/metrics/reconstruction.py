"""Introduced in task 2; used by tasks 2, 3.

Figures of reconstructions against their originals, and of sharpness. All take float images (N, C, H, W) in [-1, 1]
and raise `UserError` for other shapes and ranges.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from shared import _torchvision
from shared.errors import UserError
from shared.metrics.frechet import frechet_distance, statistics
from shared.metrics.judge import inspect, load_judge

BATCH = 100  # images at a time: SSIM holds five filtered copies of each
UPPER = 0.25  # cycles a pixel: half of the band, which ends at 0.5 along an axis


class Spectrum(NamedTuple):
    """Power of images over rings of spatial frequency, from the mean (ring 0) to the corners of the band."""

    frequency: Tensor  # (K,), cycles a pixel
    power: Tensor  # (K,), mean over the ring, the channels and the images; of white noise its variance everywhere
    count: Tensor  # (K,), how many of the H W frequencies are in the ring


def check(images: Tensor, what: str) -> None:
    """Raise `UserError`, one line, for what are no float images (N, C, H, W) in [-1, 1]."""
    if images.ndim != 4 or images.numel() == 0:
        raise UserError(f"{what} must have shape (N, C, H, W), not {tuple(images.shape)}")
    if not images.is_floating_point():
        raise UserError(f"{what} must be floating-point images in [-1, 1], not {images.dtype}")
    low, high = images.min().item(), images.max().item()
    if not (low >= -1.001 and high <= 1.001):  # in this form for NaN, too
        raise UserError(f"{what} must be in [-1, 1], not in [{low:.4g}, {high:.4g}]: clamp them, if they are outputs")


def check_originals(images: Tensor, what: str = "the originals") -> None:
    """As `check`, and refuse those that are all ≥ 0: they will be in [0, 1]. An untrained network's may be so."""
    check(images, what)
    if images.min() >= 0:
        raise UserError(f"{what} must be in [-1, 1], but none of their values is below 0: map [0, 1] by 2 x - 1 first")


def check_pair(reconstructions: Tensor, originals: Tensor) -> None:
    """Raise `UserError` if the two are no images, or not of one shape."""
    check(reconstructions, "the reconstructions")
    check_originals(originals)
    if reconstructions.shape != originals.shape:
        shapes = f"{tuple(reconstructions.shape)} and {tuple(originals.shape)}"
        raise UserError(f"reconstructions and originals must be of one shape, not {shapes}")


def psnr(reconstructions: Tensor, originals: Tensor) -> float:
    """Peak signal-to-noise ratio in dB, of each image and then averaged, as papers do; infinite if one is exact."""
    check_pair(reconstructions, originals)
    _torchvision.prepare()
    from torchmetrics.functional.image import peak_signal_noise_ratio

    pair = reconstructions.double(), originals.double()
    return peak_signal_noise_ratio(*pair, data_range=2.0, dim=(1, 2, 3)).item()


def ssim(reconstructions: Tensor, originals: Tensor) -> float:
    """Structural similarity (Wang 2004: Gaussian window of deviation 1.5, 11 pixels wide), averaged; 1 for equal ones.

    Taken of the images in [0, 1], as papers do. It is not the same in [-1, 1]: its first factor compares means, which
    about 0 may be of opposite signs. There is a window about each pixel, and at the border it sees the image reflected;
    scikit-image leaves the border out, and empty borders make the figure here the higher one.

    Raises:
        UserError: besides the above, images smaller than the window.
    """
    check_pair(reconstructions, originals)
    if min(originals.shape[2:]) < 11:
        raise UserError(f"SSIM needs images of at least 11×11, not {originals.shape[2]}×{originals.shape[3]}")
    _torchvision.prepare()
    from torchmetrics.functional.image import structural_similarity_index_measure

    total = 0.0
    for pair in zip(reconstructions.split(BATCH), originals.split(BATCH), strict=True):
        halved = [(images.double() + 1) / 2 for images in pair]
        total += structural_similarity_index_measure(*halved, data_range=1.0, reduction="sum").item()
    return total / len(originals)


@torch.no_grad()
def spectrum(images: Tensor) -> Spectrum:
    """The radially averaged power spectrum; a ring is as wide as the frequencies along the shorter side are apart.

    Parseval: the sum of power · count over the rings is the mean over images and channels of the sum of squares.
    """
    check(images, "the images")
    height, width = images.shape[2:]
    vertical, horizontal = torch.fft.fftfreq(height)[:, None], torch.fft.fftfreq(width)[None, :]  # cycles a pixel
    ring = (torch.hypot(vertical, horizontal) * min(height, width)).round().long().flatten()  # (H W,)
    count = ring.bincount()  # (K,)
    total = torch.zeros(height * width, dtype=torch.float64)
    for part in images.split(BATCH):
        power = torch.fft.fft2(part.cpu().double(), norm="ortho").abs().square()  # (B, C, H, W)
        total += power.sum(dim=(0, 1)).flatten()
    mean = total / (images.shape[0] * images.shape[1])
    power = torch.zeros(len(count), dtype=torch.float64).index_add(0, ring, mean) / count
    return Spectrum(torch.arange(len(count)) / min(height, width), power, count)


def sharpness(generated: Tensor, real: Tensor) -> float:
    """Energy in the upper half of the frequency band, over that of real images: 1 is as sharp, below is blurred.

    Above 1 there is too much: noise, or a checkerboard. The numbers of images may differ, their C, H, W may not.
    """
    check(generated, "the generated images")
    check_originals(real, "the real images")
    if generated.shape[1:] != real.shape[1:]:
        shapes = f"{tuple(generated.shape[1:])} and {tuple(real.shape[1:])}"
        raise UserError(f"sharpness compares images of one channel count and size, not of {shapes}")
    return upper_energy(spectrum(generated)) / upper_energy(spectrum(real))


def upper_energy(rings: Spectrum) -> float:
    """Energy of an image at 0.25 cycles a pixel and above."""
    upper = rings.frequency >= UPPER
    return (rings.power * rings.count)[upper].sum().item()


def reconstruction_frechet(reconstructions: Tensor, originals: Tensor) -> float:
    """Fréchet distance between the judge's features of reconstructed digits and of their originals; ≥ 0, 0 for equal.

    Digits (N, 1, 28, 28) or (N, 1, 32, 32), N ≥ 2. The floor is 0 here, not that of two draws: both are of the same
    digits. Comparable to this same figure at the same N alone.
    """
    check_pair(reconstructions, originals)
    if len(originals) < 2:
        raise UserError("a Fréchet distance needs at least 2 images, not 1")
    judge = load_judge()
    features = [inspect(judge, images.detach().float())[0] for images in (reconstructions, originals)]
    return frechet_distance(*statistics(features[0]), *statistics(features[1]))
