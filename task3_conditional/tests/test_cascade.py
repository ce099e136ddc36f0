"""task3-edit cascade, by the committed models and with a third one behind them: what it draws, and each mistake."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from task3_conditional.editing_measures import agreement
from task3_conditional.model import RESULTS
from task3_conditional.tests.commands import COMMON, do_edit, do_train

GAP = 2  # pixels between the pictures of a sheet


@pytest.fixture(scope="module")
def third(tmp_path_factory) -> Path:
    """A run of one step that enlarges digits of 28 pixels, padded, to 56, by class; never told noise."""
    folder = tmp_path_factory.mktemp("third")
    told = "--condition.label vanilla --condition.image concatenation --condition.dim 8 --condition.dropout 0.0".split()
    given = "--given.kind low --given.factor 2 --given.noise 0 --guidance.scale 1 --sampling.steps 2".split()
    options = ["--data.size", 56, "--train.steps", 1, "--run.folder", folder, "--run.name", "third"]
    do_train(*COMMON, *told, *given, *options).well()
    return folder / "task3" / "third"


def rows(path: str, side: int, columns: int = 2) -> list[list[np.ndarray]]:
    """The pictures of a sheet, row by row."""
    sheet = np.array(Image.open(path))
    step = side + GAP
    assert sheet.shape[1] == GAP + columns * step and (sheet.shape[0] - GAP) % step == 0
    corners = [range(GAP, size, step) for size in sheet.shape]
    return [[sheet[top : top + side, left : left + side] for left in corners[1]] for top in corners[0]]


def coarse(picture: np.ndarray, block: int) -> bool:
    """Whether a picture is made of even squares of so many pixels, and not of larger ones."""

    def even(size: int) -> bool:
        return (picture == picture[::size, ::size].repeat(size, 0).repeat(size, 1)).all()

    return even(block) and not even(2 * block if len(picture) % (2 * block) == 0 else len(picture))


def test_a_cascade_shows_what_each_model_makes(here):
    ended = do_edit("cascade", "--singles").well()
    assert "cascaded: samples/cascaded.png" in ended.out
    small, large = rows("samples/cascaded.png", 28)
    assert all(coarse(picture, 4) for picture in small) and not any(coarse(picture, 4) for picture in large)
    assert (small[0] != small[1]).any() and (large[0] != large[1]).any()
    for picture, path in zip(large, sorted(Path("samples/cascaded").iterdir()), strict=True):
        assert (np.array(Image.open(path)) == picture).all()
    for low, high in zip(small, large, strict=True):  # what was drawn small is what was enlarged
        back = high.reshape(7, 4, 7, 4).mean(axis=(1, 3))
        assert np.abs(back - low[::4, ::4].astype(float)).mean() < 40 < np.abs(255.0 - back - low[::4, ::4]).mean()


def test_the_seed_decides_all_and_the_level_only_what_is_enlarged(here):
    for out, options in {"a": (), "b": (), "c": ("--seed", 1), "d": ("--level", 0.3)}.items():
        do_edit("cascade", "--out", out, *options).well()
        torch.rand(3)
    a, b, c, d = (rows(f"{out}/cascaded.png", 28) for out in "abcd")
    for i in (0, 1):
        assert (a[0][i] == b[0][i]).all() and (a[1][i] == b[1][i]).all()
        assert (a[0][i] != c[0][i]).any() and (a[1][i] != c[1][i]).any()
        assert (a[0][i] == d[0][i]).all() and (a[1][i] != d[1][i]).any()


@pytest.mark.parametrize(
    ("asked", "classes"), [((), range(10)), (("--label", 3), [3]), (("--label", "1,7"), [1, 7])], ids=str
)
def test_a_cascade_draws_the_classes_asked_for(asked, classes, here):
    """A floor under the figures that were written down, loose enough for 20 digits in few steps."""
    do_edit("cascade", "--n", 20, "--steps", 15, "--singles", *asked).well()
    found = [np.array(Image.open(path)) for path in sorted(Path("samples/cascaded").iterdir())]
    samples = torch.from_numpy(np.stack(found))[:, None].float() / 127.5 - 1
    wanted = torch.tensor([list(classes)[i % len(classes)] for i in range(20)])
    assert agreement(samples, wanted) >= 0.8


def test_guidance_is_of_the_first_model(here):
    """The second was never told nothing, and cannot be guided."""
    for scale in (1, 4):
        do_edit("cascade", "--scale", scale, "--out", scale).well()
    one, four = (rows(f"{scale}/cascaded.png", 28) for scale in (1, 4))
    assert (one[0][0] != four[0][0]).any()


def test_a_cascade_of_three_has_three_rows(third, here):
    sr = RESULTS / "sr.safetensors"
    for out, options in {"a": (), "b": ("--level", "[0.2,0]"), "c": ("--label", 4)}.items():
        do_edit("cascade", "--then", f"[{sr},{third}]", "--out", out, *options).well()
    a, b, c = (rows(f"{out}/cascaded.png", 56) for out in "abc")
    assert len(a) == 3 and all(coarse(picture, 8) for picture in a[0]) and all(coarse(picture, 2) for picture in a[1])
    assert (a[0][0] == b[0][0]).all() and (a[1][0] != b[1][0]).any() and (a[0][0] != c[0][0]).any()
    do_edit("cascade", "--then", sr, "--out", "two").well()
    two = rows("two/cascaded.png", 28)
    assert all((x[::2, ::2] == y).all() for x, y in zip(a[1], two[1], strict=True))


def committed(name: str) -> str:
    """The file of a model that comes with the package."""
    return str(RESULTS / f"{name}.safetensors")


USAGE, MISTAKE = 2, 1
MISTAKES = [
    (["--level", -0.1], USAGE, "level"),
    (["--level", "[]"], MISTAKE, "a noise level is needed for each model that enlarges: 1, not 0"),
    (["--level", "[0.1,0.1]"], MISTAKE, "a noise level is needed for each model that enlarges: 1, not 2"),
    (["--level", 0.31], MISTAKE, "the noise level is 0.31", "sr.safetensors was trained with 0 to 0.3"),
    (["--picture", "data:0"], USAGE, "picture"),
    (["--then", "[]"], MISTAKE, "--then names no model that enlarges"),
    (["--then", "gone"], MISTAKE, "gone"),
    (["--run", "gone"], MISTAKE, "gone"),
    (["--run", committed("digits")], MISTAKE, "sr.safetensors enlarges pictures of 1×7×7, and", "makes 1×28×28"),
    (["--run", committed("sr")], MISTAKE, "sr.safetensors is always told a picture (given.kind low)"),
    (["--then", committed("digits")], MISTAKE, "digits.safetensors is not told a picture in low resolution"),
    (["--then", committed("controlnet")], MISTAKE, "this is not a config of stage 3"),
    (["--then", f"[{committed('sr')},{committed('sr')}]"], MISTAKE, "enlarges pictures of 1×7×7", "makes 1×28×28"),
    (["--label", "ten"], MISTAKE, "there is no class ten"),
    (["--text", "a red three"], MISTAKE, "small7.safetensors is a model that is told no text"),
    (["--steps", 1001], MISTAKE, "1001 sampling steps"),
]


@pytest.mark.parametrize(("arguments", "status", "parts"), [(a, s, p) for a, s, *p in MISTAKES], ids=str)
def test_a_mistake_is_one_line_and_nothing_is_written(arguments, status, parts, here):
    assert do_edit("cascade", *arguments).says(status, "task3-edit", "error: ", *parts)
    assert not list(here.iterdir())


def test_a_level_for_all_is_within_what_each_was_trained_with(third, here):
    ended = do_edit("cascade", "--then", f"[{committed('sr')},{third}]", "--level", 0.1)
    assert ended.says(1, "the noise level is 0.1", "third", "was trained with 0 to 0")
    assert not list(here.iterdir())
