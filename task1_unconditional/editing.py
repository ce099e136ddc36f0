"""What a trained model can do besides drawing from noise: find the noise of a picture, go from one picture to another,
draw a picture again from some time on.

All of it is loops over the pure steps that samplers are made of; the model knows nothing of it.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from shared.errors import UserError
from shared.generation import computing, generate_from, sampling_with
from shared.schedulers.diffusion import Denoiser
from shared.schedulers.inversion import invert, slerp
from shared.schedulers.samplers import Step, ddim
from task1_unconditional.model import Model


def exact(model: Model) -> Denoiser:
    """The model as the ODE has it: in float32, and nothing clamped, or the way back would not be the way there."""
    device = next(model.network.parameters()).device
    return model.diffusion.denoiser(computing(model.network, "fp32", device), {})


def times_of(model: Model, steps: int) -> Tensor:
    """The times of so many steps. Raises UserError where there are not so many levels."""
    try:
        return model.diffusion.schedule.times(steps, model.config.sampling.spacing)
    except ValueError as error:
        raise UserError(str(error)) from None


def noise_of(model: Model, images: Tensor, steps: int) -> Tensor:
    """The noise (N, C, H, W) that DDIM with eta 0 makes these images of, in [-1, 1]; by inversion (`inversion.py`)."""
    *_, last = invert(exact(model), model.diffusion.schedule, images, times_of(model, steps))
    return last.x


def images_of(model: Model, noise: Tensor, steps: int) -> Tensor:
    """The images that DDIM with eta 0 makes of noise (N, C, H, W); not clamped."""
    *_, last = ddim(exact(model), model.diffusion.schedule, noise, times_of(model, steps))
    return last.x


def reconstructed(model: Model, images: Tensor, steps: int, batch: int = 250) -> Tensor:
    """Images (N, C, H, W) turned into noise and back, each in so many steps. DDIM, section 5.4."""
    device = next(model.network.parameters()).device
    parts = [images_of(model, noise_of(model, x.to(device), steps), steps).cpu() for x in images.split(batch)]
    return torch.cat(parts)


def interpolated(model: Model, a: Tensor, b: Tensor, count: int, steps: int) -> Tensor:
    """From image a (C, H, W) to image b in `count` images (count, C, H, W), by the arc between their noises.

    The first and last are a and b as the model can say them. DDIM, section 5.3.
    """
    noises = noise_of(model, torch.stack([a, b]), steps)
    shares = torch.linspace(0, 1, count).tolist()
    between = torch.cat([slerp(noises[:1], noises[1:], share) for share in shares])
    return images_of(model, between, steps).clamp(-1, 1)


def redrawn(model: Model, images: Tensor, strength: float, seed: int = 0, **options: object) -> Tensor:
    """Images (N, C, H, W) drawn again from the time strength · T on: SDEdit (Meng 2022), algorithm 1.

    A little noise hides the details, much of it all but the rough shape; what it hides, the model makes up.

    Args:
        model: the model.
        images: in [-1, 1], on its device.
        strength: above 0, at most 1.
        seed: of the noise.
        options: fields of `SamplingConfig` that differ from the run's; of its steps, those below that time are taken.

    Raises:
        UserError: the strength is outside (0, 1], or there are not so many levels.
    """
    *_, last = redrawing(model, images, strength, seed, **options)
    return last.x.clamp(-1, 1)


def redrawing(model: Model, images: Tensor, strength: float, seed: int = 0, **options: object) -> Iterator[Step]:
    """As `redrawn`, step by step: a generator of `Step`."""
    config = sampling_with(model.config.sampling, options)
    return generate_from(model.network, model.diffusion, images, strength, config, seed)


def reconstruction_error(model: Model, images: Tensor, steps: int) -> Tensor:
    """Mean squared error per dimension of each image (N,), in [0, 1], there and back. DDIM, table 2."""
    errors = (reconstructed(model, images, steps) - images) / 2  # from [-1, 1] to [0, 1]
    return errors.square().flatten(1).mean(1)
