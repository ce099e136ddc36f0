"""What makes an image network's features know of other frames: convolution and attention along time.

Each is put after a stage of the U-Net, on features (B F, C, H, W) of B clips of F frames, and adds nothing at the
start: a video network that has just been built is the image network, frame by frame (Ho 2022, "Video diffusion models",
section 3; Blattmann 2023, "Align your latents", section 3.1). Which frames may look at which is `Context.frame_mask`: a
still beside a clip sees itself alone.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from shared.blocks.dit import Rotation
from shared.blocks.resnet import Context, group_norm, zeroed
from task5_video.config import TemporalConfig

REACH = 32  # frames: a relative position knows no longer distance


def frame_angles(frames: int, pairs: int, device: torch.device) -> Tensor:
    """(F, pairs) angles by which queries and keys of each frame are turned. RoFormer (Su 2021), eq. (34).

    The slowest pair turns by about a hundredth of a radian a frame: clips are hundreds of frames long at most.
    """
    speeds = 100.0 ** -(torch.arange(pairs, device=device) / pairs)  # (pairs,)
    return torch.arange(frames, device=device)[:, None] * speeds


def turned(angles: Tensor) -> Rotation:
    """The rotation by these angles."""
    return Rotation(angles.cos(), angles.sin())


class RelativeBias(nn.Module):
    """A learned number for each head and each distance in time, added to the attention. T5 (Raffel 2020), section
    2.1."""

    def __init__(self, heads: int):
        """No preference at the start."""
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(2 * REACH + 1, heads))

    def forward(self, frames: int) -> Tensor:
        """(heads, F, F): of query frame i and key frame j."""
        place = torch.arange(frames, device=self.bias.device)
        distance = (place[None] - place[:, None]).clamp(-REACH, REACH) + REACH  # (F, F)
        return rearrange(self.bias[distance], "i j n -> n i j")


class TemporalConvolution(nn.Module):
    """Each frame's features with those of the frame before and after it, mixed; added to the input."""

    def __init__(self, channels: int):
        """For `channels` features."""
        super().__init__()
        self.norm = group_norm(channels)
        self.mix = zeroed(nn.Conv2d(3 * channels, channels, 1))  # a kernel of three frames and one pixel

    def forward(self, x: Tensor, c: Context) -> Tensor:
        """(B F, C, H, W) to the same."""
        h = F.silu(self.norm(x)).unflatten(0, (-1, c.frames))  # (B, F, C, H, W)
        before, after = shifted(h, 1), shifted(h, -1)
        if c.frame_mask is not None:
            pairs = c.frame_mask.diagonal(-1, 1, 2).to(h.dtype)[..., None, None, None]  # (B, F - 1, 1, 1, 1)
            before = before * F.pad(pairs, (0, 0) * 3 + (1, 0))  # frame i looks at i - 1
            pairs = c.frame_mask.diagonal(1, 1, 2).to(h.dtype)[..., None, None, None]
            after = after * F.pad(pairs, (0, 0) * 3 + (0, 1))  # frame i looks at i + 1
        return x + self.mix(torch.cat([before, h, after], dim=2).flatten(0, 1))


def shifted(h: Tensor, by: int) -> Tensor:
    """Frames (B, F, …) moved on by 1 or back by -1; zeros where there was none."""
    blank = torch.zeros_like(h[:, :1])
    return torch.cat([blank, h[:, :-1]] if by > 0 else [h[:, 1:], blank], dim=1)


class TemporalAttention(nn.Module):
    """Every position looks at itself in all frames; added to the input. Cost grows with H W F²."""

    apart = "(b f) (three n d) h w -> three b (h w) n f d"  # a sequence of frames for each position
    together = "b (h w) n f d -> (b f) (n d) h w"
    divisor = 2  # of a head's size: what is turned are pairs

    def __init__(self, channels: int, config: TemporalConfig):
        """For `channels` features.

        Raises:
            ValueError: the heads do not divide the channels into sizes that can be turned.
        """
        super().__init__()
        self.heads, size = config.heads, channels // config.heads
        if channels % config.heads or size % self.divisor:
            raise ValueError(
                f"{channels} channels do not divide into {config.heads} heads of a size that {self.divisor} divides: "
                "choose other temporal.heads"
            )
        self.norm = group_norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zeroed(nn.Conv2d(channels, channels, 1))
        self.bias = RelativeBias(config.heads) if config.positions == "relative" else None

    def forward(self, x: Tensor, c: Context) -> Tensor:
        """(B F, C, H, W) to the same."""
        height, width = x.shape[2:]
        q, k, v = rearrange(self.qkv(self.norm(x)), self.apart, three=3, n=self.heads, f=c.frames)
        if self.bias is None:
            turn = turned(self.angles(c.frames, height, width, q))
            q, k = turn(q), turn(k)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask(c, height * width, q))
        return x + self.out(rearrange(mixed, self.together, h=height, f=c.frames))

    def angles(self, frames: int, height: int, width: int, q: Tensor) -> Tensor:
        """(N, d / 2) angles of the N members of a sequence."""
        return frame_angles(frames, q.shape[-1] // 2, q.device)  # (F, d / 2)

    def mask(self, c: Context, area: int, q: Tensor) -> Tensor | None:
        """What is added to the attention of a sequence, or where it may look; (…, N, N)."""
        allowed = None if c.frame_mask is None else c.frame_mask[:, None, None]  # (B, 1, 1, F, F)
        if self.bias is None:
            return allowed
        bias = self.bias(c.frames).to(q.dtype)  # (n, F, F)
        return bias if allowed is None else torch.where(allowed, bias, -torch.inf)


class SpaceTimeAttention(TemporalAttention):
    """Every position of every frame looks at all of them. Cost grows with (H W F)²: for small clips."""

    apart = "(b f) (three n d) h w -> three b () n (f h w) d"
    together = "b () n (f h w) d -> (b f) (n d) h w"
    divisor = 8  # pairs for the frame, half as many each for row and column

    def angles(self, frames: int, height: int, width: int, q: Tensor) -> Tensor:
        """(F H W, d / 2): half of the pairs turn with the frame, a quarter each with row and column."""
        quarter = q.shape[-1] // 8
        sides = ((frames, 2 * quarter), (height, quarter), (width, quarter))
        when, row, column = (frame_angles(length, pairs, q.device) for length, pairs in sides)
        grid = (frames, height, width, -1)
        every = [when[:, None, None].expand(grid), row[None, :, None].expand(grid), column[None, None].expand(grid)]
        return torch.cat(every, dim=-1).flatten(0, 2)

    def mask(self, c: Context, area: int, q: Tensor) -> Tensor | None:
        """That of the frames, for each of their positions."""
        frames = super().mask(c, area, q)
        return None if frames is None else frames.repeat_interleave(area, -2).repeat_interleave(area, -1)


def temporal_blocks(width: int, kind: str, config: TemporalConfig) -> list[nn.Module]:
    """What is put after a stage of the U-Net with so many features, whose own attention is of a kind, or "none".

    All positions of all frames are looked at only where those of one frame look at each other, too: elsewhere
    there are too many.
    """
    blocks: list[nn.Module] = [TemporalConvolution(width)] if config.convolution else []
    if config.attention != "none":
        everywhere = config.attention == "full" and kind != "none"
        blocks.append((SpaceTimeAttention if everywhere else TemporalAttention)(width, config))
    return blocks
