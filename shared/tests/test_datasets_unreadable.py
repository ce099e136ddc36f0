"""Images that cannot be read: left out, counted and named in the run's record; too many of them end the run."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from shared.datasets import DataConfig, folder, load
from shared.datasets.images import ImageFolder, InMemory
from shared.errors import UserError
from shared.experiments import run as experiments_run
from shared.experiments.config import RunConfig
from shared.experiments.run import MAX_NAMED, RunRecord
from shared.experiments.show import show
from shared.tests import tiny
from shared.tests.test_datasets_folder import corrupted, emptied, text, truncated, write, zipped
from shared.training.config import OptimizerConfig
from shared.training.data import Seeded
from shared.training.part import Part
from shared.training.skipped import report_skipped

COUNT = 40


def fill(root: Path, count: int = COUNT) -> Path:
    """Grey images, each of its own number."""
    for i in range(count):
        write(root / f"{i:02}.png", i)
    return root


def opened(root: Path, **config) -> InMemory | ImageFolder:
    return load(DataConfig(name="folder", root=str(root), **config))


@pytest.fixture
def streaming(monkeypatch) -> None:
    """Nothing fits into memory."""
    monkeypatch.setattr(folder, "IN_MEMORY", 0)


def numbers(x: torch.Tensor) -> list[int]:
    """Which of the images are shown."""
    return ((x.flatten(1)[:, 0] + 1) * 127.5).round().long().tolist()


# --- in memory ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_zip", [False, True])
def test_in_memory_they_are_left_out_at_once_and_named(tmp_path, as_zip):
    root = fill(tmp_path / "images")
    text(root / "00.png")  # the first too, whose size all others must have
    truncated(root / "07.png")
    source = zipped(root) if as_zip else root
    data = opened(source, bad_share=0.05)
    assert isinstance(data, InMemory) and data.images[:, 0, 0, 0].tolist() == [*range(1, 7), *range(8, COUNT)]
    assert len(data.labels) == len(data) == COUNT - 2
    assert [name.split(" (")[0] for name in data.skipped] == [f"{source}/00.png", f"{source}/07.png"]
    assert "its content is none of PNG" in data.skipped[0]


def test_labels_stay_with_their_images(tmp_path):
    for i in range(8):
        write(tmp_path / "abcd"[i // 2] / f"{i}.png", i)
    emptied(tmp_path / "b/3.png")
    data = opened(tmp_path, bad_share=0.2)
    assert list(zip(data.images[:, 0, 0, 0].tolist(), data.labels.tolist(), strict=True)) == [
        (i, i // 2) for i in range(8) if i != 3
    ]


@pytest.mark.parametrize("held", [True, False])
def test_the_share_is_the_largest_that_may_be_unreadable(tmp_path, monkeypatch, held):
    if not held:
        monkeypatch.setattr(folder, "IN_MEMORY", 0)
    fill(tmp_path)
    for i in (3, 8):
        text(tmp_path / f"{i:02}.png")
    for share, passes in ((0.05, True), (0.049, False), (0.0, False), (1.0, True)):
        try:
            data = opened(tmp_path, bad_share=share)
            assert sum(1 for _ in data) == (COUNT - 2 if held else COUNT)
        except UserError as error:
            assert not passes and "03.png cannot be read" in str(error).replace("08", "03")
            assert ("2 of 40 images cannot be read, more than --data.bad-share 0.049" in str(error)) == (share > 0)
        else:
            assert passes and len(data.skipped) == 2


def test_the_default_allows_one_in_a_hundred(tmp_path):
    fill(tmp_path, 100)
    text(tmp_path / "99.png")
    assert len(opened(tmp_path)) == 99
    text(tmp_path / "98.png")
    with pytest.raises(UserError, match="2 of 100 images cannot be read"):
        opened(tmp_path)


def test_nothing_readable_at_all_is_an_error_even_if_all_may_be_unreadable(tmp_path):
    for name in "abc":
        text(tmp_path / f"{name}.png")
    with pytest.raises(UserError, match=r"none of 3 images can be read"):
        opened(tmp_path, bad_share=1.0)


def test_another_size_is_not_unreadable(tmp_path, streaming):
    fill(tmp_path)
    write(tmp_path / "05.png", 5, (9, 9))
    with pytest.raises(UserError, match=r"05\.png 9×9: bring all images to one size"):
        opened(tmp_path, bad_share=1.0)
    text(tmp_path / "00.png")  # the first readable one is the measure
    with pytest.raises(UserError, match=r"01\.png is 8×8 pixels and .*05\.png 9×9"):
        opened(tmp_path, bad_share=1.0)


# --- streamed -----------------------------------------------------------------------------------------------


def test_the_next_readable_one_takes_the_place_whatever_was_asked_before(tmp_path, streaming):
    for i in range(COUNT):
        write(tmp_path / f"{i // 10}" / f"{i:02}.png", i)
    bad = [4, 5, 6, 39]
    for i, damage in zip(bad, (text, truncated, corrupted, emptied), strict=True):
        damage(tmp_path / f"{i // 10}" / f"{i:02}.png")
    expected = [7 if i in (4, 5, 6) else 0 if i == 39 else i for i in range(COUNT)]
    for order in (range(COUNT), reversed(range(COUNT))):
        data = opened(tmp_path, bad_share=0.1)
        assert isinstance(data, ImageFolder) and data.skipped == []
        items = {i: data[i] for i in order}
        assert numbers(torch.stack([items[i][0] for i in range(COUNT)])) == expected
        assert [int(items[i][1]["label"]) for i in range(COUNT)] == [i // 10 for i in expected]
        assert [name.split(" (")[0][-6:] for name in data.skipped] == ["04.png", "05.png", "06.png", "39.png"]
        data.check_skipped()


def test_what_is_drawn_does_not_depend_on_whether_it_was_known_to_be_bad(tmp_path, streaming):
    noise = np.random.default_rng(0).integers(0, 256, (4, 16, 40, 3), dtype=np.uint8)
    for i, image in enumerate(noise):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:-400])
    data = opened(tmp_path, bad_share=0.5, crop="random", flip=True, size=8)
    first = [Seeded(data)[1, seed][0] for seed in range(9)]
    assert data.skipped and all(torch.equal(Seeded(data)[1, seed][0], x) for seed, x in enumerate(first))
    assert len({x.numpy().tobytes() for x in first}) > 4


def test_it_can_be_sent_to_a_process_and_knows_what_was_met(tmp_path, streaming):
    fill(tmp_path)
    text(tmp_path / "03.png")
    data = opened(tmp_path, bad_share=0.1)
    data[3]
    assert pickle.loads(pickle.dumps(data)).skipped == data.skipped != []


def test_what_loader_processes_meet_the_main_one_knows(tmp_path, streaming):
    root = fill(tmp_path / "images", 12)
    truncated(root / "05.png")
    source = zipped(root)
    data = opened(source, bad_share=0.1)
    loader = DataLoader(data, batch_size=4, num_workers=1, multiprocessing_context="spawn")
    assert numbers(torch.cat([x for x, _ in loader])) == [0, 1, 2, 3, 4, 6, 6, 7, 8, 9, 10, 11]
    assert len(data.skipped) == 1 and data.skipped[0].startswith(f"{source}/05.png (")


# --- in a run -----------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    """A run's record without its code, machine and curves, which take seconds to write down."""
    monkeypatch.setattr(RunRecord, "log", lambda *arguments: None)
    monkeypatch.setattr(experiments_run, "provenance", dict)
    monkeypatch.setattr(experiments_run, "git", lambda *arguments: "")
    monkeypatch.setattr(experiments_run, "write_source", lambda path, task: path.touch())


class Shift(nn.Module):
    """The smallest network for any images."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(()))

    def forward(self, x, t, cond):
        return x + self.shift


def train(root: Path, record: RunRecord, **options) -> None:
    """Train on a folder until the end; as a command does, with how it ends noted."""
    data = opened(root, bad_share=options.pop("bad_share", 0.05))
    part = Part(Shift(), lambda model, x, cond: model(x, None, cond).square().mean(), OptimizerConfig())
    with record.closing():
        tiny.fit(record, part, dataset=data, **{"steps": 10, "log_every": 0, **options})


def begun(tmp_path: Path) -> RunRecord:
    return RunRecord.create("task1", RunConfig(folder=str(tmp_path / "runs"), name="run"), {"train": {"seed": 0}})


def recorded(record: RunRecord) -> dict:
    return json.loads((record.folder / "record.json").read_text())


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_ends_and_its_record_names_them(tmp_path, streaming, workers, capsys):
    root = fill(tmp_path / "images")
    truncated(root / "11.png")
    record = begun(tmp_path)
    train(root, record, workers=workers)  # each image once
    said = recorded(record)
    assert said["state"] == "finished" and said["skipped"]["count"] == 1
    assert said["skipped"]["names"][0].startswith(f"{root}/11.png (image file is truncated")
    show(str(record.folder))
    assert "files left out" in (shown := capsys.readouterr().out) and "11.png" in shown


def test_of_data_in_memory_too(tmp_path):
    root = fill(tmp_path / "images")
    text(root / "11.png")
    record = begun(tmp_path)
    train(root, record, steps=1)
    assert recorded(record)["skipped"]["count"] == 1


def test_of_data_of_ones_own_that_says_so(tmp_path):
    data, record = tiny.data(), begun(tmp_path)
    data.skipped = [tmp_path / "a film.mp4"]
    with record.closing():
        tiny.fit(record, tiny.part(), dataset=data, steps=1)
    assert recorded(record)["skipped"] == {"count": 1, "names": [f"{tmp_path}/a film.mp4"]}


def test_a_run_with_nothing_unreadable_says_nothing(tmp_path):
    record = begun(tmp_path)
    train(fill(tmp_path / "images"), record, steps=1)
    assert "skipped" not in recorded(record)


@pytest.mark.parametrize("workers", [0, 1])
def test_where_none_may_be_unreadable_the_run_stops_in_one_line(tmp_path, streaming, workers):
    root = fill(tmp_path / "images")
    truncated(root / "11.png")
    record = begun(tmp_path)
    with pytest.raises(UserError) as caught:
        train(root, record, bad_share=0.0, workers=workers)
    assert str(caught.value).startswith(f"{root}/11.png cannot be read as an image (") and "\n" not in str(caught.value)
    assert recorded(record)["state"] == "failed" and "11.png" in recorded(record)["reason"]


def test_a_run_that_is_gone_on_with_keeps_what_was_named_before(tmp_path, streaming):
    record = begun(tmp_path)
    record.skipped(["a", "b"])
    record.close("interrupted")
    record = RunRecord.reopen(record.folder)
    record.skipped(["b", "c"])
    assert recorded(record)["skipped"] == {"count": 3, "names": ["a", "b", "c"]}
    many = [str(i) for i in range(MAX_NAMED + 50)]
    record.skipped(many)
    record.skipped(many)
    assert recorded(record)["skipped"]["count"] == MAX_NAMED + 53
    assert recorded(record)["skipped"]["names"] == ["a", "b", "c", *many][:MAX_NAMED]
    record.skipped(["a"])
    assert recorded(record)["skipped"]["count"] == MAX_NAMED + 53  # those without a name still count
    record.close("finished")


def test_what_another_process_met_counts(tmp_path, streaming, monkeypatch):
    """Each process of a training loads images of its own: what they met is brought together, and may be too much."""
    fill(tmp_path)
    for i in (3, 8):
        text(tmp_path / f"{i:02}.png")
    data, other = opened(tmp_path, bad_share=0.03), opened(tmp_path, bad_share=0.03)
    data[3], other[8]

    def agreed(values: torch.Tensor, how: str) -> torch.Tensor:
        return torch.maximum(values, other.unreadable) if how == "max" else values

    monkeypatch.setattr("shared.training.skipped.agreed", agreed)
    with pytest.raises(UserError, match="2 of 40 images"):
        report_skipped(data, tiny.Run(tmp_path / "run"))
    assert len(data.skipped) == 2
