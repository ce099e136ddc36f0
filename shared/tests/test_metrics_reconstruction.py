"""Figures of reconstructions against closed forms, and the spectrum against what is known of noise and blur."""

import math

import pytest
import torch
import torch.nn.functional as F

from shared import _torchvision
from shared.errors import UserError
from shared.metrics import reconstruction as module
from shared.metrics.frechet import frechet_distance, statistics
from shared.metrics.judge import inspect, load_judge
from shared.metrics.reconstruction import psnr, reconstruction_frechet, sharpness, spectrum, ssim
from shared.metrics.report import real_digits


def blur(images: torch.Tensor, deviation: float) -> torch.Tensor:
    """A Gaussian blur by so many pixels."""
    _torchvision.prepare()
    from torchvision.transforms.functional import gaussian_blur

    return gaussian_blur(images, 9, [deviation, deviation])


@pytest.fixture(scope="module")
def digits() -> torch.Tensor:
    return real_digits()[::25]  # (200, 1, 28, 28)


def noise(*shape: int, deviation: float = 0.2) -> torch.Tensor:
    return (deviation * torch.randn(shape, generator=torch.Generator().manual_seed(0))).clamp(-1, 1)


def test_psnr_in_closed_form():
    original = torch.full((2, 3, 16, 16), -0.5)
    assert psnr(original + 0.2, original) == pytest.approx(10 * math.log10(2**2 / 0.2**2), rel=1e-6)
    mixed = original + torch.tensor([0.2, 0.02]).view(2, 1, 1, 1)  # of each image: 20 dB apart, 10 from the mean
    assert psnr(mixed, original) == pytest.approx(10 * math.log10(2**2 / 0.2**2) + 10, rel=1e-5)
    assert psnr(original, original) == math.inf


def test_ssim_in_closed_form(digits):
    assert ssim(digits, digits) == pytest.approx(1)
    low, high = torch.full((2, 1, 28, 28), -0.6), torch.full((2, 1, 28, 28), 0.2)  # 0.2 and 0.6 in [0, 1]
    assert ssim(high, low) == pytest.approx((2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4), rel=1e-5)


def test_ssim_agrees_with_its_definition(digits):
    """Wang 2004, eq. (13), written out: a window about each pixel, the image reflected at its border."""
    side = torch.exp(-(torch.arange(-5, 6).double() ** 2) / (2 * 1.5**2))
    weights = (side[:, None] * side / side.sum() ** 2).view(121, 1)
    padded = [F.pad((image.double() + 1) / 2, (5, 5, 5, 5), "reflect") for image in (digits[:1], blur(digits[:1], 1.0))]
    x, y = (F.unfold(image, 11)[0] for image in padded)  # (121, 28 · 28)
    mean_x, mean_y = (weights * x).sum(0), (weights * y).sum(0)
    var_x, var_y = (weights * (x - mean_x) ** 2).sum(0), (weights * (y - mean_y) ** 2).sum(0)
    covariance = (weights * (x - mean_x) * (y - mean_y)).sum(0)
    means = (2 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2)
    structure = (2 * covariance + 0.03**2) / (var_x + var_y + 0.03**2)
    assert ssim(blur(digits[:1], 1.0), digits[:1]) == pytest.approx((means * structure).mean().item(), abs=1e-9)


def test_figures_do_not_depend_on_the_batch(digits, monkeypatch):
    blurred = blur(digits, 0.7)
    expected = ssim(blurred, digits), sharpness(blurred, digits)
    monkeypatch.setattr(module, "BATCH", 7)
    assert (ssim(blurred, digits), sharpness(blurred, digits)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("shape", [(5, 3, 16, 16), (4, 1, 15, 20), (2, 1, 28, 28)])
def test_spectrum_keeps_the_energy(shape):
    images = noise(*shape)
    rings = spectrum(images)
    assert rings.count.sum() == shape[2] * shape[3]
    energy = images.double().square().sum(dim=(2, 3)).mean()
    assert (rings.power * rings.count).sum().item() == pytest.approx(energy.item(), rel=1e-12)


def test_spectrum_of_white_noise_is_flat_at_its_variance():
    rings = spectrum(noise(400, 1, 28, 28))
    error = 4 * 0.04 / (rings.count * 400).double().sqrt()  # four deviations: a power's is 1 or 1.4 times its mean
    assert ((rings.power - 0.04).abs() < 1.5 * error).all()


def test_spectrum_of_a_wave_is_one_ring():
    wave = torch.cos(2 * math.pi * 7 / 28 * torch.arange(28)).expand(1, 1, 28, 28) * 0.5
    rings = spectrum(wave)
    assert rings.power.argmax() == 7 and rings.frequency[7] == 0.25
    assert rings.power[7].item() * rings.count[7].item() == pytest.approx(0.5**2 / 2 * 28 * 28)
    assert rings.power.sum() - rings.power[7] == pytest.approx(0, abs=1e-6)


def test_sharpness_falls_with_blur_and_rises_with_noise(digits):
    assert sharpness(digits, digits) == 1
    blurs = [sharpness(blur(digits, s), digits) for s in (0.4, 0.6, 0.8, 1.2, 2.0)]
    assert all(after < before < 1 for before, after in zip(blurs, blurs[1:], strict=False)) and blurs[-1] < 0.01
    assert sharpness((digits + noise(*digits.shape)).clamp(-1, 1), digits) > 1.05
    half = sharpness(digits[::2], digits[1::2])  # real against real, other digits
    assert half == pytest.approx(1, abs=0.15)


def test_sharpness_of_half_the_contrast_is_a_quarter(digits):
    assert sharpness(digits / 2, digits) == pytest.approx(0.25, rel=1e-6)


def test_reconstruction_frechet_is_that_of_the_judges_features(digits):
    blurred = blur(digits, 1.0)
    features = [inspect(load_judge(), images)[0] for images in (blurred, digits)]
    expected = frechet_distance(*statistics(features[0]), *statistics(features[1]))
    assert reconstruction_frechet(blurred, digits) == pytest.approx(expected, rel=1e-12)
    mild = reconstruction_frechet(blur(digits, 0.6), digits)
    assert reconstruction_frechet(digits, digits) == pytest.approx(0, abs=1e-6) and 0 < mild < expected


@pytest.mark.parametrize("figure", [psnr, ssim, sharpness, reconstruction_frechet])
def test_what_is_no_image_in_range_is_one_line(figure, digits):
    broken = digits.clone()
    broken[0, 0, 0, 0] = math.nan
    cases = [
        (digits[0], digits[0], "shape"),
        (digits[:0], digits[:0], "shape"),
        ((digits * 127).to(torch.int8), digits, "floating"),
        (digits * 1.5, digits, "not in"),
        (broken, digits, "nan"),
        (digits, digits * 127, "not in"),
        ((digits + 1) / 2, (digits + 1) / 2, "map"),
        (digits[..., :20], digits, "one channel count and size" if figure is sharpness else "one shape"),
    ]
    for reconstructions, originals, words in cases:
        with pytest.raises(UserError, match=words) as error:
            figure(reconstructions, originals)
        assert "\n" not in str(error.value)


def test_too_few_or_too_small(digits):
    with pytest.raises(UserError, match="at least 2 images"):
        reconstruction_frechet(digits[:1], digits[:1])
    with pytest.raises(UserError, match="11×11"):
        ssim(digits[..., :8, :8], digits[..., :8, :8])
