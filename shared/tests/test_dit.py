"""The transformer against the paper's table, diffusers' own, formulas written out, and what must hold of each way."""

import cmath
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from shared import _torchvision

_torchvision.prepare()  # diffusers' models import transformers, which imports it
from diffusers.models.embeddings import get_2d_sincos_pos_embed  # noqa: E402
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel  # noqa: E402

from shared.blocks.dit import (  # noqa: E402
    SIZES,
    WAYS,
    CrossAttention,
    DiT,
    Rotation,
    SelfAttention,
    Told,
    rotary_angles,
    sincos_positions,
    sized,
)
from shared.blocks.dit_config import DiTConfig  # noqa: E402
from shared.conditions.said import LabelTokens, TextTokens  # noqa: E402

SHAPE = (3, 4, 6)  # 2 × 3 tokens
TINY = DiTConfig(width=24, depth=2, heads=2, patch=2, mlp_ratio=2)
CLASSES = 5
TEXT = 7  # features of a word
FLAT = ("adaln_zero", "adaln")  # told by a vector alone


class Read(nn.Module):
    """Words to tokens, each by itself: it cannot tell the order in which they come."""

    def __init__(self, width: int):
        super().__init__()
        self.project = nn.Linear(TEXT, width)

    def forward(self, text: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.project(text)


def by_label(conditioning: str = "adaln_zero", shape=SHAPE, config: DiTConfig = TINY, **options) -> DiT:
    torch.manual_seed(0)
    config = replace(config, conditioning=conditioning)
    return DiT(shape, config, [LabelTokens(CLASSES, config.width, 1)], **options).double()


def by_text(conditioning: str, **options) -> DiT:
    torch.manual_seed(0)
    config = replace(TINY, conditioning=conditioning, **options)
    return woken(DiT(SHAPE, config, [TextTokens(Read(config.width))]))


def woken(model: nn.Module, deviation: float = 0.4) -> nn.Module:
    """A network in which nothing is zero any more, as after some training."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=deviation)
    return model.eval().double()


def normal(*shape: int, seed: int = 7) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def x() -> torch.Tensor:
    return normal(3, *SHAPE)


T = torch.tensor([20.0, 333.25, 1000.0])
LABEL = {"label": torch.tensor([1, 4, CLASSES])}  # the last is told nothing


def words(count: int = 4, there: int = 4, seed: int = 3) -> dict[str, torch.Tensor]:
    mask = (torch.arange(count) < there).expand(3, count)
    return {"text": normal(3, count, TEXT, seed=seed), "text_mask": mask}


# --- the paper's sizes ----------------------------------------------------------------------------------------

# Peebles and Xie 2023, table 4: parameters in millions and Gflops (multiplications with an addition), patch 8, 4, 2.
PAPER = {
    "S": ((33, 0.36), (33, 1.41), (33, 6.06)),
    "B": ((131, 1.42), (130, 5.56), (130, 23.01)),
    "L": ((459, 5.01), (458, 19.70), (458, 80.71)),
    "XL": ((676, 7.39), (675, 29.05), (675, 118.64)),
}


WORK = [("S", 8), ("S", 4), ("S", 2), ("B", 4), ("L", 2), ("XL", 2)]  # some, as counting takes a while


def published(size: str, patch: int) -> DiT:
    """One for ImageNet's latents, without memory."""
    config = sized(DiTConfig(size=size, patch=patch))
    with torch.device("meta"):
        return DiT((4, 32, 32), config, [LabelTokens(1000, config.width, 1)], out_channels=8)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("patch", [8, 4, 2])
@pytest.mark.parametrize("size", PAPER)
def test_sizes_are_the_papers(size, patch):
    """Parameters to the million, work to half a per cent; for latents of 32 × 32 × 4, and a variance predicted too."""
    model = published(size, patch)
    millions, giga = PAPER[size][(8, 4, 2).index(patch)]
    assert round(count(model) / 1e6) == millions
    if (size, patch) not in WORK:
        return
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        model(torch.zeros(1, 4, 32, 32), torch.zeros(1), {"label": torch.zeros(1, dtype=torch.long)})
    assert counter.get_total_flops() / 2e9 == pytest.approx(giga, rel=0.005, abs=0.005)


@pytest.mark.parametrize("size", ["S", "L"])
def test_as_many_parameters_as_diffusers_has_but_for_its_copies(size):
    """There every block has an embedder of time and label of its own; the paper and we have one for all."""
    width, depth, heads = SIZES[size]
    with torch.device("meta"):
        theirs = DiTTransformer2DModel(heads, width // heads, in_channels=4, out_channels=8, num_layers=depth)
    copies = (depth - 1) * count(theirs.transformer_blocks[0].norm1.emb)
    assert count(published(size, 2)) == count(theirs) - copies


def test_a_size_sets_width_depth_and_heads_and_nothing_else():
    config = DiTConfig(patch=8, mlp_ratio=3, conditioning="adaln", positions="rotary", qk_norm=True)
    assert sized(config) is config
    large = sized(replace(config, size="XL"))
    assert (large.width, large.depth, large.heads) == (1152, 28, 16)
    assert replace(large, size=None, width=config.width, depth=config.depth, heads=config.heads) == config


# --- against diffusers ----------------------------------------------------------------------------------------


def diffusers_of(model: DiT, side: int) -> DiTTransformer2DModel:
    """Their network with our weights; its blocks' norms have the original's 1e-6 for the library's 1e-5."""
    config = model.config
    theirs = DiTTransformer2DModel(
        num_attention_heads=config.heads,
        attention_head_dim=config.width // config.heads,
        in_channels=model.shape[0],
        out_channels=model.out_channels,
        num_layers=config.depth,
        sample_size=side,
        patch_size=config.patch,
        num_embeds_ada_norm=CLASSES,
        norm_eps=1e-6,
    ).double()
    ours, state = model.state_dict(), {}

    def put(there: str, here: str) -> None:
        state.update({f"{there}.{kind}": ours[f"{here}.{kind}"] for kind in ("weight", "bias")})

    put("pos_embed.proj", "patches")
    put("proj_out_1", "final.modulation.1")
    put("proj_out_2", "final.linear")
    for i in range(config.depth):
        there, here = f"transformer_blocks.{i}", f"blocks.{i}"
        put(f"{there}.norm1.emb.timestep_embedder.linear_1", "time.mlp.0")
        put(f"{there}.norm1.emb.timestep_embedder.linear_2", "time.mlp.2")
        state[f"{there}.norm1.emb.class_embedder.embedding_table.weight"] = ours["said.0.embed.weight"]
        put(f"{there}.norm1.linear", f"{here}.modulation.1")
        for kind in ("weight", "bias"):
            parts = ours[f"{here}.attention.qkv.{kind}"].chunk(3)
            state |= {f"{there}.attn1.to_{name}.{kind}": part for name, part in zip("qkv", parts, strict=True)}
        put(f"{there}.attn1.to_out.0", f"{here}.attention.out")
        put(f"{there}.ff.net.0.proj", f"{here}.mlp.0")
        put(f"{there}.ff.net.2", f"{here}.mlp.2")
    theirs.load_state_dict(state)
    for block in theirs.eval().transformer_blocks:
        # The frequencies of the original end short of 1 / 10,000, the library's reach it.
        block.norm1.emb.time_proj.downscale_freq_shift = 0
    return theirs


BLOCKS_OF_PAPER = replace(TINY, mlp_ratio=4)
TIMES = torch.tensor([0.0, 0.5, 1.0, 17.25, 499.0, 999.0, 1000.0])
LABELS = torch.tensor([0, 1, 2, 3, 4, CLASSES, CLASSES])


@pytest.mark.parametrize("patch, out_channels", [(2, 4), (2, 8), (4, 8)])
def test_the_output_is_diffusers_on_the_same_weights(patch, out_channels):
    model = woken(
        by_label(shape=(4, 16, 16), config=replace(BLOCKS_OF_PAPER, patch=patch, depth=3), out_channels=out_channels),
        0.2,
    )
    x = normal(7, 4, 16, 16)
    with torch.no_grad():
        ours = model(x, TIMES, {"label": LABELS})
        theirs = diffusers_of(model, 16)(x, TIMES, LABELS).sample
    assert ours.shape == (7, out_channels, 16, 16) and ours.std() > 0.1
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_output_is_diffusers_where_the_image_is_not_square():
    """Theirs is made for squares: its positions are given to it, and its 16 tokens are put 4 × 4, which is undone."""
    model = woken(by_label(shape=(4, 4, 16), config=BLOCKS_OF_PAPER), 0.2)
    theirs, x = diffusers_of(model, 8), normal(7, 4, 4, 16)
    theirs.pos_embed.height, theirs.pos_embed.width = 2, 8
    theirs.pos_embed.pos_embed = torch.from_numpy(mae_positions(2, 8, TINY.width))[None]
    with torch.no_grad():
        square = theirs(x, TIMES, LABELS).sample
        tokens = rearrange(square, "b c (h p) (w q) -> b (h w) p q c", p=2, q=2)
        expected = rearrange(tokens, "b (h w) p q c -> b c (h p) (w q)", h=2)
        torch.testing.assert_close(model(x, TIMES, {"label": LABELS}), expected, rtol=1e-5, atol=1e-6)


# --- positions ------------------------------------------------------------------------------------------------


def mae_positions(rows: int, columns: int, width: int) -> np.ndarray:
    """Line by line as MAE and DiT published it, for sides that differ: first the column, each sines then cosines."""
    where = np.stack(np.meshgrid(np.arange(columns), np.arange(rows))).reshape(2, -1)
    omega = 1 / 10000 ** (np.arange(width // 4) / (width / 4))
    halves = []
    for place in where:
        angle = np.einsum("m,d->md", place, omega)
        halves += [np.sin(angle), np.cos(angle)]
    return np.concatenate(halves, axis=1)


def test_sines_and_cosines_are_diffusers_and_maes():
    square = get_2d_sincos_pos_embed(24, 5, base_size=5, output_type="pt").float()
    torch.testing.assert_close(sincos_positions(5, 5, 24), square, rtol=0, atol=1e-6)
    oblong = torch.from_numpy(mae_positions(3, 7, 32)).float()
    torch.testing.assert_close(sincos_positions(3, 7, 32), oblong, rtol=0, atol=1e-6)


def rotation(rows: int, columns: int, head: int) -> Rotation:
    angles = rotary_angles(rows, columns, head).double()
    return Rotation(angles.cos(), angles.sin())


def test_turned_tokens_say_to_each_other_what_their_offset_alone_decides():
    """The same query and key everywhere: one score an offset in rows and columns, and another for each offset."""
    rows, columns, head = 5, 4, 16
    q, k = (normal(1, 1, 1, head, seed=seed).expand(1, 1, rows * columns, head) for seed in (1, 2))
    turn = rotation(rows, columns, head)
    scores = (turn(q) @ turn(k).mT)[0, 0]
    by_offset: dict[tuple[int, int], list[float]] = {}
    for i in range(rows * columns):
        for j in range(rows * columns):
            offset = (j // columns - i // columns, j % columns - i % columns)
            by_offset.setdefault(offset, []).append(scores[i, j].item())
    assert len(by_offset) == (2 * rows - 1) * (2 * columns - 1)
    assert all(max(found) - min(found) < 1e-6 for found in by_offset.values())
    means = sorted(sum(found) / len(found) for found in by_offset.values())
    assert min(b - a for a, b in zip(means[:-1], means[1:], strict=True)) > 1e-5


def test_turning_is_multiplication_by_a_complex_number():
    """RoFormer, eq. (34), one pair after the other: half the pairs with the row, half with the column."""
    rows, columns, head = 3, 4, 8
    x = normal(2, 3, rows * columns, head)
    turned = rotation(rows, columns, head)(x)
    for n in range(rows * columns):
        places = [divmod(n, columns)[0]] * (head // 4) + [divmod(n, columns)[1]] * (head // 4)
        for i, place in enumerate(places):
            speed = 100 ** -((i % (head // 4)) / (head // 4))
            z = torch.complex(x[:, :, n, i], x[:, :, n, i + head // 2]) * cmath.exp(1j * place * speed)
            pair = torch.complex(turned[:, :, n, i], turned[:, :, n, i + head // 2])
            torch.testing.assert_close(pair, z, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))


def test_what_stands_before_the_image_is_not_turned():
    turn, x = rotation(2, 3, 8), normal(2, 2, 4 + 6, 8)
    turned = turn.after(4)(x)
    assert torch.equal(turned[:, :, :4], x[:, :, :4])
    assert torch.equal(turned[:, :, 4:], turn(x[:, :, 4:])) and not torch.equal(turned, x)


@pytest.mark.parametrize("positions", ["sincos", "rotary"])
@pytest.mark.parametrize("way", WAYS)
def test_the_order_in_which_tokens_are_told_does_not_matter(way, positions, x):
    """They lie nowhere. Where a reader orders words, the order is in the tokens."""
    model, told, order = by_text(way, positions=positions), words(4, 3), torch.tensor([2, 3, 0, 1])
    mixed = {name: value[:, order] for name, value in told.items()}
    torch.testing.assert_close(model(x, T, told), model(x, T, mixed))


@pytest.mark.parametrize("positions", ["sincos", "rotary"])
@pytest.mark.parametrize("way", WAYS)
def test_without_positions_patches_may_change_places_and_with_them_not(way, positions, x):
    model = woken(by_label(way, config=replace(TINY, positions=positions)))
    order = torch.tensor([3, 0, 5, 1, 4, 2])

    def moved(images: torch.Tensor) -> torch.Tensor:
        tokens = rearrange(images, "b c (h p) (w q) -> b (h w) c p q", p=2, q=2)[:, order]
        return rearrange(tokens, "b (h w) c p q -> b c (h p) (w q)", h=2)

    assert not torch.allclose(model(moved(x), T, LABEL), moved(model(x, T, LABEL)), atol=1e-3)
    (model.places if positions == "sincos" else model.angles).zero_()
    torch.testing.assert_close(model(moved(x), T, LABEL), moved(model(x, T, LABEL)))


# --- attention ------------------------------------------------------------------------------------------------


def rms(vector: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return vector / vector.square().mean().sqrt() * weight


def attention_by_hand(block: SelfAttention, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Vaswani 2017, eq. (1), one head, one query, one key after the other."""
    heads, (batch, tokens, width) = block.heads, x.shape
    d = width // heads
    q, k, v = (x @ block.qkv.weight.T + block.qkv.bias).split(width, dim=2)
    mixed = torch.zeros_like(x)
    for b in range(batch):
        for first in range(0, width, d):
            part = slice(first, first + d)
            for i in range(tokens):
                there = [j for j in range(tokens) if mask is None or mask[b, j]]
                query, keys = q[b, i, part], [k[b, j, part] for j in there]
                if block.norms is not None:
                    query, keys = rms(query, block.norms[0].weight), [rms(key, block.norms[1].weight) for key in keys]
                shares = [math.exp(float(query @ key) / math.sqrt(d)) for key in keys]
                for share, j in zip(shares, there, strict=True):
                    mixed[b, i, part] += share / sum(shares) * v[b, j, part]
    return mixed @ block.out.weight.T + block.out.bias


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_self_attention_is_the_formula(qk_norm, masked):
    block = woken(SelfAttention(replace(TINY, qk_norm=qk_norm)))
    x = normal(2, 4, TINY.width)
    mask = torch.tensor([[True, False, True, True], [True, True, True, False]]) if masked else None
    with torch.no_grad():
        torch.testing.assert_close(block(x, None, mask), attention_by_hand(block, x, mask))


def test_cross_attention_is_torchs():
    block, width = woken(CrossAttention(TINY)), TINY.width
    reference = nn.MultiheadAttention(width, TINY.heads, batch_first=True).double()
    with torch.no_grad():
        reference.in_proj_weight.copy_(torch.cat([block.query.weight, block.keys_values.weight]))
        reference.in_proj_bias.copy_(torch.cat([block.query.bias, block.keys_values.bias]))
        reference.out_proj.load_state_dict(block.out.state_dict())
    x, tokens = normal(2, 6, width), normal(2, 3, width, seed=1)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    expected, _ = reference(x, tokens, tokens, key_padding_mask=~mask)
    torch.testing.assert_close(block(x, Told(tokens[:, 0], tokens, mask)), expected)


@pytest.mark.parametrize("way", WAYS)
def test_normed_queries_and_keys_bound_the_scores(way, x, monkeypatch):
    """Each has the length √d, so that |q · k| / √d <= √d, whatever the weights have become; without norms it grows."""
    found: list[float] = []
    attention = F.scaled_dot_product_attention

    def watched(q, k, v, **options):
        if q.shape[2] == k.shape[2]:  # not the cross-attention
            found.append((q @ k.mT / q.shape[-1] ** 0.5).abs().max().item())
        return attention(q, k, v, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    largest = {}
    for qk_norm in (True, False):
        model = by_label(way, config=replace(TINY, qk_norm=qk_norm, positions="rotary"))
        for block in model.blocks:
            block.attention.qkv.weight.data.mul_(1000)
        found.clear()
        model(x, T, LABEL)
        assert len(found) == TINY.depth
        largest[qk_norm] = max(found)
    bound = (TINY.width / TINY.heads) ** 0.5
    assert bound / 10 < largest[True] <= bound * (1 + 1e-5)
    assert largest[False] > 1000 * bound


def test_one_token_through_cross_attention_says_the_same_to_every_patch_and_two_do_not(x):
    """A softmax over one key is 1 whatever the query. The time alone is such a token; with a label there are two."""
    block, tokens = woken(CrossAttention(TINY)), normal(2, 2, TINY.width)

    def spread(said: torch.Tensor) -> float:
        return block(normal(2, 6, TINY.width), Told(said[:, 0], said, None)).std(dim=1).max().item()

    assert spread(tokens[:, :1]) < 1e-6 < 0.01 < spread(tokens)
    assert woken(by_label("cross_attention")).tell(T, LABEL).tokens.shape[1] == 2


# --- the five ways --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("positions", ["sincos", "rotary"])
@pytest.mark.parametrize("way", WAYS)
def test_at_the_start_the_output_is_zero(way, positions, x):
    model = by_label(way, config=replace(TINY, positions=positions, qk_norm=True), out_channels=6)
    out = model(x, T, LABEL)
    assert out.shape == (3, 6, *SHAPE[1:]) and (out == 0).all()


@pytest.mark.parametrize("way", WAYS)
def test_which_blocks_are_the_identity_at_the_start(way, x):
    model = by_label(way)
    told = model.tell(T, LABEL)
    h = normal(3, 6 + (told.tokens.shape[1] if way == "in_context" else 0), TINY.width)
    same = [torch.equal(block(h, told, None), h) for block in model.blocks]
    assert same == [way in ("adaln_zero", "adaln_cross")] * TINY.depth


def test_a_fresh_adaln_cross_is_adaln_zero_and_so_is_one_whose_cross_attention_says_nothing(x):
    """It adds a branch to the block that was there."""
    crossing, plain = by_label("adaln_cross"), by_label("adaln_zero")
    woken(crossing)
    for block in crossing.blocks:
        nn.init.zeros_(block.cross.out.weight)
        nn.init.zeros_(block.cross.out.bias)
    plain.load_state_dict({name: crossing.state_dict()[name] for name in plain.state_dict()})
    torch.testing.assert_close(crossing(x, T, LABEL), plain(x, T, LABEL))


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("positions", ["sincos", "rotary"])
@pytest.mark.parametrize("way", WAYS)
def test_after_three_steps_everything_learns_and_time_and_label_are_heard(way, positions, qk_norm, x):
    """Zeros open one after the other: the last layer's, then the gates' and norms', then what these look at."""
    model = by_label(way, config=replace(TINY, positions=positions, qk_norm=qk_norm))
    optimizer, wanted = torch.optim.Adam(model.parameters(), 0.01), normal(3, *SHAPE, seed=9)
    for _ in range(3):
        optimizer.zero_grad()
        (model(x, T, LABEL) - wanted).square().mean().backward()
        optimizer.step()
    optimizer.zero_grad()
    out = model(x, T, LABEL)
    (out - wanted).square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    silent = [name for name, parameter in model.named_parameters() if not (parameter.grad != 0).any()]
    assert silent == []
    heard = model.said[0].embed.weight.grad.abs().amax(dim=1) > 0
    assert heard.tolist() == [i in LABEL["label"].tolist() for i in range(CLASSES + 1)]
    for changed in (model(x, T + 50, LABEL), model(x, T, {"label": torch.tensor([0, 2, 3])})):
        assert ((changed - out).abs().amax(dim=(1, 2, 3)) > 1e-6).all()


@pytest.mark.parametrize("way", WAYS)
def test_a_sample_hears_only_its_own_time_and_label_and_sees_only_itself(way, x):
    model = woken(by_label(way))
    together = model(x, T, LABEL)
    for i in range(3):
        alone = model(x[i : i + 1], T[i : i + 1], {"label": LABEL["label"][i : i + 1]})
        torch.testing.assert_close(alone, together[i : i + 1])


@pytest.mark.parametrize("positions", ["sincos", "rotary"])
@pytest.mark.parametrize("way", WAYS)
def test_a_masked_word_is_as_if_it_were_not_there_and_another_is_heard(way, positions, x):
    model, told = by_text(way, positions=positions), words(4, 3)
    without = {name: value[:, :3] for name, value in told.items()}
    masked, said = told["text"].clone(), told["text"].clone()
    masked[:, 3], said[:, 2] = 100.0, said[:, 2] + 1
    out = model(x, T, told)
    torch.testing.assert_close(model(x, T, without), out)
    torch.testing.assert_close(model(x, T, told | {"text": masked}), out)
    changed = (model(x, T, told | {"text": said}) - out).abs().amax(dim=(1, 2, 3))
    assert (changed > 1e-3).all()


def test_only_what_may_be_missing_needs_a_mask():
    """Attention without one is faster; a class always has all its tokens, and says so by its null as well."""
    assert by_label("in_context").tell(T, LABEL).mask is None
    assert by_text("in_context").tell(T, words(4, 2)).mask.tolist() == [[True] * 3 + [False] * 2] * 3
    for said, cond in ((LabelTokens(CLASSES, 8, 2), LABEL), (TextTokens(Read(8)).double(), words(4, 2))):
        assert said.always == all(said({**cond, **null})[1].all() for null in ({}, said.null(cond)))


@pytest.mark.parametrize("way", WAYS)
def test_told_nothing_by_words_is_told_the_time_alone(way, x):
    """The null caption has no token at all: what is left is the network that is never told anything."""
    model = by_text(way)
    out = model(x, T, model.said[0].null(words()))
    never = woken(DiT(SHAPE, model.config))
    never.load_state_dict({name: model.state_dict()[name] for name in never.state_dict()})
    torch.testing.assert_close(out, never(x, T, {}))
    assert not torch.allclose(out, model(x, T, words()), atol=1e-3)


@pytest.mark.parametrize("way", ["cross_attention", "in_context", "adaln_cross"])
def test_words_are_more_than_their_mean_where_they_are_tokens(way, x):
    """Two captions of the same mean: one to a network that is told by a vector alone, two to the others."""
    told = words(2, 2)
    apart = told["text"].clone()
    apart[:, 0] += 1
    apart[:, 1] -= 1
    same = by_text("adaln_zero")
    torch.testing.assert_close(same(x, T, told | {"text": apart}), same(x, T, told))
    model = by_text(way)
    assert not torch.allclose(model(x, T, told | {"text": apart}), model(x, T, told), atol=1e-3)


# --- the whole ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape, patch", [((3, 4, 6), 2), ((1, 8, 4), 4), ((2, 3, 5), 1)])
def test_pixels_go_back_to_where_they_came_from(shape, patch):
    """Patches that keep every pixel, blocks that are still the identity, and a last layer that hands on."""
    channels, *_ = shape
    width = channels * patch**2
    config = DiTConfig(width=4 * width, depth=1, heads=1, patch=patch)
    model = by_label(shape=shape, config=config)
    model.places.zero_()
    model.final.norm = nn.Identity()
    with torch.no_grad():
        for i, (p, q, c) in enumerate(np.ndindex(patch, patch, channels)):
            model.patches.weight[i] = 0
            model.patches.weight[i, c, p, q] = 1
            model.final.linear.weight[i, i] = 1
    x = normal(2, *shape)
    assert torch.equal(model(x, T[:2], {"label": LABEL["label"][:2]}), x)


@pytest.mark.parametrize("way", WAYS)
def test_checkpointing_changes_neither_output_nor_gradients(way, x):
    """But every block is computed twice: once forwards, once for the gradient; without gradients once."""
    found, calls = {}, []
    for checkpointing in (False, True):
        model = woken(by_label(way, config=replace(TINY, checkpointing=checkpointing, positions="rotary")))
        calls.clear()
        for block in model.blocks:
            block.register_forward_pre_hook(lambda *_: calls.append(1))
        out = model(x, T, LABEL)
        out.square().mean().backward()
        assert len(calls) == TINY.depth * (1 + checkpointing)
        found[checkpointing] = [out, *(parameter.grad for parameter in model.parameters())]
        calls.clear()
        with torch.no_grad():
            assert torch.equal(model(x, T, LABEL), out)
        assert len(calls) == TINY.depth
    assert all(torch.equal(a, b) for a, b in zip(*found.values(), strict=True))


@pytest.mark.parametrize("positions", ["sincos", "rotary"])
@pytest.mark.parametrize("way", WAYS)
def test_in_bfloat16_it_is_the_same_but_for_rounding(way, positions, x):
    model, x = woken(by_label(way, config=replace(TINY, positions=positions, qk_norm=True))).float(), x.float()
    exact = model(x, T, LABEL)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(x, T, LABEL)
    assert rounded.dtype == torch.bfloat16
    assert 0 < (rounded.float() - exact).abs().max() < 0.05 * exact.abs().max()
    rounded.float().square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert not torch.isnan(by_text(way).bfloat16()(x.bfloat16(), T, words_in(torch.bfloat16))).any()


def words_in(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    told = words(4, 2)
    return told | {"text": told["text"].to(dtype)}


@pytest.mark.parametrize(
    "shape, options, message",
    [
        ((3, 5, 6), {}, "patches of 2×2 do not divide 5×6"),
        ((3, 6, 5), {}, "patches of 2×2 do not divide 6×5"),
        (SHAPE, {"heads": 5}, "a width of 24 does not divide into 5 attention heads"),
        (SHAPE, {"heads": 4, "positions": "rotary"}, "heads of a size that 4 divides, not 6"),
        (SHAPE, {"width": 22, "heads": 2}, "a width that 4 divides, not 22"),
    ],
)
@pytest.mark.parametrize("way", WAYS)
def test_sizes_that_do_not_go_together_are_refused(way, shape, options, message):
    with pytest.raises(ValueError, match=message):
        by_label(way, shape=shape, config=replace(TINY, **options))


@pytest.mark.parametrize("shape, said", [((3, 6, 4), "3×6×4"), ((1, 4, 6), "1×4×6"), ((3, 4, 8), "3×4×8")])
def test_data_of_another_shape_is_refused(shape, said):
    """As many tokens would do; the network would put them elsewhere."""
    with pytest.raises(ValueError, match=f"for data of 3×4×6, not {said}"):
        by_label()(normal(3, *shape), T, LABEL)


def test_positions_are_no_part_of_a_checkpoint():
    for positions in ("sincos", "rotary"):
        names = by_label(config=replace(TINY, positions=positions)).state_dict()
        assert not [name for name in names if name in ("places", "angles")]


def test_only_branches_compute_in_bfloat16():
    """What is handed from block to block stays float32: sums over many blocks would lose by less."""
    network, kinds = by_label().float(), []
    for block in network.blocks:
        block.register_forward_hook(lambda module, given, out: kinds.extend([given[0].dtype, out.dtype]))
        block.mlp[0].register_forward_hook(lambda module, given, out: kinds.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        network(torch.randn(2, *network.shape), torch.ones(2), {"label": torch.tensor([0, 1])})
    assert kinds == [torch.bfloat16, torch.float32, torch.float32] * len(network.blocks)


def test_more_tokens_than_attention_can_compare():
    """A stranger's file may state any size; nothing of that size is made."""
    with pytest.raises(ValueError, match="more than 65,536 tokens"):
        DiT((1, 65532, 65532), DiTConfig(width=16, heads=2, patch=4))
