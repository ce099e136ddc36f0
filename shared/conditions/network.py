"""Introduced in task 3; used by tasks 3, 5.

The U-Net of stage 1, told more than the time: what conditions add to its input and its context, and nothing else.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from shared.blocks.config import UNetConfig
from shared.blocks.listening import conditional_stage
from shared.blocks.resnet import Context
from shared.blocks.stage import Stage
from shared.blocks.unet import UNet
from shared.conditions.config import ConditionConfig
from shared.conditions.said import Cond, dropped
from shared.conditions.ways import Concatenation, build_conditions


def entered(unet: UNet, conditions: nn.ModuleList, x: Tensor, t: Tensor, cond: Cond) -> tuple[Tensor, Context]:
    """What a network's way down is given: the data, with what conditions lay beside it, and the context of every block.

    Args:
        unet, conditions: of the network, or of a copy of its way down.
        x: data (B, C, H, W).
        t: times (B,).
        cond: what is said of each sample.
    """
    c = Context(unet.time(t))
    for condition in conditions:
        x, c = condition(x, c, cond)
    return x, c


class ConditionalUNet(nn.Module):
    """`model(x, t, cond)` of the design. With no condition it is the U-Net."""

    def __init__(
        self,
        channels: int,
        config: UNetConfig,
        condition: ConditionConfig,
        known: dict[str, Any],
        text_layers: int = 2,
        *,
        then: Callable[[int, str], Sequence[nn.Module]] = lambda width, kind: (),
    ):
        """For data with `channels`, told what `condition` asks for; `known` is as for `build_conditions`.

        Args:
            channels, config: as for `UNet`.
            condition, known: what is told in which way, and what can be said.
            text_layers: of a text encoder that is trained along.
            then: further blocks for the end of each stage with so many features and attention of such a kind; each is
                called with the context.

        Raises:
            ValueError: the parts of the U-Net, or the ways of the conditions, do not fit together.
        """
        super().__init__()
        ways = {condition.label, condition.attributes, condition.text} - {"none"}
        if "cross_attention_pooled" in ways:  # the same blocks
            ways = ways - {"cross_attention_pooled"} | {"cross_attention"}
        if {"token", "cross_attention"} <= ways:
            raise ValueError("condition: token and cross_attention look at one sequence of tokens: choose one of them")
        attends = {*config.attention, config.middle_attention} != {"none"}
        if ways & {"token", "cross_attention"} and not attends:
            raise ValueError(
                "condition: token and cross_attention work where the network has attention, and it has none: "
                "set network.attention or network.middle_attention, or choose vanilla or adaptive"
            )
        if "token" in ways and "linear" in {*config.attention, config.middle_attention}:
            raise ValueError(
                "condition: token needs full attention, and network.attention has linear: make it full or none"
            )
        beside = known["image"] + Concatenation.EXTRA if condition.image != "none" else 0

        def make(before: int, after: int, kind: str, **options: Any) -> Stage:
            listening = conditional_stage(before, after, kind, ways=ways, dim=condition.dim, **options)
            return Stage(*listening, *then(after, kind))

        self.unet = UNet(channels + beside, config, channels, make_stage=make)
        self.conditions = build_conditions(condition, known, 4 * config.width, text_layers)

    def forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """Data (B, C, H, W), times (B,), and what is said of each sample; the output is of the data's shape."""
        x, c = entered(self.unet, self.conditions, x, t, cond)
        self.unet.check_size(*x.shape[2:])
        h, skips = self.unet.encode(x, c)
        return self.unet.decode(h, skips, c)

    def null(self, cond: Cond) -> Cond:
        """The condition that says nothing, for as many samples."""
        return {name: value for condition in self.conditions for name, value in condition.null(cond).items()}

    def drop(self, cond: Cond, share: float, together: bool = True, open_share: float = 0.0) -> Cond:
        """The condition with a share of the samples told nothing; see `said.dropped`."""
        return dropped(self.conditions, cond, share, together, open_share)

    @property
    def keys(self) -> list[str]:
        """The names in cond that are read."""
        return [name for condition in self.conditions for name in condition.keys]
