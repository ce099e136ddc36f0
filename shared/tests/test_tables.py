"""Tables for a terminal, a document and a spreadsheet: whatever stands in a cell, it stays one cell, and text."""

import csv
import io
import math
import os
import random
import re
import unicodedata

import pytest

from shared.experiments import tables
from shared.experiments.tables import amount, clean, date, duration, is_formula, render, size, value, width

HEADERS = ("name", "value")


@pytest.fixture
def columns(monkeypatch):
    """Set the width of the terminal."""
    return lambda n: monkeypatch.setenv("COLUMNS", str(n))


def test_a_table_for_the_terminal(columns):
    columns(80)
    text = render(HEADERS, [["first", "0010"], ["second one", "1e5"], ["", "45,000"]])
    assert text.splitlines() == [
        "name        value",
        "----------  ------",
        "first       0010",  # no number is made of a name
        "second one  1e5",
        "            45,000",
    ]


def test_chinese_keeps_columns_aligned(columns):
    columns(80)
    lines = render(HEADERS, [["中文名字", "a"], ["latin", "b"], ["e\u0301", "c"]]).splitlines()
    starts = {width(line[: re.search(r" [abcv]", line).end() - 1]) for line in [lines[0], *lines[2:]]}
    assert starts == {10}


@pytest.mark.parametrize("n", [20, 40, 79, 200])
def test_it_fits_the_terminal_and_loses_nothing(n, columns):
    columns(n)
    cells = ["a-b " * 20, "x" * 150, "中文" * 40, "2026-01-02-030405", "45,000 " * 9]
    text = render(["one", "two"], [[cell, cell[::-1]] for cell in cells])
    assert max(map(width, text.splitlines())) <= n
    shown = sorted(re.sub(r"\s", "", text).replace("one", "").replace("two", "").lstrip("-"))
    everything = sorted(re.sub(r"\s", "", "".join(cell * 2 for cell in cells)))
    assert shown[shown.count("-") :] == everything[everything.count("-") :]


def test_a_pipe_has_no_width(columns, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: (_ for _ in ()).throw(OSError))
    assert len(render(HEADERS, [["word " * 999, "b"]]).splitlines()) == 3


def test_a_terminal_too_narrow_for_any_table(columns):
    columns(5)
    assert "second" in render(HEADERS, [["first", "second"]])


@pytest.mark.parametrize("format", ["terminal", "markdown", "csv"])
@pytest.mark.parametrize("cell", ["\x1b[2J", "a\rb", "a\nb", "\x9b31m", "\u202eabc", "\u2028", "\ud800", "\0", "\t"])
def test_nothing_reaches_a_terminal_raw(cell, format, columns):
    columns(80)
    text = render(["head" + cell], [[cell + "x"]], format)
    assert all(character.isprintable() or character == "\n" for character in text)
    assert text.count("\n") == (2 if format == "csv" else 3) and "?" in text
    text.encode()


def test_a_table_in_markdown():
    text = render(HEADERS, [["a|b", "<script>"], ["\\", "c\nd"]], "markdown")
    assert text.splitlines()[:1] == ["| name | value       |"]
    assert [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines()[2:]] == [
        [" a\\|b ", " &lt;script> "],
        [" \\    ", " c?d         "],
    ]


def test_a_table_for_a_spreadsheet():
    cells = ["a,b", 'say "x"', "=1+1", "+1", "-0.5", "-1,000", "-5%", "-x", "@SUM(A1)", " =1", "1e-5", "", "plain", "-"]
    rows = list(csv.reader(io.StringIO(render(["cell"], [[cell] for cell in cells], "csv"))))
    kept = [row[0] if row else "" for row in rows[1:]]
    assert kept == [f"'{c}" if c in ("=1+1", "-x", "@SUM(A1)", " =1", "-") else c for c in cells]
    assert not any(is_formula(cell) for cell in kept)


def test_no_rows():
    assert render(HEADERS, [], "csv") == "name,value\n"
    assert render(HEADERS, [], "terminal").splitlines()[0] == "name  value"
    assert render(HEADERS, [], "markdown").count("\n") == 2


def test_rows_of_another_length_are_a_mistake():
    with pytest.raises(ValueError):
        render(HEADERS, [["one"]])


def test_any_text_at_all(columns):
    columns(60)
    generator = random.Random(0)
    for _ in range(200):
        cell = "".join(
            chr(generator.choice([generator.randrange(128), generator.randrange(0x11000)])) for _ in "x" * 30
        )
        for format in ("terminal", "markdown", "csv"):
            text = render(HEADERS, [[cell, "b"]], format)
            assert all(character.isprintable() or character == "\n" for character in text)
            assert format == "terminal" or text.count("\n") == (3 if format == "markdown" else 2)


def test_the_width_of_characters():
    assert [width(text) for text in ("abc", "中文", "e\u0301", "", "ﾊ")] == [3, 4, 1, 0, 1]
    assert unicodedata.east_asian_width("中") == "W"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (3.14, "3.1 s"),
        (9.99, "10.0 s"),
        (35.4, "35 s"),
        (59.7, "1 min 0 s"),
        (275, "4 min 35 s"),
        (3599.6, "1 h 0 min"),
        (7530, "2 h 5 min"),
        (90_000, "1 d 1 h"),
        (1e9, "11574 d 1 h"),
        (-5, "-5.0 s"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_amounts_sizes_dates():
    assert [amount(n) for n in (192_000, 7, 0, 1e6, 2.5)] == ["192,000", "7", "0", "1,000,000", "2"]
    assert size(12_900_000) == "12.3 MiB" and size(0) == "0.0 MiB"
    assert re.fullmatch(r"2023-11-1\d \d\d:\d\d", date(1.7e9))
    assert [date(time) for time in (1e300, -1e300, 1e15, math.nan)] == ["?"] * 4


@pytest.mark.parametrize(
    ("content", "text"),
    [(None, "null"), (True, "true"), ([1, "a"], "[1, a]"), ("a b", "a b"), (0.5, "0.5"), ({}, "{}")],
)
def test_values_as_in_yaml(content, text):
    assert value(content) == text


def test_long_values_stay_on_a_line():
    assert "\n" not in value(["word word"] * 500) and "\n" not in value("word " * 500)


def test_warnings_are_a_line_each(capsys):
    tables.warn(["one\nline", "\x1b[2J"])
    assert capsys.readouterr() == ("", "one?line\n?[2J\n")
    assert clean(3) == "3"
