"""Pictures into noise and back, from one to another, and drawn again; and pictures as people have them."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from shared import pictures
from shared.datasets.held_out import chosen, held_out, one, pictures_given, read_picture
from shared.errors import UserError
from task1_unconditional.editing import (
    images_of,
    interpolated,
    noise_of,
    reconstructed,
    reconstruction_error,
    redrawn,
)
from task1_unconditional.model import Model, load
from task1_unconditional.tests.commands import TINY, do_edit, do_train

LEVELS = 12


def short_run(folder: Path, name: str, *options: object) -> Path:
    """A run with few levels."""
    do_train(
        *TINY, "--schedule.T", LEVELS, "--train.steps", 4, "--run.folder", folder, "--run.name", name, *options
    ).well()
    return folder / "task1" / name


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> Path:
    """Never changed by a test."""
    return short_run(tmp_path_factory.mktemp("short"), "short", "--averages.swa-start", 2)


@pytest.fixture(scope="module")
def model(short) -> Model:
    return load(short)


def pixels(path: str) -> np.ndarray:
    """Of a picture."""
    return np.array(Image.open(path))


def sheet(images: torch.Tensor, columns: int, upscale: int = 1) -> np.ndarray:
    """What a sheet of these must look like; `test_pictures.py` holds it against the images."""
    return np.array(pictures.grid(images.clamp(-1, 1), columns, upscale))


# --- from one to another ------------------------------------------------------------------------------------


def test_interpolation_ends_at_the_reconstructions(model):
    a, b = chosen(held_out(model)[0], 2)
    between = interpolated(model, a, b, 5, LEVELS)
    assert between.shape == (5, 1, 28, 28) and between.min() >= -1 and between.max() <= 1
    ends = reconstructed(model, torch.stack([a, b]), LEVELS).clamp(-1, 1)
    torch.testing.assert_close(between[[0, -1]], ends, rtol=0, atol=1e-5)
    torch.testing.assert_close(interpolated(model, b, a, 5, LEVELS).flip(0), between, rtol=0, atol=1e-5)
    steps = (between[1:] - between[:-1]).flatten(1).norm(dim=1)
    assert steps.max() < 3 * steps.min()  # no jump, and no two the same


def test_a_row_and_a_film_of_the_way(short, model, here):
    asked = ["--first", "data:3", "--second", "data:5", "--frames", 4, "--steps", 3, "--upscale", 2]
    ended = do_edit("interpolate", "--run", short, *asked, "--out", "o").well()
    data = chosen(held_out(model)[0], 6)
    between = interpolated(model, data[3], data[5], 4, 3)
    row = torch.cat([data[3:4], between, data[5:]])
    assert np.array_equal(pixels("o/interpolation.png"), sheet(row, 6, 2))
    film = Image.open("o/interpolation.gif")
    assert film.n_frames == 4 and film.size == (56, 56)
    for n, image in enumerate(between):
        film.seek(n)
        assert abs(np.array(film.convert("L")).astype(int) - sheet(image[None], 1, 2)[2:-2, 2:-2]).max() <= 8
    assert "interpolation: o/interpolation.png" in ended.out and "film: o/interpolation.gif" in ended.out
    assert sorted(path.name for path in Path("o").iterdir()) == ["interpolation.gif", "interpolation.png"]


# --- there and back -----------------------------------------------------------------------------------------


def test_the_printed_errors_are_those_of_each_picture(short, model, here):
    ended = do_edit("reconstruct", "--run", short, "--n", 3, "--steps", 4, "--out", "o").well()
    images = chosen(held_out(model)[0], 3)
    errors = reconstruction_error(model, images, 4)
    printed = ended.out.splitlines()[-1].partition("each: ")[2].split()
    assert printed == [f"{error:.5f}" for error in errors.tolist()] and len(set(printed)) == 3
    noise = noise_of(model, images, 4)
    rows = torch.cat([images, noise / 3, images_of(model, noise, 4)])
    assert np.array_equal(pixels("o/reconstruction.png"), sheet(rows, 3))
    torch.testing.assert_close(errors, ((rows[6:] - images) / 2).square().mean((1, 2, 3)))
    assert reconstruction_error(model, images, LEVELS).mean() < errors.mean()  # DDIM, table 2: it falls with the steps


def test_weights_are_those_asked_for(short, here):
    sheets = []
    for weights in ("ema", "swa", "model"):
        do_edit("reconstruct", "--run", short, "--n", 1, "--steps", 4, "--weights", weights).well()
        sheets.append(pixels("samples/reconstruction.png"))
    assert not np.array_equal(sheets[0], sheets[1]) and not np.array_equal(sheets[0], sheets[2])


def test_an_image_is_reconstructed_alike_beside_any_others(model):
    images = chosen(held_out(model)[0], 5)
    together = reconstructed(model, images, 4)
    torch.testing.assert_close(reconstructed(model, images, 4, batch=2), together, rtol=0, atol=1e-5)


# --- drawn again --------------------------------------------------------------------------------------------


def test_a_row_for_each_strength(short, model, here):
    asked = ["--n", 2, "--steps", LEVELS, "--strength", "[0.25,0.75,1]", "--seed", 4, "--sampler", "ddpm"]
    do_edit("redraw", "--run", short, *asked, "--out", "o").well()
    images = chosen(held_out(model)[0], 2)
    rows = [redrawn(model, images, strength, 4, steps=LEVELS, sampler="ddpm") for strength in (0.25, 0.75, 1)]
    assert np.array_equal(pixels("o/redrawn.png"), sheet(torch.cat([images, *rows]), 2))
    distances = [(row - images).square().mean().item() for row in rows]
    assert distances == sorted(distances)  # the more noise, the less of the picture


def test_redrawing_is_noise_and_then_ddim_from_there(model):
    """Written out with the raw network, whose output is v = alpha eps - sigma x0."""
    images = chosen(held_out(model)[0], 2)
    found = redrawn(model, images, 0.5, 7, steps=4, sampler="ddim", clamp=False)
    x0, eps = images, torch.randn(images.shape, generator=torch.Generator().manual_seed(7))
    for t in (6.0, 3.0):  # the steps visit 12, 9, 6, 3, 0: the first two lie above the middle
        alpha, sigma = (rate.float() for rate in model.diffusion.schedule.level(t))
        x = alpha * x0 + sigma * eps
        with torch.no_grad():
            v = model.network(x, torch.full((2,), t, dtype=torch.float64), {})
        x0, eps = alpha * x - sigma * v, sigma * x + alpha * v
    torch.testing.assert_close(found, x0.clamp(-1, 1), rtol=0, atol=1e-5)


def test_next_to_no_noise_keeps_the_picture(trained):
    model = load(trained)  # of 1000 levels, the first of which is next to no noise
    images = chosen(held_out(model)[0], 2)
    for strength in (1e-9, 1e-4, 1e-3):
        assert (redrawn(model, images, strength, steps=50) - images).abs().max() < 0.1


FROM_NOISE = [
    ["--schedule.name", "flow", "--diffusion.predict", "velocity"],
    ["--schedule.zero-terminal-snr", "true"],
]


@pytest.mark.parametrize("options", FROM_NOISE, ids=["flow", "zero_terminal_snr"])
def test_all_noise_is_sampling_where_nothing_of_the_picture_is_left(options, here):
    """Then it does not matter which picture was given, and the same seed draws what `sample` draws."""
    model = load(short_run(here, "run", *options))
    images = chosen(held_out(model)[0], 3)
    for sampler in ("ddim", "ddpm"):
        samples = model.sample(3, seed=5, sampler=sampler, steps=6)
        assert torch.equal(redrawn(model, images, 1, 5, sampler=sampler, steps=6), samples)
        assert torch.equal(redrawn(model, images.flip(0), 1, 5, sampler=sampler, steps=6), samples)


def test_of_other_schedules_a_trace_of_the_picture_is_left(here):
    model = load(short_run(here, "run", "--schedule.name", "linear"))  # few levels of which leave most of it
    images = chosen(held_out(model)[0], 3)
    samples = model.sample(3, seed=5)
    assert not torch.equal(redrawn(model, images, 1, 5), samples)
    near, far = ((redrawn(model, images, 1, 5) - other).square().mean() for other in (images, images.flip(0)))
    assert near < far


def test_the_seed_decides(model):
    images = chosen(held_out(model)[0], 2)
    again = [redrawn(model, images, 0.5, seed, steps=4) for seed in (1, 1, 2)]
    assert torch.equal(again[0], again[1]) and not torch.equal(again[0], again[2])
    state = torch.get_rng_state()
    redrawn(model, images, 0.5, 3, steps=4, sampler="ddpm")
    assert torch.equal(torch.get_rng_state(), state)


# --- pictures -----------------------------------------------------------------------------------------------


def test_held_out_images_by_number(model):
    data = chosen(held_out(model)[0], 10)
    for n in (0, 3, 9):
        assert torch.equal(one(model, f"data:{n}"), data[n])
    assert torch.equal(pictures_given(model, ("data:9", "data:0")), data[[9, 0]])
    assert torch.equal(pictures_given(model, (), 4), data[:4])


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "I;16", "CMYK"])
@pytest.mark.parametrize("size", [(28, 28), (31, 60)])
def test_any_mode_and_size_of_one_shade(mode, size, here):
    suffix = "tif" if mode == "CMYK" else "png"
    shade = Image.new("L", size, 100)
    if mode == "I;16":
        picture = Image.fromarray(np.full(size[::-1], 100 * 257, dtype=np.uint16))
    else:
        picture = shade.convert("RGB").quantize(4) if mode == "P" else shade.convert("RGB").convert(mode)
    picture.save(f"picture.{suffix}")
    found = read_picture(Path(f"picture.{suffix}"), (1, 28, 28))
    assert found.shape == (1, 28, 28) and found.dtype == torch.float32
    assert picture.mode == mode and ((found + 1) * 127.5 - 100).abs().max() < 1.01


def test_what_is_transparent_is_white_and_colour_stays(here):
    image = Image.new("RGBA", (28, 28), (255, 0, 0, 255))
    image.paste((0, 0, 255, 0), (14, 0, 28, 28))
    image.save("picture.png")
    found = read_picture(Path("picture.png"), (3, 28, 28))
    assert found[:, 0, 0].tolist() == [1, -1, -1] and found[:, 0, 27].tolist() == [1, 1, 1]


def test_a_wide_picture_loses_its_sides(here):
    """56 × 14, in quarters of black, white, black, white: the two in the middle stay, enlarged."""
    image = np.repeat([0, 255, 0, 255], 14)[None].repeat(14, 0).astype(np.uint8)
    Image.fromarray(image).save("wide.png")
    found = read_picture(Path("wide.png"), (1, 28, 28))
    assert found[0, :, 3:11].min() > 0.9 and found[0, :, 17:25].max() < -0.9


def test_pictures_that_are_no_squares_are_taken_as_they_are(here):
    Image.new("RGB", (28, 20), (255, 255, 255)).save("right.png")
    Image.new("RGB", (20, 28)).save("turned.png")
    assert read_picture(Path("right.png"), (3, 20, 28)).shape == (3, 20, 28)
    with pytest.raises(UserError, match="turned.png is 20×28 pixels, and the model's images are 28×20"):
        read_picture(Path("turned.png"), (3, 20, 28))


def test_files_and_held_out_images_together(short, model, here):
    Image.new("RGBA", (50, 40), (200, 30, 30, 255)).save("red.png")
    do_edit("redraw", "--run", short, "--pictures", "[red.png,data:2]", "--steps", 4, "--strength", "[0.5]").well()
    images = torch.stack([read_picture(Path("red.png"), (1, 28, 28)), one(model, "data:2")])
    rows = torch.cat([images, redrawn(model, images, 0.5, steps=4)])
    assert np.array_equal(pixels("samples/redrawn.png"), sheet(rows, 2))


def test_a_model_of_data_of_ones_own_takes_files(own, here):
    spec = f'{{"class_path": "{own}.Shades", "init_args": {{"size": 6}}}}'
    run = short_run(here, "own", "--own-data", spec, "--train.workers", 0)
    Image.new("L", (9, 9), 80).save("grey.png")
    do_edit("redraw", "--run", run, "--pictures", "[grey.png]", "--steps", 4).well()
    assert do_edit("redraw", "--run", run, "--steps", 4).says(1, "trained on data of your own")


# --- mistakes -----------------------------------------------------------------------------------------------

MISTAKES = [
    ("redraw", ["--strength", "[0]"], 2, ["strength", "0"]),
    ("redraw", ["--strength", "[2]"], 2, ["strength", "2"]),
    ("redraw", ["--strength", "[nan]"], 2, ["strength", "nan"]),
    ("redraw", ["--eta", "2"], 2, ["eta", "2"]),
    ("redraw", ["--sampler", "dimm"], 2, ["sampler", "dimm", "ddim"]),
    ("redraw", ["--sampler", "ddpm_learned", "--steps", "5"], 1, ["has learned no variance"]),
    ("redraw", ["--seed", "-1"], 2, ["seed"]),
    ("redraw", ["--steps", "13"], 1, ["13 sampling steps", "T = 12"]),
    ("interpolate", ["--steps", "13"], 1, ["13 sampling steps", "T = 12"]),
    ("interpolate", ["--frames", "1"], 2, ["frames", "1"]),
    ("interpolate", ["--frames", "2000"], 2, ["frames", "2000"]),
    ("interpolate", ["--first", "gone.png"], 1, ["cannot read gone.png"]),
    ("reconstruct", ["--steps", "13"], 1, ["13 sampling steps", "T = 12"]),
    ("reconstruct", ["--steps", "0"], 2, ["steps", "0"]),
    ("reconstruct", ["--pictures", "[data:500]"], 1, ["data:500 is no held-out image", "0 to 499"]),
    ("reconstruct", ["--pictures", f"[data:{'9' * 5000}]"], 1, ["is no held-out image"]),
    ("reconstruct", ["--pictures", "[data:x]"], 1, ["data:x is no held-out image"]),
    ("reconstruct", ["--pictures", "['data:']"], 1, ["is no held-out image"]),
    ("reconstruct", ["--pictures", "['data:-1']"], 1, ["data:-1 is no held-out image"]),
    ("reconstruct", ["--weights", "raw"], 2, ["weights", "raw", "model"]),
    ("reconstruct", ["--weights", "ema-0.5"], 1, ["holds no ema-0.5 weights"]),
    ("reconstruct", ["--run", "gone"], 1, ["there is no file gone"]),
    ("repaint", [], 2, ["repaint", "redraw"]),
]


@pytest.mark.parametrize("case", MISTAKES, ids=lambda case: " ".join([case[0], *case[1]])[:50])
def test_a_mistake_is_one_line_and_nothing_is_written(case, short, here):
    way, options, status, parts = case
    assert do_edit(way, "--run", short, *options).says(status, "task1-edit", "error: ", *parts)
    assert not list(here.iterdir())


def broken(path: Path) -> str:
    Image.effect_noise((64, 64), 50).save(path)
    path.write_bytes(path.read_bytes()[:300])
    return "given.png"


def text(path: Path) -> str:
    path.write_text("hello")
    return "given.png cannot be read as an image"


def nothing(path: Path) -> str:
    path.touch()
    return "given.png cannot be read as an image"


def folder(path: Path) -> str:
    path.mkdir()
    return "given.png: it is no regular file"


def pipe(path: Path) -> str:
    os.mkfifo(path)
    return "given.png: it is no regular file"


def link_to_nothing(path: Path) -> str:
    path.symlink_to("gone")
    return "cannot read given.png"


@pytest.mark.parametrize("make", [broken, text, nothing, folder, pipe, link_to_nothing])
def test_a_picture_that_is_none(make, short, here):
    part = make(here / "given.png")
    ended = do_edit("reconstruct", "--run", short, "--pictures", "[given.png]", "--steps", 4)
    assert ended.says(1, part)
    assert [path.name for path in here.iterdir()] == ["given.png"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(short, here):
    assert do_edit("redraw", "--run", short, "--device", "cuda").says(1, "torch sees no GPU")


def test_a_folder_that_cannot_be_written(short, here):
    Path("out").write_text("a file")
    ended = do_edit("redraw", "--run", short, "--steps", 4, "--n", 1, "--out", "out")
    assert ended.says(1, "cannot read or write out") and Path("out").read_text() == "a file"


def test_help_names_every_way_and_its_options():
    ended = do_edit("--help")
    assert ended.status == 0 and all(way in ended.out for way in ("interpolate", "reconstruct", "redraw"))
