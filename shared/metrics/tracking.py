"""Introduced in task 5; used by task 5.

Find digits in clips and follow them from frame to frame: where each is, and a crop of it that the judge can read.

A pixel is lit from a quarter of full brightness on. Lit pixels with gaps of up to 4 pixels between them are one piece,
because the strokes of one written digit may have gaps; of up to 2 where there are several digits, which would else
seldom be apart. A digit is found where a piece is as large as MNIST's digits are, and where no more than a tenth of the
frame's light lies outside of the pieces that count. Its place is the brightness-weighted centroid of its lit pixels;
its crop is 28×28 around that, as MNIST centres its digits, without the other pieces.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from shared.errors import UserError
from shared.metrics.judge import SIZE, inspect, load_judge

LIT = 0.25  # of full brightness
REACH, REACH_SEVERAL = 2, 1  # pixels by which lit pixels are widened before they are joined to pieces
SMALLEST, LARGEST = 14, 24  # pixels: the longer side of a digit; MNIST fits all its digits into 20×20
FEWEST, MOST = 20, 320  # lit pixels of a digit; of MNIST's, 28 to 267
ALONE = 0.9  # share of the frame's light that the digits hold together
CENTRE = SIZE // 2  # pixel on which MNIST puts the centroid of a digit
AT_ONCE = 200  # clips: of 20 frames of 64×64, some 300 MB
NEAR = SIZE  # pixels: two digits expected as near as this may hide each other


class Tracks(NamedTuple):
    """What was found of D digits in each of N clips of F frames, on the CPU."""

    place: Tensor  # (N, D, F, 2) float32: y and x of the centroid in pixels, NaN where not found
    found: Tensor  # (N, D, F) bool
    hidden: Tensor  # (N, D, F) bool: the digits touch, so that neither is measured here
    crops: Tensor  # (N, D, F, 28, 28) float32 in [-1, 1]; -1 where not found


class Reading(NamedTuple):
    """What the judge reads in the crops of `Tracks`, where a digit is found."""

    digit: Tensor  # (N, D, F) long, -1 where not found
    confidence: Tensor  # (N, D, F) float32: the largest probability, 0 where not found


class Pieces(NamedTuple):
    """All pieces of M frames, P in number."""

    frame: np.ndarray  # (P,) which frame, ascending
    light: np.ndarray  # (P,) sum of the brightness of its lit pixels
    place: np.ndarray  # (P, 2) centroid y, x
    fits: np.ndarray  # (P,) bool: as large as a digit
    labels: np.ndarray  # (M, H, W) number of the piece at each pixel near it, from 1; 0 elsewhere


def track(clips: Tensor, digits: int = 1) -> Tracks:
    """Find and follow digits in clips (N, 1, F, H, W), floating point in [-1, 1].

    One digit is found or not in each frame by itself. Several are matched between frames: what is found is given to the
    digits so that the distances to where they are expected (the last place, moved on by the last step, reflected at
    the borders) are least in sum. Frames in which they touch are `hidden`.

    Raises:
        UserError: for another shape, for values outside [-1, 1], or not finite.
    """
    check_clips(clips)
    parts = [track_part(part, digits) for part in clips.detach().split(AT_ONCE)]
    return Tracks(*(torch.cat(values) for values in zip(*parts, strict=True)))


def track_part(clips: Tensor, digits: int) -> Tracks:
    """What `track` finds in a part of the clips."""
    n, _, frames, height, width = clips.shape
    brightness = (clips.float().cpu().reshape(-1, height, width).numpy() + 1) / 2  # (N F, H, W)
    pieces = find_pieces(brightness, REACH if digits == 1 else REACH_SEVERAL)
    chosen, whole = candidates(pieces, n * frames, digits)  # (N F, D)
    chosen, whole = chosen.reshape(n, frames, digits), whole.reshape(n, frames)
    if digits == 1:
        owner, hidden = chosen, np.zeros_like(chosen, dtype=bool)
    else:
        owner, hidden = follow(pieces, chosen, whole, (height, width))
    owner, hidden = owner.transpose(0, 2, 1), hidden.transpose(0, 2, 1)  # (N, D, F)
    found = owner >= 0
    place = np.where(found[..., None], pieces.place[owner] if len(pieces.place) else 0.0, np.nan)
    crops = np.full((*owner.shape, SIZE, SIZE), -1.0, dtype=np.float32)
    crops[found] = crop(brightness, pieces, owner[found])
    arrays = place.astype(np.float32), found, hidden, crops
    return Tracks(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays))


def read(tracks: Tracks) -> Reading:
    """What the judge of digits reads in every crop in which a digit was found."""
    digit, confidence = torch.full(tracks.found.shape, -1), torch.zeros(tracks.found.shape)
    if tracks.found.any():
        _, probabilities = inspect(load_judge(), tracks.crops[tracks.found][:, None])
        confidence[tracks.found], digit[tracks.found] = probabilities.max(dim=1)
    return Reading(digit, confidence)


def check_clips(clips: Tensor) -> None:
    """Raise `UserError`, one line, for clips that would be measured silently and wrongly."""
    if clips.ndim != 5 or clips.shape[1] != 1 or min(clips.shape) < 1:
        raise UserError(f"clips of digits are (N, 1, F, H, W), not {tuple(clips.shape)}")
    if not clips.is_floating_point():
        raise UserError(f"clips must be floating point in [-1, 1], not {clips.dtype}")
    if not clips.isfinite().all():
        raise UserError("the clips hold values that are not finite (NaN or infinity)")
    low, high = clips.min().item(), clips.max().item()
    if low < -1.001 or high > 1.001:
        raise UserError(f"clips must be in [-1, 1], not in [{low:.4g}, {high:.4g}]")
    if low >= 0:
        raise UserError(f"clips must be in [-1, 1]; these lie in [{low:.4g}, {high:.4g}]: map [0, 1] by 2 x - 1 first")


def find_pieces(brightness: np.ndarray, reach: int) -> Pieces:
    """The pieces of light in frames (M, H, W) in [0, 1], all frames at once; `reach` pixels join them."""
    from scipy import ndimage

    lit = brightness >= LIT
    square = np.ones((1, 2 * reach + 1, 2 * reach + 1), dtype=bool)
    in_plane = np.zeros((3, 3, 3), dtype=bool)
    in_plane[1] = True  # the frames are stacked, and no piece reaches from one into the next
    labels, count = ndimage.label(ndimage.binary_dilation(lit, square), in_plane)
    where = lit.nonzero()  # frame, y, x of each lit pixel
    owner, weight = labels[where] - 1, brightness[where].astype(np.float64)
    light = np.bincount(owner, weight, count)
    place, sides = np.empty((count, 2)), np.empty((count, 2), dtype=np.int64)
    for axis, at in enumerate(where[1:]):
        place[:, axis] = np.bincount(owner, weight * at, count) / light
        first, last = np.full(count, lit.size), np.full(count, -1)
        np.minimum.at(first, owner, at)
        np.maximum.at(last, owner, at)
        sides[:, axis] = last - first + 1
    frame, pixels, longer = np.empty(count, dtype=np.int64), np.bincount(owner, minlength=count), sides.max(axis=1)
    frame[owner] = where[0]
    fits = (longer >= SMALLEST) & (longer <= LARGEST) & (pixels >= FEWEST) & (pixels <= MOST)
    return Pieces(frame, light, place, fits, labels)


def candidates(pieces: Pieces, frames: int, digits: int) -> tuple[np.ndarray, np.ndarray]:
    """The pieces (M, D) that may be the digits of each frame, -1 for none, and whether one piece is all (M,)."""
    total = np.bincount(pieces.frame, pieces.light, frames)  # (M,)
    order = np.lexsort((-pieces.light, pieces.frame))  # frame by frame, the brightest piece first
    rank = np.arange(len(order)) - np.searchsorted(pieces.frame[order], pieces.frame[order])
    brightest = np.full((frames, digits), -1)
    kept = order[rank < digits]
    brightest[pieces.frame[kept], rank[rank < digits]] = kept
    light = np.where(brightest >= 0, np.append(pieces.light, 0.0)[brightest], 0.0)  # (M, D)
    fits = (brightest >= 0) & np.append(pieces.fits, False)[brightest]
    alone = (light * fits).sum(axis=1) >= ALONE * total
    return np.where(fits & alone[:, None], brightest, -1), (total > 0) & (light[:, 0] >= ALONE * total)


def follow(pieces: Pieces, chosen: np.ndarray, whole: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """Give the pieces (N, F, D) found in frames to digits: the piece of each (N, F, D), and whether it is hidden.

    All digits are hidden in a frame that shows one piece alone while two of them are expected near each other, or while
    it is not known yet where they are.
    """
    from scipy.optimize import linear_sum_assignment

    owner, hidden = np.full_like(chosen, -1), np.zeros(chosen.shape, dtype=bool)
    for clip, (rows, single) in enumerate(zip(chosen, whole, strict=True)):
        motion = None
        for frame, row in enumerate(rows):
            seen = row[row >= 0]
            if motion is None:
                if len(seen) == len(row):
                    owner[clip, frame], motion = row, Motion(pieces.place[row], size)
                else:
                    hidden[clip, frame] = single[frame]
                continue
            expected = motion.expected()
            if len(seen) < len(row) and single[frame] and nearest(expected) <= NEAR:
                hidden[clip, frame] = True
                continue
            distance = np.linalg.norm(expected[:, None] - pieces.place[seen], axis=-1)  # (D, seen)
            for digit, piece in zip(*linear_sum_assignment(distance), strict=True):
                owner[clip, frame, digit] = seen[piece]
                motion.seen(digit, pieces.place[seen[piece]])
    return owner, hidden


def nearest(places: np.ndarray) -> float:
    """The least distance, along the farther axis, of two of the places (D, 2)."""
    apart = np.abs(places[:, None] - places).max(axis=-1)  # (D, D)
    return apart[np.triu_indices(len(places), 1)].min()


class Motion:
    """Where D digits are expected that go straight on, equally fast, and bounce off the borders.

    The speed along each axis is the mean over the steps seen so far: a single step of whole pixels is rough, and while
    digits hide each other its error adds up.
    """

    def __init__(self, place: np.ndarray, size: tuple[int, int]):
        """Of the first places (D, 2) in frames of a size (H, W)."""
        self.place, self.last = place.copy(), place.copy()  # expected, and seen last
        self.age = np.zeros(len(place))  # frames since then
        self.total, self.steps = np.zeros_like(place), np.zeros(len(place))  # of the steps seen: pixels, and how many
        self.heading = np.zeros_like(place)  # -1, 0 or 1
        self.low, self.high = CENTRE, np.array(size) - CENTRE

    def expected(self) -> np.ndarray:
        """Places (D, 2) one frame further on."""
        speed = self.total / self.steps.clip(min=1)[:, None]
        ahead = self.place + self.heading * speed
        self.heading = np.where(ahead <= self.low, 1, np.where(ahead >= self.high, -1, self.heading))
        self.place = ahead.clip(self.low, self.high)
        self.age += 1
        return self.place

    def seen(self, digit: int, place: np.ndarray) -> None:
        """Take in where a digit was found in the frame that was expected last."""
        if self.age[digit] == 1:
            step = place - self.last[digit]
            self.total[digit] += np.abs(step)
            self.steps[digit] += 1
            self.heading[digit] = np.where(np.abs(step) > 0.5, np.sign(step), self.heading[digit])
        self.place[digit] = self.last[digit] = place
        self.age[digit] = 0


def crop(brightness: np.ndarray, pieces: Pieces, owner: np.ndarray) -> np.ndarray:
    """The pieces (K,) by themselves, their centroids on pixel 14 of 28 each way: (K, 28, 28) in [-1, 1]."""
    frame, (top, left) = pieces.frame[owner], np.rint(pieces.place[owner]).astype(np.int64).T - CENTRE
    rows, columns = (corner[:, None] + np.arange(SIZE) for corner in (top, left))  # (K, 28)
    height, width = brightness.shape[1:]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    at = frame[:, None, None], rows.clip(0, height - 1)[:, :, None], columns.clip(0, width - 1)[:, None, :]
    own = inside & (pieces.labels[at] == owner[:, None, None] + 1)
    return np.where(own, brightness[at], 0.0) * 2 - 1
