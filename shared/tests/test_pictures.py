"""Pictures hold exactly the samples: each file is read back."""

import numpy as np
import pytest
import torch
from PIL import Image

from shared import pictures


def images(n: int, channels: int = 1, size: int = 4) -> torch.Tensor:
    """Random samples, some values outside [-1, 1] as a sampler may give them."""
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(0))


def expected(image: torch.Tensor) -> np.ndarray:
    """Pixels (H, W) or (H, W, 3) of a sample (C, H, W): -1 is 0, 1 is 255, and what lies outside is clamped."""
    values = np.rint((image.numpy().clip(-1, 1) + 1) / 2 * 255).astype(np.uint8)
    return values[0] if len(values) == 1 else values.transpose(1, 2, 0)


def cell(sheet: np.ndarray, row: int, column: int, side: int, gap: int = 2) -> np.ndarray:
    """One sample out of a grid."""
    top, left = gap + row * (side + gap), gap + column * (side + gap)
    return sheet[top : top + side, left : left + side]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("upscale", [1, 3])
@pytest.mark.parametrize(("n", "rows", "columns"), [(1, 1, 1), (6, 2, 3), (9, 3, 3), (5, 2, 3), (2, 1, 2)])
def test_a_grid_holds_the_samples(n, rows, columns, upscale, channels, tmp_path):
    x = images(n, channels)
    path = pictures.save(pictures.grid(x, upscale=upscale), tmp_path / "grid.png")
    sheet, side = np.array(Image.open(path)), 4 * upscale
    assert sheet.shape[:2] == (rows * (side + 2) + 2, columns * (side + 2) + 2)
    assert sheet.ndim == (2 if channels == 1 else 3)
    for i in range(n):
        enlarged = expected(x[i]).repeat(upscale, 0).repeat(upscale, 1)
        assert np.array_equal(cell(sheet, i // columns, i % columns, side), enlarged)
    for i in range(n, rows * columns):
        assert (cell(sheet, i // columns, i % columns, side) == 255).all()
    assert (sheet[:2] == 255).all() and (sheet[:, :2] == 255).all() and (sheet[-2:] == 255).all()


def test_columns_may_be_chosen():
    assert pictures.grid(images(6), columns=6).size == (6 * 6 + 2, 6 + 2)


def test_a_range_error_is_not_hidden():
    """No normalisation by the image's own minimum and maximum: grey stays grey."""
    x = torch.full((1, 1, 4, 4), 0.2)
    x[..., 0] = -0.2
    assert set(np.array(pictures.grid(x, gap=0)).flatten()) == {102, 153}


def test_each_image_in_a_file_of_its_own(tmp_path):
    x = images(3, channels=3)
    pictures.save_each(x, tmp_path / "images", upscale=2)
    assert sorted(p.name for p in (tmp_path / "images").iterdir()) == ["0000.png", "0001.png", "0002.png"]
    for i in range(3):
        pixels = np.array(Image.open(tmp_path / "images" / f"{i:04d}.png"))
        assert np.array_equal(pixels, expected(x[i]).repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("n", [1, 5])
def test_a_film_has_all_frames_and_holds_the_last(n, tmp_path):
    frames = [pictures.grid(x[None]) for x in images(n)]
    film = Image.open(pictures.save_film(frames, tmp_path / "new" / "film.gif", seconds=1.0, hold=2.0))
    assert film.n_frames == n and film.info["loop"] == 0
    times = []
    for i, frame in enumerate(frames):
        film.seek(i)
        times.append(film.info["duration"])
        difference = np.array(film.convert("L")).astype(int) - np.array(frame)
        assert abs(difference).max() <= 8  # a GIF has 256 colours
    assert times == [pytest.approx(1000 / n, abs=10)] * (n - 1) + [2000]


def test_a_picture_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = pictures.save(pictures.grid(images(1)), tmp_path / "grid.png")
    before = path.read_bytes()

    def failing(self, file, *_, **__):
        file.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(Image.Image, "save", failing)
    with pytest.raises(OSError, match="No space"):
        pictures.save(pictures.grid(images(4)), path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["grid.png"]
