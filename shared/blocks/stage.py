"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

What networks of convolutions are a row of: a residual block, and attention after it where the config asks for it.
"""

from torch import Tensor, nn

from shared.blocks.attention import ATTENTION
from shared.blocks.resnet import Context, ResidualBlock


class Stage(nn.Sequential):
    """A residual block and what follows it at the same resolution; each part is called with the context."""

    def forward(self, x: Tensor, c: Context) -> Tensor:
        """(B, channels, H, W) to (B, out, H, W)."""
        for part in self:
            x = part(x, c)
        return x


def stage(before: int, after: int, kind: str, heads: int, *, context: int | None = None, dropout: float = 0.0) -> Stage:
    """A residual block from `before` to `after` features, and attention of a kind, which may be "none".

    Args:
        before, after: channels.
        kind: a name in `ATTENTION`, or "none".
        heads: attention heads.
        context: length of the context vector; None where there is none.
        dropout: share of the residual block's features dropped in training.

    Raises:
        ValueError: `heads` do not divide `after`.
    """
    parts: list[nn.Module] = [ResidualBlock(before, after, context, dropout)]
    if kind != "none":
        parts.append(ATTENTION[kind](after, heads))
    return Stage(*parts)
