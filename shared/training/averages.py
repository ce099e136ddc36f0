"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

Averages of the weights over the training, kept by torch's `AveragedModel`.
"""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from shared.training.config import AveragesConfig
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


class Averages:
    """The averages that a config asks for, by name; each is a network like the trained one, ready to sample."""

    def __init__(self, model: nn.Module, config: AveragesConfig):
        """Start from the model's weights; build it before the model is wrapped for devices or processes."""
        self.config = config
        self.models: dict[str, AveragedModel] = {"ema": EMA(model, config.ema)}
        if config.swa_start is not None:
            self.models["swa"] = AveragedModel(model)
        for average in self.models.values():
            average.requires_grad_(False).eval()

    def update(self, model: nn.Module, n: int) -> None:
        """Take in the weights after n optimizer steps."""
        self.models["ema"].update_parameters(model)
        if (
            "swa" in self.models
            and n >= self.config.swa_start
            and (n - self.config.swa_start) % self.config.swa_every == 0
        ):
            self.models["swa"].update_parameters(model)

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
