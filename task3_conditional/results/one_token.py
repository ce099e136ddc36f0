"""One token through cross-attention is a constant shift: `python task3_conditional/results/one_token.py [RUN]`.

Of every cross-attention of a trained model: how much of what it adds to the image differs between positions, when it
may look at one token of the caption, at two, and so on. A softmax over one key is 1 whatever the query was, so that
with one token nothing does.
"""

import sys
from pathlib import Path

import torch

from shared.blocks.listening import CrossAttention
from shared.experiments.trained import figure_table
from task3_conditional.model import COMMITTED_TEXT, Model, load

CAPTION = "a red three above a blue seven"


@torch.no_grad()
def varying(model: Model, tokens: int, share: float = 0.7, n: int = 16) -> list[float]:
    """Of each cross-attention, in the order of the network: the part of its output's energy that varies over positions.

    Args:
        model: trained.
        tokens: of the sequence that may be looked at, from its beginning.
        share: of T, the time at which it is asked.
        n: noisy images.
    """
    parts = []

    def watch(block, arguments, out):
        x, c = arguments
        limited = c._replace(token_mask=c.token_mask & (torch.arange(c.token_mask.shape[1]) < tokens))
        added = CrossAttention.forward(block, x, limited) - x  # (B, C, H, W)
        varies = added - added.mean(dim=(2, 3), keepdim=True)
        parts.append((varies.square().sum() / added.square().sum()).item())

    blocks = [part for part in model.network.modules() if isinstance(part, CrossAttention)]
    hooks = [block.register_forward_hook(watch) for block in blocks]
    xt = torch.randn(n, *model.shape, generator=torch.Generator().manual_seed(0))
    t = torch.full((n,), share * model.diffusion.schedule.T)
    model.network(xt, t, model.told(n, text=CAPTION))
    for hook in hooks:
        hook.remove()
    return parts


if __name__ == "__main__":
    trained = load(Path(sys.argv[1]) if len(sys.argv) > 1 else COMMITTED_TEXT)
    print(figure_table((f"{k} tokens", " ".join(f"{v:.1%}" for v in varying(trained, k))) for k in (1, 2, 3, 5, 8)))
