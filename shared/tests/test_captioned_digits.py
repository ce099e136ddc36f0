"""Scenes of coloured digits: what a caption says is what the picture shows, and what is held out stays out."""

import itertools
import pickle
from collections import Counter

import pytest
import torch

from shared.datasets import load
from shared.datasets.captioned_digits import (
    COLOURS,
    OPPOSITE,
    PLACES,
    Group,
    centres,
    chinese,
    english,
    held_out,
    is_test,
    scenes,
)
from shared.datasets.config import DataConfig
from shared.errors import UserError

TRIPLES = list(itertools.product(range(10), COLOURS, PLACES))


def data(**options):
    return load(DataConfig(name="captioned_digits", **options))


@pytest.fixture(scope="module")
def both():
    return data(languages=("en", "zh"), objects=3)


def items(dataset, n, seed=0):
    torch.manual_seed(seed)
    return [dataset[i * 97 % len(dataset)] for i in range(n)]


def test_the_captions_of_the_issue():
    scene = (Group(1, 3, "red", "top"), Group(2, 7, "blue", "bottom"))
    assert english(scene) == ["a red three above two blue sevens", "two blue sevens below a red three"]
    assert chinese((Group(1, 3, "red", "left"),)) == ["左边是红色的三"]
    assert chinese(scene) == ["上边是红色的三，下边是两个蓝色的七", "下边是两个蓝色的七，上边是红色的三"]


def test_a_caption_belongs_to_one_scene_alone():
    for write in (english, chinese):
        written = [caption for scene in scenes(3) for caption in write(scene)]
        assert len(written) == len(set(written))


def test_every_scene_is_there_once():
    """Counted by hand: 240 groups of one digit, as many of two; a pair has 60 × 60 contents in two directions."""
    assert [len(scenes(n)) for n in (1, 2, 3)] == [240, 480 + 7200, 480 + 7200 + 2 * 7200]
    assert len(set(scenes(3))) == len(scenes(3))
    assert all(len(s) == 1 or s[1].place == OPPOSITE[s[0].place] for s in scenes(3))


def test_a_fifth_of_the_triples_is_held_out_and_no_part_of_one_is_unknown():
    out = [triple for triple in TRIPLES if held_out(triple)]
    assert len(out) == len(TRIPLES) / 5
    for position in range(3):
        counts = Counter(triple[position] for triple in out)
        assert len(counts) == (10, 6, 4)[position]
        assert max(counts.values()) < len(TRIPLES) / len(counts)  # each digit, colour and place is also trained
    for one, other in ((0, 1), (0, 2), (1, 2)):  # each pair of them too
        trained = {(t[one], t[other]) for t in TRIPLES if not held_out(t)}
        assert trained == {(t[one], t[other]) for t in TRIPLES}


def test_no_training_scene_has_a_triple_that_is_held_out_and_every_test_scene_has_one(both):
    test = data(languages=("en", "zh"), objects=3, split="test")
    assert not any(map(is_test, both.scenes)) and all(map(is_test, test.scenes))
    assert not set(both.captions) & set(test.captions)
    assert set(both.scenes) | set(test.scenes) == set(scenes(3))
    drawn = [both.scenes[cond["caption"]] for _, cond in items(both, 500)]
    assert not any(map(is_test, drawn))
    assert all(is_test(test.scenes[cond["caption"]]) for _, cond in items(test, 200))


def test_the_picture_shows_what_its_caption_says(both):
    """Independently of how it was composed: colour by colour, half by half."""
    for x, cond in items(both, 300):
        scene, lit = both.scenes[cond["caption"]], x > -1  # (3, 32, 32)
        halves = {"left": lit[:, :, :16], "right": lit[:, :, 16:], "top": lit[:, :16], "bottom": lit[:, 16:]}
        expected = torch.zeros(3, dtype=torch.bool)
        for group in scene:
            channels = torch.tensor(COLOURS[group.colour]) > 0
            expected |= channels
            if len(scene) == 2:  # what lies in its half is its colour and no other, but for a pixel over the middle
                share = halves[group.place].flatten(1).sum(1).double()
                assert (share[channels] > 5).all() and (share[~channels] <= 6).all(), (scene, share)
            else:
                inside = halves[group.place].sum().item()
                assert inside > 0.8 * lit.sum().item(), scene
        assert torch.equal(lit.flatten(1).any(dim=1), expected), scene


def test_an_item_has_its_own_digit_and_all_else_is_drawn_anew(both):
    for i in (0, 2000, 4499):
        torch.manual_seed(i)
        seen = [both[i] for _ in range(8)]
        digit = int(both.labels[i])
        assert all(digit in [group.digit for group in both.scenes[cond["caption"]]] for _, cond in seen)
        assert len({x.numpy().tobytes() for x, _ in seen}) == 8
        torch.manual_seed(5)
        first = both[i]
        torch.manual_seed(5)
        again = both[i]
        assert torch.equal(first[0], again[0]) and first[1] == again[1]


def test_one_and_two_groups_and_both_languages_are_drawn_about_equally(both):
    drawn = [int(cond["caption"]) for _, cond in items(both, 1200)]
    chinese_share = sum(not both.captions[i].isascii() for i in drawn) / 1200
    pairs = sum(len(both.scenes[i]) == 2 for i in drawn) / 1200
    assert 0.45 < chinese_share < 0.55 and 0.55 < pairs < 0.7  # 5 of the 8 kinds of scene are pairs
    places = Counter(group.place for i in drawn for group in both.scenes[i])
    assert min(places.values()) > 0.2 * sum(places.values())


@pytest.mark.parametrize("objects", [1, 2, 3])
def test_no_more_digits_than_asked_for(objects):
    for dataset in (data(objects=objects), data(objects=objects, split="test")):
        counts = {sum(group.count for group in scene) for scene in dataset.scenes}
        assert counts == set(range(1, objects + 1))
        assert {sum(g.count for g in dataset.scenes[cond["caption"]]) for _, cond in items(dataset, 200)} == counts


def test_digits_do_not_touch_the_edge_or_each_other():
    """Whatever is drawn: places lie so that digits of 14 pixels, moved as far as they may be, stay apart."""
    for scene in scenes(3):
        boxes = [(y, x) for places in centres(scene) for y, x in places]
        for (ay, ax), (by, bx) in itertools.combinations(boxes, 2):
            assert max(abs(ay - by), abs(ax - bx)) >= 16


def test_it_can_be_sent_to_a_loader(both):
    copy = pickle.loads(pickle.dumps(both))
    torch.manual_seed(1)
    a = both[7]
    torch.manual_seed(1)
    b = copy[7]
    assert torch.equal(a[0], b[0]) and a[1] == b[1]


@pytest.mark.parametrize(
    "options, says",
    [
        ({"languages": ("fr",)}, "no captions in fr"),
        ({"languages": ()}, "no language"),
        ({"size": 64}, "not resized"),
        ({"channels": 1}, "3 channels"),
    ],
)
def test_what_it_cannot_be(options, says):
    with pytest.raises(UserError, match=says):
        data(**options)
