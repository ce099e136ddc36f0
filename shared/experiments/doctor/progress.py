"""Introduced in task 1; used by task 1.

What the doctor is at, on standard error: at once on a terminal, and elsewhere where a step takes long.
"""

import contextlib
import sys
import threading
from collections.abc import Iterator

LONG = 10.0  # seconds


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """Say in one line what is examined meanwhile; off a terminal only if that takes more than 10 seconds."""
    out = sys.stderr

    def say() -> None:
        print(f"doctor: {what} …", file=out, flush=True)

    timer = threading.Timer(0.0 if out.isatty() else LONG, say)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
