"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

Images of any kind made into a data set: taken in order, counted, and written whole.
"""

import json
import posixpath
import zipfile
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from shared.datasets.database import PICTURES, import_lmdb, write_database
from shared.datasets.prepare_images import PrepareConfig
from shared.datasets.prepared_image import Dropped, made
from shared.datasets.sources import Source, open_source
from shared.datasets.whole_folder import NOTE, check_target, replacing
from shared.errors import UserError

COMMAND = "prepare-images"
AHEAD = 4  # images a worker that may wait to be written: without a limit all could wait in memory

T, U = TypeVar("T"), TypeVar("U")


@dataclass
class Result:
    """What a preparation has done, or would do."""

    kept: int = 0
    dropped: list[tuple[str, str]] = field(default_factory=list)  # name and reason
    kinds: Counter[str] = field(default_factory=Counter)

    def counts(self) -> dict[str, int]:
        """How many were dropped, by kind."""
        return dict(self.kinds)


def prepare(path: Path, target: Path, config: PrepareConfig) -> Result:
    """Make a set at the target, a folder or zip, of the images at a path. Nothing is written in a dry run.

    Raises:
        UserError: there are no images, none is left, or something lies at the target that may not be replaced.
        OSError: the set cannot be written; what was at the target is still there.
    """
    source = open_source(path)
    check_apart(path.resolve(), target)
    if not config.dry_run:  # which does not even tidy up
        check_target(target, COMMAND, config.overwrite)
    if config.format == "zip" and target.is_dir() and not any(target.iterdir()):
        raise UserError(f"{target} is a folder: name the zip by --out, such as images.zip")
    if config.format == "lmdb":
        import_lmdb()
    result = Result()
    kept = chosen(source, config, result)
    if config.dry_run:
        deque(counted(kept, result), maxlen=0)
    else:
        with replacing(target, COMMAND) as place:
            WRITERS[config.format](place, counted(kept, result), lambda: note(path, config, result))
    if not result.kept:  # in a dry run; else `note` has said so
        raise none_left(path, result)
    return result


def check_apart(source: Path, target: Path) -> None:
    """Raise `UserError` where the new set would lie in the source, or hold it."""
    if target == source or source in target.parents or target in source.parents:
        raise UserError(f"--out {target} and the source {source} lie in each other: choose another --out")


def none_left(path: Path, result: Result) -> UserError:
    """The error for a source of which nothing is kept."""
    name, why = result.dropped[0]
    one = f"such as {name} ({why}): nothing is written"
    return UserError(f"none of {len(result.dropped)} images in {path} is kept, {one}; look at the thresholds")


def counted(kept: Iterable[tuple[str, bytes]], result: Result) -> Iterator[tuple[str, bytes]]:
    """The same, counted in the result."""
    for name, picture in kept:
        result.kept += 1
        yield name, picture


def note(path: Path, config: PrepareConfig, result: Result) -> str:
    """The report: what was asked for, and what was dropped. Raises `UserError` where nothing is kept."""
    if not result.kept:
        raise none_left(path, result)
    asked = {name: value for name, value in asdict(config).items() if name not in ("out", "dry_run", "overwrite")}
    dropped = [{"file": name, "reason": reason} for name, reason in result.dropped]
    facts = {"made_by": COMMAND, "source": str(path), **asked, "pictures": result.kept, "counts": result.counts()}
    return json.dumps({**facts, "dropped": dropped}, indent=2, ensure_ascii=False) + "\n"


def chosen(source: Source, config: PrepareConfig, result: Result) -> Iterator[tuple[str, bytes]]:
    """New name and file of each image that is kept, in the order of their old names; the others go to the result."""
    names, first = new_names(source, config.encoding), {}
    work = in_order(lambda name: made(source, name, config), source.names, config.workers)
    for name, (digest, picture) in zip(
        source.names, tqdm(work, "preparing", len(source.names), unit="image", disable=None), strict=True
    ):
        if not isinstance(picture, Dropped) and not config.duplicates and first.setdefault(digest, name) != name:
            picture = Dropped("duplicate", f"the same as {first[digest]}")
        if isinstance(picture, Dropped):
            result.dropped.append((name.encode(errors="backslashreplace").decode(), str(picture)))
            result.kinds[picture.kind] += 1
            continue
        yield names[name], picture


def in_order(work: Callable[[T], U], items: Iterable[T], workers: int) -> Iterator[U]:
    """What `work` makes of each item, by several threads, few of them ahead. Pillow lets others run while it works."""
    items = iter(items)
    with ThreadPoolExecutor(workers) as pool:
        waiting = deque(pool.submit(work, item) for item in islice(items, AHEAD * workers))
        try:
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(work, item) for item in islice(items, 1))
                yield result
        finally:
            pool.shutdown(cancel_futures=True)


def new_names(source: Source, encoding: str) -> dict[str, str]:
    """Of each name in the source the new one: the same folders, and the ending of its new format.

    Of a.jpg and a.png in one folder the second becomes a-png.png. A zip's one folder around all others is left out.
    """
    new, taken = {}, set()
    for name in source.names:
        path = name.split("/", 1)[1] if source.wrapped else name
        stem, ending = posixpath.splitext(path)
        candidates = [stem, f"{stem}-{ending[1:].lower()}", *(f"{stem}-{i}" for i in range(2, len(source.names) + 3))]
        free = next(c for c in candidates if c.casefold() not in taken)  # some file systems know no upper case
        taken.add(free.casefold())
        new[name] = f"{free}.{encoding}"
    return new


Kept = Iterable[tuple[str, bytes]]
Note = Callable[[], str]  # once all is written: it says what was


def write_folder(path: Path, kept: Kept, note: Note) -> None:
    """Write picture files into folders."""
    path.mkdir()
    for name, picture in kept:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(picture)
    (path / NOTE).write_text(note(), encoding="utf-8")


def write_zip(path: Path, kept: Kept, note: Note) -> None:
    """Write a zip, uncompressed: pictures are compressed already."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, picture in kept:
            archive.writestr(name, picture)
        archive.writestr(NOTE, note())


def write_lmdb(path: Path, kept: Kept, note: Note) -> None:
    """Write an LMDB in a folder."""
    write_database(path, ({PICTURES + name: picture} for name, picture in kept))
    (path / NOTE).write_text(note(), encoding="utf-8")


WRITERS = {"folder": write_folder, "zip": write_zip, "lmdb": write_lmdb}
