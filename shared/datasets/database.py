"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

Images in one file: an LMDB. What follows `pictures/` in a key is a path as it would be in a folder, sub-folders as
classes, `train` and `test` in front as splits. Nothing in it is pickled.

    pictures/cats/0001.png    the image file's bytes

LMDB believes what a file says of itself: one that is cut short or made with ill intent ends the process that opens
it. So the whole tree of pages is checked first, by lmdb's own verifier, which maps nothing. What it says holds as long
as nobody writes to the file.
"""

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from shared.errors import UserError

if TYPE_CHECKING:
    import lmdb

DATA = "data.mdb"  # what LMDB calls its file in a folder
MAGIC = (0xBEEFC0DE).to_bytes(4, "little"), (0xBEEFC0DE).to_bytes(4, "big")
PICTURES = "pictures/"
FIRST_SIZE = 2**24  # bytes of the map when writing begins; it is doubled whenever it is full

# LMDB forbids opening a file twice in a process, and two splits are two data sets: so by file, what is open.
_opened: "WeakValueDictionary[tuple[int, int], lmdb.Environment]" = WeakValueDictionary()


def import_lmdb():
    """lmdb with its verifier, or a `UserError` that says how to get it."""
    try:
        import lmdb
        import lmdb.verify
    except ImportError:
        raise UserError("an LMDB needs the extra lmdb: pip install -e '.[lmdb]'") from None
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
    layout = f"keys {PICTURES}… are expected"

    def __init__(self, path: Path) -> None:
        """Check the file and list the pictures. Raises `UserError` where it is damaged or holds none."""
        self.path = path
        self._environment: lmdb.Environment | None = None
        self._verify()
        keys = self._keys()
        self.names = sorted(key.removeprefix(PICTURES) for key in keys if key.startswith(PICTURES))
        if not self.names:
            raise UserError(f"the LMDB {path} holds no pictures: {self.layout}")

    def open(self, name: str) -> BytesIO:
        return BytesIO(self._get(PICTURES + name))

    def where(self, name: str) -> str:
        return f"{self.path}/{name}"

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


def write_database(folder: Path, entries: Iterable[dict[str, bytes]]) -> None:
    """Write a new LMDB, `data.mdb` in a folder, forced to the disk at the end: of each entry all keys, or none.

    Raises:
        UserError: lmdb is not installed, or the file cannot be written.
        OSError: the folder cannot be made.
    """
    lmdb = import_lmdb()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with lmdb.open(str(folder), map_size=FIRST_SIZE, lock=False, sync=False) as environment:
            for entry in entries:
                put(environment, entry)
            environment.sync(True)
    except lmdb.Error as error:  # of a full disk, too
        raise UserError(f"the LMDB {folder} cannot be written ({error}): see that the disk has room") from None


def put(environment: "lmdb.Environment", entry: dict[str, bytes]) -> None:
    """Write all keys of an entry, or none."""
    lmdb = import_lmdb()
    while True:
        try:
            with environment.begin(write=True) as transaction:
                for key, value in entry.items():
                    transaction.put(key.encode(), value)
            return
        except lmdb.MapFullError:
            environment.set_mapsize(2 * environment.info()["map_size"])
