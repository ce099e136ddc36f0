"""The transformer for clips: interleaved, the image network at the start; joint, its own attention over all tokens."""

import pytest
import torch
from einops import rearrange
from torch import nn

from shared.blocks.dit import SelfAttention, rotary_angles
from task5_video import video_dit
from task5_video.config import TemporalConfig
from task5_video.temporal import REACH
from task5_video.tests.small import DIT, SHAPE, by_frame, image_dit, new_dit, normal, wake
from task5_video.video_dit import Along, AlongAll, AlongTime, VideoDiT

WAYS = ["adaln_zero", "adaln", "cross_attention", "in_context", "adaln_cross"]
X, T = normal(2, 1, 5, 8, 8), torch.tensor([30.0, 700.0])
LABEL = {"label": torch.tensor([1, 2])}
OWNER = torch.tensor([[0, 0, 0, 1, 2]] * 2)
BESIDE = {"label": torch.tensor([[1, 3, 4], [2, 5, 6]]), "owner": OWNER}
KINDS = [
    {"attention": "temporal"},
    {"attention": "temporal", "relative": True, "positions": "rotary", "qk_norm": True},
    {"attention": "temporal", "conditioning": "in_context"},
    {"attention": "temporal", "conditioning": "cross_attention", "checkpointing": True},
    {"attention": "full"},
    {"attention": "full", "positions": "rotary", "qk_norm": True, "conditioning": "adaln_cross"},
]
FRAMES, TOKENS = 5, 4


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)  # the angles of what is turned are float32


def alone(network):
    """The clips of three frames, and each of the stills, one by one."""
    clip = network(X[:, :, :3], T, LABEL)
    stills = [network(X[:, :, 3 + k : 4 + k], T, {"label": BESIDE["label"][:, 1 + k]}) for k in range(2)]
    return torch.cat([clip, *stills], dim=2)


# --- from the image network -----------------------------------------------------------------------------------


@pytest.mark.parametrize("positions", ["sincos", "rotary"])
@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_a_new_interleaved_one_is_the_image_network_frame_by_frame(way, relative, positions):
    image = image_dit(conditioning=way, positions=positions)
    network = new_dit(image, relative=relative)
    assert len(network.along) == len(network.image.blocks) == 2 and len(network.blocks) == 4
    found = network(X, T, LABEL)
    assert found.abs().mean() > 0.01
    close(found, by_frame(image, X, T, LABEL))


@pytest.mark.parametrize("positions", ["sincos", "rotary"])
@pytest.mark.parametrize("way", [way for way in WAYS if way != "in_context"])
def test_a_joint_one_is_the_image_network_on_one_frame(way, positions):
    image = image_dit(conditioning=way, positions=positions)
    network = new_dit(image, "full")
    assert network.state_dict().keys() == {f"image.{name}" for name in image.state_dict()}
    close(network(X[:, :, :1], T, LABEL), image(X[:, :, 0], T, LABEL)[:, :, None])
    assert (network(X, T, LABEL) - by_frame(image, X, T, LABEL)).abs().max() > 1e-3  # and on more it is another


def test_without_attention_along_time_it_is_the_image_network_always():
    image = image_dit()
    network = new_dit(image, "none")
    assert not network.along
    close(network(X, T, LABEL), by_frame(image, X, T, LABEL))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_awake_the_frames_know_of_each_other(kind):
    network = wake(new_dit(**kind))
    out, other = network(X, T, LABEL), X.clone()
    other[:, :, 2] += 1
    assert ((network(other, T, LABEL) - out).abs().amax((0, 1, 3, 4)) > 1e-9).all()
    assert (network(X.flip(2), T, LABEL).flip(2) - out).abs().max() > 1e-6  # and which is when


@pytest.mark.parametrize("kind", KINDS[:4], ids=str)
def test_gradients_reach_what_is_new_in_the_first_step_and_all_of_it_in_the_second(kind):
    network = new_dit(**kind)
    added = dict(network.along.named_parameters())
    before = {name: parameter.clone() for name, parameter in added.items()}
    optimizer = torch.optim.SGD(network.parameters(), 1.0)
    for step in range(2):
        optimizer.zero_grad()
        network(X, T, LABEL).sub(normal(*X.shape, seed=4)).square().mean().backward()
        assert step or all(p.grad.abs().max() > 0 for name, p in added.items() if "modulation" in name)
        optimizer.step()
    assert not [name for name, parameter in added.items() if torch.equal(parameter, before[name])]


# --- attention ------------------------------------------------------------------------------------------------


def tokens(count=FRAMES, seed=0):
    return normal(2 * count, TOKENS, DIT.width, seed=seed)


def attention(kind, *args):
    torch.manual_seed(0)
    return wake(kind(DIT, *args).double())


def test_along_all_is_its_own_attention_over_the_long_sequence(monkeypatch):
    monkeypatch.setattr(video_dit, "frame_angles", lambda frames, pairs, device: torch.zeros(frames, pairs))
    ours, theirs, x = attention(AlongAll), attention(SelfAttention), tokens()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    found = ours(x, Along(FRAMES, None, None))
    long = theirs(rearrange(x, "(b f) n d -> b (f n) d", f=FRAMES), None)
    close(found, rearrange(long, "b (f n) d -> (b f) n d", f=FRAMES))


def multihead(block):
    theirs = nn.MultiheadAttention(DIT.width, DIT.heads, batch_first=True).double()
    theirs.in_proj_weight.data, theirs.in_proj_bias.data = block.qkv.weight.data, block.qkv.bias.data
    theirs.out_proj.load_state_dict(block.out.state_dict())
    return theirs


UNLIKE = torch.tensor([[0, 0, 0, 1, 2], [0, 0, 0, 0, 1]])  # each clip has its own stills


@pytest.mark.parametrize("mask", [None, UNLIKE[:, :, None] == UNLIKE[:, None]], ids=["clips", "clips and stills"])
def test_along_time_is_torchs_attention_of_each_token(mask):
    block, x = attention(AlongTime, True), tokens()
    found = block(x, Along(FRAMES, mask, None))
    bias = torch.zeros(2, DIT.heads, FRAMES, FRAMES).double()
    for b in range(2):
        for i in range(FRAMES):
            for j in range(FRAMES):
                seen = mask is None or mask[b, i, j]
                bias[b, :, i, j] = block.bias.bias[REACH + j - i].detach() if seen else -torch.inf
    rows = rearrange(x, "(b f) n d -> (b n) f d", f=FRAMES)
    expected, _ = multihead(block)(rows, rows, rows, attn_mask=bias.repeat_interleave(TOKENS, 0).flatten(0, 1))
    close(found, rearrange(expected, "(b n) f d -> (b f) n d", n=TOKENS))


@pytest.mark.parametrize("placed", [True, False], ids=["rotary", "sincos"])
def test_along_all_turns_by_frame_and_by_place(placed):
    """A head's pairs as complex numbers, turned by the frame's angle and then by the place's."""
    block, x, size = attention(AlongAll), tokens(), DIT.width // DIT.heads
    space = rotary_angles(2, 2, size)
    found = block(x, Along(FRAMES, None, video_dit.turned(space) if placed else None))
    rows = rearrange(x, "(b f) n d -> b (f n) d", f=FRAMES)
    q, k, v = rearrange(block.qkv(rows), "b n (three h d) -> three b h n d", three=3, h=DIT.heads)
    when = torch.arange(FRAMES)[:, None, None] * torch.tensor(
        [100 ** (-i / (size // 2)) for i in range(size // 2)][::-1]
    )
    turn = torch.exp(1j * when).expand(FRAMES, TOKENS, -1) * (torch.exp(1j * space) if placed else 1)
    q, k = (torch.complex(*part.chunk(2, dim=-1)) * turn.flatten(0, 1) for part in (q, k))
    scores = (q @ k.conj().transpose(-1, -2)).real / size**0.5  # the product of turned vectors, as of plain ones
    expected = block.out(rearrange(scores.softmax(-1) @ v, "b h n d -> b n (h d)"))
    torch.testing.assert_close(found, rearrange(expected, "b (f n) d -> (b f) n d", f=FRAMES), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "args"), [(AlongTime, (False,)), (AlongTime, (True,)), (AlongAll, ())], ids=str)
def test_what_frames_say_to_each_other_depends_on_their_distance_alone(kind, args):
    block, x = attention(kind, *args), normal(7, TOKENS, DIT.width)
    early = block(x[2:], Along(5, None, None))
    owner = torch.tensor([[1, 1, 0, 0, 0, 0, 0]])
    late = block(x, Along(7, owner[:, :, None] == owner[:, None], None))[2:]
    torch.testing.assert_close(early, late, rtol=1e-6, atol=1e-6)
    assert (block(x[2:].flip(0), Along(5, None, None)).flip(0) - early).abs().max() > 1e-4


# --- stills, and frames that are given ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_clip_with_stills_behind_it_is_the_clip_and_the_stills_alone(kind):
    network, weights = wake(new_dit(**kind)), normal(*X.shape, seed=3)

    def gradients(out):
        network.zero_grad()
        (out * weights).sum().backward()
        return [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]

    out, expected = network(X, T, BESIDE), alone(network)
    close(out, expected)
    for one, two in zip(gradients(out), gradients(expected), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)
    swapped = network(X, T, {**BESIDE, "label": BESIDE["label"][:, [0, 2, 1]]})
    assert ((swapped - out).abs().amax((0, 1, 3, 4)) > 1e-9).tolist() == [False, False, False, True, True]


@pytest.mark.parametrize("attention", ["temporal", "full"])
def test_one_that_is_told_nothing_has_stills_too(attention):
    network = wake(new_dit(attention=attention, told=False))
    parts = [network(X[:, :, frames], T, {}) for frames in (slice(0, 3), slice(3, 4), slice(4, 5))]
    close(network(X, T, {"owner": OWNER}), torch.cat(parts, dim=2))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_given_frames_enter_clean_at_time_0_and_nothing_else_of_them_counts(kind):
    network, seen, known = wake(new_dit(**kind)), {}, normal(*X.shape, seed=8)
    mask = torch.tensor([[True, True, False, False, False], [True, False, False, False, True]])
    there = mask[:, None, :, None, None]
    given = {**LABEL, "given": known, "given_mask": mask}
    network.image.time.register_forward_pre_hook(lambda module, args: seen.update(t=args[0]))
    network.image.patches.register_forward_pre_hook(lambda module, args: seen.update(x=args[0]))
    out = network(X, T, given)
    assert seen["t"].view(2, 5).tolist() == [[0, 0, 30, 30, 30], [0, 700, 700, 700, 0]]
    expected = torch.where(there, known, X)
    assert torch.equal(seen["x"], rearrange(expected, "b c f h w -> (b f) c h w"))
    assert torch.equal(network(X + 100 * there, T, given), out)  # bit for bit
    assert torch.equal(network(X, T, {**given, "given": known + 100 * ~there}), out)
    assert (network(X, T, {**given, "given": known + there}) - out)[0, :, 2].abs().max() > 1e-9


# --- what is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("temporal", "conditioning", "message"),
    [
        (TemporalConfig(attention="full"), "in_context", "temporal.attention full is for other ways in"),
        (TemporalConfig(attention="full", positions="relative"), "adaln", "temporal.positions relative needs"),
    ],
)
def test_what_cannot_be_put_together(temporal, conditioning, message):
    with pytest.raises(ValueError, match=message):
        VideoDiT(SHAPE, type(DIT)(**{**vars(DIT), "conditioning": conditioning}), temporal)


def test_clips_of_another_size_are_refused():
    with pytest.raises(ValueError, match="this network is for data of 1×8×8, not 1×4×8"):
        new_dit()(normal(2, 1, 3, 4, 8), T, LABEL)
