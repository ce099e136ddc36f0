"""The discriminator: shapes, sizes that it refuses, patches, and that it learns what it is for."""

import pytest
import torch

from shared import _torchvision
from shared.datasets import DataConfig, load
from shared.datasets.ranges import to_unit
from task2_latent.discriminator import Discriminator
from task2_latent.loss_config import DiscriminatorConfig
from task2_latent.losses import hinge_discriminator


def blur(images: torch.Tensor, deviation: float) -> torch.Tensor:
    """A Gaussian blur by so many pixels."""
    _torchvision.prepare()
    from torchvision.transforms.functional import gaussian_blur

    return gaussian_blur(images, 9, [deviation, deviation])


@pytest.mark.parametrize(
    ("shape", "layers", "expected"), [((1, 28, 28), 2, (5, 5)), ((1, 28, 28), 3, (1, 1)), ((3, 256, 256), 3, (30, 30))]
)
def test_logits_of_patches(shape, layers, expected):
    discriminator = Discriminator(shape[0], DiscriminatorConfig(width=8, layers=layers))
    assert discriminator(torch.zeros(2, *shape)).shape == (2, 1, *expected)


def test_has_the_papers_size():
    """Isola's 70×70 discriminator, C64-C128-C256-C512, for two images side by side: 2.77 M parameters."""
    discriminator = Discriminator(6, DiscriminatorConfig(width=64, layers=3))
    convolutions = sum(p.numel() for name, p in discriminator.named_parameters() if p.ndim == 4)
    assert convolutions == 16 * (6 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512)


@pytest.mark.parametrize(("layers", "patch"), [(1, 16), (2, 34), (3, 70)])
def test_a_patch_is_as_wide_as_the_config_says(layers, patch):
    discriminator = Discriminator(1, DiscriminatorConfig(width=4, layers=layers))
    for module in discriminator.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.forward = lambda x: x  # a norm looks at the whole image
    x = torch.zeros(1, 1, 128, 128, requires_grad=True)
    logits = discriminator(x)
    logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2].backward()
    assert x.grad.abs().sum(dim=(0, 1, 2)).count_nonzero() == patch


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_the_smallest_image_leaves_one_patch_and_a_smaller_one_is_refused(layers):
    discriminator, least = Discriminator(1, DiscriminatorConfig(width=4, layers=layers)), 3 * 2**layers
    assert discriminator(torch.zeros(1, 1, least, least)).shape == (1, 1, 1, 1)
    with pytest.raises(ValueError, match=f"at least {least}×{least}.*fewer layers") as error:
        discriminator(torch.zeros(1, 1, 2 * least, least - 1))
    assert "\n" not in str(error.value)


def test_other_channels_are_refused():
    with pytest.raises(ValueError, match="1 channels, not 3"):
        Discriminator(1, DiscriminatorConfig(width=4, layers=1))(torch.zeros(1, 3, 16, 16))


def test_an_image_is_judged_by_itself():
    discriminator = Discriminator(1, DiscriminatorConfig(width=8, layers=2))
    x = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(discriminator(x)[:1], discriminator(x[:1]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("layers", [2, 3])
def test_learns_to_tell_sharp_digits_from_blurred_ones(layers):
    digits = to_unit(load(DataConfig(name="digits", split="train")).images[::12])
    blurred = blur(digits, 0.7)
    torch.manual_seed(0)
    discriminator = Discriminator(1, DiscriminatorConfig(width=16, layers=layers))
    optimizer = torch.optim.AdamW(discriminator.parameters(), lr=1e-3, betas=(0.5, 0.9))
    for pick in torch.randperm(300, generator=torch.Generator().manual_seed(0)).repeat(4).split(32):
        loss = hinge_discriminator(discriminator(digits[pick]), discriminator(blurred[pick]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        real, made = (discriminator(images[300:]).mean(dim=(1, 2, 3)) for images in (digits, blurred))
    assert ((real > 0).double().mean() + (made < 0).double().mean()) / 2 > 0.9
