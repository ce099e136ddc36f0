"""Introduced in task 5; used by task 5.

What clips of moving digits show: identities kept, speeds, velocities, and drift over long clips.

Of real clips and generated ones alike; `video.py` sets the two side by side.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from shared.datasets.moving_digits import BOX, WHOLE
from shared.metrics.report import CONFIDENT
from shared.metrics.tracking import Reading, Tracks, read, track

FOUND = 0.9  # a digit keeps its identity only if it is found in this share of its frames: of 16, in 15
RIGHT = 0.2  # relative error up to which a speed is right
MOVES = 0.25  # of the real speed: what is slower stands still
CUT = 1.25  # pixels: steps of whole pixels of one velocity differ by 1 at most; the rest is for the centroid
SLACK = 3.0  # pixels that the centroid of a digit may lie off the middle of its tile


@dataclass(frozen=True)
class VideoFigures:
    """What a set of clips shows. A track is one digit of one clip; frames in which two digits touch are left out."""

    measured: float  # share of the tracks with two or more frames in which they do not touch; 1 for one digit
    identity: float  # share of these found in 9 of 10 frames, and read as one and the same digit in all of them
    confident: float  # share of the frames in which a digit is found that the judge reads with ≥ 0.9
    moving: float  # share of the tracks whose speed, the median length of their steps, is above 1/4 of the real one
    speed: float  # mean speed of the tracks, pixels a frame; NaN where no digit is followed
    speed_right: float  # share of the tracks whose speed is within ±20 % of the mean one of real clips
    constant: float  # share of the pairs of steps, away from the borders, that agree but for the cut to whole pixels
    agreement: float | None  # share of the clips in which the digit read most often is the one asked for


def measure(clips: Tensor, digits: int, real_speed: float | None = None, labels: Tensor | None = None) -> VideoFigures:
    """The figures of clips (N, 1, F, H, H); speeds are held against `real_speed`, or else their own mean.

    The mean, because the median length of steps of whole pixels is one of few numbers: of real digits that go by 2
    pixels about half have 2 and half √5, so that the median of these would be the one or the other by chance.
    """
    tracks = track(clips, digits)
    reading = read(tracks)
    apart = ~tracks.hidden  # (N, D, F)
    measured = apart.sum(dim=-1) >= 2  # (N, D)
    speed = speeds(tracks)
    usual = speed.nanmean().item()
    target = usual if real_speed is None else real_speed
    moves = speed > MOVES * target  # NaN, where nothing was followed, does not move
    return VideoFigures(
        measured=mean(measured),
        identity=mean(keeps_identity(tracks, reading)[measured]),
        confident=mean((reading.confidence >= CONFIDENT)[apart]),
        moving=mean(moves[measured]),
        speed=usual,
        speed_right=mean(((speed - target).abs() <= RIGHT * target)[measured]),
        constant=constant(tracks, moves, clips.shape[-1]),
        agreement=None if labels is None else mean((votes(reading) == labels.cpu()[:, None]).any(dim=1)),
    )


def mean(values: Tensor) -> float:
    """The share of what is true; 0 of nothing."""
    return values.double().mean().item() if values.numel() else 0.0


def keeps_identity(tracks: Tracks, reading: Reading) -> Tensor:
    """Whether each track (N, D) is found in 9 of 10 of its frames, and is the same digit in all in which it is."""
    apart = (~tracks.hidden).sum(dim=-1)
    often = tracks.found.sum(dim=-1) >= FOUND * apart
    highest = reading.digit.amax(dim=-1)  # -1 where it is never found
    lowest = torch.where(tracks.found, reading.digit, 10).amin(dim=-1)
    return often & (highest == lowest)


def votes(reading: Reading) -> Tensor:
    """The digit that is read most often in each track (N, D); -1 where none is."""
    counts = torch.stack([(reading.digit == digit).sum(dim=-1) for digit in range(10)])  # (10, N, D)
    return torch.where(counts.sum(dim=0) > 0, counts.argmax(dim=0), -1)


def speeds(tracks: Tracks) -> Tensor:
    """The median length (N, D) of each track's steps, pixels a frame; NaN where no two frames in a row show it."""
    return tracks.place.diff(dim=2).norm(dim=-1).nanmedian(dim=-1).values


def constant(tracks: Tracks, moves: Tensor, size: int) -> float:
    """Share of the pairs of steps whose velocities, cut to whole pixels, may be the same.

    Along each axis by itself, since a bounce leaves the other component as it is. Counted are the pairs whose three
    centroids are found and too far from the border for a bounce. In a track that does not move none is right: a digit
    at rest moves at the constant velocity 0.
    """
    tile = WHOLE if size >= 2 * WHOLE else BOX
    margin = (tile - 1) / 2 + SLACK
    free = (tracks.place >= margin) & (tracks.place <= size - 1 - margin)  # (N, D, F, 2), False for NaN
    counted = free[:, :, :-2] & free[:, :, 1:-1] & free[:, :, 2:]  # (N, D, F - 2, 2)
    same = tracks.place.diff(n=2, dim=2).abs() <= CUT
    return mean((same & moves[:, :, None, None])[counted])


class Window(NamedTuple):
    """Some frames in a row of long clips; tracks are counted as in `VideoFigures`."""

    first: int  # frame, from 0
    last: int
    confident: float  # share of its frames that the judge reads with ≥ 0.9
    same: float  # share of its frames in which the digit is read that the track began with


def windows(clips: Tensor, digits: int = 1, length: int = 10) -> list[Window]:
    """Long clips (N, 1, F, H, H) piece by piece; the last window may be shorter than `length` frames.

    A track begins with the digit that is read in the first frame in which it is found.
    """
    tracks = track(clips, digits)
    reading, apart = read(tracks), ~tracks.hidden  # (N, D, F)
    start = tracks.found.int().argmax(dim=-1, keepdim=True)  # (N, D, 1): the first such frame
    same = tracks.found & (reading.digit == reading.digit.gather(-1, start))
    sure = reading.confidence >= CONFIDENT
    found = []
    for first in range(0, clips.shape[2], length):
        part = slice(first, first + length)
        shares = (mean(what[..., part][apart[..., part]]) for what in (sure, same))
        found.append(Window(first, min(first + length, clips.shape[2]) - 1, *shares))
    return found
