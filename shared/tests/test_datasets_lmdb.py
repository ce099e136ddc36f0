"""Images out of an LMDB: the same as out of the folder that they lay in, and one line for all that goes wrong."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from shared.datasets import DataConfig, folder, load
from shared.datasets.captions_lmdb import Record, write_captioned
from shared.datasets.database import write_database
from shared.datasets.images import ImageFolder, InMemory
from shared.errors import UserError
from shared.tests.test_datasets_folder import text, write

lmdb = pytest.importorskip("lmdb", reason="an LMDB needs the extra lmdb")


def packed(tree: Path) -> Path:
    """The files of a tree as an LMDB beside it."""
    names = sorted(path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file())
    write_database(tree.parent / "packed", ({f"pictures/{name}": (tree / name).read_bytes()} for name in names))
    return tree.parent / "packed"


def opened(root: Path, **config) -> InMemory | ImageFolder:
    return load(DataConfig(name="lmdb", root=str(root), **config))


def complaint(root: Path | None, **config) -> str:
    with pytest.raises(UserError) as caught:
        load(DataConfig(name="lmdb", root=None if root is None else str(root), **config))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def tree(tmp_path) -> Path:
    """Two classes and a loose image, in two parts."""
    for i, name in enumerate(["train/a/1.png", "train/b/2.png", "train/3.png", "test/b/4.png"]):
        write(tmp_path / "tree" / name, 10 * i)
    return tmp_path / "tree"


@pytest.mark.parametrize("held", [True, False])
def test_an_lmdb_equals_its_folder(tree, monkeypatch, held):
    if not held:
        monkeypatch.setattr(folder, "IN_MEMORY", 0)
    root = packed(tree)
    for place in (root, root / "data.mdb"):
        for split in ("train", "test"):
            expected = load(DataConfig(name="folder", root=str(tree), split=split, size=6, channels=1))
            found = opened(place, split=split, size=6, channels=1)
            assert type(found) is type(expected) and found.classes == expected.classes == [".", "a", "b"]
            for (x, cond), (y, other) in zip(found, expected, strict=True):
                assert torch.equal(x, y) and torch.equal(cond["label"], other["label"])


def test_through_a_loader_process_with_one_that_cannot_be_read(tree, monkeypatch):
    monkeypatch.setattr(folder, "IN_MEMORY", 0)
    text(tree / "train/b/2.png")
    data = opened(packed(tree), bad_share=0.4)
    x = torch.cat([x for x, _ in DataLoader(data, num_workers=1, multiprocessing_context="spawn")])
    assert torch.equal(x[2], x[0]) and not torch.equal(x[1], x[0])  # the first comes after the last
    assert len(data.skipped) == 1 and "packed/train/b/2.png (" in data.skipped[0]


def test_one_with_captions_is_read_for_its_pictures(tree, tmp_path):
    records = [Record("a/1.png", (tree / "train/a/1.png").read_bytes(), {"en": "black"})]
    write_captioned(tmp_path / "said", records)
    assert opened(tmp_path / "said").classes == ["a"] and len(opened(tmp_path / "said")) == 1
    environment = lmdb.open(str(tmp_path / "again"))
    with environment.begin(write=True) as transaction:  # the layout, written by hand
        transaction.put(b"pictures/a/1.png", records[0].picture)
        transaction.put(b"captions/a/1.png", json.dumps({"en": "black"}).encode())
    environment.close()
    assert torch.equal(opened(tmp_path / "again").images, opened(tmp_path / "said").images)


def test_what_is_no_lmdb(tmp_path, tree):
    assert "needs --data.root" in complaint(None)
    assert f"{tmp_path}/none does not exist" in complaint(tmp_path / "none")
    assert f"{tree} is no LMDB" in complaint(tree)
    write_database(tmp_path / "empty", [{"other/1": b"x"}])
    assert "holds no pictures: keys pictures/… are expected" in complaint(tmp_path / "empty")


def test_one_cut_short(tree):
    path = packed(tree) / "data.mdb"
    path.write_bytes(path.read_bytes()[:-4096])
    assert "is damaged" in complaint(path.parent)


def test_without_the_package_one_line_says_what_to_install(tree, monkeypatch):
    root = packed(tree)
    monkeypatch.setitem(sys.modules, "lmdb.verify", None)
    assert "pip install -e '.[lmdb]'" in complaint(root)
