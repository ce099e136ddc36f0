"""Introduced in task 1; used by tasks 1, 2, 3.

Files that are either whole or not there. A new version is written beside the old one, forced to the disk, and then
renamed over it: whoever reads, and whenever the process is killed, finds the old file or the new one, never a part.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path


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
