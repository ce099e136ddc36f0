"""The blocks of the networks, one by one."""

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.embeddings import get_timestep_embedding
from torch import nn

from shared.blocks.attention import ATTENTION, Attention, LinearAttention
from shared.blocks.embeddings import TimeEmbedding, sinusoidal
from shared.blocks.resample import DOWN, UP, Upsample, depth_to_space, space_to_depth
from shared.blocks.resnet import Context, ResidualBlock, group_norm
from shared.blocks.stage import stage

BOTH = pytest.mark.parametrize("kind", [Attention, LinearAttention])


def perturbed(module):
    """The module in float64 with every parameter moved at random, so that none is zero as at the start."""
    torch.manual_seed(0)
    module = module.double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


def normal(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def without_gradient(module, out):
    """Names of the parameters that a random loss on `out` does not reach (or only by rounding)."""
    (out * normal(*out.shape, seed=2)).sum().backward()
    sizes = {name: 0.0 if p.grad is None else p.grad.abs().max().item() for name, p in module.named_parameters()}
    return [name for name, size in sizes.items() if size < 1e-9 * max(sizes.values())]


# --- every block --------------------------------------------------------------------------------------------


def residual(channels, out):
    block = ResidualBlock(channels, out, 8)
    return block, lambda x: block(x, Context(normal(len(x), 8, seed=3)))


def told_nothing(channels, out):
    block = ResidualBlock(channels, out, None)
    return block, lambda x: block(x, Context())


def attention(kind):
    def build(channels, out):
        block = kind(channels, heads=2)
        return block, lambda x: block(x, Context(normal(len(x), 8, seed=3)))

    return build


def upsample(mode):
    def build(channels, out):
        block = UP[mode](channels, out)
        return block, block

    return build


def stride(channels, out):
    block = DOWN["stride"](channels)
    return block, block


BLOCKS = {
    "residual": (
        residual,
        1,
        True,
    ),  # how it is made, how it changes the size, whether it changes the channels
    "residual without context": (told_nothing, 1, True),
    "attention": (attention(Attention), 1, False),
    "linear attention": (attention(LinearAttention), 1, False),
    "upsample nearest": (upsample("nearest"), 2, True),
    "upsample bilinear": (upsample("bilinear"), 2, True),
    "upsample transposed": (upsample("transposed"), 2, True),
    "stride": (stride, 0.5, False),
}


@pytest.mark.parametrize("channels, out", [(2, 4), (12, 12), (16, 8), (32, 64), (30, 50)])
@pytest.mark.parametrize("name", BLOCKS)
def test_gradient_reaches_every_parameter_of_every_block(name, channels, out):
    build, _, _ = BLOCKS[name]
    block, call = build(channels, out)
    perturbed(block)
    assert not without_gradient(block, call(normal(2, channels, 8, 6)))


@pytest.mark.parametrize("size", [(8, 8), (2, 6), (16, 10), (28, 28), (128, 2)])
@pytest.mark.parametrize("name", BLOCKS)
def test_shapes(name, size):
    build, factor, changes = BLOCKS[name]
    for channels, out in ((4, 4), (6, 10)):
        block, call = build(channels, out)
        perturbed(block)
        expected = (2, out if changes else channels, *(int(factor * side) for side in size))
        assert call(normal(2, channels, *size)).shape == expected


@pytest.mark.parametrize("build", [residual, told_nothing, attention(Attention), attention(LinearAttention)])
def test_a_fresh_block_is_the_identity(build):
    """Its branch ends in zeros; where the channels change, it is the skip convolution."""
    block, call = build(8, 8)
    block.double()
    x = normal(2, 8, 4, 4)
    assert torch.equal(call(x), x)


@pytest.mark.parametrize("build", [residual, told_nothing, attention(Attention), attention(LinearAttention)])
def test_samples_of_a_batch_do_not_see_each_other(build):
    block, call = build(8, 8)
    perturbed(block)
    x, other = normal(2, 8, 4, 4), normal(2, 8, 4, 4, seed=9)
    other[0] = x[0]
    torch.testing.assert_close(call(x)[0], call(other)[0], rtol=1e-12, atol=1e-12)


# --- attention ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_is_the_softmax_formula(heads):
    """softmax(q kᵀ / √d) v, head by head and position by position, from the module's weights."""
    channels, d = 8, 8 // heads
    block, x = perturbed(Attention(channels, heads)), normal(2, channels, 3, 4)
    flat = F.group_norm(x, block.norm.num_groups, block.norm.weight, block.norm.bias).flatten(2)
    weight = block.qkv.weight[..., 0, 0]
    q, k, v = (weight @ flat + block.qkv.bias[:, None]).split(channels, dim=1)  # each (B, C, HW)
    mixed = torch.zeros_like(flat)
    for b in range(2):
        for h in range(heads):
            rows = slice(h * d, (h + 1) * d)
            for i in range(12):
                scores = torch.stack([q[b, rows, i] @ k[b, rows, j] for j in range(12)]) / d**0.5
                weights = scores.exp() / scores.exp().sum()
                mixed[b, rows, i] = sum(weights[j] * v[b, rows, j] for j in range(12))
    expected = x.flatten(2) + block.out.weight[..., 0, 0] @ mixed + block.out.bias[:, None]
    torch.testing.assert_close(block(x, None).flatten(2), expected, rtol=1e-10, atol=1e-10)


def test_linear_attention_is_its_double_loop():
    """Every query with every key: Shen 2021, eq. (4), before its brackets are moved."""
    q, k, v = (normal(2, 3, 7, 4, seed=seed) for seed in (1, 2, 3))  # (B, heads, positions, d)
    expected = torch.zeros_like(v)
    for b in range(2):
        for h in range(3):
            over_positions = k[b, h].exp() / k[b, h].exp().sum(0)
            for i in range(7):
                over_features = q[b, h, i].exp() / q[b, h, i].exp().sum()
                for j in range(7):
                    expected[b, h, i] += (over_features @ over_positions[j]) * v[b, h, j]
    torch.testing.assert_close(LinearAttention(12, 3).mix(q, k, v), expected, rtol=1e-12, atol=1e-12)


@BOTH
def test_attention_is_a_weighted_mean_of_values(kind):
    """Weights that add up to 1: where all positions say the same, that is what comes out."""
    q, k = normal(2, 3, 7, 4), normal(2, 3, 7, 4, seed=2)
    v = normal(2, 3, 1, 4, seed=3).expand(2, 3, 7, 4)
    torch.testing.assert_close(kind(12, 3).mix(q, k, v), v, rtol=1e-12, atol=1e-12)


@BOTH
def test_attention_does_not_know_where_a_position_is(kind):
    """Permute the positions, and the output is permuted."""
    block, x = perturbed(kind(8, 2)), normal(2, 8, 3, 4)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    permuted = x.flatten(2)[..., order].view_as(x)
    expected = block(x, None).flatten(2)[..., order].view_as(x)
    torch.testing.assert_close(block(permuted, None), expected, rtol=1e-10, atol=1e-10)


@BOTH
def test_every_position_is_seen_from_every_other(kind):
    block = perturbed(kind(8, 2))
    x = normal(1, 8, 4, 4).requires_grad_()
    block(x, None)[0, :, 0, 0].sum().backward()
    assert (x.grad[0].abs().amax(0) > 1e-9).all()


@BOTH
def test_heads_split_the_channels(kind):
    """The same weights with more heads say something else; a number that does not divide is refused."""
    two, four, x = perturbed(kind(8, 2)), perturbed(kind(8, 4)), normal(2, 8, 3, 4)
    assert (two(x, None) - four(x, None)).abs().max() > 1e-3
    with pytest.raises(ValueError, match="8 channels.*3 attention heads"):
        kind(8, 3)


def test_the_names_of_attention():
    assert ATTENTION == {"linear": LinearAttention, "full": Attention}


# --- residual block and normalisation -----------------------------------------------------------------------


def test_residual_block_is_adaptive_group_norm():
    """Normalise, times 1 + scale, plus shift, both linear in the context. ADM (Dhariwal 2021), eq. (1)."""
    block, x, vector = perturbed(ResidualBlock(8, 12, 5)), normal(2, 8, 6, 6), normal(2, 5, seed=3)
    h = block.conv1(F.silu(block.norm1(x)))
    normed = block.norm2(h)
    both = F.linear(F.silu(vector), block.modulation.weight, block.modulation.bias)
    for b in range(2):
        for c in range(12):
            h[b, c] = normed[b, c] * (1 + both[b, c]) + both[b, 12 + c]
    expected = block.skip(x) + block.conv2(F.silu(h))
    torch.testing.assert_close(block(x, Context(vector)), expected, rtol=1e-10, atol=1e-10)


def test_a_residual_block_without_context_is_one_whose_context_says_nothing():
    """The same parameters but the modulation's; where that is zero, scale 1 and shift 0, the same output."""
    told, untold = perturbed(ResidualBlock(8, 12, 5)), perturbed(ResidualBlock(8, 12, None))
    assert set(told.state_dict()) - set(untold.state_dict()) == {"modulation.weight", "modulation.bias"}
    told.load_state_dict(untold.state_dict(), strict=False)
    for parameter in told.modulation.parameters():
        nn.init.zeros_(parameter)
    x = normal(2, 8, 6, 6)
    torch.testing.assert_close(untold(x, Context()), told(x, Context(normal(2, 5))), rtol=1e-12, atol=1e-12)


def test_residual_block_listens_to_each_samples_context():
    block, x = perturbed(ResidualBlock(8, 8, 5)), normal(1, 8, 4, 4).expand(2, 8, 4, 4)
    out = block(x, Context(normal(2, 5, seed=3)))
    assert (out[0] - out[1]).abs().max() > 1e-3


def test_dropout_only_in_training():
    block, x, c = perturbed(ResidualBlock(8, 8, 5, dropout=0.5)), normal(2, 8, 4, 4), Context(normal(2, 5))
    assert not torch.equal(block(x, c), block(x, c))
    block.eval()
    assert torch.equal(block(x, c), block(x, c))


def test_a_stage_is_a_residual_block_and_then_attention():
    x, c = normal(2, 4, 4, 4), Context(normal(2, 5))
    for kind, parts in (("none", 1), ("linear", 2), ("full", 2)):
        whole = perturbed(stage(4, 8, kind, 2, context=5))
        h = whole[0](x, c)
        assert len(whole) == parts and torch.equal(whole(x, c), whole[1](h, c) if parts == 2 else h)
    assert stage(4, 8, "none", 2, dropout=0.3)[0].dropout.p == 0.3


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 50, 64, 96, 128, 192, 256, 1024])
def test_group_norm_keeps_information_about_each_feature(channels):
    """Groups of four or more, up to 32 of them: a feature's mean survives, and a single pixel is not lost."""
    norm = group_norm(channels)
    assert norm.num_groups <= 32 and channels % norm.num_groups == 0
    assert norm.num_groups == 1 or channels // norm.num_groups >= 4
    if channels >= 128 and channels % 32 == 0:
        assert norm.num_groups == 32  # DDPM's
    if channels > 1:
        assert norm(torch.randn(1, channels, 1, 1)).abs().max() > 0.1


# --- resampling ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patch", [1, 2, 3, 4])
def test_space_to_depth_is_torchs_pixel_unshuffle_and_back(patch):
    x = normal(2, 3, 4 * patch, 5 * patch)
    folded = space_to_depth(x, patch)
    assert folded.shape == (2, 3 * patch**2, 4, 5)
    assert torch.equal(folded, F.pixel_unshuffle(x, patch))
    assert torch.equal(depth_to_space(folded, patch), F.pixel_shuffle(folded, patch))
    assert torch.equal(depth_to_space(folded, patch), x)


def test_the_ways_down():
    """On a 2 × 2 image the mean, the maximum, or the middle of a 3 × 3 kernel laid on the first pixel."""
    x = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])
    assert DOWN["average"](1)(x).item() == 3 and DOWN["max"](1)(x).item() == 6
    conv = DOWN["stride"](1)
    nn.init.zeros_(conv.bias)
    nn.init.dirac_(conv.weight)  # 1 in the middle
    assert conv(x).item() == 1


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_upsample_enlarges_then_convolves(mode):
    block, x = perturbed(Upsample(2, 3, mode)), normal(1, 2, 3, 3)
    if mode == "nearest":
        large = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    else:  # a quarter of the way between neighbours, which are repeated at the border
        one = torch.zeros(6, 3, dtype=torch.float64)
        for i in range(6):
            place = min(max((i + 0.5) / 2 - 0.5, 0), 2)
            low = min(int(place), 1)
            one[i, low], one[i, low + 1] = 1 - (place - low), place - low
        large = one @ x @ one.T
    expected = F.conv2d(large, block.conv.weight, block.conv.bias, padding=1)
    torch.testing.assert_close(block(x), expected, rtol=1e-10, atol=1e-10)


def nyquist(y):
    """Energy that changes sign from each pixel to the next, over that of the mean. y: (1, 1, even, even)."""
    energy = torch.fft.fft2(y)[0, 0].abs().square()
    h, w = y.shape[2] // 2, y.shape[3] // 2
    return ((energy[h, 0] + energy[0, w] + energy[h, w]) / energy[0, 0]).item()


def test_transposed_taps_overlap_unevenly():
    """Taps of 1 on an image of 1: each pixel is reached by 1, 2 or 4 of them, in a checkerboard; by hand.

    Along a side 1, 2, 1, 2, …: mean 3/2 and amplitude 1/2, and the image is the product of two such.
    """
    block, x = UP["transposed"](1, 1).double(), torch.ones(1, 1, 8, 8, dtype=torch.float64)
    nn.init.ones_(block.weight)
    nn.init.zeros_(block.bias)
    y = block(x)[..., 2:-2, 2:-2]
    assert torch.equal(y[0, 0, :2, :2], torch.tensor([[1.0, 2.0], [2.0, 4.0]]).double())
    torch.testing.assert_close(nyquist(y), (2 * 0.75**2 + 0.25**2) / 2.25**2)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_enlarging_before_the_convolution_leaves_no_checkerboard(mode):
    """Whatever the weights: what they see is the same everywhere."""
    block = perturbed(UP[mode](1, 1))
    assert nyquist(block(torch.ones(1, 1, 8, 8, dtype=torch.float64))[..., 2:-2, 2:-2]) < 1e-25


# --- time ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [2, 6, 64])
def test_sinusoidal_is_diffusers_with_cosines_first(dim):
    """Told to begin with the cosines, and to divide by dim / 2, where by default it divides by one less."""
    t = torch.tensor([0.0, 1.0, 17.5, 999.0, 1000.0])
    theirs = get_timestep_embedding(t, dim, flip_sin_to_cos=True, downscale_freq_shift=0)
    torch.testing.assert_close(sinusoidal(t, dim), theirs, rtol=0, atol=5e-5)  # float32 phases up to 1000


def test_sinusoidal_turns_whole_and_fractional_times_into_float32():
    assert torch.equal(sinusoidal(torch.tensor([3, 7]), 8), sinusoidal(torch.tensor([3.0, 7.0]).double(), 8))
    assert sinusoidal(torch.tensor([3]), 8).dtype == torch.float32
    assert not torch.equal(sinusoidal(torch.tensor([3.0]), 8), sinusoidal(torch.tensor([3.5]), 8))


def test_every_two_of_a_thousand_times_are_told_apart():
    features = sinusoidal(torch.arange(1, 1001), 16)
    distances = torch.cdist(features, features) + 10 * torch.eye(1000)
    assert distances.min() > 0.05


def test_time_embedding_reaches_all_its_parameters_and_drops_only_in_training():
    block = perturbed(TimeEmbedding(8, 6, dropout=0.5))
    t = torch.tensor([1.0, 500.0, 999.0])
    assert block(t).shape == (3, 6) and not torch.equal(block(t), block(t))
    block.eval()
    assert torch.equal(block(t), block(t))
    assert not without_gradient(block, block(t))


def test_time_embedding_takes_the_type_of_its_weights():
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        assert TimeEmbedding(8, 6).to(dtype)(torch.tensor([1, 2])).dtype == dtype


def test_an_odd_embedding_is_refused():
    with pytest.raises(ValueError, match="7 features"):
        TimeEmbedding(7, 6)
