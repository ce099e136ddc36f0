"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

Where image files come from: a folder tree or a zip, with one face. `names` are sorted paths with forward
slashes, `open` gives one file's bytes, `where` names it to a person. Both can be sent to loader processes.
"""

import os
import posixpath
import zipfile
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Protocol

from shared.datasets.decode import extensions
from shared.datasets.whole_folder import NOTE
from shared.errors import UserError

MAX_MEMBER = 256 * 2**20  # bytes of one unpacked zip member: no picture needs more, a zip bomb does
SPLIT_FOLDERS = {"train", "test", "val", "valid", "validation"}
LOOSE = "."  # the class of images that lie in no sub-folder


class NoSuchPart(UserError):
    """The data has no part of that name: there is only what one can train on."""


def is_image(name: str) -> bool:
    """Whether a path is an image to use, by its ending; what is hidden and macOS's doubles are not."""
    ending = posixpath.splitext(name)[1].lower()
    return ending in extensions() and not any(map(is_hidden, name.split("/")))


def is_hidden(part: str) -> bool:
    """Whether a file or folder is not meant to be looked at; ".." is not either."""
    return part.startswith(".") or part == "__MACOSX"


class Tree:
    """The images in a folder and its sub-folders; symbolic links are followed, each folder once."""

    wrapped = False  # whoever points at a folder can point at the right one

    def __init__(self, root: Path) -> None:
        self.path = root
        names, seen = [], set()
        for folder, below, files in os.walk(root, followlinks=True, onerror=self._unlistable):
            if os.path.realpath(folder) in seen:  # a link to a folder above: the walk would never end
                below.clear()
                continue
            seen.add(os.path.realpath(folder))
            below[:] = sorted(name for name in below if not is_hidden(name))
            inside = Path(folder).relative_to(root).as_posix()
            names += [posixpath.normpath(f"{inside}/{file}") for file in files]  # "./a.png" is a.png
        self.names = sorted(filter(is_image, names))

    def open(self, name: str) -> BinaryIO:
        if not (self.path / name).is_file():  # a pipe, say: to open it would wait for ever
            raise ValueError("it is no file")
        return open(self.path / name, "rb")

    def where(self, name: str) -> str:
        return str(self.path / name)

    def _unlistable(self, error: OSError) -> None:
        reason = f"cannot be listed ({error.strerror})"
        raise UserError(f"the folder {error.filename} {reason}: mend its permissions")


class Source(Protocol):
    """What `arrange` and `ImageFolder` need of a place that images come from."""

    path: Path
    names: list[str]
    wrapped: bool

    def open(self, name: str) -> BinaryIO:
        """The bytes of one image file."""

    def where(self, name: str) -> str:
        """What a person calls it."""


class Archive:
    """The images in a zip, read in place: nothing is ever written, so no member's name can climb anywhere.

    Raises `UserError` for a damaged zip and for a member that declares more than MAX_MEMBER bytes. The
    declaration binds: zipfile never unpacks more than it, and takes a longer member for damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: tuple[int, zipfile.ZipFile] | None = None
        try:
            members = self._zip().infolist()
        except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
            raise UserError(f"{path} cannot be read as a zip ({error}): make or fetch it again") from None
        self.members: dict[str, str] = {}  # path -> name in the zip: "./a/b.png" and "a\b.png" are a/b.png
        for member in members:
            name = posixpath.normpath(member.filename.replace("\\", "/")).lstrip("/")
            if member.is_dir() or not is_image(name):
                continue
            if member.file_size > MAX_MEMBER:
                size = f"declares {member.file_size:,} bytes, more than the limit of {MAX_MEMBER:,}"
                raise UserError(f"{self.where(name)} {size}: take it out of the zip")
            self.members[name] = member.filename
        self.names = sorted(self.members)
        made_here = any(member.filename == NOTE for member in members)  # its folders are classes, though it be one
        self.wrapped = has_wrapper(self.names) and not made_here

    def open(self, name: str) -> BinaryIO:
        return BytesIO(self._zip().read(self.members[name]))

    def where(self, name: str) -> str:
        return f"{self.path}/{name}"

    def _zip(self) -> zipfile.ZipFile:
        """This process's own handle: processes sharing a forked one would move each other's position."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), zipfile.ZipFile(self.path))
        return self._opened[1]

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_opened": None}


def has_wrapper(names: list[str]) -> bool:
    """Whether one folder holds all others: zipping a folder `photos` puts `photos/` before every name."""
    paths = [name.split("/") for name in names]
    return len({path[0] for path in paths}) == 1 and any(len(path) > 2 for path in paths)


def open_source(path: Path) -> Tree | Archive:
    """The images at a path. Raises `UserError` where there is none, or neither a folder nor a zip."""
    if not path.exists():
        raise UserError(f"{path} does not exist: --data.root must name a folder or zip of images")
    if path.is_dir():
        source = Tree(path)
    elif path.is_file() and zipfile.is_zipfile(path):
        source = Archive(path)
    else:
        raise UserError(f"{path} is neither a folder nor a whole zip: --data.root must name one of images")
    if not source.names:
        endings = ", ".join(sorted(extensions()))
        raise UserError(f"no images in {path} or its sub-folders: expected files ending in one of {endings}")
    return source


def arrange(source: Source, split: str) -> tuple[list[tuple[str, int]], list[str]]:
    """The (name, label) of each image of a split, sorted by name, and the sorted class names.

    The class is the first sub-folder, or "." for images that lie in none. Where the first level is nothing
    but `train` and `test` (or `val`), these are the splits, and the classes, the same for all, are one level
    below; any other source is all training data. Raises `UserError` for a split that is not there.
    """
    depth = 1 if source.wrapped else 0
    paths = {name: name.split("/")[depth:] for name in source.names}
    tops = {parts[0] for parts in paths.values() if len(parts) > 1}
    if "train" in tops and len(tops) > 1 and tops <= SPLIT_FOLDERS:
        chosen = [name for name, parts in paths.items() if parts[0] == split]
        paths = {name: parts[1:] for name, parts in paths.items() if len(parts) > 1}
    else:
        chosen = source.names if split == "train" else []
    if not chosen:
        advice = f"put images into a folder {split} beside a folder train, or choose another --data.split"
        raise NoSuchPart(f"{source.path} has no {split} part: {advice}")
    of = {name: parts[0] if len(parts) > 1 else LOOSE for name, parts in paths.items()}
    classes = sorted(set(of.values()))
    label = {name: number for number, name in enumerate(classes)}
    return [(name, label[of[name]]) for name in chosen], classes
