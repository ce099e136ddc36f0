"""The figures of edited pictures: control, super-resolution, inpainting, moving pictures. They take plain tensors."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from shared.datasets.ranges import to_uint8, to_unit
from shared.metrics.edges import SeamScore, consistency_rmse, edge_f1, seam_ratio, seam_score
from shared.metrics.judge import inspect, load_judge
from shared.metrics.loops import seam
from shared.metrics.reconstruction import psnr
from shared.metrics.report import check
from task3_conditional.inpainting import mean_filled
from task3_conditional.super_resolution import bicubic

Edges = Callable[[Tensor], Tensor]  # images (N, 1, H, W) in [-1, 1] -> their edges, bool (N, 1, H, W)
Figures = dict[str, float | None]


def right(images: Tensor, labels: Tensor) -> Tensor:
    """Which digits (N, 1, H, W) the judge reads as what they should be, bool (N,).

    Raises:
        UserError: the judge cannot take them.
    """
    check(images)
    return inspect(load_judge(), images.float())[1].argmax(dim=1) == labels


def agreement(images: Tensor, labels: Tensor) -> float:
    """The share of those, without the distances of `judge_labelled`."""
    return right(images, labels).double().mean().item()


def control_figures(
    samples: Tensor, base: Tensor, real: Tensor, labels: Tensor, edges: Edges, tolerance: int = 1
) -> Figures:
    """How well samples keep to edges, and whether they still are of their class.

    The ceiling is what the real digits themselves reach whose edges were the hints, after the same way: as an image of
    256 shades, and its edges found again. It is below 1 only where that loses something. The floor is what other real
    digits reach, of the same class where there is one: edges that were not asked for.

    Args:
        samples: (N, 1, H, W) in [-1, 1], each drawn by the edges of one of the real digits.
        base: as many of the base alone, of the same classes.
        real: those real digits.
        labels: (N,).
        edges: what the hints were made with.
        tolerance: in pixels.
    """
    hints = edges(real)
    score = edge_f1(edges(samples), hints, tolerance)
    ceiling = edge_f1(edges(to_unit(to_uint8(real))), hints, tolerance).f1
    return {
        "edge_f1": score.f1,
        "edge_precision": score.precision,
        "edge_recall": score.recall,
        "edge_f1_ceiling": ceiling,
        "edge_f1_floor": edge_f1(edges(real[others(labels)]), hints, tolerance).f1,
        "edge_f1_of_ceiling": score.f1 / ceiling if ceiling else None,
        "judge_agreement": agreement(samples, labels),
        "judge_agreement_base": agreement(base, labels),
    }


def others(labels: Tensor) -> Tensor:
    """For each of labels (N,) the number of the next one of the same class, around; its own where it is alone."""
    found = torch.arange(len(labels))
    for label in labels.unique():
        own = (labels == label).nonzero()[:, 0]
        found[own] = own.roll(-1)
    return found


def super_resolution_figures(samples: Tensor, real: Tensor, low: Tensor, labels: Tensor) -> Figures:
    """Enlarged digits (N, 1, H, W) against the real ones, beside bicubic enlargement of the small ones (N, 1, h, w)."""
    plainly = bicubic(low, real.shape[-1] // low.shape[-1])
    ours, plain = psnr(samples, real), psnr(plainly, real)
    return {
        "psnr": ours,
        "psnr_bicubic": plain,
        "psnr_gain": ours - plain,
        "judge_agreement": agreement(samples, labels),
        "judge_agreement_bicubic": agreement(plainly, labels),
        "judge_agreement_real": agreement(real, labels),
        "consistency_rmse": consistency_rmse(samples, low),
    }


def inpainting_figures(samples: Tensor, real: Tensor, mask: Tensor, labels: Tensor) -> dict[str, float | bool | None]:
    """Digits (N, 1, H, W) of which a part was painted, against the class of the whole, beside filling with the mean.

    `mask` is bool (N or 1, 1, H, W), true where the pixel is known. The mean is that of the known pixels of each image.
    """
    known = mask.expand_as(real)
    ours, plain = agreement(samples, labels), agreement(mean_filled(real, mask), labels)
    return {
        "judge_agreement": ours,
        "judge_agreement_mean": plain,
        "judge_agreement_over_mean": ours / plain if plain else None,
        "judge_agreement_real": agreement(real, labels),
        "known_unchanged": torch.equal(samples[known], real[known]),
        "seam_ratio": seam_ratio(samples, mask),
        "seam_ratio_real": seam_ratio(real, mask),
    }


def animation_figures(
    clip: Tensor, canvases: list[Tensor], pieces: list[Tensor], joined: Sequence[int]
) -> dict[str, float | bool | None]:
    """How a film (1, C, F, H, W) closes, and whether what it was cut from shows where it was painted.

    "loop_ratio" is the step from the last frame to the first over the median of the others. As a film can be cut where
    it hardly moves, "worst_step" is the largest step of the whole ring over the median: a jump anywhere shows there.
    "seam_…" are those of `seam_score`: of several canvases the means, and "seam_visible" is
    the share of those in which it is.

    Args:
        clip: as it was written.
        canvases: each (1, C, height, width): one for a pan or the circle, all that are nested for a zoom.
        pieces: what was painted at once in each, (height, width) or (1, 1, height, width), as `seam_ratio` takes it.
        joined: axes of the canvases whose ends touch.
    """
    steps = (clip.roll(-1, 2) - clip).double().abs().mean(dim=(0, 1, 3, 4))
    middle = steps.median().item()
    scores = [seam_score(canvas, own, joined) for canvas, own in zip(canvases, pieces, strict=True)]
    scores = [score for score in scores if score is not None]

    def mean(name: str) -> float | None:
        """Over the canvases that have such a figure."""
        values = [value for score in scores if (value := getattr(score, name)) is not None]
        return sum(values) / len(values) if values else None

    return {
        "loop_ratio": seam(clip).ratio,
        "worst_step": steps.max().item() / middle if middle else None,
        **{f"seam_{name}": mean(name) for name in SeamScore._fields},
        "seam_visible": mean("visible"),
    }
