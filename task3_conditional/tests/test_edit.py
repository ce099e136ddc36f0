"""task3-edit by the committed models: what it writes, what it leaves as it was, and each mistake in one line."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from shared.datasets import DataConfig
from shared.datasets import load as load_data
from shared.datasets.held_out import chosen
from shared.datasets.ranges import to_uint8
from task3_conditional.model import RESULTS
from task3_conditional.tests.commands import do_edit, do_sample

REPAINT = ["--method", "repaint", "--jump", 1, "--resample", 2]
GAP = 2  # pixels between the pictures of a sheet


def digit(number: int = 0) -> np.ndarray:
    """A held-out digit, (28, 28) in 0 to 255: what `--picture data:number` is."""
    data = load_data(DataConfig(name="digits", split="test"))
    return to_uint8(chosen(data, number + 1)[-1, 0]).numpy()


def cells(path: str, side: int, count: int) -> list[np.ndarray]:
    """The first pictures of a sheet, row by row."""
    sheet = np.array(Image.open(path))
    columns, step = (sheet.shape[1] - GAP) // (side + GAP), side + GAP
    corners = [(GAP + i // columns * step, GAP + i % columns * step) for i in range(count)]
    return [sheet[top : top + side, left : left + side] for top, left in corners]


def singles(name: str) -> list[np.ndarray]:
    """What was written with --singles."""
    return [np.array(Image.open(path)) for path in sorted(Path("samples", name).iterdir())]


def written(pixels: np.ndarray | Image.Image, name: str = "picture.png", mode: str | None = None) -> str:
    """A file of these pixels."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(name)
    return name


def names() -> set[str]:
    """Everything in this folder and below."""
    return {str(path) for path in Path().rglob("*")}


# --- what is hidden -----------------------------------------------------------------------------------------------

HIDDEN = {
    "left": np.s_[:, :14],
    "right": np.s_[:, 14:],
    "top": np.s_[:14],
    "bottom": np.s_[14:],
    "centre": np.s_[7:21, 7:21],
}


def kept(results: list[np.ndarray], known: np.ndarray, picture: np.ndarray) -> bool:
    """Whether results differ, each of which keeps what is known bit for bit, and is its own elsewhere."""
    assert all((result[known] == picture[known]).all() for result in results)
    assert all((result[~known] != picture[~known]).any() for result in results)
    return (results[0] != results[1]).any()


@pytest.mark.parametrize("way", [["--method", "told"], REPAINT], ids=["told", "repaint"])
@pytest.mark.parametrize("side", HIDDEN)
def test_inpaint_keeps_what_is_known(side, way, here):
    ended = do_edit("inpaint", "--picture", "data:3", "--hide", side, "--singles", *way).well()
    assert "inpainted: samples/inpainted.png" in ended.out and names() >= {"samples/inpainted/0001.png"}
    picture, known = digit(3), np.ones((28, 28), dtype=bool)
    known[HIDDEN[side]] = False
    shown, *results = cells("samples/inpainted.png", 28, 3)
    assert (shown[known] == picture[known]).all() and len(np.unique(shown[~known])) == 1
    assert kept(results, known, picture)
    assert all((a == b).all() for a, b in zip(results, singles("inpainted"), strict=True))


WAYS = {"inpaint": "inpainted", "outpaint": "outpainted", "redraw": "redrawn", "colourise": "coloured"}
WAYS["enlarge"] = "enlarged"


@pytest.mark.parametrize("way", WAYS)
def test_the_same_seed_makes_the_same_of_the_same_picture(way, here):
    """A scene of the colours' data is drawn anew whenever it is asked for; data:0 is one all the same."""
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        do_edit(way, "--seed", seed, "--out", out).well()
        torch.rand(3)  # as anything else in between might
    a, b, c = (np.array(Image.open(Path(out, f"{WAYS[way]}.png"))) for out in "abc")
    side = 32 if way == "colourise" else 28
    assert (a == b).all() and (a != c).any() and (a[: side + GAP, : side + GAP] == c[: side + GAP, : side + GAP]).all()


def a_mask() -> np.ndarray:
    """Hidden (white) is a corner of another form than any of `--hide`."""
    mask = np.zeros((28, 28), dtype=np.uint8)
    mask[3:20, 9:26] = 255
    return mask


MODES = ["L", "1", "P", "RGB", "RGBA", "LA", "I;16"]


@pytest.mark.parametrize("mode", MODES)
def test_a_mask_is_white_where_it_is_painted_whatever_its_mode(mode, here):
    mask = a_mask()
    image = Image.fromarray(mask.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(mask).convert(mode)
    assert image.mode == mode
    do_edit("inpaint", "--mask", written(image, "mask.png")).well()
    assert kept(cells("samples/inpainted.png", 28, 3)[1:], mask == 0, digit())


@pytest.mark.parametrize("size", [(56, 56), (84, 56)], ids=str)
def test_a_mask_is_brought_to_the_models_size_with_its_picture(size, here):
    """Each pixel large, and of one that is no square the middle: what is cut off is of both."""
    sides = ((size[0] - 56) // 2,) * 2
    large = [np.pad(part.repeat(2, 0).repeat(2, 1), ((0, 0), sides)) for part in (digit(), a_mask())]
    names = [written(part, name) for part, name in zip(large, ("picture.png", "mask.png"), strict=True)]
    do_edit("inpaint", "--picture", names[0], "--mask", names[1]).well()
    shown, *results = cells("samples/inpainted.png", 28, 3)
    assert kept(results, a_mask() == 0, shown) and (shown[a_mask() > 0] == shown[10, 10]).all()
    do_edit("inpaint", "--picture", names[0], "--mask", written(a_mask(), "small.png"), "--out", "small").well()
    assert (cells("small/inpainted.png", 28, 1)[0] == shown).all()  # as large as the model's will do


def test_a_mask_of_greys_and_one_that_is_transparent(here):
    """The middle parts them; what is transparent is white, as a page shows it."""
    grey = np.where(a_mask() > 0, 128, 127).astype(np.uint8)
    clear = np.dstack([np.zeros((28, 28, 3), dtype=np.uint8), 255 - a_mask()])
    for mask in (grey, clear):
        do_edit("inpaint", "--mask", written(mask, "mask.png")).well()
        assert kept(cells("samples/inpainted.png", 28, 3)[1:], a_mask() == 0, digit())


@pytest.mark.parametrize("way", [["--method", "told"], REPAINT], ids=["told", "repaint"])
def test_outpaint_keeps_the_picture_in_the_middle(way, here):
    """As small as asked for, by Pillow's resampling to a grey level."""
    do_edit("outpaint", "--picture", "data:1", "--size", 20, *way).well()
    picture, known = np.zeros((28, 28)), np.zeros((28, 28), dtype=bool)
    known[4:24, 4:24] = True
    shown, *results = cells("samples/outpainted.png", 28, 3)
    small = np.array(Image.fromarray(digit(1)).resize((20, 20), Image.Resampling.BILINEAR)).astype(float)
    assert np.abs(shown[4:24, 4:24] - small).max() <= 1 and len(np.unique(shown[~known])) == 1
    picture[known] = shown[known]
    assert kept(results, known, picture)


def test_outpaint_takes_three_quarters_of_the_canvas(here):
    even = np.full((28, 28), 200, dtype=np.uint8)  # made smaller, it is the same
    do_edit("outpaint", "--picture", written(even)).well()
    known = np.zeros((28, 28), dtype=bool)
    known[3:24, 3:24] = True
    shown, *results = cells("samples/outpainted.png", 28, 3)
    assert (shown[known] == 200).all() and (shown[~known] != 200).all() and kept(results, known, even)


# --- again, in colour, larger -------------------------------------------------------------------------------------


def test_redraw_has_a_row_for_each_strength(here):
    """The weaker, the nearer to the picture; and a class that is asked for changes what is drawn."""
    options = ["--strength", "[0.2,0.9]", "--steps", 20]
    do_edit("redraw", *options, "--singles").well()
    first, again, *results = cells("samples/redrawn.png", 28, 6)
    assert (first == digit()).all() and (again == digit()).all()
    off = [np.abs(result - digit().astype(float)).mean() for result in results]
    assert max(off[:2]) < min(off[2:]) and len(singles("redrawn")) == 4
    do_edit("redraw", *options, "--label", 1, "--out", "ones").well()
    assert Path("ones/redrawn.png").read_bytes() != Path("samples/redrawn.png").read_bytes()


def test_redraw_by_a_caption_is_by_the_model_of_captions(here):
    do_edit("redraw", "--strength", "[0.5]", "--text", "a red three on the left").well()
    assert all(cell.shape == (32, 32, 3) for cell in cells("samples/redrawn.png", 32, 4))


def test_colourise_keeps_the_luminance(here):
    """As Pillow has it. A picture without colours is the same to the model."""
    do_edit("colourise", "--picture", "data:2", "--singles").well()
    shown, *results = cells("samples/coloured.png", 32, 3)
    assert (shown == shown[..., :1]).all()
    for result in results:
        luminance = np.array(Image.fromarray(result).convert("L")).astype(float)
        assert np.sqrt(((luminance - shown[..., 0]) ** 2).mean()) < 1 and (result != shown).any()
    do_edit("colourise", "--picture", written(shown[..., 0]), "--out", "grey").well()
    assert (cells("grey/coloured.png", 32, 1)[0] == shown).all()


@pytest.mark.parametrize("level", [0, 0.3])
def test_enlarge_averaged_down_is_what_was_given(level, here):
    low = digit(5).reshape(7, 4, 7, 4).mean(axis=(1, 3)).round().astype(np.uint8)
    do_edit("enlarge", "--picture", written(low), "--level", level).well()
    nearest, bicubic, *results = cells("samples/enlarged.png", 28, 4)
    assert (nearest == low.repeat(4, 0).repeat(4, 1)).all()
    near = np.array(Image.fromarray(low).resize((28, 28), Image.Resampling.BICUBIC)).astype(float)
    assert np.abs(bicubic - near).max() <= 2
    for result in results:
        back = result.reshape(7, 4, 7, 4).mean(axis=(1, 3))
        assert np.sqrt(((back - low) ** 2).mean()) < 0.6  # of 255: half a level, and what rounding adds
        assert (result != nearest).any() and (result != bicubic).any()
    assert (results[0] != results[1]).any()


def test_enlarge_of_a_held_out_picture_makes_it_small_first(here):
    do_edit("enlarge", "--picture", "data:5").well()
    shown, low = cells("samples/enlarged.png", 28, 1)[0], digit(5).reshape(7, 4, 7, 4).mean(axis=(1, 3))
    assert np.abs(shown[::4, ::4] - low).max() <= 0.51


# --- pictures as people have them ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
def test_a_picture_of_another_mode_is_the_same_picture(mode, here):
    do_edit("inpaint", "--picture", written(digit(), mode=mode)).well()
    do_edit("inpaint", "--out", "plain").well()
    assert Path("samples/inpainted.png").read_bytes() == Path("plain/inpainted.png").read_bytes()


def test_what_is_transparent_is_white(here):
    alpha = np.full((28, 28), 255, dtype=np.uint8)
    alpha[:, :5] = 0
    do_edit("inpaint", "--picture", written(np.dstack([digit()] * 3 + [alpha]))).well()
    shown = cells("samples/inpainted.png", 28, 1)[0]
    assert (shown[:, :5] == 255).all() and (shown[:, 5:14] == digit()[:, 5:14]).all()


@pytest.mark.parametrize("size", [(56, 56), (28, 40), (1, 1)], ids=str)
def test_a_picture_of_another_size_is_made_the_models(size, here):
    image = Image.fromarray(np.full((56, 56), 77, dtype=np.uint8)).resize(size)
    for way, name in (("inpaint", "inpainted"), ("enlarge", "enlarged")):
        do_edit(way, "--picture", written(image)).well()
        assert (cells(f"samples/{name}.png", 28, 1)[0][:, :14] == 77).all()


# --- mistakes -----------------------------------------------------------------------------------------------------


def committed(name: str) -> str:
    """The file of a model that comes with the package."""
    return str(RESULTS / f"{name}.safetensors")


USAGE, MISTAKE = 2, 1
MISTAKES = [
    # usage
    (["redraw", "--strength", "[0]"], USAGE, "strength", "0"),
    (["redraw", "--strength", "[0.5,1.1]"], USAGE, "strength", "1.1"),
    (["outpaint", "--size", 0], USAGE, "size"),
    (["inpaint", "--hide", "middle"], USAGE, "hide", "middle"),
    (["inpaint", "--method", "guess"], USAGE, "method", "guess"),
    (["inpaint", "--n", 0], USAGE, "--help"),
    (["enlarge", "--level", -0.1], USAGE, "level"),
    (["inpaint", "--eta", 2], USAGE, "eta"),
    (["sharpen"], USAGE, "sharpen"),
    # what does not fit together, or is not there
    (["redraw", "--strength", "[]"], MISTAKE, "--strength names no time to begin at"),
    (["outpaint", "--size", 28], MISTAKE, "--size 28 leaves no room: the model's pictures are 28 pixels"),
    (["inpaint", "--mask", "large.png"], MISTAKE, "the mask large.png is 30×28 pixels, and the picture 28×28"),
    (["inpaint", "--mask", "large.png", "--picture", "black.png"], MISTAKE, "large.png is 30×28 pixels"),
    (["inpaint", "--mask", "white.png", "--hide", "left"], MISTAKE, "--mask and --hide both say what to paint anew"),
    (["inpaint", "--mask", "white.png"], MISTAKE, "the mask hides everything"),
    (["inpaint", "--mask", "black.png"], MISTAKE, "the mask hides nothing"),
    (["inpaint", "--mask", "none.png"], MISTAKE, "cannot read none.png: No such file or directory"),
    (["inpaint", "--mask", "."], MISTAKE, "cannot read .: it is no regular file"),
    (["inpaint", "--mask", "pipe"], MISTAKE, "cannot read pipe: it is no regular file"),
    (["inpaint", "--mask", "words.png"], MISTAKE, "words.png cannot be read as an image"),
    (["inpaint", "--mask", "half.png"], MISTAKE, "half.png"),
    (["redraw", "--picture", "none.png"], MISTAKE, "cannot read none.png: No such file or directory"),
    (["colourise", "--picture", "pipe"], MISTAKE, "cannot read pipe: it is no regular file"),
    (["enlarge", "--picture", "words.png"], MISTAKE, "words.png cannot be read as an image"),
    (["outpaint", "--picture", "half.png"], MISTAKE, "half.png"),
    (["enlarge", "--picture", "data:99999"], MISTAKE, "data:99999 is no held-out image", "from 0 to 499"),
    (["inpaint", "--picture", "data:-1"], MISTAKE, "data:-1 is no held-out image"),
    (["enlarge", "--level", 0.31], MISTAKE, "the noise level is 0.31", "was trained with 0 to 0.3"),
    (["enlarge", "--scale", 3], MISTAKE, "condition.dropout is 0", "make guidance.scale 1"),
    (["inpaint", "--method", "repaint"], MISTAKE, "a jump of 10 steps has no room in 2"),
    (["inpaint", *REPAINT, "--sampler", "dpm_solver_pp"], MISTAKE, "dpm_solver_pp has none"),
    (["inpaint", "--label", "ten"], MISTAKE, "there is no class ten"),
    (["enlarge", "--label", 3], MISTAKE, "is told no label"),
    (["inpaint", "--steps", 1001], MISTAKE, "1001 sampling steps"),
    (["inpaint", "--run", "gone"], MISTAKE, "gone"),
    (["inpaint", "--run", committed("controlnet")], MISTAKE, "this is not a config of stage 3"),
    (["inpaint", "--run", committed("digits"), "--method", "told"], MISTAKE, "is told no masked picture"),
    (["outpaint", "--run", committed("sr"), "--method", "told"], MISTAKE, "is told no masked picture"),
    (["colourise", "--run", committed("digits")], MISTAKE, "is not told a picture without its colours"),
    (["colourise", "--run", committed("captions")], MISTAKE, "is not told a picture without its colours"),
    (["enlarge", "--run", committed("inpaint")], MISTAKE, "is not told a picture in low resolution"),
    (["enlarge", "--run", committed("colour")], MISTAKE, "is not told a picture in low resolution"),
    (["inpaint", "--out", "words.png"], MISTAKE, "words.png"),
]


@pytest.fixture
def files(here) -> set[str]:
    """What mistakes are made with."""
    written(np.zeros((28, 30), dtype=np.uint8), "large.png")
    written(np.full((28, 28), 255, dtype=np.uint8), "white.png")
    written(np.zeros((28, 28), dtype=np.uint8), "black.png")
    noise = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    whole = Path(written(noise)).read_bytes()
    Path("half.png").write_bytes(whole[: len(whole) // 2])
    Path("words.png").write_text("no picture")
    os.mkfifo("pipe")
    return names()


@pytest.mark.parametrize(("arguments", "status", "parts"), [(a, s, p) for a, s, *p in MISTAKES], ids=str)
def test_a_mistake_is_one_line_and_nothing_is_written(arguments, status, parts, files):
    assert do_edit(*arguments).says(status, "task3-edit", "error: ", *parts)
    assert names() == files


def test_options_of_repaint_are_refused_where_a_told_model_paints(here):
    for options in (["--resample", 5], ["--jump", 3], ["--resample", 5, "--jump", 3]):
        assert do_edit("inpaint", "--n", 1, "--steps", 2, *options).says(
            1, "for RePaint, and a told model paints: add --method repaint"
        )
    assert not list(here.iterdir())


def test_a_model_that_is_told_a_picture_is_not_sampled_without_one(here):
    for name in ("inpaint", "sr", "colour"):
        ended = do_sample("--run", RESULTS / f"{name}.safetensors", "--n", 1, "--steps", 1)
        assert ended.says(1, "is always told a picture", "task3-edit")
    assert do_sample("--control-weight", 0.5, "--n", 1).says(1, "--control-weight", "add --control")
    assert not list(here.iterdir())
