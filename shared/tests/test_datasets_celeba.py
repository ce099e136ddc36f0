"""CelebA, from a small folder in its layout that the tests write."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from shared import _torchvision
from shared.datasets import DataConfig, celeba, load
from shared.datasets.decode import known_formats
from shared.errors import UserError
from shared.tests.test_datasets_folder import emptied, text
from shared.training.data import Seeded, check_data

ATTRIBUTES = [f"Attribute_{i}" for i in range(38)] + ["Smiling", "Young"]
PARTS = [0, 0, 0, 1, 2, 2, 0]  # of each image: train, valid or test


@pytest.fixture
def values() -> np.ndarray:
    """Of each image, 40 attributes that are -1 or 1."""
    return np.random.default_rng(0).choice([-1, 1], (len(PARTS), len(ATTRIBUTES)))


def picture(number: int) -> Image.Image:
    """What image `number` shows: a ramp to the right in red and downwards in green, its number in blue."""
    across, down = np.meshgrid(np.arange(178), np.arange(218))
    return Image.fromarray(np.stack([across, down, np.full_like(down, 30 * number)], axis=-1).astype(np.uint8))


@pytest.fixture
def root(tmp_path, values, monkeypatch) -> Path:
    """The folder that holds `celeba`, whose text files torchvision takes for the published ones."""
    folder = tmp_path / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    names = [f"{i + 1:06}.jpg" for i in range(len(PARTS))]
    for i, name in enumerate(names):
        picture(i).save(folder / "img_align_celeba" / name, "PNG")  # without a loss, by whatever name

    def table(name: str, heads: list[str], rows: list) -> None:
        numbers = [" ".join(f"{value:2}" for value in np.atleast_1d(row)) for row in rows]
        lines = [*heads, *(f"{file} {row}" for file, row in zip(names, numbers, strict=True))]
        (folder / name).write_text("\n".join(lines) + "\n")

    table("list_attr_celeba.txt", [str(len(names)), " ".join(ATTRIBUTES) + " "], list(values))
    table("identity_CelebA.txt", [], list(range(7)))
    table("list_bbox_celeba.txt", ["7", "image_id x_1 y_1 width height"], [[1, 2, 3, 4]] * 7)
    table("list_landmarks_align_celeba.txt", ["7", "lefteye_x lefteye_y"], [list(range(10))] * 7)
    table("list_eval_partition.txt", [], PARTS)
    believe(folder, monkeypatch)
    return tmp_path


def believe(folder: Path, monkeypatch) -> None:
    """Have torchvision expect the text files as they are."""
    _torchvision.prepare()
    from torchvision.datasets import CelebA

    expected = [
        (number, hashlib.md5((folder / name).read_bytes()).hexdigest() if name.endswith("txt") else md5, name)
        for number, md5, name in CelebA.file_list
    ]
    monkeypatch.setattr(CelebA, "file_list", expected)


def opened(root: Path, **config) -> celeba.Faces:
    return load(DataConfig(name="celeba", root=str(root), **config))


def complaint(root: Path, **config) -> str:
    with pytest.raises(UserError) as caught:
        opened(root, **config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_parts_have_their_images_with_their_attributes(root, values, monkeypatch):
    monkeypatch.setenv("DIFFUSION_DATA", str(root))
    for split, part in (("train", 0), ("test", 2)):
        data = load(DataConfig(name="celeba", split=split))
        of_part = [i for i, p in enumerate(PARTS) if p == part]
        assert len(data) == len(of_part) and data.attributes == ATTRIBUTES and data.shape == (3, 64, 64)
        for (x, cond), i in zip((data[j] for j in range(len(data))), of_part, strict=True):
            assert x.dtype == torch.float32 and list(cond) == ["attributes"]
            assert (x[2] - (30 * i / 127.5 - 1)).abs().max() < 0.01
            assert cond["attributes"].dtype == torch.long
            assert cond["attributes"].tolist() == (values[i] == 1).astype(int).tolist()
        assert sum(1 for _ in data) == len(of_part)  # iteration ends
        check_data(data)


def test_the_crop_is_the_published_one(root):
    """Columns 25 to 152 and rows 57 to 184: as img[cy - 64 : cy + 64, cx - 64 : cx + 64] with cx = 89, cy = 121."""
    image = np.asarray(picture(0))[121 - 64 : 121 + 64, 89 - 64 : 89 + 64]
    whole = opened(root, size=128).pixels(0)
    assert np.array_equal(whole.permute(1, 2, 0), image)


def test_reducing_takes_all_pixels_into_account(root):
    path = root / "celeba/img_align_celeba/000001.jpg"
    stripes = np.zeros((218, 178, 3), dtype=np.uint8)
    stripes[:, ::2] = 200  # as fine as may be
    Image.fromarray(stripes).save(path, "PNG")
    half = opened(root).pixels(0).double()
    assert half.shape == (3, 64, 64) and (half[..., 2:-2] - 100).abs().max() < 5
    picture(0).save(path, "PNG")
    ramp = torch.arange(25, 153, 2) + 0.5  # the mean of each two columns
    assert (opened(root).pixels(0)[0, 32, 2:-2] - ramp[2:-2]).abs().max() <= 0.51


def test_it_can_be_sent_to_a_process_and_takes_no_pictures_along(root):
    data = opened(root, size=32)
    sent = pickle.dumps(data)
    again = pickle.loads(sent)
    assert len(sent) < 10_000 and len(again) == len(data) == 4
    for (x, cond), (expected, condition) in zip(again, data, strict=False):
        assert torch.equal(x, expected) and torch.equal(cond["attributes"], condition["attributes"])


@pytest.mark.parametrize(
    ("wrong", "named"), [({"channels": 1}, "--data.channels"), ({"size": 129}, "--data.size must be at most 128")]
)
def test_what_it_cannot_be(root, wrong, named):
    assert named in complaint(root, **wrong)


def test_absent_it_says_where_it_was_looked_for(tmp_path, monkeypatch):
    message = complaint(tmp_path)
    assert f"CelebA is not in {tmp_path}/celeba" in message and "--data.download true" in message
    assert "DIFFUSION_DATA" in message and "CelebA.html" in message
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("file", ["list_attr_celeba.txt", "list_eval_partition.txt", "img_align_celeba"])
def test_incomplete_it_says_so(root, file):
    (root / "celeba" / file).rename(root / "elsewhere")
    message = complaint(root)
    assert f"CelebA in {root}/celeba is incomplete or damaged" in message and "CelebA.html" in message


def test_a_changed_text_file_is_refused_before_it_is_read(root):
    path = root / "celeba/list_attr_celeba.txt"
    path.write_text(path.read_text().replace("-1", " 1", 1))
    assert "incomplete or damaged" in complaint(root)


def test_a_text_file_that_torchvision_trips_over(root, monkeypatch):
    (root / "celeba/list_attr_celeba.txt").write_text("1\nSmiling\n000001.jpg yes\n")
    believe(root / "celeba", monkeypatch)
    assert "incomplete or damaged (ValueError" in complaint(root)


@pytest.mark.parametrize("download", [True, False])
def test_nothing_is_downloaded_unless_told_and_a_failure_is_one_line(tmp_path, monkeypatch, download):
    _torchvision.prepare()
    from torchvision.datasets import CelebA

    asked = []

    def fetch(self):
        asked.append(self.root)
        raise RuntimeError("To download files from GDrive,\n'gdown' is required.")

    monkeypatch.setattr(CelebA, "download", fetch)
    message = complaint(tmp_path, download=download)
    assert ("could not be downloaded" in message and "'gdown' is required" in message) == download
    assert bool(asked) == download


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-500])


def of_another_size(path: Path) -> None:
    picture(1).crop((0, 0, 178, 200)).save(path)


@pytest.mark.parametrize("damage", [text, emptied, cut, of_another_size, Path.unlink])
@pytest.mark.parametrize("first", [True, False])
def test_an_image_that_cannot_be_used_is_named_at_load_if_it_is_the_first_else_when_it_is_met(root, damage, first):
    path = root / "celeba/img_align_celeba" / ("000001.jpg" if first else "000003.jpg")
    damage(path)
    if first:
        assert f"{path} cannot be read as an image of CelebA (" in complaint(root)
        return
    data = opened(root)
    with pytest.raises(UserError, match=r"000003\.jpg cannot be read as an image of CelebA \(.+\): fetch it again"):
        data[2]


def test_faces_that_cannot_be_read_are_left_out_within_a_share(root):
    folder = root / "celeba/img_align_celeba"
    text(folder / "000001.jpg")
    data = opened(root, bad_share=0.25)
    assert len(data) == 4 and torch.equal(data[0][0], data[1][0])
    assert torch.equal(data[0][1]["attributes"], data[1][1]["attributes"])  # those of the face that is shown
    assert data.skipped == [f"{folder}/000001.jpg (its content is none of {', '.join(known_formats())})"]
    (folder / "000007.jpg").unlink()
    with pytest.raises(UserError, match="2 of 4 images cannot be read"):
        data[3]


def test_faces_are_turned_in_the_training_part_alone(root):
    for split in ("train", "test"):
        plain, data = opened(root, split=split), opened(root, split=split, flip=True)
        shown = [Seeded(data)[1, seed][0] for seed in range(20)]
        turned = [torch.equal(x, plain[1][0].flip(-1)) for x in shown]
        assert all(t or torch.equal(x, plain[1][0]) for x, t in zip(shown, turned, strict=True))
        assert set(turned) == ({True, False} if split == "train" else {False})
