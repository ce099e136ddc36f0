"""Digits are found and followed: against trajectories that are known, and against pictures that hold no digit."""

import numpy as np
import pytest
import torch

from shared.datasets.moving_digits import MovingDigits
from shared.errors import UserError
from shared.metrics import tracking
from shared.metrics.judge import inspect, load_judge
from shared.metrics.report import real_digits
from shared.metrics.tracking import Motion, read, track


def drawn(paths: torch.Tensor, side: int, which: range = range(0, 5000, 700)) -> torch.Tensor:
    """Clips (N, 1, F, side, side) of MNIST images whose upper left corners (N, D, F, 2) may lie out of the frame."""
    digits = real_digits()[list(which)][:, 0]
    clips = torch.full((len(paths), 1, paths.shape[2], side + 56, side + 56), -1.0)
    for n, clip in enumerate(paths.tolist()):
        for d, path in enumerate(clip):
            for f, (y, x) in enumerate(path):
                part = clips[n, 0, f, y + 28 : y + 56, x + 28 : x + 56]
                part.copy_(torch.maximum(part, digits[(n + d) % len(digits)]))
    return clips[..., 28:-28, 28:-28]


def straight(start: tuple[int, int], step: tuple[int, int], frames: int) -> torch.Tensor:
    """A path (F, 2) of whole pixels."""
    return torch.tensor(start) + torch.arange(frames)[:, None] * torch.tensor(step)


@pytest.fixture(scope="module")
def moving() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """60 clips of the data set, their corners (60, 16, 2) in whole pixels, their labels."""
    data = MovingDigits("test")
    numbers = range(0, 10000, 167)
    items = [data[i] for i in numbers]
    corners = torch.stack([data.trajectory(i).positions[0].long() for i in numbers])
    return torch.stack([x for x, _ in items]), corners, torch.stack([cond["label"] for _, cond in items])


def test_the_steps_are_those_that_were_drawn(moving):
    clips, corners, _ = moving
    tracks = track(clips)
    assert tracks.found.all() and not tracks.hidden.any()
    torch.testing.assert_close(tracks.place[:, 0].diff(dim=1), corners.diff(dim=1).float(), atol=1e-4, rtol=0)


def test_the_crop_is_the_digit_that_was_drawn(moving):
    clips, _, labels = moving
    tracks = track(clips)
    reading = read(tracks)
    assert (reading.digit == labels[:, None, None]).double().mean() > 0.97
    torch.testing.assert_close(reading.digit, reading.digit[..., :1].expand_as(reading.digit))
    assert torch.equal(tracks.crops, tracks.crops[:, :, :1].expand_as(tracks.crops))  # the same, wherever it is
    _, probabilities = inspect(load_judge(), tracks.crops[:, 0, 3, None])
    torch.testing.assert_close(reading.confidence[:, 0, 3], probabilities.amax(dim=1))


def test_the_crop_of_a_whole_image_is_that_image():
    """MNIST puts the centroid on pixel 14: what was cut out of a larger frame is the image again, up to a pixel."""
    tracks = track(drawn(torch.tensor([[[[17, 5]]]] * 8), side=64))
    images = real_digits()[::700]
    assert (tracks.place[:, 0, 0] - torch.tensor([17 + 14, 5 + 14])).abs().max() < 0.7
    shifts = [images.roll((dy, dx), (2, 3)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    faint = torch.stack([(tracks.crops[:, :, 0] - image).abs().amax(dim=(1, 2, 3)) for image in shifts]).amin(dim=0)
    assert (faint <= 0.5).all()  # apart from faint pixels more than 2 away from lit ones


def test_the_centroid_is_between_pixels_where_the_light_is():
    """A disc of known centre, antialiased: independent of any digit."""
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    centres = torch.tensor([[14.3, 15.8], [15.0, 16.45], [17.7, 13.1]])
    radius = [(y - cy).square().add((x - cx).square()).sqrt() for cy, cx in centres.tolist()]
    clip = torch.stack([(9.5 - r).clamp(0, 1) * 2 - 1 for r in radius])[None, None]
    tracks = track(clip)
    torch.testing.assert_close(tracks.place[0, 0], centres, atol=0.05, rtol=0)


def bar(height: int, width: int) -> torch.Tensor:
    frame = torch.full((32, 32), -1.0)
    frame[4 : 4 + height, 4 : 4 + width] = 1.0
    return frame


def two_parts() -> torch.Tensor:
    frame = bar(18, 4)
    frame[6:24, 18:22] = 1.0
    return frame


def noise() -> torch.Tensor:
    return torch.rand(32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


NOTHING = {
    "black": torch.full((32, 32), -1.0),
    "white": torch.full((32, 32), 0.999),
    "noise": noise(),
    "a dot": bar(5, 5),
    "a line across": bar(28, 3),
    "a block": bar(20, 20),
    "two parts": two_parts(),
}


@pytest.mark.parametrize("name", NOTHING)
def test_what_is_no_digit_is_not_found(name):
    frame = NOTHING[name]
    clip = torch.stack([bar(20, 5), frame, bar(20, 5)])[None, None]
    tracks = track(clip)
    assert tracks.found[0, 0].tolist() == [True, False, True]
    assert tracks.place[0, 0, 1].isnan().all() and (tracks.crops[0, 0, 1] == -1).all()
    reading = read(tracks)
    assert reading.digit[0, 0, 1] == -1 and reading.confidence[0, 0, 1] == 0


def test_nothing_at_all_is_read_as_nothing():
    tracks = track(torch.full((2, 1, 3, 32, 32), -1.0), digits=2)
    assert not tracks.found.any() and not tracks.hidden.any() and (read(tracks).digit == -1).all()


def test_a_speck_is_looked_over_and_a_gap_in_a_stroke_is_none():
    speck, gap = bar(20, 5), bar(20, 5)
    speck[8, 16] = 1.0
    gap[10:14] = -1.0
    tracks = track(torch.stack([speck, gap])[None, None])
    assert tracks.found.all()
    assert (tracks.crops[0, 0, 0] > 0).sum() == 100  # the speck is not in the crop


def test_two_digits_are_told_apart_and_hidden_where_they_touch():
    """One goes right, the other left, along the same row: they meet, overlap, and part again."""
    paths = torch.stack([straight((18, -2), (0, 4), 12), straight((20, 32), (0, -3), 12)])[None]
    clips = drawn(paths, side=64)
    tracks = track(clips, digits=2)
    hidden = tracks.hidden[0, 0].nonzero().flatten().tolist()
    assert torch.equal(tracks.hidden[:, 0], tracks.hidden[:, 1])
    assert hidden == list(range(hidden[0], hidden[-1] + 1)) and 3 <= len(hidden) <= 8
    assert torch.equal(tracks.found, ~tracks.hidden)
    order = tracks.place[0, :, 0, 1].argsort()  # which track is the left one at first
    expected = paths[0] + 14.0
    distance = (tracks.place[0, order] - expected).norm(dim=-1)
    assert distance[tracks.found[0, order]].max() < 1
    reading = read(tracks).digit[0, order]
    for row, found in zip(reading, tracks.found[0, order], strict=True):
        assert len(set(row[found].tolist())) == 1


def test_tracks_of_real_pairs_seldom_swap():
    data = MovingDigits("test", 2, 64, 20)
    numbers = range(0, 10000, 250)
    tracks = track(torch.stack([data[i][0] for i in numbers]), digits=2)
    truth = torch.stack([data.trajectory(i).positions.long() for i in numbers]) + 14.0  # (N, 2, F, 2)
    apart = (tracks.place[:, :, None] - truth[:, None]).norm(dim=-1)  # (N, track, digit, F)
    nearest = apart.nan_to_num(99.0).argmin(dim=2)
    assert apart.amin(dim=2)[tracks.found].max() < 1.5
    rows = zip(nearest.flatten(0, 1), tracks.found.flatten(0, 1), strict=True)
    swaps = [len(set(row[seen].tolist())) > 1 for row, seen in rows]
    assert sum(swaps) <= 0.1 * len(swaps)
    assert (tracks.found | tracks.hidden).double().mean() > 0.98


def test_a_digit_that_vanishes_is_lost_and_not_hidden():
    """The other is far away: nothing hides it."""
    paths = torch.stack([straight((0, 0), (0, 1), 10), straight((34, 34), (0, -1), 10)])[None]
    clips = drawn(paths, side=64)
    clips[:, :, 5:, 30:] = -1.0
    tracks = track(clips, digits=2)
    gone = tracks.place[0, :, 0, 0].argmax()
    assert tracks.found[0, gone].tolist() == [True] * 5 + [False] * 5
    assert tracks.found[0, 1 - gone].all() and not tracks.hidden.any()


def test_digits_that_fall_to_pieces_are_lost_even_near_each_other():
    """Hidden are they only behind each other, where one piece of light is all there is."""
    paths = torch.stack([straight((0, 0), (1, 0), 6), straight((0, 26), (1, 0), 6)])[None]
    clips = drawn(paths, side=64)
    assert track(clips, digits=2).found.all()
    clips[:, :, 3] = -1.0
    clips[:, :, 3, 10:20:5, 10:40:5] = 1.0
    tracks = track(clips, digits=2)
    assert not tracks.hidden.any()
    assert all(seen.tolist() == [True] * 3 + [False] + [True] * 2 for seen in tracks.found[0])


def test_what_is_not_seen_is_expected_to_go_on_and_to_bounce():
    """A digit of 28×28 in 64×64 has its centre on pixels 14 to 50; the speed is the mean of the steps seen."""
    motion = Motion(np.array([[30.0, 24.0], [46.0, 40.0]]), (64, 64))
    for step in (1, 2):
        motion.expected()
        motion.seen(0, np.array([30.0, 24.0 - 3 * step]))
        motion.seen(1, np.array([46.0 + step, 40.0 + [1, 4][step - 1]]))  # by 1, then by 3 pixels: 2 on average
    ahead = np.stack([motion.expected().copy() for _ in range(4)], axis=1)  # (2, 4, 2)
    assert ahead[0].tolist() == [[30, 15], [30, 14], [30, 17], [30, 20]]
    assert ahead[1].tolist() == [[49, 46], [50, 48], [49, 50], [48, 48]]
    motion.seen(0, np.array([30.0, 20.0]))  # four frames after it was seen last: no step of one frame
    assert motion.expected()[0].tolist() == [30, 23]


def test_clips_are_followed_each_by_itself(moving, monkeypatch):
    together = track(moving[0][:10])
    monkeypatch.setattr(tracking, "AT_ONCE", 3)
    for found, expected in zip(track(moving[0][:10]), together, strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        (torch.zeros(2, 3, 4, 32, 32) - 0.5, r"\(N, 1, F, H, W\), not \(2, 3, 4, 32, 32\)"),
        (torch.zeros(2, 4, 32, 32) - 0.5, r"not \(2, 4, 32, 32\)"),
        (torch.zeros(0, 1, 4, 32, 32), r"not \(0, 1, 4, 32, 32\)"),
        (torch.zeros(2, 1, 4, 32, 32, dtype=torch.uint8), "floating point"),
        (torch.full((2, 1, 4, 32, 32), float("nan")), "not finite"),
        (torch.full((2, 1, 4, 32, 32), -2.0), r"not in \[-2, -2\]"),
        (torch.rand(2, 1, 4, 32, 32), "2 x - 1"),
    ],
)
def test_what_it_refuses(clips, message):
    with pytest.raises(UserError, match=message) as caught:
        track(clips)
    assert "\n" not in str(caught.value)
