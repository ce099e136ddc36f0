"""Introduced in task 5; used by task 5.

Figures of generated clips of moving digits, each beside what real clips reach on the same measure at the same n.

Every digit is found and followed (`tracking.py`), its crop is read by the judge of digits, and shares are counted
(`video_figures.py`). A Fréchet distance of the features of the judge of clips (`video_judge.py`) says how far the whole
distribution is from that of real clips.
"""

import functools
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from shared.datasets.video import load_video
from shared.datasets.video_config import VideoConfig
from shared.errors import UserError
from shared.metrics.frechet import frechet_distance, statistics
from shared.metrics.report import Floor
from shared.metrics.tracking import check_clips
from shared.metrics.video_figures import VideoFigures, Window, measure, windows
from shared.metrics.video_judge import FEATURES, FRAMES, SIDE, video_features

POOL, DRAWS = 2000, 10  # real clips of the reference, and draws of n of which the floor is the mean
PART = 200  # clips that are drawn at once
SHARES = ("measured", "identity", "confident", "moving", "speed_right", "constant", "agreement")
CAVEAT = (
    "Comparable to these same figures at the same n, size and number of frames alone: the distance takes the features "
    "of a small judge of moving digits, so it is no FVD of I3D's features, and does not stand beside a paper's."
)


@dataclass(frozen=True)
class VideoReport:
    """Figures of n generated clips beside those of n real ones; `to_dict` is for JSON, `str` for people."""

    n: int
    frames: int
    size: int
    digits: int
    generated: VideoFigures
    real: VideoFigures
    distance: float | None  # Fréchet distance to real clips, in the features of the judge of clips
    floor: float | None  # the same for n real clips, mean of 10 draws
    floor_deviation: float | None  # standard deviation of those draws
    ratio: float | None  # distance / floor
    notes: list[str]  # what limits these figures, if anything does

    @property
    def of_real(self) -> dict[str, float]:
        """Each share as a share of what real clips reach."""
        return {name: of(getattr(self.generated, name), getattr(self.real, name)) for name in self._shown()}

    def _shown(self) -> list[str]:
        return [name for name in SHARES if getattr(self.generated, name) is not None]

    def to_dict(self) -> dict[str, Any]:
        """All figures, what they were measured by, and the sentence they must not be shown without."""
        made_by = {
            "extractor": "shared.metrics video_judge",
            "reference": f"{POOL} clips of the held-out digits; the floor is of clips of the training digits",
        }
        return asdict(self) | {"of_real": self.of_real} | made_by | {"caveat": CAVEAT}

    def __str__(self) -> str:
        lines = [f"moving digits, n = {self.n}, {self.frames} frames of {self.size}×{self.size}, digits: {self.digits}"]
        for name in self._shown():
            generated, real = getattr(self.generated, name), getattr(self.real, name)
            lines.append(f"  {name:12} {generated:6.1%}  (real {real:6.1%}: {self.of_real[name]:.1%} of it)")
        lines.append(f"  speed        {self.generated.speed:.2f} pixels a frame  (real {self.real.speed:.2f})")
        if self.distance is not None:
            floor = f"{self.ratio:.1f} x the floor, {self.floor:.3f} ± {self.floor_deviation:.3f} for real clips"
            lines.append(f"  Fréchet video distance  {self.distance:.3f}  ({floor})")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes), f"  {CAVEAT}"])


def of(value: float, real: float) -> float:
    """A share of another, which may be 0."""
    return value / real if real else float("nan")


def judge_clips(clips: Tensor, labels: Tensor | None = None, reference: VideoConfig | None = None) -> VideoReport:
    """Judge generated clips (N, 1, F, H, H) of moving digits, floating point in [-1, 1], N ≥ 2, F ≥ 3.

    Args:
        clips: what was generated.
        labels: the digit (N,) that each was asked to show; of two digits, one of them.
        reference: which real clips they are held against (default: one moving digit). Their number, frames and size are
            those of the generated ones.

    Raises:
        UserError: for another shape, for values outside [-1, 1], or not finite.
    """
    form = check(clips, labels, reference or VideoConfig())
    n = len(clips)
    real = real_figures(form, n)
    generated = measure(clips, form[0], real.speed, labels)
    distance = floor = deviation = None
    notes = limits(n, form)
    if clips.shape[2] >= FRAMES and clips.shape[3] >= SIDE:
        distance = frechet_distance(*statistics(video_features(clips)), *reference_statistics(form))
        floor, deviation = real_floor(form, n)
    if labels is None:
        real = replace(real, agreement=None)
    digits, _, frames, size = form
    ratio = None if distance is None else of(distance, floor)
    return VideoReport(n, frames, size, digits, generated, real, distance, floor, deviation, ratio, notes)


Form = tuple[int, int, int, int]  # digits, stride, frames, size: what real clips are drawn by


def check(clips: Tensor, labels: Tensor | None, reference: VideoConfig) -> Form:
    """The form of real clips to hold these against; raises `UserError`, one line, for what cannot be judged."""
    check_clips(clips)
    n, _, frames, height, width = clips.shape
    if reference.name != "moving_digits":
        raise UserError(f"only clips of moving_digits are judged, not of {reference.name}")
    if height != width:
        raise UserError(f"clips of moving digits are square, not {height}×{width}")
    if n < 2 or frames < 3:
        raise UserError(f"at least 2 clips of 3 frames are needed, not {n} of {frames}")
    if labels is not None and labels.shape != (n,):
        raise UserError(f"{n} clips need as many labels (N,), not {tuple(labels.shape)}")
    return reference.digits, reference.stride, frames, height


def limits(n: int, form: Form) -> list[str]:
    """What limits the figures, a sentence each."""
    digits, _, frames, size = form
    if frames < FRAMES or size < SIDE:
        return [f"no distance: the judge of clips takes {FRAMES} or more frames of {SIDE} or more pixels"]
    notes = []
    if n <= FEATURES:
        notes.append(f"the covariance of {n} clips is singular: below n = {FEATURES + 1} the distance says little")
    if digits > 1 or size != SIDE:
        notes.append(f"the judge of clips was trained on one digit at {SIDE}×{SIDE}")
    return notes


def real_clips(form: Form, split: str, n: int, first: int = 0) -> tuple[Tensor, Tensor]:
    """Real clips (n, 1, F, H, H) of a split, and the labels (n,) of their first digits; always the same ones.

    They are those from `first` on of a fixed order.
    """
    digits, stride, frames, size = form
    data = load_video(VideoConfig(split=split, digits=digits, stride=stride, frames=frames, size=size))
    if first + n > len(data):
        raise UserError(f"{first + n} clips are more than the {len(data)} real ones to hold them against")
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[first : first + n]
    items = [data[i] for i in order.tolist()]
    return torch.stack([x for x, _ in items]), torch.stack([cond["label"] for _, cond in items])


@functools.cache
def real_figures(form: Form, n: int) -> VideoFigures:
    """The figures of n real clips of held-out digits; computed once a process."""
    clips, labels = real_clips(form, "test", n)
    return measure(clips, form[0], labels=labels)


@functools.cache
def real_features(form: Form, split: str, n: int) -> Tensor:
    """The features (n, 128) of these real clips; computed once a process, a few clips at a time to spare memory."""
    starts = range(0, n, PART)
    return torch.cat([video_features(real_clips(form, split, min(PART, n - first), first)[0]) for first in starts])


@functools.cache
def reference_statistics(form: Form) -> tuple[Tensor, Tensor]:
    """Mean (128,) and covariance (128, 128) of the features of the reference: clips of held-out digits."""
    return statistics(real_features(form, "test", POOL))


@functools.cache
def real_floor(form: Form, n: int) -> Floor:
    """The distance to the reference of n real clips of the training digits, which a model has seen; mean of 10 draws.

    That is what a perfect model would show. The draws are from POOL such clips, or 2 n if that is more.
    """
    pool = real_features(form, "train", max(POOL, 2 * n))
    generator = torch.Generator().manual_seed(0)
    picks = [torch.randperm(len(pool), generator=generator)[:n] for _ in range(DRAWS)]
    distances = [frechet_distance(*statistics(pool[pick]), *reference_statistics(form)) for pick in picks]
    values = torch.tensor(distances, dtype=torch.float64)
    return Floor(values.mean().item(), values.std().item())


def drift(clips: Tensor, reference: VideoConfig | None = None, length: int = 10) -> list[dict[str, Any]]:
    """How long clips (N, 1, F, H, H) change as they go on, in windows of `length` frames, beside as many real clips.

    A list of {"first", "last", "confident", "same", "real_confident", "real_same"}: see `Window`.

    Raises:
        UserError: as for `judge_clips`.
    """
    form = check(clips, None, reference or VideoConfig())
    pairs = zip(windows(clips, form[0], length), real_windows(form, len(clips), length), strict=True)
    return [ours._asdict() | {"real_confident": real.confident, "real_same": real.same} for ours, real in pairs]


@functools.cache
def real_windows(form: Form, n: int, length: int) -> list[Window]:
    """The windows of n real clips; computed once a process."""
    return windows(real_clips(form, "test", n)[0], form[0], length)
