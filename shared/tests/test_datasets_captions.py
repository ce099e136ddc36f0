"""Folders and LMDBs of pictures with captions: what is read, which caption is drawn, one line for what goes wrong."""

import json
import os
import pickle
import random
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from shared.datasets import DataConfig, folder, load
from shared.datasets.captions import Captioned
from shared.datasets.captions_lmdb import Record, write_captioned
from shared.datasets.images import ImageFolder, InMemory
from shared.errors import UserError
from shared.tests.test_datasets_folder import DAMAGES, text, write
from shared.training.data import Seeded

BOTH = ("en", "zh")
FORMS = ("metadata", "beside", "lmdb")

# name -> (grey value, English captions, Chinese captions)
PAIRS = {
    "train/a.png": (10, ["a boat"], ["一艘船"]),
    "train/b.png": (20, ["a house", "a red house"], ["红房子"]),
    "train/deep/c.png": (30, ["a boat"], ["小船", "船"]),
    "test/d.png": (40, ["a bridge"], ["桥"]),
}


def lines(path: Path, *rows: dict | str) -> Path:
    """A file of JSON lines; what is text already is written as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def made(root: Path, form: str, pairs: dict = PAIRS) -> Path:
    """The same pairs in any of the layouts."""
    for name, (value, *_) in pairs.items():
        write(root / name, value)
    if form == "metadata":
        lines(root / "metadata.jsonl", *({"file_name": n, "en": en, "zh": zh} for n, (_, en, zh) in pairs.items()))
    elif form == "beside":
        for name, (_, *captions) in pairs.items():
            for language, own in zip(BOTH, captions, strict=True):
                (root / name).with_suffix(f".{language}.txt").write_text("\n".join(own) + "\n", encoding="utf-8")
    else:
        pytest.importorskip("lmdb", reason="an LMDB needs the extra text")
        records = (Record(n, (root / n).read_bytes(), {"en": en, "zh": zh}) for n, (_, en, zh) in pairs.items())
        write_captioned(root / "pairs", records)
        return root / "pairs"
    return root


def opened(root: Path, **config) -> Captioned:
    return load(DataConfig(name="captions", root=str(root), **config))


def complaint(root: Path | None, **config) -> str:
    with pytest.raises(UserError) as caught:
        load(DataConfig(name="captions", root=None if root is None else str(root), **config))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def value(x: torch.Tensor) -> int:
    """The grey of a picture of one colour."""
    return round((float(x.mean()) + 1) * 127.5)


def spoken(data: Captioned) -> dict[int, list[str]]:
    """All captions of each picture, by its grey."""
    return {value(data[i][0]): [data.captions[j] for j in data.captions_of(i)] for i in range(len(data))}


# --- what is read -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("in_memory", [True, False])
def test_every_layout_gives_the_same_pairs(tmp_path, monkeypatch, form, in_memory):
    monkeypatch.setattr(folder, "IN_MEMORY", folder.IN_MEMORY if in_memory else 0)
    root = made(tmp_path, form)
    for languages in (("en",), ("zh",), BOTH, ("zh", "en")):
        for split in ("train", "test"):
            data = opened(root, languages=languages, split=split)
            assert isinstance(data.pictures, InMemory if in_memory else ImageFolder)
            expected = {
                grey: [text for language in languages for text in said[BOTH.index(language)]]
                for name, (grey, *said) in PAIRS.items()
                if name.startswith(split)
            }
            assert spoken(data) == expected
            assert set(data.captions) == {text for texts in expected.values() for text in texts}
            assert data.shape == (3, 8, 8)


def test_an_item_is_a_picture_in_unit_range_and_the_index_of_one_of_its_captions(tmp_path):
    data = opened(made(tmp_path, "metadata"))
    x, cond = data[0]
    assert torch.allclose(x, torch.full((3, 8, 8), 10 / 127.5 - 1))
    assert list(cond) == ["caption"] and cond["caption"].dtype == torch.long and cond["caption"].shape == ()
    assert data.captions[cond["caption"]] == "a boat"
    assert len(data) == 3 and sum(1 for _ in data) == 3  # iteration ends


def test_each_caption_is_drawn_as_often_as_the_others_and_by_torchs_generator_alone(tmp_path):
    data = opened(made(tmp_path, "metadata"), languages=BOTH)
    torch.manual_seed(0)
    drawn = [int(data[1][1]["caption"]) for _ in range(3000)]
    own = data.captions_of(1)
    assert [data.captions[i] for i in own] == ["a house", "a red house", "红房子"]
    counts = torch.tensor([drawn.count(i) for i in own])
    assert counts.sum() == 3000 and (counts - 1000).abs().max() < 110  # 4 deviations of a binomial
    torch.manual_seed(0)  # which decides all of it,
    assert [int(data[1][1]["caption"]) for _ in range(100)] == drawn[:100]
    for seed in (1, 2**62):  # as the training loop makes use of
        first = [Seeded(data)[i, seed][1]["caption"] for i in range(3)]
        assert first == [Seeded(data)[i, seed][1]["caption"] for i in range(3)]


def test_what_names_no_language_is_in_the_first_that_has_nothing_else(tmp_path):
    write(tmp_path / "a/1.png", 1)
    (tmp_path / "a/1.txt").write_text("plain")
    (tmp_path / "a/1.zh.txt").write_text("中文")
    write(tmp_path / "b/1.png", 1)
    lines(tmp_path / "b/metadata.jsonl", {"file_name": "1.png", "text": "plain", "zh": "中文", "en": None})
    for root in (tmp_path / "a", tmp_path / "b"):
        assert opened(root).captions == ["plain"]
        assert opened(root, languages=BOTH).captions == ["plain", "中文"]
        assert opened(root, languages=("zh",)).captions == ["中文"]
        assert opened(root, languages=("zh-Hant",)).captions == ["plain"]


def test_metadata_may_lie_in_each_split_and_several_lines_speak_of_one_picture(tmp_path):
    for split, grey in (("train", 1), ("test", 2)):
        write(tmp_path / split / "images/1.png", grey)
        write(tmp_path / split / "images/unnamed.png", 99)
        row = {"file_name": "images/1.png", "text": f"one of {split}", "bbox": [1, 2]}
        lines(tmp_path / split / "metadata.jsonl", row, "", {**row, "text": "again"}, "  ")
    assert spoken(opened(tmp_path)) == {1: ["one of train", "again"]}
    assert spoken(opened(tmp_path, split="test")) == {2: ["one of test", "again"]}


def test_marks_spaces_and_backslashes_of_other_systems_are_understood(tmp_path):
    write(tmp_path / "a/1.png", 1)
    path = tmp_path / "metadata.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + '{"file_name": "a\\\\1.png", "text": " 船\u3000"}\r\n'.encode())
    assert opened(tmp_path).captions == ["船"]
    path.unlink()
    (tmp_path / "a/1.txt").write_bytes(b"\xef\xbb\xbfa boat\r\n\r\n  a ship \r\n")
    assert opened(tmp_path).captions == ["a boat", "a ship"]


def test_pictures_are_decoded_as_those_of_a_folder_are(tmp_path):
    image = Image.new("RGBA", (12, 8), (255, 0, 0, 0))  # transparent red
    image.putpixel((6, 4), (0, 0, 0, 255))
    image.save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a dot")
    x = opened(tmp_path)[0][0]
    assert x.shape == (3, 8, 12) and x[:, 0, 0].tolist() == [1, 1, 1] and x[:, 4, 6].tolist() == [-1, -1, -1]
    assert opened(tmp_path, size=4, channels=1)[0][0].shape == (1, 4, 4)
    write(tmp_path / "b.png", 3)
    (tmp_path / "b.txt").write_text("another")
    assert "12×8" in complaint(tmp_path) and opened(tmp_path, size=4).shape == (3, 4, 4)


def test_an_lmdb_may_be_a_file_by_any_name_and_grows_as_it_must(tmp_path, monkeypatch):
    monkeypatch.setattr("shared.datasets.database.FIRST_SIZE", 2**15)
    root = made(tmp_path, "lmdb", {f"{i:03}.png": (i, [f"number {i}"], ["数"]) for i in range(150)})
    (root / "data.mdb").rename(tmp_path / "pairs.bin")
    data = opened(tmp_path / "pairs.bin")
    assert spoken(data) == {i: [f"number {i}"] for i in range(150)}


# --- loader processes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("in_memory", [True, False])
def test_a_set_can_be_sent_to_a_process(tmp_path, monkeypatch, form, in_memory):
    monkeypatch.setattr(folder, "IN_MEMORY", folder.IN_MEMORY if in_memory else 0)
    data = opened(made(tmp_path, form), languages=BOTH)
    sent = pickle.dumps(data)
    assert len(sent) < 20_000 and spoken(pickle.loads(sent)) == spoken(data)


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_loader_processes_see_what_this_one_sees(tmp_path, monkeypatch, method):
    if method == "fork" and not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    monkeypatch.setattr(folder, "IN_MEMORY", 0)
    root = made(tmp_path, "lmdb")
    data, other = opened(root, languages=BOTH), opened(root, languages=BOTH, split="test")
    data[0], other[0]  # open handles, which must not travel to the processes
    keys = [[(0, 5), (1, 6)], [(2, 7), (1, 8)]]
    loader = DataLoader(Seeded(data), batch_sampler=keys, num_workers=1, multiprocessing_context=method)
    for batch, (x, cond) in zip(keys, loader, strict=True):
        for j, key in enumerate(batch):
            expected, condition = Seeded(data)[key]
            assert torch.equal(x[j], expected) and cond["caption"][j] == condition["caption"]
    assert spoken(other) == {40: ["a bridge", "桥"]}  # and this process goes on


# --- what goes wrong ----------------------------------------------------------------------------------------


def test_a_root_that_is_missing_unnamed_or_neither(tmp_path, monkeypatch):
    assert "--data.root" in complaint(None) and str(tmp_path / "x") in complaint(tmp_path / "x")
    file = tmp_path / "notes.zip"
    for content in ("", "no LMDB"):
        file.write_text(content)
        assert f"{file} is neither a folder nor an LMDB" in complaint(file)
    (tmp_path / "empty").mkdir()
    assert "no images" in complaint(tmp_path / "empty")
    monkeypatch.setenv("DIFFUSION_DATA", str(tmp_path))
    with pytest.raises(UserError, match=f"{tmp_path}/emoji does not exist: draw them by prepare-emoji"):
        load(DataConfig(name="emoji"))


@pytest.mark.parametrize("languages", [(), ("en", "en"), ("english",), ("text",), ("file_name",), ("../en",)])
def test_languages_that_are_none(tmp_path, languages):
    assert "--data.languages" in complaint(made(tmp_path, "metadata"), languages=languages)


@pytest.mark.parametrize("form", FORMS)
def test_a_caption_that_is_missing_in_a_language_is_named_and_the_others_counted(tmp_path, form):
    root = made(tmp_path, form)
    message = complaint(root, languages=("en", "fr"))
    assert "train/a.png has no caption in fr, nor have 2 others" in message and "--data.languages" in message
    assert "nor" not in complaint(root, languages=("en", "fr"), split="test")


def test_a_picture_without_any_caption_stops_its_own_split_only(tmp_path):
    root = made(tmp_path, "beside")
    write(root / "test/z.png", 9)
    assert len(opened(root)) == 3
    message = complaint(root, split="test")
    assert "test/z.png has no caption" in message and "z.txt or z.en.txt" in message and "metadata.jsonl" in message


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ('{"file_name": "a.png", "text": "x"', ["JSON"]),
        ("[" * 100_000, ["JSON"]),
        ("[1, 2]", ["object"]),
        ({"text": "x"}, ["file_name"]),
        ({"file_name": 7, "text": "x"}, ["file_name"]),
        ({"file_name": "b.png", "text": "x"}, ["b.png", "not there"]),
        ({"file_name": "notes.txt", "text": "x"}, ["notes.txt", "no image file"]),
        ({"file_name": ".", "text": "x"}, ["no image file"]),
        ({"file_name": "../a.png", "text": "x"}, ["../a.png", "leads out"]),
        ({"file_name": "x/../../../a.png", "text": "x"}, ["leads out"]),
        ({"file_name": "..\\a.png", "text": "x"}, ["leads out"]),
        ({"file_name": "/etc/a.png", "text": "x"}, ["leads out"]),
        ({"file_name": "C:\\a.png", "text": "x"}, ["leads out"]),
        ({"file_name": "a.png", "text": " \n "}, ["empty caption"]),
        ({"file_name": "a.png", "en": ["x", ""]}, ["empty caption"]),
        ({"file_name": "a.png", "en": 5}, ["5", "must be text"]),
        ({"file_name": "a.png", "en": [["x"]]}, ["must be text"]),
        ('{"file_name": "a.png", "text": "\\ud800"}', ["no valid text"]),
        ('{"file_name": "a.png", "text": "\xff"}'.encode("latin-1").decode("utf-8", "surrogateescape"), ["JSON"]),
    ],
)
def test_a_line_that_cannot_be_used_is_named_by_its_number(tmp_path, row, named):
    root = tmp_path / "set"
    write(root / "a.png", 1)
    (root / "notes.txt").write_text("x")
    write(tmp_path / "a.png", 1)  # what the climbing ones mean
    path = root / "metadata.jsonl"
    good = json.dumps({"file_name": "a.png", "text": "fine"})
    row = row if isinstance(row, str) else json.dumps(row)
    path.write_bytes(f"{good}\n\n{row}\n{good}\n".encode("utf-8", "surrogateescape"))
    message = complaint(root)
    assert f"{path}, line 3, " in message and all(word in message for word in named), message


def test_metadata_that_names_nothing_and_one_that_is_no_file(tmp_path):
    write(tmp_path / "a.png", 1)
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "metadata.jsonl").mkdir()
    assert opened(tmp_path).captions == ["x"]
    (tmp_path / "metadata.jsonl").rmdir()
    (tmp_path / "metadata.jsonl").write_text("\n")
    assert "names no picture" in complaint(tmp_path)


@pytest.mark.parametrize(
    ("content", "named"), [(b" \n\n", "is empty"), (b"\xff\xfe", "not UTF-8"), (b"x" * (2**20 + 1), "larger")]
)
def test_a_text_file_that_says_nothing(tmp_path, content, named):
    write(tmp_path / "a.png", 1)
    (tmp_path / "a.txt").write_bytes(content)
    message = complaint(tmp_path)
    assert f"{tmp_path}/a.txt" in message and named in message


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("form", ["metadata", "lmdb"])
def test_a_picture_that_cannot_be_decoded_is_named_at_load_or_when_it_is_met(tmp_path, monkeypatch, damage, form):
    pairs = {name: (1, ["x"], ["某"]) for name in ("a.png", "b.png")}
    made(tmp_path, "metadata", pairs)
    damage(tmp_path / "b.png")
    root = tmp_path
    if form == "lmdb":
        pytest.importorskip("lmdb", reason="an LMDB needs the extra text")
        write_captioned(tmp_path / "db", (Record(n, (tmp_path / n).read_bytes(), {"en": "x"}) for n in pairs))
        root = tmp_path / "db"
    assert f"{root}/b.png cannot be read as an image" in complaint(root)
    monkeypatch.setattr(folder, "IN_MEMORY", 0)
    data = opened(root)
    data[0]
    with pytest.raises(UserError, match=r"b\.png cannot be read as an image \(.+\): repair or remove it"):
        data[1]


# --- LMDBs that are none ------------------------------------------------------------------------------------


@pytest.fixture
def database(tmp_path) -> Path:
    """The data file of an LMDB of 40 pictures, some of them large."""
    pairs = {f"{i:03}.png": (i, [f"number {i}" * (1 + 400 * (i % 3))], ["数"]) for i in range(40)}
    return made(tmp_path, "lmdb", pairs) / "data.mdb"


def test_an_lmdb_that_was_cut_short_is_refused_before_it_is_mapped(database):
    whole = database.read_bytes()
    for length in (0, 20, 4096, 8192, 8292, len(whole) // 2, len(whole) - 4096, len(whole) - 1):
        database.unlink()  # a new file: what is open of the old one stays as it is
        database.write_bytes(whole[:length])
        message = complaint(database.parent)  # LMDB itself would end the process, by a bus error
        assert f"the LMDB {database.parent} is damaged" in message and "make or fetch it again" in message


def test_an_lmdb_with_wrong_bytes_is_refused_or_read_but_ends_nothing(database):
    whole, draw, refused = database.read_bytes(), random.Random(0), 0
    for _ in range(60):
        content = bytearray(whole)
        for _ in range(4):
            content[draw.randrange(len(whole) // 4096) * 4096 + draw.randrange(300)] ^= draw.randrange(1, 256)
        database.unlink()
        database.write_bytes(content)
        try:
            data = opened(database.parent)
            [data[i] for i in range(len(data))]
        except UserError as error:
            refused += "\n" not in str(error)
    assert refused > 5


@pytest.mark.parametrize(
    ("records", "named"),
    [
        ({"image-1": b"x"}, ["no pictures", "pictures/"]),
        ({"pictures/a.png": b"x"}, ["captions/a.png", "missing"]),
        ({"pictures/a.png": b"x", "captions/a.png": b"\x80\x04N."}, ["captions/a.png", "JSON"]),  # a pickle, say
        ({"pictures/a.png": b"x", "captions/a.png": b'{"en": ""}'}, ["captions/a.png", "empty caption"]),
        ({"pictures/\udcff": b"x", "captions/\udcff": b'{"en": "x"}'}, ["cannot be read"]),
    ],
)
def test_an_lmdb_of_something_else(tmp_path, records, named):
    lmdb = pytest.importorskip("lmdb", reason="an LMDB needs the extra text")
    with lmdb.open(str(tmp_path), lock=False) as environment, environment.begin(write=True) as transaction:
        for key, content in records.items():
            transaction.put(key.encode("utf-8", "surrogateescape"), content)
    message = complaint(tmp_path)
    assert f"the LMDB {tmp_path}" in message and all(word in message for word in named), message


def test_an_lmdb_that_was_replaced_is_read_anew_in_the_same_process(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "IN_MEMORY", 0)  # so the first stays open
    first = opened(made(tmp_path / "1", "lmdb"))
    other = made(tmp_path / "2", "lmdb", {"a.png": (77, ["new"], ["新"])})
    os.replace(other / "data.mdb", tmp_path / "1/pairs/data.mdb")
    assert spoken(opened(tmp_path / "1/pairs")) == {77: ["new"]}
    assert spoken(first)[10] == ["a boat"]


def test_without_lmdb_one_line_says_what_to_install(database, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lmdb.verify", None)
    assert "pip install -e '.[lmdb]'" in complaint(database.parent)
    text(database)
    assert "neither" in complaint(database)
