"""A bar where somebody watches, plain lines where nobody does."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import sys
import termios

import pytest

from shared.tests import tiny
from shared.training.progress import Progress


class Terminal:
    """A pseudo-terminal as standard error, within a `with` block; `shown` is what could be read on it."""

    def __enter__(self):
        self.master, slave = pty.openpty()
        os.set_blocking(self.master, False)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))  # rows, columns, pixels
        self.screen, self.before, self.shown = os.fdopen(slave, "w"), sys.stderr, ""
        sys.stderr = self.screen  # not by a fixture: between the phases of a test, pytest puts its own in place
        return self

    def __exit__(self, *_):
        sys.stderr = self.before
        self.screen.flush()
        with contextlib.suppress(BlockingIOError):
            self.shown = os.read(self.master, 100_000).decode()
        self.screen.close()
        os.close(self.master)


def test_plain_lines(tmp_path, capsys):
    tiny.fit(tiny.Run(tmp_path), tiny.part(), log_every=2)
    lines = capsys.readouterr().err.splitlines()
    line = r"step (\d)/6  loss \d\.\d{4}  \d+ images/s  \d+:\d\d left"
    assert [re.fullmatch(line, text).group(1) for text in lines] == ["2", "4", "6"]
    assert lines[-1].endswith("0:00 left")


def test_a_bar_on_a_terminal(tmp_path):
    with Terminal() as terminal:
        tiny.fit(tiny.Run(tmp_path), tiny.part(), log_every=1)
    text = terminal.shown
    assert "6/6" in text and "100%" in text
    assert re.search(r"loss \d\.\d{4}, \d+ images/s", text)
    assert re.search(r"\d\d:\d\d<\d\d:\d\d", text)  # elapsed and left
    assert "\r" in text and "left" not in text


def test_a_resumed_bar_begins_where_it_was():
    with Terminal() as terminal:
        progress = Progress(first=40, steps=100)
        progress.step()
        progress.report(41, loss=0.5, rate=12.0)  # shows it at once, however quick the step was
        progress.close()
    assert "40/100" in terminal.shown and "41/100" in terminal.shown


@pytest.mark.parametrize(("n", "seconds", "left"), [(10, 5, "0:45"), (50, 3600, "60:00"), (100, 9, "0:00")])
def test_time_left(n, seconds, left, monkeypatch, capsys):
    monkeypatch.setattr("time.perf_counter", lambda: 1000.0)
    progress = Progress(first=0, steps=100)
    monkeypatch.setattr("time.perf_counter", lambda: 1000.0 + seconds)
    progress.report(n, 0.5, 12.3)
    assert capsys.readouterr().err == f"step {n}/100  loss 0.5000  12 images/s  {left} left\n"


def test_time_left_of_a_resumed_training(monkeypatch, capsys):
    """The steps of earlier days took none of this process's time."""
    monkeypatch.setattr("time.perf_counter", lambda: 0.0)
    progress = Progress(first=80, steps=100)
    monkeypatch.setattr("time.perf_counter", lambda: 10.0)
    progress.report(90, 0.5, 1)
    assert "0:10 left" in capsys.readouterr().err
