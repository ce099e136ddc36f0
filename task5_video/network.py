"""The image networks of stages 3 and 4 on clips: frames go through as a batch of images, and meet in the layers added.

    clips (B, C, F, H, W) -> B F images -> the image network, with what looks along time between its parts -> clips

What a clip is told holds for all of its frames. Besides, cond may hold

    given, given_mask   clips (B, C, F, H, W) and (B, F) bool: frames that are known. They stand in the place of the
                        noisy ones, at time 0. Nothing of the network is made for it, and no weight.
    owner               (B, F) long: which of several samples each frame is of. A clip is sample 0, each still beside it
                        is one of its own; all else in cond then is (B, samples, …). Frames see their own sample's.
"""

from functools import partial
from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from shared.blocks.config import UNetConfig
from shared.blocks.resnet import Context
from shared.conditions.config import ConditionConfig
from shared.conditions.network import ConditionalUNet
from shared.conditions.said import Cond
from task5_video.config import TemporalConfig
from task5_video.temporal import temporal_blocks


class Entered(NamedTuple):
    """A batch of clips as an image network takes it."""

    x: Tensor  # (B F, C, H, W)
    t: Tensor  # (B F,): the time of each frame
    frames: int
    of: Tensor  # (B F,) long: which row of `cond` each frame is told
    cond: Cond  # a row for each sample, clip or still
    mask: Tensor | None  # (B, F, F) bool: which frames may look at which; None: all of a clip


def enter(x: Tensor, t: Tensor, cond: Cond) -> Entered:
    """Clips (B, C, F, H, W) and times (B,) as frames, what is given put in."""
    batch, frames = len(x), x.shape[2]
    times = t[:, None].expand(batch, frames)  # (B, F)
    if "given" in cond:
        known = cond["given_mask"]  # (B, F)
        x = torch.where(known[:, None, :, None, None], cond["given"].to(x.dtype), x)
        times = torch.where(known, torch.zeros_like(times), times)
    told = {name: value for name, value in cond.items() if name not in ("given", "given_mask", "owner")}
    first = torch.arange(batch, device=x.device)[:, None]  # (B, 1)
    of, mask = first.expand(batch, frames), None
    if "owner" in cond:
        owner = cond["owner"]
        mask = owner[:, :, None] == owner[:, None]
        if told:  # else all are told the same: nothing
            of = first * next(iter(told.values())).shape[1] + owner
            told = {name: value.flatten(0, 1) for name, value in told.items()}
    return Entered(rearrange(x, "b c f h w -> (b f) c h w"), times.flatten(), frames, of.flatten(), told, mask)


def leave(out: Tensor, frames: int) -> Tensor:
    """Frames (B F, C, H, W) as clips (B, C, F, H, W)."""
    return rearrange(out, "(b f) c h w -> b c f h w", f=frames)


class VideoUNet(nn.Module):
    """`model(x, t, cond)` of the design, on clips: stage 3's U-Net with layers along time after each of its stages."""

    def __init__(
        self,
        channels: int,
        config: UNetConfig,
        temporal: TemporalConfig,
        condition: ConditionConfig,
        known: dict[str, Any],
        text_layers: int = 2,
    ):
        """For clips with `channels`; the rest is as for `ConditionalUNet`.

        Raises:
            ValueError: the parts of the U-Net, or the added heads, do not fit together.
        """
        super().__init__()
        then = partial(temporal_blocks, config=temporal)
        self.image = ConditionalUNet(channels, config, condition, known, text_layers, then=then)

    def forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """Clips (B, C, F, H, W), times (B,), and what is said of each, to the same shape."""
        entered, unet = enter(x, t, cond), self.image.unet
        time = unet.time(entered.t)  # (B F, E)
        told = Context(time.new_zeros(len(x) if not entered.cond else rows(entered.cond), time.shape[1]))
        for condition in self.image.conditions:
            _, told = condition(entered.x, told, entered.cond)
        each = {name: value[entered.of] for name, value in told._asdict().items() if isinstance(value, Tensor)}
        c = told._replace(**each, frames=entered.frames, frame_mask=entered.mask)
        c = c._replace(vector=time + (c.vector if entered.cond else 0))
        unet.check_size(*x.shape[3:])
        h, skips = unet.encode(entered.x, c)
        return leave(unet.decode(h, skips, c), entered.frames)

    @property
    def said(self) -> nn.ModuleList:
        """What reads cond; each knows its null."""
        return self.image.conditions

    @property
    def keys(self) -> list[str]:
        """The names in cond that say something of a clip."""
        return self.image.keys


def rows(cond: Cond) -> int:
    """How many samples a condition is of."""
    return len(next(iter(cond.values())))
