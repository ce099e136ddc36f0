"""Longer than a clip, and between two frames: what a model is given, and what is made of its clips."""

import pytest
import torch

from shared.errors import UserError
from task5_video.continuation import between, extended, known_at, predicted
from task5_video.tests.small import normal

COND = {"label": torch.tensor([3, 1])}
HOW = {"method": "replacement", "weight": 3.0}


class Clips:
    """In the place of a model: draws noise of the seed, and remembers what it was asked."""

    shape = (1, 6, 2, 2)

    def __init__(self):
        self.asked = []

    def sample(self, n, cond, seed, *, given, frames, **options):
        self.asked.append({"n": n, "cond": cond, "seed": seed, "given": given, "frames": frames, **options})
        drawn = normal(n, 1, frames, 2, 2, seed=seed % 2**31)
        return torch.where(given.mask[:, None, None], given.clips, drawn)


def start(frames):
    return normal(2, 1, frames, 2, 2, seed=77)


def test_known_frames_stand_at_their_places():
    frames = start(2)
    given = known_at(frames, (0, 4), 5, "conditional", 1.0)
    assert given.mask.tolist() == [True, False, False, False, True] and given.clips.shape == (2, 1, 5, 2, 2)
    assert torch.equal(given.clips[:, :, [0, 4]], frames)
    assert (given.method, given.weight) == ("conditional", 1.0)


@pytest.mark.parametrize("options", [{}, {"frames": 9}])
def test_a_prediction_begins_with_what_is_there(options):
    model, frames = Clips(), start(3)
    clips = predicted(model, frames, COND, 5, **HOW, **options, steps=7)
    (asked,) = model.asked
    length = options.get("frames", 6)
    assert clips.shape == (2, 1, length, 2, 2) and torch.equal(clips[:, :, :3], frames)
    assert asked["given"].mask.tolist() == [True] * 3 + [False] * (length - 3)
    assert asked["given"].method == "replacement" and asked["given"].weight == 3.0
    assert asked["seed"] == 5 and asked["cond"] is COND and asked["steps"] == 7 and asked["n"] == 2


@pytest.mark.parametrize(("given", "options"), [(0, {}), (6, {}), (7, {}), (3, {"frames": 3})])
def test_a_prediction_needs_a_frame_and_one_to_draw(given, options):
    with pytest.raises(UserError, match=rf"^{given} frames are given, of clips of {options.get('frames', 6)}: give"):
        predicted(Clips(), start(given), COND, 5, **HOW, **options)


@pytest.mark.parametrize("overlap", [1, 2, 4, 5])
@pytest.mark.parametrize("given", [1, 3, 6, 9])
@pytest.mark.parametrize("length", [10, 23])
def test_a_clip_goes_on_from_its_last_frames(length, given, overlap):
    model, frames = Clips(), start(given)
    clips = extended(model, frames, length, COND, 5, overlap=overlap, **HOW)
    assert clips.shape == (2, 1, length, 2, 2) and torch.equal(clips[:, :, :given], frames)
    there = given
    for asked in model.asked:
        count = min(overlap, there)
        assert asked["given"].mask.tolist() == [f < count for f in range(6)] and asked["cond"] is COND
        assert torch.equal(asked["given"].clips[:, :, :count], clips[:, :, there - count : there])
        drawn = normal(2, 1, 6, 2, 2, seed=asked["seed"] % 2**31)[:, :, count:]
        rest = clips[:, :, there : there + 6 - count]
        assert torch.equal(rest, drawn[:, :, : rest.shape[2]])
        there += 6 - count
    assert there >= length > there - 6 + overlap
    assert len({asked["seed"] for asked in model.asked}) == len(model.asked)


def test_clips_of_another_length_and_other_seeds():
    model = Clips()
    clips = extended(model, start(2), 12, COND, 5, overlap=2, frames=8, steps=3, **HOW)
    assert [asked["frames"] for asked in model.asked] == [8, 8] and model.asked[0]["steps"] == 3
    assert torch.equal(clips, extended(Clips(), start(2), 12, COND, 5, overlap=2, frames=8, **HOW))
    other = extended(Clips(), start(2), 12, COND, 6, overlap=2, frames=8, **HOW)
    assert (clips[:, :, 2:] != other[:, :, 2:]).all()


def test_what_is_long_enough_is_cut_and_nothing_drawn():
    model, frames = Clips(), start(9)
    assert torch.equal(extended(model, frames, 7, COND, 5, **HOW), frames[:, :, :7]) and not model.asked


def test_as_much_overlap_as_a_clip_leaves_nothing_to_draw():
    with pytest.raises(UserError, match="^6 frames are given, of clips of 6"):
        extended(Clips(), start(8), 12, COND, 5, overlap=6, **HOW)


@pytest.mark.parametrize("options", [{}, {"frames": 3}])
def test_between_two_frames_the_ends_are_kept(options):
    model, ends = Clips(), start(2)
    clips = between(model, ends, COND, 5, **HOW, **options)
    length = options.get("frames", 6)
    assert clips.shape == (2, 1, length, 2, 2)
    assert torch.equal(clips[:, :, [0, -1]], ends) and (clips[:, :, 1:-1] != 0).all()
    assert model.asked[0]["given"].mask.tolist() == [True] + [False] * (length - 2) + [True]


def test_between_two_frames_there_must_be_one():
    with pytest.raises(UserError, match="^clips of 2 frames have none between"):
        between(Clips(), start(2), COND, 5, frames=2, **HOW)
