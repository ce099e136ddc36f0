"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

Scenes of coloured digits with captions in English and Chinese, composed on the fly from the embedded digits.

A scene has one or two groups; a group is one digit, or the same digit twice, in one colour, at one place: left,
right, top or bottom. Two groups lie opposite each other. So little is said, and so exactly, that whether a picture
follows its caption can be measured: `shared/metrics/scenes.py`.

A fifth of all (digit, colour, place) triples is held out: no training scene has one of them, every test scene has at
least one. Each digit, colour and place, and each pair of them, is known from the training; what is new is the
combination of three.
"""

import itertools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from shared.datasets.config import DataConfig
from shared.datasets.digits import load_digits
from shared.datasets.ranges import to_unit
from shared.errors import UserError

SIZE = 32  # side of a scene
TILE = 14  # side of a digit in it, of which MNIST fills 20 × 20 pixels
BOX = 20

COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "cyan": (0, 255, 255),
    "magenta": (255, 0, 255),
}
PLACES = ("left", "right", "top", "bottom")
OPPOSITE = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}

ENGLISH = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PLURAL = ("zeros", "ones", "twos", "threes", "fours", "fives", "sixes", "sevens", "eights", "nines")
WHERE = {"left": "on the left", "right": "on the right", "top": "at the top", "bottom": "at the bottom"}
RELATION = {"left": "to the left of", "right": "to the right of", "top": "above", "bottom": "below"}

CHINESE = "零一二三四五六七八九"
CHINESE_COLOURS = dict(zip(COLOURS, ("红色", "绿色", "蓝色", "黄色", "青色", "紫色"), strict=True))
CHINESE_PLACES = {"left": "左边", "right": "右边", "top": "上边", "bottom": "下边"}


class Group(NamedTuple):
    """The same digit once or twice, in one colour, at one place."""

    count: int
    digit: int
    colour: str
    place: str

    @property
    def triple(self) -> tuple[int, str, str]:
        """What may be held out."""
        return self.digit, self.colour, self.place


Scene = tuple[Group, ...]  # one group, or two at opposite places: the first one left or at the top


def held_out(triple: tuple[int, str, str]) -> bool:
    """Whether a (digit, colour, place) is kept from the training: two digits of every colour at every place."""
    digit, colour, place = triple
    return (digit + list(COLOURS).index(colour) + 2 * PLACES.index(place)) % 5 == 0


def is_test(scene: Scene) -> bool:
    """Whether a scene has a triple that is held out."""
    return any(held_out(group.triple) for group in scene)


def english(scene: Scene) -> list[str]:
    """The captions of a scene: "a red three on the left"; of two groups, one from each end."""
    names = [f"a {g.colour} {ENGLISH[g.digit]}" if g.count == 1 else f"two {g.colour} {PLURAL[g.digit]}" for g in scene]
    if len(scene) == 1:
        return [f"{names[0]} {WHERE[scene[0].place]}"]
    (a, b), (one, other) = names, scene
    return [f"{a} {RELATION[one.place]} {b}", f"{b} {RELATION[other.place]} {a}"]


def chinese(scene: Scene) -> list[str]:
    """The same in Chinese: 左边是红色的三."""
    parts = [
        f"{CHINESE_PLACES[g.place]}是{'两个' if g.count == 2 else ''}{CHINESE_COLOURS[g.colour]}的{CHINESE[g.digit]}"
        for g in scene
    ]
    return [f"，{''}".join(order) for order in ([parts] if len(parts) == 1 else [parts, parts[::-1]])]


LANGUAGES = {"en": english, "zh": chinese}


def scenes(objects: int) -> list[Scene]:
    """Every scene of at most so many digits."""
    groups = [Group(*parts) for parts in itertools.product((1, 2), range(10), COLOURS, PLACES)]
    single = [(group,) for group in groups if group.count <= objects]
    pairs = [
        (one, other)
        for one in groups
        if one.place in ("left", "top")
        for other in (g._replace(place=OPPOSITE[one.place]) for g in groups if g.place == one.place)
        if one.count + other.count <= objects
    ]
    return single + pairs


def centres(scene: Scene) -> list[list[tuple[float, float]]]:
    """Where the digits of each group have their centres, (y, x) in pixels, before they are moved a little."""
    near, middle, far = SIZE / 4, SIZE / 2, 3 * SIZE / 4
    found = []
    for group in scene:
        across = [middle] if group.count == 1 else [near, far]
        along = near if group.place in ("left", "top") else far
        found.append([(y, along) if group.place in ("left", "right") else (along, y) for y in across])
    return found


class CaptionedDigits(Dataset):
    """Scenes of 32×32 pixels in colour, drawn anew whenever one is asked for.

    Item i has digit i of the embedded ones as its first; all else is drawn from torch's generator. `captions` are all
    captions that there may be, and `scenes` what each of them says.
    """

    shape = (3, SIZE, SIZE)

    def __init__(self, digits: Tensor, labels: Tensor, languages: tuple[str, ...], objects: int, split: str):
        """`digits` uint8 (N, 1, 28, 28), and what they show."""
        margin = (28 - BOX) // 2
        boxes = digits[..., margin:-margin, margin:-margin].float()
        tiles = F.interpolate(boxes, size=(TILE, TILE), mode="bilinear", antialias=True, align_corners=False)
        self.tiles, self.labels = tiles.round().clamp(0, 255).to(torch.uint8)[:, 0], labels  # (N, TILE, TILE)
        self.of = [(labels == digit).nonzero()[:, 0] for digit in range(10)]
        self.objects, self.split, self.languages = objects, split, languages
        self.captions: list[str] = []
        self.scenes: list[Scene] = []
        for scene in scenes(objects):
            if is_test(scene) == (split == "test"):
                for caption in (text for language in languages for text in LANGUAGES[language](scene)):
                    self.captions.append(caption)
                    self.scenes.append(scene)
        self.number = {caption: i for i, caption in enumerate(self.captions)}

    def __len__(self) -> int:
        return len(self.tiles)

    def __getitem__(self, i: int) -> tuple[Tensor, dict[str, Tensor]]:
        """x (3, 32, 32) in [-1, 1], and {"caption": its number in `captions`}."""
        scene = self.draw(int(self.labels[i]))
        written = [caption for language in self.languages for caption in LANGUAGES[language](scene)]
        caption = written[int(torch.randint(len(written), ()))]
        return to_unit(self.compose(scene, i)), {"caption": torch.tensor(self.number[caption])}

    def draw(self, digit: int) -> Scene:
        """A scene of this split, of one group or two, whose first drawn group has this digit.

        Drawn until one is of this split: most scenes with two groups have a triple that is held out, so that the
        training has some more scenes of one group, and the test part more of two.
        """
        while True:
            a, b, c, d, e, f, g, h = torch.randint(2**31, (8,)).tolist()
            place = PLACES[a % 4]
            colour, other_colour = list(COLOURS)[b % 6], list(COLOURS)[c % 6]
            counts = [(1,)] if self.objects == 1 else [(1,), (1,), (2,), (1, 1), (1, 1), (1, 1)]
            counts += [(1, 2), (2, 1)] if self.objects == 3 else []
            count = counts[d % len(counts)]
            first = Group(count[0], digit, colour, place)
            scene: Scene = (first,)
            if len(count) == 2:
                second = Group(count[1], e % 10, other_colour, OPPOSITE[place])
                scene = (first, second) if place in ("left", "top") else (second, first)
            if is_test(scene) == (self.split == "test"):
                return scene

    def compose(self, scene: Scene, i: int | None = None) -> Tensor:
        """A picture of a scene, uint8 (3, 32, 32); digit i is its first digit of that kind, the others are drawn."""
        canvas = torch.zeros(3, SIZE, SIZE, dtype=torch.uint8)
        for group, places in zip(scene, centres(scene), strict=True):
            free = 4 if len(scene) == 1 and group.count == 1 else 1  # how far it may lie off the middle
            colour = torch.tensor(COLOURS[group.colour], dtype=torch.float32)[:, None, None] / 255
            for y, x in places:
                pool = self.of[group.digit]
                j, dy, dx = torch.randint(2**31, (3,)).tolist()
                if i is not None and int(self.labels[i]) == group.digit:
                    index, i = i, None
                else:
                    index = pool[j % len(pool)]
                wide, narrow = (dy % (2 * free + 1) - free), dx % 3 - 1
                dy, dx = (wide, narrow) if group.place in ("left", "right") else (narrow, wide)
                top, left = int(y) - TILE // 2 + dy, int(x) - TILE // 2 + dx
                tile = (self.tiles[index].float() * colour).to(torch.uint8)  # (3, TILE, TILE)
                part = canvas[:, top : top + TILE, left : left + TILE]
                part.copy_(torch.maximum(part, tile))
        return canvas


def load_captioned_digits(config: DataConfig) -> CaptionedDigits:
    """Scenes of the training digits without held-out triples, or of the held-out digits with them.

    Raises `UserError` for a language other than en and zh, for another size, and for one channel.
    """
    if config.size not in (None, SIZE):
        raise UserError(f"captioned_digits is {SIZE}×{SIZE} and is not resized: leave out --data.size")
    if config.channels not in (None, 3):
        raise UserError(f"captioned_digits has 3 channels, not {config.channels}: leave out --data.channels")
    unknown = [language for language in config.languages if language not in LANGUAGES]
    if unknown or not config.languages:
        what = f"no captions in {', '.join(unknown)}" if unknown else "no language"
        raise UserError(f"captioned_digits: {what}: --data.languages takes {' and '.join(LANGUAGES)}")
    digits = load_digits(DataConfig(name="digits", split=config.split))
    return CaptionedDigits(
        digits.images, digits.labels, tuple(dict.fromkeys(config.languages)), config.objects, config.split
    )
