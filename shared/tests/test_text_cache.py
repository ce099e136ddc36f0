"""Cached features: equal to fresh ones, computed once, whole or not there, and looked up by every loader process."""

import gc
import pickle
import shutil
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from shared.errors import UserError
from shared.text import cache
from shared.text.cache import features_of
from shared.text.config import TextConfig
from shared.text.frozen import FrozenReader
from shared.text.reader import build_reader, described

pytest.importorskip("transformers", reason="needs the extra text")

COLOURS, DIGITS = ["red", "blue", "green"], ["one", "two", "three", "sevens"]
CAPTIONS = [f"a {colour} {digit}" for colour in COLOURS for digit in DIGITS] + ["seven", "a red three above two blue"]


class Pictures(Dataset):
    """A picture for each caption, the last caption first."""

    def __init__(self, captions: list[str]):
        self.captions, self.classes, self.shape = captions, ["one class"], (1, 2, 2)

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, i: int) -> tuple[Tensor, dict[str, Tensor]]:
        if i >= len(self):
            raise IndexError(i)
        return torch.full((1, 2, 2), i / 100), {"caption": torch.tensor(len(self) - 1 - i), "label": torch.tensor(i)}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    """A tiny BERT with random weights that knows the words."""
    from shared.tests.test_text_encoders import SIZES, save, seeded, transformers

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted({*" ".join(CAPTIONS).split()})]
    tokenizer = transformers.BertTokenizer(vocab={word: i for i, word in enumerate(words)}, model_max_length=24)
    config = transformers.BertConfig(**SIZES, vocab_size=len(words), max_position_embeddings=24)
    model = seeded(lambda: transformers.BertModel(config, add_pooling_layer=False))
    return save((model, tokenizer), tmp_path_factory.mktemp("cached") / "bert")


@pytest.fixture
def config(encoder, tmp_path) -> TextConfig:
    return TextConfig(encoder=str(encoder), cache=str(tmp_path / "cache" / "text"))


@pytest.fixture
def reader(config) -> FrozenReader:
    return build_reader(config, [])


@pytest.fixture
def few(monkeypatch):
    """Four captions a file, and two at a time."""
    monkeypatch.setattr(cache, "SHARD", 4 * 32 * 32 * 2)
    monkeypatch.setattr(cache, "BATCH", 2)


@pytest.fixture
def counted(reader, monkeypatch) -> list[str]:
    """Every caption that the encoder computes."""
    computed, read = [], reader.read
    monkeypatch.setattr(reader, "read", lambda captions: (computed.extend(captions), read(captions))[1])
    return computed


def files(config: TextConfig) -> list[Path]:
    return sorted(Path(config.cache).glob("*.safetensors"))


def is_right(table, reader, captions=CAPTIONS) -> bool:
    """Whether a table holds what the encoder gives for each caption alone, but for float16's last digits."""
    for i, caption in enumerate(captions):
        fresh, (text, mask) = reader.read([caption])["text"][0], table[i]
        if mask.sum() != len(fresh) or text[~mask].any() or not torch.allclose(text[mask], fresh, rtol=2e-3, atol=2e-3):
            return False
    return len(table) == len(captions)


@pytest.mark.parametrize("pooled", [False, True])
def test_cached_features_are_the_fresh_ones(config, pooled, few):
    config.pooled = pooled
    reader = build_reader(config, [])
    computed = described(Pictures(CAPTIONS), reader, config)
    cached = described(Pictures(CAPTIONS), reader, config)
    assert is_right(cached.table, reader) and len(files(config)) == (1 if pooled else 4)
    for (x, cond), (same_x, same) in zip(computed, cached, strict=True):
        assert torch.equal(x, same_x) and cond.keys() == same.keys() == {"label", "text", "text_mask"}
        assert all(torch.equal(cond[name], same[name]) for name in cond)
    shape = (1, 32) if pooled else (8, 32)  # of the longest caption, with its two marks
    assert {item[1]["text"].shape for item in cached} == {shape}


def test_an_item_has_the_text_of_its_own_caption(config, reader):
    data = described(Pictures(CAPTIONS), reader, config)
    for i, caption in enumerate(reversed(CAPTIONS)):
        cond, fresh = data[i][1], reader.read([caption])["text"][0]
        assert cond["label"] == i and torch.allclose(cond["text"][cond["text_mask"]], fresh, atol=2e-3)


def test_what_is_cached_is_not_computed_again(config, reader, counted, few):
    features_of(reader, CAPTIONS, Path(config.cache))
    assert sorted(counted) == sorted(CAPTIONS)
    before = {path: path.stat().st_mtime_ns for path in files(config)}
    counted.clear()
    features_of(reader, CAPTIONS, Path(config.cache))
    assert not counted and {path: path.stat().st_mtime_ns for path in files(config)} == before


def test_captions_order_pooling_and_length_each_make_other_files(config, reader, counted):
    def computed(captions: list[str] = CAPTIONS, **changes) -> int:
        counted.clear()
        for name, value in changes.items():
            setattr(reader, name, value)
        assert is_right(features_of(reader, captions, Path(config.cache)), reader, captions)
        return len([caption for caption in counted if caption in captions]) > len(captions)  # is_right reads each once

    assert computed() and not computed()
    assert computed([*CAPTIONS[:-1], "a green three"]) and computed(CAPTIONS[::-1])
    assert computed(length=31) and computed(pooled=True) and not computed()


def test_another_encoder_makes_other_files(config, reader):
    features_of(reader, CAPTIONS, Path(config.cache))
    other = build_reader(config, [])
    other.encoder.model.embeddings.LayerNorm.bias.data += 0.5
    assert is_right(features_of(other, CAPTIONS, Path(config.cache)), other)
    assert is_right(features_of(reader, CAPTIONS, Path(config.cache)), reader) and len(files(config)) == 2


def flip(path: Path) -> None:
    """Turn one bit of the features."""
    content = bytearray(path.read_bytes())
    content[-700] ^= 16
    path.write_bytes(content)


def of_another(path: Path) -> None:
    shutil.copyfile(next(other for other in files_beside(path) if other != path), path)


def files_beside(path: Path) -> list[Path]:
    return sorted(path.parent.glob("*.safetensors"))


def of_something_else(path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(3)}, path)


@pytest.mark.parametrize(
    "spoil",
    [
        flip,
        of_another,
        of_something_else,
        lambda path: path.write_bytes(path.read_bytes()[:500]),
        lambda path: path.write_bytes(b""),
        lambda path: path.unlink(),
    ],
    ids=["a bit", "of other captions", "of something else", "cut", "empty", "gone"],
)
def test_a_damaged_or_foreign_file_is_made_anew_alone(config, reader, counted, few, spoil):
    features_of(reader, CAPTIONS, Path(config.cache))
    whole = [path.read_bytes() for path in files(config)]
    spoil(files(config)[1])
    counted.clear()
    table = features_of(reader, CAPTIONS, Path(config.cache))
    assert len(counted) <= 4 and set(counted) < set(CAPTIONS) and counted
    assert [path.read_bytes() for path in files(config)] == whole and is_right(table, reader)


def test_what_was_computed_before_a_stop_is_kept(config, reader, counted, few, monkeypatch):
    read = reader.read

    def stopped(captions):
        if len(counted) == 10:
            raise KeyboardInterrupt
        return read(captions)

    monkeypatch.setattr(reader, "read", stopped)
    with pytest.raises(KeyboardInterrupt):
        features_of(reader, CAPTIONS, Path(config.cache))
    assert len(files(config)) == 2  # of four captions each; the two that follow are lost
    monkeypatch.setattr(reader, "read", read)
    counted.clear()
    assert is_right(features_of(reader, CAPTIONS, Path(config.cache)), reader)
    assert len(counted) == len(CAPTIONS) - 8 + len(CAPTIONS)  # is_right reads each
    assert {path.name for path in Path(config.cache).iterdir()} - {path.name for path in files(config)} <= {".lock"}


def test_of_two_runs_that_start_together_one_computes(config, reader, counted, monkeypatch):
    read, other, tables = reader.read, build_reader(config, []), {}

    def compute(name: str, by: FrozenReader) -> None:
        tables[name] = features_of(by, CAPTIONS, Path(config.cache))

    second = threading.Thread(target=compute, args=("second", other))
    monkeypatch.setattr(other, "read", lambda captions: pytest.fail("computed a second time"))

    def beginning(captions):
        second.start()
        second.join(0.3)  # it waits for the first
        return read(captions)

    monkeypatch.setattr(reader, "read", beginning)
    compute("first", reader)
    second.join(20)
    monkeypatch.undo()
    assert len(counted) == len(CAPTIONS) and is_right(tables["second"], reader)


def test_what_is_wrong_with_a_caption_is_said_before_any_is_computed(config, reader, counted, few):
    for wrong, message in (("", "empty"), ("one " * 40, "42 tokens"), ("drei vier", "does not know half")):
        with pytest.raises(UserError, match=message):
            described(Pictures([*CAPTIONS, wrong]), reader, config)
    assert not counted and not files(config)


def test_without_a_cache_nothing_is_left(config, reader, tmp_path, monkeypatch):
    monkeypatch.setattr(cache.tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    config.cache = None
    data = described(Pictures(CAPTIONS), reader, config)
    assert is_right(data.table, reader) and list((tmp_path / "temporary").iterdir())
    copy = pickle.loads(pickle.dumps(data))
    del copy
    gc.collect()
    assert torch.equal(data[0][1]["text"], pickle.loads(pickle.dumps(data))[0][1]["text"])
    del data
    gc.collect()
    assert not list((tmp_path / "temporary").iterdir()) and not (tmp_path / "cache").exists()


def test_loader_processes_give_what_this_one_gives(config, reader, few):
    data = described(Pictures(CAPTIONS * 40), reader, config)
    size = 2 * 32 * sum(int(data.table[i][1].sum()) for i in range(len(data)))
    assert len(pickle.dumps(data)) < size / 8  # the table is not sent along, and the files that are open are not
    loader = DataLoader(data, 100, num_workers=1, multiprocessing_context="spawn")
    for start, (x, cond) in zip(range(0, len(data), 100), loader, strict=True):
        here = [data[i] for i in range(start, start + len(x))]
        assert torch.equal(x, torch.stack([item[0] for item in here]))
        assert all(torch.equal(values, torch.stack([item[1][name] for item in here])) for name, values in cond.items())


def test_a_file_that_goes_away_is_one_line(config, reader, few):
    data = described(Pictures(CAPTIONS), reader, config)
    files(config)[0].unlink()
    with pytest.raises(UserError, match="was removed or damaged while it was in use"):
        list(data)


def test_a_cache_that_cannot_be_written_is_named(config, reader, tmp_path):
    (tmp_path / "cache").write_text("a file is in the way")
    with pytest.raises(OSError) as error:
        described(Pictures(CAPTIONS), reader, config)
    assert error.value.filename
