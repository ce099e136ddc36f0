"""What runs along time against torch's own layers, formulas written out, and what must hold of it."""

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from shared.blocks.resnet import Context
from task5_video.config import TemporalConfig
from task5_video.temporal import (
    REACH,
    RelativeBias,
    SpaceTimeAttention,
    TemporalAttention,
    TemporalConvolution,
    temporal_blocks,
)
from task5_video.tests.small import normal, wake

CHANNELS, HEADS, FRAMES, HEIGHT, WIDTH = 32, 2, 5, 2, 3
SIZE = CHANNELS // HEADS  # of a head
OWNER = torch.tensor([[0, 0, 0, 1, 2], [0, 0, 0, 0, 1]])
LAYERS = ["convolution", "temporal rotary", "temporal relative", "full rotary", "full relative"]


def layer(name):
    kind, _, positions = name.partition(" ")
    torch.manual_seed(0)
    if kind == "convolution":
        return TemporalConvolution(CHANNELS).double()
    make = {"temporal": TemporalAttention, "full": SpaceTimeAttention}[kind]
    return make(CHANNELS, TemporalConfig(heads=HEADS, positions=positions)).double()


def frames(batch=2, count=FRAMES, seed=0):
    return normal(batch * count, CHANNELS, HEIGHT, WIDTH, seed=seed)


def told(owner=None, count=FRAMES):
    return Context(frames=count, frame_mask=None if owner is None else owner[:, :, None] == owner[:, None])


def clips(x, count=FRAMES):
    return rearrange(x, "(b f) c h w -> b c f h w", f=count)


# --- what holds of all ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYERS)
def test_a_new_layer_changes_nothing_and_learns_at_once(name):
    block, x = layer(name), frames()
    out = block(x, told())
    assert torch.equal(out, x)
    (out * frames(seed=1)).sum().backward()
    last = block.mix if name == "convolution" else block.out
    assert last.weight.grad.abs().max() > 1e-3 and last.bias.grad.abs().max() > 1e-3


@pytest.mark.parametrize("name", LAYERS)
def test_frames_of_a_sample_see_each_other_and_no_others(name):
    """A clip with stills behind it is the clip, and each still, by itself; bit for bit it need not be."""
    block, x = wake(layer(name)), frames()
    out = clips(block(x, told(OWNER)))
    for b, owner in enumerate(OWNER):
        for sample in owner.unique():
            own = owner == sample
            alone = rearrange(clips(x)[b, :, own], "c f h w -> f c h w")
            alone = rearrange(block(alone, told(count=int(own.sum()))), "f c h w -> c f h w")
            torch.testing.assert_close(out[b, :, own], alone, rtol=1e-6, atol=1e-6)
    changed = x + 5 * (torch.arange(10) == 4)[:, None, None, None]  # a still of the first clip
    assert (clips(block(changed, told(OWNER))) != out).any((1, 3, 4)).nonzero().tolist() == [[0, 4]]


@pytest.mark.parametrize("name", LAYERS)
def test_clips_do_not_mix(name):
    block, x = wake(layer(name)), frames(batch=3)
    whole = clips(block(x, told()))
    for b in range(3):
        one = clips(block(x[b * FRAMES : (b + 1) * FRAMES], told()))[0]
        torch.testing.assert_close(one, whole[b], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", LAYERS)
def test_what_frames_say_to_each_other_depends_on_their_distance_alone(name):
    """The same frames two places later: the frames before them are another sample's."""
    block, x = wake(layer(name), size=0.3), frames(batch=1, count=7)
    early = block(x[2:], told(count=5))
    late = block(x, told(torch.tensor([[1, 1, 0, 0, 0, 0, 0]]), 7))[2:]
    torch.testing.assert_close(early, late, rtol=1e-6, atol=1e-6)  # angles are float32
    turned = block(x[2:].flip(0), told(count=5)).flip(0)
    assert (turned - early).abs().max() > 1e-3  # and it knows before from after


@pytest.mark.parametrize("name", LAYERS[1:])
def test_attention_reaches_every_frame_both_ways(name):
    block, x = wake(layer(name)), frames(batch=1)
    out = block(x, told())
    for f in range(FRAMES):
        other = x.clone()
        other[f] += normal(CHANNELS, HEIGHT, WIDTH, seed=9)
        assert ((block(other, told()) - out).abs().amax((1, 2, 3)) > 1e-6).all()


# --- the convolution ------------------------------------------------------------------------------------------


def test_the_convolution_is_that_of_torch_over_three_frames_and_one_pixel():
    block, x = wake(layer("convolution")), frames()
    weight = rearrange(block.mix.weight, "out (k c) 1 1 -> out c k 1 1", k=3)  # before, here, after
    h = clips(F.silu(block.norm(x)))
    expected = clips(x) + F.conv3d(h, weight, block.mix.bias, padding=(1, 0, 0))
    torch.testing.assert_close(clips(block(x, told())), expected, rtol=1e-10, atol=1e-10)


# --- attention ------------------------------------------------------------------------------------------------


def multihead(block):
    """torch's own, with the same weights."""
    theirs = nn.MultiheadAttention(CHANNELS, HEADS, batch_first=True).double()
    theirs.in_proj_weight.data = block.qkv.weight[:, :, 0, 0].data
    theirs.in_proj_bias.data = block.qkv.bias.data
    theirs.out_proj.weight.data, theirs.out_proj.bias.data = block.out.weight[:, :, 0, 0].data, block.out.bias.data
    return theirs


def by_distance(block, owner=None):
    """(B, heads, F, F): the bias of query i and key j, one by one; -inf between frames of two samples."""
    found = torch.zeros(2, HEADS, FRAMES, FRAMES).double()
    for b in range(2):
        for i in range(FRAMES):
            for j in range(FRAMES):
                found[b, :, i, j] = block.bias.bias[REACH + j - i]
                if owner is not None and owner[b, i] != owner[b, j]:
                    found[b, :, i, j] = -torch.inf
    return found.detach()


@pytest.mark.parametrize("owner", [None, OWNER], ids=["clips", "clips and stills"])
def test_attention_along_time_is_torchs_of_each_place(owner):
    block, x = wake(layer("temporal relative")), frames()
    rows = rearrange(clips(block.norm(x)), "b c f h w -> (b h w) f c")
    bias = by_distance(block, owner).repeat_interleave(HEIGHT * WIDTH, 0).flatten(0, 1)  # (B H W heads, F, F)
    mixed, _ = multihead(block)(rows, rows, rows, attn_mask=bias)
    expected = clips(x) + rearrange(mixed, "(b h w) f c -> b c f h w", h=HEIGHT, w=WIDTH)
    torch.testing.assert_close(clips(block(x, told(owner))), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("owner", [None, OWNER], ids=["clips", "clips and stills"])
def test_attention_over_all_is_torchs_of_the_whole_clip(owner):
    block, x = wake(layer("full relative")), frames()
    rows = rearrange(clips(block.norm(x)), "b c f h w -> b (f h w) c")
    area = HEIGHT * WIDTH
    bias = by_distance(block, owner).repeat_interleave(area, 2).repeat_interleave(area, 3).flatten(0, 1)
    mixed, _ = multihead(block)(rows, rows, rows, attn_mask=bias)
    expected = clips(x) + rearrange(mixed, "b (f h w) c -> b c f h w", h=HEIGHT, w=WIDTH)
    torch.testing.assert_close(clips(block(x, told(owner))), expected, rtol=1e-9, atol=1e-9)


def turned_by_hand(q, angles):
    """Pairs i and i + d / 2 as complex numbers, times e^(i angle). RoFormer, eq. (12)."""
    pairs = torch.complex(*q.chunk(2, dim=-1)) * torch.exp(1j * angles)
    return torch.cat([pairs.real, pairs.imag], dim=-1)


def plainly(block, rows, angles):
    """Attention over rows (B, N, C), written out; the members of a row are turned by (N, d / 2) angles."""
    weight, bias = block.qkv.weight[:, :, 0, 0], block.qkv.bias
    q, k, v = rearrange(rows @ weight.T + bias, "b n (three h d) -> three b h n d", three=3, h=HEADS)
    q, k = turned_by_hand(q, angles), turned_by_hand(k, angles)
    scores = (q @ k.transpose(-1, -2) / SIZE**0.5).softmax(dim=-1)
    mixed = rearrange(scores @ v, "b h n d -> b n (h d)")
    return mixed @ block.out.weight[:, :, 0, 0].T + block.out.bias


def speeds(pairs):
    return torch.tensor([100 ** (-i / pairs) for i in range(pairs)]).double()


def test_rotary_attention_along_time_is_the_formula():
    block, x = wake(layer("temporal rotary"), size=0.3), frames()
    rows = rearrange(clips(block.norm(x)), "b c f h w -> (b h w) f c")
    mixed = plainly(block, rows, torch.arange(FRAMES)[:, None] * speeds(SIZE // 2))
    expected = clips(x) + rearrange(mixed, "(b h w) f c -> b c f h w", h=HEIGHT, w=WIDTH)
    torch.testing.assert_close(clips(block(x, told())), expected, rtol=1e-6, atol=1e-6)  # angles are float32


def test_rotary_attention_over_all_turns_by_frame_row_and_column():
    block, x = wake(layer("full rotary"), size=0.3), frames()
    rows = rearrange(clips(block.norm(x)), "b c f h w -> b (f h w) c")
    quarter = SIZE // 8
    places = [(f, y, z) for f in range(FRAMES) for y in range(HEIGHT) for z in range(WIDTH)]
    angles = [torch.cat([f * speeds(2 * quarter), y * speeds(quarter), z * speeds(quarter)]) for f, y, z in places]
    mixed = plainly(block, rows, torch.stack(angles))
    expected = clips(x) + rearrange(mixed, "b (f h w) c -> b c f h w", h=HEIGHT, w=WIDTH)
    torch.testing.assert_close(clips(block(x, told())), expected, rtol=1e-6, atol=1e-6)


def test_distances_beyond_the_reach_are_one():
    bias = wake(RelativeBias(HEADS))
    found, learned = bias(REACH + 8), bias.bias
    assert torch.equal(found[:, 0, REACH:], learned[-1][:, None].expand(-1, 8))
    assert torch.equal(found[:, -1, :8], learned[0][:, None].expand(-1, 8))
    assert torch.equal(found[:, 3, 5], learned[REACH + 2]) and torch.equal(found[:, 5, 3], learned[REACH - 2])


@pytest.mark.parametrize(
    ("kind", "channels", "heads"), [(TemporalAttention, 32, 3), (TemporalAttention, 6, 2), (SpaceTimeAttention, 24, 2)]
)
def test_heads_that_do_not_divide_the_channels_are_refused(kind, channels, heads):
    with pytest.raises(ValueError, match=f"^{channels} channels do not divide into {heads} heads .*temporal.heads$"):
        kind(channels, TemporalConfig(heads=heads))


@pytest.mark.parametrize("convolution", [True, False])
@pytest.mark.parametrize("stage", ["none", "linear", "full"])
@pytest.mark.parametrize("attention", ["temporal", "full", "none"])
def test_a_config_names_the_layers(attention, stage, convolution):
    blocks = temporal_blocks(32, stage, TemporalConfig(attention=attention, convolution=convolution))
    expected = [TemporalConvolution] * convolution
    if attention != "none":
        expected.append(SpaceTimeAttention if attention == "full" and stage != "none" else TemporalAttention)
    assert [type(block) for block in blocks] == expected
