"""Introduced in task 1; used by task 1.

What the doctor looks for in how a network denoises: a condition that it ignores, a schedule that it was not trained on.

All are asked at the same pictures with the same noise, so that of two ways the difference is far more certain than
either error.
"""

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import replace
from statistics import fmean

import torch
from torch import Tensor

from shared.experiments.doctor.examined import BATCH, Cond, Examined
from shared.experiments.doctor.finding import SURE, Checked, fine, surely, unknown
from shared.schedulers.config import NoiseConfig
from shared.schedulers.diffusion import Diffusion
from shared.schedulers.noise import NoiseSchedule

NOISE = (0.5, 1.0, 2.0, 4.0)  # over signal: levels that all schedules pass through
HIGH = (1.0, 2.0, 4.0)  # where the condition has most to say
WEAK = 1.1  # the best guidance scale on the data, at most
CLOCKS = (0.5, 0.8, 0.9, 1.1, 1.25, 2.0)  # factors of the time that a network is told
LEAST = 8  # samples, to tell anything
MOST = 96  # samples on which the ways are tried: what costs time
BETTER = 0.005  # of the error: that another way has to save before it is said
UNLEARNT = 0.02  # of the error: the same for a network that denoises no better than a linear filter
COVARIED = 96  # pictures of which that filter is made: of more it is better than many a network that is committed
OTHERS = 4.5  # standard errors: some thirty ways are tried, so that chance has thirty times to win


@functools.lru_cache(maxsize=256)
def time_at(schedule: NoiseSchedule, ratio: float) -> float | None:
    """The time in (0, T] at which there is `ratio` times as much noise as signal, by bisection; None if it is never."""
    low, high = 0.0, float(schedule.T)
    alpha, sigma = schedule.level(high)
    if sigma < ratio * alpha:
        return None
    for _ in range(40):
        middle = (low + high) / 2
        alpha, sigma = schedule.level(middle)
        low, high = (middle, high) if sigma < ratio * alpha else (low, middle)
    return high


@torch.no_grad()
def answers(found: Examined, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
    """The network's output at (x, t), some at a time."""
    parts = [slice(first, first + BATCH) for first in range(0, len(x), BATCH)]
    return torch.cat([found.network(x[p], t[p], {k: v[p] for k, v in cond.items()}).float() for p in parts])


def noised(found: Examined, seed: int, diffusion: Diffusion, ratios: tuple[float, ...]) -> Iterator[tuple[Tensor, ...]]:
    """At each level of noise: times (n,), noise and noisy data of x0's shape; of all diffusions the same noise."""
    for ratio in ratios:
        eps = torch.randn(found.x0.shape, generator=torch.Generator().manual_seed(seed))
        t = time_at(diffusion.schedule, ratio)
        if t is not None:
            times = torch.full((len(eps),), t, dtype=torch.float32)
            yield times, eps, diffusion.add_noise(found.x0, eps, times)
        seed += 1


# --- a condition --------------------------------------------------------------------------------------------------


def turned(cond: Cond) -> Cond:
    """Every sample is told what is said of the one before it."""
    return {name: value.roll(1, 0) for name, value in cond.items()}


def condition(found: Examined, seed: int = 0) -> Checked:
    """Whether a network denoises better for being told the truth, and as much better as it should.

    It is asked with the data's own conditions and with those of other samples. The error must be lower for the first by
    4 standard errors of the paired difference, of n samples. Where it can also be told nothing, let d be the output
    told the truth less that told nothing; the guidance scale that fits the data best is <target - nothing, d> / <d, d>,
    a regression, and 1 for a network that believes its condition as much as it should: 2 says that it believes half.
    The limit is 4 standard errors beyond 1.1.
    """
    name, diffusion = "condition", found.diffusion
    if len(found.x0) < LEAST:
        return unknown(name, f"{len(found.x0)} samples of the data: {LEAST} are needed")
    other = turned(found.cond)
    if all(torch.equal(value, other[key]) for key, value in found.cond.items()):
        return unknown(name, "the same is said of all samples: nothing else can be told")
    sure = surely(SURE, len(found.x0))
    gain, moved, told = torch.zeros(len(found.x0)), 0.0, 0.0
    along = across = torch.zeros(len(found.x0))
    for t, eps, xt in noised(found, seed, diffusion, HIGH):
        target = diffusion.target(found.x0, eps, t)
        true, false = (diffusion.predicted(answers(found, xt, t, cond)) for cond in (found.cond, other))
        gain = gain + ((false - target).square() - (true - target).square()).flatten(1).mean(1)
        moved, told = moved + (false - true).square().sum().item(), told + true.square().sum().item()
        if found.null:
            nothing = diffusion.predicted(answers(found, xt, t, found.null(found.cond)))
            along = along + ((target - nothing) * (true - nothing)).flatten(1).sum(1)
            across = across + (true - nothing).square().flatten(1).sum(1)
    changes = f"another condition changes the network's answer by {(moved / max(told, 1e-12)) ** 0.5:.2%}"
    certain = gain.mean().item() / max((gain.std() / len(gain) ** 0.5).item(), 1e-12)
    measured = f"{changes}; told the truth it errs less by {certain:.1f} standard errors (limit: {sure:.1f})"
    if certain < sure:
        return ignored(measured)
    if not found.null or not across.sum() > 0:
        return fine(name, measured)
    best = (along.sum() / across.sum()).item()
    error = ((along - best * across).std() * len(along) ** 0.5 / across.sum()).item()
    measured += (
        f"; the guidance scale that fits the data best is {best:.2f} ± {error:.2f} (limit: {WEAK + sure * error:.2f})"
    )
    return ignored(measured) if best > WEAK + sure * error else fine(name, measured)


def ignored(measured: str) -> Checked:
    """A condition that counts for nothing, or for too little."""
    return Checked(
        "condition",
        "finding",
        measured,
        "guidance multiplies the difference that a condition makes: where there is none it changes nothing, and "
        "samples are whatever they are",
        "check that the condition reaches the network and belongs to its sample; lower condition.dropout; make "
        "condition.label adaptive rather than vanilla; train longer",
    )


# --- the schedule -------------------------------------------------------------------------------------------------


def ways(noise: NoiseConfig, diffusion: Diffusion) -> Iterator[tuple[str, Diffusion, float]]:
    """The stated way to denoise, then others: in words, the diffusion, and a factor of the time that is told."""
    yield "as stated", diffusion, 1.0
    for clock in CLOCKS:
        yield f"T {diffusion.schedule.T * clock:.0f} rather than {diffusion.schedule.T}", diffusion, clock
    for name in ("linear", "quadratic", "cosine", "sigmoid", "sigmoid_alpha_bar", "flow"):
        table = diffusion.schedule if name == noise.name else NoiseSchedule.from_config(NoiseConfig(name, noise.T))
        for predict in ("eps", "x0", "v", "velocity"):
            if (name, predict) == (noise.name, diffusion.config.predict):
                continue
            with contextlib.suppress(ValueError):  # these two do not go together
                made = type(diffusion)(table, replace(diffusion.config, predict=predict))
                yield f"schedule {name}, predict {predict}", made, 1.0


def errors(
    found: Examined, diffusion: Diffusion, clock: float, seed: int, known: dict[tuple, Tensor]
) -> dict[float, Tensor]:
    """The squared error of each clean picture (n,), by the level of noise. `known` keeps what the network answered."""
    each = {}
    for level, ratio in enumerate(NOISE):
        for t, _, xt in noised(found, seed + level, diffusion, (ratio,)):
            scale = diffusion.schedule.level(t[0])[0].item()
            key = (ratio, round(t[0].item() * clock, 3), round(scale, 4))
            if key not in known:
                known[key] = answers(found, xt, t * clock, found.cond)
            x0 = diffusion.interpret(known[key].to(xt.dtype), xt, t).x0
            each[ratio] = (x0 - found.x0).square().flatten(1).mean(1)
    return each


def linear(x0: Tensor, ratio: float, seed: int) -> float:
    """The squared error of a linear guess of pictures x0 (n, …) at `ratio` times as much noise as signal.

    It is Wiener's filter, by mean and covariance of three quarters of the pictures, asked about the other quarter: with
    these as rows A, their mean taken off, the guess of y is A' (A A' + m ratio² I)^-1 A y of m pictures.
    """
    flat = x0[:COVARIED].double().flatten(1)
    noise = torch.randn(flat.shape, generator=torch.Generator().manual_seed(seed)).double()
    asked = len(flat) // 4
    mean = flat[asked:].mean(0)
    rows, clean = flat[asked:] - mean, flat[:asked] - mean
    gram = rows @ rows.T + len(rows) * ratio**2 * torch.eye(len(rows), dtype=rows.dtype)
    guess = torch.linalg.solve(gram, rows @ (clean + ratio * noise[:asked]).T).T @ rows
    return (guess - clean).square().mean().item()


def schedule(found: Examined, seed: int = 0) -> Checked:
    """Whether a network denoises best by the schedule, the number of levels and the prediction that are stated for it.

    At noise of four levels that all schedules pass through, clean pictures are taken from its answers by each way; the
    errors of each level count relative to those of the stated way. Another way is found to be the trained one where it
    saves 4.5 standard errors of the paired difference, as some thirty are tried, and 0.5 % of the error: cosine and
    sigmoid_alpha_bar are so alike that a network trained on one is 0.2 % worse on the other.

    A network that has learnt little is not best by what it was trained with: told of less noise it may err 6 % less.
    So nothing is said of one that no way makes better than `linear`; else another way has to save 2 % times the error
    that it leaves, relative to that.
    """
    name, known = "schedule", {}
    if len(found.x0) < LEAST:
        return unknown(name, f"{len(found.x0)} samples of the data: {LEAST} are needed")
    simple = {ratio: max(linear(found.x0, ratio, seed), 1e-12) for ratio in NOISE}
    most = max(LEAST, MOST // found.cost)
    found = replace(found, x0=found.x0[:most], cond={key: value[:most] for key, value in found.cond.items()})
    tried, best, stated = 0, None, None
    for words, diffusion, clock in ways(found.config.schedule, found.diffusion):
        each = errors(found, diffusion, clock, seed, known)
        stated = stated or each
        levels = sorted(stated.keys() & each.keys())
        if not levels:
            continue
        saved = torch.stack([(stated[r] - each[r]) / stated[r].mean() for r in levels]).mean(0)  # (n,)
        left = fmean(each[r].mean().item() / simple[r] for r in levels)
        way = saved.mean().item(), (saved.std() / len(saved) ** 0.5).item(), left, words
        tried += 1
        if tried > 1 and (best is None or way > best):
            best = way
    share, error, left, words = best
    if left >= 1:
        reason = f"by the best of {tried} ways to read the network its error is {left:.0%} of that of a linear filter"
        return unknown(name, f"{reason}: it has not learnt this data yet, and nothing can be told")
    limit = max(BETTER, UNLEARNT * left, surely(OTHERS, len(found.x0)) * error)
    trained = found.config.schedule
    about = f"schedule {trained.name}, T {trained.T}, predict {found.diffusion.config.predict}"
    measured = (
        f"of {tried} ways to read the network, the nearest to the stated one ({about}) is {words}, whose error is "
        f"{-share:+.1%} ± {error:.1%} (limit: {-limit:+.1%})"
    )
    if share <= limit:
        return fine(name, measured)
    return Checked(
        name,
        "finding",
        measured,
        "a sampler that believes another schedule takes away the wrong amount of noise at each step: samples stay "
        "noisy, grey, or saturate",
        f"sample with what the network was trained with: {words}; mend the config of the checkpoint, or train again",
    )
