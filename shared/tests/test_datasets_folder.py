"""Trees and zips of images: what is found, in which order and class, and one line for all that goes wrong."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from shared.datasets import DataConfig, folder, load
from shared.datasets.images import ImageFolder, InMemory
from shared.errors import UserError


def write(path: Path, value: int | tuple = 0, size: tuple[int, int] = (8, 8)) -> Path:
    """An image of one colour (for `value` an int: grey), width × height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = "L" if isinstance(value, int) else "RGB"
    Image.new(mode, size, value).save(path)
    return path


def zipped(tree: Path, name: str = "images.zip", prefix: str = "") -> Path:
    """The tree as a zip beside it, its members in an order that is not sorted."""
    path = tree.parent / name
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(filter(Path.is_file, tree.rglob("*")), reverse=True):
            member = zipfile.ZipInfo(prefix + file.relative_to(tree).as_posix())  # which keeps even a leading slash
            archive.writestr(member, file.read_bytes())
    return path


def opened(path: Path, **config) -> InMemory | ImageFolder:
    return load(DataConfig(name="folder", root=str(path), **config))


def complaint(path: Path | None, **config) -> str:
    with pytest.raises(UserError) as caught:
        load(DataConfig(name="folder", root=None if path is None else str(path), **config))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def streaming(monkeypatch) -> None:
    """Nothing fits into memory."""
    monkeypatch.setattr(folder, "IN_MEMORY", 0)


@pytest.fixture
def tree(tmp_path) -> Path:
    """Two classes, a loose image, and things that are not to be looked at."""
    root = tmp_path / "photos"
    write(root / "dogs/1.png", 30)
    write(root / "dogs/deep/0.PNG", 20)
    write(root / "cats/b.bmp", 11)
    write(root / "cats/a.webp", (10, 10, 10))
    write(root / "loose.tiff", 5)
    write(root / ".hidden/x.png", 99)
    write(root / "cats/.x.png", 99)
    write(root / "__MACOSX/cats/a.png", 99)
    (root / "cats/readme.txt").write_text("not an image")
    (root / "labels.csv").write_text("not an image")
    return root


def test_a_tree_is_read_in_sorted_order_with_sub_folders_as_classes(tree):
    data = opened(tree)
    assert isinstance(data, InMemory) and data.shape == (3, 8, 8) and data.classes == [".", "cats", "dogs"]
    assert data.images[:, 0, 0, 0].tolist() == [10, 11, 30, 20, 5]  # a.webp b.bmp 1.png deep/0.PNG loose.tiff
    assert data.labels.tolist() == [1, 1, 2, 2, 0]
    x, cond = data[0]
    assert torch.allclose(x, torch.full((3, 8, 8), 10 / 127.5 - 1)) and cond["label"] == 1


def test_a_folder_without_sub_folders_is_one_class(tmp_path):
    root = tmp_path / "images"
    for i in range(3):
        write(root / f"{i}.png", i)
    for source in (root, zipped(root), zipped(root, "absolute.zip", "/")):
        data = opened(source)
        assert data.classes == ["."] and data.labels.tolist() == [0, 0, 0]


@pytest.mark.parametrize("prefix", ["", "./", "photos/", "/"])
def test_a_zip_equals_its_tree_and_so_does_a_zip_of_the_folder_itself(tree, prefix):
    expected, found = opened(tree), opened(zipped(tree, prefix=prefix))
    assert torch.equal(found.images, expected.images) and torch.equal(found.labels, expected.labels)
    assert found.classes == expected.classes


def test_a_zip_with_backslashes_has_folders_too(tree):
    path = tree.parent / "windows.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(tree / "dogs/1.png", "dogs\\1.png")
        archive.write(tree / "cats/b.bmp", "cats\\b.bmp")
    assert opened(path).classes == ["cats", "dogs"]


@pytest.mark.parametrize("channels", [1, 3])
def test_streaming_gives_what_memory_gives(tree, monkeypatch, channels):
    expected = opened(tree, channels=channels)
    monkeypatch.setattr(folder, "IN_MEMORY", 0)
    for source in (tree, zipped(tree)):
        found = opened(source, channels=channels)
        assert isinstance(found, ImageFolder) and len(found) == len(expected) == 5
        assert found.shape == expected.shape == (channels, 8, 8) and found.classes == expected.classes
        for i, (x, cond) in enumerate(expected):
            x_found, cond_found = found[i]
            assert torch.equal(x_found, x) and x_found.dtype == torch.float32
            assert torch.equal(cond_found["label"], cond["label"]) and cond_found["label"].dtype == torch.long


def test_what_fits_is_decided_by_the_decoded_bytes(tree, monkeypatch):
    for limit, kind in ((5 * 3 * 8 * 8, InMemory), (5 * 3 * 8 * 8 - 1, ImageFolder)):
        monkeypatch.setattr(folder, "IN_MEMORY", limit)
        assert type(opened(tree)) is kind


def test_a_link_to_the_folder_itself_does_not_go_round(tree):
    (tree / "dogs/again").symlink_to(tree, target_is_directory=True)
    assert len(opened(tree)) == 5


def test_a_linked_folder_is_followed(tree, tmp_path):
    write(tmp_path / "elsewhere/z.png", 77)
    (tree / "birds").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    data = opened(tree)
    assert data.classes == [".", "birds", "cats", "dogs"] and data.images[0, 0, 0, 0] == 77


# --- splits -------------------------------------------------------------------------------------------------


def test_folders_train_and_test_are_splits_with_the_same_classes(tmp_path):
    root = tmp_path / "set"
    write(root / "train/a/1.png", 1)
    write(root / "train/b/2.png", 2)
    write(root / "test/b/3.png", 3)
    for source in (root, zipped(root), zipped(root, "wrapped.zip", "set/")):
        train, test = (opened(source, split=split) for split in ("train", "test"))
        assert train.images[:, 0, 0, 0].tolist() == [1, 2] and train.labels.tolist() == [0, 1]
        assert test.images[:, 0, 0, 0].tolist() == [3] and test.labels.tolist() == [1]  # b is 1 in both
        assert train.classes == test.classes == ["a", "b"]


def test_a_class_may_be_called_train(tmp_path):
    write(tmp_path / "train/1.png", 1)
    write(tmp_path / "car/2.png", 2)
    assert opened(tmp_path).classes == ["car", "train"] and len(opened(tmp_path)) == 2


def test_a_test_part_that_is_not_there_is_an_error(tree):
    message = complaint(tree, split="test")
    assert str(tree) in message and "no test part" in message and "--data.split" in message


# --- sizes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [folder.IN_MEMORY, 0])
def test_mixed_sizes_need_a_size_and_the_error_names_two_files(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(folder, "IN_MEMORY", limit)
    write(tmp_path / "a.png", 1, (10, 20))
    write(tmp_path / "b.png", 2, (10, 20))
    write(tmp_path / "c.jpg", 3, (20, 10))
    message = complaint(tmp_path)
    assert "a.png is 10×20" in message and "c.jpg 20×10" in message and "--data.size" in message
    data = opened(tmp_path, size=16)
    assert data.shape == (3, 16, 16) and len(data) == 3
    assert data[0][0].shape == (3, 16, 16) and abs(data[2][0] - (3 / 127.5 - 1)).max() < 0.02


def test_images_of_one_size_stay_as_they_are_even_if_not_square(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    Image.fromarray(array).save(tmp_path / "a.png")
    assert np.array_equal(opened(tmp_path).images[0].permute(1, 2, 0), array)


def test_a_size_that_only_decoding_shows_is_met_when_the_image_is(tmp_path, streaming):
    write(tmp_path / "a.png", 1, (8, 12))
    write(tmp_path / "b.png", 2, (8, 12))
    data = opened(tmp_path)
    write(tmp_path / "b.png", 2, (9, 9))  # exchanged behind our back
    with pytest.raises(UserError, match=r"b\.png 9×9"):
        data[1]


# --- what goes wrong ----------------------------------------------------------------------------------------


def test_a_missing_or_unnamed_folder(tmp_path):
    assert str(tmp_path / "nowhere") in complaint(tmp_path / "nowhere")
    assert "--data.root" in complaint(None)


def test_an_empty_folder_or_zip_says_what_was_expected(tmp_path):
    root = tmp_path / "empty"
    (root / "sub").mkdir(parents=True)
    (root / "notes.txt").write_text("no image")
    for source in (root, zipped(root)):
        message = complaint(source)
        assert f"no images in {source}" in message and ".png" in message and ".jpg" in message


def test_a_file_that_is_no_zip_and_a_zip_cut_short(tree):
    path = tree.parent / "notes.zip"
    path.write_text("no zip")
    assert "neither a folder nor a whole zip" in complaint(path)
    path.write_bytes(zipped(tree).read_bytes()[:-30])  # a download that stopped
    assert str(path) in complaint(path)


def text(path: Path) -> None:
    path.write_text("this is no image")


def truncated(path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(path)
    path.write_bytes(path.read_bytes()[:-60])


def corrupted(path: Path) -> None:
    data = bytearray(write(path, 3).read_bytes())
    data[data.index(b"IDAT") + 6] ^= 0xFF
    path.write_bytes(data)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES = [text, truncated, corrupted, emptied]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("as_zip", [False, True])
def test_an_unreadable_image_is_named_at_load_or_when_it_is_met(tmp_path, monkeypatch, damage, as_zip):
    root = tmp_path / "images"
    write(root / "a.png", 1)
    damage(root / "b.png")
    write(root / "c.png", 3)
    source = zipped(root) if as_zip else root
    assert f"{source}/b.png cannot be read as an image" in complaint(source)
    monkeypatch.setattr(folder, "IN_MEMORY", 0)
    data = opened(source)
    assert data[0][0].shape == data[2][0].shape == (3, 8, 8)
    with pytest.raises(UserError, match=r"b\.png cannot be read as an image \(.+\): repair or remove it"):
        data[1]


def test_a_folder_whose_first_image_is_unreadable_fails_at_load_even_when_streaming(tmp_path, streaming):
    text(tmp_path / "a.png")
    write(tmp_path / "b.png", 2)
    assert "a.png cannot be read" in complaint(tmp_path)


def test_a_file_name_with_a_line_break_still_gives_one_line(tmp_path):
    text(tmp_path / "two\nlines.png")
    assert "lines.png cannot be read" in complaint(tmp_path)


def test_a_zip_member_that_climbs_is_not_used_and_nothing_is_written(tree):
    path = tree.parent / "climbing.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(tree / "dogs/1.png", "../../evil.png")
        archive.write(tree / "dogs/1.png", "a/../../evil.png")
        archive.write(tree / "cats/b.bmp", "cats/b.bmp")
    before = sorted(tree.parent.rglob("*"))
    data = opened(path)
    assert data.images[:, 0, 0, 0].tolist() == [11] and data.classes == ["cats"]
    assert sorted(tree.parent.rglob("*")) == before


def zip_declaring(tree: Path, size: int) -> Path:
    """A zip of two images, the second of which declares any unpacked size."""
    path = tree.parent / "lying.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tree / "cats/b.bmp", "a.bmp")
        archive.write(tree / "dogs/1.png", "b.png")
        archive.getinfo("b.png").file_size = size  # the directory is written on closing
    return path


def test_a_zip_bomb_is_refused_by_the_size_it_declares(tree):
    message = complaint(zip_declaring(tree, 256 * 2**20 + 1))
    assert "b.png" in message and "268,435,457" in message and "268,435,456" in message


def test_a_zip_member_longer_than_it_declares_is_not_unpacked_further(tree):
    assert "b.png cannot be read" in complaint(zip_declaring(tree, 20))


def test_an_encrypted_member_is_one_line(tree):
    path = zipped(tree)
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # set the flag in both of its places
        start = data.find(signature)
        while start >= 0:
            data[start + offset] |= 1
            start = data.find(signature, start + 4)
    path.write_bytes(data)
    assert "encrypted" in complaint(path)


# --- loader processes ---------------------------------------------------------------------------------------


def test_a_zip_through_loader_processes_and_an_error_out_of_one(tree, streaming):
    expected = opened(tree)
    write(tree / "dogs/z.png", 40)
    text(tree / "dogs/zz.png")
    data = opened(zipped(tree))
    data[0]  # an open handle, which must not travel to the processes
    order = [0, 1, 2, 3, 4, 5, 6]  # dogs/z.png is 4, the broken one 5, loose.tiff 6
    loader = DataLoader(data, batch_size=1, sampler=order, num_workers=1, multiprocessing_context="spawn")
    batches = iter(loader)
    for i in range(5):
        x, cond = next(batches)
        assert x.shape == (1, 3, 8, 8) and cond["label"].shape == (1,)
        if i < 4:
            assert torch.equal(x[0], expected[i][0])
    with pytest.raises(UserError) as caught:
        next(batches)
    assert "dogs/zz.png cannot be read as an image" in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).startswith("1 of 7 images cannot be read")  # no traceback before it


def test_forked_processes_do_not_share_a_zip_handle(tmp_path, streaming):
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    root = tmp_path / "images"
    for i in range(60):
        write(root / f"{i:02}.png", i)
    data = opened(zipped(root))
    loader = DataLoader(data, batch_size=5, num_workers=2, multiprocessing_context="fork")
    values = torch.cat([x for x, _ in loader])[:, 0, 0, 0]
    assert torch.allclose(values, torch.arange(60) / 127.5 - 1)
