"""What can be configured about an autoencoder's losses; free of torch, so that `--help` answers at once."""

from dataclasses import dataclass
from typing import Literal

from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveInt

from shared.metrics.config import Perceptual, Trunk


@dataclass
class LossConfig:
    """What an autoencoder is trained for. All terms are means per pixel; each weight is its share of the sum."""

    reconstruction: Literal["l1", "l2"] = "l1"
    """error of a pixel: absolute, or squared (blurrier)"""
    kl: NonNegativeFloat = 1e-6
    """weight of the divergence of the latents from the normal distribution (bottleneck kl)"""
    kl_warmup: NonNegativeInt = 0
    """optimizer steps over which that weight rises from 0; 0 for none"""
    codebook: NonNegativeFloat = 1.0
    """weight of the commitment to the codes (bottleneck vq)"""
    perceptual: Perceptual = "none"
    """distance between features of a trained network, added to the pixels' error; lpips needs a download"""
    perceptual_trunk: Trunk = "alex"
    """that network: alex is cheap, vgg is what VQGAN and LDM train with"""
    perceptual_size: PositiveInt = 64
    """images with a shorter side are enlarged to this for it; it was trained at 64, but 28 costs a sixth of that"""
    perceptual_weight: NonNegativeFloat = 1.0
    """weight of that distance"""
    focal_frequency: NonNegativeFloat = 0.0
    """weight of the focal frequency loss; 0 for none"""
    adversarial: NonNegativeFloat = 0.0
    """weight of the discriminator's opinion; 0 for no discriminator"""
    adversarial_loss: Literal["hinge", "non_saturating"] = "hinge"
    """loss of the two players"""
    adversarial_start: NonNegativeInt = 1000
    """optimizer step from which the two play; too early a start ruins the autoencoder"""
    adaptive: bool = True
    """scale the discriminator's gradient to the size of the reconstruction's, at the decoder's last layer"""


@dataclass
class DiscriminatorConfig:
    """The network that tells reconstructions from images, patch by patch."""

    width: PositiveInt = 64
    """channels of the first layer; each later one has twice as many, up to eight times"""
    layers: PositiveInt = 3
    """layers that halve the resolution: a patch is 16 pixels wide for 1 of them, 34 for 2, 70 for 3"""
