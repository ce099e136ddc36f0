"""The commands of stage 1, called as a person would, but in this process: torch is imported once."""

from shared.tests import commands
from shared.tests.commands import Ended, figures, record
from task1_unconditional import edit, evaluate, sample, train

__all__ = [
    "NETWORK",
    "OWN",
    "TINY",
    "Ended",
    "call",
    "do_edit",
    "do_evaluate",
    "do_sample",
    "do_train",
    "figures",
    "record",
]

NETWORK = "--network.width 8 --network.patch 2 --network.multipliers [1] --network.attention [none]".split()
PLAIN = "--optimizer.schedule constant --optimizer.warmup 0 --diffusion.predict v --train.precision fp32".split()
TINY = [
    *NETWORK,
    *PLAIN,
    *"--network.middle-attention none --train.steps 1 --train.batch 4 --train.device cpu".split(),
    *"--train.sample-every 0 --sampling.sampler ddim --sampling.eta 0".split(),
    *"--sampling.precision fp32 --sampling.steps 2".split(),
]  # the smallest training; every option in which the demo, which holds where nothing is said, is not plain


def call(main, *arguments: object) -> Ended:
    """Run a command's `main` to its end, under the name that its module gives it."""
    return commands.call(main, "task1-" + main.__module__.rpartition(".")[2], *arguments)


def do_train(*arguments: object) -> Ended:
    """task1-train."""
    return call(train.main, *arguments)


def do_sample(*arguments: object) -> Ended:
    """task1-sample, on the CPU."""
    return call(sample.main, "--device", "cpu", *arguments)


def do_evaluate(*arguments: object) -> Ended:
    """task1-evaluate, on the CPU."""
    return call(evaluate.main, "--device", "cpu", *arguments)


def do_edit(way: str, *arguments: object) -> Ended:
    """task1-edit, on the CPU."""
    return call(edit.main, way, "--device", "cpu", *arguments)


OWN = '''
import time

import torch
from torch import nn
from torch.utils.data import Dataset


class Shades(Dataset):
    """Grey squares of random shades, a little different each time one is looked at."""

    def __init__(self, size: int, low: float = -1.0, broken: int = -1, seconds: float = 0.0):
        self.size, self.low, self.broken, self.seconds = size, low, broken, seconds

    def __len__(self):
        return 200

    def __getitem__(self, i):
        time.sleep(self.seconds)
        shade = self.low + (1 - self.low) * torch.rand(()) * (0.5 + i / 400)
        x = shade.clamp(max=1) + torch.zeros(1, self.size, self.size)
        return (x * float("nan") if i == self.broken else x), {"index": torch.tensor(i)}


class Scale(nn.Module):
    """Two numbers."""

    def __init__(self, channels: int, start: float = 1.0):
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels, 1, 1), start))
        self.shift = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x, t, cond):
        return self.scale * x + self.shift * t[:, None, None, None] / 1000
'''
