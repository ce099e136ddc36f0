"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

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
    # A floor is the same figure of as many real images; a deviation is over KID's subsets, and over the score's splits.
    "fid": Figure("FID", "lower", ".2f"),
    "fid_floor": Figure("FID of real images", None, ".2f"),
    "kid": Figure("KID", "lower", ".4f"),
    "kid_deviation": Figure("KID, deviation", None, ".4f"),
    "kid_floor": Figure("KID of real images", None, ".4f"),
    "kid_deviation_floor": Figure("KID of real images, deviation", None, ".4f"),
    "inception_score": Figure("Inception Score", "higher", ".2f"),
    "inception_score_deviation": Figure("Inception Score, deviation", None, ".2f"),
    "inception_score_floor": Figure("Inception Score of real images", None, ".2f"),
    "inception_score_deviation_floor": Figure("Inception Score of real images, deviation", None, ".2f"),
    "precision": Figure("precision", "higher", ".3f"),
    "precision_floor": Figure("precision of real images", None, ".3f"),
    "recall": Figure("recall", "higher", ".3f"),
    "recall_floor": Figure("recall of real images", None, ".3f"),
    "fvd": Figure("FVD", "lower", ".2f"),
    # The digit judge's: see `shared/metrics/judge`. The floor is the distance between two sets of real digits.
    "judge_confident": Figure("confident (≥ 0.9)", "higher", ".1%"),
    "judge_distance": Figure("judge distance", "lower", ".3f"),
    "judge_floor": Figure("judge floor", None, ".3f"),
    "judge_distance_over_floor": Figure("judge distance / floor", "lower", ".1f"),
    # Whether a sample is what was asked for. Of scenes: digit, colour and place of every digit in it are right.
    "judge_agreement": Figure("judge agrees with the class", "higher", ".1%"),
    "followed_one": Figure("captions followed, one digit", "higher", ".1%"),
    "followed_one_zh": Figure("captions followed, one digit, Chinese", "higher", ".1%"),
    "followed_one_real": Figure("captions followed by real scenes, one digit", None, ".1%"),
    "followed_two": Figure("captions followed, two digits", "higher", ".1%"),
    "followed_two_zh": Figure("captions followed, two digits, Chinese", "higher", ".1%"),
    "followed_two_real": Figure("captions followed by real scenes, two digits", None, ".1%"),
    "followed_two_alike": Figure("captions followed, two of the same", "higher", ".1%"),
    "followed_two_alike_zh": Figure("captions followed, two of the same, Chinese", "higher", ".1%"),
    "followed_two_alike_real": Figure("captions followed by real scenes, two of the same", None, ".1%"),
    "retrieval_top1": Figure("picture found from its text", "higher", ".1%"),
    "retrieval_top1_zh": Figure("picture found from its Chinese text", "higher", ".1%"),
    "retrieval_top5": Figure("picture among the nearest five", "higher", ".1%"),
    "retrieval_top5_zh": Figure("picture among the nearest five, Chinese", "higher", ".1%"),
    # Clips of moving digits, as a share of what real ones reach on the same measure: see `shared/metrics/video`.
    "video_measured": Figure("digits apart long enough to be measured / real", None, ".1%"),
    "video_identity": Figure("one digit all along / real", "higher", ".1%"),
    "video_confident": Figure("frames confident (≥ 0.9) / real", "higher", ".1%"),
    "video_agreement": Figure("digit asked for / real", "higher", ".1%"),
    "video_moving": Figure("clips that move / real", "higher", ".1%"),
    "video_speed_right": Figure("speed within ±20 % / real", "higher", ".1%"),
    "video_constant": Figure("constant velocity between bounces / real", "higher", ".1%"),
    "video_speed": Figure("median speed, pixels a frame", None, ".2f"),
    "video_distance": Figure("Fréchet video distance, judge of clips", "lower", ".2f"),
    "video_floor": Figure("its floor", None, ".2f"),
    "video_distance_over_floor": Figure("Fréchet video distance / floor", "lower", ".1f"),
    "video_place_error": Figure("off the real place, pixels", "lower", ".2f"),
    "video_seam": Figure("last to first frame / consecutive frames", "lower", ".2f"),
    # Of edited pictures: see `shared/metrics/edges`. The ceiling is of the real digits whose edges were asked for.
    "edge_f1": Figure("edge F1, within a pixel", "higher", ".3f"),
    "edge_precision": Figure("edge precision", "higher", ".3f"),
    "edge_recall": Figure("edge recall", "higher", ".3f"),
    "edge_f1_ceiling": Figure("edge F1 of the real digits", None, ".3f"),
    "edge_f1_floor": Figure("edge F1 of other real digits", None, ".3f"),
    "edge_f1_of_ceiling": Figure("edge F1 / real digits", "higher", ".1%"),
    "judge_agreement_base": Figure("judge agrees, base alone", None, ".1%"),
    "judge_agreement_bicubic": Figure("judge agrees, bicubic", None, ".1%"),
    "judge_agreement_mean": Figure("judge agrees, filled with the mean", None, ".1%"),
    "judge_agreement_real": Figure("judge agrees, real digits", None, ".1%"),
    "judge_agreement_over_mean": Figure("judge agrees / filled with the mean", "higher", ".1f"),
    "psnr_bicubic": Figure("PSNR of bicubic, dB", None, ".2f"),
    "psnr_gain": Figure("PSNR over bicubic, dB", "higher", ".2f"),
    "consistency_rmse": Figure("averaged back down, RMSE", "lower", ".5f"),
    "known_unchanged": Figure("known pixels unchanged", "higher", ".0f"),
    "seam_ratio": Figure("gradient across seams / elsewhere", "lower", ".2f"),
    "seam_ratio_real": Figure("gradient across seams / elsewhere, real", None, ".2f"),
    "loop_ratio": Figure("last to first frame / median step", "lower", ".2f"),
    "worst_step": Figure("largest step / median step", "lower", ".2f"),
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
    "bits_per_dim": Figure("bits/dim", "lower", ".3f"),
    "bits_per_dim_error": Figure("bits/dim, standard error", None, ".3f"),
    "bits_first": Figure("bits/dim of the last step, the levels", None, ".3f"),
    "bits_between": Figure("bits/dim of the steps between", None, ".3f"),
    "bits_prior": Figure("bits/dim of what is left at T", None, ".2g"),
    "bits_flow": Figure("bits/dim of the flow", None, ".3f"),
    "loss": Figure("loss", "lower", ".4f"),
    "images_per_second": Figure("training, images/s", "higher", ".0f"),
    "waiting": Figure("training, time waiting for data", "lower", ".1%"),
    "sampling_seconds": Figure("sampling, s", "lower", ".1f"),
    "evaluation_seconds": Figure("sampling and measuring, s", "lower", ".1f"),
}


def shown(name: str, value: float) -> str:
    """A figure's value as text, as `FIGURES` says for its name; four digits for a name that is not there."""
    figure = FIGURES.get(name)
    return format(value, figure.format if figure else ".4g")
