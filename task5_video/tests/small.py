"""Small networks of stage 5, awake or new, for its tests; float64, so that what must be equal is so to many digits."""

import torch
from torch import Tensor, nn

from shared.blocks.config import UNetConfig
from shared.blocks.dit import DiT
from shared.blocks.dit_config import DiTConfig
from shared.conditions.config import ConditionConfig
from shared.conditions.network import ConditionalUNet
from shared.conditions.said import LabelTokens
from task5_video.config import TemporalConfig
from task5_video.network import VideoUNet
from task5_video.video_dit import VideoDiT

KNOWN = {"classes": list("0123456789"), "attributes": [], "text": None, "image": None}
UNET = UNetConfig(width=16, multipliers=(1, 2), attention=("none", "full"), heads=2)
DIT = DiTConfig(width=32, depth=2, heads=2, patch=4, mlp_ratio=2)
BY_LABEL = ConditionConfig(label="vanilla", dim=8, tokens=1)
SHAPE = (1, 8, 8)


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers, the same for the same seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def wake(module: nn.Module, seed: int = 1, size: float = 0.1) -> nn.Module:
    """The module with all of its parameters moved at random: nothing in it is zero any more."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        step = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data.add_(step.to(parameter) * size)
    return module


def image_unet(condition: ConditionConfig = BY_LABEL) -> ConditionalUNet:
    """Stage 3's network, awake."""
    torch.manual_seed(0)
    return wake(ConditionalUNet(1, UNET, condition, KNOWN).double())


def new_unet(image: ConditionalUNet | None = None, condition: ConditionConfig = BY_LABEL, **temporal) -> VideoUNet:
    """A U-Net for clips whose layers along time are new, and the rest an image network's."""
    temporal = {"heads": 2, **temporal}
    network = VideoUNet(1, UNET, TemporalConfig(**temporal), condition, KNOWN).double()
    missing, unknown = network.image.load_state_dict((image or image_unet(condition)).state_dict(), strict=False)
    assert not unknown
    network.added = missing  # the names of what is new
    return network


def image_dit(**options) -> DiT:
    """Stage 4's transformer, awake; told a class unless it is told nothing."""
    torch.manual_seed(0)
    told = options.pop("told", True)
    config = DiTConfig(**{**vars(DIT), **options})
    return wake(DiT(SHAPE, config, [LabelTokens(10, config.width, 1)] if told else []).double())


def new_dit(image: DiT | None = None, attention: str = "temporal", relative: bool = False, **options) -> VideoDiT:
    """A transformer for clips whose blocks along time, if any, are new."""
    image = image or image_dit(**options)
    temporal = TemporalConfig(attention=attention, positions="relative" if relative else "rotary")
    said = [LabelTokens(10, image.config.width, 1) for _ in image.said]
    network = VideoDiT(SHAPE, image.config, temporal, said).double()
    network.image.load_state_dict(image.state_dict())
    return network


def by_frame(network: nn.Module, x: Tensor, t: Tensor, cond: dict[str, Tensor]) -> Tensor:
    """What an image network answers to each frame of clips (B, C, F, H, W) by itself."""
    return torch.stack([network(x[:, :, f], t, cond) for f in range(x.shape[2])], dim=2)
