"""Introduced in task 5; used by task 5.

The judge of clips: a small classifier of moving digits whose features know which digit it is and how it moves.

It was trained to tell the digit, the direction of its first step, and what is wrong with its motion, if anything is. A
Fréchet distance of its features is a video distance (Unterthiner et al. 2018, arXiv:1812.01717, has I3D's features) for
moving digits. Its weights lie beside this file (made by `python -m shared.metrics.train_video_judge`).
"""

import functools
import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from shared.errors import UserError

WEIGHTS = Path(__file__).with_name("video_judge.safetensors")
FEATURES = 128  # width of the penultimate layer, and so the dimension of the Fréchet distance
FRAMES, SIDE = 8, 32  # the fewest frames and the smallest pictures that it takes
DIGITS, DIRECTIONS = 10, 8
MOTIONS = ("normal", "still", "half speed", "double speed", "shuffled", "digit changed half-way")
HEADS = (DIGITS, DIRECTIONS, len(MOTIONS))


def spatial(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    """A convolution within each frame, batch norm and ReLU."""
    shape, steps, margin = (1, kernel, kernel), (1, stride, stride), (0, kernel // 2, kernel // 2)
    return normed(nn.Conv3d(inputs, outputs, shape, steps, margin, bias=False))


def temporal(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """A convolution over three frames at each position, batch norm and ReLU."""
    return normed(nn.Conv3d(inputs, outputs, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False))


def normed(conv: nn.Conv3d) -> nn.Sequential:
    """A convolution with what follows it."""
    return nn.Sequential(conv, nn.BatchNorm3d(conv.out_channels), nn.ReLU(inplace=True))


class VideoJudge(nn.Module):
    """Classifier of clips (B, 1, F, H, W) in [-1, 1], F ≥ 8, H and W ≥ 32; 0.22 M parameters.

    Convolutions in space and in time by turns ((2+1)D: Tran et al. 2018, arXiv:1711.11248); the mean over everything
    that is left makes it indifferent to the number of frames and to the size.
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            spatial(1, 16, kernel=5, stride=2),
            spatial(16, 32, kernel=3, stride=2),
            temporal(32, 48, stride=1),
            spatial(48, 64, kernel=3, stride=2),
            temporal(64, 96, stride=2),
            spatial(96, 128, kernel=3, stride=1),
            temporal(128, FEATURES, stride=1),
        )
        self.head = nn.Linear(FEATURES, sum(HEADS))

    def features(self, x: Tensor) -> Tensor:
        """Penultimate features (B, 128), all ≥ 0, of clips (B, 1, F, H, W) in [-1, 1].

        Raises:
            UserError: for another shape. Ranges are `tracking.check_clips`'s to check.
        """
        if x.ndim != 5 or x.shape[1] != 1 or x.shape[2] < FRAMES or min(x.shape[3:]) < SIDE:
            least = f"(N, 1, F ≥ {FRAMES}, H ≥ {SIDE}, W ≥ {SIDE})"
            raise UserError(f"the judge of clips takes {least}, not {tuple(x.shape)}")
        h = self.body(x.contiguous(memory_format=torch.channels_last_3d))  # (B, 128, F/2, H/8, W/8)
        return h.mean(dim=(2, 3, 4))  # (B, 128)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Logits of the digit (B, 10), the direction (B, 8) and the motion (B, 6), the last as in MOTIONS."""
        return self.head(self.features(x)).split(HEADS, dim=1)


@functools.cache
def load_video_judge() -> VideoJudge:
    """The committed judge of clips, on the CPU, in eval mode, without gradients; one instance a process."""
    judge = VideoJudge()
    judge.load_state_dict(load_file(WEIGHTS))  # float16 -> float32 as it copies
    judge.to(memory_format=torch.channels_last_3d)  # as the clips are: twice as fast on a CPU
    return judge.eval().requires_grad_(False)


@functools.cache
def provenance() -> dict:
    """How the committed weights were made (command, seed, versions) and how well they read held-out clips."""
    with safe_open(WEIGHTS, framework="pt") as file:
        return json.loads(file.metadata()["video_judge"])


@torch.no_grad()
def video_features(clips: Tensor, batch: int = 50) -> Tensor:
    """Features (N, 128), on the CPU, of clips (N, 1, F, H, W) in [-1, 1]."""
    judge = load_video_judge()
    parts = clips.detach().float().cpu().split(batch)
    return torch.cat([judge.features(part) for part in parts])
