"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

Images with captions in one file: an LMDB, with two records for each picture. Nothing in it is pickled.

    pictures/train/0001.png    the image file's bytes
    captions/train/0001.png    JSON, in UTF-8: {"en": "a boat", "zh": "一艘船"}

What follows `pictures/` is a path as it would be in a folder: `train` and `test` in front are splits. The JSON is a
line of `metadata.jsonl` without its file name (shared/datasets/captions.py).

LMDB believes what a file says of itself: one that is cut short or made with ill intent ends the process that opens
it. So the whole tree of pages is checked first, by lmdb's own verifier, which maps nothing. What it says holds as long
as nobody writes to the file.
"""

import json
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakValueDictionary

from shared.datasets.caption_files import Said, parse, texts_of
from shared.errors import UserError

if TYPE_CHECKING:
    import lmdb

DATA = "data.mdb"  # what LMDB calls its file in a folder
MAGIC = (0xBEEFC0DE).to_bytes(4, "little"), (0xBEEFC0DE).to_bytes(4, "big")
PICTURES, CAPTIONS = "pictures/", "captions/"
FIRST_SIZE = 2**24  # bytes of the map when writing begins; it is doubled whenever it is full

# LMDB forbids opening a file twice in a process, and two splits are two data sets: so by file, what is open.
_opened: "WeakValueDictionary[tuple[int, int], lmdb.Environment]" = WeakValueDictionary()


class Record(NamedTuple):
    """One picture to be written."""

    name: str  # a path with forward slashes
    picture: bytes  # of an image file
    fields: dict[str, Any]  # captions by language


def import_lmdb():
    """lmdb with its verifier, or a `UserError` that says how to get it."""
    try:
        import lmdb
        import lmdb.verify
    except ImportError:
        raise UserError("an LMDB needs the extra text: pip install -e '.[text]'") from None
    return lmdb


def is_lmdb(path: Path) -> bool:
    """Whether a folder or file is an LMDB, judged by the file's first bytes, or by its name within a folder."""
    if path.is_dir():
        return (path / DATA).is_file()
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        start = file.read(32)  # the header of the first page, whose length depends on the version, and more
    return any(magic in start for magic in MAGIC)


class Database:
    """The pictures of an LMDB, with the face of a `Tree`. Can be sent to loader processes."""

    wrapped = False

    def __init__(self, path: Path) -> None:
        """Check the file and list the pictures. Raises `UserError` where it is damaged or holds none."""
        self.path = path
        self._environment: lmdb.Environment | None = None
        self._verify()
        keys = self._keys()
        self.names = sorted(key.removeprefix(PICTURES) for key in keys if key.startswith(PICTURES))
        if not self.names:
            layout = f"keys {PICTURES}… and {CAPTIONS}… are expected"
            raise UserError(f"the LMDB {path} holds no pictures: {layout}")

    def open(self, name: str) -> BytesIO:
        return BytesIO(self._get(PICTURES + name))

    def where(self, name: str) -> str:
        return f"{self.path}/{name}"

    def said(self, name: str, languages: tuple[str, ...]) -> Said:
        """The captions of a picture. Raises `UserError` where the record is missing or cannot be read."""
        where = f"the LMDB {self.path}, key {CAPTIONS}{name},"
        try:
            record = self._get(CAPTIONS + name)
        except KeyError:
            raise UserError(f"{where} is missing: each picture needs its captions") from None
        return texts_of(parse(record, where), languages, where)

    def _get(self, key: str) -> bytes:
        with self._open().begin() as transaction:
            value = transaction.get(key.encode())
        if value is None:
            raise KeyError(key)
        return value

    def _keys(self) -> list[str]:
        lmdb = import_lmdb()
        try:
            with self._open().begin() as transaction:
                return [key.decode() for key in transaction.cursor().iternext(values=False)]
        except (lmdb.Error, UnicodeDecodeError) as error:
            raise UserError(f"the LMDB {self.path} cannot be read ({error}): make or fetch it again") from None

    def _verify(self) -> None:
        lmdb = import_lmdb()
        try:
            problems = lmdb.verify.verify(str(self.path), subdir=self.path.is_dir())
            problems = problems or self._missing_end()
        except (lmdb.verify.VerifyError, lmdb.Error, OSError) as error:
            problems = [str(error)]
        if problems:
            raise UserError(f"the LMDB {self.path} is damaged ({problems[0]}): make or fetch it again")

    def _missing_end(self) -> list[str]:
        """What is wrong with the file's length: the verifier sees only the first page of a long value."""
        environment = self._open()
        claimed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
        size = self._file().stat().st_size
        return [f"it has only {size:,} of {claimed:,} bytes"] if size < claimed else []

    def _file(self) -> Path:
        return self.path / DATA if self.path.is_dir() else self.path

    def _open(self) -> "lmdb.Environment":
        """This process's environment of the file, opened on first use; a forked process may go on with its parent's."""
        if self._environment is None:
            lmdb = import_lmdb()
            about = self._file().stat()
            key = (about.st_dev, about.st_ino)
            environment = _opened.get(key)
            if environment is None:
                inside = self.path.is_dir()
                environment = lmdb.open(str(self.path), subdir=inside, readonly=True, lock=False, readahead=False)
                _opened[key] = environment
            self._environment = environment
        return self._environment

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_environment": None}


def write_database(folder: Path, records: Iterable[Record]) -> None:
    """Write pictures and captions into a new LMDB, `data.mdb` in a folder; forced to the disk at the end.

    Raises:
        UserError: lmdb is not installed, or the file cannot be written.
        OSError: the folder cannot be made.
    """
    lmdb = import_lmdb()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with lmdb.open(str(folder), map_size=FIRST_SIZE, lock=False, sync=False) as environment:
            for record in records:
                put(environment, record)
            environment.sync(True)
    except lmdb.Error as error:  # of a full disk, too
        raise UserError(f"the LMDB {folder} cannot be written ({error}): see that the disk has room") from None


def put(environment: "lmdb.Environment", record: Record) -> None:
    """Write one picture and its captions: both, or neither."""
    lmdb = import_lmdb()
    captions = json.dumps(record.fields, ensure_ascii=False)
    while True:
        try:
            with environment.begin(write=True) as transaction:
                transaction.put((PICTURES + record.name).encode(), record.picture)
                transaction.put((CAPTIONS + record.name).encode(), captions.encode())
            return
        except lmdb.MapFullError:
            environment.set_mapsize(2 * environment.info()["map_size"])
