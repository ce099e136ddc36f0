"""ControlNet: a trained network is frozen, and a copy of its way down learns to steer it by a picture.

Zhang 2023, "Adding conditional control to text-to-image diffusion models", section 3. What the copy finds is added to
the base's skips and bottom through convolutions that are zero at first: a fresh one changes nothing, bit for bit, and
their gradients are not zero. So they move in the first step, and in the second the copy does.
"""

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from shared.blocks.resnet import zeroed
from shared.conditions.network import ConditionalUNet, entered
from shared.conditions.said import Cond
from task3_conditional.classifier import WAY_UP

HINT_WIDTH = 16  # features of a hint within its encoder


class HintedStem(nn.Module):
    """The stem of a U-Net, with a hint beside the data: its features are added to those of the data."""

    def __init__(self, stem: nn.Conv2d, channels: int):
        """`stem` is taken over; the hint has `channels`, with those that a patch folds into them."""
        super().__init__()
        self.stem = stem
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, HINT_WIDTH, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(HINT_WIDTH, 2 * HINT_WIDTH, 3, padding=1),
            nn.SiLU(),
            zeroed(nn.Conv2d(2 * HINT_WIDTH, stem.out_channels, 3, padding=1)),
        )

    def forward(self, both: Tensor) -> Tensor:
        """(B, data's + channels, h, w) to (B, width, h, w)."""
        x, hint = both.tensor_split([self.stem.in_channels], dim=1)
        return self.stem(x) + self.encoder(hint)


class ControlNet(nn.Module):
    """A copy of a network's way down, with all that it is told, that reads a hint besides. It holds nothing of the
    base itself."""

    def __init__(self, base: ConditionalUNet, channels: int):
        """For hints with `channels`, as large as the data; the copy begins with the weights of `base`."""
        super().__init__()
        unet = copy.deepcopy(base.unet)
        for part in WAY_UP:
            delattr(unet, part)
        config = unet.config
        unet.stem = HintedStem(unet.stem, channels * config.patch**2)
        self.unet, self.conditions = unet, copy.deepcopy(base.conditions)
        self.requires_grad_(True).train()
        self.channels = channels
        widths = [config.width * multiplier for multiplier in config.multipliers for _ in range(config.blocks)]
        self.skips = nn.ModuleList(zeroed(nn.Conv2d(width, width, 1)) for width in widths)
        self.bottom = zeroed(nn.Conv2d(widths[-1], widths[-1], 1))

    def forward(self, x: Tensor, t: Tensor, cond: Cond, hint: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What to add to the base's bottom and skips, top first.

        Args:
            x: noisy data (B, C, H, W).
            t: times (B,).
            cond: what the base is told.
            hint: (B, channels, H, W). A sample's hint that is not a number says nothing: it is drawn as the base does.

        Raises:
            ValueError: the hint is of another size.
        """
        check_hint(hint, (len(x), self.channels, *x.shape[2:]))
        there = hint.flatten(1).isfinite().all(1)[:, None, None, None]  # (B, 1, 1, 1)
        x, c = entered(self.unet, self.conditions, x, t, cond)
        # The hint last: folded into patches, the channels of the data still come first.
        h, skips = self.unet.encode(torch.cat([x, torch.where(there, hint, 0.0).to(x.dtype)], dim=1), c)
        residuals = [zero(skip) for zero, skip in zip(self.skips, skips, strict=True)]
        return there * self.bottom(h), [there * residual for residual in residuals]


def check_hint(hint: Tensor, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless a hint is shaped (B, C, H, W)."""
    if tuple(hint.shape) != shape:
        there, here = ("×".join(map(str, sides)) for sides in (hint.shape, shape))
        raise ValueError(f"the hint is {there}, and {here} is needed: the data's height and width, one for each sample")


class Controlled(nn.Module):
    """`model(x, t, cond)` of the design: a frozen base, with what one or several ControlNets add to it."""

    def __init__(
        self,
        base: ConditionalUNet,
        controls: Sequence[ControlNet],
        keys: Sequence[str] = ("hint",),
        weights: Sequence[float] = (1.0,),
    ):
        """`base` is frozen.

        Args:
            base: that the controls were made of.
            controls: one or more.
            keys: where in cond each finds its hint.
            weights: of what each adds; one of 0 is not asked at all.

        Raises:
            ValueError: there is not one of each for each control, or a weight is not finite.
        """
        super().__init__()
        if not len(controls) == len(keys) == len(weights):
            raise ValueError(f"{len(controls)} controls need as many hints and weights: {len(keys)}, {len(weights)}")
        for weight in weights:
            if not math.isfinite(weight):
                raise ValueError(f"the weight of a control is {weight}: it must be a finite number")
        self.base, self.controls = base.requires_grad_(False).eval(), nn.ModuleList(controls)
        self.hints, self.weights = tuple(keys), tuple(weights)

    def train(self, mode: bool = True) -> "Controlled":
        """The controls are trained; the base is not."""
        super().train(mode)
        self.base.eval()
        return self

    def forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """Data (B, C, H, W), times (B,), what is said of each sample, and the hints (B, C', H, W).

        Raises:
            ValueError: a hint is missing, or of another size.
        """
        unet = self.base.unet
        unet.check_size(*x.shape[2:])
        entering, c = entered(unet, self.base.conditions, x, t, cond)
        h, skips = unet.encode(entering, c)
        for control, key, weight in zip(self.controls, self.hints, self.weights, strict=True):
            if weight == 0:
                continue
            if key not in cond:
                raise ValueError(f"cond has no {key}: a control without its hint would go unnoticed; make its weight 0")
            bottom, residuals = control(x, t, cond, cond[key])
            h = h + weight * bottom.to(h.dtype)
            skips = [skip + weight * residual.to(skip.dtype) for skip, residual in zip(skips, residuals, strict=True)]
        return unet.decode(h, skips, c)

    def null(self, cond: Cond) -> Cond:
        """The condition that says nothing but the hints: guidance is towards what is said, and both sides of it are
        controlled."""
        return self.base.null(cond) | {key: cond[key] for key in self.hints if key in cond}

    def drop(self, cond: Cond, share: float, together: bool = True, open_share: float = 0.0) -> Cond:
        """The condition with a share of the samples told nothing but the hints; see `said.dropped`."""
        return self.base.drop(cond, share, together, open_share)

    @property
    def keys(self) -> list[str]:
        """The names in cond that are read."""
        return [*self.base.keys, *dict.fromkeys(self.hints)]
