"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

Averages of the weights over the training, kept by torch's `AveragedModel`: EMAs, an equally weighted average, and
power-function profiles, from whose snapshots `posthoc.py` makes further ones when the training is over.

What each costs: a copy of the network on its device, 4 bytes a weight, and a step in which every weight of the copy is
read and written once.
"""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from shared.training.config import AveragesConfig
from shared.training.profiles import exponent
from shared.training.shards import own, shard


class EMA(AveragedModel):
    """average ← d · average + (1 - d) · weights, with a warm-up of d.

    d = min(decay, (1 + k) / (10 + k)) after k updates: in a short training a fixed decay of 0.999 would still hold
    much of the random weights of the start.
    """

    def __init__(self, model: nn.Module, decay: float):
        """Start from the model's weights."""
        super().__init__(model, multi_avg_fn=self._move)
        self.decay = decay

    @torch.no_grad()
    def _move(self, averaged: list[Tensor], current: list[Tensor], _: Tensor) -> None:
        k = int(self.n_averaged)  # not the argument: torch copies it to the device, and reading that would stall a GPU
        warm = min(self.decay, (1 + k) / (10 + k))
        torch._foreach_lerp_([own(a) for a in averaged], [own(c) for c in current], 1 - warm)


class PowerAverage(AveragedModel):
    """average ← β average + (1 - β) weights, with β = (1 - 1/t)^(γ + 1) after t - 1 updates. Karras 2024, eq. (2).

    The weights of step i of t then count as much as τ^γ holds between i - 1 and i, of all that it holds between 0 and
    t: exactly, as the product of the β telescopes. How far back the average reaches grows with the training.
    """

    def __init__(self, model: nn.Module, width: float):
        """Of a width: the profile's standard deviation as a share of the training so far."""
        super().__init__(model, multi_avg_fn=self._move)
        self.gamma = exponent(width)

    @torch.no_grad()
    def _move(self, averaged: list[Tensor], current: list[Tensor], _: Tensor) -> None:
        t = int(self.n_averaged) + 1  # not the argument, as above; the first weights are taken as they are: β(1) = 0
        fresh = 1 - (1 - 1 / t) ** (self.gamma + 1)
        torch._foreach_lerp_([own(a) for a in averaged], [own(c) for c in current], fresh)


class Averages:
    """The averages that a config asks for, by name; each is a network like the trained one, ready to sample."""

    def __init__(self, model: nn.Module, config: AveragesConfig):
        """Start from the model's weights; build it before the model is wrapped for devices or processes."""
        self.config = config
        self.models: dict[str, AveragedModel] = {"ema": EMA(model, config.ema)}
        self.models |= {f"ema-{decay!r}": EMA(model, decay) for decay in map(float, config.more)}
        if config.swa_start is not None:
            self.models["swa"] = AveragedModel(model)
        self.profiles = {f"profile-{width!r}": PowerAverage(model, width) for width in map(float, config.profiles)}
        self.models |= self.profiles
        for average in self.models.values():
            average.requires_grad_(False).eval()

    def update(self, model: nn.Module, n: int) -> None:
        """Take in the weights after n optimizer steps."""
        start = self.config.swa_start
        for name, average in self.models.items():
            if name != "swa" or (n >= start and (n - start) % self.config.swa_every == 0):
                average.update_parameters(model)

    def snapshot_due(self, n: int) -> bool:
        """Whether the profiles are to be kept as they are after n optimizer steps."""
        return bool(self.profiles) and n % self.config.snapshot_every == 0

    def to(self, device: torch.device) -> "Averages":
        """Move the weights. The counts stay on the CPU: each update reads them, which would stall a GPU."""
        for average in self.models.values():
            average.module.to(device)
        return self

    def shard(self, device: torch.device) -> None:
        """Keep a share of each average, as `shard` leaves one of the network."""
        for average in self.models.values():
            shard(average.module, device)

    def network(self, name: str) -> nn.Module:
        """The averaged network itself."""
        return self.models[name].module

    def counts(self) -> dict[str, int]:
        """How many weights each average has taken in. Restored on resume: without it the warm-up would start again."""
        return {name: int(average.n_averaged) for name, average in self.models.items()}

    def restore_counts(self, counts: dict[str, int]) -> None:
        """Set what `counts` gave."""
        for name, average in self.models.items():
            average.n_averaged.fill_(counts[name])
