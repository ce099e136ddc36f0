"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

Files that are either whole or not there. A new version is written beside the old one, forced to the disk, and then
renamed over it: whoever reads, and whenever the process is killed, finds the old file or the new one, never a part. The
last functions read small files, which may come from anywhere.
"""

import contextlib
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared.errors import UserError


def partial(path: Path) -> Path:
    """Where a file lies while it is being written. The name ends as the final one does: writers choose by suffix."""
    return path.with_name(f".partial-{path.name}")


def force(path: Path) -> None:
    """Have a file's content, or a folder's list of names, reach the disk before anything that follows."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write(temporary path)` make a file, then put it at `path` in one step.

    Raises:
        OSError: it could not be written; what was at `path` before is still there, and nothing else.
    """
    temporary = partial(path)
    try:
        write(temporary)
        force(temporary)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # the first error is the one to report
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename is None:  # a failed write does not say where
            error.filename = str(path)
        raise
    force(path.parent)


def write_text(path: Path, text: str) -> None:
    """Put a text file at `path` in one step."""
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of names and values.

    Raises:
        UserError: it is not there, or not such a file.
    """
    if path.exists() and not path.is_file():  # reading a pipe would wait for ever
        raise UserError(f"{path} is no regular file: take it from a copy of the run")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path} is damaged: it is not valid JSON; take it from a copy of the run") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: it does not hold names and values; take it from a copy of the run")
    return content


def is_number(value: Any) -> bool:
    """Whether a value from JSON is a number, and finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # JSON has integers of any length
        return False


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run: every run writes its record.json first."""
    try:
        return folder.is_dir() and (folder / "record.json").is_file()
    except OSError:  # somebody else's, and closed to others
        return False
