"""Masks of files: what a model's pixel holds of a larger or smaller one's, by the definition in fractions."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from task3_conditional.masks import any_within, known_beside, read_mask


def touched(marked: np.ndarray, height: int, width: int) -> np.ndarray:
    """The new pixels whose squares share an area with that of a pixel that is true; exact."""
    share = min(Fraction(marked.shape[0], height), Fraction(marked.shape[1], width))
    middles = [(length - count * share) / 2 for length, count in zip(marked.shape, (height, width), strict=True)]
    found = np.zeros((height, width), dtype=bool)
    for place in np.ndindex(height, width):
        corner = [middle + number * share for middle, number in zip(middles, place, strict=True)]
        for pixel in np.argwhere(marked):
            found[place] |= all(a < p + 1 and p < a + share for a, p in zip(corner, pixel, strict=True))
    return found


@pytest.mark.parametrize("size", [(30, 30), (10, 10), (14, 14), (13, 13), (27, 19), (20, 21), (7, 7), (3, 4)], ids=str)
def test_a_pixel_is_hidden_where_any_within_it_is(size):
    """Also in ratios that are no whole numbers, of other sides, and where it is enlarged."""
    marked = np.random.default_rng(0).random(size) < 0.05
    marked[size[0] // 2, size[1] // 2] = True
    found = any_within(torch.from_numpy(marked), 10, 10)
    assert 0 < found.sum() < 100 and (found.numpy() == touched(marked, 10, 10)).all()


@pytest.mark.parametrize("column", [101, 104, 109, 135])
def test_a_thin_line_hides_what_it_was_drawn_over(column, tmp_path):
    """Three pixels wide on a mask ten times as large: the middles and the means of the model's pixels may miss it."""
    lines = Image.new("L", (280, 280), 0)
    lines.paste(255, (column, 0, column + 3, 280))
    lines.save(tmp_path / "mask.png")
    Image.new("L", (280, 280), 99).save(tmp_path / "picture.png")
    hidden = ~read_mask(tmp_path / "mask.png", str(tmp_path / "picture.png"), 28, 28)[0, 0]
    expected = torch.zeros(28, dtype=torch.bool)
    expected[column // 10 : (column + 2) // 10 + 1] = True
    assert torch.equal(hidden, expected.expand(28, 28))
    if column == 101:
        for how in (Image.Resampling.NEAREST, Image.Resampling.BICUBIC, Image.Resampling.BOX):
            assert not (np.array(ImageOps.fit(lines, (28, 28), how)) >= 128).any()


@pytest.mark.parametrize("side", ["left", "right", "top", "bottom", "centre"])
def test_what_is_hidden_at_a_side_is_half_of_the_picture_and_a_quarter_in_its_middle(side):
    hidden = ~known_beside(side, 8, 12)[0, 0]
    assert hidden.sum() == 8 * 12 // (4 if side == "centre" else 2)
    y, x = (hidden.nonzero().double().mean(0) - torch.tensor([3.5, 5.5])).tolist()
    assert (y, x) == {"left": (0, -3), "right": (0, 3), "top": (-2, 0), "bottom": (2, 0), "centre": (0, 0)}[side]


def test_a_mask_of_the_models_size_is_as_it_is(tmp_path):
    marked = np.random.default_rng(0).random((9, 12)) < 0.3
    Image.fromarray(marked.astype(np.uint8) * 255).save(tmp_path / "mask.png")
    assert (~read_mask(Path(tmp_path / "mask.png"), "data:3", 9, 12)[0, 0].numpy() == marked).all()
