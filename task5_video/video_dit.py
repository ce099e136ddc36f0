"""Stage 4's transformer on clips.

Interleaved: after each of its blocks one whose attention runs along time, at each place of its own; a new one is the
identity, so that a new network is the image transformer, frame by frame. Joint: no block more, and all attention sees
all frames. (Ma 2024, "Latte", variant 1; joint: Peebles 2023, over the tokens of all frames.)

Only attention changes. To all else in a block a clip is a batch of frames, each told its own time.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from shared.blocks.dit import AdaLNZero, DiT, Rotation, SelfAttention, Told
from shared.blocks.dit_config import DiTConfig
from shared.conditions.said import Cond
from task5_video.config import TemporalConfig
from task5_video.network import enter, leave
from task5_video.temporal import RelativeBias, frame_angles, turned


class Along(NamedTuple):
    """What attention over several frames needs to know; it is handed on by blocks as their `turn`."""

    frames: int
    mask: Tensor | None  # (B, F, F) bool
    space: Rotation | None  # of the tokens of one frame


class AlongTime(SelfAttention):
    """Each token looks at those in its place in all frames."""

    def __init__(self, config: DiTConfig, relative: bool):
        """As `SelfAttention`; with a learned bias for each distance in time, or turned by it."""
        super().__init__(config)
        self.bias = RelativeBias(config.heads) if relative else None

    def forward(self, x: Tensor, turn: Along, mask: Tensor | None = None) -> Tensor:
        """(B F, N, D) to the same."""
        tokens, size = x.shape[1], x.shape[2] // self.heads
        rows = rearrange(x, "(b f) n d -> (b n) f d", f=turn.frames)
        allowed = None if turn.mask is None else turn.mask.repeat_interleave(tokens, 0)[:, None]  # (B N, 1, F, F)
        if self.bias is not None:
            bias = self.bias(turn.frames).to(x.dtype)[None]  # (1, h, F, F)
            allowed = bias if allowed is None else torch.where(allowed, bias, -torch.inf)
        turning = turned(frame_angles(turn.frames, size // 2, x.device)) if self.bias is None else None
        mixed = self.mix(rows, turning, allowed)
        return rearrange(mixed, "(b n) f d -> (b f) n d", n=tokens)


class AlongAll(SelfAttention):
    """Each token looks at all tokens of all frames."""

    def forward(self, x: Tensor, turn: Along, mask: Tensor | None = None) -> Tensor:
        """(B F, N, D) to the same."""
        tokens, size = x.shape[1], x.shape[2] // self.heads
        rows = rearrange(x, "(b f) n d -> b (f n) d", f=turn.frames)
        angles = frame_angles(turn.frames, size // 2, x.device).flip(1).repeat_interleave(tokens, 0)  # (F N, d / 2)
        if turn.space is not None:  # angles add (Heo 2024, "mixed"); in time the pairs have other speeds than in space
            place = torch.atan2(turn.space.sin, turn.space.cos)  # (N, d / 2)
            angles = angles + place.repeat(turn.frames, 1)
        allowed = None if turn.mask is None else turn.mask.repeat_interleave(tokens, 1).repeat_interleave(tokens, 2)
        mixed = self.mix(rows, turned(angles), None if allowed is None else allowed[:, None])
        return rearrange(mixed, "b (f n) d -> (b f) n d", f=turn.frames)


class AlongTimeBlock(AdaLNZero):
    """A block of the transformer whose attention runs along time. At the start, the identity."""

    def __init__(self, config: DiTConfig, relative: bool):
        """As `AdaLNZero`."""
        super().__init__(config)
        self.attention = AlongTime(config, relative)


class VideoDiT(nn.Module):
    """`model(x, t, cond)` of the design, on clips: stage 4's transformer, whose frames know of each other."""

    def __init__(
        self, shape: tuple[int, int, int], config: DiTConfig, temporal: TemporalConfig, said: Sequence[nn.Module] = ()
    ):
        """For clips of frames (C, H, W); `said` is as for `DiT`.

        Raises:
            ValueError: as for `DiT`; or the tokens of what is told, in context, would stand in every frame.
        """
        super().__init__()
        self.image = DiT(shape, config, said)
        self.joint = temporal.attention == "full"
        if self.joint and config.conditioning == "in_context":
            raise ValueError("temporal.attention full is for other ways in than dit.conditioning in_context")
        if self.joint and temporal.positions == "relative":
            raise ValueError("temporal.positions relative needs temporal.attention temporal, or network unet")
        if self.joint:
            for block in self.image.blocks:
                block.attention = AlongAll(config)  # the same weights by name: only where it looks is new
        relative = temporal.positions == "relative"
        count = config.depth if temporal.attention == "temporal" else 0
        self.along = nn.ModuleList(AlongTimeBlock(config, relative) for _ in range(count))

    def forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """Clips (B, C, F, H, W), times (B,), and what is said of each, to the same shape."""
        entered, image = enter(x, t, cond), self.image
        spoken = [tuple(part[entered.of] for part in said(entered.cond)) for said in image.said]
        told = image.put_together(entered.t, spoken)
        over_time = Along(entered.frames, entered.mask, image.turn)
        before = image.way.before(told)  # (B F, M, D)
        h = image.embed(entered.x)  # (B F, N, D)
        h = torch.cat([before.to(h.dtype), h], dim=1)
        for i, block in enumerate(image.blocks):
            h = self._run(block, h, told, over_time if self.joint else image.turn)  # (B F, M + N, D)
            if self.along:
                h = self._run(self.along[i], h, told, over_time)
        return leave(image.read(h[:, before.shape[1] :], told), entered.frames)

    def _run(self, block: nn.Module, h: Tensor, told: Told, turn: Rotation | Along | None) -> Tensor:
        if self.image.config.checkpointing and torch.is_grad_enabled():
            return checkpoint(block, h, told, turn, use_reentrant=False)
        return block(h, told, turn)

    @property
    def blocks(self) -> list[nn.Module]:
        """What is large: each is compiled, and of several processes gathered, by itself."""
        return [*self.image.blocks, *self.along]

    @property
    def said(self) -> nn.ModuleList:
        """What reads cond; each knows its null."""
        return self.image.said

    @property
    def keys(self) -> list[str]:
        """The names in cond that say something of a clip."""
        return self.image.keys
