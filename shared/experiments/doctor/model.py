"""Introduced in task 1; used by task 1.

What the doctor looks for in latents, in a codebook, and in which weights are sampled.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from shared.experiments.doctor.finding import SURE, Checked, fine, surely, unknown

UNEVEN = 0.02  # of the deviation: what a scale measured on other images of the same data may be off
ROUNDING = 2**-9  # of a number in bfloat16, relative
PER_CODE = 20  # positions for each code, before one that is never nearest says anything


def deviation_of(z: Tensor) -> tuple[float, float]:
    """The deviation of latents (n, …) over all their elements, and its standard error, the n being independent.

    The error is the delta method's: with moments m1 and m2 of each latent, the variance is E m2 - (E m1)², whose
    influence is m2 - 2 m1 E m1.
    """
    flat = z.double().flatten(1)
    first, second = flat.mean(1), flat.square().mean(1)
    variance = (second.mean() - first.mean() ** 2).clamp(min=1e-12)
    error = (second - 2 * first * first.mean()).std() / len(flat) ** 0.5
    return variance.sqrt().item(), (error / (2 * variance.sqrt())).item()


def latents(z: Tensor, scaled: str = "overall") -> Checked:
    """Whether latents (n, Z, …), scaled as the network sees them, have the deviation 1.

    The limit is 4 standard errors beyond 2 %, both ways.

    Args:
        z: of images that are drawn independently.
        scaled: "overall", or "channels" where each channel was to have it.
    """
    name = "latents"
    if len(z) < 2:
        return unknown(name, "latents of 2 images are needed")
    parts = {"all": z} if scaled == "overall" else {f"channel {i}": z[:, i] for i in range(z.shape[1])}
    found = {which: (*deviation_of(part),) for which, part in parts.items()}
    limits = {which: UNEVEN + surely(SURE, len(z)) * error for which, (_, error) in found.items()}
    worst = max(found, key=lambda which: abs(found[which][0] - 1) / limits[which])
    (deviation, error), limit = found[worst], limits[worst]
    measured = (
        f"the deviation of the latents of {len(z)} images ({worst}) is {deviation:.3f} ± {error:.3f} "
        f"(limit: 1 ± {limit:.3f})"
    )
    if abs(deviation - 1) <= limit:
        return fine(name, measured)
    return Checked(
        name,
        "finding",
        measured,
        f"noise of deviation 1 is added to them: the signal is {20 * math.log10(max(deviation, 1e-12)):+.1f} dB from "
        "what the noise schedule means, and samples start from a noise that is not what training ended in",
        "make latents.scale deviation (or channels), which measures it on the data, and train the diffusion again",
    )


def codebook(numbers: Tensor, codes: int) -> Checked:
    """Whether codes are dead: never the nearest.

    Of a finite sample a living code may be missing by chance. How many are, is estimated from those seen once and
    twice (Chao 1984, bias-corrected: f1 (f1 - 1) / (2 (f2 + 1))); the limit is 3 Poisson deviations beyond that, which
    is 3 codes where all others are seen often.

    Args:
        numbers: of the nearest code at each position.
        codes: how many there are.
    """
    name, positions = "codebook", numbers.numel()
    if positions < PER_CODE * codes:
        return unknown(name, f"{positions} positions for {codes} codes: {PER_CODE} for each are needed, raise --n")
    counts = torch.bincount(numbers.flatten(), minlength=codes).double()
    unseen, once, twice = (int((counts == k).sum()) for k in (0, 1, 2))
    chance = once * (once - 1) / (2 * (twice + 1))
    limit = chance + 3 * math.sqrt(chance + 1)
    perplexity = torch.special.entr(counts / positions).sum().exp().item()
    measured = (
        f"{unseen} of {codes} codes are the nearest at none of {positions} positions (limit: {limit:.0f}, of which "
        f"{chance:.1f} by chance); the perplexity is {perplexity:.0f}"
    )
    if unseen <= limit:
        return fine(name, measured)
    return Checked(
        name,
        "finding",
        measured,
        "dead codes say nothing: the autoencoder has fewer words than it was given, and reconstructs less",
        "raise autoencoder.vq.revive_below, or take fewer codes (autoencoder.vq.codes) or fewer latent channels",
    )


def apart(raw: Mapping[str, Tensor], averaged: Mapping[str, Tensor]) -> float:
    """How far raw weights are from averaged ones, relative to these: the norm of all differences over theirs."""
    shared = [name for name in averaged.keys() & raw.keys() if averaged[name].is_floating_point()]
    difference = math.sqrt(sum((raw[n].double() - averaged[n].double()).square().sum().item() for n in shared))
    return difference / max(math.sqrt(sum(averaged[n].double().square().sum().item() for n in shared)), 1e-12)


def weights(used: Sequence[tuple[str, str]], distance: float | None) -> Checked:
    """Whether raw weights were sampled where averaged ones were to be had.

    What was measured both ways is a comparison, and none that was forgotten. The limit on the distance is what storing
    the weights in bfloat16 changes of them, 2^-9: below that the two are the same for sampling.

    Args:
        used: of each thing that was made of the run, what it is and which weights it used: such as
            ("evaluation of step 100", "model").
        distance: between the two, as from `apart`; None where that is not known.
    """
    name = "weights"
    if not used:
        return unknown(name, "nothing was measured or exported from this run")
    raw = sorted(
        {what for what, which in used if which == "model"} - {what for what, which in used if which != "model"}
    )
    if not raw:
        return fine(name, f"{len(used)} evaluations and exports: none is of raw weights alone")
    far = "an unknown distance" if distance is None else f"{distance:.2%}"
    measured = f"{', '.join(raw[:3])}: raw weights, {far} from the averaged ones (limit: {ROUNDING:.2%})"
    if distance is not None and distance <= ROUNDING:
        return fine(name, measured)
    return Checked(
        name,
        "finding",
        measured,
        "raw weights wander with each step's noise; their average samples markedly better for nothing",
        "sample, evaluate and export with --weights ema; a training of its own needs averages.ema near 0.999",
    )
