"""Introduced in task 1; used by task 1.

What the doctor reads from a run's metrics.jsonl: a loss that has stopped falling, a discriminator that has won, a
loader that starves the device. Free of torch.
"""

import math
from collections.abc import Sequence
from statistics import fmean, variance

from shared.experiments.doctor.finding import Checked, fine, unknown

Lines = Sequence[dict[str, float]]
LEAST_LINES = 16  # of a curve: four in each quarter
LEAST_FALL = 0.01  # of the loss, from the second to the fourth quarter of a training
LEAST_RISE = 0.01  # of the loss, from the third quarter to the last eighth
FOOLED = 0.10  # of the patches, that a discriminator must at least misjudge
STARVED = 0.10  # of the time, that a training may wait for data
CERTAIN = 0.99  # one-sided, of Student's t: how often a value on the limit itself is still not called one beyond it


def estimate(values: Sequence[float]) -> tuple[float, float]:
    """Mean of at least two values, and its standard error."""
    return fmean(values), math.sqrt(variance(values) / len(values))


def quantile(freedom: int) -> float:
    """By how many standard errors a mean, or a difference, is surely beyond a limit. Student 1908."""
    from scipy import stats

    return float(stats.t.ppf(CERTAIN, freedom))


def of(lines: Lines, name: str) -> list[float]:
    """The values of a figure, where there are any."""
    return [line[name] for line in lines if name in line]


def falling(lines: Lines) -> Checked:
    """Whether the loss still falls, from the second to the fourth quarter of the lines, and does not rise at their end.

    A fall is denied only where the noise of the lines leaves no room for one: its upper bound, by Student's t at 99 %,
    is below 1 % of the loss. That 1 % in half of a training is not worth the other half is a judgement; the slowest of
    the trainings that are committed here falls by 2.3 %. The one figure is the loss, or, of an autoencoder, its
    reconstruction: a discriminator that joins in, or a weight that warms up, moves the sum of all terms.
    """
    name, figure = "loss", "reconstruction" if any("reconstruction" in line for line in lines) else "loss"
    values = of(lines, figure)
    if len(values) < LEAST_LINES:
        return unknown(name, f"{len(values)} lines of the {figure}, and {LEAST_LINES} are needed to tell a trend")
    quarter = len(values) // 4
    before, after = estimate(values[quarter : 2 * quarter]), estimate(values[-quarter:])
    scale = max(abs(before[0]), 1e-12)
    fall, error = (before[0] - after[0]) / scale, math.hypot(before[1], after[1]) / scale
    most = fall + quantile(2 * quarter - 2) * error  # of two samples of one size
    if up := rising(figure, lines):
        return up
    trend = "fell" if fall >= 0 else "rose"
    measured = (
        f"the {figure} {trend} by {abs(fall):.1%} ± {error:.1%} from {before[0]:.4g} in the second quarter of the "
        f"training to {after[0]:.4g} in the last (limit: a fall of {LEAST_FALL:.0%})"
    )
    if most >= LEAST_FALL:
        certain = fall - (most - fall) > 0
        return fine(name, measured) if certain else unknown(name, f"{measured}: too noisy to tell; log more lines")
    rate = of(lines, "lr")
    high = bool(rate) and fmean(rate[-quarter:]) > 0.5 * max(rate)
    first = "lower optimizer.lr, or let it fall by optimizer.schedule cosine" if high else "raise optimizer.lr"
    return Checked(
        name,
        "finding",
        measured,
        "steps that do not lower the loss cost time and teach nothing; one that stays where it began learns nothing",
        f"{first}; if the samples are as good as they need to be, stop earlier; if it never fell, look at the data "
        "and at diffusion.predict first",
    )


def rising(figure: str, lines: Lines) -> Checked | None:
    """A finding where the loss rises at the end, which whole quarters may hide: one that had fallen far before.

    The last eighth of the lines is held against the third quarter. A rise is said where its lower bound, by Student's t
    at 99 %, is above 1 %; so small a one is within what a changing learning rate may do, which is a judgement. None of
    the trainings that are committed here rises. Nothing is said of an autoencoder with an opponent, which it may begin
    to heed late.
    """
    values = of(lines, figure)
    quarter, eighth = len(values) // 4, len(values) // 8
    if eighth < LEAST_LINES // 4 or of(lines, "discriminator_loss"):
        return None
    before, after = estimate(values[2 * quarter : 3 * quarter]), estimate(values[-eighth:])
    scale = max(abs(before[0]), 1e-12)
    rise, error = (after[0] - before[0]) / scale, math.hypot(before[1], after[1]) / scale
    least = rise - quantile(min(quarter, eighth) - 1) * error  # of samples unlike in size and spread: the smaller's
    if least <= LEAST_RISE:
        return None
    return Checked(
        "loss",
        "finding",
        f"the {figure} rose by {rise:.1%} ± {error:.1%} from {before[0]:.4g} in the third quarter of the training to "
        f"{after[0]:.4g} in its last eighth (limit: {LEAST_RISE:.0%})",
        "what had been learnt is being lost, and the last checkpoint is not the best",
        "lower optimizer.lr, or let it fall by optimizer.schedule cosine; clip gradients by train.clip; go on from "
        "a checkpoint before the rise",
    )


def discriminator(lines: Lines, loss: str = "hinge") -> Checked:
    """Whether a discriminator still errs, over the later half of its lines.

    The limit is on the share of patches that it misjudges, which its loss bounds: a patch on the wrong side of 0 costs
    at least 1 in the hinge loss and ln 2 in the cross entropy, so that the mean loss over that number is the largest
    share that there can be. One that guesses has a loss of 1, or ln 2: a half of the patches wrong and a bound of all.

    Args:
        lines: of metrics.jsonl.
        loss: "hinge" or "non_saturating", as in the config.
    """
    name, values = "discriminator", of(lines, "discriminator_loss")
    if not values:
        return unknown(name, "the run has no discriminator")
    values = values[len(values) // 2 :]
    if len(values) < 2:
        return unknown(name, "it has a single line; 3 are needed")
    (mean, error), unit = estimate(values), 1.0 if loss == "hinge" else math.log(2)
    most = (mean + quantile(len(values) - 1) * error) / unit
    gap = [line["discriminator_real"] - line["discriminator_made"] for line in lines if "discriminator_made" in line]
    apart = f"; its answers to real and made patches are {gap[-1]:.2g} apart" if gap else ""
    measured = (
        f"its loss is {mean:.3g} ± {error:.1g} (guessing: {unit:.2g}), so that it misjudges at most "
        f"{mean / unit:.1%} of the patches (limit: {FOOLED:.0%}){apart}"
    )
    if most >= FOOLED:
        return fine(name, measured)
    return Checked(
        name,
        "finding",
        measured,
        "an opponent that is never wrong has no gradient left that tells the autoencoder how to improve",
        "begin later (loss.adversarial_start), lower discriminator_optimizer.lr, or make discriminator.width smaller",
    )


def loader(lines: Lines) -> Checked:
    """Whether a training waits for its data. The first line is left out: worker processes start in it.

    The share of the time that the loop stood still for data bounds what could be saved: 1 - share of the time would be
    left. That a tenth is worth a person's while is a judgement; the mean must be above it by Student's t at 99 %.
    """
    name, values = "loader", of(lines, "waiting")[1:]
    if len(values) < 3:
        few = "3 lines after the first are needed to say how long it waited for data"
        return unknown(name, f"{few}; {len(values)} do, as older trainings did not record it")
    mean, error = estimate(values)
    measured = f"{mean:.1%} ± {error:.1%} of the training's time was spent waiting for data (limit: {STARVED:.0%})"
    if mean - quantile(len(values) - 1) * error <= STARVED:
        return fine(name, measured)
    return Checked(
        name,
        "finding",
        measured,
        f"the device stands still meanwhile: with data at hand the same training takes {1 - mean:.0%} of the time",
        "raise train.workers; bring the images to their size once, by prepare-images; put the data on a local disk",
    )
