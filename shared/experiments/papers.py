"""Introduced in task 1; used by task 1.

Published figures with their protocols, read from papers.yaml, which says how it is laid out. Free of torch.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.cli import read_yaml
from shared.errors import UserError
from shared.experiments.figures import FIGURES
from shared.experiments.protocol import FINER, REQUIRED

FILE = Path(__file__).with_name("papers.yaml")
NUMBER = r"(-?\d+(?:\.\d+)?)"
VALUE = re.compile(rf"(≤ )?{NUMBER}(?: ± {NUMBER})?")

# What the file may hold, and of which type; the names with True must be there.
Fields = dict[str, tuple[type, bool]]
TOP: Fields = {"read": (dict, True), "papers": (dict, True), "tables": (list, True)}
PAPER: Fields = {"authors": (str, True), "year": (int, False), "arxiv": (str, False), "repository": (str, False)}
TABLE: Fields = {
    **{name: (str, True) for name in ("paper", "table", "read")},
    **{name: (str, False) for name in ("figure", "model", "note", "down")},
    **{"protocol": (dict, True), "across": (dict, False), "values": (object, True)},
}
PROTOCOL = REQUIRED + FINER
NUMBERS = ("n", "steps", "guidance", "eta")  # the others are text, but clamp


@dataclass(frozen=True)
class PaperRow:
    """One published figure."""

    paper: str
    """short name"""
    table: str
    """table or other place in the paper or README"""
    figure: str
    """name in `FIGURES`"""
    value: float
    """in the figure's unit"""
    deviation: float | None
    """where the source gives one"""
    bound: str | None
    """the sign ≤ where the value is a bound"""
    protocol: dict[str, Any]
    """fields of `shared.experiments.protocol`; what is not stated is not there"""
    read: str
    """how the figure was read: a letter that papers.yaml explains"""
    protocol_read: dict[str, str]
    """how each field of the protocol was read: the same, or K"""
    model: str | None
    """which model, objective or setting of the paper"""
    note: str | None
    """what else a reader should know"""
    authors: str
    """family names"""
    year: int | None
    """of publication"""
    arxiv: str | None
    """number of the paper at arXiv"""
    repository: str | None
    """the project's own, at GitHub"""

    @property
    def label(self) -> str:
        """Short name for a line of a table, such as "DDIM, table 1 (P)" or "DiT XL/2, table 4 (P)"."""
        model = self.model or ""
        name = model if model.startswith(self.paper) else f"{self.paper} {model}".rstrip()
        return f"{name}, {self.table} ({self.read})"


def meanings(path: Path = FILE) -> dict[str, str]:
    """What the letters mean by which figures were read: P, R, S, K."""
    return {str(letter): str(meaning) for letter, meaning in read_yaml(path)["read"].items()}


def papers(path: Path = FILE, data: str | None = None, figure: str | None = None) -> list[PaperRow]:
    """The published figures, in the file's order.

    Args:
        path: a file laid out as papers.yaml is.
        data: only figures of this data set.
        figure: only figures of this name.

    Raises:
        UserError: the file is missing or malformed; the message names the entry.
    """
    content = read_yaml(path)
    check(content, TOP, str(path))
    for name, paper in content["papers"].items():
        check(paper, PAPER, f"{path}, paper {name}")
    rows = []
    for i, table in enumerate(content["tables"], start=1):
        where = f"{path}, entry {i}"
        check(table, TABLE, where)
        where += f" ({table['paper']}, {table['table']})"
        if table["paper"] not in content["papers"]:
            raise UserError(f"{where}: papers does not list {table['paper']}")
        source = {name: content["papers"][table["paper"]].get(name) for name in PAPER}
        rows += [make_row(table, source, fields, value, where) for fields, value in cells(table, where)]
    return [row for row in rows if data in (None, row.protocol.get("data")) and figure in (None, row.figure)]


def check(content: Any, known: Fields, where: str) -> None:
    """Raise UserError if `content` is not a mapping with the fields of `known`, each of its type."""
    if not isinstance(content, dict):
        raise UserError(f"{where}: does not hold names and values")
    for name in content:
        if name not in known:
            raise UserError(f"{where}: unknown field {name}; known are {', '.join(known)}")
    for name, (kind, required) in known.items():
        value = content.get(name)
        if value is None and required:
            raise UserError(f"{where}: {name} is missing")
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            raise UserError(f"{where}: {name} is {value!r}, which is not of type {kind.__name__}")


def cells(table: dict[str, Any], where: str) -> Iterator[tuple[dict[str, Any], Any]]:
    """Each value of a table, with the fields that its column and line state."""
    across = table.get("across") or {}
    lengths = {len(column) if isinstance(column, list) else 0 for column in across.values()}
    if across and (len(lengths) > 1 or 0 in lengths):
        raise UserError(f"{where}: across must hold lists of one length")
    columns = [dict(zip(across, entries, strict=True)) for entries in zip(*across.values(), strict=True)]
    values = table["values"]
    if (down := table.get("down")) is None:
        lines = [({}, values)]
    elif isinstance(values, dict):
        lines = [({down: name}, line) for name, line in values.items()]
    else:
        raise UserError(f"{where}: with down, values must hold a name and its values for each line")
    for fields, line in lines:
        if not across:
            yield fields, line
            continue
        place = "".join(f", {name} {value}" for name, value in fields.items())
        if not isinstance(line, list) or len(line) != len(columns):
            raise UserError(f"{where}{place}: values must be a list of {len(columns)}, as across says")
        yield from ((fields | column, value) for column, value in zip(columns, line, strict=True))


def make_row(table: dict[str, Any], source: dict[str, Any], fields: dict[str, Any], value: Any, where: str) -> PaperRow:
    """One figure: the table's fields, overruled by those of its column and line."""
    protocol, tags = read_protocol(table["protocol"], where)
    facts = {name: table.get(name) for name in ("figure", "model", "note")}
    for name, entry in fields.items():
        if name in PROTOCOL:
            protocol[name] = entry
            tags.setdefault(name, table["read"])
        elif name in facts:
            facts[name] = entry
        else:
            raise UserError(f"{where}: {name} names neither figure, model, note nor a field of a protocol")
    protocol = {name: protocol[name] for name in PROTOCOL if protocol.get(name) is not None}
    check_protocol(protocol, where)
    if table["read"] not in tuple("PRS"):
        raise UserError(f"{where}: read is {table['read']}, not P, R or S")
    if facts["figure"] not in list(FIGURES):  # a list compares with whatever the file holds
        raise UserError(f"{where}: figure is {facts['figure']}; known are {', '.join(FIGURES)}")
    for name in ("model", "note"):
        if not isinstance(facts[name], str | None):
            raise UserError(f"{where}: {name} is {facts[name]!r}, which is not text")
    return PaperRow(
        paper=table["paper"],
        table=table["table"],
        **facts,
        **read_value(value, where),
        protocol=protocol,
        read=table["read"],
        protocol_read={name: tags[name] for name in protocol},
        **source,
    )


def read_protocol(groups: dict[str, Any], where: str) -> tuple[dict[str, Any], dict[str, str]]:
    """A protocol's fields, which the file groups by how they were read, and the letter of each."""
    protocol, tags = {}, {}
    for tag, group in groups.items():
        if tag not in tuple("PRSK") or not isinstance(group, dict):
            raise UserError(f"{where}: protocol holds {tag}; it must hold fields by P, R, S or K")
        for name, value in group.items():
            if name not in PROTOCOL:
                raise UserError(f"{where}: protocol field {name} is not known; known are {', '.join(PROTOCOL)}")
            if name in protocol:
                raise UserError(f"{where}: protocol field {name} stands there twice")
            protocol[name], tags[name] = value, tag
    return protocol, tags


def check_protocol(protocol: dict[str, Any], where: str) -> None:
    """Raise UserError if a field is of another type than its kind: a number, a yes or no, or text."""
    for name, value in protocol.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if name == "clamp":
            good, kind = isinstance(value, bool), "true or false"
        elif name in NUMBERS:
            # Text stands for what has no number: "none", or guidance by a classifier.
            good, kind = number and math.isfinite(value) and value >= 0 or isinstance(value, str), "a number"
        else:
            good, kind = isinstance(value, str), "text"
        if name == "weights":
            good, kind = value in ("ema", "model", "swa"), "ema, model or swa"
        if not good:
            raise UserError(f"{where}: {name} is {value!r}, which is not {kind}")


def read_value(value: Any, where: str) -> dict[str, Any]:
    """Value, deviation and bound of a cell such as 3.17, "9.46 ± 0.11" or "≤ 3.75"."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return {"value": float(value), "deviation": None, "bound": None}
    if not isinstance(value, str) or not (match := VALUE.fullmatch(value)):
        raise UserError(f'{where}: the value {value!r} is no number, nor like "9.46 ± 0.11" or "≤ 3.75"')
    return {
        "value": float(match[2]),
        "deviation": float(match[3]) if match[3] else None,
        "bound": "≤" if match[1] else None,
    }
