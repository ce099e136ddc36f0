"""What an autoencoder is trained for: the pixels, what a trained network sees in them, bounded latents, an opponent.

VQGAN (Esser 2021, arXiv 2012.09841), section 3.1, and LDM (Rombach 2022, arXiv 2112.10752), section 3.1 and appendix G.
"""

import contextlib
from collections.abc import Iterator

import torch
import torch._functorch.config as compiler
import torch.nn.functional as F
from torch import Tensor, nn

from shared.blocks.autoencoder import Autoencoder
from task2_latent.discriminator import Discriminator
from task2_latent.loss_config import DiscriminatorConfig, LossConfig

PIXELS = {"l1": F.l1_loss, "l2": F.mse_loss}
LARGEST = 1e4  # of the adaptive weight; VQGAN's code
DELTA = 1e-4  # what keeps the adaptive weight finite; eq. (7) has 1e-6, VQGAN's code this


def kl_weight(config: LossConfig, n: int) -> float:
    """Weight of the divergence after n optimizer steps: from 0, evenly, to its full value."""
    return config.kl * min(1.0, n / config.kl_warmup) if config.kl_warmup else config.kl


def focal_frequency(reconstruction: Tensor, x: Tensor) -> Tensor:
    """Error of the spectra of (B, C, H, W), each frequency weighted by its own error; a scalar, 0 for equal images.

    Jiang et al. 2021 (arXiv 2012.12821), with alpha = 1. The weights are divided by the largest of each spectrum, so
    that they lie in [0, 1], and carry no gradient; with all of them 1 this would be the mean squared error.
    """
    difference = torch.fft.fft2(reconstruction - x, norm="ortho")  # (B, C, H, W), complex
    error = difference.real.square() + difference.imag.square()
    weight = error.detach().sqrt()
    weight = weight / weight.amax(dim=(2, 3), keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny)
    return (weight * error).mean()


def hinge_discriminator(real: Tensor, made: Tensor) -> Tensor:
    """Push logits of real patches above 1, and of made ones below -1: Lim & Ye 2017 (arXiv 1705.02894)."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + made).mean())


def hinge_generator(made: Tensor) -> Tensor:
    """The other player of that game: push the logits of made patches up, without end."""
    return -made.mean()


def non_saturating_discriminator(real: Tensor, made: Tensor) -> Tensor:
    """Binary cross entropy: Goodfellow et al. 2014 (arXiv 1406.2661), eq. (1), halved."""
    return 0.5 * (F.softplus(-real).mean() + F.softplus(made).mean())


def non_saturating_generator(made: Tensor) -> Tensor:
    """-log D(made): section 3 there, whose gradient lives where the discriminator is sure."""
    return F.softplus(-made).mean()


GENERATOR = {"hinge": hinge_generator, "non_saturating": non_saturating_generator}
DISCRIMINATOR = {"hinge": hinge_discriminator, "non_saturating": non_saturating_discriminator}


def adaptive_weight(reconstruction_loss: Tensor, adversarial_loss: Tensor, last_layer: Tensor) -> Tensor:
    """By what the adversarial loss must be multiplied to move the last layer as much as the reconstruction loss does.

    VQGAN, eq. (7): the quotient of the norms of the two gradients; a scalar in [0, 1e4], without a gradient. The graph
    of both losses is kept.
    """
    ours, theirs = (
        torch.autograd.grad(loss, last_layer, retain_graph=True)[0].norm()
        for loss in (reconstruction_loss, adversarial_loss)
    )
    return (ours / (theirs + DELTA)).clamp(0, LARGEST).detach()


@contextlib.contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Gradients pass through the module inside, and none reaches its parameters."""
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """In evaluation inside: no dropout, and a codebook does not learn from the batch a second time."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


def build_discriminator(
    loss: LossConfig, config: DiscriminatorConfig, shape: tuple[int, int, int]
) -> Discriminator | None:
    """The discriminator for images (C, H, W), or None where its opinion has no weight.

    Raises:
        ValueError: the images are too small for it.
    """
    if loss.adversarial == 0:
        return None
    discriminator = Discriminator(shape[0], config)
    discriminator.check_size(*shape[1:])
    return discriminator


class AutoencoderLoss:
    """The losses of the two parts, as the loop calls them; what it knows of the training is `n`.

    `n` is the number of optimizer steps done; the training script sets it. `figures` and `discriminator_figures` are
    what the last call of each loss found, for the log: scalars without a gradient, in dicts that stay the same objects.
    """

    def __init__(
        self,
        config: LossConfig,
        autoencoder: Autoencoder,
        discriminator: Discriminator | None = None,
        perceptual: nn.Module | None = None,
    ):
        """Put together what the config asks for; all on one device.

        Raises:
            ValueError: the config asks for a discriminator or a perceptual distance, and there is none.
        """
        if config.adversarial and discriminator is None:
            raise ValueError(f"loss.adversarial is {config.adversarial}, but there is no discriminator")
        if config.perceptual != "none" and perceptual is None:
            raise ValueError(f"loss.perceptual is {config.perceptual}, but there is no perceptual distance")
        if config.adversarial and config.adaptive:
            # or a network compiled before the start refuses `adaptive_weight` there, hours later
            compiler.donated_buffer = False
        self.config, self.network, self.opponent, self.distance = config, autoencoder, discriminator, perceptual
        self.n = 0
        self.figures: dict[str, Tensor] = {}
        self.discriminator_figures: dict[str, Tensor] = {}

    def autoencoder(self, model: nn.Module, x: Tensor, cond: dict[str, Tensor]) -> Tensor:
        """The loss of the autoencoder `model`, wrapped or not, on images (B, C, H, W) in [-1, 1]: a scalar.

        LDM sums pixels and latents alike and weighs the sums. Here both sums are divided by the numbers C H W of an
        image: the first becomes a mean per pixel, and the bottleneck's keeps LDM's weight (1e-6 and the like).
        """
        reconstruction, bottled = model(x)
        terms = self.faithfulness(reconstruction, x)
        faithful = torch.stack(list(terms.values())).sum()
        weight = kl_weight(self.config, self.n) if "kl" in bottled.figures else self.config.codebook
        loss = faithful + weight * bottled.loss / x[0].numel()
        self.figures.clear()
        self.figures |= {name: term.detach() for name, term in terms.items()} | bottled.figures
        if self.config.adversarial and self.n >= self.config.adversarial_start:
            loss = loss + self.adversarial(reconstruction, faithful)
        return loss

    def faithfulness(self, reconstruction: Tensor, x: Tensor) -> dict[str, Tensor]:
        """How far the reconstructions are from the images, by name and already weighted; scalars."""
        config = self.config
        terms = {"reconstruction": PIXELS[config.reconstruction](reconstruction, x)}
        if config.perceptual != "none":
            terms["perceptual"] = config.perceptual_weight * self.distance(reconstruction, x).mean()
        if config.focal_frequency:
            terms["focal_frequency"] = config.focal_frequency * focal_frequency(reconstruction, x)
        return terms

    def adversarial(self, reconstruction: Tensor, faithful: Tensor) -> Tensor:
        """The weighted adversarial term of the autoencoder; the discriminator gets no gradient from it."""
        with frozen(self.opponent):
            loss = GENERATOR[self.config.adversarial_loss](self.opponent(reconstruction))
        self.figures["adversarial"] = loss.detach()
        if not self.config.adaptive:
            return self.config.adversarial * loss
        weight = adaptive_weight(faithful, loss, self.network.decoder.head.weight)
        self.figures["adaptive_weight"] = weight
        return self.config.adversarial * weight * loss

    def discriminator(self, model: nn.Module, x: Tensor, cond: dict[str, Tensor]) -> Tensor:
        """The loss of the discriminator `model`, wrapped or not, on images (B, C, H, W) in [-1, 1]: a scalar.

        The loop is to begin with it at `adversarial_start`.
        """
        with torch.no_grad(), evaluating(self.network):
            made, _ = self.network(x)
        real, made = model(torch.cat([x, made.to(x.dtype)])).chunk(2)  # once: a wrapped model may not be called twice
        self.discriminator_figures |= {"real": real.detach().mean(), "made": made.detach().mean()}
        return DISCRIMINATOR[self.config.adversarial_loss](real, made)
