"""Introduced in task 1; used by task 1.

Which times a loss is asked at, by how large it was there before. Improved DDPM, section 3.3 and eq. (18).

The terms of the variational bound differ by orders of magnitude. Drawn evenly, the few large ones make the gradient a
matter of luck. Drawn in proportion to the root of their mean square, and counted less in return, the mean stays what it
was and the spread becomes as small as drawing can make it.
"""

import torch
from torch import Tensor, nn


class LossAware(nn.Module):
    """The last losses at each of the levels 1 … T, and draws in proportion to them.

    Its buffers are part of a checkpoint. What a step notes counts from the next step on: so the micro-batches of one
    step are drawn alike, on however many processes.
    """

    def __init__(self, T: int, keep: int = 10, evenly: float = 0.001):
        """Keep the last `keep` losses of each level; draw a share `evenly` of the times as if there were none."""
        super().__init__()
        self.keep, self.evenly = keep, evenly
        self.register_buffer("losses", torch.zeros(T, keep))
        self.register_buffer("seen", torch.zeros(T, dtype=torch.long))
        self.noted: list[tuple[Tensor, Tensor]] = []

    def probabilities(self) -> Tensor:
        """Of drawing each level, (T,); even until every level has been seen `keep` times."""
        even = torch.full_like(self.losses[:, 0], 1 / len(self.losses))
        size = self.losses.square().mean(1).sqrt()
        known = (self.seen >= self.keep).all() & (size.sum() > 0)
        return torch.where(known, torch.lerp(size / size.sum().clamp(min=1e-30), even, self.evenly), even)

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """n levels from 1 to T, and the weight of each, both (n,): weighted, a mean of losses is that of even draws."""
        probabilities = self.probabilities()
        row = torch.multinomial(probabilities, n, replacement=True)
        return row + 1, 1 / (len(probabilities) * probabilities[row])

    def note(self, t: Tensor, losses: Tensor) -> None:
        """Losses (B,) at levels t (B,), before their weights."""
        self.noted.append((t, losses))

    def pending(self) -> Tensor:
        """What was noted since `take`, (micro-batches, 2, B) float32: levels and losses. It is forgotten here."""
        noted, self.noted = self.noted, []
        return torch.stack([torch.stack([t.float(), losses.float()]) for t, losses in noted])

    @torch.no_grad()
    def take(self, t: Tensor, losses: Tensor) -> None:
        """Take in losses (N,) at levels t (N,), in this order. Without waiting for the device."""
        row = t.long() - 1
        earlier = (row[:, None] == row[None, :]).tril(-1).sum(1)  # how many before it are of the same level
        later = (row[:, None] == row[None, :]).triu(1).sum(1)
        place = (self.seen[row] + earlier) % self.keep
        kept = later < self.keep  # of more than fit, the last; those before have been pushed out
        flat = torch.where(kept, row * self.keep + place, self.losses.numel())
        padded = torch.cat([self.losses.flatten(), self.losses.new_zeros(1)])  # the place of what is not kept
        self.losses.copy_(padded.scatter(0, flat, losses.float())[:-1].view_as(self.losses))
        self.seen.add_(torch.zeros_like(self.seen).index_add(0, row, torch.ones_like(row)))
