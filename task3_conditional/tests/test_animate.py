"""The command that makes films, and the figures of edited pictures."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from shared.datasets import DataConfig
from shared.datasets import load as load_data
from shared.datasets.ranges import to_unit
from shared.tests.commands import Ended, call
from task3_conditional import animate
from task3_conditional.editing_measures import (
    animation_figures,
    control_figures,
    inpainting_figures,
    super_resolution_figures,
)
from task3_conditional.model import load
from task3_conditional.zooms import RATIO, composed

FAST = ["--device", "cpu", "--steps", 2, "--resample", 1, "--jump", 1, "--upscale", 1]


def do_animate(*arguments: object) -> Ended:
    """task3-animate, on the CPU, with as little work as may be."""
    return call(animate.main, "task3-animate", *arguments, *FAST)


def frames_of(path) -> np.ndarray:
    """The frames (F, H, W) of a grey GIF."""
    with Image.open(path) as film:
        return np.stack([np.asarray(frame.convert("L"), dtype=int) for frame in ImageSequence.Iterator(film)])


def test_a_film_of_a_caption(by_caption, here):
    do_animate("a red three", "--run", by_caption, "--frames", 48).well()
    names = {path.name for path in (here / "samples").iterdir()}
    assert names == {"film.gif", "film.mp4", "picture.png", "sheet.png"}
    with Image.open(here / "samples" / "picture.png") as picture:
        assert picture.size == (32, 32)


def test_a_film_of_a_class_pans_over_its_picture(by_class, here):
    do_animate("--label", 3, "--run", by_class, "--frames", 48, "--motion", "pan-left").well()
    frames = frames_of(here / "samples" / "film.gif")
    with Image.open(here / "samples" / "picture.png") as file:
        picture = np.asarray(file, dtype=int)
    assert frames.shape == (48, 28, 28)
    assert any(np.abs(frame - picture).max() <= 1 for frame in frames)  # its picture is in the film
    for before, after in zip(frames[-1:], frames[:1], strict=True):  # and it closes, in the same way as it goes
        assert np.abs(after[:, 1:] - before[:, :-1]).max() <= 1
    steps = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2))
    assert np.abs(frames[0] - frames[-1]).mean() <= np.median(steps) + 0.01
    assert frames.std() > 5


@pytest.mark.parametrize("motion, joined", [("pan-right", (3,)), ("circle", ()), ("zoom-out", ())])
def test_a_film_says_what_it_was_cut_from(by_class, motion, joined):
    model = load(by_class)
    config = animate.AnimateConfig(label=3, motion=motion, frames=44, steps=2, resample=1, jump=1)
    film = animate.filmed(model, animate.told(model, None, 3), animate.told_around(config, model, None), config, 0)
    assert film.clip.shape == (1, 1, 44, 28, 28) and film.joined == joined
    assert film.clip.unbind(2)[0].shape == film.picture.shape
    assert any(torch.equal(frame, film.picture) for frame in film.clip.unbind(2))
    for number, (canvas, pieces) in enumerate(zip(film.canvases, film.pieces, strict=True)):
        assert canvas.shape[2:] == pieces.shape[-2:]
        if motion == "zoom-out":  # what was known are those before, smaller
            smaller, _ = composed([film.picture, *film.canvases[:number]], RATIO ** (number + 1))
            assert pieces.sum() == 20 * 20 and torch.equal(canvas[pieces], smaller[pieces])
        else:
            assert torch.equal(canvas[:, 0][:, pieces == 0], film.picture[:, 0].flatten(1))
    found = animation_figures(film.clip, film.canvases, film.pieces, film.joined)
    assert found["seam_ratio"] > 0 and found["worst_step"] >= 1


@pytest.mark.parametrize("around, said", [(None, {True, False}), ("3", {True}), ("nothing", {False})])
def test_a_piece_of_which_half_is_known_is_told_nothing(by_class, monkeypatch, around, said):
    """It has no room for what is asked for, unless a person asks for it."""
    model, told, seeds = load(by_class), [], []

    def inpaint(model, cond, picture, known, seed, **_):
        told.append((bool((cond["label"] == 3).all()), known.float().mean().item()))
        seeds.append(seed)
        return picture

    monkeypatch.setattr("task3_conditional.inpainting.inpaint", inpaint)
    config = animate.AnimateConfig(label=3, motion="pan-diagonal", frames=60, steps=2, around=around)
    animate.filmed(model, animate.told(model, None, 3), animate.told_around(config, model, None), config, 0)
    assert {named for named, _ in told} == said
    assert len(set(seeds)) == len(seeds) > 1  # each from noise of its own, or all would draw alike
    if around is None:
        assert all(named == (known < 0.5) for named, known in told)


def test_a_film_is_the_same_with_and_without_a_terminal(by_class, monkeypatch):
    """The bar, which is only shown in one, has no part in what is drawn."""
    model, clips = load(by_class), []
    config = animate.AnimateConfig(label=3, motion="zoom-out", frames=44, steps=2, resample=1, jump=1)
    for terminal in (False, True):
        monkeypatch.setattr("sys.stderr.isatty", lambda terminal=terminal: terminal)
        clips.append(animate.filmed(model, animate.told(model, None, 3), model.told(1), config, 0).clip)
    assert torch.equal(*clips)


def test_zooms_and_the_same_seed(by_class, here):
    for out in "ab":
        do_animate("--label", 3, "--run", by_class, "--frames", 12, "--motion", "zoom-in", "--out", out).well()
    assert (here / "a" / "film.gif").read_bytes() == (here / "b" / "film.gif").read_bytes()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "say what to draw"),
        (["--label", 3, "--frames", 10], "more frames"),
        (["--label", 3, "--motion", "circle", "--frames", 200], "circle"),
        (["a red three"], "told no text"),
    ],
)
def test_what_cannot_be_filmed_is_one_line(by_class, here, arguments, message):
    assert do_animate(*arguments, "--run", by_class).says(1, message)


def test_a_motion_that_there_is_not_is_named(here):
    assert do_animate("--label", 3, "--motion", "sideways").says(2, "motion", "sideways")


# --- the figures of edited pictures ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real():
    data = load_data(DataConfig(name="digits", split="test"))
    return to_unit(data.images[::17][:58]), data.labels[::17][:58]  # they lie in the order of their classes


def outline(images):
    return (images[..., :, :] > 0) & (torch.nn.functional.max_pool2d(-images, 3, 1, 1) > 0)


def test_control_is_between_its_floor_and_its_ceiling(real):
    images, labels = real
    found = control_figures(images, images.flip(0), images, labels, outline)
    assert found["edge_f1"] == found["edge_f1_ceiling"] == found["edge_f1_of_ceiling"] == 1
    assert 0.1 < found["edge_f1_floor"] < 0.9
    assert found["judge_agreement"] > 0.9 > 0.5 > found["judge_agreement_base"]


def test_bicubic_gains_nothing_over_itself(real):
    images, labels = (part[:12] for part in real)
    low = torch.nn.functional.avg_pool2d(images, 4)
    bicubic = torch.nn.functional.interpolate(low, scale_factor=4, mode="bicubic", antialias=True).clamp(-1, 1)
    plain = super_resolution_figures(bicubic, images, low, labels)
    assert plain["psnr_gain"] == 0 and plain["judge_agreement"] == plain["judge_agreement_bicubic"]
    near = super_resolution_figures((images * 0.9 + bicubic * 0.1), images, low, labels)
    assert near["psnr_gain"] == pytest.approx(20, abs=0.01) and near["consistency_rmse"] < plain["consistency_rmse"]


def test_filling_is_measured_against_the_mean_and_a_changed_pixel_is_seen(real):
    images, labels = real
    mask = (torch.arange(28) < 14)[None, None, None].expand(1, 1, 28, 28)
    found = inpainting_figures(images, images, mask, labels)
    assert found["known_unchanged"] is True and found["seam_ratio"] == found["seam_ratio_real"]
    assert found["judge_agreement"] == found["judge_agreement_real"] > found["judge_agreement_mean"]
    changed, hidden = images.clone(), images.clone()
    changed[7, 0, 3, 13] += 1e-6
    hidden[7, 0, 3, 14] += 0.01
    assert inpainting_figures(changed, images, mask, labels)["known_unchanged"] is False
    assert inpainting_figures(hidden, images, mask, labels)["known_unchanged"] is True
