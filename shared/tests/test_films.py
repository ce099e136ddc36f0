"""Films are read back: their frames are those of the clips, at the right pace, and nothing half-written is left."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from shared import files
from shared.datasets.moving_digits import MovingDigits
from shared.films import contact_sheet, save_gif, save_mp4


@pytest.fixture(scope="module")
def digits() -> torch.Tensor:
    """Three clips (3, 1, 10, 32, 32)."""
    data = MovingDigits("test", frames=10)
    return torch.stack([data[i][0] for i in (3, 200, 480)])


@pytest.fixture(scope="module")
def colours() -> torch.Tensor:
    """Five clips (5, 3, 6, 9, 7) of one random colour each frame."""
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (5, 3, 6, 1, 1), generator=random).expand(-1, -1, -1, 9, 7) / 127.5 - 1


def as_bytes(clips: torch.Tensor) -> np.ndarray:
    """What a clip shows: (N, F, H, W, C) in 0 … 255."""
    return ((clips.permute(0, 2, 3, 4, 1) + 1) * 127.5).round().clamp(0, 255).numpy().astype(np.uint8)


def cells(sheet: np.ndarray, rows: int, columns: int, side: tuple[int, int], upscale: int) -> list[np.ndarray]:
    """The pictures in a grid (H, W, C) of lines two pixels wide, without its enlargement."""
    height, width = side[0] * upscale, side[1] * upscale
    found = []
    for r in range(rows):
        for c in range(columns):
            top, left = 2 + r * (height + 2), 2 + c * (width + 2)
            found.append(sheet[top : top + height : upscale, left : left + width : upscale])
    return found


def read_gif(path: Path, mode: str) -> tuple[list[np.ndarray], list[int], int]:
    with Image.open(path) as image:
        pictures = [
            (np.asarray(frame.convert(mode)), frame.info["duration"]) for frame in ImageSequence.Iterator(image)
        ]
        return [p if p.ndim == 3 else p[..., None] for p, _ in pictures], [d for _, d in pictures], image.info["loop"]


def read_mp4(path: Path) -> tuple[list[np.ndarray], Fraction, str, str]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        about = stream.average_rate, stream.codec_context.name, stream.codec_context.pix_fmt
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)], *about


# --- GIF ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("columns", "upscale", "rows"), [(None, 1, 2), (3, 2, 1), (1, 3, 3)])
def test_a_gif_shows_each_grey_pixel_of_each_frame(tmp_path, digits, columns, upscale, rows):
    path = save_gif(digits, tmp_path / "new/film.gif", columns=columns, upscale=upscale)
    pictures, _, loop = read_gif(path, "L")
    assert len(pictures) == 10 and loop == 0  # for ever
    expected = as_bytes(digits)
    for number, picture in enumerate(pictures):
        shown = cells(picture, rows, columns or 2, (32, 32), upscale)
        assert all(np.array_equal(cell, clip[number]) for cell, clip in zip(shown, expected, strict=False))
    again = cells(pictures[4], rows, columns or 2, (32, 32), upscale)[0].repeat(upscale, 0).repeat(upscale, 1)
    assert np.array_equal(pictures[4][2 : 2 + 32 * upscale, 2 : 2 + 32 * upscale], again)  # enlarged by repeating
    assert [file.name for file in path.parent.iterdir()] == ["film.gif"]


@pytest.mark.parametrize("fps", [8, 24, 10, 30, 7.5])
def test_a_gif_keeps_its_pace(tmp_path, digits, fps):
    """Hundredths of a second cannot give 1/24: the frames take turns, and the whole is right."""
    _, stays, _ = read_gif(save_gif(digits, tmp_path / "a.gif", fps=fps), "L")
    assert abs(sum(stays) - 1000 * 10 / fps) <= 5 and max(stays) - min(stays) <= 10
    assert all(abs(sum(stays[:n]) - 1000 * n / fps) <= 5 for n in range(11))


def test_a_gif_is_no_faster_than_viewers_show_it(tmp_path, digits):
    _, stays, _ = read_gif(save_gif(digits, tmp_path / "a.gif", fps=200), "L")
    assert set(stays) == {20}


def test_frames_that_stand_still_are_a_longer_stay(tmp_path, digits):
    still = digits[:, :, :1].expand(-1, -1, 10, -1, -1)
    pictures, stays, _ = read_gif(save_gif(still, tmp_path / "a.gif", fps=10), "L")
    assert len(pictures) == 1 and sum(stays) == 1000


def test_a_gif_in_colour_is_near_and_does_not_flicker(tmp_path, colours):
    pictures, _, _ = read_gif(save_gif(colours, tmp_path / "a.gif", columns=5), "RGB")
    for number, picture in enumerate(pictures):
        shown = np.stack(cells(picture, 1, 5, (9, 7), 1)).astype(int)
        assert abs(shown - as_bytes(colours)[:, number]).max() <= 4  # thirty colours
    gradient = torch.linspace(-1, 1, 48)
    still = torch.stack([gradient.expand(48, 48), gradient[:, None].expand(48, 48), -gradient.expand(48, 48)])
    moving = torch.stack([still] * 4, 1)[None].clone()
    moving[:, :, :, :4, :4] = torch.linspace(-1, 1, 4)[None, None, :, None, None]  # a corner changes, all else does not
    pictures, _, _ = read_gif(save_gif(moving, tmp_path / "b.gif"), "RGB")
    assert len(pictures) == 4 and all(np.array_equal(p[6:], pictures[0][6:]) for p in pictures)
    assert abs(pictures[2].astype(int) - as_bytes(moving)[0, 2]).mean() < 12


def test_a_clip_alone_is_written_pixel_for_pixel(tmp_path, digits):
    pictures, _, _ = read_gif(save_gif(digits[:1], tmp_path / "a.gif"), "L")
    assert np.array_equal(np.stack(pictures), as_bytes(digits)[0])


# --- MP4 ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fps", [8, 12.5, 30])
def test_an_mp4_shows_each_frame_at_its_pace(tmp_path, digits, fps):
    path = save_mp4(digits, tmp_path / "new/film.mp4", fps=fps, columns=3, upscale=2)
    pictures, rate, codec, layout = read_mp4(path)
    assert (len(pictures), float(rate), codec, layout) == (10, fps, "h264", "yuv420p")
    expected = as_bytes(digits)
    for number, picture in enumerate(pictures):
        assert picture.shape == (68, 200, 3)  # 2 · 32 and lines of 2; 3 · (64 + 2) + 2
        shown = np.stack(cells(picture, 1, 3, (32, 32), 2)).astype(int)
        error = abs(shown - expected[:, number])
        assert error.mean() < 1.5 and error.max() < 40
        if number:  # and it is this frame, not its neighbour
            assert abs(shown - expected[:, number - 1]).mean() > 4
    assert [file.name for file in path.parent.iterdir()] == ["film.mp4"]
    assert path.read_bytes().index(b"moov") < path.read_bytes().index(b"mdat")  # a browser can begin at once


def test_sides_that_are_odd_become_even(tmp_path, colours):
    pictures, *_ = read_mp4(save_mp4(colours, tmp_path / "a.mp4", columns=5))
    assert {p.shape for p in pictures} == {(14, 48, 3)}  # 9 + 4, and 5 · 9 + 2
    for number, picture in enumerate(pictures):
        middles = np.stack(cells(picture, 1, 5, (9, 7), 1))[:, 3:6, 2:5].astype(int).mean((1, 2))
        assert abs(middles - as_bytes(colours)[:, number, 0, 0]).max() < 12  # colours, in their order
        assert picture[-1].min() > 200  # a white line


def test_without_x264_it_is_mpeg4(tmp_path, digits, monkeypatch):
    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"libx264"})
    pictures, rate, codec, _ = read_mp4(save_mp4(digits, tmp_path / "a.mp4", columns=3, upscale=2))
    assert (len(pictures), rate, codec) == (10, 8, "mpeg4")
    shown = np.stack(cells(pictures[7], 1, 3, (32, 32), 2)).astype(int)
    assert abs(shown - as_bytes(digits)[:, 7]).mean() < 3


# --- contact sheets ---------------------------------------------------------------------------------------------------


def test_a_contact_sheet_has_a_row_for_each_clip(digits):
    sheet = contact_sheet(digits)
    assert sheet.size == (10 * 34 + 2, 3 * 34 + 2) and sheet.mode == "L"
    shown = cells(np.asarray(sheet)[..., None], 3, 10, (32, 32), 1)
    assert np.array_equal(np.stack(shown), as_bytes(digits).reshape(30, 32, 32, 1))


@pytest.mark.parametrize(("columns", "numbers"), [(4, [0, 3, 6, 9]), (5, [0, 2, 4, 6, 8]), (9, [0, 2, 4, 6, 8])])
def test_a_long_clip_shows_some_of_its_frames_evenly(digits, columns, numbers):
    sheet = np.asarray(contact_sheet(digits, rows=2, columns=columns, upscale=2))[..., None]
    shown = cells(sheet, 2, len(numbers), (32, 32), 2)
    assert sheet.shape == (2 * 66 + 2, len(numbers) * 66 + 2, 1)
    assert np.array_equal(np.stack(shown), as_bytes(digits)[:2, numbers].reshape(-1, 32, 32, 1))


# --- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [save_gif, save_mp4])
def test_a_film_is_written_whole_or_not_at_all(tmp_path, digits, monkeypatch, save):
    path = tmp_path / f"film.{save.__name__[5:]}"
    path.write_text("the one before")

    def full(path: Path) -> None:
        assert path.stat().st_size > 500  # the film is there, and what comes next fails
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "force", full)
    with pytest.raises(OSError, match="No space"):
        save(digits, path)
    assert path.read_text() == "the one before" and [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("shape", [(1, 4, 32, 32), (2, 2, 4, 8, 8), (0, 1, 4, 8, 8), (2, 1, 0, 8, 8)])
def test_what_is_no_clip_is_refused(tmp_path, shape):
    for save in (save_gif, save_mp4):
        with pytest.raises(ValueError, match="clips must be"):
            save(torch.zeros(shape), tmp_path / "a.x")
    with pytest.raises(ValueError, match="clips must be"):
        contact_sheet(torch.zeros(shape))


def test_what_lies_outside_the_range_is_clamped_and_half_precision_taken(tmp_path, digits):
    wild = (3 * digits).bfloat16().requires_grad_()
    pictures, *_ = read_gif(save_gif(wild, tmp_path / "a.gif", columns=3), "L")
    assert np.array_equal(cells(pictures[2], 1, 3, (32, 32), 1)[1], as_bytes((3 * digits).bfloat16().float())[1, 2])
    assert len(pictures) == 10
