"""Introduced in task 1; used by tasks 1, 3.

Tables for a terminal, a document or a spreadsheet, and how amounts are written in them. What stands in a cell may come
from somebody else's run: nothing in it reaches a terminal as a command, or a spreadsheet as a formula.
"""

import csv
import io
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Literal

import tabulate
import yaml

Format = Literal["terminal", "markdown", "csv"]
GAP = 2  # columns between two cells
LEAST = 8  # columns that a cell keeps however narrow the terminal is
tabulate.MIN_PADDING = 0  # else each header takes two columns more than it has letters
ENDLESS = 1 << 20  # columns of what is no terminal: a file, or a pipe into grep, has a line for each row


def clean(text: object) -> str:
    """Text that a terminal prints and does nothing else with: escapes, line breaks and the like become "?"."""
    return "".join(character if character.isprintable() else "?" for character in str(text))


def warn(problems: Iterable[str]) -> None:
    """Print what is wrong, a line each, beside the output and not in it."""
    for problem in problems:
        print(clean(problem), file=sys.stderr)


def value(content: Any) -> str:
    """A config's value as its YAML file has it."""
    text = yaml.safe_dump(content, default_flow_style=True, allow_unicode=True, width=ENDLESS)
    return text.removesuffix("...\n").strip()


def width(text: str) -> int:
    """The columns that a text takes in a terminal: two for each Chinese character, none for an accent of its own."""
    return sum(
        0 if unicodedata.combining(character) else 1 + (unicodedata.east_asian_width(character) in "WF")
        for character in text
    )


def render(headers: Sequence[str], rows: Sequence[Sequence[str]], format: Format = "terminal") -> str:
    """A table as text, with a line break at its end.

    Args:
        headers: names of the columns.
        rows: cells as text, as many in each row as there are headers.
        format: "terminal" fits the terminal's width by breaking long cells into lines (a pipe or a file has no
            width); "markdown" and "csv" change nothing but what would not be a cell's text there.
    """
    headers, rows = [clean(header) for header in headers], [[clean(cell) for cell in row] for row in rows]
    if format == "csv":
        return as_csv([headers, *rows])
    if format == "markdown":
        headers, rows = [escaped(header) for header in headers], [[escaped(cell) for cell in row] for row in rows]
        return tabulate.tabulate(rows, headers, "pipe", disable_numparse=True) + "\n"
    columns = list(zip(headers, *rows, strict=True))
    widths = fitted([max(map(width, column)) for column in columns], shutil.get_terminal_size((ENDLESS, 24)).columns)
    # Broken here: given widths, tabulate 0.10 makes numbers of cells, whatever it was told (0010 becomes 10).
    headers, *rows = [[broken(*pair) for pair in zip(row, widths, strict=True)] for row in [headers, *rows]]
    table = tabulate.tabulate(rows, headers, "simple", disable_numparse=True)
    return "\n".join(line.rstrip() for line in table.splitlines()) + "\n"


def broken(cell: str, columns: int) -> str:
    """A cell's text in lines of at most so many columns."""
    if width(cell) == len(cell):
        return "\n".join(textwrap.wrap(cell, columns))
    filled = "".join(character + "\0" * (width(character) - 1) for character in cell)  # as textwrap counts characters
    return "\n".join(textwrap.wrap(filled, columns - 1)).replace("\0", "")


def fitted(widths: list[int], total: int) -> list[int]:
    """The widths of columns, the widest made narrower until all fit into `total`."""
    widths = [max(1, width) for width in widths]
    while sum(widths) + GAP * (len(widths) - 1) > total and max(widths, default=0) > LEAST:
        widths[widths.index(max(widths))] -= 1
    return widths


def escaped(cell: str) -> str:
    """A cell's text in Markdown: no end of the cell, and no HTML."""
    return cell.replace("|", "\\|").replace("<", "&lt;")


def as_csv(rows: Sequence[Sequence[str]]) -> str:
    """Lines of comma-separated values. What a spreadsheet would compute gets an apostrophe, which makes it text."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([[f"'{c}" if is_formula(c) else c for c in row] for row in rows])
    return text.getvalue()


def is_formula(cell: str) -> bool:
    """Whether a spreadsheet would take a text for a formula."""
    try:
        float(cell.removesuffix("%").replace(",", ""))
    except ValueError:
        return cell.lstrip().startswith(("=", "+", "-", "@"))
    return False


def duration(seconds: float) -> str:
    """A time as two units, such as "4 min 35 s"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")]
    first = next((i for i, (n, _) in enumerate(parts) if n), 3)
    return " ".join(f"{n} {unit}" for n, unit in parts[first : first + 2])


def amount(n: float) -> str:
    """A number of things, such as "192,000"."""
    return f"{round(n):,}"


def size(count: float) -> str:
    """A number of bytes, such as "12.3 MiB"."""
    return f"{count / 2**20:,.1f} MiB"


def date(time: float) -> str:
    """A time in seconds since 1970 as date and time of day here."""
    try:
        return datetime.fromtimestamp(time).strftime("%Y-%m-%d %H:%M")
    except (OverflowError, ValueError, OSError):  # no time that a calendar knows
        return "?"
