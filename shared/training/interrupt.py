"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

Ctrl-C and `kill` as a request: the step at hand is finished and saved before the program ends.
"""

import signal
import threading
from types import FrameType


class Interrupt:
    """While entered, the first SIGINT or SIGTERM is only noted; a second SIGINT stops at once, as ever."""

    def __init__(self) -> None:
        """Nothing was received yet."""
        self.received: int | None = None
        self._before: dict[int, object] = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():  # only there may handlers be set
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
