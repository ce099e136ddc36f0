"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

Sets that a command makes: written beside the place where they are to lie, and put there by one renaming. Whoever looks,
and whenever the command is killed, finds the old set or the new one. A note in the set says which command made it:
nothing else is ever replaced.
"""

import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.errors import UserError
from shared.files import force, partial

NOTE = "prepared.json"  # says what a set was made from, and by that, that it was made here


def check_target(target: Path, command: str, overwrite: bool) -> None:
    """Raise `UserError` if something lies at the target that may not be replaced."""
    restore(target)
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not is_former(target, command):
        raise UserError(f"{target} exists and was not made by {command}: remove it, or choose another --out")
    if not overwrite:
        raise UserError(f"{target} exists: add --overwrite true to make it anew, or choose another --out")


def is_former(target: Path, command: str) -> bool:
    """Whether a command made a folder or zip."""
    try:
        if target.is_dir():
            text = (target / NOTE).read_bytes()
        else:
            with zipfile.ZipFile(target) as archive:
                text = archive.read(NOTE)
        note = json.loads(text)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, NotImplementedError, RuntimeError):
        return False
    return isinstance(note, dict) and note.get("made_by") == command


def put_aside(target: Path) -> Path:
    """Where the former set lies while the new one is put in its place."""
    return target.parent / f".former-{target.name}"


def restore(target: Path) -> None:
    """Put back the former set, or remove it, where a run ended between the two renamings, or after them."""
    former = put_aside(target)
    if not target.exists() and former.exists():
        os.rename(former, target)
    remove(former)


def remove(path: Path) -> None:
    """Remove a folder, or a file, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def replacing(target: Path, command: str) -> Iterator[Path]:
    """A path, where nothing is, at which to write a folder or file; it is then put at the target.

    Args:
        target: nothing, or what `check_target` lets pass.
        command: that writes it.

    Raises:
        OSError: it cannot be written; what was at the target is still there.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    made = partial(target)
    remove(made)  # of a run that was killed
    try:
        yield made
        for path in [*made.rglob("*"), made]:
            force(path)
        if is_former(target, command):
            os.rename(target, put_aside(target))
        os.rename(made, target)
    except BaseException:
        remove(made)
        raise
    finally:
        restore(target)
    force(target.parent)
