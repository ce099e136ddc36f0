"""Moving digits: a clip shows what its trajectory says, and moves as Moving MNIST was published to."""

import hashlib
import math
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from shared.datasets import load
from shared.datasets.config import DataConfig
from shared.datasets.digits import load_digits
from shared.datasets.moving_digits import NUMBERS, MovingDigits, boxed
from shared.datasets.video import load_video
from shared.datasets.video_config import VideoConfig
from shared.errors import UserError

SEEN = {  # what each word says of (dy, dx), the picture's y running downwards
    "left": (0, -1),
    "right": (0, 1),
    "up": (-1, 0),
    "down": (1, 0),
    "up and left": (-1, -1),
    "up and right": (-1, 1),
    "down and left": (1, -1),
    "down and right": (1, 1),
}


@pytest.fixture(scope="module")
def one() -> MovingDigits:
    return load_video(VideoConfig())


@pytest.fixture(scope="module")
def published() -> MovingDigits:
    return load_video(VideoConfig(digits=2, frames=20))


@pytest.fixture(scope="module")
def digits() -> dict[str, torch.Tensor]:
    return {split: load_digits(DataConfig(split=split)).images[:, 0].numpy() for split in ("train", "test")}


def complaint(**config) -> str:
    with pytest.raises(UserError) as caught:
        load_video(VideoConfig(**config))
    return str(caught.value)


def reference(place: float, velocity: float, free: float, frames: int) -> list[float]:
    """One coordinate as the published code moves it: a step, then clamped and turned, then seen."""
    seen = []
    for _ in range(frames):
        place += velocity
        if place <= 0:
            place, velocity = 0.0, -velocity
        if place >= free:
            place, velocity = free, -velocity
        seen.append(place)
    return seen


# --- what is drawn --------------------------------------------------------------------------------------------------


def test_the_forms_of_a_clip(one, published):
    x, cond = one[0]
    assert x.shape == one.shape == (1, 16, 32, 32) and x.dtype == torch.float32
    assert x.min() == -1 and 0.5 < x.max() <= 1
    assert {name: (value.dtype, value.shape) for name, value in cond.items()} == {
        "label": (torch.long, ()),
        "caption": (torch.long, ()),
    }
    assert published[0][0].shape == published.shape == (1, 20, 64, 64)
    assert (len(one), len(load_video(VideoConfig(split="test")))) == (45_000, 10_000)
    with pytest.raises(IndexError):
        one[len(one)]


@pytest.mark.parametrize(
    ("split", "count", "size"),
    [
        ("train", 1, 32),
        ("train", 2, 64),
        *(("test", count, size) for count, size in ((1, 56), (2, 40), (1, 24), (1, 55))),
    ],
)
def test_each_frame_is_the_digits_at_the_truncated_positions(digits, split, count, size):
    """Composed here in numpy, frame by frame, from the embedded digits."""
    data = MovingDigits(split, count, size, frames=9)
    for i in (0, 3, 700, len(data) - 1):
        path = data.trajectory(i)
        expected = np.zeros((9, size, size), np.uint8)
        for digit, places in zip(path.digits, path.positions.tolist(), strict=True):
            image = digits[split][digit]
            if size < 56:
                rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
                image = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
                above, left = (20 - image.shape[0]) // 2, (20 - image.shape[1]) // 2
                image = np.pad(image, ((above, 20 - image.shape[0] - above), (left, 20 - image.shape[1] - left)))
            side = len(image)
            for frame, (y, x) in enumerate(places):
                part = expected[frame, math.floor(y) : math.floor(y) + side, math.floor(x) : math.floor(x) + side]
                assert part.shape == (side, side)  # within the picture
                np.maximum(part, image, out=part)
        x, cond = data[i]
        assert np.array_equal(((x[0] + 1) * 127.5).round().numpy(), expected)
        assert cond["label"] == int(path.digits[0]) // {"train": 450, "test": 50}[split]  # they lie sorted by class


def test_a_box_holds_all_of_a_digit(digits):
    for image in np.concatenate([digits["train"][::7], digits["test"]]):
        box = boxed(torch.from_numpy(image)).numpy()
        assert box.shape == (20, 20) and box.sum(dtype=int) == image.sum(dtype=int)


def test_every_digit_begins_as_many_clips_as_any_other():
    data = load_video(VideoConfig(split="test"))
    assert [data.trajectory(i).digits[0] for i in range(1000)] == 2 * list(range(500))
    paths = {tuple(data.trajectory(i).positions.flatten().tolist()) for i in range(0, 10_000, 500)}
    assert len(paths) == 20  # and no clip twice


# --- how it moves ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fixture", "free", "step"), [("one", 12, 2.0), ("published", 36, 3.6)])
def test_it_moves_at_one_speed_and_turns_at_the_border_as_published(request, fixture, free, step):
    data = request.getfixturevalue(fixture)
    bounces = 0
    for i in range(300):
        path = data.trajectory(i)
        assert path.positions.dtype == torch.float64 and (path.velocities.norm(dim=-1) - step).abs().max() < 1e-9
        for places, velocities in zip(path.positions, path.velocities, strict=True):
            for axis in (0, 1):
                seen, speed = places[:, axis].tolist(), velocities[0, axis].item()
                again = reference(seen[0], speed, free, len(seen) - 1)
                assert np.allclose(seen[1:], again, atol=1e-9)
                turned = velocities[1:, axis].sign() != velocities[:-1, axis].sign()
                at_border = (places[1:, axis] == 0) | (places[1:, axis] == free)
                assert torch.equal(turned, at_border)
                bounces += int(turned.sum())
    assert bounces > 300


def test_starts_and_directions_are_uniform(one):
    """The first frame is one step after a uniform start; Kolmogorov and Smirnov's test against both laws."""
    from scipy import stats

    paths = [one.trajectory(i) for i in range(3000)]
    angles = [math.atan2(*path.velocities[0, 0].tolist()) for path in paths]
    assert stats.kstest(angles, stats.uniform(-math.pi, 2 * math.pi).cdf).pvalue > 1e-3
    random_ = np.random.default_rng(0)
    drawn, turn = random_.uniform(0, 12, (20_000, 2)), random_.uniform(0, 2 * np.pi, 20_000)
    stepped = np.clip(drawn + 2 * np.stack([np.sin(turn), np.cos(turn)], 1), 0, 12)
    for axis in (0, 1):
        places = [path.positions[0, 0, axis].item() for path in paths]
        assert stats.ks_2samp(places, stepped[:, axis]).pvalue > 1e-3
    assert abs(np.corrcoef(*np.array([path.positions[0, 0].tolist() for path in paths]).T)[0, 1]) < 0.06


def test_two_digits_move_independently(published):
    paths = [published.trajectory(i) for i in range(1500)]
    for axis in (0, 1):
        starts = np.array([path.positions[:, 0, axis].tolist() for path in paths])
        assert abs(np.corrcoef(starts.T)[0, 1]) < 0.09
    seconds = np.array([published.labels[path.digits[1]] for path in paths])
    assert np.bincount(seconds, minlength=10).min() > 100 and np.bincount(seconds).max() < 210  # about 150 each


def test_a_stride_takes_frames_out_of_the_same_motion(one):
    third = load_video(VideoConfig(frames=6, stride=3))
    assert third.shape == (1, 6, 32, 32)
    for i in (0, 4000):
        assert torch.equal(third[i][0], one[i][0][:, ::3])
        assert torch.equal(one[i][0][:, :5], MovingDigits("train", frames=5)[i][0])  # a shorter clip begins the longer


# --- what is said ---------------------------------------------------------------------------------------------------


def test_captions_say_what_the_first_digit_does(one):
    assert len(one.captions) == len(set(one.captions)) == 80 and "a three moving left" in one.captions
    said = set()
    for i in range(0, 45_000, 75):
        _, cond = one[i]
        path = one.trajectory(i)
        digit, where = one.captions[cond["caption"]].removeprefix("a ").split(" moving ")
        assert NUMBERS.index(digit) == cond["label"] == int(one.classes[cond["label"]])
        words = torch.tensor(SEEN[where], dtype=torch.float64)
        velocity = path.velocities[0, 0]
        cosine = float(velocity @ words / velocity.norm() / words.norm())
        assert cosine > math.cos(math.pi / 8) - 1e-9  # none of the eight is nearer
        said.add(where)
    assert said == set(SEEN)


def test_left_is_left_in_the_picture(one):
    """The centre of brightness, which knows nothing of trajectories, moves the way that the caption says."""
    right = 0
    for i in range(0, 45_000, 450):
        x, cond = one[i]
        light = (x[0] + 1).double()
        grid = torch.arange(32, dtype=torch.float64)
        centre = torch.stack([(light.sum(2) @ grid), (light.sum(1) @ grid)], 1) / light.sum((1, 2))[:, None]
        moved = centre[1] - centre[0]
        word = SEEN[one.captions[cond["caption"]].split(" moving ")[1]]
        right += float(moved @ torch.tensor(word, dtype=torch.float64)) > 0
    assert right > 90  # the others meet the border at once


def test_captions_of_two_digits(published):
    assert len(published.captions) == len(set(published.captions)) == 6400
    assert "a three moving left and a five moving up" in published.captions
    singles = load_video(VideoConfig()).captions
    for i in range(40):
        path = published.trajectory(i)
        caption = published.captions[published[i][1]["caption"]]
        expected = [
            next(
                single
                for single in singles
                if NUMBERS[published.labels[digit]] in single
                and math.dist(unit(SEEN[single.split(" moving ")[1]]), unit(velocity)) < 2 * math.sin(math.pi / 16)
            )
            for digit, velocity in zip(path.digits, path.velocities[:, 0].tolist(), strict=True)
        ]
        assert caption == " and ".join(expected)


def unit(vector) -> list[float]:
    return [value / math.hypot(*vector) for value in vector]


# --- always the same ------------------------------------------------------------------------------------------------


def test_a_clip_depends_on_nothing_but_its_number(one):
    torch.manual_seed(1)
    random.seed(1)
    first = one[1234]
    state = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    again = pickle.loads(pickle.dumps(one))[1234]
    assert torch.equal(first[0], again[0]) and first[1] == again[1]
    assert torch.equal(torch.random.get_rng_state(), state[0]) and random.getstate() == state[1]
    assert np.random.get_state()[1].tolist() == state[2]
    assert not torch.equal(first[0], one[1234 + 4500][0])  # the same digit, another clip
    assert not torch.equal(one.trajectory(3).positions, MovingDigits("test").trajectory(3).positions)


def test_another_process_draws_the_same(published):
    program = (
        "import hashlib, torch; torch.manual_seed(5); from shared.datasets.moving_digits import MovingDigits;"
        "d = MovingDigits('train', 2, 64, 20);"
        "print(hashlib.sha256(d[77][0].numpy().tobytes() + d[44_999][0].numpy().tobytes()).hexdigest())"
    )
    clips = published[77][0].numpy().tobytes() + published[44_999][0].numpy().tobytes()
    out = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONHASHSEED": "7"},
    ).stdout.strip()
    assert out == hashlib.sha256(clips).hexdigest()


# --- the set of images ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("split", "size", "count"), [("train", None, 9_000), ("test", 64, 1_000)])
def test_images_are_frames_of_the_clips(split, size, count):
    data = load(DataConfig(name="moving_digits", split=split, size=size))
    side = size or 32
    assert data.images.shape == (count, 1, side, side) and data.classes == list("0123456789")
    assert data.labels.bincount().tolist() == [count // 10] * 10
    clips = MovingDigits(split, {32: 1, 64: 2}[side], side, 16)
    for i in (0, 5, 999):
        x, cond = data[i]
        clip, said = clips[i]
        assert any(torch.equal(x, clip[:, frame]) for frame in range(16)) and cond["label"] == said["label"]
    assert not torch.equal(data.images[0], data.images[count // 2])  # the same digit, elsewhere
    of_digit_0 = data.images[:: count // 4]
    assert len({image.numpy().tobytes() for image in of_digit_0}) == 4  # at other places


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"size": 23}, ["moving_digits", "24", "--data.size"]),
        ({"size": 0}, ["--data.size"]),
        ({"channels": 3}, ["moving_digits", "--data.channels"]),
    ],
)
def test_what_moving_digits_cannot_be_is_said_in_one_line(wrong, named):
    assert all(word in complaint(**wrong) for word in named)
    with pytest.raises(UserError) as caught:
        load(DataConfig(name="moving_digits", **wrong))
    assert all(word in str(caught.value) for word in named)


def test_the_config_is_free_of_torch():
    program = "import sys; import shared.datasets.video; assert not {'torch', 'av', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])
