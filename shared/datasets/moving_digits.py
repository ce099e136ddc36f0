"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

Digits that move and bounce: Moving MNIST (Srivastava, Mansimov & Salakhutdinov 2015, arXiv:1502.04681), from the
embedded digits, and the single frames of such clips as a set of images.

As published (`data_handler.py` of its code): a digit starts anywhere in the square that is free to move in, all
directions are equally likely, and each frame it goes 0.1 of that square's side. What would leave it is put on its
border and that component of the velocity turns. Positions are cut to whole pixels; digits that meet are overlaid by
their maximum. Whole images of 28×28 move so from 56×56 pixels on; 64×64 with two digits and 20 frames is the published
form. On less room the 20×20 pixels move that MNIST fills, by 2 pixels a frame.

A clip is a function of its number and its form: nothing is drawn from a generator that anyone else uses.
"""

import math
import random
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from shared.datasets.config import DataConfig
from shared.datasets.digits import CLASSES, load_digits
from shared.datasets.images import InMemory, Item
from shared.datasets.ranges import to_unit
from shared.errors import UserError

WHOLE, BOX = 28, 20  # sides of an image of MNIST, and of the part that a digit fills
STEP = 0.1  # of the free square's side, as published
SMALL_STEP = 2.0  # pixels a frame, of a box on little room: 1/6 of the side at 32×32
LEAST = 24  # the smallest picture: two steps from border to border
CLIPS = {"train": 10, "test": 20}  # of each digit: 45,000, and 10,000 as the published test set has
IMAGES = 2  # frames of each digit in the set of images: 9,000 and 1,000
LENGTH = 16  # the clips that these frames are from

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# by the angle from "right", clockwise as pictures have their y downwards, in eighths of a circle
DIRECTIONS = ("right", "down and right", "down", "down and left", "left", "up and left", "up", "up and right")


class Trajectory(NamedTuple):
    """Where the D digits of a clip of F frames are, in pixels, y and x."""

    digits: tuple[int, ...]  # which of the embedded digits of this split
    positions: Tensor  # (D, F, 2) float64: upper left corner of the tile, before it is cut to whole pixels
    velocities: Tensor  # (D, F, 2) float64: pixels a frame, with which it leaves each frame


def direction(dy: float, dx: float) -> int:
    """The number in DIRECTIONS of a velocity: the nearest eighth of the circle."""
    return round(math.atan2(dy, dx) / (math.pi / 4)) % 8


class MovingDigits(Dataset):
    """Clips of one or two moving digits: `(x, cond)`, x (1, F, H, W) in [-1, 1], drawn when asked for.

    `cond` has the long scalars "label", the first digit's class, and "caption", its number in `captions`, such as "a
    three moving left": the direction is that in which a digit leaves the first frame. Clip i shows digit i modulo their
    number first; a shorter clip of the same number is the beginning of a longer one.
    """

    classes = CLASSES

    def __init__(self, split: str, count: int = 1, size: int = 32, frames: int = 16, stride: int = 1):
        """Clips of `count` digits (1 or 2) of a split, `size` × `size` pixels, `frames` × `stride` steps long.

        Raises:
            UserError: the size leaves no room to move in.
        """
        if size < LEAST:
            raise UserError(f"moving_digits needs room to move in: --data.size must be at least {LEAST}, not {size}")
        data = load_digits(DataConfig(split=split))
        self.tile = WHOLE if size >= 2 * WHOLE else BOX  # side of what moves
        images = data.images[:, 0]
        self.tiles = images if self.tile == WHOLE else torch.stack([boxed(image) for image in images])
        self.labels: list[int] = data.labels.tolist()
        self.split, self.count, self.size, self.frames, self.stride = split, count, size, frames, stride
        self.free = size - self.tile  # side of the square that the upper left corners move in
        self.step = STEP * self.free if self.tile == WHOLE else SMALL_STEP  # pixels a frame
        self.shape = (1, frames, size, size)
        moves = [f"a {number} moving {where}" for number in NUMBERS for where in DIRECTIONS]
        self.captions = moves if count == 1 else [f"{one} and {other}" for one in moves for other in moves]

    def __len__(self) -> int:
        return CLIPS[self.split] * len(self.tiles)

    def __getitem__(self, i: int) -> Item:
        if not 0 <= i < len(self):
            raise IndexError(f"clip {i} of {len(self)}")
        path = self.trajectory(i)
        cond = {"label": self.labels[path.digits[0]], "caption": self.caption(path)}
        return to_unit(self.drawn(path))[None], {name: torch.tensor(value) for name, value in cond.items()}

    def trajectory(self, i: int) -> Trajectory:
        """The truth about clip `i`."""
        # seeded by a text, whose hash it takes; `random()` alone never changes from version to version
        draw = random.Random(f"moving digits/{self.split}/{self.count}/{i}").random
        digits, paths = [i % len(self.tiles)], []
        for number in range(self.count):
            if number > 0:
                digits.append(int(draw() * len(self.tiles)))
            start, angle = [draw() * self.free, draw() * self.free], draw() * 2 * math.pi
            paths.append(self._bounced(start, [self.step * math.sin(angle), self.step * math.cos(angle)]))
        both = torch.tensor(paths, dtype=torch.float64)  # (D, F, 4)
        return Trajectory(tuple(digits), both[..., :2], both[..., 2:])

    def _bounced(self, place: list[float], velocity: list[float]) -> list[list[float]]:
        """Position and velocity in each frame. The first frame comes after a step, as published."""
        path = []
        for _ in range((self.frames - 1) * self.stride + 1):
            for axis in (0, 1):
                place[axis] += velocity[axis]
                if not 0 < place[axis] < self.free:
                    place[axis] = min(max(place[axis], 0.0), float(self.free))
                    velocity[axis] = -velocity[axis]
            path.append([*place, *velocity])
        return path[:: self.stride]

    def drawn(self, path: Trajectory) -> Tensor:
        """The frames of a trajectory, uint8 (F, H, W)."""
        clip = None
        for digit, places in zip(path.digits, path.positions, strict=True):
            # every picture with the digit somewhere in it is a window of one with a margin: no frame is drawn by itself
            windows = F.pad(self.tiles[digit], [self.free] * 4).unfold(0, self.size, 1).unfold(1, self.size, 1)
            y, x = (self.free - places.long()).unbind(-1)  # `long` cuts towards zero
            frames = windows[y, x]
            clip = frames if clip is None else torch.maximum(clip, frames)
        return clip

    def caption(self, path: Trajectory) -> int:
        """The number of a clip's caption."""
        found = 0
        for digit, (dy, dx) in zip(path.digits, path.velocities[:, 0].tolist(), strict=True):
            found = 80 * found + 8 * self.labels[digit] + direction(dy, dx)
        return found


def boxed(image: Tensor) -> Tensor:
    """What an image (28, 28) of MNIST shows, in the middle of BOX × BOX pixels, into which all of it fits."""
    (top, bottom), (left, right) = (image.any(axis).nonzero().aminmax() for axis in (1, 0))
    shown = image[top : bottom + 1, left : right + 1]
    above, before = ((BOX - side) // 2 for side in shown.shape)
    return F.pad(shown, (before, BOX - shown.shape[1] - before, above, BOX - shown.shape[0] - above))


def load_moving_digits(config: DataConfig) -> InMemory:
    """Single frames of such clips, uint8 (N, 1, size, size), 32×32 unless told otherwise: 9,000 and 1,000.

    With one digit below 56×56 pixels, with two from there on: what an image model learns that a video model of moving
    digits is begun from. The label is the first digit's class.

    Raises:
        UserError: another number of channels, or a size that leaves no room to move in.
    """
    if config.channels not in (None, 1):
        raise UserError(f"moving_digits has 1 channel, not {config.channels}: leave out --data.channels")
    size = config.size or 32
    clips = MovingDigits(config.split, 2 if size >= 2 * WHOLE else 1, size, LENGTH)
    images, labels = [], []
    for i in range(IMAGES * len(clips.tiles)):
        path, frame = clips.trajectory(i), i % LENGTH
        images.append(clips.drawn(path._replace(positions=path.positions[:, frame : frame + 1])))
        labels.append(clips.labels[path.digits[0]])
    return InMemory(torch.stack(images), torch.tensor(labels), CLASSES)
