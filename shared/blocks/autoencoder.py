"""Introduced in task 2; used by tasks 2, 4, 5.

The autoencoder: an encoder to few numbers, a bottleneck, and a decoder back to the image.

LDM (Rombach 2022), section 3.1; its networks are those of VQGAN (Esser 2021), which are half a U-Net each, without
skips: what does not pass the bottleneck is lost.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from shared.blocks.autoencoder_config import AutoencoderConfig
from shared.blocks.bottlenecks import KL, VQ, Bottled
from shared.blocks.resample import DOWN, UP, depth_to_space, space_to_depth
from shared.blocks.resnet import Context, ResidualBlock, group_norm
from shared.blocks.stage import stage

BOTTLENECKS = {
    "kl": lambda config: KL(config.latent_channels),
    "vq": lambda config: VQ(config.latent_channels, config.vq),
}
NOTHING = Context()  # what the blocks of an autoencoder are told: no time, no condition


def row(before: int, after: int, kind: str, config: AutoencoderConfig) -> nn.ModuleList:
    """One level: its stages, of which the first goes from `before` to `after` channels."""
    widths = [before] + [after] * config.blocks
    pairs = zip(widths[:-1], widths[1:], strict=True)
    return nn.ModuleList([stage(a, b, kind, config.heads, dropout=config.dropout) for a, b in pairs])


def middle(channels: int, config: AutoencoderConfig) -> nn.ModuleList:
    """At the latents' resolution: two residual blocks and attention between them."""
    return nn.ModuleList(
        [
            stage(channels, channels, config.middle_attention, config.heads, dropout=config.dropout),
            ResidualBlock(channels, channels, None, config.dropout),
        ]
    )


class Encoder(nn.Module):
    """Images to moments: what the bottleneck makes latents of."""

    def __init__(self, channels: int, moments: int, config: AutoencoderConfig):
        """From images with `channels` to `moments` numbers at each position of the latents."""
        super().__init__()
        widths = [config.width * multiplier for multiplier in config.multipliers]
        self.patch = config.patch
        self.stem = nn.Conv2d(channels * config.patch**2, widths[0], 3, padding=1)
        self.shrink = nn.ModuleList([nn.Identity()] + [DOWN[config.down](width) for width in widths[:-1]])
        self.levels = nn.ModuleList()
        now = widths[0]
        for width, kind in zip(widths, config.attention, strict=True):
            self.levels.append(row(now, width, kind, config))
            now = width
        self.middle = middle(now, config)
        self.norm = group_norm(now)
        self.head = nn.Conv2d(now, moments, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] to (B, M, h, w)."""
        h = self.stem(space_to_depth(x, self.patch))  # (B, width, H/p, W/p)
        for shrink, stages in zip(self.shrink, self.levels, strict=True):
            h = shrink(h)  # half the resolution, but at level 0
            for block in stages:
                h = block(h, NOTHING)  # (B, width of the level, …)
        for block in self.middle:
            h = block(h, NOTHING)  # (B, width of the last level, h, w)
        return self.head(F.silu(self.norm(h)))  # (B, M, h, w)


class Decoder(nn.Module):
    """Latents to images: the encoder backwards."""

    def __init__(self, latent_channels: int, channels: int, config: AutoencoderConfig):
        """From `latent_channels` at each position to images with `channels`."""
        super().__init__()
        widths = [config.width * multiplier for multiplier in reversed(config.multipliers)]
        self.patch = config.patch
        self.stem = nn.Conv2d(latent_channels, widths[0], 3, padding=1)
        self.middle = middle(widths[0], config)
        self.levels = nn.ModuleList()
        self.enlarge = nn.ModuleList([nn.Identity()])
        for above, below in zip(widths[1:], widths[:-1], strict=True):
            self.enlarge.append(UP[config.up](below, above))
        for width, kind in zip(widths, reversed(config.attention), strict=True):
            self.levels.append(row(width, width, kind, config))
        self.norm = group_norm(widths[-1])
        self.head = nn.Conv2d(widths[-1], channels * config.patch**2, 3, padding=1)
        self.range = nn.Tanh() if config.tanh else nn.Identity()

    def forward(self, z: Tensor) -> Tensor:
        """(B, Z, h, w) to (B, C, H, W); in [-1, 1] only if the config asks for tanh."""
        h = self.stem(z.to(self.stem.weight.dtype))  # (B, width of the last level, h, w)
        for block in self.middle:
            h = block(h, NOTHING)
        for enlarge, stages in zip(self.enlarge, self.levels, strict=True):
            h = enlarge(h)  # twice the resolution, but at the first
            for block in stages:
                h = block(h, NOTHING)  # (B, width of the level, …)
        h = self.head(F.silu(self.norm(h)))  # (B, C p², H/p, W/p)
        return self.range(depth_to_space(h, self.patch))  # (B, C, H, W)


class Autoencoder(nn.Module):
    """Encoder, bottleneck and decoder for images with `channels`."""

    def __init__(self, channels: int, config: AutoencoderConfig):
        """As `build`."""
        super().__init__()
        self.channels, self.config = channels, config
        self.bottleneck = BOTTLENECKS[config.bottleneck](config)
        self.encoder = Encoder(channels, self.bottleneck.moments, config)
        self.decoder = Decoder(config.latent_channels, channels, config)

    def check_size(self, height: int, width: int) -> None:
        """Raise ValueError if images of this size have no whole number of latent positions."""
        factor = self.config.compression
        if height % factor or width % factor:
            raise ValueError(
                f"images of {height}×{width} cannot be compressed {factor}-fold: both sides must be multiples of "
                f"{factor}; change data.size, autoencoder.multipliers or autoencoder.patch"
            )

    def latent_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(Z, h, w) of the latents of images (C, H, W). Raises ValueError if it is not for such images."""
        channels, height, width = image_shape
        if channels != self.channels:
            raise ValueError(f"the autoencoder is for images of {self.channels} channels, not {channels}")
        self.check_size(height, width)
        factor = self.config.compression
        return self.config.latent_channels, height // factor, width // factor

    def encode(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] to moments (B, M, h, w): `bottleneck.draw` makes latents of them."""
        self.check_size(*x.shape[2:])
        return self.encoder(x)

    def decode(self, z: Tensor) -> Tensor:
        """Latents (B, Z, h, w), drawn or made by a diffusion, to images (B, C, H, W)."""
        return self.decoder(self.bottleneck.finish(z))

    def forward(self, x: Tensor) -> tuple[Tensor, Bottled]:
        """(B, C, H, W) in [-1, 1] to the reconstruction of the same shape, and what the bottleneck did."""
        bottled = self.bottleneck(self.encode(x))  # .z: (B, Z, h, w)
        return self.decoder(bottled.z), bottled


def build(config: AutoencoderConfig, channels: int) -> Autoencoder:
    """The autoencoder that a config names, for images with `channels`.

    Raises:
        ValueError: multipliers and attention differ in length, or heads do not divide the channels.
    """
    if not config.multipliers:
        raise ValueError("autoencoder.multipliers is empty: an autoencoder has at least one level")
    if len(config.attention) != len(config.multipliers):
        raise ValueError(
            f"autoencoder.attention names {len(config.attention)} levels and autoencoder.multipliers "
            f"{len(config.multipliers)}: give one entry for each level"
        )
    return Autoencoder(channels, config)
