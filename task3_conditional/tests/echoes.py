"""A model without training whose samples are known beforehand: it takes the picture it is told for the clean one."""

from pathlib import Path

import torch
from torch import Tensor, nn

from shared.conditions.config import ConditionConfig
from shared.conditions.said import Cond
from shared.schedulers.config import DiffusionConfig, GuidanceConfig, SamplingConfig
from task3_conditional.config import Config, GivenConfig
from task3_conditional.model import Model, build_diffusion


class Echo(nn.Module):
    """Answers the first channels of what it is told, moved by `off`; where nothing is told, a mix of what it sees."""

    keys = ("image",)

    def __init__(self, channels: int, off: float = 0.0):
        super().__init__()
        self.channels, self.off, self.told = channels, off, []
        self.none = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """The design's `model(x, t, cond)`."""
        self.told.append(cond["image"])
        seen = torch.tanh(x.roll(1, 2) + x.roll(3, 3))
        said = cond["image"][:, : self.channels].expand_as(x)
        return torch.where(said.isfinite(), said, seen) + self.off

    def null(self, cond: Cond) -> Cond:
        """As `Concatenation` says nothing."""
        return {"image": torch.full_like(cond["image"], torch.nan)}


def echo(kind: str = "none", shape: tuple[int, int, int] = (1, 8, 8), off: float = 0.0, **given: object) -> Model:
    """Such a model for pictures of a shape, told what `GivenConfig` says."""
    config = Config(
        condition=ConditionConfig(image="concatenation", dropout=0.1),
        given=GivenConfig(kind=kind, **given),
        diffusion=DiffusionConfig(predict="x0"),
        guidance=GuidanceConfig(scale=1.0),
        sampling=SamplingConfig(steps=6, precision="fp32"),
    )
    known = {"classes": [], "attributes": [], "text": None, "image": config.given.channels(shape[0]) or shape[0]}
    return Model(Echo(shape[0], off), build_diffusion(config), config, shape, known, Path("the echo"))


def pictures(*shape: int, seed: int = 0) -> Tensor:
    """Pictures in [-1, 1], all pixels by themselves."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
