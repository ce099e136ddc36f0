"""The blocks that listen: to each token that there is, to none that there is not, and to nothing at the start."""

import pytest
import torch
from torch import nn

from shared.blocks.attention import Attention
from shared.blocks.listening import AdaptiveGroupNorm, CrossAttention, TokenAttention, conditional_stage, positions
from shared.blocks.resnet import Context
from shared.blocks.stage import stage

C, DIM, N = 8, 6, 3
BLOCKS = {
    "adaptive": lambda: AdaptiveGroupNorm(C, DIM),
    "cross_attention": lambda: CrossAttention(C, 2, DIM),
    "token": lambda: TokenAttention(C, 2, DIM),
}


def woken(block: nn.Module) -> nn.Module:
    """A block in which nothing is zero any more, as after some training."""
    torch.manual_seed(1)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    return block


def context(batch: int = 2, mask: torch.Tensor | None = None, seed: int = 0) -> Context:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(batch, N, DIM, generator=generator)
    there = torch.ones(batch, N, dtype=torch.bool) if mask is None else mask
    return Context(None, torch.randn(batch, DIM, generator=generator), tokens, there)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, C, 4, 6, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("name", ["adaptive", "cross_attention"])
def test_a_fresh_block_changes_nothing_bit_for_bit(name, x):
    assert torch.equal(BLOCKS[name]()(x, context()), x)


@pytest.mark.parametrize("name", BLOCKS)
def test_what_is_said_reaches_the_image_and_the_gradient_what_is_said(name, x):
    block, c = woken(BLOCKS[name]()), context()
    heard = c._replace(tokens=c.tokens.requires_grad_(), told=c.told.requires_grad_())
    block(x, heard).square().sum().backward()
    gradient = heard.told.grad if name == "adaptive" else heard.tokens.grad
    assert (gradient.abs().amax(dim=-1) > 0).all()


@pytest.mark.parametrize("name", BLOCKS)
def test_a_sample_hears_only_what_is_said_to_it(name, x):
    block = woken(BLOCKS[name]())
    one, other = context(seed=0), context(seed=1)
    said = ("told", "tokens", "token_mask")
    mixed = Context(**{name: torch.stack([getattr(one, name)[0], getattr(other, name)[1]]) for name in said})
    out = block(x, mixed)
    torch.testing.assert_close(out[0], block(x, one)[0])
    torch.testing.assert_close(out[1], block(x, other)[1])
    assert not torch.allclose(out[0], block(x, other)[0], atol=1e-3)


@pytest.mark.parametrize("name", ["cross_attention", "token"])
def test_a_token_that_is_masked_is_as_if_it_were_not_there(name, x):
    block, c = woken(BLOCKS[name]()), context()
    mask = torch.tensor([[True, True, False], [True, True, False]])
    without = c._replace(tokens=c.tokens[:, :2], token_mask=mask[:, :2])
    changed = c.tokens.clone()
    changed[:, 2] = 100.0
    torch.testing.assert_close(block(x, c._replace(token_mask=mask)), block(x, without))
    torch.testing.assert_close(block(x, c._replace(tokens=changed, token_mask=mask)), block(x, without))
    assert not torch.allclose(block(x, c), block(x, without), atol=1e-3)


def by_hand(block: CrossAttention, x: torch.Tensor, c: Context) -> torch.Tensor:
    """Cross-attention by torch's own module, its weights put where that has them."""
    reference = nn.MultiheadAttention(C, 2, kdim=C, vdim=C, batch_first=True)
    asked = (block.norm(x) + positions(x)).flatten(2).transpose(1, 2)  # (B, HW, C)
    keys, values = block.keys_values(block.token_norm(c.tokens)).chunk(2, dim=-1)  # projected already
    with torch.no_grad():
        eye = torch.eye(C)
        reference.in_proj_weight.copy_(torch.cat([block.query.weight[:, :, 0, 0], eye, eye]))
        reference.in_proj_bias.copy_(torch.cat([block.query.bias, torch.zeros(2 * C)]))
        reference.out_proj.weight.copy_(block.out.weight[:, :, 0, 0])
        reference.out_proj.bias.copy_(block.out.bias)
    out, _ = reference(asked, keys, values, key_padding_mask=~c.token_mask)
    return x + out.transpose(1, 2).reshape(x.shape)


def test_cross_attention_is_torchs(x):
    block = woken(CrossAttention(C, 2, DIM))
    c = context(mask=torch.tensor([[True, False, True], [True, True, True]]))
    torch.testing.assert_close(block(x, c), by_hand(block, x, c))


def test_one_token_through_cross_attention_is_a_constant_shift_and_two_are_not(x):
    """A softmax over one key is 1 whatever the query: the mistake that ANCHORS of this project is named after."""
    block, c = woken(CrossAttention(C, 2, DIM)), context()

    def spread(count: int) -> float:
        said = c._replace(tokens=c.tokens[:, :count], token_mask=c.token_mask[:, :count])
        return (block(x, said) - x).flatten(2).std(dim=2).max().item()

    assert spread(1) < 1e-6 < 0.01 < spread(2)


def test_without_tokens_token_attention_is_self_attention(x):
    """All tokens masked: what is left is the image alone, and stage 1's block."""
    block = woken(TokenAttention(C, 2, DIM))
    plain = Attention(C, 2)
    plain.load_state_dict({name: value for name, value in block.state_dict().items() if name in plain.state_dict()})
    c = context(mask=torch.zeros(2, N, dtype=torch.bool))
    torch.testing.assert_close(block(x, c), plain(x, c))


def test_positions_tell_every_place_from_every_other():
    where = positions(torch.zeros(1, 16, 5, 7)).flatten(1).T  # (35, 16)
    apart = torch.cdist(where, where) + 10 * torch.eye(35)
    assert apart.min() > 0.1
    assert positions(torch.zeros(1, 7, 2, 2)).shape == (7, 2, 2)  # any number of channels


@pytest.mark.parametrize("kind", ["none", "linear", "full"])
@pytest.mark.parametrize("ways", [set(), {"vanilla"}, {"adaptive"}, {"cross_attention"}, {"token"}])
def test_a_stage_listens_where_it_should(kind, ways):
    made = conditional_stage(C, C, kind, 2, ways=ways, dim=DIM, context=5)
    names = [type(part).__name__ for part in made]
    attends = kind != "none"
    assert ("AdaptiveGroupNorm" in names) == ("adaptive" in ways)
    assert ("CrossAttention" in names) == ("cross_attention" in ways and attends)
    assert ("TokenAttention" in names) == ("token" in ways and attends)
    if not ways & {"adaptive", "cross_attention", "token"}:
        assert names == [type(part).__name__ for part in stage(C, C, kind, 2, context=5)]


def test_heads_that_do_not_divide_the_channels():
    with pytest.raises(ValueError, match="do not divide"):
        CrossAttention(8, 3, DIM)
