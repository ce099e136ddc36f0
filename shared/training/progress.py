"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

How far a training is: a bar where somebody watches a terminal, plain lines where the output goes to a file.
"""

import sys
import time

from tqdm import tqdm


class Progress:
    """Shows step, loss, images a second and the time left, on standard error."""

    def __init__(self, first: int, steps: int, shown: bool = True):
        """For steps `first` … `steps`; of several processes one is shown."""
        self.steps, self.first, self.began = steps, first, time.perf_counter()
        bar, self.shown = shown and sys.stderr.isatty(), shown
        self.bar = tqdm(total=steps, initial=first, unit="step", dynamic_ncols=True) if bar else None

    def step(self) -> None:
        """One optimizer step is done."""
        if self.bar is not None:
            self.bar.update()

    def report(self, n: int, loss: float, rate: float) -> None:
        """Show the mean loss and the images a second since the last report."""
        if self.bar is not None:
            self.bar.set_postfix_str(f"loss {loss:.4f}, {rate:.0f} images/s")
            return
        if not self.shown:
            return
        left = (time.perf_counter() - self.began) / max(n - self.first, 1) * (self.steps - n)
        minutes, seconds = divmod(round(left), 60)
        line = f"step {n}/{self.steps}  loss {loss:.4f}  {rate:.0f} images/s  {minutes}:{seconds:02d} left"
        print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self.bar is not None:
            self.bar.close()
