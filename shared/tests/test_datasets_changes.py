"""Random flips and crops: against Pillow, against each other's paths, and the same in every order of loading."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from shared.datasets import DataConfig, folder, load
from shared.datasets.decode import decode, drawn_square
from shared.datasets.images import ImageFolder, InMemory
from shared.datasets.ranges import to_unit
from shared.errors import UserError
from shared.tests import tiny
from shared.training.data import Seeded, batches

CPU = torch.device("cpu")
CONFIG = replace(tiny.CONFIG, workers=0)


@pytest.fixture
def tree(tmp_path) -> Path:
    """Twelve images of noise, 20×12 pixels, in two classes."""
    random = np.random.default_rng(0)
    for i in range(12):
        path = tmp_path / "images" / "ab"[i % 2] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (12, 20, 3), dtype=np.uint8)).save(path)
    return tmp_path / "images"


def opened(root: Path, **config) -> InMemory | ImageFolder:
    return load(DataConfig(name="folder", root=str(root), **config))


def complaint(**config) -> str:
    with pytest.raises(UserError) as caught:
        load(DataConfig(**config))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- flips --------------------------------------------------------------------------------------------------


def is_turned(x: torch.Tensor, image: torch.Tensor) -> bool:
    """Whether x is an image in a mirror; it must be that, or as it was."""
    assert torch.equal(x, image) != torch.equal(x, image.flip(-1))
    return torch.equal(x, image.flip(-1))


def test_half_of_the_images_are_turned_left_right_and_nothing_else(tree):
    plain, data = opened(tree), opened(tree, flip=True)
    turned = [is_turned(Seeded(data)[i, seed][0], plain[i][0]) for i in range(12) for seed in range(50)]
    assert 240 < sum(turned) < 360  # 5 deviations of 600 draws
    assert all(torch.equal(Seeded(data)[i, 3][1]["label"], plain[i][1]["label"]) for i in range(12))


def test_the_same_image_is_drawn_anew_each_time_it_is_shown(tree):
    data = opened(tree, flip=True)
    assert {is_turned(Seeded(data)[0, seed][0], opened(tree)[0][0]) for seed in range(20)} == {False, True}


class Loaded(Dataset):
    """The same data, not known to lie in memory."""

    def __init__(self, data: InMemory):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, i):
        return self.data[i]


@pytest.mark.parametrize("frames", [None, 3])
def test_in_memory_the_flips_are_those_of_a_loader(frames):
    shape = (13, 1, 4, 4) if frames is None else (13, 1, frames, 4, 4)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = InMemory(images, torch.arange(13), ["one"])
    data.flip = True
    turned = []
    for (x, cond), (y, _) in itertools.islice(
        zip(batches(data, CONFIG, 2, CPU), batches(Loaded(data), CONFIG, 2, CPU), strict=False), 12
    ):
        assert torch.equal(x, y)
        turned += [is_turned(one, to_unit(images[i])) for one, i in zip(x, cond["label"].tolist(), strict=True)]
    assert 5 < sum(turned) < 43  # of 48


@pytest.mark.parametrize("held", [True, False])
def test_how_a_step_is_split_changes_nothing(tree, monkeypatch, held):
    if not held:
        monkeypatch.setattr(folder, "IN_MEMORY", 0)
    data = opened(tree, flip=True, crop="centre" if held else "random", size=8)
    assert isinstance(data, InMemory) == held

    def step(batch: int, accumulate: int, **options) -> torch.Tensor:
        config = replace(CONFIG, batch=batch, accumulate=accumulate)
        return torch.cat([x for x, _ in itertools.islice(batches(data, config, 3, CPU, **options), accumulate)])

    whole = step(8, 1)
    assert torch.equal(step(4, 2), whole) and torch.equal(step(2, 4), whole)
    config = replace(CONFIG, batch=4, accumulate=2)
    ranks = [next(batches(data, config, 3, CPU, rank=r, world=2))[0] for r in range(2)]
    assert torch.equal(torch.cat(ranks), whole)


def test_what_is_measured_is_never_turned_or_cropped_at_random(tmp_path):
    random = np.random.default_rng(1)
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        for i in range(4):
            Image.fromarray(random.integers(0, 256, (9, 20, 3), dtype=np.uint8)).save(tmp_path / split / f"{i}.png")
    plain = opened(tmp_path, split="test", size=8)
    data = opened(tmp_path, split="test", size=8, flip=True, crop="random")
    assert isinstance(data, InMemory) and not data.flip
    assert all(torch.equal(Seeded(data)[i, seed][0], plain[i][0]) for i in range(4) for seed in range(9))


@pytest.mark.parametrize("split", ["train", "test"])
def test_published_photographs_are_turned_in_the_training_part(monkeypatch, split):
    from shared.datasets import published

    class Few:
        data, targets, classes = np.zeros((2, 32, 32, 3), dtype=np.uint8), [0, 1], ["a", "b"]

    monkeypatch.setattr(published, "opened", lambda *arguments: Few)
    for flip in (False, True):
        assert load(DataConfig(name="cifar10", split=split, flip=flip)).flip == (flip and split == "train")


# --- crops --------------------------------------------------------------------------------------------------


def squares(image: Image.Image, size: int) -> list[bytes]:
    """All squares of an image, resized as a whole."""
    width, height = (side * size // min(image.size) for side in image.size)
    whole = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))
    return [
        whole[top : top + size, left : left + size].tobytes()
        for top in range(height - size + 1)
        for left in range(width - size + 1)
    ]


@pytest.mark.parametrize(
    ("width", "height", "size"), [(40, 16, 8), (16, 40, 8), (20, 12, 12), (12, 12, 24), (30, 16, 8)]
)
def test_a_drawn_square_is_one_of_the_whole_resized_and_each_comes(width, height, size):
    noise = np.random.default_rng(2).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image, known = Image.fromarray(noise), None
    known = squares(image, size)
    torch.manual_seed(0)
    drawn = [np.asarray(drawn_square(image, size)) for _ in range(400)]
    found = {min(range(len(known)), key=lambda k: distance(known[k], one)) for one in drawn}
    assert all(min(distance(square, one) for square in known) <= 1 for one in drawn)  # rounding
    assert found == set(range(len(known)))


def distance(square: bytes, image: np.ndarray) -> int:
    return np.abs(np.frombuffer(square, dtype=np.uint8).astype(int) - image.ravel()).max()


def test_a_square_of_a_very_long_image_takes_no_memory(tmp_path):
    Image.new("L", (60_000, 1), 7).save(tmp_path / "long.png")
    with open(tmp_path / "long.png", "rb") as file:
        assert decode(file, 1, 512, "random").unique().tolist() == [7]  # the whole would have 16 GB


def test_crops_are_drawn_each_time_so_the_folder_is_not_kept(tree):
    data = opened(tree, size=8, crop="random")
    assert isinstance(data, ImageFolder) and data.shape == (3, 8, 8)
    assert len({Seeded(data)[0, seed][0].numpy().tobytes() for seed in range(40)}) == 6  # 13 wide: six places
    assert torch.equal(Seeded(data)[0, 5][0], Seeded(data)[0, 5][0])


# --- what makes no sense ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digits", "mnist", "captioned_digits", "moving_digits"])
def test_digits_are_not_turned(name):
    assert f"--data.flip does not go with {name}" in complaint(name=name, flip=True)


@pytest.mark.parametrize("name", ["digits", "mnist", "fashion_mnist", "cifar10", "celeba", "moving_digits"])
def test_sets_of_one_size_are_not_cropped(name):
    assert f"--data.crop random does not go with {name}" in complaint(name=name, crop="random", size=28)


def test_a_crop_needs_a_size(tree):
    assert "--data.crop random needs --data.size" in complaint(name="folder", root=str(tree), crop="random")
