"""Introduced in task 1; used by tasks 1, 2.

The one list of figures: what a name means to a reader, which way is better, and with how many digits it is shown.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Figure:
    """How one kind of figure is read and shown."""

    label: str
    """its name in a table or on an axis, with the unit"""
    better: Literal["lower", "higher"] | None
    """which way is better; None where neither is"""
    format: str
    """Python's format for its values"""


FIGURES: dict[str, Figure] = {
    # Distances between sets of images or videos.
    "fid": Figure("FID", "lower", ".2f"),
    "kid": Figure("KID", "lower", ".4f"),
    "inception_score": Figure("Inception Score", "higher", ".2f"),
    "fvd": Figure("FVD", "lower", ".2f"),
    # The digit judge's: see `shared/metrics/judge`. The floor is the distance between two sets of real digits.
    "judge_confident": Figure("confident (≥ 0.9)", "higher", ".1%"),
    "judge_distance": Figure("judge distance", "lower", ".3f"),
    "judge_floor": Figure("judge floor", None, ".3f"),
    "judge_distance_over_floor": Figure("judge distance / floor", "lower", ".1f"),
    # Between an image and its reconstruction. MSE per dimension of images in [0, 1].
    "reconstruction_mse": Figure("reconstruction MSE", "lower", ".4f"),
    "psnr": Figure("PSNR, dB", "higher", ".2f"),
    "ssim": Figure("SSIM", "higher", ".3f"),
    "lpips": Figure("LPIPS", "lower", ".3f"),
    "st_lpips": Figure("ST-LPIPS", "lower", ".3f"),
    "sharpness": Figure("sharpness (1: as the originals)", None, ".2f"),
    "pca_psnr": Figure("PSNR of PCA with as many numbers, dB", None, ".2f"),
    "judge_reconstruction_distance": Figure("judge distance to the originals", "lower", ".3f"),
    "codebook_usage": Figure("codes used", "higher", ".1%"),
    "codebook_perplexity": Figure("codebook perplexity", "higher", ".1f"),
    "rfid": Figure("reconstruction FID", "lower", ".2f"),
    # Likelihood, the training loss, and cost.
    "bits_per_dim": Figure("bits/dim", "lower", ".2f"),
    "loss": Figure("loss", "lower", ".4f"),
    "images_per_second": Figure("training, images/s", "higher", ".0f"),
    "sampling_seconds": Figure("sampling, s", "lower", ".1f"),
}


def shown(name: str, value: float) -> str:
    """A figure's value as text, as `FIGURES` says for its name; four digits for a name that is not there."""
    figure = FIGURES.get(name)
    return format(value, figure.format if figure else ".4g")
