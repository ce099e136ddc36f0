"""A picture that moves: which part of a larger canvas each frame shows, and in which order that canvas is painted.

Nothing here knows of networks: `paint` fills in what a mask hides. The canvas is painted first, and the frames are cut
from it afterwards, so that what leaves the film and comes back is the same.

How each film closes:

- A pan goes once around a cylinder. The canvas has no end along the way: the last piece is painted between the end of
  the strip and its beginning.
- The circle comes back to where it began, on a canvas that is larger by its diameter.
- A zoom goes there and back, slower at both ends: see `zooms.py`.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from shared.errors import UserError

Paint = Callable[[Tensor, Tensor], Tensor]  # a picture (1, C, H, W) and what is known of it (1, 1, H, W) -> the whole
Place = tuple[int, int]  # (y, x) of a window's upper left corner on the canvas

# Where the window goes, as a camera would: (1, 0) is down, and what is seen moves up.
DIRECTIONS = {"pan-right": (0, 1), "pan-left": (0, -1), "pan-up": (-1, 0), "pan-down": (1, 0), "pan-diagonal": (1, 1)}
ZOOMS = ("zoom-out", "zoom-in")
MOTIONS = (*DIRECTIONS, "circle", *ZOOMS)
OVERLAP = 16  # of a pan's windows: a sixteenth of each is known from the one before


# --- windows that move over a canvas --------------------------------------------------------------------------


class Piece(NamedTuple):
    """A window in which something is painted, and what is known of it by then."""

    place: Place
    known: Tensor  # (1, 1, H, W) bool


@dataclass(frozen=True)
class Path:
    """A window's places on a canvas whose opposite sides are joined; after the last place comes the first.

    Only pans cross the joined sides: the canvas of the circle is as large as the way.
    """

    places: list[Place]
    canvas: tuple[int, int]
    window: tuple[int, int]
    stops: tuple[list[int], list[int]]
    """rows, and columns, at which windows are painted: each row of windows after the other"""

    @property
    def joined(self) -> tuple[int, ...]:
        """The axes of a canvas (1, C, height, width) along which the window goes around, for `seam_ratio`."""
        ends = [max(starts) + size for starts, size in zip(zip(*self.places, strict=True), self.window, strict=True)]
        return tuple(axis for axis, end in enumerate(ends, 2) if end > self.canvas[axis - 2])

    def _where(self, place: Place) -> tuple[Tensor, Tensor]:
        """Rows (H, 1) and columns (1, W) of a window."""
        rows, columns = (
            (torch.arange(size) + start) % whole
            for start, size, whole in zip(place, self.window, self.canvas, strict=True)
        )
        return rows[:, None], columns[None, :]

    def seen(self, canvas: Tensor, place: Place) -> Tensor:
        """The window (..., H, W) of a canvas."""
        return canvas[..., *self._where(place)]

    def put(self, canvas: Tensor, place: Place, window: Tensor | bool) -> None:
        """Write a window into a canvas."""
        canvas[..., *self._where(place)] = window

    def pieces(self) -> Iterator[Piece]:
        """What is painted, one after the other; none where a window shows nothing new that is in the film."""
        needed = torch.zeros(1, 1, *self.canvas, dtype=torch.bool)
        known = needed.clone()
        for place in self.places:
            self.put(needed, place, True)
        self.put(known, self.places[0], True)
        for place in itertools.product(*self.stops):
            window = self.seen(known, place)
            if (self.seen(needed, place) & ~window).any():
                yield Piece(place, window)
                self.put(known, place, True)

    def painted(self) -> Tensor:
        """Which piece each pixel of the canvas is of, (height, width): 0 the picture, 1 the first, -1 never painted."""
        found = torch.full(self.canvas, -1)
        self.put(found, self.places[0], 0)
        for number, piece in enumerate(self.pieces(), 1):
            own = self.seen(found, piece.place)
            self.put(found, piece.place, torch.where(piece.known[0, 0], own, number))
        return found

    def paint(self, picture: Tensor, paint: Paint) -> Tensor:
        """The canvas (1, C, height, width) around a picture (1, C, H, W), which is at the first place."""
        canvas = picture.new_zeros(1, picture.shape[1], *self.canvas)
        self.put(canvas, self.places[0], picture)
        for piece in self.pieces():
            whole = paint(self.seen(canvas, piece.place), piece.known.to(picture.device))
            self.put(canvas, piece.place, whole)
        return canvas

    def frames(self, canvas: Tensor) -> Tensor:
        """The clip (1, C, F, H, W) of what the window shows."""
        return torch.stack([self.seen(canvas, place) for place in self.places], dim=2)


def path(motion: str, frames: int, speed: int, window: tuple[int, int]) -> Path:
    """The way of a pan or of the circle: `speed` pixels a frame along each axis, or along the circle.

    Raises:
        UserError: the way is so short that a frame would show the same thing twice.
    """
    if motion == "circle":
        return circle(frames, speed, window)
    direction = DIRECTIONS[motion]
    length = frames * speed
    moved = [size for size, step in zip(window, direction, strict=True) if step]
    least = sum(window) if len(moved) == 2 else math.ceil(1.5 * moved[0])
    if length < least:
        raise UserError(
            f"{frames} frames at {speed} pixels each go {length} pixels around, and {motion} of "
            f"{window[1]}×{window[0]} needs {least}: give more frames, or more speed"
        )
    canvas = tuple(length if step else size for size, step in zip(window, direction, strict=True))
    places = [tuple(i * speed * step % length for step in direction) for i in range(frames)]
    return Path(places, canvas, window, tuple(map(around, window, canvas)))


def around(size: int, length: int) -> list[int]:
    """Where windows of a size are painted on a ring of a length, which is the size itself or 1.5 times it at least.

    From 0 ahead, each seeing a sixteenth of the one before: a window that must go on from half a picture has little
    room for whole things, and cuts what it draws. The last one is in the middle of the gap that is left: it sees both
    its ends, and joins them.
    """
    stops, overlap, gap = [0], -(-size // OVERLAP), length - size
    while gap > size - 2 * overlap:
        ahead = min(size - overlap, gap - 1)
        stops.append(stops[-1] + ahead)
        gap -= ahead
    return [*stops, stops[-1] + (size + gap) // 2] if gap else stops


def circle(frames: int, speed: int, window: tuple[int, int]) -> Path:
    """Around a circle, from its top clockwise; in whole pixels.

    Raises:
        UserError: the circle is no wider than a pixel, or so wide that the window leaves the picture behind.
    """
    radius = round(frames * speed / (2 * math.pi))
    if not 1 <= radius <= min(window) // 2:
        raise UserError(
            f"{frames} frames at {speed} pixels each make a circle of radius {radius}, and pictures of "
            f"{window[1]}×{window[0]} take 1 to {min(window) // 2}: give other --frames or --speed"
        )
    angles = [2 * math.pi * i / frames for i in range(frames)]
    places = [(radius - round(radius * math.cos(a)), radius + round(radius * math.sin(a))) for a in angles]
    wide = tuple(size + 2 * radius for size in window)
    rows = [0, 2 * radius] if 4 * radius <= window[0] else [0, radius, 2 * radius]  # half a window new at most
    return Path(places, wide, window, (rows, [radius, 0, 2 * radius]))


# --- the loop -------------------------------------------------------------------------------------------------


def begun(clip: Tensor) -> Tensor:
    """A loop (1, C, F, H, W), begun at the first frame into which the step is at most the median of the others.

    A loop has no beginning of its own: this is the picture that was asked for in about half of all films, and some
    frames later in the others. It cannot hide a jump, which then comes in the middle.
    """
    steps = (clip - clip.roll(1, 2)).abs().mean(dim=(0, 1, 3, 4))  # (F,), into each frame
    for first, step in enumerate(steps.tolist()):
        if step <= torch.cat([steps[:first], steps[first + 1 :]]).median().item():
            return clip.roll(-first, 2)
    raise AssertionError("the smallest of some numbers is above the median of the others")
