"""The U-Net for clips: the image network at the start, stills that nobody sees, frames that are given."""

import itertools

import pytest
import torch

from shared.conditions.config import ConditionConfig
from task5_video.tests.small import BY_LABEL, by_frame, image_unet, new_unet, normal, wake

KINDS = [
    {"attention": attention, "positions": positions, "convolution": convolution}
    for attention, positions, convolution in itertools.product(
        ("temporal", "full", "none"), ("rotary", "relative"), (True, False)
    )
    if attention != "none" or positions == "rotary"
]
WAYS = ["vanilla", "adaptive", "token", "cross_attention", "cross_attention_pooled"]
X, T = normal(2, 1, 5, 8, 8), torch.tensor([30.0, 700.0])
LABEL = {"label": torch.tensor([1, 2])}
OWNER = torch.tensor([[0, 0, 0, 1, 2]] * 2)
BESIDE = {"label": torch.tensor([[1, 3, 4], [2, 5, 6]]), "owner": OWNER}  # of each clip, and of two stills beside it
NOTHING = ConditionConfig()


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)  # the angles of what is turned are float32


def alone(network, x=X, t=T):
    """The clips of three frames, and each of the stills, one by one."""
    clip = network(x[:, :, :3], t, LABEL)
    stills = [network(x[:, :, 3 + k : 4 + k], t, {"label": BESIDE["label"][:, 1 + k]}) for k in range(2)]
    return torch.cat([clip, *stills], dim=2)


# --- from the image network -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_new_network_is_the_image_network_frame_by_frame(kind):
    image = image_unet()
    network = new_unet(image, **kind)
    assert bool(network.added) == (kind["attention"] != "none" or kind["convolution"])
    found = network(X, T, LABEL)
    assert found.abs().mean() > 0.01
    close(found, by_frame(image, X, T, LABEL))
    assert not torch.allclose(found, by_frame(image, X, T, {"label": LABEL["label"].flip(0)}))


@pytest.mark.parametrize("way", [*WAYS, "none"])
def test_so_it_is_whatever_it_is_told_in_whichever_way(way):
    condition = ConditionConfig(label=way, dim=16, tokens=2)
    image = image_unet(condition)
    network, cond = new_unet(image, condition), LABEL if way != "none" else {}
    close(network(X, T, cond), by_frame(image, X, T, cond))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_awake_the_frames_know_of_each_other(kind):
    network = wake(new_unet(**kind))
    out, other = network(X, T, LABEL), X.clone()
    other[:, :, 2] += 1
    changed = (network(other, T, LABEL) - out).abs().amax((0, 1, 3, 4)) > 1e-9  # (F,)
    together = kind["attention"] != "none" or kind["convolution"]
    assert changed.tolist() == ([True] * 5 if together else [False, False, True, False, False])
    assert not changed.all() or (network(X.flip(2), T, LABEL).flip(2) - out).abs().max() > 1e-6  # and which is when


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_gradients_reach_what_is_new_in_the_first_step_and_all_of_it_in_the_second(kind):
    network = new_unet(**kind)
    added = {name: parameter for name, parameter in network.image.named_parameters() if name in network.added}
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    before = {name: parameter.clone() for name, parameter in added.items()}
    for step in range(2):
        optimizer.zero_grad()
        network(X, T, LABEL).sub(normal(*X.shape, seed=4)).square().mean().backward()
        zeroed = [name for name in added if name.split(".")[-2] in ("mix", "out")]
        assert step or all(added[name].grad.abs().max() > 0 for name in zeroed)
        optimizer.step()
    still = {name for name, parameter in added.items() if torch.equal(parameter, before[name])}
    assert not still


# --- stills beside a clip ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_clip_with_stills_behind_it_is_the_clip_and_the_stills_alone(kind):
    network = wake(new_unet(**kind))
    close(network(X, T, BESIDE), alone(network))


@pytest.mark.parametrize("way", WAYS)
def test_so_it_is_whatever_each_is_told(way):
    network = wake(new_unet(None, ConditionConfig(label=way, dim=16, tokens=2)))
    out = network(X, T, BESIDE)
    close(out, alone(network))
    swapped = {**BESIDE, "label": BESIDE["label"][:, [0, 2, 1]]}
    changed = (network(X, T, swapped) - out).abs().amax((0, 1, 3, 4)) > 1e-9
    assert changed.tolist() == [False, False, False, True, True]


@pytest.mark.parametrize("kind", KINDS[:4], ids=str)
def test_and_so_are_the_gradients(kind):
    network, weights = wake(new_unet(**kind)), normal(*X.shape, seed=3)

    def gradients(out):
        network.zero_grad()
        (out * weights).sum().backward()
        return [parameter.grad.clone() for parameter in network.parameters()]

    for one, two in zip(gradients(network(X, T, BESIDE)), gradients(alone(network)), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-8)


def test_a_network_that_is_told_nothing_has_stills_too():
    network = wake(new_unet(None, NOTHING))
    parts = [network(X[:, :, frames], T, {}) for frames in (slice(0, 3), slice(3, 4), slice(4, 5))]
    close(network(X, T, {"owner": OWNER}), torch.cat(parts, dim=2))


# --- frames that are given --------------------------------------------------------------------------------------

MASK = torch.tensor([[True, True, False, False, False], [True, False, False, False, True]])
KNOWN = normal(*X.shape, seed=8)
GIVEN = {**LABEL, "given": KNOWN, "given_mask": MASK}


def test_given_frames_enter_clean_at_time_0():
    network, seen = wake(new_unet()), {}
    unet = network.image.unet
    unet.time.register_forward_pre_hook(lambda module, args: seen.update(t=args[0]))
    unet.stem.register_forward_pre_hook(lambda module, args: seen.update(x=args[0]))
    network(X, T, GIVEN)
    assert seen["t"].view(2, 5).tolist() == [[0, 0, 30, 30, 30], [0, 700, 700, 700, 0]]
    entered = seen["x"].view(2, 5, 1, 8, 8).transpose(1, 2)  # a stem of patch 1 is given the frames as they are
    expected = X.clone()
    expected[0, :, :2], expected[1, :, [0, 4]] = KNOWN[0, :, :2], KNOWN[1, :, [0, 4]]
    assert torch.equal(entered, expected)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_what_stands_in_their_place_does_not_matter_and_they_do(kind):
    network = wake(new_unet(**kind))
    out, there = network(X, T, GIVEN), MASK[:, None, :, None, None]
    assert torch.equal(network(X + 100 * there, T, GIVEN), out)  # bit for bit
    assert torch.equal(network(X, T, {**GIVEN, "given": KNOWN + 100 * ~there}), out)
    other = network(X, T, {**GIVEN, "given": KNOWN + there})
    together = kind["attention"] != "none" or kind["convolution"]
    assert ((other - out)[0, :, 2].abs().max() > 1e-9) == together


def test_where_none_is_given_all_is_as_if_there_were_none():
    network = wake(new_unet())
    none = {**GIVEN, "given_mask": torch.zeros_like(MASK)}
    assert torch.equal(network(X, T, none), network(X, T, LABEL))


def test_given_frames_of_a_clip_with_stills():
    network = wake(new_unet())
    mask = torch.tensor([[True, False, False, False, False]] * 2)
    out = network(X, T, {**BESIDE, "given": KNOWN, "given_mask": mask})
    clip = network(X[:, :, :3], T, {**LABEL, "given": KNOWN[:, :, :3], "given_mask": mask[:, :3]})
    close(out, torch.cat([clip, alone(network)[:, :, 3:]], dim=2))


# --- the rest ---------------------------------------------------------------------------------------------------


def test_it_says_what_it_reads_and_refuses_sizes():
    network = new_unet()
    assert network.keys == ["label"] and network.said[0].null(LABEL)["label"].tolist() == [10, 10]
    assert BY_LABEL.label == "vanilla"
    with pytest.raises(ValueError, match="images of 7×8 cannot go through 2 levels"):
        network(normal(2, 1, 3, 7, 8), T, LABEL)
