"""Whether captions are followed: real scenes are right, and each thing that can be wrong is found to be wrong."""

import pytest
import torch

from shared.datasets import load
from shared.datasets.captioned_digits import COLOURS, OPPOSITE, Group
from shared.datasets.config import DataConfig
from shared.datasets.ranges import to_unit
from shared.errors import UserError
from shared.metrics.scenes import judge_scenes


@pytest.fixture(scope="module")
def data():
    return load(DataConfig(name="captioned_digits", objects=3, split="test"))  # digits that were held out


def composed(data, scenes, seed=0):
    torch.manual_seed(seed)
    return torch.stack([to_unit(data.compose(scene)) for scene in scenes])


def some(data, counts, n=60):
    found = [scene for scene in data.scenes if tuple(group.count for group in scene) == counts]
    return found[:: max(1, len(found) // n)][:n]


KINDS = [(1,), (2,), (1, 1), (1, 2), (2, 1)]


@pytest.mark.parametrize("counts", KINDS, ids=str)
def test_real_scenes_are_right(data, counts):
    scenes = some(data, counts)
    found = judge_scenes(composed(data, scenes), scenes)
    assert found.n == len(scenes) and found.place > 0.98 and found.colour == 1 and found.all > 0.9


@pytest.mark.parametrize("counts", KINDS, ids=str)
@pytest.mark.parametrize("what", ["digit", "colour", "place"])
def test_one_thing_wrong_about_one_group_is_found_and_nothing_else_blamed(data, counts, what):
    """The picture shows the scene; the caption asks for one with a single change."""

    def changed(group: Group) -> Group:
        if what == "digit":
            return group._replace(digit=(group.digit + 3) % 10)
        if what == "colour":
            names = list(COLOURS)
            return group._replace(colour=names[(names.index(group.colour) + 2) % 6])
        return group._replace(place=OPPOSITE[group.place])

    scenes = some(data, counts)
    asked = [(*scene[:-1], changed(scene[-1])) for scene in scenes]
    if what == "place":
        asked = [tuple(changed(group) for group in scene) for scene in scenes]
    found = judge_scenes(composed(data, scenes), asked)
    name = {"digit": "identity"}.get(what, what)
    assert found.all <= 0.05
    if what != "place":  # elsewhere nothing, or another digit, is to be seen
        assert getattr(found, name) <= 0.05
        others = {"place", "colour", "identity"} - {name}
        assert all(getattr(found, other) > 0.9 for other in others)


def test_a_missing_digit_and_one_too_many_are_wrong(data):
    one, pair, twins = some(data, (1,)), some(data, (1, 1)), some(data, (2,))
    both = composed(data, pair)
    assert judge_scenes(both, [scene[:1] for scene in pair]).all == 0
    assert judge_scenes(both, [scene[1:] for scene in pair]).all == 0
    doubled = [(scene[0]._replace(count=2),) for scene in one]
    assert judge_scenes(composed(data, one), doubled).all == 0
    halved = [(scene[0]._replace(count=1),) for scene in twins]
    assert judge_scenes(composed(data, twins), halved).all == 0


@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
def test_a_picture_of_nothing_is_never_right(data, value):
    scenes = some(data, (1, 1)) + some(data, (1,))
    found = judge_scenes(torch.full((len(scenes), 3, 32, 32), value), scenes)
    assert found.all == 0


def test_noise_is_never_right(data):
    scenes = some(data, (1,))
    torch.manual_seed(0)
    assert judge_scenes(torch.randn(len(scenes), 3, 32, 32).clamp(-1, 1), scenes).all == 0


def test_a_dim_picture_is_still_read(data):
    """Samples are seldom as bright as the data; half as bright is still a digit in its colour."""
    scenes = some(data, (1, 1))
    dim = (composed(data, scenes) + 1) * 0.7 - 1
    assert judge_scenes(dim, scenes).all > 0.85


@pytest.mark.parametrize(
    "images", [torch.zeros(2, 1, 32, 32), torch.zeros(1, 3, 32, 32), torch.full((2, 3, 32, 32), 3.0)]
)
def test_what_it_refuses(data, images):
    with pytest.raises(UserError):
        judge_scenes(images, some(data, (1,))[:2])
