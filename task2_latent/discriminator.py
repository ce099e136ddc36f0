"""The discriminator: a small convolutional network that says of each patch of an image whether it looks real.

PatchGAN: Isola et al. 2017 (arXiv 1611.07004), section 3.2.2 and appendix 6.1.2, as VQGAN (Esser 2021) uses it. It sees
textures and edges, which a mean over pixels blurs, and leaves the layout to the reconstruction error.
"""

from torch import Tensor, nn

from shared.blocks.resnet import group_norm
from task2_latent.loss_config import DiscriminatorConfig

SMALLEST = 3  # pixels after the halving layers: the two 4×4 layers that follow take one each and leave one


def conv(channels: int, out: int, stride: int) -> nn.Conv2d:
    """A 4×4 convolution that halves the size, or takes one pixel off it; weights as in the paper."""
    layer = nn.Conv2d(channels, out, 4, stride, padding=1)
    nn.init.normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)
    return layer


class Discriminator(nn.Module):
    """Images to a logit for each patch: above 0 for real, below for a reconstruction.

    Normalised in groups, where the paper takes batch norm: with that an image's logits would depend on which images
    stand beside it (real ones and reconstructions differ most in just the statistics that it removes), on how the
    batch is split over processes, and, in the autoencoder's loss, on running means that another player moves.
    """

    def __init__(self, channels: int, config: DiscriminatorConfig):
        """For images with `channels`."""
        super().__init__()
        self.channels, self.config = channels, config
        widths = [config.width * min(2**i, 8) for i in range(config.layers + 1)]
        layers: list[nn.Module] = [conv(channels, widths[0], 2), nn.LeakyReLU(0.2)]
        for i in range(1, config.layers + 1):
            stride = 2 if i < config.layers else 1
            layers += [conv(widths[i - 1], widths[i], stride), group_norm(widths[i]), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers, conv(widths[-1], 1, 1))

    def check_size(self, height: int, width: int) -> None:
        """Raise ValueError if such images are too small to leave a patch."""
        least = SMALLEST * 2**self.config.layers
        if min(height, width) < least:
            raise ValueError(
                f"discriminator.layers {self.config.layers} needs images of at least {least}×{least}, not "
                f"{height}×{width}: use fewer layers"
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] to logits (B, 1, h, w), with h = H / 2^layers - 2, rounded down.

        Raises:
            ValueError: the images have other channels, or are too small.
        """
        if x.shape[1] != self.channels:
            raise ValueError(f"the discriminator is for images of {self.channels} channels, not {x.shape[1]}")
        self.check_size(*x.shape[2:])
        return self.body(x)
