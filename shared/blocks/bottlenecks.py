"""Introduced in task 2; used by tasks 2, 4, 5.

What stands between encoder and decoder, so that the latents are few, bounded, and fit to be diffused.

Both say the same four things: `forward(moments)` for training, `draw(moments)` for a latent to diffuse, `mean(moments)`
for the one latent that stands for an image, and `finish(z)` for what is done to a latent before it is decoded.
"""

from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from shared.blocks.autoencoder_config import VQConfig

SMOOTHING = 1e-5  # what each code's count is given for free, so that no sum is divided by zero
DISTANCES = 2**24  # distances held at a time: 64 MB


class Bottled(NamedTuple):
    """What comes out of a bottleneck in training.

    `loss` is summed over the numbers of an image's latent and is the mean over the batch. To be added to a mean over
    pixels it must be divided by the numbers of an *image*; no bottleneck divides by anything.
    """

    z: Tensor  # (B, Z, h, w), what is decoded
    loss: Tensor  # (), see above
    figures: dict[str, Tensor]  # to be logged, each (), without a gradient


class KL(nn.Module):
    """A normal distribution at each position, kept near the standard one: a VAE (Kingma & Welling 2014).

    The moments are its means and log variances. LDM (Rombach 2022) gives the loss a weight of about 1e-6, far below
    the 1 of a VAE: enough to bound the latents, and to blur next to nothing.
    """

    LOG_VARIANCE = (-30.0, 20.0)  # LDM's bounds: variances from 1e-13 to 5e8

    def __init__(self, latent_channels: int):
        """For latents with so many numbers at a position."""
        super().__init__()
        self.moments = 2 * latent_channels

    def split(self, moments: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 2Z, h, w) to mean and log variance, each (B, Z, h, w), in float32 or better."""
        mean, log_variance = moments.to(torch.promote_types(moments.dtype, torch.float32)).chunk(2, dim=1)
        return mean, log_variance.clamp(*self.LOG_VARIANCE)

    def draw(self, moments: Tensor) -> Tensor:
        """A latent of the distribution, with torch's generator; a gradient reaches the moments through it."""
        mean, log_variance = self.split(moments)
        return mean + (0.5 * log_variance).exp() * torch.randn_like(mean)  # (B, Z, h, w)

    def mean(self, moments: Tensor) -> Tensor:
        """The middle of the distribution."""
        return self.split(moments)[0]

    def finish(self, z: Tensor) -> Tensor:
        """Latents are decoded as they are."""
        return z

    def forward(self, moments: Tensor) -> Bottled:
        """Draw, and measure the divergence from the standard normal, in nats: Kingma & Welling 2014, eq. (10)."""
        mean, log_variance = self.split(moments)
        each = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)  # (B, Z, h, w)
        loss = each.sum(dim=(1, 2, 3)).mean()
        z = self.draw(moments)
        return Bottled(z, loss, {"kl": loss.detach(), "deviation": z.detach().std()})


def straight_through(z: Tensor, codes: Tensor) -> Tensor:
    """Exactly `codes`, whose gradient goes to z as if no code had replaced it (VQ-VAE, section 3.2)."""
    return codes.detach() + (z - z.detach())  # the bracket is 0; z + (codes - z) would be the codes but for rounding


def rows(z: Tensor) -> Tensor:
    """(B, Z, h, w) to the vectors of all positions, (B h w, Z), without a gradient."""
    return rearrange(z.detach(), "b z h w -> (b h w) z")


def place() -> tuple[int, int]:
    """This process's number, and how many there are."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


class VQ(nn.Module):
    """The nearest of K vectors at each position: VQ-VAE (van den Oord 2017).

    The moments are the encoder's output. That is also what is diffused: it is continuous, and `finish` takes the
    nearest codes only when it is decoded (LDM's "VQ-reg", section 3.1).

    The codebook is learnt without a gradient, as running means of the outputs that fell to each code (appendix A.1).
    It holds no parameters but buffers: a step in training mode moves them, by the outputs of all processes together
    (which must have batches of one size); evaluation only reads them, and each process then sees its own batch alone.
    An average of the weights (`AveragedModel`) takes buffers over as they are: rightly, as running means they are
    averages already, and a mean of codebooks in which a code was replaced would lie between two places.
    """

    def __init__(self, latent_channels: int, config: VQConfig):
        """For latents with so many numbers at a position.

        All counts are 0 at the start, so the first batch in training replaces all codes, by `revive`: the codebook
        begins where the encoder's outputs are. Codes put anywhere beforehand would mostly never be the nearest.
        """
        super().__init__()
        self.moments, self.config = latent_channels, config
        self.register_buffer("codebook", torch.randn(config.codes, latent_channels))
        self.register_buffer("counts", torch.zeros(config.codes))  # outputs a batch that fall to a code, running mean
        self.register_buffer("sums", torch.zeros(config.codes, latent_channels))  # and their sum

    def draw(self, moments: Tensor) -> Tensor:
        """The encoder's output: nothing is random."""
        return moments.to(self.codebook.dtype)

    mean = draw

    def finish(self, z: Tensor) -> Tensor:
        """The nearest code at each position, (B, Z, h, w) to the same."""
        return self.replace(self.draw(z), self.indices(z))

    def replace(self, z: Tensor, numbers: Tensor) -> Tensor:
        """(B, Z, h, w) and a code's number at each position, (B, h, w), to the codes."""
        return straight_through(z, rearrange(F.embedding(numbers, self.codebook), "b h w z -> b z h w"))

    def indices(self, moments: Tensor) -> Tensor:
        """(B, Z, h, w) to the number of the nearest code at each position, (B, h, w)."""
        b, _, h, w = moments.shape
        return self.nearest(rows(self.draw(moments))).view(b, h, w)

    def nearest(self, flat: Tensor) -> Tensor:
        """(N, Z) to the numbers (N,) of the codes at the least distance, of which only some are held at a time."""
        parts = flat.split(max(1, DISTANCES // self.config.codes))
        # cdist stays in float32 under autocast; in bf16 near codes would be mixed up
        return torch.cat([torch.cdist(part, self.codebook).argmin(dim=1) for part in parts])

    def forward(self, moments: Tensor) -> Bottled:
        """Replace each output by its code; in training the codebook then moves. The loss is eq. (3)'s third term."""
        z = self.draw(moments)  # (B, Z, h, w)
        if self.training:
            self.revive(rows(z))
        numbers = self.indices(z)  # (B, h, w)
        codes = self.replace(z, numbers)  # (B, Z, h, w)
        loss = self.config.commitment * (z - codes.detach()).square().sum(dim=(1, 2, 3)).mean()
        tally = self.tally(rows(z), numbers.flatten())  # (K, 1 + Z)
        if self.training:
            self.learn(tally)
        hits = tally[:, 0]
        share = hits / hits.sum()
        figures = {
            "usage": (hits > 0).float().mean(),  # share of codes that were the nearest at least once
            "perplexity": torch.special.entr(share).sum().exp(),  # K if all are used alike, 1 if a single one is
            "alive": (~self.dead()).float().mean(),  # share of codes that the next step will not replace
        }
        return Bottled(codes, loss, figures)

    def dead(self) -> Tensor:
        """Which codes are used too rarely, (K,)."""
        return self.counts <= self.config.revive_below * self.counts.mean()

    @torch.no_grad()
    def revive(self, flat: Tensor) -> None:
        """Put random ones of the encoder's outputs (N, Z) in the place of dead codes. Jukebox (Dhariwal 2020), 3.1.

        The new codes are counted as if they had had their even share all along. The choice is the first process's, by
        torch's generator, and among the outputs of all.
        """
        rank, world = place()
        n = len(flat) * world
        order = torch.randperm(n, device=flat.device)
        if world > 1:
            dist.broadcast(order, 0)
        dead = self.dead()
        chosen = order[(dead.cumsum(0) - 1).clamp(min=0) % n]  # (K,): another output for each dead code
        here = chosen - rank * len(flat)
        mine = (here >= 0) & (here < len(flat))
        fresh = torch.where(mine[:, None], flat[here.clamp(0, len(flat) - 1)], 0)  # (K, Z)
        if world > 1:
            dist.all_reduce(fresh)
        share = n / self.config.codes
        self.codebook.copy_(torch.where(dead[:, None], fresh, self.codebook))
        self.sums.copy_(torch.where(dead[:, None], share * fresh, self.sums))
        self.counts.masked_fill_(dead, share)

    def tally(self, flat: Tensor, numbers: Tensor) -> Tensor:
        """How many of (N, Z) fall to each code, and the sum of them: (K, 1 + Z), in training over all processes."""
        counted = torch.cat([torch.ones_like(flat[:, :1]), flat], dim=1)  # (N, 1 + Z)
        tally = counted.new_zeros(self.config.codes, counted.shape[1]).index_add(0, numbers, counted)
        if self.training and place()[1] > 1:
            dist.all_reduce(tally)
        return tally

    @torch.no_grad()
    def learn(self, tally: Tensor) -> None:
        """Move the codes to the running means of the outputs nearest to them: appendix A.1, with smoothed counts."""
        self.counts.lerp_(tally[:, 0], 1 - self.config.decay)
        self.sums.lerp_(tally[:, 1:], 1 - self.config.decay)
        total = self.counts.sum()
        smoothed = (self.counts + SMOOTHING) / (total + self.config.codes * SMOOTHING) * total  # Laplace's
        self.codebook.copy_(self.sums / smoothed[:, None])
