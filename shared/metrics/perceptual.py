"""Introduced in task 2; used by tasks 2, 3.

Perceptual distances: how far two images are apart for a trained network, and so, better than by pixels, for people.

LPIPS (Zhang et al. 2018, arXiv 1801.03924) and ST-LPIPS (Ghildyal & Liu 2022, arXiv 2207.13686), which minds a shift by
a pixel less, and whose weights come with its package: it works without a network.
"""

import contextlib
import pickle
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared import _torchvision
from shared.errors import UserError
from shared.metrics.config import Perceptual as Name
from shared.metrics.config import Trunk

SIZE = 64  # the side of the patches that people compared, and on which both distances were fitted


class Perceptual(nn.Module):
    """A trained distance, frozen: a gradient reaches the images alone."""

    def __init__(self, network: nn.Module, size: int = SIZE):
        """Of a network (images, images) -> (B, 1, 1, 1); images with a shorter side than `size` are enlarged to it.

        Smaller images leave its last layers a handful of positions and make noise, shifts and contrast count for too
        little beside blur: of digits at 28 pixels, noise of deviation 0.4 is as far as a blur of 0.5, at 64 as one
        of 1.3.
        """
        super().__init__()
        self.network, self.size = network.requires_grad_(False).eval(), size

    def train(self, mode: bool = True) -> "Perceptual":
        """Stay in evaluation: its dropout is for its own training."""
        return super().train(False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances (B,), ≥ 0, of images (B, 1 or 3, H, W) in [-1, 1].

        Raises:
            ValueError: the two differ in shape, or have neither one channel nor three.
        """
        if a.shape != b.shape or a.ndim != 4 or a.shape[1] not in (1, 3):
            shapes = f"{tuple(a.shape)} and {tuple(b.shape)}"
            raise ValueError(f"a perceptual distance takes two batches (B, 1 or 3, H, W) of one shape, not {shapes}")
        return self.network(self.fitted(a), self.fitted(b)).flatten()

    def fitted(self, x: Tensor) -> Tensor:
        """(B, 1 or 3, H, W) to three channels, not smaller than `size`."""
        x = x.expand(-1, 3, -1, -1)
        factor = self.size / min(x.shape[2:])
        if factor <= 1:
            return x
        size = [round(side * factor) for side in x.shape[2:]]
        return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def build_perceptual(name: Name, trunk: Trunk = "alex", size: int = SIZE) -> Perceptual | None:
    """A distance by its name, on the CPU; None for "none". Torch's generator is left as it is.

    Raises:
        UserError: the weights of lpips' trunk are not there and cannot be had.
    """
    if name == "none":
        return None
    with torch.random.fork_rng(devices=[]):  # the networks draw first weights before they load the trained ones
        return Perceptual({"lpips": lpips, "st_lpips": st_lpips}[name](trunk), size)


@contextlib.contextmanager
def stand_ins(**attributes: str) -> Iterator[None]:
    """Let `from module import attribute` succeed inside, without the module; it is gone again afterwards."""
    missing = {module: types.ModuleType(module) for module in attributes if module not in sys.modules}
    for module, stand_in in missing.items():
        setattr(stand_in, attributes[module], None)
    sys.modules.update(missing)
    try:
        yield
    finally:
        for module in missing:
            del sys.modules[module]


def st_lpips(trunk: Trunk) -> nn.Module:
    """ST-LPIPS with the weights that its package holds.

    The package imports two modules for its author's debugging that it neither calls nor declares. It reads its weights
    by `torch.load`, which since torch 2.6 unpickles tensors only.
    """
    _torchvision.prepare()
    import torchvision  # noqa: F401  before the stand-ins: what it imports is to see the real modules

    with stand_ins(IPython="embed", torchsummary="summary"):
        from stlpips_pytorch import stlpips
    return stlpips.LPIPS(net=trunk, variant="shift_tolerant", verbose=False)


def lpips(trunk: Trunk) -> nn.Module:
    """LPIPS v0.1: a trunk trained on ImageNet, out of torch's cache or downloaded, under the package's own weights.

    The package would unpickle whatever lies in the cache. Here the trunk is read as tensors only, and put into a
    network that the package made with random weights.
    """
    _torchvision.prepare()
    from lpips import LPIPS
    from torchvision import models

    weights = {"alex": models.AlexNet_Weights, "vgg": models.VGG16_Weights}[trunk].IMAGENET1K_V1
    trained = read_trunk(weights.url)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it names torchvision's arguments as one did before 2022
        network = LPIPS(net=trunk, pnet_rand=True, verbose=False)
    with torch.no_grad():
        for name, parameter in network.net.named_parameters():
            _, layer, kind = name.split(".")  # slice2.3.weight is the features' layer 3
            parameter.copy_(trained[f"features.{layer}.{kind}"])
    return network


def read_trunk(url: str) -> dict[str, Tensor]:
    """The weights at an address, out of torch's cache if they are there. Raises UserError where that fails."""
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    try:
        return torch.hub.load_state_dict_from_url(
            url, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"lpips needs {file}, which could not be had ({reason}): put {url} there, or use loss.perceptual st_lpips, "
            "which needs no download"
        ) from None


@torch.no_grad()
def mean_distance(perceptual: Perceptual, reconstructions: Tensor, originals: Tensor, batch: int = 50) -> float:
    """Mean distance of reconstructions (N, 1 or 3, H, W) to their originals, both in [-1, 1]; on any device."""
    device = next(perceptual.parameters()).device
    pairs = zip(reconstructions.split(batch), originals.split(batch), strict=True)
    return torch.cat([perceptual(a.to(device), b.to(device)) for a, b in pairs]).double().mean().item()
