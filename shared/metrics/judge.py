"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

The judge: a small classifier of MNIST digits whose confidence, votes and features measure generated digits.

Its weights, and the statistics of its features on the 10,000 MNIST test images, lie beside this file in
`judge.safetensors` (made by `python -m shared.metrics.train_judge`), so that a clone judges without any data.
"""

import functools
import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from shared.errors import UserError

WEIGHTS = Path(__file__).with_name("judge.safetensors")
FEATURES = 128  # width of the penultimate layer, and so the dimension of the Fréchet distance
SIZE = 28  # side of the images it was trained on


def conv(inputs: int, outputs: int) -> nn.Sequential:
    """A 3×3 convolution, batch norm and ReLU that keep the image size."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Judge(nn.Module):
    """Digit classifier: images (B, 1, 28, 28) in [-1, 1] -> logits (B, 10); 0.29 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(conv(1, 32), conv(32, 32), nn.MaxPool2d(2)),
            *(conv(32, 64), conv(64, 64), nn.MaxPool2d(2)),
            *(conv(64, 128), conv(128, FEATURES)),
        )
        self.head = nn.Linear(FEATURES, 10)

    def features(self, x: Tensor) -> Tensor:
        """Penultimate features (B, 128), all ≥ 0, of images (B, 1, 28, 28) or, padded by 2, (B, 1, 32, 32).

        Raises `UserError` for any other shape. Ranges are `report.judge_samples`'s to check.
        """
        h = centre(x)  # (B, 1, 28, 28)
        h = self.body(h)  # (B, 128, 7, 7)
        return h.mean(dim=(2, 3))  # (B, 128)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 10) of images as `features` takes them."""
        return self.head(self.features(x))  # (B, 10)


def centre(images: Tensor) -> Tensor:
    """The centre 28×28 of (B, 1, 28, 28) or (B, 1, 32, 32) images; `UserError` for any other shape."""
    if images.ndim != 4 or images.shape[1] != 1 or tuple(images.shape[2:]) not in ((28, 28), (32, 32)):
        shape = tuple(images.shape)
        raise UserError(f"the judge takes digits of shape (N, 1, 28, 28) or (N, 1, 32, 32), not {shape}")
    margin = (images.shape[-1] - SIZE) // 2
    return images[..., margin : margin + SIZE, margin : margin + SIZE]


@functools.cache
def load_judge() -> Judge:
    """The committed judge, on the CPU, in eval mode, without gradients; one instance a process."""
    state = load_file(WEIGHTS)
    judge = Judge()
    judge.load_state_dict({name: state[name] for name in judge.state_dict()})  # float16 -> float32 as it copies
    judge.to(memory_format=torch.channels_last)  # a third faster on a CPU
    return judge.eval().requires_grad_(False)


@functools.cache
def reference() -> tuple[Tensor, Tensor]:
    """Mean (128,) and covariance (128, 128), float64, of the features on the 10,000 MNIST test images."""
    state = load_file(WEIGHTS)
    return state["mean"], state["covariance"]


@functools.cache
def provenance() -> dict:
    """How the committed weights were made (command, seed, versions) and their accuracy on the test images."""
    with safe_open(WEIGHTS, framework="pt") as file:
        return json.loads(file.metadata()["judge"])


@torch.no_grad()
def inspect(judge: Judge, images: Tensor, batch: int = 100) -> tuple[Tensor, Tensor]:
    """Features (N, 128) and probabilities (N, 10), on the CPU, of images (N, 1, 28|32, …) in [-1, 1]."""
    device = judge.head.weight.device
    features = torch.cat([judge.features(part.to(device)) for part in images.split(batch)])
    return features.cpu(), judge.head(features).softmax(dim=1).cpu()
