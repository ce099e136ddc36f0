"""Introduced in task 4; used by tasks 4, 5.

The diffusion transformer of Peebles and Xie 2023 ("Scalable diffusion models with transformers", DiT), whole.

    image -> square patches, a token each -> blocks of attention and feed-forward -> a linear map back to patches

No convolution but the one that cuts the patches, no levels, no skips: what a U-Net knows of images, a transformer has
to learn. How time and condition enter is all in which the paper's four variants differ, and here it is one seam: a
`Way` names the block, the final layer and what stands before the tokens of the image.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from shared.blocks.dit_config import DiTConfig
from shared.blocks.embeddings import TimeEmbedding, sinusoidal
from shared.blocks.resnet import zeroed

FREQUENCIES = 256  # sinusoidal features of the time, at every width
TOKENS = 2**16  # at most: attention compares each with each, and a stranger's file may state any size
SIZES = {"S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16), "XL": (1152, 28, 16)}  # width, depth, heads


class Told(NamedTuple):
    """What every block is told: as one vector, and as tokens of which the first is the time."""

    vector: Tensor  # (B, D)
    tokens: Tensor  # (B, M, D)
    mask: Tensor | None  # (B, M) bool: which of them there are; None where all are


# --- where a token lies ---------------------------------------------------------------------------------------


def grid(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Row and column of every token, each (rows · columns,), line by line."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return row.flatten(), column.flatten()


def sincos_positions(rows: int, columns: int, width: int) -> Tensor:
    """(N, width): sines and cosines of the column in the first half of the features, of the row in the second.

    MAE (He 2022) and DiT; Vaswani 2017, section 3.5, in each direction.
    """
    if width % 4:
        raise ValueError(f"sines and cosines of rows and columns need a width that 4 divides, not {width}")
    row, column = grid(rows, columns)
    cosines_sines = [sinusoidal(place, width // 2) for place in (column, row)]  # each (N, width / 2)
    return torch.cat([half for one in cosines_sines for half in reversed(one.chunk(2, dim=1))], dim=1)


class Rotation(NamedTuple):
    """By what angle each pair of a head's features is turned, (N, d / 2): its cosine and sine."""

    cos: Tensor
    sin: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Turn queries or keys (B, heads, N, d). RoFormer (Su 2021), eq. (34): pairs are i and i + d / 2."""
        first, second = x.chunk(2, dim=-1)
        cos, sin = self.cos.to(x.dtype), self.sin.to(x.dtype)
        return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)

    def after(self, n: int) -> "Rotation":
        """The same for a sequence in which n tokens that lie nowhere, and are not turned, come first."""
        return Rotation(F.pad(self.cos, (0, 0, n, 0), value=1.0), F.pad(self.sin, (0, 0, n, 0)))


def rotary_angles(rows: int, columns: int, head: int) -> Tensor:
    """(N, head / 2) angles: one half of a head's pairs turns with the row, the other with the column.

    What two tokens say to each other then depends on how they lie to each other alone. The slowest pair turns by
    one or two hundredths of a radian a step (Heo 2024: images are hundreds of tokens wide, not tens of thousands as
    texts are).
    """
    if head % 4:
        raise ValueError(f"turning by rows and columns needs heads of a size that 4 divides, not {head}")
    speeds = 100.0 ** -(torch.arange(head // 4) / (head // 4))  # (head / 4,)
    return torch.cat([place[:, None] * speeds for place in grid(rows, columns)], dim=1)


# --- the parts of a block -------------------------------------------------------------------------------------


def norm(width: int, affine: bool = False) -> nn.LayerNorm:
    """Layer normalisation; without weights of its own where the condition brings them."""
    return nn.LayerNorm(width, eps=1e-6, elementwise_affine=affine)


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear map with the paper's first weights: the variance of what goes through it stays about the same."""
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Scale and shift features (B, N, D) by what each sample is told, (B, 1, D) each."""
    return torch.addcmul(shift, x, 1 + scale)


def told_by(width: int, numbers: int) -> nn.Sequential:
    """From the vector that a block is told to `numbers` vectors of the same width."""
    return nn.Sequential(nn.SiLU(), linear(width, numbers * width))


class SelfAttention(nn.Module):
    """Every token looks at every token (Vaswani 2017, eq. 1)."""

    def __init__(self, config: DiTConfig):
        """`heads` must divide `width`."""
        super().__init__()
        if config.width % config.heads:
            raise ValueError(f"a width of {config.width} does not divide into {config.heads} attention heads")
        self.heads = config.heads
        self.qkv = linear(config.width, 3 * config.width)
        normed = config.qk_norm  # Dehghani 2023 (ViT-22B), section 2; by root mean square, as in Esser 2024
        self.norms = nn.ModuleList(nn.RMSNorm(config.width // config.heads) for _ in range(2)) if normed else None
        self.out = linear(config.width, config.width)

    def forward(self, x: Tensor, turn: Rotation | None, mask: Tensor | None = None) -> Tensor:
        """(B, N, D) to the same; keys are left out where the mask (B, N) is false."""
        return self.mix(x, turn, None if mask is None else mask[:, None, None])

    def mix(self, x: Tensor, turn: Rotation | None, mask: Tensor | None) -> Tensor:
        """The same, with a mask that broadcasts to (B, heads, N, N): where to look, or what to add to the scores."""
        q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.heads)
        if self.norms is not None:
            # in the format of x, float32: of bfloat16 numbers the mean square would be a rough guess
            q, k = (scaled(one.to(x.dtype)).to(v.dtype) for scaled, one in zip(self.norms, (q, k), strict=True))
        if turn is not None:
            q, k = turn(q), turn(k)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # (B, h, N, d)
        return self.out(rearrange(mixed, "b h n d -> b n (h d)"))


class CrossAttention(nn.Module):
    """Every token of the image looks at the tokens of what is told."""

    def __init__(self, config: DiTConfig):
        """As `SelfAttention`."""
        super().__init__()
        self.heads = config.heads
        self.query = linear(config.width, config.width)
        self.keys_values = linear(config.width, 2 * config.width)
        self.out = linear(config.width, config.width)

    def forward(self, x: Tensor, told: Told) -> Tensor:
        """(B, N, D) to the same."""
        q = rearrange(self.query(x), "b n (h d) -> b h n d", h=self.heads)
        k, v = rearrange(self.keys_values(told.tokens), "b m (two h d) -> two b h m d", two=2, h=self.heads)
        where = None if told.mask is None else told.mask[:, None, None]  # (B, 1, 1, M)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=where)  # (B, h, N, d)
        return self.out(rearrange(mixed, "b h n d -> b n (h d)"))


def feed_forward(config: DiTConfig) -> nn.Sequential:
    """What each token does by itself: (B, N, D) to the same."""
    hidden = config.mlp_ratio * config.width
    return nn.Sequential(linear(config.width, hidden), nn.GELU("tanh"), linear(hidden, config.width))


# --- the blocks: (x (B, N, D), told, turn) -> (B, N, D) -------------------------------------------------------


class AdaLNZero(nn.Module):
    """Norms that are scaled and shifted, and branches that are gated, by what is told. At the start, the identity."""

    def __init__(self, config: DiTConfig):
        """Gates and all are zero at the start."""
        super().__init__()
        self.norm1, self.norm2 = norm(config.width), norm(config.width)
        self.attention, self.mlp = SelfAttention(config), feed_forward(config)
        self.modulation = told_by(config.width, 6)
        zeroed(self.modulation[-1])

    def forward(self, x: Tensor, told: Told, turn: Rotation | None) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(told.vector)[:, None].chunk(6, dim=2)
        x = x + gate1 * self.attention(modulate(self.norm1(x), shift1, scale1), turn)
        return x + gate2 * self.mlp(modulate(self.norm2(x), shift2, scale2))


class AdaLN(nn.Module):
    """Norms that are scaled and shifted by what is told; no gates."""

    def __init__(self, config: DiTConfig):
        super().__init__()
        self.norm1, self.norm2 = norm(config.width), norm(config.width)
        self.attention, self.mlp = SelfAttention(config), feed_forward(config)
        self.modulation = told_by(config.width, 4)

    def forward(self, x: Tensor, told: Told, turn: Rotation | None) -> Tensor:
        shift1, scale1, shift2, scale2 = self.modulation(told.vector)[:, None].chunk(4, dim=2)
        x = x + self.attention(modulate(self.norm1(x), shift1, scale1), turn)
        return x + self.mlp(modulate(self.norm2(x), shift2, scale2))


class Crossing(nn.Module):
    """A common block with a cross-attention in its middle, to the time and the condition as tokens."""

    def __init__(self, config: DiTConfig):
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (norm(config.width, affine=True) for _ in range(3))
        self.attention, self.cross, self.mlp = SelfAttention(config), CrossAttention(config), feed_forward(config)

    def forward(self, x: Tensor, told: Told, turn: Rotation | None) -> Tensor:
        x = x + self.attention(self.norm1(x), turn)
        x = x + self.cross(self.norm2(x), told)
        return x + self.mlp(self.norm3(x))


class InContext(nn.Module):
    """A common block: what is told stands in the sequence, before the image."""

    def __init__(self, config: DiTConfig):
        super().__init__()
        self.norm1, self.norm2 = norm(config.width, affine=True), norm(config.width, affine=True)
        self.attention, self.mlp = SelfAttention(config), feed_forward(config)

    def forward(self, x: Tensor, told: Told, turn: Rotation | None) -> Tensor:
        before = told.tokens.shape[1]  # x is (B, M + N, D)
        mask = None if told.mask is None else F.pad(told.mask, (0, x.shape[1] - before), value=True)
        x = x + self.attention(self.norm1(x), turn and turn.after(before), mask)
        return x + self.mlp(self.norm2(x))


class AdaLNCross(AdaLNZero):
    """`AdaLNZero`, and a cross-attention to every token that is told, as PixArt (Chen 2023) has it for text."""

    def __init__(self, config: DiTConfig):
        """The cross-attention, too, adds nothing at the start."""
        super().__init__(config)
        self.cross = CrossAttention(config)
        zeroed(self.cross.out)

    def forward(self, x: Tensor, told: Told, turn: Rotation | None) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(told.vector)[:, None].chunk(6, dim=2)
        x = x + gate1 * self.attention(modulate(self.norm1(x), shift1, scale1), turn)
        x = x + self.cross(x, told)
        return x + gate2 * self.mlp(modulate(self.norm2(x), shift2, scale2))


# --- the final layers: (x (B, N, D), told) -> (B, N, out) -----------------------------------------------------


class AdaptiveFinal(nn.Module):
    """A norm that is scaled and shifted by what is told, and a linear map. At the start all zero."""

    def __init__(self, width: int, out: int):
        super().__init__()
        self.norm, self.modulation, self.linear = norm(width), told_by(width, 2), zeroed(linear(width, out))
        zeroed(self.modulation[-1])

    def forward(self, x: Tensor, told: Told) -> Tensor:
        shift, scale = self.modulation(told.vector)[:, None].chunk(2, dim=2)
        return self.linear(modulate(self.norm(x), shift, scale))


class PlainFinal(nn.Module):
    """A norm and a linear map. At the start all zero."""

    def __init__(self, width: int, out: int):
        super().__init__()
        self.norm, self.linear = norm(width, affine=True), zeroed(linear(width, out))

    def forward(self, x: Tensor, told: Told) -> Tensor:
        return self.linear(self.norm(x))


# --- the seam -------------------------------------------------------------------------------------------------


class Way(NamedTuple):
    """How time and condition enter."""

    block: type[nn.Module]
    final: type[nn.Module]
    before: Callable[[Told], Tensor] = lambda told: told.tokens[:, :0]  # (B, M, D): what stands before the image


WAYS = {
    "adaln_zero": Way(AdaLNZero, AdaptiveFinal),
    "adaln": Way(AdaLN, AdaptiveFinal),
    "cross_attention": Way(Crossing, PlainFinal),
    "in_context": Way(InContext, PlainFinal, lambda told: told.tokens),
    "adaln_cross": Way(AdaLNCross, AdaptiveFinal),
}


class DiT(nn.Module):
    """`model(x, t, cond)` of the design, as a transformer over patches."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        config: DiTConfig,
        said: Sequence[nn.Module] = (),
        out_channels: int | None = None,
    ):
        """For data (C, H, W), pixels or latents.

        Args:
            shape: of the data.
            config: sizes and kinds; `sized` puts in what a size of the paper means.
            said: what it is told besides the time: modules that make tokens (B, M, D), and a mask (B, M) of those
                that there are, of cond; see `shared.conditions.said`.
            out_channels: of the output, where they are not the data's: twice as many in the paper, whose networks
                predict a variance as well.

        Raises:
            ValueError: the patches do not divide the sides, or are too many; or the heads do not divide the width.
        """
        super().__init__()
        channels, height, width = shape
        side, dim = config.patch, config.width
        if height % side or width % side:
            raise ValueError(f"patches of {side}×{side} do not divide {height}×{width}: choose another network.patch")
        if (height // side) * (width // side) > TOKENS:
            raise ValueError(
                f"{height}×{width} in patches of {side} are more than {TOKENS:,} tokens: choose larger ones"
            )
        self.shape, self.config, self.out_channels = tuple(shape), config, out_channels or channels
        self.rows, self.columns = height // side, width // side
        self.way = WAYS[config.conditioning]
        self.patches = nn.Conv2d(channels, dim, side, stride=side)
        self.time = TimeEmbedding(FREQUENCIES, dim)
        self.said = nn.ModuleList(said)
        self.blocks = nn.ModuleList(self.way.block(config) for _ in range(config.depth))
        self.final = self.way.final(dim, side**2 * self.out_channels)
        rotary = config.positions == "rotary"
        places = None if rotary else sincos_positions(self.rows, self.columns, dim)
        angles = rotary_angles(self.rows, self.columns, dim // config.heads) if rotary else None
        self.register_buffer("places", places, persistent=False)  # (N, D), or None
        self.register_buffer("angles", angles, persistent=False)  # (N, d / 2), or None
        nn.init.xavier_uniform_(self.patches.weight.view(dim, -1))
        nn.init.zeros_(self.patches.bias)
        for module in self.time.mlp:
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, x: Tensor, t: Tensor, cond: dict[str, Tensor]) -> Tensor:
        """Data (B, C, H, W), times (B,), and what is said of each sample, to (B, out_channels, H, W)."""
        h, told = self.embed(x), self.tell(t, cond)  # (B, N, D)
        turn = self.turn
        before = self.way.before(told)  # (B, M, D)
        h = torch.cat([before.to(h.dtype), h], dim=1)  # (B, M + N, D)
        for block in self.blocks:
            if self.config.checkpointing and torch.is_grad_enabled():
                h = checkpoint(block, h, told, turn, use_reentrant=False)
            else:
                h = block(h, told, turn)  # (B, M + N, D)
        return self.read(h[:, before.shape[1] :], told)

    def embed(self, x: Tensor) -> Tensor:
        """A token (B, N, D) for each patch of (B, C, H, W), and where it lies added to it if places are added at all.

        Raises:
            ValueError: the data are not of the network's shape.
        """
        if tuple(x.shape[1:]) != self.shape:
            there, here = ("×".join(map(str, sides)) for sides in (x.shape[1:], self.shape))
            raise ValueError(f"this network is for data of {here}, not {there}")
        # In x's number format, float32: sums over many blocks lose by bfloat16, and only branches compute in it.
        h = rearrange(self.patches(x), "b d h w -> b (h w) d").to(x.dtype)  # (B, N, D)
        return h if self.places is None else h + self.places.to(h.dtype)

    def read(self, h: Tensor, told: Told) -> Tensor:
        """Tokens of the image (B, N, D), each put back to where its patch was: (B, out_channels, H, W)."""
        out, side = self.final(h, told), self.config.patch  # (B, N, p p C)
        return rearrange(out, "b (h w) (p q c) -> b c (h p) (w q)", h=self.rows, p=side, q=side)

    @property
    def turn(self) -> Rotation | None:
        """By what queries and keys of the image's tokens are turned."""
        return None if self.angles is None else Rotation(self.angles.cos(), self.angles.sin())

    @property
    def keys(self) -> list[str]:
        """The names in cond that are read."""
        return [name for said in self.said for name in said.keys]

    def tell(self, t: Tensor, cond: dict[str, Tensor]) -> Told:
        """The time, and what is said."""
        return self.put_together(t, [said(cond) for said in self.said])

    def put_together(self, t: Tensor, spoken: Sequence[tuple[Tensor, Tensor]]) -> Told:
        """The time (B,), and tokens (B, M, D) with a mask (B, M) for each thing said: their mean goes into the vector,
        they themselves behind the time's token."""
        time = self.time(t)  # (B, D)
        vector, tokens, masks = time, [time[:, None]], []
        for those, mask in spoken:
            there = mask[..., None].to(those.dtype)
            vector = vector + (those * there).sum(dim=1) / there.sum(dim=1).clamp(min=1)
            tokens.append(those)
            masks.append(mask)
        # Without a mask attention is faster; a class is always there, a caption is as long as it is.
        some = not all(getattr(said, "always", False) for said in self.said)
        mask = F.pad(torch.cat(masks, dim=1), (1, 0), value=True) if some else None  # (B, 1 + M)
        return Told(vector, torch.cat(tokens, dim=1), mask)


def sized(config: DiTConfig) -> DiTConfig:
    """The config with the width, depth and heads that its size of the paper, if it names one, means."""
    if config.size is None:
        return config
    width, depth, heads = SIZES[config.size]
    return replace(config, width=width, depth=depth, heads=heads)
