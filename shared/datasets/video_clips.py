"""Introduced in task 5; used by task 5.

Clips out of films: all in memory, or decoded one by one. A film gives as many clips as fit, `hop` frames apart.

What cannot be read, and what is shorter than a clip, is left out and named in the set's `skipped`; where too much
cannot be read, nothing is loaded.
"""

import math
import re
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from shared.datasets.images import InMemory, Item
from shared.datasets.ranges import to_unit
from shared.datasets.sources import LOOSE
from shared.datasets.video_config import VideoConfig
from shared.datasets.video_files import Video, opened, reason
from shared.errors import UserError

IN_MEMORY = 512 * 2**20  # bytes of pixels up to which all clips are decoded once, and then cost nothing a step
MAX_CLIP = 2**30  # bytes of one clip: a batch of larger ones fits nowhere
SHOW_PROGRESS = 50  # films from which it takes long enough to show
NAMED = 3  # of the films left out, in a message
TRIES = 10  # films in a row that may fail while a clip is loaded

T, U = TypeVar("T"), TypeVar("U")
Films = list[tuple[Video, int]]  # each with its label


class Clips(InMemory):
    """All clips held as one tensor: `images` uint8 (N, C, F, H, W), `captions` the classes' names in words."""

    def __init__(self, clips: Tensor, labels: Tensor, classes: list[str], skipped: list[str]) -> None:
        super().__init__(clips, labels, classes, {"caption": labels.long()})
        self.captions, self.skipped = [words(name) for name in classes], skipped


class StreamedClips(Dataset):
    """Clips decoded when asked for, in whichever process: `(x, {"label", "caption"})`, x (C, F, H, W) in [-1, 1].

    A clip that turns out to be unreadable is named in a warning, and another film's takes its place: the same one each
    time.
    """

    def __init__(self, films: Films, classes: list[str], config: VideoConfig, skipped: list[str]):
        """Films that are long enough."""
        self.films, self.classes, self.config, self.skipped = films, classes, config, skipped
        self.captions = [words(name) for name in classes]
        self.first: list[int] = []  # clip of each film
        self.clips: list[tuple[int, int]] = []  # (film, its frame that the clip begins with)
        for number, (film, _) in enumerate(films):
            self.first.append(len(self.clips))
            self.clips += [(number, start) for start in self.starts(film)]
        height, width = (films[0][0].height, films[0][0].width) if config.size is None else (config.size,) * 2
        self.shape = (config.channels or 3, config.frames, height, width)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, i: int) -> Item:
        number, start = self.clips[i]
        for _ in range(min(TRIES, len(self.films))):
            film, label = self.films[number]
            try:
                said = {"label": tensor(label), "caption": tensor(label)}
                return to_unit(self.decoded(film, [start])[0]), said
            except Exception as error:  # decoders raise whatever they trip over in a damaged file
                why = f"{film.path} cannot be read ({reason(error)})"
                warnings.warn(f"{why}: another clip takes the place of its clip at frame {start}", stacklevel=2)
            number = (number + 1) % len(self.films)
            _, start = self.clips[self.first[number]]
        raise UserError(f"{why}, nor can those before it: repair or remove them")

    def starts(self, film: Video) -> range:
        """The frames at which the clips of a film begin."""
        return range(
            0, film.frames - reach(self.config) + 1, self.config.hop or self.config.frames * self.config.stride
        )

    def decoded(self, film: Video, starts: Iterable[int]) -> Tensor:
        """Clips of a film, uint8 (clips, C, F, H, W): each frame is decoded once. Raises what makes it unreadable."""
        of = [[start + k * self.config.stride for k in range(self.config.frames)] for start in starts]
        wanted = sorted({index for clip in of for index in clip})
        place = {index: i for i, index in enumerate(wanted)}
        frames = film.read(wanted, self.shape[0], self.config.size)
        if tuple(frames.shape[2:]) != self.shape[2:]:
            raise ValueError(f"its frames are {frames.shape[3]}×{frames.shape[2]}, not {self.shape[3]}×{self.shape[2]}")
        return torch.stack([frames[[place[index] for index in clip]].transpose(0, 1) for clip in of])


def words(name: str) -> str:
    """A class's name as a caption: "ApplyEyeMakeup" is "apply eye makeup"; that of films in no sub-folder "a video"."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[_\-\s]+", " ", name)
    return "a video" if name == LOOSE else spaced.strip().lower()


def clips_of(entries: list[tuple[Path, int]], classes: list[str], config: VideoConfig) -> Clips | StreamedClips:
    """The clips of films at paths, each with its label: in memory if they may and do fit.

    Raises:
        UserError: none is long enough, more than the share `config.skip` cannot be read, or they are of several sizes
            and no size is given.
    """
    found = tried(lambda entry: opened(entry[0]), entries, "opening")
    bad = [f"{path} ({reason(film)})" for (path, _), film in zip(entries, found, strict=True) if is_bad(film)]
    check_share(bad, len(entries), config)
    span = reach(config)
    films = [(film, label) for film, (_, label) in zip(found, entries, strict=True) if not is_bad(film)]
    short = [f"{film.path} ({film.frames} frames)" for film, _ in films if film.frames < span]
    films = [(film, label) for film, label in films if film.frames >= span]
    if not films:
        asked = f"none of {len(entries)} videos has the {span} frames of a clip"
        raise UserError(f"{asked}: {some(short + bad)}; ask for fewer by --data.frames or --data.stride")
    clips = StreamedClips(films, classes, config, bad + short)
    check_sizes(films, clips.shape, config)
    if config.cache and len(clips) * math.prod(clips.shape) <= IN_MEMORY:
        return cached(clips, bad, len(entries))
    return clips


def cached(clips: StreamedClips, bad: list[str], asked: int) -> Clips:
    """All clips decoded, of `asked` films of which the `bad` could not be opened. Raises `UserError` as `clips_of`.

    Threads suffice: decoders let others run while they work.
    """
    images = torch.empty(len(clips), *clips.shape, dtype=torch.uint8)
    labels, failed = [], []
    parts = tried(lambda entry: clips.decoded(entry[0], clips.starts(entry[0])), clips.films, "decoding")
    for (film, label), part in zip(clips.films, parts, strict=True):
        if is_bad(part):
            failed.append(f"{film.path} ({reason(part)})")
            continue
        images[len(labels) : len(labels) + len(part)] = part
        labels += [label] * len(part)
    check_share(bad + failed, asked, clips.config)
    if not labels:
        raise UserError(f"none of {asked} videos can be read: {some(failed)}; repair or replace them")
    return Clips(images[: len(labels)], torch.tensor(labels), clips.classes, clips.skipped + failed)


def tried(work: Callable[[T], U], entries: list[T], what: str) -> list[U | Exception]:
    """What `work` makes of each entry, or what it raised, by several threads and with a bar where it takes long."""

    def attempt(entry: T) -> U | Exception:
        try:
            return work(entry)
        except Exception as error:  # decoders raise whatever they trip over in a damaged file
            return error

    quiet = True if len(entries) < SHOW_PROGRESS else None  # None: shown on a terminal only
    with ThreadPoolExecutor() as pool:
        return list(tqdm(pool.map(attempt, entries), what, len(entries), leave=False, disable=quiet))


def is_bad(result: object) -> bool:
    """Whether `tried` got an exception instead of a result."""
    return isinstance(result, Exception)


def reach(config: VideoConfig) -> int:
    """How many frames of a film a clip reaches over."""
    return (config.frames - 1) * config.stride + 1


def check_share(bad: list[str], asked: int, config: VideoConfig) -> None:
    """Raise `UserError` if more than the share `config.skip` of films cannot be read."""
    if len(bad) > config.skip * asked:
        advice = f"repair or remove them, or allow it by --data.skip {math.ceil(100 * len(bad) / asked) / 100:g}"
        raise UserError(f"{len(bad)} of {asked} videos cannot be read: {some(bad)}; {advice}")


def check_sizes(films: Films, shape: tuple[int, ...], config: VideoConfig) -> None:
    """Raise `UserError` for clips too large to hold, and for films of several sizes where no size is given."""
    if math.prod(shape) > MAX_CLIP:
        size = f"a clip of {shape[1]} frames of {shape[3]}×{shape[2]} pixels takes more than {MAX_CLIP:,} bytes"
        raise UserError(f"{size}: give a smaller --data.size or fewer --data.frames")
    one = films[0][0]
    for other, _ in films if config.size is None else ():
        if (other.height, other.width) != (one.height, one.width):
            sizes = f"{one.path} is {one.width}×{one.height} pixels and {other.path} {other.width}×{other.height}"
            raise UserError(f"{sizes}: bring all videos to one size, for instance with --data.size 64")


def some(names: list[str]) -> str:
    """The first few of a list, and how many more there are."""
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
