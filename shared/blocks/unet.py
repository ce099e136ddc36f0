"""Introduced in task 1; used by tasks 1, 2, 3, 5.

The U-Net of diffusion models: down through levels of falling resolution, and up again with every block's
features at hand (Ronneberger 2015; DDPM, appendix B; ADM, section 3).
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from shared.blocks.config import UNetConfig
from shared.blocks.embeddings import TimeEmbedding
from shared.blocks.resample import DOWN, UP, depth_to_space, space_to_depth
from shared.blocks.resnet import Context, ResidualBlock, group_norm, zeroed
from shared.blocks.stage import Stage, stage


class UNet(nn.Module):
    """`model(x, t, cond)` of the design: from noisy data and its time to an output of the same shape.

    It is `encode` and then `decode`, so that a later stage can put something between the two.
    """

    def __init__(
        self,
        channels: int,
        config: UNetConfig,
        out_channels: int | None = None,
        make_stage: Callable[..., Stage] = stage,
    ):
        """For data with `channels`, giving `out_channels` (as many, where not given).

        `make_stage` takes what `stage` takes, and may put more blocks into each stage.

        Raises:
            ValueError: multipliers and attention differ in length, or heads do not divide the channels.
        """
        super().__init__()
        if not config.multipliers:
            raise ValueError("network.multipliers is empty: a U-Net has at least one level")
        if len(config.attention) != len(config.multipliers):
            raise ValueError(
                f"network.attention names {len(config.attention)} levels and network.multipliers "
                f"{len(config.multipliers)}: give one entry for each level"
            )
        self.config = config
        widths = [config.width * multiplier for multiplier in config.multipliers]
        area = config.patch**2
        context = 4 * config.width
        self.time = TimeEmbedding(config.width, context, config.time_dropout)
        self.stem = nn.Conv2d(channels * area, widths[0], 3, padding=1)

        make = partial(make_stage, heads=config.heads, context=context, dropout=config.dropout)

        self.down = nn.ModuleList()  # level by level: its stages
        self.shrink = nn.ModuleList()  # between the levels
        now, skips = widths[0], []
        for level, (width, kind) in enumerate(zip(widths, config.attention, strict=True)):
            if level > 0:
                self.shrink.append(DOWN[config.down](now))
            stages = nn.ModuleList()
            for _ in range(config.blocks):
                stages.append(make(now, width, kind))
                now = width
                skips.append(width)
            self.down.append(stages)

        self.middle = nn.ModuleList(
            [make(now, now, config.middle_attention), ResidualBlock(now, now, context, config.dropout)]
        )

        self.up = nn.ModuleList()
        self.enlarge = nn.ModuleList()
        for level, (width, kind) in reversed(list(enumerate(zip(widths, config.attention, strict=True)))):
            if level < len(widths) - 1:
                self.enlarge.append(UP[config.up](now, width))
                now = width
            stages = nn.ModuleList()
            for _ in range(config.blocks):
                stages.append(make(now + skips.pop(), width, kind))
                now = width
            self.up.append(stages)
        self.norm = group_norm(now)
        # Zero at the start: whatever the weights, the first prediction is 0 and the loss the target's size.
        self.head = zeroed(nn.Conv2d(now, (out_channels or channels) * area, 3, padding=1))

    def check_size(self, height: int, width: int) -> None:
        """Raise ValueError if images of this size cannot be halved as often as the levels ask for."""
        factor = self.config.patch * 2 ** (len(self.config.multipliers) - 1)
        if height % factor or width % factor:
            raise ValueError(
                f"images of {height}×{width} cannot go through {len(self.config.multipliers)} levels after a "
                f"stem of patch {self.config.patch}: both sides must be multiples of {factor}; change "
                f"data.size, network.multipliers or network.patch"
            )

    def _run(self, block: nn.Module, x: Tensor, c: Context) -> Tensor:
        if self.config.checkpointing and torch.is_grad_enabled():
            return checkpoint(block, x, c, use_reentrant=False)
        return block(x, c)

    def encode(self, x: Tensor, c: Context) -> tuple[Tensor, list[Tensor]]:
        """Down and through the middle. Returns the bottom's features and those of every stage, top first."""
        h = self.stem(space_to_depth(x, self.config.patch))  # (B, width, H/p, W/p)
        skips = []
        for level, stages in enumerate(self.down):
            if level > 0:
                h = self.shrink[level - 1](h)  # half the resolution
            for block in stages:
                h = self._run(block, h, c)  # (B, width of the level, …)
                skips.append(h)
        for block in self.middle:
            h = self._run(block, h, c)
        return h, skips

    def decode(self, h: Tensor, skips: list[Tensor], c: Context) -> Tensor:
        """Up again: (B, bottom width, …) and the skips of `encode` to (B, out_channels, H, W)."""
        skips = list(skips)
        for level, stages in enumerate(self.up):
            if level > 0:
                h = self.enlarge[level - 1](h)  # twice the resolution
            for block in stages:
                h = self._run(block, torch.cat([h, skips.pop()], dim=1), c)
        h = self.head(nn.functional.silu(self.norm(h)))  # (B, out · p², H/p, W/p)
        return depth_to_space(h, self.config.patch)  # (B, out, H, W)

    def forward(self, x: Tensor, t: Tensor, cond: dict[str, Tensor]) -> Tensor:
        """Data (B, C, H, W), times (B,), and a condition, which only a wrapper of this network knows to read."""
        self.check_size(*x.shape[2:])
        c = Context(self.time(t))
        h, skips = self.encode(x, c)
        return self.decode(h, skips, c)
