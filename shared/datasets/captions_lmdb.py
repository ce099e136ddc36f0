"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

Images with captions in an LMDB as shared/datasets/database.py reads it, with a second record for each picture.

    pictures/train/0001.png    the image file's bytes
    captions/train/0001.png    JSON, in UTF-8: {"en": "a boat", "zh": "一艘船"}

The JSON is a line of `metadata.jsonl` without its file name (shared/datasets/captions.py).
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from shared.datasets.caption_files import Said, parse, texts_of
from shared.datasets.database import PICTURES, Database, write_database
from shared.errors import UserError

CAPTIONS = "captions/"


class Record(NamedTuple):
    """One picture to be written."""

    name: str  # a path with forward slashes
    picture: bytes  # of an image file
    fields: dict[str, Any]  # captions by language


class CaptionDatabase(Database):
    """The pictures of an LMDB, and what is said of each."""

    layout = f"keys {PICTURES}… and {CAPTIONS}… are expected"

    def said(self, name: str, languages: tuple[str, ...]) -> Said:
        """The captions of a picture. Raises `UserError` where the record is missing or cannot be read."""
        where = f"the LMDB {self.path}, key {CAPTIONS}{name},"
        try:
            record = self._get(CAPTIONS + name)
        except KeyError:
            raise UserError(f"{where} is missing: each picture needs its captions") from None
        return texts_of(parse(record, where), languages, where)


def write_captioned(folder: Path, records: Iterable[Record]) -> None:
    """Write pictures and captions into a new LMDB; raises as `write_database`."""
    write_database(folder, map(entry, records))


def entry(record: Record) -> dict[str, bytes]:
    """The two keys of a picture with their values."""
    captions = json.dumps(record.fields, ensure_ascii=False).encode()
    return {PICTURES + record.name: record.picture, CAPTIONS + record.name: captions}
